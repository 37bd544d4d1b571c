//! Nobody gets what is another's: two hundred clients on three servers, every value their own, while servers are killed,
//! queries cancelled, COPY broken off, clients dropped in the middle, and the operator does all that operators do.
//!
//! One in four writes its frames by hand: pipelines, pieces of messages, half a message and gone. `SEED=...` repeats a run as
//! far as the machine's timing lets it, `STRANGERS_SECONDS=600` makes it longer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bookend::config::pool::{AuthType, Pool};
use futures_util::{SinkExt, StreamExt, future::join_all};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::{Client, Error, NoTls};

use crate::{
    frames::{self, Raw},
    support::*,
};

const CLIENTS: u64 = 200;
const SERVERS: u32 = 3;
/// How long, unless the environment says otherwise.
const CHAOS: Duration = Duration::from_secs(12);
/// Longest time one piece of work may take, with every pause and kill there is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all clients share.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    right: AtomicU64,
    refused: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_reaches_a_wrong_recipient() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("SEED={seed}");
    let cluster = Cluster::start();
    cluster.direct().await.batch_execute("CREATE UNLOGGED TABLE strangers (value text)").await.unwrap();
    let config = Pool {
        // A client's own PBKDF2 would take most of the time.
        auth_type: AuthType::Trust,
        default_pool_size: SERVERS,
        max_db_connections: Some(SERVERS),
        max_prepared_statements: 3,
        ..config(&cluster)
    };
    let pooled = start(config.clone()).await;
    let tally = Arc::new(Tally::default());
    let port = pooled.port;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let (rng, tally) = (StdRng::seed_from_u64(seed ^ (id + 1)), tally.clone());
            if id % 4 == 0 {
                tokio::spawn(by_hand(port, id, rng, tally))
            } else {
                tokio::spawn(client(port, id, rng, tally))
            }
        })
        .collect();
    disturb(&cluster, &pooled, &config, StdRng::seed_from_u64(seed)).await;
    tally.over.store(true, Ordering::Relaxed);
    for client in tokio::time::timeout(30 * SECOND, join_all(clients)).await.expect("every client goes on") {
        client.unwrap();
    }
    let (right, refused) = (tally.right.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
    println!("{right} right answers, {refused} errors");
    assert!(right > 1000, "{right}");

    let registry = pooled.pooler.registry();
    eventually("every client has gone", || registry.client_count() == 0).await;
    let idle = || registry.servers().iter().all(|server| server.state() == bookend::pool::registry::ServerState::Idle);
    eventually("every server is idle", || pooled.servers() <= SERVERS as usize && idle()).await;
    // No place was lost: as many transactions as servers, at once.
    let held = join_all((0..SERVERS).map(|_| pooled.client())).await;
    for client in &held {
        client.batch_execute("BEGIN").await.unwrap();
    }
}

/// Kills, reloads, pauses. Leaves everything running.
async fn disturb(cluster: &Cluster, pooled: &Pooled, config: &Pool, mut rng: StdRng) {
    let direct = cluster.direct().await;
    let seconds = std::env::var("STRANGERS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let end = tokio::time::Instant::now() + seconds.map_or(CHAOS, Duration::from_secs);
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..200))).await;
        let pooler = &pooled.pooler;
        match rng.random_range(0..7) {
            0 => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.5";
                direct.batch_execute(sql).await.unwrap();
            }
            1 => pooler.reconnect(None).unwrap(),
            2 => {
                let default_pool_size = rng.random_range(1..=SERVERS);
                pooler.reload(&Arc::new(Pool { default_pool_size, ..config.clone() }));
            }
            3 => {
                let _ = tokio::time::timeout(SECOND / 10, pooler.pause(Some(DATABASE))).await;
                pooler.resume(Some(DATABASE)).unwrap();
            }
            4 => {
                let any = pooler.registry().clients().first().map(|client| client.id());
                any.map(|id| pooler.kill_client(id));
            }
            5 if rng.random_bool(0.2) => {
                pooler.kill(Some(DATABASE)).unwrap();
                pooler.resume(Some(DATABASE)).unwrap();
            }
            _ => {}
        }
    }
    pooled.pooler.reload(&Arc::new(config.clone()));
}

/// Connects, works and leaves, politely or not, again and again.
async fn client(port: u16, id: u64, mut rng: StdRng, tally: Arc<Tally>) {
    while !tally.over.load(Ordering::Relaxed) {
        let Ok((mut client, socket)) = postgres::connect_with_socket(port, DATABASE, "").await else {
            tokio::time::sleep(SECOND / 50).await;
            continue;
        };
        for _ in 0..rng.random_range(1..40) {
            let value = format!("{id}.{}", rng.next_u64());
            let work = tokio::time::timeout(PATIENCE, work(&mut client, &value, &mut rng));
            match work.await.unwrap_or_else(|_| panic!("client {id} hangs")) {
                Ok(seen) => {
                    assert!(seen.iter().all(|seen| *seen == value), "client {id} asked for {value} and got {seen:?}");
                    tally.right.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => drop(tally.refused.fetch_add(1, Ordering::Relaxed)),
            }
            if client.is_closed() || tally.over.load(Ordering::Relaxed) {
                break;
            }
        }
        if rng.random_bool(0.3) {
            let _begun = client.batch_execute("BEGIN").await;
            let _asked = tokio::time::timeout(SECOND / 1000, client.batch_execute("SELECT pg_sleep(0.01)")).await;
            socket.abort(); // without a word
        }
    }
}

/// Connects, writes frames and leaves, often in the middle of one, again and again.
async fn by_hand(port: u16, id: u64, mut rng: StdRng, tally: Arc<Tally>) {
    while !tally.over.load(Ordering::Relaxed) {
        let Ok(mut raw) = Raw::login(port, DATABASE, &[]).await else {
            tokio::time::sleep(SECOND / 50).await;
            continue;
        };
        for _ in 0..rng.random_range(1..20) {
            let value = format!("{id}.{}", rng.next_u64());
            let (bytes, syncs) = frames(&value, &mut rng);
            if rng.random_bool(0.1) {
                let part = rng.random_range(0..bytes.len());
                let _gone = raw.send(&bytes[..part]).await;
                break;
            }
            let mut seen = Ok(());
            for turn in 0..=syncs {
                if turn == 0 {
                    seen = raw.send_split(&bytes, &mut rng).await;
                    continue;
                }
                let Ok(answer) = raw.answer().await.inspect_err(|error| {
                    assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "client {id} waits for ever for {value}");
                }) else {
                    seen = Err(std::io::ErrorKind::UnexpectedEof.into());
                    break;
                };
                let values = frames::values(&answer);
                assert!(values.iter().all(|seen| *seen == value), "client {id} asked for {value} and got {values:?}");
                tally.right.fetch_add(1, Ordering::Relaxed);
            }
            if seen.is_err() {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
}

/// Something that is answered with `value` or an error, and with how many ReadyForQuery.
fn frames(value: &str, rng: &mut StdRng) -> (Vec<u8>, usize) {
    let select = format!("SELECT '{value}'");
    match rng.random_range(0..6) {
        0 => (frames::query(&select), 1),
        1 => {
            // Many batches at once, some of which fail.
            let batches = rng.random_range(1..30);
            let each = (0..batches).map(|_| {
                let text = if rng.random_bool(0.8) { "SELECT $1::text" } else { "SELECT 1 / 0, $1::text" };
                let bind = frames::bind("", "", &[Some(value)], false);
                [frames::parse("", text, &[]), bind, frames::execute("", 0), frames::sync()].concat()
            });
            (each.collect::<Vec<_>>().concat(), batches)
        }
        2 => {
            let name = format!("s{}", rng.random_range(0..3));
            let again = [frames::close(b'S', &name), frames::parse(&name, "SELECT $1::text", &[25])].concat();
            let once = [frames::bind("", &name, &[Some(value)], false), frames::execute("", 0)].concat();
            ([again, once.repeat(rng.random_range(1..5)), frames::sync()].concat(), 1)
        }
        3 => {
            let copy = format!("COPY strangers FROM STDIN; {select}");
            let line = format!("{value}\n");
            let end = if rng.random_bool(0.5) { (b'c', &b""[..]) } else { (b'f', &b"no\0"[..]) };
            let data = frames::message(b'd', line.as_bytes()).repeat(rng.random_range(0..50));
            ([frames::query(&copy), data, frames::message(end.0, end.1)].concat(), 1)
        }
        4 => {
            let rows = format!("SELECT '{value}' FROM generate_series(1, {})", rng.random_range(1..5000));
            let portal = [frames::parse("", &rows, &[]), frames::bind("", "", &[], false), frames::execute("", 10)];
            let rest = [frames::flush(), frames::execute("", 0), frames::sync()];
            ([portal.concat(), rest.concat()].concat(), 1)
        }
        _ => {
            let three = [frames::query("BEGIN"), frames::query(&select), frames::query("ROLLBACK")].concat();
            (three, 3)
        }
    }
}

/// Does one thing and returns every value that came back.
async fn work(client: &mut Client, value: &str, rng: &mut StdRng) -> Result<Vec<String>, Error> {
    let quoted = format!("SELECT '{value}'");
    match rng.random_range(0..9) {
        0 => Ok(vec![ask(client, &quoted).await?]),
        1 => {
            // Few texts, so that clients share statements, and more of them than a server keeps.
            let text = format!("SELECT $1::text, {}", rng.random_range(0..6));
            Ok(vec![client.query_one(&text, &[&value]).await?.get(0)])
        }
        2 => {
            let statement = client.prepare("SELECT $1::text").await?;
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&value];
            let pipeline = join_all((0..10).map(|_| client.query_one(&statement, &params))).await;
            pipeline.into_iter().map(|row| Ok(row?.get(0))).collect()
        }
        3 => {
            let transaction = client.transaction().await?;
            let first = transaction.query_one("SELECT $1::text", &[&value]).await?.get(0);
            let second = transaction.query_one("SELECT $1::text", &[&value]).await?.get(0);
            match rng.random_range(0..3) {
                0 => transaction.commit().await?,
                1 => transaction.rollback().await?,
                _ => drop(transaction),
            }
            Ok(vec![first, second])
        }
        4 => {
            client.batch_execute(&format!("SELECT 1/0; {quoted}")).await?;
            Ok(vec!["no error".to_owned()])
        }
        5 => {
            let rows =
                client.copy_out(&format!("COPY (SELECT '{value}' FROM generate_series(1, 50)) TO STDOUT")).await?;
            let rows: Vec<_> = rows.collect().await;
            rows.into_iter().map(|row| Ok(String::from_utf8_lossy(&row?).trim_end().to_owned())).collect()
        }
        6 => {
            let sink = client.copy_in::<_, bytes::Bytes>("COPY strangers FROM STDIN").await?;
            let mut sink = std::pin::pin!(sink);
            for _ in 0..rng.random_range(0..4) {
                let row = if rng.random_bool(0.2) { "too\tmany\n".to_owned() } else { format!("{value}\n") };
                sink.send(row.into_bytes().into()).await?;
            }
            if rng.random_bool(0.7) {
                sink.finish().await?;
            } // else it is dropped: CopyFail
            Ok(Vec::new())
        }
        7 => {
            let cancel = client.cancel_token();
            let late = Duration::from_millis(rng.random_range(0..30));
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                let _gone = cancel.cancel_query(NoTls).await;
            });
            Ok(vec![ask(client, &format!("SELECT '{value}' FROM pg_sleep(0.015)")).await?])
        }
        _ => {
            client.batch_execute(&format!("SET application_name = '{value}'; SET lock_timeout = '5s'")).await?;
            Ok(vec![ask(client, "SHOW application_name").await?])
        }
    }
}
