//! Who is not let in yet, or never: what a stranger can cost, and what it cannot reach.

use bookend::{
    config::pool::{Access, Lookup, Pool},
    pool::wire::frontend,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{frames::Raw, support::*};

async fn knock(pooled: &Pooled, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

fn startup(parameters: &str) -> Vec<u8> {
    let length = u32::try_from(parameters.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat()
}

/// What is sent until the pool hangs up.
async fn to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = timeout(20 * SECOND, stream.read_to_end(&mut said)).await.expect("an end in time");
    // Whether it ends well or by a reset is all one to who is thrown out.
    let _ = read;
    said
}

/// Each stops at another place: before the first byte, within the length, within the packet, within the proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_are_never_finished_take_places_until_client_login_timeout_and_leave_nothing() {
    let cluster = postgres::shared();
    let limits = Pool { max_client_conn: 10, client_login_timeout: 3 * SECOND / 2, ..config(&cluster) };
    let pooled = start(limits).await;
    let whole = startup(&format!("user\0{USER}\0database\0{DATABASE}\0\0"));
    let mut strangers = Vec::new();
    for number in 0..200 {
        let said = [0, 2, whole.len() - 1, whole.len()][number % 4];
        strangers.push(knock(&pooled, &whole[..said]).await);
    }
    // Beside max_client_conn there are places for cancels and the console, and that is all.
    eventually("no more than that", || pooled.pooler.registry().client_count() <= 10 + 64).await;
    let refused = pooled.client_with("").await.expect_err("no place is left");
    assert_eq!(told(&refused).0, "53300");
    for stranger in &mut strangers {
        to_the_end(stranger).await;
    }
    eventually("all of them are gone", || pooled.pooler.registry().client_count() == 0).await;
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_cancels_with_guessed_keys_is_answered_nothing_and_stops_nobody() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let client = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    let key = client.key.clone();
    let works = pooled.client().await;
    let running =
        tokio::spawn(async move { ask(&works, "SELECT count(pg_sleep(0.01)) FROM generate_series(1, 100)").await });
    let pid = i32::from_be_bytes(*key.first_chunk().unwrap());
    let mut floods = Vec::new();
    for guess in 0..300_u32 {
        let mut request = Vec::new();
        // The process that is there, and one that is not; with a wrong secret, or with one of a strange length.
        let secret = [&guess.to_be_bytes()[..], &[7; 252]].concat();
        let secret = &secret[..[4, 8, 256][guess as usize % 3]];
        frontend::cancel_request(&mut request, if guess % 2 == 0 { pid } else { guess as i32 }, secret);
        floods.push(knock(&pooled, &request).await);
    }
    for flood in &mut floods {
        assert_eq!(to_the_end(flood).await, b"", "a cancel is never answered");
    }
    assert_eq!(running.await.unwrap().unwrap(), "100");
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_a_name_to_the_lookup_whatever_stands_in_it() {
    let cluster = postgres::shared();
    let names =
        ["o'brien", "a\"b", "back\\slash", "x' OR '1'='1", "$1", "'; DROP TABLE users; --", "%s", "line\nbreak"];
    let direct = cluster.direct().await;
    for name in names {
        let quoted = name.replace('"', "\"\"");
        direct.batch_execute(&format!("CREATE ROLE \"{quoted}\" LOGIN PASSWORD 'its own'")).await.unwrap();
    }
    let lookup = Lookup { user: Some(USER.into()), ..Lookup::default() };
    let pooled = start(Pool { access: Access { lookup, ..Access::default() }, ..config(&cluster) }).await;
    let log_in = async |name: &str, password: &str| {
        let mut login = tokio_postgres::Config::new();
        login.host("127.0.0.1").port(pooled.port).dbname(DATABASE).user(name).password(password);
        let (client, connection) = login.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        ask(&client, "SELECT current_user").await
    };
    for name in names {
        assert_eq!(log_in(name, "its own").await.unwrap(), name);
        assert_eq!(told(&log_in(name, PASSWORD).await.unwrap_err()).0, "28P01", "{name}");
        // Nobody is called that.
        assert_eq!(told(&log_in(&format!("{name} "), "its own").await.unwrap_err()).0, "28P01", "{name}");
    }
}

/// Every way to leave the exchange that a client may try, each ended with the connection and none with an entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oddities_of_a_proof_end_the_login_and_cost_one_connection() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let sasl = |mechanism: &str, data: &[u8]| {
        let length = i32::try_from(data.len()).unwrap().to_be_bytes();
        crate::frames::message(b'p', &[mechanism.as_bytes(), b"\0", &length, data].concat())
    };
    let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    for (what, said) in [
        ("a mechanism that was not offered", sasl("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=x")),
        ("another one", sasl("PLAIN", b"\0user\0password")),
        ("no data", crate::frames::message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff")),
        ("a length that is a lie", crate::frames::message(b'p', b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,")),
        ("more than it may be", sasl("SCRAM-SHA-256", &[b'x'; 2000])),
        ("a promise of two gigabytes", vec![b'p', 0x7f, 0xff, 0xff, 0xff]),
        ("a length of nothing", vec![b'p', 0, 0, 0, 0]),
        ("a query instead", crate::frames::query("SELECT 1")),
        (
            "both steps at once",
            [sasl("SCRAM-SHA-256", first), crate::frames::message(b'p', b"c=biws,r=x,p=AAAA")].concat(),
        ),
        ("a proof of nothing", crate::frames::message(b'p', b"")),
        ("an extension that must be understood", sasl("SCRAM-SHA-256", b"n,,m=ext,n=,r=x")),
        ("another identity", sasl("SCRAM-SHA-256", b"n,a=postgres,n=,r=x")),
    ] {
        let mut stream = knock(&pooled, &startup(&format!("user\0{USER}\0database\0{DATABASE}\0\0"))).await;
        assert_eq!(message(&mut stream).await.0, b'R', "{what}");
        stream.write_all(&said).await.unwrap();
        let end = to_the_end(&mut stream).await;
        // No AuthenticationOk (R, length 8, 0) among what was said.
        assert!(!end.windows(9).any(|said| said == b"R\0\0\0\x08\0\0\0\0"), "{what}");
        assert!(end.contains(&b'E'), "{what}: it is told that it failed");
    }
    eventually("nobody is left", || pooled.pooler.registry().client_count() == 0).await;
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
}
