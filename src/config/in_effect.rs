//! The settings in effect as PgBouncer's SHOW CONFIG has them: names, values, defaults, and whether they can change.
//!
//! Made from what [`super::print`] prints, so that a key that is printed is shown: times in seconds, flags as 0 and 1, lists
//! with commas. PgBouncer's keys come first, in its order and with its defaults; those that only Bookend has follow, with
//! Bookend's. What `pool.yaml` has no key for is not shown.

use crate::config::{
    Config, Surroundings,
    ini::settings::{self, Kind, SETTINGS},
    pool::Pool,
    print::{self, Yaml},
    units,
};

/// Keys whose values belong to the running process: a restart takes them in.
const FIXED: [&str; 11] = [
    "listen",
    "listen_addr",
    "listen_backlog",
    "listen_port",
    "pidfile",
    "so_reuseport",
    "threads",
    "unix_socket_dir",
    "unix_socket_group",
    "unix_socket_mode",
    "user",
];
/// A pool on its defaults.
const PLAIN: &str = "pool: { auth_type: trust }\ndatabases: { db: { host: localhost } }\nusers: { user: {} }\n";

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEffect {
    pub key: String,
    pub value: String,
    pub default: String,
    pub changeable: bool,
}

/// Returns whether a running process takes a new value of `key`.
pub fn is_changeable(key: &str) -> bool {
    !FIXED.contains(&key)
}

/// Returns every setting of `pool:`.
pub fn in_effect(pool: &Pool) -> Vec<InEffect> {
    let printed = values(pool);
    let value = |key: &str| printed.iter().find(|(own, _)| own == key).map(|(_, value)| value.clone());
    let known = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name.to_owned(), value(setting.name)?, setting.default.to_owned())));
    let defaults = defaults();
    let default = |key: &str| defaults.iter().find(|(own, _)| own == key).map(|(_, value)| value.clone());
    let own = printed.iter().filter(|(key, _)| settings::find(key).is_none());
    let own = own.map(|(key, value)| (key.clone(), value.clone(), default(key).unwrap_or_default()));
    let row = |(key, value, default): (String, String, String)| InEffect {
        changeable: is_changeable(&key),
        key,
        value,
        default,
    };
    known.chain(own).map(row).collect()
}

fn defaults() -> Vec<(String, String)> {
    let nobody = Surroundings::new(|_| None, |_, _| Err(std::io::ErrorKind::NotFound.into()));
    let plain = Config::from_texts(None, Some(PLAIN), &nobody).ok().and_then(|config| config.pool);
    plain.map(|pool| values(&pool)).unwrap_or_default()
}

/// Returns the keys of `pool:` that are no mappings themselves, with dots for those inside one.
fn values(pool: &Pool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, value) in print::settings(pool) {
        match value {
            Yaml::Map(entries) => found.extend(entries.into_iter().map(|(inner, value)| {
                let key = format!("{key}.{inner}");
                let value = shown(&key, &value);
                (key, value)
            })),
            value => {
                let value = shown(&key, &value);
                found.push((key, value));
            }
        }
    }
    found
}

fn shown(key: &str, value: &Yaml) -> String {
    match value {
        Yaml::Null | Yaml::Map(_) => String::new(),
        Yaml::Bool(flag) => u8::from(*flag).to_string(),
        Yaml::Number(number) => number.to_string(),
        Yaml::List(items) => items.iter().map(|item| shown("", item)).collect::<Vec<_>>().join(","),
        Yaml::Text(text) => match settings::find(key).map(|setting| setting.kind) {
            Some(Kind::Seconds) => seconds(text, 1.0),
            Some(Kind::Millis) => seconds(text, 1_000.0),
            Some(Kind::Int) => units::parse_size(text).map_or_else(|_| seconds(text, 1.0), |size| size.to_string()),
            Some(Kind::Octal) => u32::from_str_radix(text, 8).map_or_else(|_| text.clone(), |mode| mode.to_string()),
            _ => text.clone(),
        },
    }
}

fn seconds(text: &str, factor: f64) -> String {
    units::parse_duration(text).map_or_else(|_| text.to_owned(), |time| (time.as_secs_f64() * factor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(text: &str) -> Vec<InEffect> {
        let nobody = Surroundings::new(|_| None, |_, _| Err(std::io::ErrorKind::NotFound.into()));
        let config = Config::from_texts(None, Some(text), &nobody).unwrap_or_else(|errors| panic!("{errors}"));
        in_effect(&config.pool.unwrap())
    }

    fn value(rows: &[InEffect], key: &str) -> String {
        rows.iter().find(|row| row.key == key).unwrap_or_else(|| panic!("{key}")).value.clone()
    }

    #[test]
    fn values_are_spelt_as_pgbouncer_spells_them() {
        let rows = shown_of(
            "[databases]\ndb = host=h\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\nquery_timeout = 1.5\n\
             server_lifetime = 2h\nadmin_users = \nunix_socket_mode = 0700\ntcp_user_timeout = 1500\nserver_round_robin = 1\n\
             max_packet_size = 65536\nstats_period = 30\n",
        );
        let expected = [
            ("query_timeout", "1.5"),
            ("server_lifetime", "7200"),
            ("unix_socket_mode", "448"),
            ("tcp_user_timeout", "1500"),
            ("server_round_robin", "1"),
            ("max_packet_size", "65536"),
            ("stats_period", "30"),
            ("listen_port", "6432"),
            ("pool_mode", "session"),
            ("client_idle_timeout", "0"),
        ];
        for (key, expected) in expected {
            assert_eq!(value(&rows, key), expected, "{key}");
        }
        assert!(!is_changeable("listen_port") && is_changeable("pool_mode"));
    }

    #[test]
    fn an_ini_that_says_nothing_shows_pgbouncers_defaults() {
        let rows = shown_of("[databases]\ndb = host=h\n[pgbouncer]\n");
        // Better on purpose, or without a default of its own: the manual of the pool says how.
        let other = [
            "auth_query",
            "client_tls_protocols",
            "listen_backlog",
            "server_tls_protocols",
            "tcp_keepcnt",
            "tcp_keepidle",
            "tcp_keepintvl",
            "track_extra_parameters",
            "unix_socket_mode",
            "verbose",
        ];
        for row in rows.iter().filter(|row| settings::find(&row.key).is_some() && !other.contains(&row.key.as_str())) {
            assert_eq!(row.value, row.default, "{}", row.key);
        }
        assert_eq!(value(&rows, "unix_socket_mode"), "511");
    }

    #[test]
    fn own_settings_follow_with_their_own_defaults() {
        let rows =
            shown_of("pool: { auth_type: trust, threads: 3 }\ndatabases: { db: { host: h } }\nusers: { u: {} }\n");
        let threads = rows.iter().find(|row| row.key == "threads").unwrap();
        assert_eq!((threads.value.as_str(), threads.default.as_str(), threads.changeable), ("3", "1", false));
        assert_eq!(value(&rows, "probe.interval"), "2s");
    }
}
