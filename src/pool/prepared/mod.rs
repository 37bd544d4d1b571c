//! Prepared statements for clients whose servers change under them.
//!
//! A client's name stands for a [`Statement`]: text and parameter types, shared by everybody who prepared the same. A
//! server knows the statement by the statement's own name (`bookend_7`), the same on every server, so that it is prepared
//! once per server however many clients use it under however many names. [`client`] maps a client's names, [`server`] knows
//! what a server has and what it must forget to make room, [`statement`] makes equal statements one, [`text`] says which texts
//! are worth a name though their clients gave them none.
//!
//! Requests are pipelined, so what a side "has" can still be undecided: a Parse that was sent may yet fail or be discarded
//! with its batch. Both maps say in which Sync batch a change was sent; inside that batch it holds (if it fails, all that
//! relies on it is discarded with it), outside it is undecided until the answer has come.

pub mod client;
pub mod metrics;
pub mod server;
pub mod statement;
pub mod text;

pub use statement::{Interner, Long, Statement};

/// Counts a client's Sync messages: what stands or falls together.
pub type Batch = u64;

/// One change that was sent: in which batch, and which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub batch: Batch,
    pub number: u64,
}

#[cfg(test)]
mod tests;
