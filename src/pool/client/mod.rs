//! One client of the pool, from its first byte.

mod ahead;
pub mod arrival;
pub mod deadline;
pub(super) mod handshakes;
pub mod login;
mod notice;
pub mod refuse;
mod replication;
pub mod scratch;
pub mod session;
pub mod startup;
pub mod turns;
pub mod welcome;
