//! PgBouncer's settings: how each is written, its default, whether PgBouncer takes a new value while it runs, and what
//! becomes of it where `pool.yaml` has no such key.
//!
//! Names, defaults and the last column are those of `SHOW CONFIG` of PgBouncer 1.26.1 (`tests/data/pgbouncer/show.tsv` has its
//! answer, a test compares). A key that the readers of `pool.yaml` know is theirs, whatever stands in the last column here.

/// How PgBouncer writes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    Text,
    /// Relative to the working directory.
    Path,
    /// One of a few words, in any case.
    Word,
    /// A whole number as strtol(3) reads it.
    Int,
    /// A file mode.
    Octal,
    /// 0 or 1.
    Flag,
    /// Seconds, with a fraction.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Names with commas between.
    Names,
}

/// What becomes of a setting that `pool.yaml` has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Without {
    /// Taken, and without effect; why nothing is lost.
    NoEffect(&'static str),
    /// Taken with PgBouncer's default, and with these values, which ask for nothing else than what is done anyway. Refused
    /// otherwise; what to do instead.
    Unless(&'static [&'static str], &'static str),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// As SHOW CONFIG has it.
    pub default: &'static str,
    /// Whether PgBouncer takes a new value by SET or RELOAD.
    #[cfg_attr(not(test), expect(dead_code, reason = "what PgBouncer answers; a test compares the table with it"))]
    pub changeable: bool,
    pub without: Without,
}

use Kind::{Flag, Int, Millis, Names, Octal, Path, Seconds, Text, Word};
use Without::{NoEffect, Unless};

const fn live(name: &'static str, kind: Kind, default: &'static str, without: Without) -> Setting {
    Setting { name, kind, default, changeable: true, without }
}

const fn fixed(name: &'static str, kind: Kind, default: &'static str, without: Without) -> Setting {
    Setting { changeable: false, ..live(name, kind, default, without) }
}

/// For what the readers of `pool.yaml` know, or will.
const KEY: Without = Unless(&[], "leave it out");
const SUITES: Without =
    Unless(&["secure", "fast", "normal"], "rustls's suites are used, all of them with forward secrecy; leave it out");

/// In the order of SHOW CONFIG.
#[rustfmt::skip]
pub(in crate::config) static SETTINGS: [Setting; 99] = [
    live("admin_users", Names, "", KEY),
    live("application_name_add_host", Flag, "0", KEY),
    live("auth_dbname", Text, "", KEY),
    live("auth_file", Path, "", KEY),
    live("auth_hba_file", Path, "", KEY),
    live("auth_ident_file", Path, "", KEY),
    live("auth_ldap_options", Text, "", Unless(&[], "LDAP is not offered; use scram-sha-256, cert or auth_query")),
    live("auth_query", Text, "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin", KEY),
    live("auth_type", Word, "md5", KEY),
    live("auth_user", Text, "", KEY),
    live("autodb_idle_timeout", Seconds, "3600", KEY),
    live("cancel_wait_timeout", Seconds, "10", KEY),
    live("client_idle_timeout", Seconds, "0", KEY),
    live("client_login_timeout", Seconds, "60", KEY),
    live("client_tls13_ciphers", Text, "", SUITES),
    live("client_tls_ca_file", Path, "", KEY),
    live("client_tls_cert_file", Path, "", KEY),
    live("client_tls_ciphers", Text, "default", SUITES),
    live("client_tls_dheparams", Text, "auto", NoEffect("there is no DHE among rustls's suites, only ECDHE")),
    live("client_tls_ecdhcurve", Text, "auto", Unless(&["none"], "rustls offers X25519, P-256 and P-384; leave it out")),
    live("client_tls_key_file", Path, "", KEY),
    live("client_tls_protocols", Text, "secure", KEY),
    live("client_tls_sslmode", Word, "disable", KEY),
    live("conffile", Path, "", Unless(&[], "the file of the command line is read again; replace its content")),
    live("default_pool_size", Int, "20", KEY),
    fixed("disable_pqexec", Flag, "0", KEY),
    live("dns_max_ttl", Seconds, "15", KEY),
    live("dns_nxdomain_ttl", Seconds, "15", KEY),
    live("dns_zone_check_period", Seconds, "0", NoEffect("the system's resolver is asked, and no zone is")),
    live("idle_transaction_timeout", Seconds, "0", KEY),
    live("ignore_startup_parameters", Names, "", KEY),
    fixed("job_name", Text, "pgbouncer", NoEffect("it names a service of Windows")),
    fixed("listen_addr", Names, "", KEY),
    fixed("listen_backlog", Int, "128", KEY),
    fixed("listen_port", Int, "6432", KEY),
    live("log_connections", Flag, "1", KEY),
    live("log_disconnections", Flag, "1", KEY),
    live("log_pooler_errors", Flag, "1", KEY),
    live("log_stats", Flag, "1", NoEffect("/metrics has them")),
    live("logfile", Path, "", KEY),
    live("login_notify_message", Text, "", Unless(&[], "there is no message at login")),
    live("max_client_conn", Int, "100", KEY),
    live("max_db_client_connections", Int, "0", KEY),
    live("max_db_connections", Int, "0", KEY),
    live("max_packet_size", Int, "2147483647", KEY),
    live("max_prepared_statements", Int, "200", KEY),
    live("max_user_client_connections", Int, "0", KEY),
    live("max_user_connections", Int, "0", KEY),
    live("min_pool_size", Int, "0", KEY),
    live("peer_id", Int, "0", KEY),
    fixed("pidfile", Path, "", KEY),
    fixed("pkt_buf", Int, "4096", NoEffect("connections have no buffer of their own")),
    live("pool_idle_timeout", Seconds, "0", KEY),
    live("pool_mode", Word, "session", KEY),
    live("query_timeout", Seconds, "0", KEY),
    live("query_wait_notify", Seconds, "5", KEY),
    live("query_wait_timeout", Seconds, "120", KEY),
    live("reserve_pool_size", Int, "0", KEY),
    live("reserve_pool_timeout", Seconds, "5", KEY),
    fixed("resolv_conf", Path, "", Unless(&[], "the system's resolver is asked; its own configuration says how")),
    live("sbuf_loopcnt", Int, "5", NoEffect("a connection has 8 rounds, then it is the next one's turn")),
    live("scram_iterations", Int, "4096", KEY),
    live("server_check_delay", Seconds, "30", KEY),
    live("server_check_query", Text, "<empty>", KEY),
    live("server_connect_timeout", Seconds, "15", KEY),
    live("server_fast_close", Flag, "0", KEY),
    live("server_idle_timeout", Seconds, "600", KEY),
    live("server_lifetime", Seconds, "3600", KEY),
    live("server_login_retry", Seconds, "15", KEY),
    live("server_reset_query", Text, "DISCARD ALL", KEY),
    live("server_reset_query_always", Flag, "0", KEY),
    live("server_round_robin", Flag, "0", KEY),
    live("server_tls13_ciphers", Text, "", SUITES),
    live("server_tls_ca_file", Path, "", KEY),
    live("server_tls_cert_file", Path, "", KEY),
    live("server_tls_ciphers", Text, "default", SUITES),
    live("server_tls_key_file", Path, "", KEY),
    live("server_tls_protocols", Text, "secure", KEY),
    live("server_tls_sslmode", Word, "prefer", KEY),
    fixed("so_reuseport", Flag, "0", KEY),
    live("stats_period", Seconds, "60", KEY),
    live("stats_users", Names, "", KEY),
    live("syslog", Flag, "0", Unless(&[], "the log goes to standard error: the service manager's journal, or a pipe into logger(1)")),
    live("syslog_facility", Text, "daemon", NoEffect("there is no syslog")),
    live("syslog_ident", Text, "pgbouncer", NoEffect("there is no syslog")),
    live("tcp_defer_accept", Int, "1", KEY),
    live("tcp_keepalive", Flag, "1", KEY),
    live("tcp_keepcnt", Int, "0", KEY),
    live("tcp_keepidle", Int, "0", KEY),
    live("tcp_keepintvl", Int, "0", KEY),
    live("tcp_socket_buffer", Int, "0", KEY),
    live("tcp_user_timeout", Millis, "0", KEY),
    fixed("track_extra_parameters", Names, "", KEY),
    live("transaction_timeout", Seconds, "0", KEY),
    fixed("unix_socket_dir", Path, "/tmp", KEY),
    fixed("unix_socket_group", Text, "", KEY),
    fixed("unix_socket_mode", Octal, "0777", KEY),
    fixed("user", Text, "", KEY),
    live("verbose", Int, "", KEY),
];

/// Settings of other versions and systems that a file may still have.
static FORMER: [Setting; 2] = [
    live("suspend_timeout", Seconds, "10", NoEffect("there is no SUSPEND, as in PgBouncer 1.26")),
    fixed("service_name", Text, "pgbouncer", NoEffect("it names a service of Windows")),
];

/// How what only an entry of [databases], [users] or [peers] has is written.
const ENTRY_KINDS: [(&str, Kind); 5] = [
    ("port", Int),
    ("pool_size", Int),
    ("load_balance_hosts", Word),
    ("max_db_client_connections", Int),
    ("reserve_pool", Int),
];

/// Returns PgBouncer's setting of that name.
pub(in crate::config) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().chain(&FORMER).find(|setting| setting.name == name)
}

/// Returns how the value of a key of an entry is written.
pub(super) fn entry_kind(name: &str) -> Kind {
    let own = ENTRY_KINDS.iter().find(|(own, _)| *own == name).map(|(_, kind)| *kind);
    own.or(find(name).map(|setting| setting.kind)).unwrap_or(Text)
}
