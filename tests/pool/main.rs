//! The pool in this process, in front of a real PostgreSQL, with real clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod batches;
mod cancel;
mod console;
mod deallocate;
mod differential;
mod frames;
mod function_call;
mod hosts;
mod ini;
mod intruders;
mod leftovers;
mod limits;
mod listening;
mod mechanics;
mod notify;
mod operation;
mod peers;
mod pgjdbc;
mod prepared;
mod process;
mod protocol;
mod reload;
mod replication;
mod resets;
mod servers;
mod sessions;
mod settings;
mod shows;
mod slow_clients;
mod sqlx_driver;
mod state;
mod state_differential;
mod statement_mode;
mod strangers;
mod support;
mod tls;
mod transactions;
