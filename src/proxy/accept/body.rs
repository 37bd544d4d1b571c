//! Where a request's body ends, seen from outside.
//!
//! The HTTP engine is given exactly the bytes of one request; what follows stays with the connection as the beginning of
//! the next. So two requests on one connection can never be taken for one, whatever the engine makes of them, and a
//! client that sends early (pipelining, a stray line end after a form) disturbs nothing. Chunked framing is followed by
//! its sizes alone (RFC 9112 7.1), strictly: a lone CR or LF, an empty size or anything else of the kind that two readers
//! might read differently ends the connection.

/// Hex digits of a chunk size; 15 fit any `u64` and are beyond any real chunk.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of chunk extensions and trailer fields in one body. Nobody needs them; unbounded they are an attack.
const EXTRAS_MAX: u16 = 8 * 1024;

/// A body that is not framed as it must be. Says what was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body: {0}")]
pub(crate) struct BadBody(&'static str);

/// What is still to come of the current request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing: the next byte belongs to the next request.
    Done,
    /// That many bytes. Never zero.
    Length(u64),
    Chunked(Chunked),
}

/// Within a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    at: At,
    extras: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

impl Body {
    /// Returns a body of `length` bytes.
    pub(crate) fn of_length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// Returns a chunked body of which nothing was read.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked { at: At::Size { value: 0, digits: 0 }, extras: 0 })
    }

    /// Returns whether the request is complete.
    pub(crate) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Returns how many bytes may be read without passing the end, when that is known beforehand.
    pub(crate) fn read_limit(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }

    /// Takes bytes that arrived; returns how many of them belong to this request.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, BadBody> {
        match self {
            Self::Done => Ok(0),
            Self::Length(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *self = Self::of_length(*left - used as u64);
                Ok(used)
            }
            Self::Chunked(chunked) => {
                let (used, ended) = chunked.advance(bytes)?;
                if ended {
                    *self = Self::Done;
                }
                Ok(used)
            }
        }
    }
}

impl Chunked {
    /// Returns how many of `bytes` belong to the body and whether it ended with them.
    fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), BadBody> {
        let mut used = 0;
        while let Some(&byte) = bytes.get(used) {
            if let At::Data { left } = self.at {
                let rest = bytes.len() - used;
                let skip = rest.min(usize::try_from(left).unwrap_or(usize::MAX));
                used += skip;
                let left = left - skip as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
                continue;
            }
            used += 1;
            if self.at == At::EndLf {
                return if byte == b'\n' { Ok((used, true)) } else { Err(BadBody("line end")) };
            }
            self.at = self.step(byte)?;
        }
        Ok((used, false))
    }

    /// Takes one byte of framing.
    fn step(&mut self, byte: u8) -> Result<At, BadBody> {
        Ok(match (self.at, byte) {
            (At::Size { value, digits: 1.. }, b'\r') => At::SizeLf { value },
            (At::Size { value, digits: 1.. }, b';' | b' ' | b'\t') => At::Extension { value },
            (At::Size { value, digits }, _) => {
                let digit = (byte as char).to_digit(16).ok_or(BadBody("chunk size"))?;
                if digits == SIZE_DIGITS_MAX {
                    return Err(BadBody("chunk size too large"));
                }
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Extension { value }, b'\r') => At::SizeLf { value },
            (At::Extension { value }, _) => self.extra(byte, At::Extension { value })?,
            (At::SizeLf { value: 0 }, b'\n') => At::TrailerStart,
            (At::SizeLf { value }, b'\n') => At::Data { left: value },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { value: 0, digits: 0 },
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerStart | At::Trailer, _) => self.extra(byte, At::Trailer)?,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            _ => return Err(BadBody("line end")),
        })
    }

    /// Counts a byte of an extension or trailer.
    fn extra(&mut self, byte: u8, at: At) -> Result<At, BadBody> {
        if byte < b' ' && byte != b'\t' || byte == 0x7f {
            return Err(BadBody("control byte"));
        }
        self.extras += 1;
        if self.extras > EXTRAS_MAX {
            return Err(BadBody("extensions or trailers too large"));
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Result<(usize, bool), BadBody> {
        let mut body = Body::chunked();
        let used = body.advance(bytes)?;
        Ok((used, body.is_done()))
    }

    #[test]
    fn a_counted_body_ends_where_it_says() {
        let mut body = Body::of_length(5);
        assert_eq!(body.advance(b"abc"), Ok(3));
        assert_eq!(body.read_limit(), Some(2));
        assert_eq!(body.advance(b"deGET /"), Ok(2));
        assert!(body.is_done());
        assert!(Body::of_length(0).is_done());
    }

    #[test]
    fn what_follows_the_last_chunk_is_left_alone() {
        assert_eq!(whole(b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1"), Ok((13, true)));
        assert_eq!(whole(b"A;x=y\r\n0123456789\r\n00\r\nX-T: 1\r\n\r\nrest"), Ok((33, true)));
    }

    #[test]
    fn framing_that_two_readers_might_read_differently_is_refused() {
        for bad in [
            &b"\r\nabc"[..],
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\r\n0\r\n\n",
            b"3\r\nabc\r\n0\r\nX: y\n\r\n",
            b"-1\r\n",
            b"0x3\r\nabc\r\n",
            b";x\r\n",
            b"3 ;a\rb\r\nabc\r\n",
            b"3;\x00\r\nabc\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
        ] {
            assert!(whole(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let mut flood = b"1;".to_vec();
        flood.extend(std::iter::repeat_n(b'x', usize::from(EXTRAS_MAX) + 1));
        assert_eq!(whole(&flood), Err(BadBody("extensions or trailers too large")));
    }

    proptest! {
        #[test]
        fn the_end_is_the_same_however_the_bytes_arrive(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(1usize..20, 1..40),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\n");
            let end = wire.len();
            wire.extend(b"GET / HTTP/1.1\r\n");

            let mut body = Body::chunked();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while !body.is_done() {
                let to = (at + cuts.next().unwrap()).min(wire.len());
                at += body.advance(&wire[at..to]).unwrap();
            }
            prop_assert_eq!(at, end);
        }
    }
}
