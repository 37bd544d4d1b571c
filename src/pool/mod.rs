//! The PostgreSQL pool: clients come in on one side, a few server connections stand on the other.
//!
//! A connection comes in at [`listener`], says what it wants and who it is ([`client`], [`auth`]) and becomes a session,
//! which is idle, waits for a [`lease`] of a server, or is in the hands of the [`relay`], the one place that sees a client
//! and a server together, with [`prepared`] statements and [`params`] that follow a client from server to server.
//! [`notify`] listens for clients that LISTEN. [`pooler`] ties it all together and takes an operator's orders; [`rules`] is what the configuration means; [`names`]
//! finds servers; [`cancel`] stops queries; `lookup` asks PostgreSQL who a user is;
//! [`registry`] is everybody who is connected; [`console`], [`probe`] and [`metrics`] look on. [`wire`] is the protocol as
//! bytes and knows nothing of the crate; [`error`] is everything the pool says by itself.

pub mod auth;
pub mod cancel;
pub mod client;
pub mod console;
mod database;
pub mod error;
pub mod lease;
pub mod listener;
mod lookup;
pub mod metrics;
pub mod names;
pub mod notify;
mod orders;
pub mod params;
pub mod peer;
mod peering;
pub mod pins;
pub mod pooler;
pub mod prepared;
pub mod probe;
pub mod registry;
pub mod relay;
pub mod rules;
pub mod server;
pub mod socket;
mod source;
pub mod stats;
mod user_limits;
pub mod wire;

/// A door for `fuzz/`.
#[doc(hidden)]
pub use lookup::is_lookup_answer;
