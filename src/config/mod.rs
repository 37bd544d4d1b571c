//! What the operator wrote, checked. Knows nobody else in the program.
//!
//! Flow: file text -> `load` (YAML, positions, `${VAR}`) -> a raw reader per section that collects every error with file,
//! line, column and key path -> the checked values in [`lb`] and [`pool`]. A configuration exists whole or not at all.

pub mod lb;
pub mod pool;
pub mod secret;

use std::sync::Arc;

/// Everything one run was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Present when the front runs.
    pub lb: Option<Arc<lb::Lb>>,
    /// Present when the pool runs.
    pub pool: Option<Arc<pool::Pool>>,
    pub admin: Option<lb::Admin>,
    pub shutdown: lb::Shutdown,
    pub sources: lb::Sources,
}
