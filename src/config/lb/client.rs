//! The top-level keys of `lb.yaml` about HTTP clients: nginx's names, our defaults.

use std::time::Duration;

use crate::config::{
    lb::{AccessLog, Client},
    section::Section,
};

const DEFAULT_MAX_BODY_SIZE: u64 = 20 << 20;
/// What the HTTP engine takes, with room for characters of the target that are encoded on the way: beyond it every such
/// request would be refused with no line in the log.
const HEADER_SIZE_HARD_MAX: u64 = 512 << 10;
/// As many as the HTTP engine takes.
const HEADERS_HARD_MAX: u64 = 256;

pub(super) fn read(file: &mut Section<'_>) -> Client {
    Client {
        header_timeout: file.duration("client_header_timeout", Duration::from_secs(10)),
        header_max_size: file.size("client_header_max_size", 64 << 10, 1 << 10..=HEADER_SIZE_HARD_MAX) as usize,
        max_headers: file.integer("max_headers", 100, 1..=HEADERS_HARD_MAX),
        body_timeout: file.duration("client_body_timeout", Duration::from_secs(60)),
        max_body_size: file.size_limit("client_max_body_size").unwrap_or(Some(DEFAULT_MAX_BODY_SIZE)),
        keepalive_timeout: file.duration("keepalive_timeout", Duration::from_secs(75)),
        keepalive_requests: file.integer("keepalive_requests", 1_000, 1..=u32::MAX.into()),
        send_timeout: file.duration("send_timeout", Duration::from_secs(60)),
        max_streams: file.integer("http2_max_concurrent_streams", 128, 1..=10_000),
    }
}

pub(super) fn read_access_log(file: &mut Section<'_>) -> AccessLog {
    let mut section = file.section("access_log");
    let log =
        AccessLog { enabled: section.flag("enabled", true), queue: section.integer("queue", 16_384, 1..=1_000_000) };
    section.finish();
    log
}
