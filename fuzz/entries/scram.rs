//! Any bytes as the other side of a SCRAM exchange, in either role, and as a verifier: no panic, and no proof that is none.

use bookend::pool::auth::scram::{
    Keys, Verifier,
    client::{self, Challenge, first},
    server::{Binding, Exchange},
};

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

pub fn run(data: &[u8]) {
    let (start, end) = data.split_at(data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len()));
    let end = end.strip_prefix(b"\n").unwrap_or(end);
    for binding in [Binding::NotOffered, Binding::Declined, Binding::EndPoint(b"hash")] {
        if let Ok(exchange) = Exchange::start(start, NONCE, b"salt", 4096, binding) {
            assert!(exchange.server_first().contains(NONCE));
            assert!(exchange.finish(end, &[7; 32], &[7; 32]).is_err(), "nobody knows a password for these keys");
            assert_eq!(start.starts_with(b"p="), matches!(binding, Binding::EndPoint(_)));
        }
    }
    drop(first(NONCE, client::Binding::None));
    if let Ok(challenge) = Challenge::read(NONCE, start) {
        let keys = Keys::from_client_key([7; 32], [7; 32]);
        let (_, expected) = challenge.answer(&keys, client::Binding::NotOffered);
        assert!(!expected.matches(end) || end.starts_with(b"v="));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _verifier = Verifier::parse(text);
    }
}
