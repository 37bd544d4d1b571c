//! What the process tells about itself: metrics, logs, request ids, and the pages built from them.
//!
//! Components register their own metrics (`*/metrics.rs`) into the [`prometheus::Registry`] they are handed, so that two
//! whole programs can live in one test process. There is no global registry and no global counter.

pub mod view;
