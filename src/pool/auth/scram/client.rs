//! The client's half: we prove to PostgreSQL that we may log in, and it proves to us that it is who it should be.
//!
//! postgres-protocol has this half too, but only from a password: it runs PBKDF2 on the caller's thread at every login and
//! cannot log in with the ClientKey of a client that was passed through.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::{ITERATIONS_MAX, Key, Keys, attribute, hmac, is_nonce, key, xor};

/// Longest salt that is taken from a server, in bytes.
const SALT_LEN_MAX: usize = 256;

/// A server's message that cannot be right. The text is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Whether we bind our proof to the TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding<'a> {
    /// There is nothing to bind to.
    None,
    /// There is, but the server does not offer SCRAM-SHA-256-PLUS.
    NotOffered,
    /// To the hash of the server's certificate (`tls-server-end-point`).
    EndPoint(&'a [u8]),
}

impl Binding<'_> {
    fn gs2(self) -> &'static str {
        match self {
            Self::None => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// Returns what client-final says of it.
    fn repeated(self) -> String {
        let hash = if let Self::EndPoint(hash) = self { hash } else { &[] };
        STANDARD.encode([self.gs2().as_bytes(), hash].concat())
    }
}

/// What the server wants to know: the keys for this salt and this many rounds.
#[derive(Debug)]
pub struct Challenge {
    pub salt: Box<[u8]>,
    pub iterations: u32,
    nonce: String,
    /// client-first-bare, a comma, server-first: the beginning of what is signed.
    signed: String,
}

/// The signature that only a server who knows the verifier can send.
pub struct Expected(Key);

/// Returns client-first-message. The user name stays empty: PostgreSQL uses the startup packet's.
pub fn first(nonce: &str, binding: Binding<'_>) -> String {
    format!("{}n=,r={nonce}", binding.gs2())
}

impl Challenge {
    /// Reads server-first-message, the answer to [`first`] with the same `nonce`.
    pub fn read(nonce: &str, server_first: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(server_first).map_err(|_| Malformed("server-first is not UTF-8"))?;
        let mut rest = text;
        let both = attribute(&mut rest, 'r').ok_or(Malformed("server-first has no nonce"))?;
        if !is_nonce(both) || !both.starts_with(nonce) || both.len() == nonce.len() {
            return Err(Malformed("server-first has a nonce that does not extend ours"));
        }
        let salt = attribute(&mut rest, 's').ok_or(Malformed("server-first has no salt"))?;
        let salt = STANDARD.decode(salt).ok().filter(|s| (1..=SALT_LEN_MAX).contains(&s.len()));
        let salt = salt.ok_or(Malformed("server-first has a salt that is not 1 to 256 bytes of base64"))?.into();
        let iterations = attribute(&mut rest, 'i').and_then(|i| i.parse().ok());
        let iterations = iterations
            .filter(|i| (1..=ITERATIONS_MAX).contains(i))
            .ok_or(Malformed("server-first has an iteration count that is not 1 to 100,000"))?;
        Ok(Self { salt, iterations, nonce: both.to_owned(), signed: format!("n=,r={nonce},{text}") })
    }

    /// Makes client-final-message, and what the server must answer to it.
    pub fn answer(&self, keys: &Keys, binding: Binding<'_>) -> (String, Expected) {
        let without_proof = format!("c={},r={}", binding.repeated(), self.nonce);
        let message: [&[u8]; 3] = [self.signed.as_bytes(), b",", without_proof.as_bytes()];
        let proof = xor(&keys.client, &hmac(&keys.stored, &message));
        let client_final = format!("{without_proof},p={}", STANDARD.encode(proof));
        (client_final, Expected(hmac(&keys.server, &message)))
    }
}

impl Expected {
    /// Returns whether server-final-message carries the signature.
    pub fn matches(&self, server_final: &[u8]) -> bool {
        let signature = std::str::from_utf8(server_final).ok().and_then(|mut text| key(attribute(&mut text, 'v')?));
        signature.is_some_and(|s| s.ct_eq(&self.0).into())
    }
}
