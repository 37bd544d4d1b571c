//! The PostgreSQL pool: clients come in on one side, a few server connections stand on the other.
//!
//! [`wire`] is the protocol as bytes and knows nothing of the crate; [`error`] is everything the pool says by itself;
//! [`registry`] is everybody who is connected, [`lease`] the store of server connections, [`relay`] the one place that sees
//! a client and a server together, with [`prepared`] statements and [`params`] that follow a client from server to server.

pub mod auth;
pub mod client;
pub mod console;
pub mod error;
pub mod lease;
pub mod metrics;
pub mod params;
pub mod prepared;
pub mod probe;
pub mod registry;
pub mod relay;
pub mod server;
pub mod stats;
pub mod wire;
