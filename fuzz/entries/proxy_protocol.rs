//! Any bytes at the beginning of a connection: read or refused without a panic, and the same however they arrive.

use bookend::proxy::proxy_protocol::{HEADER_MAX, Header, read};

pub fn run(data: &[u8]) {
    let whole = read(data);
    if let Ok(Header::Whole { length, .. }) = whole {
        assert!((1..=data.len().min(HEADER_MAX)).contains(&length));
        assert_eq!(read(&data[..length]), whole, "what follows is not looked at");
        assert!(!matches!(read(&data[..length - 1]), Ok(Header::Whole { .. })), "nothing of it is left out");
    }
}
