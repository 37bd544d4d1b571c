//! Any bytes as SQL that passes: no panic, a log line that is one short line, and no literal in it.

use bookend::pool::{prepared::text::is_worth_a_name, relay::bench};

/// No SQL has it by chance.
const SECRET: &str = "zqhunter2qz";

pub fn run(data: &[u8]) {
    let shown = bench::sql(data);
    assert!(shown.len() <= 120 && !shown.contains(char::is_control), "{shown}");
    let _worth = (is_worth_a_name(data), is_worth_a_name(&[data, b"\0\0\0"].concat()));
    // Behind whole tokens a literal is a literal.
    let soft =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b',' | b'(' | b')' | b'.' | b';' | b'=');
    if data.iter().all(soft) {
        for literal in [format!("'{SECRET}'"), format!("E'\\'{SECRET}'"), format!("$q${SECRET}$q$")] {
            let shown = bench::sql(&[data, b" ", literal.as_bytes(), b" x"].concat());
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
}
