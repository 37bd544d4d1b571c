//! Any bytes as what a server answers to questions of ours: who a user is (auth_query), and what a client has left on it.

use bookend::pool::{is_lookup_answer, relay::bench, wire::frame};

pub fn run(data: &[u8]) {
    let _known = is_lookup_answer(data);
    let _left = bench::census_row(data);
    let mut rest = data;
    while let Ok(Some(message)) = frame::whole(rest, 1 << 20) {
        let _left = bench::census_row(message.body);
        rest = &rest[message.total_len()..];
    }
}
