use std::{sync::Arc, time::Duration};

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, ScramSha256},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::{
    config::{pool::User, secret::Secret},
    pool::wire::{
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
        user("broken", UserSecret::Scram(Secret::new("SCRAM-SHA-256$what"))),
    ];
    let deriver = Arc::new(Deriver::new([7; 32]));
    Arc::new(Auth { auth_type, users: Users::new(&users), scram_iterations: ITERATIONS, tls: None, deriver })
}

type Login = JoinHandle<Result<Authenticated, PoolError>>;

fn begin(auth: &Arc<Auth>, user: &'static str) -> (DuplexStream, Login) {
    let (client, mut server) = duplex(4096);
    let auth = Arc::clone(auth);
    let random = Random { md5_salt: [1, 2, 3, 4], nonce: [5; NONCE_LEN] };
    let deadline = LoginDeadline::new(Instant::now(), LIMIT);
    (client, tokio::spawn(async move { authenticate(&mut server, user, &auth, None, random, deadline).await }))
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
    let (mut client, login) = begin(auth, user);
    let (ok, _) = log_in(&mut client, user, password).await;
    let result = login.await.unwrap();
    assert_eq!(ok, result.is_ok());
    result
}

#[tokio::test]
async fn the_right_password_passes_and_a_wrong_one_does_not() {
    for (auth_type, users) in
        [(AuthType::Md5, &["plain", "md5", "scram"][..]), (AuthType::ScramSha256, &["plain", "scram"][..])]
    {
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
    for user in ["md5", "broken", "nobody"] {
        for password in ["secret", "", "SCRAM-SHA-256$what"] {
            assert!(matches!(attempt(&auth, user, password).await, Err(PoolError::Authentication { .. })), "{user}");
        }
    }
}

#[tokio::test]
async fn an_unknown_user_sees_the_same_exchange_with_a_salt_that_stays() {
    let auth = auth(AuthType::ScramSha256);
    let mut seen = Vec::new();
    for user in ["nobody", "nobody", "plain", "plain", "somebody"] {
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
    assert_eq!(seen[0].len(), seen[2].len());
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
    assert_eq!(auth.deriver.computed(), 1, "one user has a plain password");
    attempt(&auth, "plain", "secret").await.unwrap();
    auth.warm().await;
    assert_eq!(auth.deriver.computed(), 1);
}

#[tokio::test]
async fn a_login_by_verifier_leaves_the_keys_of_its_password_and_others_leave_none() {
    let auth = auth(AuthType::ScramSha256);
    let captured = attempt(&auth, "scram", "secret").await.unwrap().captured.unwrap();
    assert!(captured.keys == Keys::derive("secret", b"0123456789abcdef", ITERATIONS));
    assert_eq!((&*captured.salt, captured.iterations), (&b"0123456789abcdef"[..], ITERATIONS));
    assert!(attempt(&auth, "plain", "secret").await.unwrap().captured.is_none());
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
