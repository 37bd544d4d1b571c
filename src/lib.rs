//! Bookend: one process on both sides of a Django deployment.
//!
//! [`proxy`] is the HTTP and WebSocket load balancer in front, [`pool`] the PostgreSQL transaction pool behind; [`health`]
//! is what they know of each other, [`config`] what the operator wrote, [`telemetry`] what the process tells about itself,
//! [`admin`] the pages that show it, and [`app`] the one place that sees everything. `ARCHITECTURE.md` draws the arrows.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod health;
pub mod pool;
pub mod proxy;
pub mod telemetry;
pub mod tls;
