//! Any text as a pgbouncer.ini: a configuration, or mistakes with their places; what it includes is itself.

use std::{io, net::IpAddr};

use bookend::config::{Config, Surroundings, print};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // So that it is told from YAML.
    let text = &format!("[pgbouncer]\n{text}");
    let resolve = |host: &str, _| match host {
        "localhost" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Err(io::Error::other("unknown host")),
    };
    let surroundings = Surroundings::new(|_| None, resolve);
    match Config::from_texts(None, Some(text), &surroundings) {
        Ok(config) => drop(print(&config)),
        Err(errors) => {
            for error in errors.iter() {
                assert!(!error.message.is_empty());
                let lines = text.split('\n').count();
                assert!(error.position.is_none_or(|at| (1..=lines).contains(&at.line) && at.column >= 1), "{error}");
            }
        }
    }
}
