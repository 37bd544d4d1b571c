//! Certificates and keys that the configuration names: read, tried, and complained of at the key that is to be mended.

use std::fs;

use super::*;
use crate::config::{lb::ClientAuth, pool::SslMode};

/// A folder with `server.crt` and its `server.key`, and `other.key` that is not.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (pair, other) = (make(), make());
    let files = [
        ("server.crt", pair.cert.pem()),
        ("server.key", pair.signing_key.serialize_pem()),
        ("other.key", other.signing_key.serialize_pem()),
        ("empty", String::new()),
    ];
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Adds `lines` to `pool:`; `@` stands for the folder.
fn with(folder: &Path, lines: &str) -> String {
    let lines = lines.replace('@', &format!("{}/", folder.display()));
    format!("pool:\n  {}\n{POOL}", lines.replace("; ", "\n  "))
}

#[test]
fn a_certificate_with_its_key_is_what_clients_need() {
    let folder = folder();
    let keys = "client_tls_key_file: @server.key; client_tls_cert_file: @server.crt";
    for (mode, expected) in [("allow", SslMode::Allow), ("prefer", SslMode::Prefer), ("require", SslMode::Require)] {
        let pool = load_pool(&with(folder.path(), &format!("client_tls_sslmode: {mode}; {keys}")));
        assert_eq!(pool.client_tls.unwrap().mode, expected);
    }
    let pool = load_pool(&with(folder.path(), keys));
    assert_eq!(pool.client_tls, None, "PgBouncer's default is disable");
    let verify = format!(
        "client_tls_sslmode: verify-full; {keys}; client_tls_ca_file: @server.crt; client_tls_protocols: tlsv1.3"
    );
    assert_eq!(load_pool(&with(folder.path(), &verify)).client_tls.unwrap().mode, SslMode::VerifyFull);
}

#[test]
fn servers_are_asked_for_tls_unless_told_otherwise() {
    let folder = folder();
    let mode = |lines: &str| load_pool(&with(folder.path(), lines)).server_tls.as_ref().map(|tls| tls.mode);
    assert_eq!(mode("threads: 1"), Some(SslMode::Prefer));
    assert_eq!(mode("server_tls_sslmode: disable"), None);
    assert_eq!(mode("server_tls_sslmode: verify-ca; server_tls_ca_file: @server.crt"), Some(SslMode::VerifyCa));
}

#[test]
fn what_does_not_fit_is_said_where_it_is_to_be_mended() {
    let folder = folder();
    let both = "client_tls_sslmode: require; client_tls_key_file: @server.key; client_tls_cert_file: @server.crt";
    let table = [
        (
            "client_tls_sslmode: require",
            "2:23: pool.client_tls_sslmode: require needs client_tls_key_file and client_tls_cert_file",
        ),
        (
            "client_tls_sslmode: require; client_tls_key_file: @server.key",
            "3:24: pool.client_tls_key_file: a certificate and its key go together: give both files",
        ),
        (
            "client_tls_sslmode: require; client_tls_key_file: @other.key; client_tls_cert_file: @server.crt",
            "4:25: pool.client_tls_cert_file: cannot be used: keys may not be consistent: KeyMismatch",
        ),
        (
            "client_tls_sslmode: require; client_tls_key_file: @server.crt; client_tls_cert_file: @server.crt",
            "3:24: pool.client_tls_key_file: has no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        ),
        (
            "client_tls_sslmode: require; client_tls_key_file: @server.key; client_tls_cert_file: @empty",
            "4:25: pool.client_tls_cert_file: has no certificate (-----BEGIN CERTIFICATE-----)",
        ),
        (
            "client_tls_sslmode: require; client_tls_key_file: @server.key; client_tls_cert_file: @nowhere",
            "4:25: pool.client_tls_cert_file: @nowhere cannot be read: No such file or directory (os error 2)",
        ),
        ("server_tls_sslmode: verify-full", "2:23: pool.server_tls_sslmode: verify-full needs server_tls_ca_file"),
        (
            "server_tls_sslmode: verify-full; server_tls_ca_file: @empty",
            "3:23: pool.server_tls_ca_file: has no certificate (-----BEGIN CERTIFICATE-----)",
        ),
        (
            "server_tls_sslmode: required",
            "2:23: pool.server_tls_sslmode: must be disable or allow or prefer or require or verify-ca or verify-full, \
             got required (did you mean require?)",
        ),
        (
            "server_tls_protocols: all",
            "2:25: pool.server_tls_protocols: all includes versions before 1.2, which are not offered (RFC 8996) (secure)",
        ),
        (
            "client_tls_protocols: ssl",
            "2:25: pool.client_tls_protocols: must be secure, tlsv1.2, tlsv1.3, or both with a comma, got ssl",
        ),
    ];
    for (lines, expected) in table {
        let expected = expected.replace('@', &format!("{}/", folder.path().display()));
        assert_eq!(pool_errors(&with(folder.path(), lines)), [format!("pool.yaml:{expected}")], "{lines}");
    }
    let verify = both.replace("require", "verify-ca");
    let error = "pool.yaml:2:23: pool.client_tls_sslmode: verify-ca needs client_tls_ca_file";
    assert_eq!(pool_errors(&with(folder.path(), &verify)), [error]);
}

/// Returns a front whose listener has `keys`; `@` stands for the folder.
fn front(folder: &Path, keys: &str) -> String {
    let keys = keys.replace('@', &format!("{}/", folder.display()));
    FRONT.replace("8080 }", &format!("8080, {keys} }}"))
}

const CERTIFICATE: &str = "certificates: [{ cert_file: @server.crt, key_file: @server.key }]";

#[test]
fn a_listener_has_tls_with_http2_unless_it_is_turned_off() {
    let folder = folder();
    let listener = |keys: &str| load_lb(&front(folder.path(), keys)).listeners.remove(0);
    let plain = listener("max_connections: 1");
    assert_eq!((plain.tls, plain.http2, plain.redirect_https), (None, false, None));
    let secure = listener(&format!("tls: {{ {CERTIFICATE} }}"));
    let tls = secure.tls.unwrap();
    assert!(secure.http2);
    assert_eq!((tls.client_auth, tls.handshake_timeout.as_secs(), &tls.hsts), (ClientAuth::None, 10, &None));
    let http1 = listener(&format!("http2: false, tls: {{ {CERTIFICATE} }}"));
    assert_ne!(http1.tls.as_ref(), Some(&tls), "another offer");
    assert_eq!(listener(&format!("tls: {{ {CERTIFICATE} }}")).tls, Some(tls), "the same files");
    let mutual = listener(&format!("tls: {{ {CERTIFICATE}, client_ca_file: @server.crt }}")).tls.unwrap();
    assert_eq!(mutual.client_auth, ClientAuth::Required);
}

#[test]
fn what_does_not_fit_a_listener_is_said_where_it_is_to_be_mended() {
    let folder = folder();
    let errors = |keys: &str| {
        let errors = lb_errors(&front(folder.path(), keys));
        errors.into_iter().map(|error| error.replace(&format!("{}/", folder.path().display()), "@")).collect::<Vec<_>>()
    };
    let table = [
        ("tls: {}", "tls.certificates: is missing"),
        ("tls: { certificates: [] }", "tls.certificates: must have at least one certificate"),
        ("tls: { certificates: [{ cert_file: @server.crt, key_file: @other.key }] }", "cert_file: cannot be used: "),
        (
            "tls: { certificates: [{ cert_file: @nowhere, key_file: @server.key }] }",
            "cert_file: @nowhere cannot be read",
        ),
        ("tls: { certificates: [{ cert_file: @server.crt, key_file: @empty }] }", "key_file: has no private key"),
        ("tls: { certificates: [{ cert_file: @server.crt }] }", "key_file"),
        (&*format!("tls: {{ {CERTIFICATE}, client_auth: required }}"), "client_auth: needs client_ca_file beside it"),
        (
            &*format!("tls: {{ {CERTIFICATE}, client_auth: maybe }}"),
            "client_auth: must be none or optional or required, got maybe",
        ),
        (&*format!("tls: {{ {CERTIFICATE}, protocols: tlsv1.1 }}"), "protocols: tlsv1.1 includes versions before 1.2"),
        (&*format!("tls: {{ {CERTIFICATE}, hsts: yes }}"), "hsts: must be a value of Strict-Transport-Security"),
        (&*format!("tls: {{ {CERTIFICATE} }}, redirect_https: 443"), "redirect_https: is for a listener without tls"),
        ("redirect_https: 0", "redirect_https: must be 1..=65535, got 0"),
    ];
    for (keys, expected) in table {
        let errors = errors(keys);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{keys}: {errors:#?}");
    }
}
