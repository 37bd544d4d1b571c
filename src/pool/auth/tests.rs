use std::{sync::Arc, time::Duration};

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, ScramSha256},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::{throttle::Throttle, *};
use crate::{
    config::{pool::User, secret::Secret},
    pool::wire::{
        frame::{HEADER_LEN, Header},
        frontend,
        read::{AuthRequest, sasl_mechanisms},
    },
};

const LIMIT: Duration = Duration::from_secs(60);
const ITERATIONS: u32 = 4096;

fn verifier_of(password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let keys = Keys::derive(password, b"0123456789abcdef", ITERATIONS);
    let salt = STANDARD.encode(b"0123456789abcdef");
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${}:{}", STANDARD.encode(keys.stored), STANDARD.encode(keys.server))
}

fn user(name: &str, secret: UserSecret) -> User {
    User::new(name, secret)
}

fn auth(auth_type: AuthType) -> Arc<Auth> {
    let users = [
        user("plain", UserSecret::Plain(Secret::new("secret"))),
        user("md5", UserSecret::Md5(Secret::new(md5::stored("secret", "md5")))),
        user("scram", UserSecret::Scram(Secret::new(verifier_of("secret")))),
        user("several", UserSecret::Several(vec![Secret::new("old"), Secret::new("secret")])),
        user("empty", UserSecret::Plain(Secret::new(""))),
        user("absent", UserSecret::Absent),
        user("broken", UserSecret::Scram(Secret::new("SCRAM-SHA-256$what"))),
    ];
    let deriver = Arc::new(Deriver::new([7; 32]));
    Arc::new(Auth { auth_type, hba: None, users: Users::new(&users), scram_iterations: ITERATIONS, tls: None, deriver })
}

/// Knows one user, of whom it has what it is given.
#[derive(Clone, Default)]
struct Book {
    entry: Option<Arc<Known>>,
    broken: bool,
    doubts: Arc<std::sync::atomic::AtomicUsize>,
}

impl Directory for Book {
    async fn find(&self, user: &str, _: &str) -> Result<Option<Arc<Known>>, PoolError> {
        if self.broken {
            return Err(PoolError::AuthQuery);
        }
        Ok(self.entry.clone().filter(|known| known.user.name == user))
    }

    fn doubt(&self, _: &str, _: &str) {
        self.doubts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn has_verifiers(&self) -> bool {
        self.entry.as_ref().is_some_and(|known| known.is_scram())
    }
}

fn book(secret: UserSecret) -> Book {
    Book { entry: Some(Arc::new(Known::new(user("found", secret)))), ..Book::default() }
}

type Login = JoinHandle<Result<Authenticated, PoolError>>;

const HERE: Origin = Origin::Address(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn begin(auth: &Arc<Auth>, user: &'static str) -> (DuplexStream, Login) {
    begin_at(auth, user, HERE, None, Book::default())
}

fn begin_at(
    auth: &Arc<Auth>,
    user: &'static str,
    origin: Origin,
    tls: Option<UnderTls>,
    book: Book,
) -> (DuplexStream, Login) {
    let (client, mut server) = duplex(8192);
    let auth = Arc::clone(auth);
    let random = Random { md5_salt: [1, 2, 3, 4], nonce: [5; NONCE_LEN] };
    let deadline = LoginDeadline::new(Instant::now(), LIMIT);
    let login = async move {
        let throttle = Throttle::default();
        let gate = Gate { throttle: &throttle, address: None, limit: None, window: Duration::ZERO };
        let claim = Claim { user, database: "shop", replication: false, origin, tls: tls.as_ref(), gate };
        authenticate(&mut server, &claim, &auth, &book, random, deadline).await
    };
    (client, tokio::spawn(login))
}

/// Reads one Authentication message; `None` when the pool has given up.
async fn receive(client: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut header = [0; HEADER_LEN];
    client.read_exact(&mut header).await.ok()?;
    assert_eq!(header[0], b'R');
    let mut body = vec![0; Header::parse(header, 10_000).unwrap().body_len()];
    client.read_exact(&mut body).await.unwrap();
    Some(body)
}

async fn write(client: &mut DuplexStream, message: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    message(&mut out);
    client.write_all(&out).await.unwrap();
}

/// Logs in by whatever is asked for; returns whether the pool said AuthenticationOk, and server-first if there was one.
async fn log_in(client: &mut DuplexStream, user: &str, password: &str) -> (bool, String) {
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let mut server_first = String::new();
    while let Some(body) = receive(client).await {
        match AuthRequest::parse(&body).unwrap() {
            AuthRequest::Ok => return (true, server_first),
            AuthRequest::CleartextPassword => write(client, |out| frontend::password(out, password.as_bytes())).await,
            AuthRequest::Md5Password { salt } => {
                let answer = md5_hash(user.as_bytes(), password.as_bytes(), salt);
                write(client, |out| frontend::password(out, answer.as_bytes())).await;
            }
            AuthRequest::Sasl { mechanisms } => {
                assert!(sasl_mechanisms(mechanisms).eq([b"SCRAM-SHA-256"]));
                write(client, |out| frontend::sasl_initial_response(out, "SCRAM-SHA-256", scram.message())).await;
            }
            AuthRequest::SaslContinue { data } => {
                server_first = String::from_utf8(data.to_vec()).unwrap();
                scram.update(data).unwrap();
                write(client, |out| frontend::sasl_response(out, scram.message())).await;
            }
            AuthRequest::SaslFinal { data } => scram.finish(data).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    (false, server_first)
}

async fn attempt(auth: &Arc<Auth>, user: &'static str, password: &str) -> Result<Authenticated, PoolError> {
    attempt_at(auth, user, password, HERE, None, Book::default()).await
}

async fn attempt_at(
    auth: &Arc<Auth>,
    user: &'static str,
    password: &str,
    origin: Origin,
    tls: Option<UnderTls>,
    book: Book,
) -> Result<Authenticated, PoolError> {
    let (mut client, login) = begin_at(auth, user, origin, tls, book);
    let (ok, _) = log_in(&mut client, user, password).await;
    let result = login.await.unwrap();
    assert_eq!(ok, result.is_ok());
    result
}

#[tokio::test]
async fn the_right_password_passes_and_a_wrong_one_does_not() {
    for (auth_type, users) in [
        (AuthType::Md5, &["plain", "md5", "scram", "several"][..]),
        (AuthType::ScramSha256, &["plain", "scram", "several"][..]),
        (AuthType::Plain, &["plain", "md5", "scram", "several"][..]),
    ] {
        let auth = auth(auth_type);
        for user in users {
            assert_eq!(attempt(&auth, user, "secret").await.unwrap().user, *user);
            for wrong in ["Secret", "", "secret "] {
                let refusal = attempt(&auth, user, wrong).await.unwrap_err();
                assert_eq!(refusal, PoolError::Authentication { user: (*user).into() });
                assert_eq!(refusal.sqlstate(), "28P01");
            }
        }
    }
}

#[tokio::test]
async fn trust_lets_known_users_in_and_no_others() {
    let auth = auth(AuthType::Trust);
    assert!(attempt(&auth, "scram", "").await.is_ok());
    assert!(matches!(attempt(&auth, "nobody", "").await, Err(PoolError::Authentication { .. })));
}

#[tokio::test]
async fn a_user_without_usable_secret_never_passes() {
    let auth = auth(AuthType::ScramSha256);
    for user in ["md5", "broken", "nobody", "empty", "absent"] {
        for password in ["secret", "", "SCRAM-SHA-256$what"] {
            assert!(matches!(attempt(&auth, user, password).await, Err(PoolError::Authentication { .. })), "{user}");
        }
    }
}

#[tokio::test]
async fn an_unknown_user_sees_the_same_exchange_with_a_salt_that_stays() {
    let auth = auth(AuthType::ScramSha256);
    let mut seen = Vec::new();
    for user in ["nobody", "nobody", "plain", "plain", "somebody", "scram", "scram"] {
        let (mut client, login) = begin(&auth, user);
        let (ok, server_first) = log_in(&mut client, user, "wrong").await;
        assert!(!ok);
        assert_eq!(
            login.await.unwrap().unwrap_err().message(),
            format!("password authentication failed for user \"{user}\"")
        );
        let (_, salt_and_count) = server_first.split_once(',').unwrap();
        seen.push(salt_and_count.to_owned());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[2], seen[3]);
    assert_ne!(seen[0], seen[4]);
    assert_eq!(seen[5], seen[6]);
    assert!(seen.iter().all(|s| s.len() == seen[0].len()));
    assert!(seen.iter().all(|s| s.ends_with(",i=4096")));
}

#[tokio::test]
async fn an_unknown_user_is_asked_for_md5_where_md5_is_asked_for() {
    let auth = auth(AuthType::Md5);
    let (mut client, login) = begin(&auth, "nobody");
    let body = receive(&mut client).await.unwrap();
    assert_eq!(AuthRequest::parse(&body), Ok(AuthRequest::Md5Password { salt: [1, 2, 3, 4] }));
    write(&mut client, |out| frontend::password(out, b"")).await;
    assert!(matches!(login.await.unwrap(), Err(PoolError::Authentication { .. })));
}

#[tokio::test]
async fn many_logins_of_one_user_cost_one_computation() {
    let auth = auth(AuthType::ScramSha256);
    for _ in 0..20 {
        attempt(&auth, "plain", "secret").await.unwrap();
        attempt(&auth, "scram", "secret").await.unwrap();
        attempt(&auth, "nobody", "secret").await.unwrap_err();
    }
    assert_eq!(auth.deriver.computed(), 1);
}

#[tokio::test]
async fn no_login_computes_what_was_computed_at_start() {
    let auth = auth(AuthType::ScramSha256);
    auth.warm().await;
    assert_eq!(auth.deriver.computed(), 4, "one user has one password, one two, one an empty one");
    attempt(&auth, "plain", "secret").await.unwrap();
    auth.warm().await;
    attempt(&auth, "several", "old").await.unwrap();
    assert_eq!(auth.deriver.computed(), 4);
}

#[tokio::test]
async fn a_login_by_verifier_leaves_the_keys_of_its_password_and_others_leave_none() {
    let auth = auth(AuthType::ScramSha256);
    let Gained::Keys(captured) = attempt(&auth, "scram", "secret").await.unwrap().gained else { panic!() };
    assert!(captured.keys == Keys::derive("secret", b"0123456789abcdef", ITERATIONS));
    assert_eq!((&*captured.salt, captured.iterations), (&b"0123456789abcdef"[..], ITERATIONS));
    assert_eq!(attempt(&auth, "plain", "secret").await.unwrap().gained, Gained::Nothing);
}

/// Sends `bytes` where an answer is expected and returns how the login ended.
async fn answer_with(auth_type: AuthType, bytes: &[u8]) -> PoolError {
    let (mut client, login) = begin(&auth(auth_type), "plain");
    receive(&mut client).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    login.await.unwrap().unwrap_err()
}

#[tokio::test]
async fn malformed_answers_are_refused() {
    let sasl = |mechanism: &[u8], len: i32, data: &[u8]| {
        let mut out = Vec::new();
        crate::pool::wire::frame::write(&mut out, b'p', |out| {
            out.extend_from_slice(mechanism);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(data);
        });
        out
    };
    for bytes in [
        b"p\0\0\0\x03".to_vec(),
        b"p\x7f\xff\xff\xff".to_vec(),
        b"p\xff\xff\xff\xff".to_vec(),
        b"p\0\0\x04\x01".to_vec(),
        b"p\0\0\0\x04".to_vec(),
        b"Q\0\0\0\x0dselect 1\0".to_vec(),
        sasl(b"SCRAM-SHA-256-PLUS\0", 0, b""),
        sasl(b"SCRAM-SHA-256\0", -1, b""),
        sasl(b"SCRAM-SHA-256\0", -2, b""),
        sasl(b"SCRAM-SHA-256\0", 99, b"n,,n=,r=abc"),
        sasl(b"SCRAM-SHA-256\0", 3, b"n,,n=,r=abc"),
        sasl(b"SCRAM-SHA-256", 11, b"n,,n=,r=abc"),
        sasl(b"SCRAM-SHA-256\0", 3, b"p=,"),
    ] {
        let error = answer_with(AuthType::ScramSha256, &bytes).await;
        assert!(matches!(error, PoolError::AuthenticationProtocol { .. }), "{bytes:?}: {error:?}");
    }
    for bytes in [&b"p\0\0\0\x04"[..], b"p\0\0\0\x06md", b"p\0\0\0\x07md\0", b"p\0\0\0\x08m\0d\0"] {
        let error = answer_with(AuthType::Md5, bytes).await;
        assert!(
            matches!(error, PoolError::AuthenticationProtocol { .. } | PoolError::Authentication { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_the_exchange_is_only_gone() {
    for bytes in [&b""[..], b"p", b"p\0\0\0", b"p\0\0\0\x20", b"p\0\0\0\x20SCRAM", b"X\0\0\0\x04"] {
        assert_eq!(answer_with(AuthType::ScramSha256, bytes).await, PoolError::ClientGone, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_answers_does_not_outlast_client_login_timeout() {
    let (mut client, login) = begin(&auth(AuthType::ScramSha256), "plain");
    receive(&mut client).await.unwrap();
    assert_eq!(login.await.unwrap(), Err(PoolError::LoginTimeout { limit: LIMIT }));
}

#[tokio::test]
async fn no_exchange_repeats_its_nonce_or_salt() {
    let mut rng = rand::rng();
    let (a, b) = (Random::draw(&mut rng), Random::draw(&mut rng));
    assert_ne!(a.nonce, b.nonce);
    assert_ne!(a.md5_salt, b.md5_salt);
}

#[tokio::test]
async fn a_user_without_password_never_passes_by_an_empty_one() {
    for auth_type in [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256] {
        for user in ["empty", "absent", "plain"] {
            assert!(attempt(&auth(auth_type), user, "").await.is_err(), "{auth_type:?} {user}");
        }
    }
}

#[tokio::test]
async fn each_of_several_passwords_logs_in_and_no_other() {
    for auth_type in [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256] {
        let auth = auth(auth_type);
        for right in ["old", "secret"] {
            assert!(attempt(&auth, "several", right).await.is_ok(), "{auth_type:?} {right}");
        }
        assert!(attempt(&auth, "several", "older").await.is_err());
    }
}

#[tokio::test]
async fn anybody_passes_where_nothing_is_asked_of_anybody() {
    assert_eq!(attempt(&auth(AuthType::Any), "whoever", "").await.unwrap().user, "whoever");
}

#[tokio::test]
async fn a_password_in_clear_text_is_kept_for_servers_where_only_its_hash_was_known() {
    let auth = auth(AuthType::Plain);
    let password = Gained::Secret(UserSecret::Plain(Secret::new("secret")));
    for (user, gained) in [("md5", &password), ("scram", &password), ("plain", &Gained::Nothing)] {
        assert_eq!(&attempt(&auth, user, "secret").await.unwrap().gained, gained, "{user}");
    }
    let computed = auth.deriver.computed();
    attempt(&auth, "scram", "secret").await.unwrap();
    assert_eq!(auth.deriver.computed(), computed, "a right password is computed once");
    for guess in ["a", "b"] {
        attempt(&auth, "scram", guess).await.unwrap_err();
        attempt(&auth, "scram", guess).await.unwrap_err();
    }
    assert_eq!(auth.deriver.computed(), computed + 4, "and wrong ones are not kept");
}

fn certificate(name: Option<&str>) -> Option<UnderTls> {
    Some(UnderTls { end_point: None, client_name: name.map(str::to_owned) })
}

#[tokio::test]
async fn a_certificate_lets_in_whom_it_is_made_out_for() {
    let auth = auth(AuthType::Cert);
    let at = |user, tls| attempt_at(&auth, user, "", HERE, tls, Book::default());
    assert!(at("scram", certificate(Some("scram"))).await.is_ok());
    assert!(at("absent", certificate(Some("absent"))).await.is_ok(), "who may log in needs no password");
    for (user, tls) in [
        ("scram", None),
        ("scram", certificate(None)),
        ("scram", certificate(Some("Scram"))),
        ("scram", certificate(Some("md5"))),
        ("nobody", certificate(Some("nobody"))),
    ] {
        let error = at(user, tls).await.unwrap_err();
        assert_eq!(error, PoolError::Identity { method: "certificate", user: user.into() });
        assert_eq!(error.sqlstate(), "28000");
    }
}

#[tokio::test]
async fn a_process_lets_in_as_the_user_it_runs_as() {
    // SAFETY: plain system call.
    let uid = unsafe { libc::geteuid() };
    let name = identity::user_name(uid).unwrap();
    let users = Users::new(&[user(&name, UserSecret::Absent), user("other", UserSecret::Absent)]);
    let auth = Arc::new(Auth { auth_type: AuthType::Peer, users, ..Arc::into_inner(auth(AuthType::Peer)).unwrap() });
    let name: &'static str = name.leak();
    let at = |user, origin| attempt_at(&auth, user, "", origin, None, Book::default());
    assert!(at(name, Origin::Socket { uid: Some(uid) }).await.is_ok());
    for (user, origin) in [
        ("other", Origin::Socket { uid: Some(uid) }),
        (name, Origin::Socket { uid: None }),
        (name, Origin::Socket { uid: Some(u32::MAX - 7) }),
        (name, HERE),
    ] {
        assert_eq!(at(user, origin).await.unwrap_err(), PoolError::Identity { method: "peer", user: user.into() });
    }
}

fn by_rules(text: &str) -> Arc<Auth> {
    let maps =
        crate::config::pool::hba::ident::parse(std::path::Path::new("ident"), "m alice scram\nm any all").unwrap();
    let hba =
        crate::config::pool::hba::parse(std::path::Path::new("hba"), text, &maps, &|_| Err(String::new())).unwrap();
    Arc::new(Auth { hba: Some(Arc::new(hba)), ..Arc::into_inner(auth(AuthType::Hba)).unwrap() })
}

#[tokio::test]
async fn rules_choose_the_method_and_who_fits_none_is_refused() {
    let auth = by_rules(
        "local all all trust\nhost shop md5 127.0.0.1/32 md5\nhost all plain all password\nhostssl all scram all cert map=m\n\
         host all several 127.0.0.0/8 reject",
    );
    let socket = Origin::Socket { uid: None };
    assert!(attempt_at(&auth, "plain", "", socket, None, Book::default()).await.is_ok());
    assert!(attempt(&auth, "md5", "secret").await.is_ok());
    assert!(attempt(&auth, "md5", "wrong").await.is_err());
    assert!(attempt(&auth, "plain", "secret").await.is_ok());
    for (name, may) in [("alice", true), ("any", true), ("scram", false)] {
        let tls = certificate(Some(name));
        let at = attempt_at(&auth, "scram", "", HERE, tls, Book::default());
        assert_eq!(at.await.is_ok(), may, "{name}");
    }
    let none = attempt(&auth, "scram", "secret").await.unwrap_err();
    assert_eq!(
        none.message(),
        "no auth_hba_file entry for host \"127.0.0.1\", user \"scram\", database \"shop\", no encryption"
    );
    let rejected = attempt(&auth, "several", "secret").await.unwrap_err();
    assert!(rejected.message().starts_with("auth_hba_file rejects connection for host \"127.0.0.1\""), "{rejected}");
    assert_eq!((none.sqlstate(), rejected.sqlstate()), ("28000", "28000"));
}

#[tokio::test]
async fn a_user_that_is_configured_nowhere_is_looked_up_by_every_method() {
    let md5_hash = UserSecret::Md5(Secret::new(md5::stored("secret", "found")));
    let verifier = UserSecret::Scram(Secret::new(verifier_of("secret")));
    let plain = UserSecret::Plain(Secret::new("secret"));
    for (auth_type, secret) in [
        (AuthType::ScramSha256, &plain),
        (AuthType::ScramSha256, &verifier),
        (AuthType::Md5, &md5_hash),
        (AuthType::Md5, &verifier),
        (AuthType::Plain, &md5_hash),
    ] {
        let auth = auth(auth_type);
        let book = book(secret.clone());
        let at = |user, password| attempt_at(&auth, user, password, HERE, None, book.clone());
        let gained = at("found", "secret").await.unwrap().gained;
        assert_ne!(gained, Gained::Nothing, "serves towards servers: {auth_type:?} {secret:?}");
        assert!(at("found", "wrong").await.is_err());
        assert_eq!(book.doubts.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(at("other", "secret").await.is_err());
        assert!(at("plain", "secret").await.is_ok(), "who is configured is not looked up");
    }
}

#[tokio::test]
async fn a_lookup_that_fails_lets_nobody_in() {
    for auth_type in [AuthType::Trust, AuthType::Plain, AuthType::Md5, AuthType::ScramSha256, AuthType::Cert] {
        let broken = Book { broken: true, ..Book::default() };
        let tls = certificate(Some("found"));
        let error = attempt_at(&auth(auth_type), "found", "", HERE, tls, broken).await.unwrap_err();
        assert_eq!(error, PoolError::AuthQuery, "{auth_type:?}");
    }
}

#[tokio::test]
async fn an_entry_of_settings_alone_gets_its_password_from_the_lookup() {
    let auth = auth(AuthType::ScramSha256);
    let secret = UserSecret::Plain(Secret::new("secret"));
    let book = Book { entry: Some(Arc::new(Known::new(user("absent", secret)))), ..Book::default() };
    assert!(attempt_at(&auth, "absent", "secret", HERE, None, book).await.is_ok());
}

/// Under md5 those of whom a verifier is known are asked for SCRAM; who is not known at all must look like the others.
#[tokio::test]
async fn an_unknown_user_is_asked_for_scram_where_everybody_has_a_verifier() {
    let auth = auth(AuthType::Md5);
    let verifier = UserSecret::Scram(Secret::new(verifier_of("secret")));
    let (mut client, login) = begin_at(&auth, "nobody", HERE, None, book(verifier.clone()));
    assert!(matches!(AuthRequest::parse(&receive(&mut client).await.unwrap()), Ok(AuthRequest::Sasl { .. })));
    drop((client, login));
    let users = Users::new(&[user("scram", verifier)]);
    let auth = Arc::new(Auth { users, ..Arc::into_inner(self::auth(AuthType::Md5)).unwrap() });
    let (mut client, _login) = begin(&auth, "nobody");
    assert!(matches!(AuthRequest::parse(&receive(&mut client).await.unwrap()), Ok(AuthRequest::Sasl { .. })));
}

/// How long a refusal takes tells who exists as well as words do.
#[tokio::test]
async fn an_unknown_users_password_costs_as_much_as_that_of_one_with_a_verifier() {
    let verifier = UserSecret::Scram(Secret::new(verifier_of("secret")));
    let users = Users::new(&[user("scram", verifier)]);
    let auth = Arc::new(Auth { users, ..Arc::into_inner(auth(AuthType::Plain)).unwrap() });
    for (count, user) in (1..).zip(["scram", "nobody", "scram", "nobody"]) {
        attempt(&auth, user, "guess").await.unwrap_err();
        assert_eq!(auth.deriver.computed(), count, "{user}");
    }
}
