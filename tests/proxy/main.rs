//! The front in this process, between scripted servers and clients that see every byte.

#[path = "../support/front.rs"]
mod front;
#[path = "../support/http.rs"]
mod http;

mod balancing;
mod failures;
mod leaving;
mod memory;
mod requests;
mod streaming;
mod websockets;
