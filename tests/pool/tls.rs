//! TLS on both sides, with a real PostgreSQL, libpq and tokio-postgres.

use std::sync::Arc;

use bookend::{
    config::{
        pool::{Asked, AuthType, ClientTls, Peer, Peers, Pool, RequireAuth, ServerTls, SslMode, TlsFiles, UserSecret},
        secret::Secret,
    },
    pool::{registry::ServerState, wire::frontend},
    tls::{Accept, Connect, Connected, Identity, Roots, Verify, Versions},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::support::{self, Cluster, DATABASE, PASSWORD, Pooled, USER, ask, config, postgres, told};

/// A certificate that signed itself, for `localhost` and 127.0.0.1, with its key.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub fn pair() -> Pair {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Pair { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Pair {
    fn identity(&self) -> Identity {
        Identity::parse(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn roots(&self) -> Roots {
        Roots::parse(self.certificate.as_bytes()).unwrap()
    }
}

/// Signs certificates for clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than its certificates have: OpenSSL takes those for self-signed otherwise.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn client(&self) -> Identity {
        self.client_named("client")
    }

    /// Made out for a user, by its common name.
    fn client_named(&self, name: &str) -> Identity {
        let (certificate, key) = self.client_files(name);
        Identity::parse(certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    /// The same as files hold it: certificate and key.
    pub fn client_files(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn roots(&self) -> Roots {
        Roots::parse(self.certificate.as_bytes()).unwrap()
    }
}

fn for_clients(mode: SslMode, pair: &Pair, clients: Option<Roots>) -> Option<ClientTls> {
    for_clients_of(Versions::Both, mode, pair, clients)
}

fn for_clients_of(versions: Versions, mode: SslMode, pair: &Pair, clients: Option<Roots>) -> Option<ClientTls> {
    let accept = Accept::new(pair.identity(), clients, versions, &[b"postgresql"]).unwrap();
    Some(ClientTls { mode, files: TlsFiles::default(), accept })
}

fn to_server(mode: SslMode, verify: Verify) -> Option<Arc<ServerTls>> {
    to_server_as(None, mode, verify)
}

fn to_server_as(identity: Option<Identity>, mode: SslMode, verify: Verify) -> Option<Arc<ServerTls>> {
    let connect = Connect::new(verify, identity, Versions::Both, &[b"postgresql"]).unwrap();
    Some(Arc::new(ServerTls { mode, direct: false, files: TlsFiles::default(), connect }))
}

async fn pool_with(change: impl FnOnce(&mut Pool)) -> (Arc<Cluster>, Pooled) {
    let cluster = postgres::shared();
    let mut config = config(&cluster);
    change(&mut config);
    let pooled = support::start(config).await;
    (cluster, pooled)
}

/// Connects with tokio-postgres; `more` says how.
async fn connect(
    pooled: &Pooled,
    verify: Verify,
    more: &str,
) -> Result<(tokio_postgres::Client, MakeRustlsConnect), tokio_postgres::Error> {
    connect_by(pooled, &Connect::new(verify, None, Versions::Both, &[b"postgresql"]).unwrap(), more).await
}

async fn connect_by(
    pooled: &Pooled,
    connect: &Connect,
    more: &str,
) -> Result<(tokio_postgres::Client, MakeRustlsConnect), tokio_postgres::Error> {
    let connector = MakeRustlsConnect::new(connect.config());
    let port = pooled.port;
    let login = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={USER} password={PASSWORD} dbname={DATABASE} {more}"
    );
    let (client, connection) = tokio_postgres::connect(&login, connector.clone()).await?;
    tokio::spawn(connection);
    Ok((client, connector))
}

/// Logs in by hand, as somebody who is trusted.
async fn connect_by_hand(pooled: &Pooled) -> Connected<TcpStream> {
    let mut socket = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
    socket.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'S');
    let connect = Connect::new(Verify::Nothing, None, Versions::Both, &[]).unwrap();
    let mut stream = connect.handshake("localhost", socket).await.unwrap();
    let packet = format!("\0\x03\0\0user\0{USER}\0database\0{DATABASE}\0\0");
    stream.write_u32(packet.len() as u32 + 4).await.unwrap();
    stream.write_all(packet.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    loop {
        let tag = stream.read_u8().await.unwrap();
        let len = stream.read_u32().await.unwrap() as usize;
        let mut body = vec![0; len - 4];
        stream.read_exact(&mut body).await.unwrap();
        if tag == b'Z' {
            return stream;
        }
    }
}

/// Runs psql: libpq, the client that counts. Returns what it printed, or its error.
async fn psql(pooled: &Pooled, more: &str, sql: &str) -> Result<String, String> {
    let said = Command::new("psql")
        .args(["-XAtq", "-c", sql])
        .arg(format!("host=127.0.0.1 port={} user={USER} dbname={DATABASE} {more}", pooled.port))
        .env("PGPASSWORD", PASSWORD)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
}

#[tokio::test]
async fn libpq_logs_in_over_tls_with_its_proof_bound_to_the_certificate() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Prefer, &pair, None)).await;
    for more in
        ["sslmode=require", "sslmode=require channel_binding=require", "sslmode=require channel_binding=disable"]
    {
        assert_eq!(psql(&pooled, more, "SELECT 6 * 7").await.as_deref(), Ok("42"), "{more}");
    }
    // Without TLS too, since it is only preferred; but nothing can be bound to then.
    assert_eq!(psql(&pooled, "sslmode=disable", "SELECT 6 * 7").await.as_deref(), Ok("42"));
    let error = psql(&pooled, "sslmode=disable channel_binding=require", "SELECT 1").await.unwrap_err();
    assert!(error.contains("channel binding"), "{error}");
}

#[tokio::test]
async fn libpq_believes_the_certificate_only_as_far_as_it_is_told() {
    let pair = pair();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.crt");
    std::fs::write(&root, &pair.certificate).unwrap();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Require, &pair, None)).await;
    let verify = format!("sslmode=verify-ca sslrootcert={}", root.display());
    assert_eq!(psql(&pooled, &verify, "SELECT 1").await.as_deref(), Ok("1"));
    std::fs::write(&root, self::pair().certificate).unwrap();
    assert!(psql(&pooled, &verify, "SELECT 1").await.unwrap_err().contains("certificate verify failed"));
}

#[tokio::test]
async fn a_client_without_tls_is_told_when_it_must_have_it() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Require, &pair, None)).await;
    let error = pooled.client_with("").await.unwrap_err();
    assert_eq!(told(&error), ("28000".into(), "SSL required".into()));
}

#[tokio::test]
async fn direct_tls_is_served_when_it_names_its_protocol() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Prefer, &pair, None)).await;
    let full = Verify::AuthorityAndName(pair.roots());
    let (client, _) =
        connect(&pooled, full, "sslmode=require sslnegotiation=direct channel_binding=require").await.unwrap();
    assert_eq!(ask(&client, "SELECT 6 * 7").await.unwrap(), "42");

    let nameless = Connect::new(Verify::Nothing, None, Versions::Both, &[]).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
    let mut stream = nameless.handshake("localhost", socket).await.unwrap();
    let mut rest = Vec::new();
    // Closed without a word, before anything was asked.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn what_was_sent_in_plain_text_before_the_handshake_is_never_used() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Prefer, &pair, None)).await;
    let mut socket = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
    // An SSLRequest with a startup packet that somebody on the way has put behind it (CVE-2021-3935).
    let mut injected = b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec();
    injected.extend_from_slice(b"\0\0\0\x0e\0\x03\0\0user\0");
    socket.write_all(&injected).await.unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).await.unwrap();
    assert!(!said.starts_with(b"S"), "the handshake began: {said:?}");
    assert!(String::from_utf8_lossy(&said).contains("C08P01"), "{said:?}");
}

#[tokio::test]
async fn encryption_is_not_begun_twice() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Prefer, &pair, None)).await;
    for request in [b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x08\x04\xd2\x16\x30"] {
        let mut socket = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
        socket.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'S');
        let connect = Connect::new(Verify::Nothing, None, Versions::Both, &[]).unwrap();
        let mut stream = connect.handshake("localhost", socket).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.flush().await.unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(String::from_utf8_lossy(&said).contains("C08P01"), "{said:?}");
    }
}

#[tokio::test]
async fn a_peer_that_begins_a_handshake_and_says_no_more_ends_with_the_login_timeout() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| {
        pool.client_tls = for_clients(SslMode::Prefer, &pair, None);
        pool.client_login_timeout = support::SECOND / 5;
    })
    .await;
    for begin in [&b""[..], b"\x16", b"\x16\x03\x01\x02\0\x01\0\x01\xfc"] {
        let mut socket = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
        socket.write_all(begin).await.unwrap();
        let mut said = Vec::new();
        let end = tokio::time::timeout(20 * support::SECOND, socket.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "still open after {begin:?}");
    }
}

#[tokio::test]
async fn a_client_with_tls_cancels_with_tls() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Require, &pair, None)).await;
    for more in ["sslmode=require", "sslmode=require sslnegotiation=direct"] {
        let (client, connector) = connect(&pooled, Verify::Nothing, more).await.unwrap();
        let cancel = client.cancel_token();
        let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
        let error = loop {
            cancel.cancel_query(connector.clone()).await.unwrap();
            tokio::time::sleep(support::SECOND / 20).await;
            if sleeping.is_finished() {
                break sleeping.await.unwrap().unwrap_err();
            }
        };
        assert_eq!(told(&error).0, "57014", "{more}");
    }
}

/// libpq before 17 always sends it so.
#[tokio::test]
async fn a_client_with_tls_cancels_without_where_tls_is_required() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Require, &pair, None)).await;
    let (client, _) = connect(&pooled, Verify::Nothing, "sslmode=require").await.unwrap();
    let entry = pooled.pooler.registry().clients().remove(0);
    let key = [&entry.key().pid().to_be_bytes()[..], &entry.secret()].concat();
    let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
    while !sleeping.is_finished() {
        support::cancel(pooled.port, &key).await;
        tokio::time::sleep(support::SECOND / 20).await;
    }
    assert_eq!(told(&sleeping.await.unwrap().unwrap_err()).0, "57014");
}

/// As PgBouncer does it, whose peers may have no TLS; and with `tls` as it would reach a server.
#[tokio::test]
async fn a_peer_is_reached_in_plain_text_unless_its_entry_says_tls() {
    let pair = pair();
    let trust = |pool: &mut Pool| pool.auth_type = AuthType::Trust;
    let (_cluster, maker) = pool_with(|pool| {
        trust(pool);
        pool.client_tls = for_clients(SslMode::Allow, &pair, None);
    })
    .await;
    let (_cluster, other) = pool_with(|pool| {
        trust(pool);
        pool.server_tls = to_server(SslMode::VerifyFull, Verify::Authority(pair.roots()));
    })
    .await;
    for (tls, host, sent) in [(false, "127.0.0.1", true), (true, "localhost", true), (true, "127.0.0.2", false)] {
        let peer = |id, port| Peer { id, host: host.into(), port, pool_size: None, tls };
        for (pooled, id) in [(&maker, 1), (&other, 2)] {
            let peers = Peers { id, all: vec![peer(1, maker.port), peer(2, other.port)] };
            let changed = Pool { peers, ..(*pooled.pooler.config()).clone() };
            pooled.pooler.reload(&Arc::new(changed));
        }
        let results = ["forwarded", "forward_failed"];
        let count = || results.map(|result| other.metric_of("bookend_pool_cancel_requests_total", result));
        let before = count();
        let session = support::keyed(maker.port, 0x30000, "").await;
        support::cancel(other.port, &session.key).await;
        let expected = [f64::from(u8::from(sent)), f64::from(u8::from(!sent))];
        let after = count();
        assert_eq!([after[0] - before[0], after[1] - before[1]], expected, "{tls} {host}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_and_reads_nothing_more_does_not_keep_its_server() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| {
        pool.client_tls = for_clients(SslMode::Require, &pair, None);
        pool.auth_type = AuthType::Trust;
        pool.default_pool_size = 1;
        pool.rollback_timeout = support::SECOND / 5;
        pool.query_wait_timeout = Some(10 * support::SECOND);
    })
    .await;
    let mut deaf = connect_by_hand(&pooled).await;
    // More than all buffers on the way hold, so that there is no room for the last word of TLS.
    let sql = "SELECT repeat('x', 1000000) FROM generate_series(1, 1000)\0";
    deaf.write_u8(b'Q').await.unwrap();
    deaf.write_u32(sql.len() as u32 + 4).await.unwrap();
    deaf.write_all(sql.as_bytes()).await.unwrap();
    deaf.write_all(b"X\0\0\0\x04").await.unwrap();
    deaf.flush().await.unwrap();
    let runs = || pooled.pooler.registry().servers().iter().any(|server| server.state() == ServerState::Leased);
    support::eventually("the query runs", runs).await;
    let (next, _) = connect(&pooled, Verify::Nothing, "sslmode=require").await.unwrap();
    assert_eq!(ask(&next, "SELECT 6 * 7").await.unwrap(), "42");
    drop(deaf);
}

/// What TLS has encrypted and the socket does not take counts as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_answer_over_tls_does_not_keep_the_server() {
    const MUCH: usize = 7 << 20;
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| {
        pool.auth_type = AuthType::Trust;
        pool.client_tls = for_clients(SslMode::Prefer, &pair, None);
        (pool.default_pool_size, pool.query_wait_timeout) = (1, Some(support::SECOND));
        pool.spill_buffer = 16 << 20;
    })
    .await;
    let mut slow = connect_by_hand(&pooled).await;
    let mut query = Vec::new();
    frontend::query(&mut query, format!("SELECT repeat('x', {MUCH})").as_bytes());
    slow.write_all(&query).await.unwrap();
    slow.flush().await.unwrap();
    support::eventually("much is kept for it", || pooled.metric("bookend_pool_spilled_bytes") > 1e6).await;
    let other = pooled.client().await;
    assert_eq!(ask(&other, "SELECT 1").await.unwrap(), "1");
    let mut got = 0;
    let mut buf = vec![0; 1 << 16];
    while got < MUCH {
        got += slow.read(&mut buf).await.unwrap();
    }
    support::eventually("the memory is given back", || pooled.metric("bookend_pool_spilled_bytes") == 0.0).await;
}

#[tokio::test]
async fn a_client_must_show_a_certificate_of_the_authority_where_the_mode_says_so() {
    let (pair, ours, theirs) = (pair(), Authority::new(), Authority::new());
    let by = |identity| Connect::new(Verify::Nothing, identity, Versions::Both, &[b"postgresql"]).unwrap();
    for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
        let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(mode, &pair, Some(ours.roots()))).await;
        for more in ["sslmode=require", "sslmode=require sslnegotiation=direct"] {
            let (client, _) = connect_by(&pooled, &by(Some(ours.client())), more).await.unwrap();
            assert_eq!(ask(&client, "SELECT 6 * 7").await.unwrap(), "42", "{mode:?} {more}");
            for stranger in [None, Some(theirs.client())] {
                assert!(connect_by(&pooled, &by(stranger), more).await.is_err(), "{mode:?} {more}");
            }
        }
        assert_eq!(told(&pooled.client_with("").await.unwrap_err()).1, "SSL required");
    }
}

#[tokio::test]
async fn a_version_that_is_not_offered_is_not_spoken_and_the_other_one_binds_as_well() {
    let pair = pair();
    for (versions, other, name) in
        [(Versions::Only12, Versions::Only13, "TLSv1.2"), (Versions::Only13, Versions::Only12, "TLSv1.3")]
    {
        let (_cluster, pooled) =
            pool_with(|pool| pool.client_tls = for_clients_of(versions, SslMode::Require, &pair, None)).await;
        let more = "sslmode=require channel_binding=require";
        assert_eq!(psql(&pooled, more, "SELECT 6 * 7").await.as_deref(), Ok("42"), "{name}");
        let (_client, _) = connect(&pooled, Verify::Nothing, more).await.unwrap();
        let shown: Vec<String> = pooled.pooler.registry().clients().iter().map(|c| c.tls().describe()).collect();
        assert!(shown.iter().any(|tls| tls.starts_with(name)), "{shown:?}");
        let other = Connect::new(Verify::Nothing, None, other, &[b"postgresql"]).unwrap();
        assert!(connect_by(&pooled, &other, more).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_proof_that_is_bound_to_tls_opens_servers_that_hold_the_same_verifier() {
    let pair = pair();
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    let verifier = ask(&direct, "SELECT rolpassword FROM pg_authid WHERE rolname = current_user").await.unwrap();
    let (_cluster, pooled) = pool_with(|pool| {
        pool.client_tls = for_clients(SslMode::Require, &pair, None);
        pool.users[0].secret = UserSecret::Scram(Secret::new(verifier));
    })
    .await;
    assert_eq!(psql(&pooled, "sslmode=require channel_binding=require", "SELECT 6 * 7").await.as_deref(), Ok("42"));
}

#[tokio::test]
async fn large_results_and_pipelines_pass_through_tls_unchanged() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Require, &pair, None)).await;
    let (client, _) = connect(&pooled, Verify::Nothing, "sslmode=require").await.unwrap();
    let sql = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200000) n";
    let (direct, through) = (pooled.client_with("").await, ask(&client, sql).await.unwrap());
    assert!(direct.is_err() && through.len() == 200_000 * 32);
    let answers = futures_util::future::join_all((0..200i32).map(|n| {
        let client = &client;
        async move { client.query_one("SELECT $1::int4 * 2", &[&n]).await.unwrap().get::<_, i32>(0) }
    }))
    .await;
    assert_eq!(answers, (0..200).map(|n| n * 2).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_console_shows_what_a_client_is_encrypted_with() {
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Prefer, &pair, None)).await;
    let (client, _) = connect(&pooled, Verify::Nothing, "sslmode=require").await.unwrap();
    ask(&client, "SELECT 1").await.unwrap();
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let rows = support::rows(&console, "SHOW CLIENTS").await;
    let rows = rows.iter().filter(|row| row.get("database") == Some(DATABASE));
    let tls: Vec<_> = rows.map(|row| row.get("tls").unwrap()).collect();
    assert_eq!(tls.len(), 1);
    assert!(tls[0].starts_with("TLSv1.3/TLS_"), "{tls:?}");
}

// --- towards PostgreSQL ---

/// What PostgreSQL says of the connection that asks.
const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

async fn pool_before(cluster: &Cluster, tls: Option<Arc<ServerTls>>, host: &str) -> Pooled {
    let mut config = config(cluster);
    config.server_tls = tls;
    config.databases[0].host = host.into();
    config.query_wait_timeout = Some(2 * support::SECOND);
    support::start(config).await
}

#[tokio::test]
async fn servers_are_reached_over_tls_as_far_as_the_mode_asks() {
    let pair = pair();
    let cluster = Cluster::start_with_tls(&pair.certificate, &pair.key);
    let ca = Verify::Authority(pair.roots());
    let full = Verify::AuthorityAndName(pair.roots());
    for (tls, host, encrypted) in [
        (None, "127.0.0.1", "f"),
        (to_server(SslMode::Allow, Verify::Nothing), "127.0.0.1", "f"),
        (to_server(SslMode::Prefer, Verify::Nothing), "127.0.0.1", "t"),
        (to_server(SslMode::Require, Verify::Nothing), "127.0.0.1", "t"),
        (to_server(SslMode::VerifyCa, ca), "127.0.0.1", "t"),
        (to_server(SslMode::VerifyFull, full.clone()), "localhost", "t"),
    ] {
        let shown = format!("{tls:?}");
        let pooled = pool_before(&cluster, tls, host).await;
        assert_eq!(ask(&pooled.client().await, ENCRYPTED).await.unwrap(), encrypted, "{shown}");
    }
    // Not made out for this address; and an authority that did not sign it.
    for verify in [Verify::AuthorityAndName(self::pair().roots()), Verify::Authority(self::pair().roots())] {
        let pooled = pool_before(&cluster, to_server(SslMode::VerifyCa, verify), "127.0.0.1").await;
        let error = pooled.client_with("").await.map(drop).unwrap_err();
        let (_, message) = told(&error);
        assert!(message.contains("TLS with the server failed"), "{message}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_ours() {
    let (pair, authority) = (pair(), Authority::new());
    let cluster = Cluster::start_with_tls_that_asks(&pair.certificate, &pair.key, &authority.certificate);
    let seen = "SELECT client_serial IS NOT NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for (identity, shown) in [(Some(authority.client()), "t"), (None, "f")] {
        let tls = to_server_as(identity, SslMode::VerifyCa, Verify::Authority(pair.roots()));
        let pooled = pool_before(&cluster, tls, "127.0.0.1").await;
        assert_eq!(ask(&pooled.client().await, seen).await.unwrap(), shown);
    }
    let stranger = to_server_as(Some(Authority::new().client()), SslMode::Require, Verify::Nothing);
    let pooled = pool_before(&cluster, stranger, "127.0.0.1").await;
    assert!(pooled.client_with("").await.is_err());
}

#[tokio::test]
async fn a_server_without_tls_serves_those_who_only_prefer_it() {
    let cluster = postgres::shared();
    let pooled = pool_before(&cluster, to_server(SslMode::Prefer, Verify::Nothing), "127.0.0.1").await;
    assert_eq!(ask(&pooled.client().await, "SELECT 6 * 7").await.unwrap(), "42");
    let pooled = pool_before(&cluster, to_server(SslMode::Require, Verify::Nothing), "127.0.0.1").await;
    let error = pooled.client_with("").await.map(drop).unwrap_err();
    let (_, message) = told(&error);
    assert!(message.contains("does not offer TLS"), "{message}");
}

#[tokio::test]
async fn a_query_on_a_server_with_tls_is_cancelled_with_tls() {
    let pair = pair();
    let cluster = Cluster::start_with_tls(&pair.certificate, &pair.key);
    let pooled = pool_before(&cluster, to_server(SslMode::Require, Verify::Nothing), "127.0.0.1").await;
    let client = pooled.client().await;
    let cancel = client.cancel_token();
    let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
    let error = loop {
        cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
        tokio::time::sleep(support::SECOND / 20).await;
        if sleeping.is_finished() {
            break sleeping.await.unwrap().unwrap_err();
        }
    };
    assert_eq!(told(&error).0, "57014");
}

#[tokio::test]
async fn a_reload_that_changes_how_servers_are_reached_replaces_them() {
    let pair = pair();
    let cluster = Cluster::start_with_tls(&pair.certificate, &pair.key);
    let pooled = pool_before(&cluster, None, "127.0.0.1").await;
    let client = pooled.client().await;
    assert_eq!(ask(&client, ENCRYPTED).await.unwrap(), "f");
    let mut changed = (*pooled.pooler.config()).clone();
    changed.server_tls = to_server(SslMode::Require, Verify::Nothing);
    pooled.pooler.reload(&Arc::new(changed));
    assert_eq!(ask(&client, ENCRYPTED).await.unwrap(), "t");
}

#[tokio::test]
async fn a_reload_with_a_new_certificate_shows_it_to_the_next_client_and_drops_nobody() {
    let (old, new) = (pair(), pair());
    let (_cluster, pooled) = pool_with(|pool| pool.client_tls = for_clients(SslMode::Require, &old, None)).await;
    let (client, _) = connect(&pooled, Verify::Authority(old.roots()), "sslmode=require").await.unwrap();
    client.simple_query("BEGIN").await.unwrap();
    let mut changed = (*pooled.pooler.config()).clone();
    changed.client_tls = for_clients(SslMode::Require, &new, None);
    pooled.pooler.reload(&Arc::new(changed));
    assert_eq!(ask(&client, "SELECT 6 * 7").await.unwrap(), "42");
    client.simple_query("COMMIT").await.unwrap();
    assert!(connect(&pooled, Verify::Authority(old.roots()), "sslmode=require").await.is_err());
    let (client, _) = connect(&pooled, Verify::Authority(new.roots()), "sslmode=require").await.unwrap();
    assert_eq!(ask(&client, "SELECT 6 * 7").await.unwrap(), "42");
}

/// A pool takes the place of PostgreSQL 17, which has direct TLS too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_by_tls_that_begins_at_once() {
    let pair = pair();
    let (_cluster, behind) = pool_with(|pool| {
        pool.client_tls = for_clients(SslMode::Require, &pair, None);
    })
    .await;
    let before = async |direct| {
        let verify = Verify::AuthorityAndName(pair.roots());
        let tls = ServerTls { direct, ..(*to_server(SslMode::VerifyFull, verify).unwrap()).clone() };
        let (_cluster, before) = pool_with(|pool| {
            let database = &mut pool.databases[0];
            (database.host, database.port, database.dbname) = ("localhost".into(), behind.port, Some(DATABASE.into()));
            pool.server_tls = Some(Arc::new(tls));
        })
        .await;
        before
    };
    for direct in [true, false] {
        let before = before(direct).await;
        let client = before.client().await;
        assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), USER, "direct: {direct}");
    }
}

/// A web server has a good certificate for the name as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_begins_at_once_with_what_is_no_postgresql_is_given_up_before_a_byte_is_said() {
    let pair = pair();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accept = Accept::new(pair.identity(), None, Versions::Both, &[]).unwrap();
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        loop {
            let mut stream = accept.handshake(listener.accept().await.unwrap().0).await.unwrap();
            let mut said = Vec::new();
            let _end = stream.read_to_end(&mut said).await;
            tell.send(said).unwrap();
        }
    });
    let verify = Verify::AuthorityAndName(pair.roots());
    let tls = ServerTls { direct: true, ..(*to_server(SslMode::VerifyFull, verify).unwrap()).clone() };
    let (_cluster, pooled) = pool_with(|pool| {
        let database = &mut pool.databases[0];
        (database.host, database.port) = ("localhost".into(), port);
        pool.server_tls = Some(Arc::new(tls));
        pool.query_wait_timeout = Some(support::SECOND);
    })
    .await;
    let (_, message) = told(&pooled.client_with("").await.err().unwrap());
    assert!(message.contains("does not speak PostgreSQL's protocol"), "{message}");
    assert_eq!(heard.recv().await.unwrap(), b"");
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_what_is_not_allowed_is_told_nothing() {
    for (allowed, works) in [(Asked::Scram, true), (Asked::Password, false)] {
        let (_cluster, pooled) = pool_with(|pool| {
            pool.server_require_auth = RequireAuth::only(&[allowed]);
            pool.query_wait_timeout = Some(support::SECOND);
        })
        .await;
        match pooled.client_with("").await {
            Ok(client) => assert!(works && ask(&client, "SELECT 1").await.unwrap() == "1"),
            Err(error) => {
                assert!(!works);
                let (_, message) = told(&error);
                assert!(
                    message.contains("asks for scram-sha-256, which server_require_auth does not allow"),
                    "{message}"
                );
            }
        }
    }
}

/// Neither a login for clients nor the probe says a password to who asks for it in clear text, if that is not allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_passwords_instead_of_the_server_gets_none() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let thief = tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            let length = stream.read_u32().await.unwrap() as usize;
            let mut startup = vec![0; length - 4];
            stream.read_exact(&mut startup).await.unwrap();
            stream.write_all(b"R\0\0\0\x08\0\0\0\x03").await.unwrap();
            let mut said = Vec::new();
            let _end = stream.read_to_end(&mut said).await;
            let is_probe = startup.windows(5).any(|name| name == b"probe");
            tell.send((is_probe, said)).unwrap();
        }
    });
    let (_cluster, pooled) = pool_with(|pool| {
        let database = &mut pool.databases[0];
        (database.host, database.port) = ("127.0.0.1".into(), port);
        pool.server_require_auth = RequireAuth::only(&[Asked::Scram]);
        pool.query_wait_timeout = Some(support::SECOND);
    })
    .await;
    let (_, message) = told(&pooled.client_with("").await.err().unwrap());
    assert!(message.contains("asks for password, which server_require_auth does not allow"), "{message}");
    let mut whom = [false, false];
    while whom != [true, true] {
        let (is_probe, said) = heard.recv().await.unwrap();
        assert_eq!(said, b"", "probe: {is_probe}");
        whom[usize::from(is_probe)] = true;
    }
    thief.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_made_out_for_the_user_is_all_a_client_needs() {
    let authority = Authority::new();
    let pair = pair();
    let (_cluster, pooled) = pool_with(|pool| {
        pool.auth_type = AuthType::Cert;
        pool.client_tls = for_clients(SslMode::VerifyFull, &pair, Some(authority.roots()));
    })
    .await;
    let verify = || Verify::AuthorityAndName(pair.roots());
    for (name, works) in [(USER, true), ("somebody", false)] {
        let identity = authority.client_named(name);
        let by = Connect::new(verify(), Some(identity), Versions::Both, &[b"postgresql"]).unwrap();
        match connect_by(&pooled, &by, "password=wrong sslmode=require").await {
            Ok((client, _)) => assert!(works && ask(&client, "SELECT current_user").await.unwrap() == USER, "{name}"),
            Err(error) => {
                assert!(!works, "{error:?}");
                let text = "certificate authentication failed for user \"arena\"";
                assert_eq!(told(&error), ("28000".into(), text.into()));
            }
        }
    }
}
