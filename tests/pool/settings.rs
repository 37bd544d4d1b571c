//! Settings of a pgbouncer.ini by what they do, on the real binary: of `[pgbouncer]`, of a database, of a user.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_postgres::Client;

use crate::{
    ini::{Process, ini},
    support::*,
};

/// In transaction mode with these settings, and sections behind them.
fn run(cluster: &Cluster, settings: &str) -> Process {
    Process::start(&[], |dir, port| ini(cluster, dir, port, &format!("pool_mode = transaction\n{settings}")))
}

/// A line of `[databases]`.
fn entry(cluster: &Cluster, name: &str, more: &str) -> String {
    format!("{name} = host=127.0.0.1 port={} dbname=postgres {more}\n", cluster.port)
}

/// Makes roles with the password `secret`, which `auth_user` looks up.
async fn roles(cluster: &Cluster, names: &[&str]) {
    let sql: String = names.iter().map(|name| format!("CREATE ROLE {name} LOGIN PASSWORD 'secret';")).collect();
    cluster.direct().await.batch_execute(&sql).await.unwrap();
}

async fn log_in(process: &Process, database: &str, user: &str) -> Client {
    // The first one waits until the process listens.
    let client = process.connect(database).await;
    if user == USER {
        return client;
    }
    postgres::connect(process.port, database, &format!("user={user} password=secret")).await.unwrap()
}

/// How long a client waits while another one of the same user has a transaction open; `None`: as long as it may take.
async fn waits(process: &Process, database: &str, user: &str) -> Option<Duration> {
    let (holder, other) = (log_in(process, database, user).await, log_in(process, database, user).await);
    holder.batch_execute("BEGIN").await.unwrap();
    let begun = Instant::now();
    let answered = timeout(SECOND, ask(&other, "SELECT 1")).await.ok()?;
    answered.ok().map(|_| begun.elapsed())
}

async fn set(process: &Process, text: &str) {
    process.connect("pgbouncer").await.simple_query(&format!("SET {text}")).await.unwrap();
}

async fn pid(client: &Client) -> String {
    ask(client, "SELECT pg_backend_pid()").await.unwrap()
}

/// A value of a row that the console shows.
async fn shown(console: &Client, command: &str, (key, name): (&str, &str), column: &str) -> String {
    let rows = rows(console, command).await;
    let row = rows.iter().find(|row| row.get(key) == Some(name));
    row.and_then(|row| row.get(column)).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserve_is_for_who_has_waited_reserve_pool_timeout() {
    let cluster = postgres::shared();
    roles(&cluster, &["spare"]).await;
    let settings = format!(
        "reserve_pool_timeout = 0.3\nauth_user = {USER}\n[databases]\n{}{}{}{}[users]\nspare = reserve_pool_size=1\n",
        entry(&cluster, "bare", "pool_size=1"),
        entry(&cluster, "untouched", "pool_size=1"),
        entry(&cluster, "kept", "pool_size=1 reserve_pool_size=1"),
        entry(&cluster, "older_word", "pool_size=1 reserve_pool=1"),
    );
    let process = run(&cluster, &settings);
    assert_eq!(waits(&process, "bare", USER).await, None);
    for (database, user) in [("kept", USER), ("older_word", USER), ("bare", "spare")] {
        let waited = waits(&process, database, user).await.expect("the reserve is opened");
        assert!(waited >= SECOND / 4, "{database} of {user}: {waited:?}");
    }
    set(&process, "reserve_pool_size = 1").await;
    assert!(waits(&process, "bare", USER).await.is_some());
    set(&process, "reserve_pool_timeout = 0").await;
    assert_eq!(waits(&process, "untouched", USER).await, None, "0 is never");
}

/// Does what a timeout is there for, for as long as `patience`. Returns whether the client was sent away.
async fn is_sent_away(process: &Process, user: &str, setting: &str, patience: Duration) -> bool {
    let (holder, client) = (log_in(process, "shop", user).await, log_in(process, "shop", user).await);
    let begun = Instant::now();
    let work = async {
        match setting {
            "query_timeout" => drop(ask(&client, "SELECT pg_sleep(5)").await),
            "idle_transaction_timeout" => client.batch_execute("BEGIN").await.unwrap(),
            "transaction_timeout" => {
                client.batch_execute("BEGIN").await.unwrap();
                while ask(&client, "SELECT 1").await.is_ok() {
                    tokio::time::sleep(SECOND / 50).await;
                }
            }
            "client_idle_timeout" => drop(ask(&client, "SELECT 1").await),
            "query_wait_timeout" => {
                holder.batch_execute("BEGIN").await.unwrap();
                drop(ask(&client, "SELECT 1").await);
            }
            other => panic!("{other}"),
        }
        while !client.is_closed() {
            tokio::time::sleep(SECOND / 50).await;
        }
    };
    let sent_away = timeout(patience, work).await.is_ok();
    assert!(!sent_away || begun.elapsed() > SECOND / 4, "{setting} of {user}: {:?}", begun.elapsed());
    sent_away
}

const TIMEOUTS: [(&str, &str); 5] = [
    ("hasty", "query_timeout"),
    ("dreamy", "idle_transaction_timeout"),
    ("winded", "transaction_timeout"),
    ("absent", "client_idle_timeout"),
    ("eager", "query_wait_timeout"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_of_a_user_is_for_its_clients_and_no_others() {
    let cluster = postgres::shared();
    roles(&cluster, &TIMEOUTS.map(|(user, _)| user)).await;
    let users: String =
        TIMEOUTS.iter().map(|(user, setting)| format!("{user} = {setting}=0.4 pool_size=1\n")).collect();
    let settings = format!("auth_user = {USER}\n[users]\n{users}{USER} = pool_size=1\n");
    let process = run(&cluster, &settings);
    for (user, setting) in TIMEOUTS {
        // A neighbour for whom there is no such limit.
        let (own, others) = tokio::join!(
            is_sent_away(&process, user, setting, 10 * SECOND),
            is_sent_away(&process, USER, setting, SECOND)
        );
        assert!(own, "{setting}");
        assert!(!others, "{setting} of a user is for {user} alone");
        // PgBouncer says "query timeout" and "client_idle_timeout".
        let named = |log: String| log.contains(setting) || log.contains(&setting.replace('_', " "));
        eventually("the log names it", || named(process.text("stderr"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_general_timeout_is_for_everybody_and_a_users_zero_is_never() {
    let cluster = postgres::shared();
    roles(&cluster, &["spared"]).await;
    let never: String = TIMEOUTS.iter().map(|(_, setting)| format!(" {setting}=0")).collect();
    let general: String = TIMEOUTS.iter().map(|(_, setting)| format!("{setting} = 0\n")).collect();
    let settings = format!("{general}auth_user = {USER}\ndefault_pool_size = 1\n[users]\nspared ={never}\n");
    let process = run(&cluster, &settings);
    for (_, setting) in TIMEOUTS {
        set(&process, &format!("{setting} = 0.4")).await;
        let (others, spared) = tokio::join!(
            is_sent_away(&process, USER, setting, 10 * SECOND),
            is_sent_away(&process, "spared", setting, SECOND)
        );
        assert!(others, "{setting}");
        assert!(!spared, "{setting} of 0 is never");
        set(&process, &format!("{setting} = 0")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_has_settings_of_its_own() {
    let cluster = postgres::shared();
    let database = |name: &str, more: &str| entry(&cluster, name, more);
    let settings = format!(
        "server_lifetime = 3600\n[databases]\n{}{}{}{}",
        database("short", "server_lifetime=1"),
        database("eager", "pool_size=1 query_wait_timeout=0.3"),
        database("held", "pool_mode=session pool_size=1"),
        database(
            "forced",
            &format!("user={USER} password={PASSWORD} datestyle=German timezone=Asia/Tokyo application_name=own")
        ),
    );
    let process = run(&cluster, &settings);
    let (long, short) = (process.connect("shop").await, process.connect("short").await);
    let (kept, first) = (pid(&long).await, pid(&short).await);
    let begun = Instant::now();
    while pid(&short).await == first {
        assert!(begun.elapsed() < 10 * SECOND, "server_lifetime of a database");
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(begun.elapsed() > SECOND / 2);
    assert_eq!(pid(&long).await, kept);

    let (holder, eager) = (process.connect("eager").await, process.connect("eager").await);
    holder.batch_execute("BEGIN").await.unwrap();
    let (_, message) = told(&ask(&eager, "SELECT 1").await.unwrap_err());
    assert!(message.starts_with("query_wait_timeout"), "{message}");

    let (session, other) = (process.connect("held").await, process.connect("held").await);
    pid(&session).await;
    assert!(timeout(SECOND / 3, pid(&other)).await.is_err(), "pool_mode of a database");

    let forced = process.connect("forced").await;
    assert_eq!(ask(&forced, "SHOW TimeZone").await.unwrap(), "Asia/Tokyo");
    assert!(ask(&forced, "SHOW DateStyle").await.unwrap().starts_with("German"));
    assert_eq!(ask(&forced, "SHOW application_name").await.unwrap(), "own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_a_size_and_a_mode_of_its_own() {
    let cluster = postgres::shared();
    roles(&cluster, &["single", "sessional"]).await;
    let settings =
        format!("auth_user = {USER}\n[users]\nsingle = pool_size=1\nsessional = pool_mode=session pool_size=1\n");
    let process = run(&cluster, &settings);
    assert_eq!(waits(&process, "shop", "single").await, None);
    assert!(waits(&process, "shop", USER).await.is_some());
    let (session, other) = (log_in(&process, "shop", "sessional").await, log_in(&process, "shop", "sessional").await);
    pid(&session).await;
    assert!(timeout(SECOND / 3, pid(&other)).await.is_err(), "it has the one connection");
    drop(session);
    pid(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_looks_users_up_in_its_own_way() {
    let cluster = postgres::shared();
    roles(&cluster, &["known_here"]).await;
    let query = "auth_query='SELECT usename, passwd FROM pg_shadow WHERE usename = $1 AND usename <> ''known_here'''";
    let settings = format!(
        "[databases]\n{}{}",
        entry(&cluster, "asks", &format!("auth_user={USER}")),
        entry(&cluster, "asks_else", &format!("auth_user={USER} auth_dbname=shop {query}")),
    );
    let process = run(&cluster, &settings);
    let client = log_in(&process, "asks", "known_here").await;
    assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), "known_here");
    for database in ["shop", "asks_else"] {
        let refused = postgres::connect(process.port, database, "user=known_here password=secret").await.err().unwrap();
        assert_eq!(told(&refused).0, "28P01", "{database}");
    }
}

/// Accepts connections and notes when each came and how long its other end held it. `closes`: not at all.
async fn silent_server(closes: bool) -> (u16, Arc<Mutex<Vec<(Instant, Duration)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = noted.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                while !closes && stream.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {}
                noted.lock().unwrap().push((begun, begun.elapsed()));
            });
        }
    });
    (port, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_given_up_after_server_connect_timeout() {
    let cluster = postgres::shared();
    let (port, seen) = silent_server(false).await;
    // The probe does not look at what only `*` knows.
    let settings = format!(
        "server_connect_timeout = 0.4\nquery_wait_timeout = 1\nserver_tls_sslmode = disable\n\
         [databases]\n* = host=127.0.0.1 port={port}\n"
    );
    let process = run(&cluster, &settings);
    process.connect("shop").await;
    let error = postgres::connect(process.port, "silent", "").await.err().unwrap();
    assert!(told(&error).1.contains("server_connect_timeout"), "{error:?}");
    eventually("it was tried again", || seen.lock().unwrap().len() > 1).await;
    for (_, held) in seen.lock().unwrap().iter() {
        assert!((SECOND / 3..SECOND).contains(held), "{held:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_login_retry_is_the_longest_pause_between_logins() {
    let cluster = postgres::shared();
    let (port, seen) = silent_server(true).await;
    let settings = format!(
        "server_login_retry = 0.2\nquery_wait_timeout = 20\nserver_tls_sslmode = disable\n\
         [databases]\n* = host=127.0.0.1 port={port}\n"
    );
    let process = run(&cluster, &settings);
    process.connect("shop").await;
    let login = tokio::spawn(postgres::connect(process.port, "gone", ""));
    eventually("it is tried time and again", || seen.lock().unwrap().len() > 8).await;
    assert!(!login.is_finished(), "the client waits on");
    login.abort();
    let begun: Vec<_> = seen.lock().unwrap().iter().map(|(begun, _)| *begun).collect();
    let pauses: Vec<_> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().filter(|pause| **pause > SECOND / 3).count() < 3, "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_round_robin_lends_what_has_rested_longest() {
    let cluster = postgres::shared();
    let process = run(&cluster, "");
    let clients = [process.connect("shop").await, process.connect("shop").await, process.connect("shop").await];
    join_all(clients.iter().map(|client| client.batch_execute("BEGIN"))).await;
    join_all(clients.iter().map(|client| client.batch_execute("COMMIT"))).await;
    let three = async || [pid(&clients[0]).await, pid(&clients[0]).await, pid(&clients[0]).await];
    let [first, second, third] = three().await;
    assert!(first == second && second == third, "the one that has rested shortest");
    set(&process, "server_round_robin = 1").await;
    let [first, second, third] = three().await;
    assert!(first != second && second != third && first != third);
    assert_eq!(three().await, [first, second, third]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_forgotten_pool_idle_timeout_after_its_last_connection() {
    let cluster = postgres::shared();
    let process = run(&cluster, "server_idle_timeout = 0.2\npool_idle_timeout = 0");
    let console = process.connect("pgbouncer").await;
    drop(process.connect("shop").await);
    let pools = async || shown(&console, "SHOW MEM", ("name", "pool_cache"), "used").await;
    let until = async |count: &str| {
        let begun = Instant::now();
        while pools().await != count {
            assert!(begun.elapsed() < 20 * SECOND, "not {count}");
            tokio::time::sleep(SECOND / 20).await;
        }
    };
    until("1").await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(pools().await, "1", "0 is never");
    console.simple_query("SET pool_idle_timeout = 0.5").await.unwrap();
    until("0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_period_is_the_time_of_an_average() {
    let cluster = postgres::shared();
    let process = run(&cluster, "stats_period = 1");
    let (console, client) = (process.connect("pgbouncer").await, process.connect("shop").await);
    let average = async || shown(&console, "SHOW STATS", ("database", "shop"), "avg_query_count").await;
    let begun = Instant::now();
    while !matches!(average().await.parse(), Ok(1_u32..)) {
        assert!(begun.elapsed() < 20 * SECOND);
        for _ in 0..10 {
            ask(&client, "SELECT 1").await.unwrap();
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    // And what is over counts no longer.
    while average().await != "0" {
        assert!(begun.elapsed() < 30 * SECOND);
        tokio::time::sleep(SECOND / 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_iterations_is_what_a_client_is_told() {
    let cluster = postgres::shared();
    let process = run(&cluster, "auth_type = scram-sha-256\nscram_iterations = 5000");
    process.connect("shop").await;
    let mut stream = TcpStream::connect(("127.0.0.1", process.port)).await.unwrap();
    let packet = format!("\0\x03\0\0user\0{USER}\0database\0shop\0\0");
    stream.write_u32(packet.len() as u32 + 4).await.unwrap();
    stream.write_all(packet.as_bytes()).await.unwrap();
    assert_eq!(message(&mut stream).await.0, b'R');
    let first = b"n,,n=,r=fyko+d2lbbFgONRv9qkxdawL";
    let body = [&b"SCRAM-SHA-256\0"[..], &(first.len() as u32).to_be_bytes(), first].concat();
    stream.write_u8(b'p').await.unwrap();
    stream.write_u32(body.len() as u32 + 4).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let (_, body) = message(&mut stream).await;
    assert!(String::from_utf8_lossy(&body).ends_with(",i=5000"), "{body:?}");
}
