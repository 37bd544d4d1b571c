//! The front: HTTP and WebSocket traffic in, requests to the right server of the right upstream out.
//!
//! A request's way: `listener` -> `accept` (strict heads, deadlines, keep-alive) -> `gateway` (pingora's phases) -> [`route`]
//! (which upstream or page) -> [`upstream`] (which server; health and passive ejection decide who may be asked) -> pingora
//! (transport), or `websocket` -> `record` ([`access_log`], [`metrics`]). [`runtime`] is what the configuration looks like
//! while it runs, replaced whole on a reload. `route` and [`upstream::select`] are pure: values in, values out. [`error`] is
//! the one place that chooses a status. [`Front`] is what the rest of the program sees of all this.

mod accept;
pub mod access_log;
mod address_text;
mod attempts;
mod builtin;
pub mod client_ip;
pub mod cookie;
mod ctx;
mod entry;
pub mod error;
mod fault;
pub mod forward;
mod front;
mod gateway;
mod hash_key;
mod header_rules;
mod http2;
mod listener;
pub mod metrics;
mod own_answer;
pub mod proxy_protocol;
mod record;
mod reload;
mod reply;
pub mod request_id;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod runtime;
mod scratch;
mod template;
pub mod upstream;
pub mod view;
mod websocket;

use std::sync::Arc;

use arc_swap::ArcSwap;

use self::{access_log::AccessLog, runtime::Runtime};
pub use self::{
    builtin::Pages,
    front::{Deps, Front, FrontError},
};
use crate::health::drain::Drain;

/// What every connection and request of a front shares.
struct Shared {
    /// Replaced by a reload.
    runtime: ArcSwap<Runtime>,
    drain: Drain,
    pages: Arc<Pages>,
    access_log: Option<AccessLog>,
}
