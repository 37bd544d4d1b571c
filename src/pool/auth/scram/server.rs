//! The server's half: a client proves its password to us, and we prove to it that we know its verifier.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::{Key, attribute, hmac, is_nonce, key, sha256, xor};

/// A message that is not what RFC 5802 section 7 allows at this point. The text is ours and safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Why a client did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Malformed(Malformed),
    /// A well-formed message with a proof that is wrong.
    WrongProof,
}

/// What a client may bind its proof to: the TLS connection it came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding<'a> {
    /// Nothing was offered.
    NotOffered,
    /// SCRAM-SHA-256-PLUS was offered, and the client chose to do without.
    Declined,
    /// The client chose SCRAM-SHA-256-PLUS: the connection's `tls-server-end-point`.
    EndPoint(&'a [u8]),
}

/// An exchange after client-first: our answer is ready, and client-final is awaited.
#[derive(Debug)]
pub struct Exchange {
    client_first_bare: String,
    /// base64 of the gs2 header and what is bound to, which client-final must repeat.
    channel_binding: String,
    nonce: String,
    server_first: String,
}

/// A client that has proven its password.
pub struct Proven {
    /// What proves us to the client.
    pub server_final: String,
    /// By which the same client can be logged in elsewhere, where the verifier is the same.
    pub client_key: Key,
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proven(…)")
    }
}

impl Exchange {
    /// Reads client-first-message and makes server-first-message.
    pub fn start(
        client_first: &[u8],
        nonce: &str,
        salt: &[u8],
        iterations: u32,
        binding: Binding<'_>,
    ) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(client_first).map_err(|_| Malformed("client-first is not UTF-8"))?;
        let (gs2, bare) = split_gs2(text, binding)?;
        let mut rest = bare;
        if rest.starts_with("m=") {
            return Err(Malformed("client-first requires an unsupported extension"));
        }
        // The name is empty from libpq; the one of the startup packet is what counts (auth-scram.c ignores it too).
        attribute(&mut rest, 'n').ok_or(Malformed("client-first has no user name"))?;
        let client_nonce = attribute(&mut rest, 'r').ok_or(Malformed("client-first has no nonce"))?;
        if !is_nonce(client_nonce) {
            return Err(Malformed("client-first has a nonce that is not printable"));
        }
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={},i={iterations}", STANDARD.encode(salt));
        let bound_to = if let Binding::EndPoint(hash) = binding { hash } else { &[] };
        let channel_binding = STANDARD.encode([gs2.as_bytes(), bound_to].concat());
        Ok(Self { client_first_bare: bare.to_owned(), channel_binding, nonce, server_first })
    }

    /// Returns the message that asks for the proof.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads client-final-message and checks its proof, in constant time.
    pub fn finish(&self, client_final: &[u8], stored: &Key, server: &Key) -> Result<Proven, Failure> {
        let (without_proof, proof) = self.read_final(client_final).map_err(Failure::Malformed)?;
        let message: [&[u8]; 5] =
            [self.client_first_bare.as_bytes(), b",", self.server_first.as_bytes(), b",", without_proof.as_bytes()];
        let client_key = xor(&proof, &hmac(stored, &message));
        if !bool::from(sha256(&client_key).ct_eq(stored)) {
            return Err(Failure::WrongProof);
        }
        let server_final = format!("v={}", STANDARD.encode(hmac(server, &message)));
        Ok(Proven { server_final, client_key })
    }

    fn read_final<'a>(&self, client_final: &'a [u8]) -> Result<(&'a str, Key), Malformed> {
        let text = std::str::from_utf8(client_final).map_err(|_| Malformed("client-final is not UTF-8"))?;
        // Extensions may stand before the proof; the proof is last.
        let (without_proof, proof) = text.split_once(",p=").ok_or(Malformed("client-final has no proof"))?;
        let mut rest = without_proof;
        let binding = attribute(&mut rest, 'c').ok_or(Malformed("client-final has no channel binding"))?;
        if binding != self.channel_binding {
            return Err(Malformed("client-final has another channel binding than client-first"));
        }
        let nonce = attribute(&mut rest, 'r').ok_or(Malformed("client-final has no nonce"))?;
        if nonce != self.nonce {
            return Err(Malformed("client-final has another nonce than server-first"));
        }
        let proof = key(proof).ok_or(Malformed("client-final has a proof that is not 32 bytes of base64"))?;
        Ok((without_proof, proof))
    }
}

/// Takes the gs2 header off: whether the client binds to the channel, and for whom it acts (RFC 5802 section 7).
fn split_gs2<'a>(text: &'a str, binding: Binding<'_>) -> Result<(&'a str, &'a str), Malformed> {
    const TYPE: &str = "p=tls-server-end-point,";
    let header = match (text.as_bytes(), binding) {
        ([b'n', b',', ..], Binding::NotOffered | Binding::Declined) => 2,
        // The client could bind and thinks that we cannot.
        ([b'y', b',', ..], Binding::NotOffered) => 2,
        // It was offered: somebody between us took the offer out (RFC 5802 section 6).
        ([b'y', b',', ..], Binding::Declined) => {
            return Err(Malformed("the offer of channel binding was tampered with"));
        }
        (_, Binding::EndPoint(_)) if text.starts_with(TYPE) => TYPE.len(),
        ([b'p', b'=', ..], Binding::EndPoint(_)) => return Err(Malformed("an unknown kind of channel binding")),
        (_, Binding::EndPoint(_)) => return Err(Malformed("SCRAM-SHA-256-PLUS without channel binding")),
        ([b'p', ..], _) => return Err(Malformed("channel binding was not offered")),
        _ => return Err(Malformed("client-first has no gs2 header")),
    };
    match text.as_bytes().get(header) {
        Some(b',') => Ok(text.split_at(header + 1)),
        Some(b'a') => Err(Malformed("an authorization identity is not supported")),
        _ => Err(Malformed("client-first has no gs2 header")),
    }
}
