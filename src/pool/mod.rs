//! (being built)

pub mod error;
pub mod server;
