//! Connections to PostgreSQL: opened, logged in, and proven ready before anybody may lease them.

pub mod error;
