//! Doors for `benches/` and `fuzz/`, no part of what the pool offers: the framer, the queue of what is owed and the reading of
//! SQL are private to the relay, whose invariants lean on nobody else calling them. Opening the types for a stopwatch would give
//! that up; these take bytes and counts, and hand out counts and words.

use super::{
    census,
    framer::{Framer, Verdict},
    owed::{Action, Kind, Owed},
    sink::Sink,
    sql,
};
use crate::pool::error::PoolError;

/// One direction's framer, with a handler that lets everything pass.
#[derive(Debug, Default)]
pub struct Scan {
    framer: Framer,
    staged: Vec<u8>,
}

impl Scan {
    /// Looks at a chunk; returns the messages that began in it and the bytes that may be written on.
    ///
    /// # Errors
    /// When the bytes are not messages.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(usize, usize), PoolError> {
        let mut messages = 0;
        let mut out = Sink::new(chunk, &mut self.staged);
        self.framer.feed(chunk, &mut out, i32::MAX as u32, |_, _, _| {
            messages += 1;
            Ok(Verdict::Pass)
        })?;
        let (staged, rest) = out.into_parts();
        let passed = staged.len() + rest.len();
        staged.clear();
        Ok((messages, passed))
    }
}

/// What a server owes.
#[derive(Debug, Default)]
pub struct Queue(Owed);

impl Queue {
    /// A pipeline of `batches` times Bind, Describe, Execute, Sync is sent before its first answer comes; returns how many of
    /// its requests were answered.
    pub fn pipeline(&mut self, batches: usize) -> usize {
        for _ in 0..batches {
            for kind in [Kind::Bind, Kind::Describe, Kind::Execute] {
                self.0.push(kind, Action::Forward);
            }
            self.0.push_sync(false);
        }
        std::iter::from_fn(|| self.0.pop()).count()
    }

    /// The same pipeline, whose first request fails: the rest of its batch is taken out, and so for every batch.
    pub fn failing(&mut self, batches: usize) -> usize {
        for _ in 0..batches {
            for kind in [Kind::Bind, Kind::Describe, Kind::Execute] {
                self.0.push(kind, Action::Forward);
            }
            self.0.push_sync(false);
        }
        let mut undone = 0;
        while !self.0.is_empty() {
            self.0.discard_batch(|_, _| undone += 1);
            self.0.pop();
        }
        undone
    }
}

/// Reads a text in every way in which texts that pass are read; returns what the log would show of it.
pub fn sql(text: &[u8]) -> String {
    for hints in [sql::hints(text), sql::Hints::ALL] {
        let _reading = sql::read(text, hints);
    }
    let _name = sql::deallocated(text);
    sql::masked(text)
}

/// Returns whether this is the body of a row that a server may answer to the question what is left on it.
pub fn census_row(body: &[u8]) -> bool {
    census::Question::default().row(body).is_ok()
}
