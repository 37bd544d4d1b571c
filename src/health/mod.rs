//! What the two halves know of each other, and the life of the process.
//!
//! The pool publishes each database's state on the [`board`]; the proxy reads it there, and publishes its servers' names
//! and addresses in turn. Neither half names the other. [`ready`] says what is missing before traffic may come, [`drain`]
//! how the process leaves.

pub mod board;
pub mod drain;
pub mod ready;
pub mod threshold;
