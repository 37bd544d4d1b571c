//! The key by which a client cancels: what it is given at its login, and what a cancel request brings back.
//!
//! The layout is PgBouncer's (since 1.21), so that processes of both kinds can pass cancel requests on to each other. Of the
//! eight bytes of protocol 3.0 (four "process id", four secret) byte 0 has its sign bit clear, because clients print the
//! process id as a signed number; bytes 1 and 2 are the `peer_id` of the process that gave the key, low byte first; the two
//! lowest bits of byte 7 say how often a request may still be passed on, and are all set in a key that is given. The rest is
//! random: 45 bits, 61 in a process without `peer_id`.
//!
//! A client that speaks protocol 3.2 gets a secret of 32 bytes: the four that are as above, and 28 that only this process can
//! make of the first eight (HMAC-SHA256 under a key of its own). So nothing more is kept for it, and its key cannot be guessed.

use std::fmt;

use rand::{Rng, RngExt};
use subtle::ConstantTimeEq;

use crate::pool::auth::scram::{Key, hmac};

/// Bytes of a key that are looked at by themselves: process id, and the secret of protocol 3.0.
const KEY_LEN: usize = 8;
/// Bytes of the process id.
const PID_LEN: usize = 4;
/// Bytes of a secret of protocol 3.2 beyond that of 3.0.
const TAIL_LEN: usize = 28;
/// How often a request may still be passed on.
const TTL: u8 = 0b11;

/// Largest `peer_id`, as in PgBouncer.
pub const PEER_ID_MAX: u16 = 16_383;

/// A key as it is given; of protocol 3.2, its first eight bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CancelKey([u8; KEY_LEN]);

impl CancelKey {
    /// Draws a key of the process `peer_id`; 0: it has none.
    pub fn draw(peer_id: u16, rng: &mut impl Rng) -> Self {
        let mut bytes: [u8; KEY_LEN] = rng.random();
        bytes[0] &= 0x7f;
        if peer_id != 0 {
            bytes[1..3].copy_from_slice(&peer_id.to_le_bytes());
        }
        bytes[KEY_LEN - 1] |= TTL;
        Self(bytes)
    }

    /// Returns what the client is given as its process id; never negative.
    pub fn pid(self) -> i32 {
        let [a, b, c, d, ..] = self.0;
        i32::from_be_bytes([a, b, c, d])
    }

    /// Returns the whole secret: of protocol 3.2 under the process's key, of 3.0 without.
    pub fn secret(self, long_under: Option<&Key>) -> Vec<u8> {
        let mut secret = self.0[PID_LEN..].to_vec();
        if let Some(process_key) = long_under {
            secret.extend_from_slice(&hmac(process_key, &[b"cancel\0", &self.0])[..TAIL_LEN]);
        }
        secret
    }

    /// Returns it as a number. A table may be searched for it: hashing with a secret seed does not tell how near a guess was.
    pub(super) fn number(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelKey(…)")
    }
}

/// What a cancel request says.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelRequest {
    pub pid: i32,
    /// 4 to 256 bytes.
    secret: Box<[u8]>,
    key: CancelKey,
}

impl CancelRequest {
    /// Takes what came in a packet; `None` when the secret is too short to be one.
    pub fn new(pid: i32, secret: &[u8]) -> Option<Self> {
        let mut bytes = [0; KEY_LEN];
        let (head, tail) = bytes.split_at_mut(PID_LEN);
        head.copy_from_slice(&pid.to_be_bytes());
        tail.copy_from_slice(secret.get(..KEY_LEN - PID_LEN)?);
        bytes[KEY_LEN - 1] |= TTL;
        Some(Self { pid, secret: secret.into(), key: CancelKey(bytes) })
    }

    /// Returns the key it was made with, however often it was passed on.
    pub fn key(&self) -> CancelKey {
        self.key
    }

    /// Returns the secret, to be sent on.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Returns the `peer_id` of the process that gave the key, if it has one: nobody can tell from the key alone.
    pub fn peer_id(&self) -> u16 {
        u16::from_le_bytes([self.key.0[1], self.key.0[2]])
    }

    /// Returns the request as it is passed on; `None`: it was passed on too often.
    pub fn passed_on(&self) -> Option<Self> {
        let mut passed = self.clone();
        let last = passed.secret.get_mut(KEY_LEN - PID_LEN - 1)?;
        *last = (*last & !TTL) | (*last & TTL).checked_sub(1)?;
        Some(passed)
    }

    /// Compares the whole secret with the one that was given, in constant time.
    pub(super) fn proves(&self, given: &[u8]) -> bool {
        let mut shown = self.secret.clone();
        shown[KEY_LEN - PID_LEN - 1] |= TTL;
        shown.ct_eq(given).into()
    }
}

impl fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelRequest(…)")
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const OURS: Key = [7; 32];

    fn request(key: CancelKey, secret: &[u8]) -> CancelRequest {
        CancelRequest::new(key.pid(), secret).unwrap()
    }

    #[test]
    fn a_key_has_the_layout_of_pgbouncers() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let key = CancelKey::draw(0x1234, &mut rng);
            assert!(key.pid() >= 0);
            assert_eq!(key.0[1..3], [0x34, 0x12]);
            assert_eq!(key.0[7] & 3, 3);
            assert_eq!(request(key, &key.secret(None)).peer_id(), 0x1234);
        }
        // PgBouncer 1.26.1 with peer_id = 4660 gave this one.
        let given = request(CancelKey([0x64, 0x34, 0x12, 0xe2, 0x5b, 0xcc, 0x71, 0xd3]), &[0x5b, 0xcc, 0x71, 0xd3]);
        assert_eq!(given.peer_id(), 4660);
    }

    #[test]
    fn without_a_peer_id_all_but_three_bits_are_random() {
        let mut rng = StdRng::seed_from_u64(2);
        let (mut ever, mut always) = (0, u64::MAX);
        for _ in 0..200 {
            let number = CancelKey::draw(0, &mut rng).number();
            ever |= number;
            always &= number;
        }
        assert_eq!((ever, always), (u64::MAX >> 1, 3));
    }

    /// As PgBouncer 1.26.1 does: 83, then 82, 81, 80, and that one it drops.
    #[test]
    fn a_request_is_passed_on_three_times_at_most_and_stays_the_same_otherwise() {
        for more in [vec![], vec![9; 28], vec![0; 252]] {
            let secret = [&[0x55, 0x66, 0x77, 0x83], &*more].concat();
            let mut request = CancelRequest::new(0x1102_0044, &secret).unwrap();
            let key = request.key();
            for last in [0x82, 0x81, 0x80] {
                request = request.passed_on().unwrap();
                assert_eq!(request.secret(), [&[0x55, 0x66, 0x77, last], &*more].concat());
                assert_eq!((request.pid, request.key()), (0x1102_0044, key));
            }
            assert_eq!(request.passed_on(), None);
        }
    }

    #[test]
    fn a_key_is_proven_however_often_it_was_passed_on_and_by_nothing_shorter_or_longer() {
        let key = CancelKey::draw(3, &mut StdRng::seed_from_u64(3));
        let (short, long) = (key.secret(None), key.secret(Some(&OURS)));
        assert_eq!((short.len(), long.len()), (4, 32));
        for secret in [&short, &long] {
            let passed = request(key, secret).passed_on().unwrap().passed_on().unwrap();
            assert!(passed.proves(secret));
        }
        assert!(!request(key, &short).proves(&long), "the first bytes are no proof for a long key");
        assert!(!request(key, &long).proves(&short));
        assert!(!request(key, &key.secret(Some(&[8; 32]))).proves(&long), "made by another process");
        for at in 0..32 {
            let mut wrong = long.clone();
            wrong[at] ^= 0x80;
            assert!(!request(key, &wrong).proves(&long), "{at}");
        }
        assert_eq!(CancelRequest::new(1, &[1, 2, 3]), None);
    }
}
