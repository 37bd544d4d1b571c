//! WebSocket frames, seen by their headers alone (RFC 6455 5.2).
//!
//! The tunnel forwards bytes and understands none of them, but one: when the process leaves, it may say so with a Close
//! frame, and a Close is well-formed only between two frames. So each direction keeps how much of the current frame is
//! still to come: a dozen bytes of state, one comparison per read while a payload passes.

/// Opcode of a Close frame.
const CLOSE: u8 = 0x8;
/// The masking key follows the header and is counted with the payload.
const KEY_LEN: u64 = 4;

/// RFC 6455 7.4.1: the endpoint is going away.
pub(super) const GOING_AWAY: u16 = 1001;

/// Where one direction stands within its frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// Payload bytes (and masking key) still to come.
    left: u64,
    head: [u8; 10],
    /// Bytes of `head` that are there.
    have: u8,
    close: Close,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Close {
    #[default]
    None,
    Passing,
    Passed,
}

impl Frames {
    /// Returns whether a frame may begin here.
    pub(super) fn at_boundary(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Returns whether a Close frame went by, whole.
    pub(super) fn closed(&self) -> bool {
        self.close == Close::Passed
    }

    /// Takes bytes that go by.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (used, _) = self.step(bytes);
            bytes = &bytes[used..];
        }
    }

    /// Returns how many of `bytes` belong to the frame that is under way, if it ends within them.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> Option<usize> {
        if self.at_boundary() {
            return Some(0);
        }
        let mut ahead = *self;
        let mut at = 0;
        while at < bytes.len() {
            let (used, ended) = ahead.step(&bytes[at..]);
            at += used;
            if ended {
                return Some(at);
            }
        }
        None
    }

    /// Takes bytes up to the end of a header or a payload; returns how many, and whether the frame ended with them.
    fn step(&mut self, bytes: &[u8]) -> (usize, bool) {
        if self.left > 0 {
            let used = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= used as u64;
            return (used, self.left == 0 && self.end());
        }
        let mut used = 0;
        for byte in bytes {
            self.head[usize::from(self.have)] = *byte;
            self.have += 1;
            used += 1;
            if let Some(len) = self.payload() {
                self.have = 0;
                self.left = len;
                if self.head[0] & 0xf == CLOSE {
                    self.close = Close::Passing;
                }
                return (used, len == 0 && self.end());
            }
        }
        (used, false)
    }

    fn end(&mut self) -> bool {
        if self.close == Close::Passing {
            self.close = Close::Passed;
        }
        true
    }

    /// Returns what follows the header once it is complete: the masking key, if any, and the payload.
    fn payload(&self) -> Option<u64> {
        if self.have < 2 {
            return None;
        }
        let key = if self.head[1] & 0x80 == 0 { 0 } else { KEY_LEN };
        let len = match (self.head[1] & 0x7f, self.have) {
            (126, 4) => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            (127, 10) => self.head[2..].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
            (126 | 127, _) => return None,
            (short, _) => u64::from(short),
        };
        Some(len.saturating_add(key))
    }
}

/// Returns a Close frame from a server: not masked.
pub(super) fn close_to_client(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 2, high, low]
}

/// Returns a Close frame from a client: masked with `key`, as RFC 6455 5.3 wants it.
pub(super) fn close_to_server(code: u16, key: [u8; 4]) -> [u8; 8] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 0x80 | 2, key[0], key[1], key[2], key[3], high ^ key[0], low ^ key[1]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => bytes.push(mask | len as u8),
            len @ 126..65536 => {
                bytes.push(mask | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(mask | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_close_is_seen_only_when_whole() {
        let mut frames = Frames::default();
        let close = close_to_server(GOING_AWAY, [9, 8, 7, 6]);
        frames.pass(&close[..7]);
        assert!(!frames.closed() && !frames.at_boundary());
        frames.pass(&close[7..]);
        assert!(frames.closed() && frames.at_boundary());
    }

    #[test]
    fn a_masked_close_unmasks_to_its_code() {
        let close = close_to_server(GOING_AWAY, [9, 8, 7, 6]);
        assert_eq!([close[6] ^ close[2], close[7] ^ close[3]], GOING_AWAY.to_be_bytes());
    }

    #[test]
    fn the_longest_length_does_not_overflow() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(!frames.at_boundary());
        frames.pass(&[0; 100]);
        assert!(!frames.at_boundary());
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_arrive(
            sizes in prop::collection::vec(prop_oneof![0usize..4, 120usize..130, 65530usize..65540], 1..5),
            masked: bool,
            cuts in prop::collection::vec(1usize..70_000, 1..20),
        ) {
            let frames: Vec<Vec<u8>> = sizes.iter().map(|size| frame(2, masked, &vec![0x88; *size])).collect();
            let ends: Vec<usize> =
                frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let wire = frames.concat();
            let (mut state, mut at) = (Frames::default(), 0);
            for cut in cuts.iter().cycle() {
                let to = (at + cut).min(wire.len());
                let expected = if at == 0 || ends.contains(&at) {
                    Some(0)
                } else {
                    ends.iter().find(|end| **end > at).filter(|end| **end <= to).map(|end| end - at)
                };
                prop_assert_eq!(state.rest_of_frame(&wire[at..to]), expected);
                state.pass(&wire[at..to]);
                at = to;
                prop_assert_eq!(state.at_boundary(), ends.contains(&at));
                if at == wire.len() {
                    break;
                }
            }
            prop_assert!(!state.closed());
        }
    }
}
