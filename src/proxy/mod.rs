//! The front: HTTP and WebSocket traffic in, requests to the right server of the right upstream out.
//!
//! A request's way: listener -> [`route`] (which upstream or page) -> [`upstream`] (which server; health and passive
//! ejection decide who may be asked) -> pingora (transport) -> [`access_log`] and [`metrics`]. [`runtime`] is what the
//! configuration looks like while it runs, replaced whole on a reload. `route` and [`upstream::select`] are pure: values in,
//! values out. [`error`] is the one place that chooses a status.

mod accept;
pub mod access_log;
pub mod client_ip;
pub mod error;
pub mod forward;
pub mod metrics;
pub mod request_id;
pub mod retry;
pub mod route;
pub mod runtime;
mod scratch;
pub mod upstream;
pub mod view;
mod websocket;
