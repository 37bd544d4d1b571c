//! One client and one server, from the client's first message to the boundary at which the server can serve another.
//!
//! What flows in: two byte streams and what is known of each side. What flows out: the same bytes, but for the few messages
//! that must name statements as the server knows them, and a verdict on the server. The core ([`session`]) is told about
//! bytes and answers what becomes of them; it knows no socket and no clock. The driver ([`drive`]) moves bytes, both ways at
//! once, and stops reading where it could not write.
//!
//! A client whose session has left something on its server that cannot be moved keeps the server past the boundary, for as
//! long as the server itself says that it is there.
//!
//! What must always hold: a server goes back only when its last ReadyForQuery said `I`, it owes no answer, no COPY or extended
//! batch is open, both directions stand between two messages, and nothing is buffered towards the server. What is buffered
//! towards the client is the client's own: whole messages that the server has done with ([`Outcome::Spilled`]).
//!
//! | file | one idea |
//! |---|---|
//! | `state` | what outlives a lease: a client's names and settings, a server's |
//! | `owed` | what the server owes, in order |
//! | `framer`, `sink` | where messages begin, and where their bytes go, without keeping them |
//! | `session` | the state of a lease, and when it is over |
//! | `from_client`, `statements` | what becomes of a client's message |
//! | `unnamed` | the statement that lives until somebody parses another |
//! | `columns` | never rows of other columns than a client was told |
//! | `heal` | sending a batch again whose statement's plan no longer held |
//! | `from_server` | what becomes of a server's message |
//! | `sql` | what can be told from SQL by looking at it |
//! | `leftovers`, `settle`, `census` | what SQL may leave on a server, what follows from that, and what the server says is left |
//! | `listen` | notifications without a server |
//! | `deallocate` | `DEALLOCATE` of a name that the protocol gave |
//! | `drive`, `backlog`, `pace` | sockets, backpressure, timeouts |
//! | `spill` | what a slow client is kept without its server, and how much of it |
//! | `recover` | making an abandoned server fit again |
//! | [`bench`] | two doors for `benches/` |

mod backlog;
#[doc(hidden)]
pub mod bench;
mod census;
mod columns;
mod control;
mod covert;
mod deallocate;
mod drive;
mod framer;
mod from_client;
mod from_server;
mod heal;
mod leftovers;
mod listen;
mod owed;
mod pace;
mod recover;
mod reshape;
mod session;
mod settle;
mod sink;
mod spill;
mod sql;
mod state;
mod statements;
mod unnamed;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    control::{Control, Kill},
    drive::{Given, MAIL_MAX, run},
    recover::{recover, renew, reset},
    spill::{SpillMemory, Untaken},
    state::{ClientState, ServerState},
};
use crate::{config::pool::PoolMode, pool::error::PoolError};

/// What the configuration says about a lease.
#[derive(Debug, Clone)]
pub struct Limits {
    pub mode: PoolMode,
    /// Of any message, as its length field says it.
    pub max_packet_size: u32,
    /// Of a message that must be seen whole.
    pub max_held_message: usize,
    /// On each server. 0, or session mode: names pass as they are.
    pub max_prepared_statements: usize,
    /// Statements without a name are given one ([`unnamed`]).
    pub prepare_unnamed_statements: bool,
    pub query_timeout: Option<Duration>,
    pub transaction_timeout: Option<Duration>,
    pub idle_transaction_timeout: Option<Duration>,
    /// Simple queries are refused.
    pub disable_pqexec: bool,
    /// Bytes of answers kept for a client that does not take them. 0: none, its server waits for it.
    pub spill_buffer: usize,
    /// Of a client that keeps its server, between its transactions.
    pub client_idle_timeout: Option<Duration>,
    /// How long what a client sent before it left may take on the server.
    pub rollback_timeout: Duration,
}

/// What became of a lease.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// At a proven boundary; the client goes on without a server. In session mode, and when the client kept its server
    /// beyond its transaction, only when the control is draining.
    Released { server: Fate },
    /// At a proven boundary; the client still has to take the rest of its answer. In session mode as [`Self::Released`], and
    /// when the client said that it leaves.
    Spilled { server: Fate, untaken: Box<Untaken> },
    /// The client has gone: it said so, or hung up.
    Left { server: Fate },
    /// The client was told, if it could be; both connections are to be closed.
    Ended { error: PoolError },
}

/// What a server is fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The next client, as it is.
    Reusable,
    /// The next client, after [`recover`].
    Rollback,
    /// The next client, after `DISCARD ALL` ([`reset`]), and [`recover`] before that if a transaction is open.
    Discard,
    Close,
}
