//! Where one direction's bytes go while a chunk is looked at: as few copies as the messages allow.
//!
//! What passes unchanged stays where it was read and is written from there; only what is put between messages, and what
//! follows it in the same chunk, is copied.

use std::ops::Range;

/// Output of one chunk of input: `staged`, then the `run` of the chunk.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    chunk: &'a [u8],
    run: Range<usize>,
    staged: &'a mut Vec<u8>,
}

impl<'a> Sink<'a> {
    /// Starts with nothing passed. `staged` must be empty; its capacity is reused.
    pub(super) fn new(chunk: &'a [u8], staged: &'a mut Vec<u8>) -> Self {
        debug_assert!(staged.is_empty());
        Self { chunk, run: 0..0, staged }
    }

    /// Passes a range of the chunk.
    pub(super) fn pass(&mut self, range: Range<usize>) {
        if range.start == self.run.end {
            self.run.end = range.end;
        } else {
            self.stage_run();
            self.run = range;
        }
    }

    /// Puts bytes of our own, or of an earlier chunk, next.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.writer().extend_from_slice(bytes);
    }

    /// Returns a buffer whose end is next in the output.
    pub(super) fn writer(&mut self) -> &mut Vec<u8> {
        self.stage_run();
        self.staged
    }

    /// Returns the output: what was staged, then what can be written from the chunk itself.
    pub(super) fn into_parts(self) -> (&'a mut Vec<u8>, &'a [u8]) {
        (self.staged, &self.chunk[self.run])
    }

    fn stage_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.staged.extend_from_slice(&self.chunk[run]);
    }
}
