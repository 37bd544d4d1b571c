//! Finds the messages in one direction's bytes, wherever they are split, and keeps as little of them as can be.
//!
//! A handler sees a header and as much of the body as is there, and says what becomes of the message. What is passed or
//! skipped is not kept: only its length is counted down. A handler that must see more of a body gets it from `held`, the
//! one buffer, which begins with the message's header and is let go of when the message is decided.
//!
//! Rows and COPY data come in long runs of short messages. A handler that says of one what holds for the next as well is not
//! asked again for those of the same tag that are in the chunk from end to end: their headers are all that is read of them.

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
    /// It passes unchanged, and so do the messages of the same tag right behind it: none of them changes anything.
    PassAlike,
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
            let mut end = at + here;
            match verdict {
                Verdict::Pass => out.pass(at..end),
                Verdict::PassAlike => {
                    end = alike_end(input, end, header.tag, max_len);
                    out.pass(at..end);
                }
                Verdict::Skip => {}
                Verdict::PassBodyFrom(from) => out.pass(at + HEADER_LEN + from..end),
                Verdict::NeedMore => {
                    debug_assert!(here < header.total_len());
                    self.held.extend_from_slice(rest);
                    return Ok(Fed { taken: input.len(), waiting: false });
                }
                Verdict::Later => return Ok(Fed { taken: at, waiting: true }),
            }
            self.left = header.total_len() - here;
            self.skipping = verdict == Verdict::Skip;
            at = end;
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
                Verdict::Pass | Verdict::PassAlike => out.put(&self.held),
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

/// Returns where the run of whole messages with this tag ends that starts at `at`. A header that is none ends it: the one who
/// reads it next says so. So does a message that is not all here, and `at` itself may be in the middle of one.
fn alike_end(input: &[u8], mut at: usize, tag: u8, max_len: u32) -> usize {
    while let Some(&[found, a, b, c, d]) = input.get(at..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
        let len = u32::from_be_bytes([a, b, c, d]);
        // The length counts itself, but not the tag.
        let end = at + 1 + len as usize;
        if found != tag || len < 4 || len > max_len || end > input.len() {
            break;
        }
        at = end;
    }
    at
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 100;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    /// Feeds what `chunks` are to a handler that finds rows alike; returns the tags it was asked about and what passed.
    fn feed(chunks: &[&[u8]]) -> (String, Result<Vec<u8>, PoolError>) {
        let (mut framer, mut asked, mut passed) = (Framer::default(), String::new(), Vec::new());
        for chunk in chunks {
            let mut staged = Vec::new();
            let mut out = Sink::new(chunk, &mut staged);
            let fed = framer.feed(chunk, &mut out, MAX, |header, _, _| {
                asked.push(char::from(header.tag));
                Ok(if header.tag == b'D' { Verdict::PassAlike } else { Verdict::Pass })
            });
            let (staged, run) = out.into_parts();
            passed.extend_from_slice(staged);
            passed.extend_from_slice(run);
            if let Err(error) = fed {
                return (asked, Err(error));
            }
        }
        (asked, Ok(passed))
    }

    #[test]
    fn of_a_run_of_rows_the_handler_sees_the_first_and_everything_else() {
        let rows = [message(b'D', b"one"), message(b'D', b""), message(b'D', b"three")].concat();
        let all = [message(b'T', b"names"), rows.clone(), message(b'C', b"SELECT 3\0"), rows].concat();
        assert_eq!(feed(&[&all]), ("TDCD".into(), Ok(all.clone())));
    }

    #[test]
    fn a_run_of_rows_passes_whole_wherever_it_is_split() {
        let all = [message(b'D', b"one"), message(b'D', b"two"), message(b'D', b"three"), message(b'Z', b"I")].concat();
        for at in 0..=all.len() {
            let (asked, passed) = feed(&[&all[..at], &all[at..]]);
            assert_eq!(passed.as_ref(), Ok(&all), "split at {at}");
            assert!(asked.starts_with('D') && asked.ends_with('Z'), "{asked}");
        }
    }

    #[test]
    fn a_length_that_is_none_is_refused_in_the_middle_of_a_run_as_well() {
        let row = message(b'D', b"one");
        for len in [0, 3, MAX + 1, u32::MAX] {
            // All of it is here, so that nothing but the length is wrong.
            let body = vec![0; (len.clamp(4, 1_000) - 4) as usize];
            let bad = [&b"D"[..], &len.to_be_bytes(), &body].concat();
            let (asked, passed) = feed(&[&[&row[..], &row, &bad].concat()]);
            assert_eq!(asked, "D");
            assert!(passed.is_err(), "length {len}");
        }
    }

    #[test]
    fn what_a_large_message_needed_is_given_back() {
        let large = message(b'P', &vec![b'x'; 1 << 20]);
        let mut framer = Framer::default();
        for chunk in large.chunks(1 << 16) {
            let mut staged = Vec::new();
            let mut out = Sink::new(chunk, &mut staged);
            let fed = framer.feed(chunk, &mut out, u32::MAX, |header, body, _| {
                Ok(if body.len() < header.body_len() { Verdict::NeedMore } else { Verdict::Pass })
            });
            assert!(!fed.unwrap().waiting);
        }
        assert!(framer.is_at_start());
        assert!(framer.held.capacity() <= KEEP_CAPACITY);
    }
}
