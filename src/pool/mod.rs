//! The PostgreSQL pool: clients come in on one side, a few server connections stand on the other.
//!
//! [`wire`] is the protocol as bytes and knows nothing of the crate; [`error`] is everything the pool says by itself.

pub mod error;
pub mod server;
pub mod wire;
