//! What the process tells about itself: metrics, the program's own log, and the pages built from them.
//!
//! Components register their own metrics (`*/metrics.rs`) into the [`prometheus::Registry`] they are handed, so that two
//! whole programs can live in one test process. There is no global registry and no global counter. The access log is the
//! proxy's: it belongs to requests, not to the process.

pub mod guard;
pub mod log;
pub mod metrics;
mod procfs;
pub mod view;
