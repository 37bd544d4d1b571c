//! Connections to PostgreSQL: opened, logged in, and proven ready before anybody may lease them.
//!
//! In: a [`connect::Spec`]. Out: a [`login::Fresh`] connection that stands at its first ReadyForQuery with nothing
//! buffered, or a [`error::ServerError`] that every waiter may be told.

pub mod ask;
pub mod cancel;
pub mod connect;
pub mod credential;
pub mod error;
pub mod hosts;
pub mod login;
pub mod pooled;
pub mod secure;
pub mod stream;

#[cfg(test)]
mod tests;
