//! Settings that PgBouncer has and this pool does not: named in the error, so that nobody looks for a slip of the pen.

/// Keys of PgBouncer's `[pgbouncer]` section (its config.md and the table in src/main.c).
const SETTINGS: &[&str] = &[
    "auth_dbname",
    "auth_hba_file",
    "auth_ident_file",
    "auth_ldap_options",
    "auth_query",
    "auth_user",
    "client_tls13_ciphers",
    "client_tls_ciphers",
    "client_tls_dheparams",
    "client_tls_ecdhcurve",
    "conffile",
    "dns_zone_check_period",
    "job_name",
    "log_connections",
    "log_disconnections",
    "log_pooler_errors",
    "log_stats",
    "peer_id",
    "pkt_buf",
    "resolv_conf",
    "sbuf_loopcnt",
    "server_tls13_ciphers",
    "server_tls_ciphers",
    "service_name",
    "suspend_timeout",
    "syslog",
    "syslog_facility",
    "syslog_ident",
];

/// Keys of an entry of `[databases]` and `[users]`.
const ENTRIES: &[&str] = &["auth_dbname", "auth_query", "auth_user"];

/// Explains a key of `pool:`.
pub(super) fn setting(key: &str) -> Option<String> {
    SETTINGS.contains(&key).then(|| explanation(key))
}

/// Explains a key of an entry of `databases:` or `users:`.
pub(super) fn entry(key: &str) -> Option<String> {
    ENTRIES.contains(&key).then(|| explanation(key))
}

/// Explains a word PgBouncer takes as a value.
pub(super) fn explanation(word: &str) -> String {
    format!("{word} is PgBouncer's; not offered here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_setting_that_only_pgbouncer_has() {
        let expected = "client_tls_ciphers is PgBouncer's; not offered here";
        assert_eq!(setting("client_tls_ciphers").as_deref(), Some(expected));
        assert_eq!(setting("client_tls_cipher"), None);
        assert!(entry("auth_user").is_some());
    }

    #[test]
    fn the_tables_are_sorted_and_hold_nothing_twice() {
        assert!(SETTINGS.is_sorted_by(|a, b| a < b));
        assert!(ENTRIES.is_sorted_by(|a, b| a < b));
    }
}
