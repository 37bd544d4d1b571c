//! Batches and copies by hand, in front of a real PostgreSQL: what a client may send without looking, and what it must not cost
//! anybody else. Every answer is compared with that of PostgreSQL itself.

use bookend::config::pool::Pool;

use crate::{
    frames::{Message, Raw, bind, execute, flush, message, parse, query, sqlstate, sync, tags, values},
    support::*,
};

const TARGET: &str = "batches_target";

async fn one_server(cluster: &Cluster) -> Pooled {
    start(Pool { default_pool_size: 1, ..config(cluster) }).await
}

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql, &[]), bind("", "", &[], false), execute("", 0)].concat()
}

/// Sends it all at once, with a query behind it, and reads to that query's end: tags, the first error and the last value.
async fn outcome(client: &mut Raw, bytes: &[u8]) -> (String, Option<String>, Option<String>) {
    let all = [bytes, &query(&format!("SELECT 'end', count(*) FROM {TARGET}"))].concat();
    client.send(&all).await.unwrap();
    let mut said: Vec<Message> = Vec::new();
    while !values(&said).contains(&"end".to_owned()) {
        said.push(client.read().await.unwrap());
    }
    said.extend(client.answer().await.unwrap());
    (tags(&said), sqlstate(&said), values(&said).pop())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_by_itself_takes_no_server() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let holder = pooled.client().await;
    let mut client = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    client.send(&[flush(), sync(), sync()].concat()).await.unwrap();
    assert_eq!(tags(&[client.read().await.unwrap(), client.read().await.unwrap()]), "ZZ");
    holder.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_waits_for_the_sync_of_a_batch_that_has_its_answers() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let mut client = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    client.send(&[run("SELECT 'mine'"), flush()].concat()).await.unwrap();
    let mut said = Vec::new();
    while !tags(&said).ends_with('C') {
        said.push(client.read().await.unwrap());
    }
    let paused = tokio::spawn(async move { console.simple_query("PAUSE arena").await.map(drop) });
    let looks = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let pausing = async || {
        let rows = looks.simple_query("SHOW DATABASES").await.unwrap();
        rows.iter().any(|row| {
            matches!(row, tokio_postgres::SimpleQueryMessage::Row(row)
            if row.get("name") == Some(DATABASE) && row.get("paused") == Some("1"))
        })
    };
    while !pausing().await {
        tokio::task::yield_now().await;
    }
    // The batch goes on where it was.
    client.send(&[run("SELECT 'still mine'"), flush()].concat()).await.unwrap();
    while values(&said).len() < 2 {
        said.push(client.read().await.unwrap());
    }
    assert!(pausing().await, "a round trip, in which a PAUSE that is done would have been answered");
    assert!(!paused.is_finished(), "in the middle of a batch");
    client.send(&sync()).await.unwrap();
    assert!(tags(&client.answer().await.unwrap()).ends_with('Z'));
    paused.await.unwrap().unwrap();
    assert_eq!(values(&said), ["mine", "still mine"]);
}

/// COPY FROM STDIN by either protocol, accepted, refused at its beginning or at its data, ended well, given up, or with Syncs in
/// the middle: the answers are PostgreSQL's, nothing of the data reaches the next query, and the next client has a clean server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_go_wrong_in_any_order_end_as_on_postgresql() {
    let cluster = postgres::shared();
    let setup = cluster.direct().await;
    setup.batch_execute(&format!("CREATE TABLE {TARGET} (id int)")).await.unwrap();
    let pooled = one_server(&cluster).await;
    let neighbour = pooled.client().await;
    for sql in [format!("COPY {TARGET} FROM STDIN"), "COPY batches_missing FROM STDIN".to_owned()] {
        for data in [&b"1\n2\n"[..], b"1\nnone\n3\n", b""] {
            for (end, last) in [
                ("done", message(b'c', b"")),
                ("fail", message(b'f', b"changed my mind\0")),
                ("syncs", [sync(), flush(), sync(), message(b'c', b"")].concat()),
            ] {
                for extended in [false, true] {
                    // A simple COPY that was refused has no Sync to skip to: the data alone is dropped.
                    if !extended && end == "syncs" {
                        continue;
                    }
                    let data: Vec<_> = data.chunks(2).flat_map(|part| message(b'd', part)).collect();
                    let bytes = match extended {
                        true => [run(&sql), data, last.clone(), sync()].concat(),
                        false => [query(&sql), data, last.clone()].concat(),
                    };
                    let case = format!("{sql}, {end}, {extended}");
                    setup.batch_execute(&format!("TRUNCATE {TARGET}")).await.unwrap();
                    let mut direct = Raw::login(cluster.port, "postgres", &[]).await.unwrap();
                    let expected = outcome(&mut direct, &bytes).await;
                    setup.batch_execute(&format!("TRUNCATE {TARGET}")).await.unwrap();
                    let mut client = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
                    assert_eq!(outcome(&mut client, &bytes).await, expected, "{case}");
                    assert_eq!(ask(&neighbour, "SELECT 'clean'").await.unwrap(), "clean", "{case}");
                }
            }
        }
    }
}

/// The data still comes when the error has long been told and read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_a_copy_that_has_failed_reaches_nobody() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let neighbour = pooled.client().await;
    for extended in [false, true] {
        let mut client = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
        let sql = "COPY batches_nowhere FROM STDIN";
        let begin = if extended { [run(sql), sync()].concat() } else { query(sql) };
        client.send(&begin).await.unwrap();
        assert_eq!(sqlstate(&client.answer().await.unwrap()).as_deref(), Some("42P01"));
        assert_eq!(ask(&neighbour, "SELECT 1").await.unwrap(), "1");
        let late = [message(b'd', b"1\n"), message(b'c', b"")].concat();
        client.send(&[late, query("SELECT 'after'")].concat()).await.unwrap();
        assert_eq!(values(&client.answer().await.unwrap()), ["after"]);
        assert_eq!(ask(&neighbour, "SELECT 2").await.unwrap(), "2");
    }
}

/// What it copies out is longer than anything that is kept for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_out_waits_for_its_reader_and_ends_whole() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 2, spill_buffer: 1 << 16, ..config(&cluster) }).await;
    let mut client = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    client.send(&query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT")).await.unwrap();
    eventually("it waits", || pooled.metric("bookend_pool_spill_overflows_total") > 0.0).await;
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
    let said = client.answer().await.unwrap();
    assert_eq!(said.iter().filter(|(tag, body)| *tag == b'd' && body.len() == 1001).count(), 20_000);
    assert!(tags(&said).ends_with("cCZ"));
}

/// As `pg_dump` leaves it: what it empties for itself is nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_through_the_pool_leaves_nobody_without_a_search_path() {
    let cluster = postgres::shared();
    let setup = cluster.direct().await;
    setup.batch_execute("CREATE TABLE batches_dumped (id int)").await.unwrap();
    let pooled = one_server(&cluster).await;
    let neighbour = pooled.client().await;
    let before = ask(&neighbour, "SHOW search_path").await.unwrap();
    let port = pooled.port.to_string();
    let dump = tokio::process::Command::new("pg_dump")
        .args(["--host=127.0.0.1", "--port", &port, "--username", USER, "--table=batches_dumped", DATABASE])
        .env("PGPASSWORD", PASSWORD)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(text.contains("CREATE TABLE public.batches_dumped"), "{text}{}", String::from_utf8_lossy(&dump.stderr));
    assert_eq!(ask(&neighbour, "SHOW search_path").await.unwrap(), before);
    assert_eq!(ask(&neighbour, "SELECT count(*) FROM batches_dumped").await.unwrap(), "0");
    assert_eq!(ask(&neighbour, "SHOW statement_timeout").await.unwrap(), "0");
}
