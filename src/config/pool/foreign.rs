//! Settings that PgBouncer has and this pool does not: named in the error, so that nobody looks for a slip of the pen.

/// Keys of PgBouncer's `[pgbouncer]` section (its config.md and the table in src/main.c).
const SETTINGS: &[&str] = &[
    "auth_ldap_options",
    "client_tls13_ciphers",
    "client_tls_ciphers",
    "client_tls_dheparams",
    "client_tls_ecdhcurve",
    "conffile",
    "dns_zone_check_period",
    "job_name",
    "log_stats",
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

/// Explains a key of `pool:`.
pub(super) fn setting(key: &str) -> Option<String> {
    SETTINGS.contains(&key).then(|| explanation(key))
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
    }

    #[test]
    fn the_table_is_sorted_and_holds_nothing_twice() {
        assert!(SETTINGS.is_sorted_by(|a, b| a < b));
    }
}
