//! Any text as pg_hba.conf and as pg_ident.conf: rules, or mistakes with their places; and whoever asks, one rule answers.

use std::{net::Ipv4Addr, path::Path};

use bookend::config::pool::hba::{self, Asked, ident};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let maps = ident::parse(Path::new("ident"), "team alice app\n").unwrap_or_default();
    // A file that names itself must come to an end as well.
    let included = |name: &str| if name == "self" { Ok(text.to_owned()) } else { Ok("a, b @self".to_owned()) };
    match hba::parse(Path::new("hba"), text, &maps, &included) {
        Ok(rules) => {
            for (tls, database, user) in [(true, "a", "a"), (false, "shop", "app")] {
                let address = Some(Ipv4Addr::LOCALHOST.into());
                let asked = Asked { address, tls, database, user, replication: false };
                let first = rules.find(&asked).map(|rule| rule.line);
                assert_eq!(first, rules.find(&asked).map(|rule| rule.line));
                assert!(first.is_none_or(|line| rules.rules().iter().any(|rule| rule.line == line)));
            }
        }
        Err(errors) => {
            let placed = errors.iter().all(|error| error.position.is_some_and(|at| at.line <= text.lines().count()));
            assert!(placed && !errors.is_empty());
        }
    }
    if let Err(errors) = ident::parse(Path::new("ident"), text) {
        let placed = errors.iter().all(|error| error.position.is_some_and(|at| at.line <= text.lines().count()));
        assert!(placed && !errors.is_empty());
    }
}
