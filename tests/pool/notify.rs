//! LISTEN in transaction mode: clients listen without a server of their own, and lose nothing by it. What is lost with a
//! connection is said.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bookend::{
    config::pool::{Notifications, Pool, PoolMode, Sessions},
    pool::pins::Reason,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Notification};

use crate::support::*;

/// A client, and what it hears.
struct Listener {
    client: Client,
    news: UnboundedReceiver<Notification>,
    /// What ended its connection.
    end: tokio::task::JoinHandle<Option<tokio_postgres::Error>>,
}

impl Listener {
    async fn new(port: u16, database: &str) -> Self {
        let login = format!("host=127.0.0.1 port={port} user={USER} password={PASSWORD} dbname={database}");
        let (client, mut connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await.unwrap();
        let (tell, news) = unbounded_channel();
        let end = tokio::spawn(async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(news))) => drop(tell.send(news)),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Some(error),
                    None => return None,
                }
            }
        });
        Self { client, news, end }
    }

    /// One that listens to `channels` without a server.
    async fn of(pooled: &Pooled, channels: &[&str]) -> Self {
        let listener = Self::new(pooled.port, DATABASE).await;
        for channel in channels {
            listener.run(&format!("LISTEN {channel}")).await;
        }
        moved(pooled).await;
        listener
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The next one: its channel and payload.
    async fn next(&mut self) -> (String, String) {
        let news = tokio::time::timeout(10 * SECOND, self.news.recv()).await.expect("in time").expect("connected");
        (news.channel().to_owned(), news.payload().to_owned())
    }

    async fn hears(&mut self, channel: &str, payload: &str) {
        assert_eq!(self.next().await, (channel.to_owned(), payload.to_owned()));
    }

    /// Nothing came before what is said last on `channel`, which it listens to.
    async fn hears_only(&mut self, pooled: &Pooled, channel: &str) {
        say(pooled, channel, "last").await;
        self.hears(channel, "last").await;
    }

    /// How it was ended: SQLSTATE and message.
    async fn ended(self) -> (String, String) {
        let end = tokio::time::timeout(10 * SECOND, self.end).await.expect("in time").unwrap();
        told(&end.expect("told why"))
    }
}

async fn say(pooled: &Pooled, channel: &str, payload: &str) {
    pooled.client().await.batch_execute(&format!("SELECT pg_notify('{channel}', '{payload}')")).await.unwrap();
}

async fn one_server(cluster: &Cluster) -> Pooled {
    start(Pool { default_pool_size: 1, ..config(cluster) }).await
}

/// Nobody has a server any more, so that whoever listens does it without.
async fn moved(pooled: &Pooled) {
    let clients = || pooled.pooler.registry().clients();
    eventually("nobody has a server", || clients().iter().all(|client| client.link().is_none())).await;
}

fn pids(pooled: &Pooled, name: &str) -> Vec<i32> {
    let servers = pooled.pooler.registry().servers();
    let listens = |server: &&Arc<_>| bookend::pool::registry::ServerEntry::application_name(server) == name;
    servers.iter().filter(listens).filter_map(|server| server.remote_pid()).collect()
}

fn hub(pooled: &Pooled) -> Vec<i32> {
    pids(pooled, "bookend listen")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_listen_share_one_server_with_everybody() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let mut one = Listener::of(&pooled, &["notify_shared"]).await;
    let mut two = Listener::of(&pooled, &["notify_shared", "\"Notify \"\"other\""]).await;
    for payload in ["a", "b", "größe"] {
        say(&pooled, "notify_shared", payload).await;
        one.hears("notify_shared", payload).await;
        two.hears("notify_shared", payload).await;
    }
    one.run("SELECT pg_notify('Notify \"other', 'c')").await;
    two.hears("Notify \"other", "c").await;
    one.hears_only(&pooled, "notify_shared").await;
    assert_eq!(ask(&pooled.client().await, "SELECT count(*) FROM pg_listening_channels()").await.unwrap(), "0");
    assert_eq!((pooled.servers(), hub(&pooled).len()), (2, 1), "the clients', and the one that listens");
    assert_eq!(pooled.metric("bookend_pool_listeners"), 2.0);
    assert_eq!(pooled.metric("bookend_pool_listen_channels"), 2.0);
    assert_eq!(pooled.metric("bookend_pool_listen_connections"), 1.0);
    drop((one, two));
    eventually("nobody listens", || pooled.metric("bookend_pool_listeners") == 0.0).await;
    eventually("to nothing", || pooled.metric("bookend_pool_listen_channels") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hears_itself() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let mut one = Listener::of(&pooled, &["notify_self"]).await;
    one.run("NOTIFY notify_self, 'x'").await;
    one.hears("notify_self", "x").await;
    one.run("BEGIN; LISTEN notify_self_too; NOTIFY notify_self_too, 'y'; COMMIT; NOTIFY notify_self_too, 'z'").await;
    one.hears("notify_self_too", "y").await;
    one.hears("notify_self_too", "z").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_and_unlisten_count_with_their_transaction() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let mut one = Listener::of(&pooled, &["notify_base", "notify_a"]).await;
    for (sql, hears) in [
        ("BEGIN; LISTEN notify_b; ROLLBACK", vec!["notify_a"]),
        ("BEGIN; UNLISTEN notify_a; ROLLBACK", vec!["notify_a"]),
        ("BEGIN; UNLISTEN notify_a; SELECT 1/0", vec!["notify_a"]),
        ("ROLLBACK", vec!["notify_a"]),
        ("UNLISTEN notify_b", vec!["notify_a"]),
        ("UNLISTEN notify_a; LISTEN notify_a", vec!["notify_a"]),
        ("LISTEN Notify_B", vec!["notify_a", "notify_b"]),
        ("LISTEN notify_b", vec!["notify_a", "notify_b"]),
        ("BEGIN; UNLISTEN \"notify_a\"; SELECT 1; COMMIT", vec!["notify_b"]),
        ("BEGIN; UNLISTEN *; LISTEN notify_base; LISTEN notify_a; COMMIT", vec!["notify_a"]),
        ("UNLISTEN *; LISTEN notify_base", vec![]),
    ] {
        let failed = one.client.batch_execute(sql).await.is_err();
        assert_eq!(failed, sql.contains("1/0"), "{sql}");
        if !failed {
            moved(&pooled).await;
        } else {
            one.run("ROLLBACK").await;
        }
        let other = pooled.client().await;
        for channel in ["notify_a", "notify_b"] {
            other.batch_execute(&format!("NOTIFY {channel}, 'now'")).await.unwrap();
        }
        for channel in hears {
            assert_eq!(one.next().await, (channel.to_owned(), "now".to_owned()), "{sql}");
        }
        one.hears_only(&pooled, "notify_base").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlisten_by_the_extended_protocol_and_discard_all_end_it_too() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    for ends in ["UNLISTEN notify_ends", "UNLISTEN *"] {
        let mut one = Listener::of(&pooled, &["notify_ends", "notify_stays"]).await;
        one.client.execute(ends, &[]).await.unwrap();
        one.run("LISTEN notify_stays").await;
        moved(&pooled).await;
        say(&pooled, "notify_ends", "x").await;
        one.hears_only(&pooled, "notify_stays").await;
    }
    let mut one = Listener::of(&pooled, &["notify_ends"]).await;
    one.run("DISCARD ALL").await;
    eventually("nobody listens", || pooled.metric("bookend_pool_listeners") == 0.0).await;
    one.client.execute("LISTEN notify_stays", &[]).await.unwrap();
    say(&pooled, "notify_ends", "x").await;
    one.hears_only(&pooled, "notify_stays").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_wait_for_the_end_of_the_transaction() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 2, ..config(&cluster) }).await;
    let mut one = Listener::of(&pooled, &["notify_waits"]).await;
    one.run("BEGIN").await;
    say(&pooled, "notify_waits", "x").await;
    eventually("it waits", || pooled.metric("bookend_pool_notification_queue_bytes") > 0.0).await;
    one.run("SELECT 1").await;
    assert!(one.news.try_recv().is_err(), "in a transaction");
    one.run("COMMIT").await;
    // It came before the end of COMMIT's answer.
    let news = one.news.try_recv().expect("with the transaction's end");
    assert_eq!((news.channel(), news.payload()), ("notify_waits", "x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_a_server_for_something_else_hears_all_the_same() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 2, ..config(&cluster) }).await;
    let mut one = Listener::of(&pooled, &["notify_before"]).await;
    one.run("CREATE TEMP TABLE mine (id int); LISTEN notify_meanwhile").await;
    for channel in ["notify_before", "notify_meanwhile"] {
        say(&pooled, channel, "x").await;
        one.hears(channel, "x").await;
    }
    one.run("DROP TABLE mine").await;
    moved(&pooled).await;
    for channel in ["notify_before", "notify_meanwhile"] {
        say(&pooled, channel, "y").await;
        one.hears(channel, "y").await;
    }
    one.hears_only(&pooled, "notify_before").await;
}

/// Clients begin and cease to listen, and do other things, while somebody notifies all the time: each hears every number from
/// the first on to the last, once and in order, as PostgreSQL's own session beside them does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_channels_move() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 3, ..config(&cluster) }).await;
    let until = Instant::now() + 4 * SECOND;
    let direct = cluster.direct().await;
    let ready = Arc::new(AtomicUsize::new(0));
    let all_listen = ready.clone();
    let notifier = tokio::spawn(async move {
        let mut number = 0u64;
        while Instant::now() < until || all_listen.load(Ordering::Relaxed) < 6 {
            number += 1;
            let sql = format!("SELECT pg_notify('notify_many_' || c, '{number}') FROM generate_series(0, 3) c");
            direct.batch_execute(&sql).await.unwrap();
        }
        direct
            .batch_execute("SELECT pg_notify('notify_many_' || c, 'end') FROM generate_series(0, 3) c")
            .await
            .unwrap();
        number
    });
    let mut listeners = Vec::new();
    for turn in 0..6u64 {
        let mut one = Listener::new(pooled.port, DATABASE).await;
        let ready = ready.clone();
        listeners.push(tokio::spawn(async move {
            for channel in 0..4 {
                one.run(&format!("LISTEN notify_many_{channel}")).await;
                for _ in 0..turn {
                    one.run("SELECT 1; BEGIN; SELECT 2").await;
                    one.run("COMMIT").await;
                }
                tokio::time::sleep(Duration::from_millis(20 * turn)).await;
            }
            ready.fetch_add(1, Ordering::Relaxed);
            let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
            while heard.values().filter(|seen| seen.last().is_some_and(|last| last == "end")).count() < 4 {
                if Instant::now() < until {
                    one.run("SELECT 1").await;
                }
                let (channel, payload) = one.next().await;
                heard.entry(channel).or_default().push(payload);
            }
            heard
        }));
    }
    // Others come and go.
    let port = pooled.port;
    let others = tokio::spawn(async move {
        while Instant::now() < until {
            let one = Listener::new(port, DATABASE).await;
            one.run("LISTEN notify_many_0; LISTEN notify_many_1").await;
            one.run("UNLISTEN notify_many_0").await;
        }
    });
    let last = notifier.await.unwrap();
    let mut total = 0;
    for listener in listeners {
        for (channel, seen) in listener.await.unwrap() {
            let numbers: Vec<u64> = seen.iter().filter_map(|payload| payload.parse().ok()).collect();
            let first = numbers.first().copied().unwrap_or(last);
            assert!(numbers.iter().copied().eq(first..=last), "{channel}: from {first} to {last}, {numbers:?}");
            total += numbers.len();
        }
    }
    others.await.unwrap();
    println!("{last} notifications on each of four channels, {total} heard");
    assert!(last > 100 && total > 1000, "{last} {total}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_is_told_when_the_listening_connection_dies_and_the_next_one_listens_again() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = Listener::of(&pooled, &["notify_dies"]).await;
    let in_transaction = Listener::of(&pooled, &["notify_dies"]).await;
    let other = pooled.client().await;
    in_transaction.run("BEGIN").await;
    let pid = hub(&pooled)[0];
    cluster.direct().await.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    let (code, message) = one.ended().await;
    assert_eq!(code, "08006", "{message}");
    assert!(message.contains("notifications may be missing"), "{message}");
    // Its transaction is its own; it goes after that.
    in_transaction.run("SELECT 1").await;
    in_transaction.run("COMMIT").await;
    assert_eq!(in_transaction.ended().await.0, "08006");
    ask(&other, "SELECT 1").await.unwrap();
    let mut next = Listener::of(&pooled, &["notify_dies"]).await;
    next.hears_only(&pooled, "notify_dies").await;
    assert_ne!(hub(&pooled), [pid]);
    assert_eq!(pooled.metric_of("bookend_pool_errors_total", "listen_lost"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_and_reconnect_close_the_listening_connection_and_say_so() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = Listener::of(&pooled, &["notify_pause"]).await;
    pooled.pooler.pause(None).await.unwrap();
    assert_eq!(pooled.servers(), 0, "not even the one that listens");
    let (code, message) = one.ended().await;
    assert_eq!(code, "57P01", "{message}");
    assert!(message.contains("PAUSE"), "{message}");
    let late = Listener::new(pooled.port, DATABASE).await;
    let listens = tokio::time::timeout(SECOND / 5, late.client.batch_execute("LISTEN notify_pause")).await;
    assert!(listens.is_err(), "it waits");
    pooled.pooler.resume(None).unwrap();
    let mut one = Listener::of(&pooled, &["notify_pause"]).await;
    one.hears_only(&pooled, "notify_pause").await;
    pooled.pooler.reconnect(None).unwrap();
    assert_eq!(one.ended().await.0, "57P01");
}

/// Its channels were on the way, or it was in a transaction: it would have kept its server for as long as it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_does_not_wait_for_who_has_just_begun_to_listen() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = Listener::new(pooled.port, DATABASE).await;
    one.run("BEGIN; LISTEN notify_just").await;
    let paused = pooled.pooler.clone();
    let pause = tokio::spawn(async move { paused.pause(None).await });
    eventually("it is paused", || pooled.pooler.is_paused()).await;
    one.run("COMMIT").await;
    tokio::time::timeout(10 * SECOND, pause).await.expect("in time").unwrap().unwrap();
    assert_eq!(one.ended().await.0, "57P01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_queue_holds_ends_the_client_and_nobody_else() {
    let cluster = postgres::shared();
    let notifications = Notifications { queue: 16 << 10, ..Notifications::default() };
    let sessions = Sessions { notifications, ..Sessions::default() };
    let pooled = start(Pool { default_pool_size: 2, sessions, ..config(&cluster) }).await;
    let slow = Listener::of(&pooled, &["notify_much"]).await;
    let mut quick = Listener::of(&pooled, &["notify_much"]).await;
    slow.run("BEGIN").await;
    for payload in ["a", "b", "c", "d"] {
        say(&pooled, "notify_much", &payload.repeat(7000)).await;
        quick.hears("notify_much", &payload.repeat(7000)).await;
    }
    slow.run("COMMIT").await;
    let (code, message) = slow.ended().await;
    assert_eq!(code, "53400");
    assert!(message.contains("notification_queue") && message.contains("16384"), "{message}");
    assert_eq!(pooled.metric_of("bookend_pool_errors_total", "notification_queue"), 1.0);
    quick.hears_only(&pooled, "notify_much").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_fanned_out_is_heard_by_a_server_of_its_own() {
    let cluster = postgres::shared();
    let few = Notifications { channels_max: 1, ..Notifications::default() };
    let off = Notifications { fan_out: false, ..Notifications::default() };
    for (notifications, first) in [(few, "SET client_encoding = 'LATIN1'"), (few, "LISTEN notify_first"), (off, "")] {
        let sessions = Sessions { notifications, ..Sessions::default() };
        let pooled = start(Pool { default_pool_size: 2, sessions, ..config(&cluster) }).await;
        let mut one = Listener::new(pooled.port, DATABASE).await;
        one.run(first).await;
        one.run("LISTEN notify_own").await;
        let pinned = || {
            let clients = pooled.pooler.registry().clients();
            clients.iter().filter_map(|client| client.control()).any(|one| one.pins().contains(Reason::Listen))
        };
        eventually("it is pinned", pinned).await;
        one.hears_only(&pooled, "notify_own").await;
        assert!(pinned(), "{first}");
    }
    // With sessions there is nothing to fan out.
    let pooled = start(Pool { pool_mode: PoolMode::Session, ..config(&cluster) }).await;
    let mut one = Listener::new(pooled.port, DATABASE).await;
    one.run("LISTEN notify_own").await;
    one.hears_only(&pooled, "notify_own").await;
    assert!(hub(&pooled).is_empty());
}

/// No room for the listening connection, or none to log in as: who listens keeps its server until there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_a_listening_connection_the_client_keeps_its_server_and_moves_later() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 2, max_db_connections: Some(2), ..config(&cluster) }).await;
    let holder = pooled.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    let mut one = Listener::new(pooled.port, DATABASE).await;
    one.run("LISTEN notify_later").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(hub(&pooled).is_empty());
    holder.batch_execute("NOTIFY notify_later, 'x'; COMMIT").await.unwrap();
    one.hears("notify_later", "x").await;
    moved(&pooled).await;
    one.hears_only(&pooled, "notify_later").await;
    assert_eq!(hub(&pooled).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listening_connection_goes_when_nobody_listens_for_long() {
    let cluster = postgres::shared();
    let pooled = start(Pool { server_idle_timeout: Some(SECOND / 2), ..config(&cluster) }).await;
    let one = Listener::of(&pooled, &["notify_idle"]).await;
    let pid = hub(&pooled);
    drop(one);
    eventually("it goes", || hub(&pooled).is_empty()).await;
    let mut one = Listener::of(&pooled, &["notify_idle"]).await;
    one.hears_only(&pooled, "notify_idle").await;
    assert_ne!(hub(&pooled), pid);
}
