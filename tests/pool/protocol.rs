//! Versions of the protocol: 3.0 and 3.2 on both sides, with PostgreSQL 15 and 18.

use bookend::config::pool::{AuthType, Pool, Protocol, Servers};

use crate::support::*;

const V3_0: u32 = 0x30000;
const V3_2: u32 = 0x30002;

fn trusting(cluster: &Cluster) -> Pool {
    Pool { auth_type: AuthType::Trust, ..config(cluster) }
}

/// The length of the secret by which server connections are cancelled.
fn server_secret(pooled: &Pooled) -> usize {
    let servers = pooled.pooler.registry().servers();
    let lengths: Vec<_> = servers.iter().map(|server| server.cancel_target().unwrap().2.secret.len()).collect();
    assert!(!lengths.is_empty() && lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    lengths[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_3_2_gets_a_key_of_32_bytes_and_one_of_3_0_of_four_whatever_the_server_speaks() {
    for (cluster, newest) in [(postgres::shared_18(), 32), (postgres::shared(), 4)] {
        let pooled = start(trusting(&cluster)).await;
        for (version, length) in [(V3_0, 4), (V3_0 + 1, 4), (V3_2, 32)] {
            let session = keyed(pooled.port, version, "").await;
            assert_eq!(session.key.len(), 4 + length, "{version:x}");
            assert_eq!(session.key[0] & 0x80, 0, "the process id is not negative");
            assert!(session.welcome.iter().all(|(tag, _)| *tag != b'v'), "nothing to negotiate");
        }
        // PostgreSQL 18 gives long keys where 3.2 is spoken. The shared 15 may be another one by PG_BIN.
        let expected = if std::env::var_os("PG_BIN").is_some() { server_secret(&pooled) } else { newest };
        assert_eq!(server_secret(&pooled), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_is_answered_with_3_2_and_unknown_options_are_named() {
    let cluster = postgres::shared_18();
    let pooled = start(trusting(&cluster)).await;
    // The second is libpq's grease: a version there will never be, and an option.
    for (version, more, expected) in [
        (V3_2 + 1, "", b"\0\x03\0\x02\0\0\0\0".to_vec()),
        (
            0x3270f,
            "_pq_.test_protocol_negotiation\0\0",
            b"\0\x03\0\x02\0\0\0\x01_pq_.test_protocol_negotiation\0".to_vec(),
        ),
        (V3_0, "_pq_.command_progress\0on\0", b"\0\x03\0\0\0\0\0\x01_pq_.command_progress\0".to_vec()),
    ] {
        let mut session = keyed(pooled.port, version, more).await;
        assert_eq!(session.welcome[0], (b'v', expected), "before everything else");
        assert_eq!(session.welcome.iter().filter(|(tag, _)| *tag == b'v').count(), 1);
        assert_eq!(session.key.len(), if version == V3_0 { 8 } else { 36 });
        session.send("SELECT 1").await;
        assert_eq!(session.sqlstate().await, None);
        // As PostgreSQL answers the same packet.
        let theirs = negotiated_by(cluster.port, version, more).await;
        assert_eq!(Some(&session.welcome[0].1), theirs.as_ref(), "{version:x}");
    }
}

/// What PostgreSQL itself says to such a packet.
async fn negotiated_by(port: u16, version: u32, more: &str) -> Option<Vec<u8>> {
    use tokio::io::AsyncWriteExt;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let parameters = format!("user\0{USER}\0database\0postgres\0{more}\0");
    let length = u32::try_from(parameters.len() + 8).unwrap();
    let packet = [&length.to_be_bytes()[..], &version.to_be_bytes(), parameters.as_bytes()].concat();
    stream.write_all(&packet).await.unwrap();
    Some(message(&mut stream).await).filter(|(tag, _)| *tag == b'v').map(|(_, body)| body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_keys_cancel_from_end_to_end() {
    let cluster = postgres::shared_18();
    let pooled = start(trusting(&cluster)).await;
    for version in [V3_2, V3_0] {
        let mut session = keyed(pooled.port, version, "").await;
        for _ in 0..2 {
            session.sleep().await;
            assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
        }
        session.send("SELECT 1").await;
        assert_eq!(session.sqlstate().await, None);
    }
    assert_eq!(server_secret(&pooled), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bytes_of_a_long_key_are_no_key() {
    let cluster = postgres::shared_18();
    let pooled = start(trusting(&cluster)).await;
    let mut session = keyed(pooled.port, V3_2, "").await;
    session.sleep().await;
    eventually("it runs", || pooled.pooler.registry().clients().iter().any(|client| client.link().is_some())).await;
    for length in [8, 35] {
        cancel(pooled.port, &session.key[..length]).await;
    }
    session.still_sleeps().await;
    assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_max_protocol_version_keeps_a_new_server_to_3_0() {
    let cluster = postgres::shared_18();
    let servers = Servers { max_protocol: Protocol::V3_0, ..Servers::default() };
    let pooled = start(Pool { servers, ..trusting(&cluster) }).await;
    let mut session = keyed(pooled.port, V3_2, "").await;
    assert_eq!((session.key.len(), server_secret(&pooled)), (36, 4));
    session.sleep().await;
    assert_eq!(session.cancelled_by(pooled.port).await.as_deref(), Some("57014"));
}

/// Two clients on one server; each asks for a search path of its own, which PostgreSQL 18 reports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_path_that_the_server_reports_is_its_clients_own() {
    let cluster = postgres::shared_18();
    let pooled = start(Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    one.batch_execute("SET search_path TO pg_temp, public").await.unwrap();
    other.batch_execute("SET search_path TO pg_catalog").await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&one, "SHOW search_path").await.unwrap(), "pg_temp, public");
        assert_eq!(ask(&other, "SHOW search_path").await.unwrap(), "pg_catalog");
    }
    one.batch_execute("RESET search_path").await.unwrap();
    assert_eq!(ask(&one, "SHOW search_path").await.unwrap(), "\"$user\", public");
    assert_eq!(pooled.servers(), 1);
}
