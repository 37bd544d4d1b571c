//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it (auth-scram.c): keys, verifiers, and the two halves of the
//! exchange, [`server`] towards clients and [`client`] towards PostgreSQL. Pure: messages and keys in, messages out.
//!
//! What is slow (PBKDF2) is apart in [`Keys::derive`] and called only by [`super::derive`], off the relay's threads.
//! Both halves can bind the proof to the TLS connection it is given on (SCRAM-SHA-256-PLUS, `tls-server-end-point`).

pub mod client;
pub mod server;

#[cfg(test)]
mod tests;

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The mechanism's name on the wire.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Random bytes in a nonce: PostgreSQL's SCRAM_RAW_NONCE_LEN.
pub const NONCE_LEN: usize = 18;
/// Bytes of salt we make ourselves: PostgreSQL's SCRAM_DEFAULT_SALT_LEN.
pub const SALT_LEN: usize = 16;
/// A server that asks for more rounds is not obeyed: the work is ours (CVE-2026-42198 in pgjdbc, which has this bound).
pub const ITERATIONS_MAX: u32 = 100_000;

/// A SHA-256 sized key.
pub type Key = [u8; 32];

/// The three keys that a password, a salt and a number of rounds give.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub client: Key,
    pub stored: Key,
    pub server: Key,
}

impl Keys {
    /// Derives the keys. Slow on purpose: some milliseconds for 4,096 rounds.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        // PostgreSQL takes a password that SASLprep cannot prepare as it is (pg_saslprep's callers in auth-scram.c).
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let salted = pbkdf2::pbkdf2_array::<Hmac<Sha256>, 32>(prepared.as_bytes(), salt, iterations)
            .expect("HMAC takes keys of any length");
        Self::from_client_key(hmac(&salted, &[b"Client Key"]), hmac(&salted, &[b"Server Key"]))
    }

    /// Completes the keys; the stored key is the client key's hash.
    pub fn from_client_key(client: Key, server: Key) -> Self {
        Self { client, stored: sha256(&client), server }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// What PostgreSQL keeps of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: u32,
    pub salt: Box<[u8]>,
    pub stored: Key,
    pub server: Key,
}

impl Verifier {
    /// Parses PostgreSQL's text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(MECHANISM)?.strip_prefix('$')?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|&i| i > 0)?;
        let salt = STANDARD.decode(salt).ok().filter(|s| !s.is_empty())?;
        Some(Self { iterations, salt: salt.into(), stored: key(stored)?, server: key(server)? })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// Returns the text form of `random`: base64, so printable and without a comma.
pub fn nonce(random: &[u8; NONCE_LEN]) -> String {
    STANDARD.encode(random)
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn sha256(data: &[u8]) -> Key {
    Sha256::digest(data).into()
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

fn key(text: &str) -> Option<Key> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Takes `name=value` off the front of `rest`; the comma behind it goes too.
fn attribute<'a>(rest: &mut &'a str, name: char) -> Option<&'a str> {
    let (head, tail) = rest.split_once(',').unwrap_or((rest, ""));
    let value = head.strip_prefix(name)?.strip_prefix('=')?;
    *rest = tail;
    Some(value)
}

/// Returns whether `nonce` is `printable` of RFC 5802: visible ASCII but the comma.
fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',')
}
