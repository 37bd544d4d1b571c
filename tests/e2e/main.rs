//! The real binary, real Django under uvicorn, real PostgreSQL, real psycopg: what an operator would see.
//!
//! One stack (PostgreSQL, three replicas, bookend) is shared by the tests that only look; tests that break things start
//! their own. Everything listens on free loopback ports and dies with the test process.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod support;

mod admin;
mod bad_input;
mod balancing;
mod database_down;
mod drivers;
mod exporter;
mod living;
mod pooling;
mod postgres_restart;
mod replica_death;
mod streaming;
mod websockets;
