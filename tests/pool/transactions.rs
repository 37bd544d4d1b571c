//! Many clients, few servers, every answer its own client's.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_on_five_servers_each_get_their_own_answers() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let mut clients = Vec::new();
    for number in 0..50i64 {
        let mut client = pooled.client().await;
        clients.push(tokio::spawn(async move {
            for turn in 0..40i64 {
                let value = number * 1000 + turn;
                let row = client.query_one("SELECT $1::int8, pg_backend_pid()", &[&value]).await.unwrap();
                assert_eq!(row.get::<_, i64>(0), value);
                let transaction = client.transaction().await.unwrap();
                let first: i32 = transaction.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
                let row = transaction.query_one("SELECT $1::int8 * 2, pg_backend_pid()", &[&value]).await.unwrap();
                assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (value * 2, first), "one server");
                transaction.commit().await.unwrap();
                assert_eq!(ask(&client, &format!("SELECT {value}")).await.unwrap(), value.to_string());
            }
        }));
    }
    let mut most = 0;
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(pooled.servers());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    assert!((2..=5).contains(&most), "{most} servers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_dies_in_a_transaction_leaves_nothing_behind() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let client = pooled.client().await;
    client.batch_execute("DROP TABLE IF EXISTS left_behind; CREATE TABLE left_behind (id int)").await.unwrap();
    let dying = pooled.client().await;
    dying.batch_execute("BEGIN; INSERT INTO left_behind VALUES (1)").await.unwrap();
    drop(dying);
    // Waits for the dead client's lock, and then finds nothing.
    client.batch_execute("LOCK TABLE left_behind IN ACCESS EXCLUSIVE MODE NOWAIT").await.ok();
    let counted = async {
        loop {
            if let Ok(count) = ask(&client, "SELECT count(*) FROM left_behind").await {
                return count;
            }
        }
    };
    assert_eq!(tokio::time::timeout(10 * SECOND, counted).await.unwrap(), "0");
    client.batch_execute("DROP TABLE left_behind").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_pass_in_both_directions() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let mut client = pooled.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("CREATE TEMP TABLE copied (id int, text text) ON COMMIT DROP").await.unwrap();
    let sink = transaction.copy_in("COPY copied FROM STDIN").await.unwrap();
    tokio::pin!(sink);
    for chunk in 0..100 {
        let lines: String = (0..100).map(|line| format!("{}\tline {line}\n", chunk * 100 + line)).collect();
        sink.send(bytes::Bytes::from(lines)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 10_000);
    let out = transaction.copy_out("COPY (SELECT id FROM copied ORDER BY id) TO STDOUT").await.unwrap();
    let out: Vec<_> = out.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(out.concat().split(|byte| *byte == b'\n').count(), 10_001);
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_work_on_whatever_server_comes() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (client, holder) = (pooled.client().await, pooled.client().await);
    let plus = client.prepare("SELECT $1::int4 + 1, pg_backend_pid()").await.unwrap();
    let times = client.prepare("SELECT $1::int4 * 7").await.unwrap();
    let mut seen = std::collections::HashSet::new();
    for turn in 0..20i32 {
        // The other takes the server that this one used last.
        holder.batch_execute("BEGIN").await.unwrap();
        let row = client.query_one(&plus, &[&turn]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), turn + 1);
        seen.insert(row.get::<_, i32>(1));
        holder.batch_execute("COMMIT").await.unwrap();
        let row = client.query_one(&plus, &[&turn]).await.unwrap();
        seen.insert(row.get::<_, i32>(1));
        assert_eq!(client.query_one(&times, &[&turn]).await.unwrap().get::<_, i32>(0), turn * 7);
    }
    assert!(seen.len() > 1, "never another server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_are_served_in_order() {
    let cluster = postgres::shared();
    let pooled = start(bookend::config::pool::Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let holder = pooled.client().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(pooled.client().await);
    }
    holder.batch_execute("BEGIN").await.unwrap();
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        let order = order.clone();
        waiting.push(tokio::spawn(async move {
            // A transaction of its own, so that the next is served only after it.
            client.batch_execute("SELECT pg_sleep(0.01)").await.unwrap();
            order.lock().unwrap().push(number);
        }));
        let queued = || waits(&pooled) == number + 1;
        eventually("the client waits", queued).await;
    }
    holder.batch_execute("COMMIT").await.unwrap();
    for client in waiting {
        client.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_waits_leaves_the_queue_at_once() {
    let cluster = postgres::shared();
    let pooled = start(bookend::config::pool::Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let holder = pooled.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    let (leaves, socket) = postgres::connect_with_socket(pooled.port, DATABASE, "").await.unwrap();
    let waiting = tokio::spawn(async move { leaves.batch_execute("SELECT 1").await });
    eventually("one waits", || waits(&pooled) == 1).await;
    socket.abort();
    assert!(waiting.await.unwrap().is_err());
    eventually("nobody waits", || waits(&pooled) == 0).await;
    eventually("it is gone", || pooled.pooler.registry().client_count() == 1).await;
    holder.batch_execute("COMMIT").await.unwrap();
    let next = pooled.client().await;
    assert_eq!(ask(&next, "SELECT 'the server is free'").await.unwrap(), "the server is free");
}

fn waits(pooled: &Pooled) -> usize {
    use bookend::pool::registry::ClientState;
    pooled.pooler.registry().clients().iter().filter(|client| client.state() == ClientState::Waiting).count()
}
