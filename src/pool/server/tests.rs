use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    task::JoinHandle,
    time::Instant,
};

use super::{
    cancel,
    connect::{self, Spec},
    credential::{ServerLogin, ServerSecret},
    error::ServerError,
    hosts::Hosts,
    login::{BackendKey, Fresh, Greeting, login},
};
use crate::{
    config::{
        pool::{Database, DatabaseServers, OwnLookup, Protocol, RequireAuth, Tcp, User, UserSecret},
        secret::Secret,
    },
    pool::{
        auth::{
            Authenticated, Captured, Gained,
            derive::Deriver,
            md5,
            scram::{
                Keys,
                server::{Binding, Exchange},
            },
            users::Users,
        },
        names::{Names, System, Ttl},
        socket::Endpoint,
        wire::{
            backend::{self, Report, Severity, TxStatus},
            read::{SaslInitial, code, startup_parameters},
        },
    },
};

const SALT: &[u8] = b"0123456789abcdef";

/// PostgreSQL as the tests need it.
///
/// Beside its stream: the hash that proofs must be bound to, if the connection has TLS.
struct Server(DuplexStream, Option<&'static [u8]>);

impl Server {
    async fn startup(&mut self) -> Vec<(String, String)> {
        self.startup_of(code::PROTOCOL_3_2).await
    }

    async fn startup_of(&mut self, version: u32) -> Vec<(String, String)> {
        let len = self.0.read_u32().await.unwrap() as usize;
        let mut body = vec![0; len - 4];
        self.0.read_exact(&mut body).await.unwrap();
        assert_eq!(body[..4], version.to_be_bytes());
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        startup_parameters(&body[4..]).unwrap().into_iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    async fn answer(&mut self) -> Option<Vec<u8>> {
        assert_eq!(self.0.read_u8().await.ok()?, b'p');
        let mut body = vec![0; self.0.read_u32().await.unwrap() as usize - 4];
        self.0.read_exact(&mut body).await.unwrap();
        Some(body)
    }

    async fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.0.write_all(&out).await.unwrap();
    }

    async fn scram(&mut self, keys: &Keys, salt: &[u8], iterations: u32) -> Option<Exchange> {
        self.say(|out| backend::authentication_sasl(out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])).await;
        let body = self.answer().await?;
        let initial = SaslInitial::parse(&body).unwrap();
        let binding = match self.1 {
            Some(hash) => {
                assert_eq!(initial.mechanism, b"SCRAM-SHA-256-PLUS");
                Binding::EndPoint(hash)
            }
            None => {
                assert_eq!(initial.mechanism, b"SCRAM-SHA-256");
                Binding::Declined
            }
        };
        let exchange = Exchange::start(initial.data.unwrap(), "server", salt, iterations, binding).unwrap();
        self.say(|out| backend::authentication_sasl_continue(out, exchange.server_first().as_bytes())).await;
        let body = self.answer().await?;
        let proven = exchange.finish(&body, &keys.stored, &keys.server).expect("the right password");
        self.say(|out| backend::authentication_sasl_final(out, proven.server_final.as_bytes())).await;
        Some(exchange)
    }
}

fn ready(out: &mut Vec<u8>) {
    backend::authentication_ok(out);
    backend::parameter_status(out, "server_version", b"15.8");
    let notice = Report { severity: Severity::Notice, sqlstate: "00000", message: "hello", detail: None, hint: None };
    backend::notice_response(out, &notice);
    backend::parameter_status(out, "TimeZone", b"Europe/Berlin");
    backend::backend_key_data(out, 42, &[9; 4]);
    backend::ready_for_query(out, TxStatus::Idle);
}

fn plain() -> ServerSecret {
    ServerSecret::Plain(Secret::new("secret"))
}

type Outcome = Result<Fresh<DuplexStream>, ServerError>;

fn start(secret: ServerSecret) -> (Server, JoinHandle<Outcome>) {
    start_on(secret, None)
}

/// `end_point`: the connection's certificate, as the pool sees it.
fn start_on(secret: ServerSecret, end_point: Option<&'static [u8]>) -> (Server, JoinHandle<Outcome>) {
    start_as(secret, Protocol::V3_2, end_point)
}

fn start_as(
    secret: ServerSecret,
    protocol: Protocol,
    end_point: Option<&'static [u8]>,
) -> (Server, JoinHandle<Outcome>) {
    let (client, server) = duplex(4096);
    let task = tokio::spawn(async move {
        let who = ServerLogin { user: "ann".into(), secret, gained: false };
        let params = [("application_name".to_owned(), "bookend".to_owned())];
        let greeting = Greeting {
            dbname: "shop",
            login: &who,
            params: &params,
            require_auth: RequireAuth::default(),
            protocol,
            end_point,
        };
        login(client, greeting, &Deriver::new([7; 32]), [5; 18]).await
    });
    (Server(server, end_point), task)
}

/// Lets the server say `bytes` after the startup packet and hang up.
async fn told(bytes: &[u8]) -> Outcome {
    let (mut server, task) = start(plain());
    server.startup().await;
    let mut left = bytes;
    while !left.is_empty() {
        let (now, later) = left.split_at(left.len().min(1024));
        if server.0.write_all(now).await.is_err() {
            break;
        }
        left = later;
    }
    let _ = server.0.shutdown().await;
    task.await.unwrap()
}

fn said(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[tokio::test]
async fn over_tls_the_proof_is_bound_to_the_servers_certificate() {
    let keys = Keys::derive("secret", SALT, 4096);
    let (mut server, task) = start_on(plain(), Some(b"the certificate's hash"));
    server.startup().await;
    server.scram(&keys, SALT, 4096).await.unwrap();
    server.say(ready).await;
    assert_eq!(task.await.unwrap().unwrap().key.pid, 42);
}

#[tokio::test]
async fn over_tls_a_server_without_channel_binding_is_told_that_we_could() {
    let (mut server, task) = start_on(plain(), Some(b"the certificate's hash"));
    server.startup().await;
    server.say(|out| backend::authentication_sasl(out, &["SCRAM-SHA-256"])).await;
    let body = server.answer().await.unwrap();
    let first = SaslInitial::parse(&body).unwrap().data.unwrap().to_vec();
    // A server that had offered it would know now that somebody took its offer away.
    assert!(first.starts_with(b"y,,"), "{}", String::from_utf8_lossy(&first));
    task.abort();
}

// --- the protocol's version ---

#[tokio::test]
async fn a_server_that_speaks_3_2_may_give_a_long_key() {
    for len in [4, 32, 256] {
        let (mut server, task) = start(plain());
        server.startup().await;
        server
            .say(|out| {
                backend::authentication_ok(out);
                backend::backend_key_data(out, 42, &vec![9; len]);
                backend::ready_for_query(out, TxStatus::Idle);
            })
            .await;
        assert_eq!(task.await.unwrap().unwrap().key, BackendKey { pid: 42, secret: vec![9; len].into() });
    }
}

#[tokio::test]
async fn an_older_server_is_gone_on_with_as_it_says() {
    for version in [code::PROTOCOL_3_0, code::PROTOCOL_3_0 + 1] {
        let (mut server, task) = start(plain());
        server.startup().await;
        server.say(|out| backend::negotiate_protocol_version(out, version, &[])).await;
        server.say(ready).await;
        assert_eq!(task.await.unwrap().unwrap().key.secret.len(), 4);
    }
}

#[tokio::test]
async fn a_server_negotiates_once_and_at_first_and_only_what_was_asked_for() {
    let negotiate = |version, unknown: &[&[u8]]| said(|out| backend::negotiate_protocol_version(out, version, unknown));
    let once = negotiate(code::PROTOCOL_3_0, &[]);
    let first = said(backend::authentication_ok);
    for wrong in [
        [&once[..], &once[..]].concat(),
        [&first[..], &once[..]].concat(),
        negotiate(code::PROTOCOL_3_2, &[]),
        negotiate(code::PROTOCOL_3_2 + 1, &[]),
        negotiate(2 << 16, &[]),
        negotiate(0, &[]),
        negotiate(code::PROTOCOL_3_0, &[b"_pq_.x"]),
        b"v\0\0\0\x08\0\x03\0\0".to_vec(),
        b"v\0\0\0\x0c\0\x03\0\0\xff\xff\xff\xff".to_vec(),
    ] {
        let error = told(&[&wrong[..], &said(ready)[..]].concat()).await.unwrap_err();
        assert!(matches!(error, ServerError::Protocol { .. }), "{wrong:?}: {error:?}");
    }
}

#[tokio::test]
async fn server_max_protocol_version_3_0_asks_for_nothing_newer_and_takes_no_other_answer() {
    let (mut server, task) = start_as(plain(), Protocol::V3_0, None);
    server.startup_of(code::PROTOCOL_3_0).await;
    server.say(|out| backend::negotiate_protocol_version(out, code::PROTOCOL_3_0, &[])).await;
    assert!(matches!(task.await.unwrap(), Err(ServerError::Protocol { .. })));
}

// --- servers that must not be believed ---

#[tokio::test]
async fn a_server_that_skips_its_proof_is_not_believed() {
    // AuthenticationOk after SASL was begun, after client-final, and with a wrong signature.
    let (mut server, task) = start(plain());
    server.startup().await;
    server.say(|out| backend::authentication_sasl(out, &["SCRAM-SHA-256"])).await;
    server.answer().await.unwrap();
    server.say(ready).await;
    assert_eq!(task.await.unwrap().unwrap_err(), ServerError::Unproven);

    for last in [None, Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Some("e=invalid-proof"), Some("")] {
        let (mut server, task) = start(plain());
        server.startup().await;
        server.say(|out| backend::authentication_sasl(out, &["SCRAM-SHA-256"])).await;
        let body = server.answer().await.unwrap();
        let first = SaslInitial::parse(&body).unwrap().data.unwrap().to_vec();
        let exchange = Exchange::start(&first, "server", SALT, 1, Binding::NotOffered).unwrap();
        server.say(|out| backend::authentication_sasl_continue(out, exchange.server_first().as_bytes())).await;
        server.answer().await.unwrap();
        server
            .say(|out| {
                if let Some(last) = last {
                    backend::authentication_sasl_final(out, last.as_bytes());
                }
                ready(out);
            })
            .await;
        assert_eq!(task.await.unwrap().unwrap_err(), ServerError::Unproven, "{last:?}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_too_much_work_is_not_obeyed() {
    let (mut server, task) = start(plain());
    server.startup().await;
    server.say(|out| backend::authentication_sasl(out, &["SCRAM-SHA-256"])).await;
    let body = server.answer().await.unwrap();
    let first = SaslInitial::parse(&body).unwrap().data.unwrap();
    let exchange = Exchange::start(first, "x", SALT, 2_000_000_000, Binding::NotOffered).unwrap();
    server.say(|out| backend::authentication_sasl_continue(out, exchange.server_first().as_bytes())).await;
    assert!(matches!(task.await.unwrap(), Err(ServerError::Protocol { .. })));
}

#[tokio::test]
async fn bytes_behind_ready_for_query_cost_the_connection() {
    let bytes = [said(ready), said(|out| backend::parameter_status(out, "a", b"b"))].concat();
    assert!(matches!(told(&bytes).await, Err(ServerError::Protocol { .. })));
    assert!(matches!(told(&[&said(ready)[..], b"S"].concat()).await, Err(ServerError::Protocol { .. })));
}

#[tokio::test]
async fn messages_out_of_turn_are_refused() {
    let idle = said(|out| backend::ready_for_query(out, TxStatus::Idle));
    let ok = said(backend::authentication_ok);
    for bytes in [
        idle.clone(),
        said(|out| backend::backend_key_data(out, 1, &[1; 4])),
        [ok.clone(), said(|out| backend::ready_for_query(out, TxStatus::InTransaction))].concat(),
        [ok.clone(), b"Z\0\0\0\x04".to_vec()].concat(),
        [ok.clone(), ok.clone()].concat(),
        [ok.clone(), said(backend::authentication_cleartext)].concat(),
        said(|out| backend::authentication_sasl_final(out, b"v=")),
        said(|out| backend::authentication_sasl_continue(out, b"r=")),
        [ok.clone(), said(|out| backend::command_complete(out, "SELECT 1"))].concat(),
        [ok.clone(), b"K\0\0\0\x08\0\0\0\x01".to_vec()].concat(),
        b"R\0\0\0\x05\0".to_vec(),
        b"R\0\0\0\x03".to_vec(),
        b"S\0\0\0\x06ab".to_vec(),
        b"S\x7f\xff\xff\xff".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        assert!(matches!(told(&bytes).await, Err(ServerError::Protocol { .. })), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_server_that_never_comes_to_an_end_is_left() {
    let notice = said(|out| backend::parameter_status(out, "a", &[b'b'; 60_000]));
    assert!(matches!(told(&notice.repeat(20)).await, Err(ServerError::Protocol { .. })));
}

#[tokio::test]
async fn a_server_that_hangs_up_at_any_byte_is_an_error_and_never_a_panic() {
    let whole = said(ready);
    for cut in 0..whole.len() {
        assert_eq!(told(&whole[..cut]).await.unwrap_err(), ServerError::Closed, "cut at {cut}");
    }
    assert!(told(&whole).await.is_ok());
}

// --- errors of the server ---

#[tokio::test]
async fn an_error_keeps_its_sqlstate_and_words() {
    let report =
        Report { severity: Severity::Fatal, sqlstate: "57P03", message: "starting up", detail: None, hint: None };
    let error = told(&said(|out| backend::error_response(out, &report))).await.unwrap_err();
    assert_eq!(error, ServerError::Refused { sqlstate: Some("57P03".into()), message: "starting up".into() });
    assert!(error.is_transient());
}

#[tokio::test]
async fn an_error_may_lack_every_field() {
    for body in [&b"\0"[..], b"", b"C", b"C57P03", b"M\xff\xfe\0\0"] {
        let mut bytes = vec![b'E'];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        let error = told(&bytes).await.unwrap_err();
        assert!(matches!(error, ServerError::Refused { sqlstate: None, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_postmaster_that_cannot_fork_is_understood() {
    let error = told(b"Ecould not fork new process for connection: Cannot allocate memory\n\0").await.unwrap_err();
    assert!(error.to_string().starts_with("could not fork"), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn methods_not_spoken_are_named() {
    for (kind, name) in [(7i32, "GSSAPI"), (9, "SSPI"), (2, "Kerberos"), (99, "unknown")] {
        let mut bytes = b"R\0\0\0\x08".to_vec();
        bytes.extend_from_slice(&kind.to_be_bytes());
        assert_eq!(told(&bytes).await.unwrap_err(), ServerError::Method { method: name });
    }
    let error = told(&said(|out| backend::authentication_sasl(out, &["OAUTHBEARER"]))).await.unwrap_err();
    assert!(matches!(error, ServerError::Method { .. }));
}

#[tokio::test]
async fn a_secret_that_does_not_fit_names_the_user_and_what_to_set() {
    let md5 = || ServerSecret::Md5(Secret::new(md5::stored("secret", "ann")));
    let pass = || {
        let keys = Keys::derive("secret", SALT, 1);
        ServerSecret::PassThrough(Arc::new(Captured { keys, salt: SALT.into(), iterations: 1 }))
    };
    let sasl = || said(|out| backend::authentication_sasl(out, &["SCRAM-SHA-256"]));
    for (secret, asked) in [
        (md5(), sasl()),
        (md5(), said(backend::authentication_cleartext)),
        (pass(), said(backend::authentication_cleartext)),
        (pass(), said(|out| backend::authentication_md5(out, [1; 4]))),
        (ServerSecret::Nothing("none"), sasl()),
        (ServerSecret::Nothing("none"), said(backend::authentication_cleartext)),
    ] {
        let (mut server, task) = start(secret);
        server.startup().await;
        server.0.write_all(&asked).await.unwrap();
        let error = task.await.unwrap().unwrap_err();
        assert!(matches!(&error, ServerError::Credential { user, .. } if user == "ann"), "{error:?}");
        assert!(error.hint().is_some_and(|h| h.contains("users:")));
    }
}

// --- servers that let us in ---

#[tokio::test]
async fn a_login_ends_with_key_and_parameters() {
    let (mut server, task) = start(plain());
    let startup = server.startup().await;
    for (name, value) in
        [("user", "ann"), ("database", "shop"), ("client_encoding", "UTF8"), ("application_name", "bookend")]
    {
        assert!(startup.contains(&(name.into(), value.into())), "{startup:?}");
    }
    server.say(ready).await;
    let fresh = task.await.unwrap().unwrap();
    assert_eq!(fresh.key, BackendKey { pid: 42, secret: [9; 4].into() });
    let expected = [("server_version", "15.8"), ("TimeZone", "Europe/Berlin")];
    assert_eq!(fresh.params, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[tokio::test]
async fn a_login_may_arrive_byte_by_byte() {
    let (mut server, task) = start(plain());
    server.startup().await;
    for byte in said(ready) {
        server.0.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(task.await.unwrap().is_ok());
}

#[tokio::test]
async fn parameters_and_notices_may_come_before_authentication() {
    let early = said(|out| backend::parameter_status(out, "early", b"1"));
    let fresh = told(&[early, said(ready)].concat()).await.unwrap();
    assert_eq!(fresh.params[0].0, "early");
}

#[tokio::test]
async fn a_password_in_clear_text_or_by_md5_is_given() {
    let (mut server, task) = start(plain());
    server.startup().await;
    server.say(backend::authentication_cleartext).await;
    assert_eq!(server.answer().await.unwrap(), b"secret\0");
    server.say(ready).await;
    assert!(task.await.unwrap().is_ok());

    let stored = md5::stored("secret", "ann");
    for secret in [plain(), ServerSecret::Md5(Secret::new(stored.clone()))] {
        let (mut server, task) = start(secret);
        server.startup().await;
        server.say(|out| backend::authentication_md5(out, [1, 2, 3, 4])).await;
        let given = server.answer().await.unwrap();
        assert!(md5::verify(&stored, [1, 2, 3, 4], given.strip_suffix(b"\0").unwrap()));
        server.say(ready).await;
        assert!(task.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn scram_logs_in_by_password_and_by_the_keys_of_a_client() {
    let keys = Keys::derive("secret", SALT, 4096);
    let captured = Arc::new(Captured { keys: keys.clone(), salt: SALT.into(), iterations: 4096 });
    for secret in [plain(), ServerSecret::PassThrough(captured)] {
        let (mut server, task) = start(secret);
        server.startup().await;
        server.scram(&keys, SALT, 4096).await.unwrap();
        server.say(ready).await;
        assert!(task.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn keys_of_another_verifier_are_not_tried() {
    let keys = Keys::derive("secret", SALT, 4096);
    for (salt, iterations) in [(&b"another salt"[..], 4096), (SALT, 4097)] {
        let captured = Captured { keys: keys.clone(), salt: SALT.into(), iterations: 4096 };
        let (mut server, task) = start(ServerSecret::PassThrough(Arc::new(captured)));
        server.startup().await;
        assert!(server.scram(&keys, salt, iterations).await.is_none());
        assert!(matches!(task.await.unwrap(), Err(ServerError::Credential { .. })));
    }
}

// --- whose secret ---

/// A database at `host`, and nothing more.
pub fn database(host: &str) -> Database {
    Database {
        name: "shop".into(),
        dbname: None,
        host: host.into(),
        port: 5432,
        user: None,
        password: None,
        pool_size: None,
        min_pool_size: None,
        reserve_pool_size: None,
        max_db_connections: None,
        max_db_client_connections: None,
        pool_mode: None,
        servers: DatabaseServers::default(),
        query_wait_timeout: None,
        lookup: OwnLookup::default(),
    }
}

#[test]
fn the_databases_user_and_password_come_before_the_clients() {
    let users = Users::new(&[
        User::new("ann", UserSecret::Plain(Secret::new("anns"))),
        User::new("bob", UserSecret::Scram(Secret::new("SCRAM-SHA-256$…"))),
        User::new("eve", UserSecret::Md5(Secret::new("md5…"))),
    ]);
    let plain = |text: &str| ServerSecret::Plain(Secret::new(text));
    let captured = Arc::new(Captured { keys: Keys::derive("bobs", SALT, 1), salt: SALT.into(), iterations: 1 });
    let login = |user: Option<&str>, password: Option<&str>, client: &str| {
        let gained = if client == "bob" { Gained::Keys(Arc::clone(&captured)) } else { Gained::Nothing };
        let client = Authenticated { user: client.into(), gained };
        let database =
            Database { user: user.map(Into::into), password: password.map(Secret::new), ..database("127.0.0.1") };
        let login = ServerLogin::of_client(&database, &client, &users);
        (login.user.to_string(), login.secret)
    };
    assert_eq!(login(None, None, "ann"), ("ann".into(), plain("anns")));
    assert_eq!(login(None, Some("dbs"), "ann"), ("ann".into(), plain("dbs")));
    assert_eq!(login(Some("ann"), None, "eve"), ("ann".into(), plain("anns")));
    assert_eq!(login(Some("app"), Some("dbs"), "ann"), ("app".into(), plain("dbs")));
    assert_eq!(login(None, None, "eve"), ("eve".into(), ServerSecret::Md5(Secret::new("md5…"))));
    assert_eq!(login(None, None, "bob"), ("bob".into(), ServerSecret::PassThrough(Arc::clone(&captured))));
    // The keys of one user are never used for another.
    assert!(matches!(login(Some("app"), None, "bob"), (user, ServerSecret::Nothing(_)) if user == "app"));
    assert!(matches!(ServerLogin::of_user(&database("127.0.0.1"), "bob", &users).secret, ServerSecret::Nothing(_)));
}

#[test]
fn secrets_do_not_print() {
    let login = ServerLogin { user: "ann".into(), secret: plain(), gained: false };
    assert!(!format!("{login:?}").contains("secret\""), "{login:?}");
    let key = BackendKey { pid: 42, secret: [77; 4].into() };
    assert!(!format!("{key:?}").contains("77"));
}

// --- sockets ---

fn spec(port: u16, connect_timeout: Duration) -> Spec {
    let login = ServerLogin { user: "ann".into(), secret: plain(), gained: false };
    let names = Names::new(Arc::new(System), Ttl { found: Duration::ZERO, failed: Duration::ZERO });
    Spec {
        hosts: Hosts::of(&database("127.0.0.1"), &names),
        port,
        dbname: "shop".into(),
        login,
        params: vec![],
        connect_query: None,
        check_query: None,
        require_auth: RequireAuth::default(),
        protocol: Protocol::V3_2,
        tls: None,
        tcp: Tcp::default(),
        connect_timeout,
    }
}

#[tokio::test]
async fn a_refused_connection_says_so_without_an_address() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = connect::open(&spec(port, Duration::from_secs(5)), &Deriver::new([7; 32]), [5; 18]).await.unwrap_err();
    assert!(matches!(error, ServerError::Connect { .. }), "{error:?}");
    assert!(!error.to_string().contains("127.0.0.1"));
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_does_not_outlast_server_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = connect::open(&spec(port, Duration::from_millis(50)), &Deriver::new([7; 32]), [5; 18]).await;
    assert_eq!(error.unwrap_err(), ServerError::Timeout);
}

#[tokio::test]
async fn a_cancel_request_waits_for_the_servers_end() {
    let key = BackendKey { pid: 42, secret: [9; 32].into() };
    let (client, mut server) = duplex(1024);
    let task = tokio::spawn(async move { cancel::request(client, &key).await });
    let mut packet = vec![0; 12 + 32];
    server.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet[..12], *b"\0\0\0\x2c\x04\xd2\x16\x2e\0\0\0\x2a");
    tokio::task::yield_now().await;
    assert!(!task.is_finished(), "not done before the server has closed");
    drop(server);
    assert_eq!(task.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_cancel_request_to_a_silent_server_ends_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = BackendKey { pid: 42, secret: [9; 4].into() };
    let begin = Instant::now();
    let result = cancel::cancel(
        &Endpoint::Tcp(listener.local_addr().unwrap()),
        ("127.0.0.1", None),
        &key,
        Duration::from_millis(50),
    )
    .await;
    assert_eq!(result, Err(ServerError::Timeout));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn of_several_passwords_the_one_that_worked_is_tried_first_and_each_once() {
    let passwords = ["a", "b", "c"].map(Secret::new);
    let login =
        ServerLogin { user: "ann".into(), secret: ServerSecret::Several(passwords.clone().into()), gained: false };
    let order = |first| -> Vec<_> { login.candidates(first).map(|(at, login)| (at, login.secret)).collect() };
    let plain = |at: usize| (at, ServerSecret::Plain(passwords[at].clone()));
    assert_eq!(order(0), [plain(0), plain(1), plain(2)]);
    assert_eq!(order(2), [plain(2), plain(0), plain(1)]);
    let one = ServerLogin { secret: plain(0).1, ..login.clone() };
    assert!(one.candidates(0).map(|(_, login)| login).eq([one.clone()]));
}
