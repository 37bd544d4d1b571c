//! PostgreSQL's frontend/backend protocol 3.0, as bytes: what flows in and out is slices and `Vec<u8>`, never a socket.
//!
//! A pooler must understand very little of the protocol: every message is a tag and a length ([`frame`]), and its body
//! can pass unseen. [`read`] parses the handful of bodies that must be understood, [`backend`] writes what a server would
//! say and [`frontend`] what a client would say. Nothing here imports the crate, panics on input, or allocates but into
//! the buffer it was handed.
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", section "Message Formats".

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod read;
pub mod tag;

#[cfg(test)]
mod tests;
