//! Any text as both files: read or refused, never a panic, and no error without a place or a message; no password is printed.

use std::{io, net::IpAddr};

use bookend::config::{Config, Surroundings, print};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| (name == "DB_PASSWORD").then(|| "hunter2".to_owned());
    let resolve = |host: &str, _| match host {
        "web" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Err(io::Error::other("unknown host")),
    };
    let surroundings = Surroundings::new(env, resolve);
    match Config::from_texts(Some(text), Some(text), &surroundings) {
        Ok(config) => drop(print(&config)),
        Err(errors) => assert!(errors.iter().all(|error| !error.message.is_empty())),
    }
    for (lb, pool) in [(Some(text), None), (None, Some(text))] {
        if let Ok(config) = Config::from_texts(lb, pool, &surroundings) {
            assert!(!print(&config).contains("hunter2") || text.contains("hunter2"));
        }
    }
}
