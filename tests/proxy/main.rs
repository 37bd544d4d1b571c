//! The front in this process, between scripted servers and clients that see every byte.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

#[path = "../support/front.rs"]
mod front;
#[path = "../support/http.rs"]
mod http;

mod balancing;
mod failures;
mod https;
mod leaving;
mod queueing;
mod requests;
mod streaming;
mod websockets;
