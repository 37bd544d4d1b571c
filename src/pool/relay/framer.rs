//! Finds the messages in one direction's bytes, wherever they are split, and keeps as little of them as can be.
//!
//! A handler sees a header and as much of the body as is there, and says what becomes of the message. What is passed or
//! skipped is not kept: only its length is counted down. A handler that must see more of a body gets it from `held`, the
//! one buffer, which begins with the message's header and is let go of when the message is decided.

use super::sink::Sink;
use crate::pool::{
    error::PoolError,
    wire::frame::{HEADER_LEN, Header, HeaderError},
};

/// A held message's buffer is given back to the allocator above this.
const KEEP_CAPACITY: usize = 16 * 1024;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes unchanged.
    Pass,
    Skip,
    /// The handler wrote header and the first bytes of the body anew; the body passes from here.
    PassBodyFrom(usize),
    /// More of the body must be seen.
    NeedMore,
    /// It cannot be decided now; ask again later, nothing of it is taken.
    Later,
}

/// How a feed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    /// Bytes of the input that were taken.
    pub taken: usize,
    /// The handler said [`Verdict::Later`].
    pub waiting: bool,
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// Bytes of a decided message that are still to come.
    left: usize,
    skipping: bool,
    /// The start of an undecided message.
    held: Vec<u8>,
}

impl Framer {
    /// Returns whether nothing of a message has been seen that is not complete.
    pub(super) fn is_at_start(&self) -> bool {
        self.left == 0 && self.held.is_empty()
    }

    /// Returns whether the output ends between two messages: one that is held has not been let out yet.
    pub(super) fn output_is_at_start(&self) -> bool {
        self.left == 0
    }

    /// Looks at `input`. `handle` is called once or more for each message, at its start.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        out: &mut Sink<'_>,
        max_len: u32,
        mut handle: impl FnMut(Header, &[u8], &mut Sink<'_>) -> Result<Verdict, PoolError>,
    ) -> Result<Fed, PoolError> {
        let mut at = 0;
        loop {
            at += self.stream(&input[at..], at, out);
            if self.left > 0 {
                return Ok(Fed { taken: at, waiting: false });
            }
            if !self.held.is_empty() {
                let (taken, done) = self.decide_held(&input[at..], out, max_len, &mut handle)?;
                at += taken;
                match done {
                    Done::Decided => continue,
                    Done::Short => return Ok(Fed { taken: at, waiting: false }),
                    Done::Later => return Ok(Fed { taken: at, waiting: true }),
                }
            }
            let rest = &input[at..];
            let Some(header) = peek(rest, max_len)? else {
                self.held.extend_from_slice(rest);
                return Ok(Fed { taken: input.len(), waiting: false });
            };
            let here = rest.len().min(header.total_len());
            let verdict = handle(header, &rest[HEADER_LEN..here], out)?;
            match verdict {
                Verdict::Pass => out.pass(at..at + here),
                Verdict::Skip => {}
                Verdict::PassBodyFrom(from) => out.pass(at + HEADER_LEN + from..at + here),
                Verdict::NeedMore => {
                    debug_assert!(here < header.total_len());
                    self.held.extend_from_slice(rest);
                    return Ok(Fed { taken: input.len(), waiting: false });
                }
                Verdict::Later => return Ok(Fed { taken: at, waiting: true }),
            }
            self.left = header.total_len() - here;
            self.skipping = verdict == Verdict::Skip;
            at += here;
        }
    }

    /// Streams what is left of a decided message; returns how much of `input`, which starts at `at` of the chunk.
    fn stream(&mut self, input: &[u8], at: usize, out: &mut Sink<'_>) -> usize {
        let n = self.left.min(input.len());
        if n > 0 && !self.skipping {
            out.pass(at..at + n);
        }
        self.left -= n;
        n
    }

    /// Goes on with the held message, taking what is missing from `input`.
    fn decide_held(
        &mut self,
        mut input: &[u8],
        out: &mut Sink<'_>,
        max_len: u32,
        handle: &mut impl FnMut(Header, &[u8], &mut Sink<'_>) -> Result<Verdict, PoolError>,
    ) -> Result<(usize, Done), PoolError> {
        let mut taken = 0;
        let mut hold = |held: &mut Vec<u8>, up_to: usize| {
            let n = up_to.saturating_sub(held.len()).min(input.len());
            held.extend_from_slice(&input[..n]);
            input = &input[n..];
            taken += n;
            n > 0
        };
        hold(&mut self.held, HEADER_LEN);
        let Some(header) = peek(&self.held, max_len)? else { return Ok((taken, Done::Short)) };
        loop {
            let verdict = handle(header, &self.held[HEADER_LEN..], out)?;
            match verdict {
                Verdict::Later => return Ok((taken, Done::Later)),
                Verdict::NeedMore if hold(&mut self.held, header.total_len()) => continue,
                Verdict::NeedMore => return Ok((taken, Done::Short)),
                Verdict::Pass => out.put(&self.held),
                Verdict::PassBodyFrom(from) => out.put(&self.held[HEADER_LEN + from..]),
                Verdict::Skip => {}
            }
            self.left = header.total_len() - self.held.len();
            self.skipping = verdict == Verdict::Skip;
            self.held.clear();
            if self.held.capacity() > KEEP_CAPACITY {
                self.held = Vec::new();
            }
            return Ok((taken, Done::Decided));
        }
    }
}

enum Done {
    Decided,
    Short,
    Later,
}

fn peek(bytes: &[u8], max_len: u32) -> Result<Option<Header>, PoolError> {
    Header::peek(bytes, max_len).map_err(|error| match error {
        HeaderError::TooShort { .. } => PoolError::Protocol { why: "invalid message length" },
        HeaderError::TooLong { len, limit, .. } => {
            PoolError::PacketTooLarge { len: u64::from(len), limit: u64::from(limit) }
        }
    })
}
