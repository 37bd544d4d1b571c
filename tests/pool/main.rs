//! The pool in this process, in front of a real PostgreSQL, with real clients.

mod cancel;
mod console;
mod leftovers;
mod limits;
mod reload;
mod servers;
mod sessions;
mod strangers;
mod support;
mod transactions;
