//! What the two halves know of each other, and the life of the process.
//!
//! The pool publishes each database's state on the [`board`]; the proxy reads it there, and publishes its servers' names
//! and addresses in turn. Neither half names the other. [`report`] is the page made of both. [`probe`] is the loop with
//! which either half looks at what it depends on, [`threshold`] how many results change its mind. [`ready`] says what is
//! missing before traffic may come, [`drain`] how the process leaves, [`control`] what an operator may ask of it.

pub mod board;
pub mod control;
pub mod drain;
pub mod probe;
pub mod ready;
pub mod report;
pub mod threshold;
