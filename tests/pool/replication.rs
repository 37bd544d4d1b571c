//! Replication connections, with PostgreSQL's own programs: each has a server connection to itself.

use std::process::{Child, Command, Output, Stdio};

use bookend::config::pool::{Database, Pool};

use crate::{
    frames::{Raw, query, shown, sqlstate, tags},
    support::*,
};

/// One of PostgreSQL's programs, with the way to the pool in its environment.
fn program(name: &str, pooled: &Pooled) -> Command {
    let mut command = Command::new(postgres::find(name));
    command.env("PGHOST", "127.0.0.1").env("PGPORT", pooled.port.to_string()).env("PGUSER", USER);
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end without keeping the pool from serving it.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A pool whose fallback serves every name: a physical connection's database is its user's name.
async fn any(cluster: &Cluster, change: impl FnOnce(Pool) -> Pool) -> Pooled {
    let fallback = Database { dbname: None, ..database(cluster, "*") };
    start(change(Pool { databases: vec![database(cluster, DATABASE), fallback], ..config(cluster) })).await
}

struct Stream(Child, tempfile::TempDir);

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Streams WAL until it is ended: IDENTIFY_SYSTEM, START_REPLICATION, CopyBoth.
fn receive(pooled: &Pooled) -> Stream {
    let folder = tempfile::tempdir().unwrap();
    let child = program("pg_receivewal", pooled).arg("--no-loop").arg("-D").arg(folder.path()).spawn().unwrap();
    Stream(child, folder)
}

impl Stream {
    fn has_received(&self) -> bool {
        std::fs::read_dir(self.1.path()).unwrap().next().is_some()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_is_copied_through_the_pool() {
    let cluster = postgres::shared();
    let pooled = any(&cluster, |pool| pool).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = program("pg_basebackup", &pooled);
    // The data on one connection, the WAL on another.
    command.args(["--checkpoint=fast", "--wal-method=stream", "--no-slot", "--no-manifest", "--no-sync", "-D"]);
    command.arg(folder.path().join("copy"));
    let output = output(command).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(folder.path().join("copy/PG_VERSION").exists());
    eventually("nothing is left of them", || pooled.servers() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logical_connection_speaks_sql_and_replication_commands_in_a_database() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let mut command = program("psql", &pooled);
    command.args(["-X", "-A", "-t", "-c", "IDENTIFY_SYSTEM", "-c", "SHOW application_name", "-d"]);
    command.arg(format!("dbname={DATABASE} replication=database application_name=sub"));
    let output = output(command).await;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("|postgres\nsub\n"), "its own database and startup parameters: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_a_server_of_its_own_beside_the_pools_and_goes_with_its_client() {
    let cluster = postgres::shared();
    let pooled = any(&cluster, |pool| Pool { default_pool_size: 1, ..pool }).await;
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let stream = receive(&pooled);
    eventually("it receives", || stream.has_received()).await;
    assert_eq!(column(&console, "SHOW SERVERS", "replication").await, ["physical"]);
    assert_eq!(column(&console, "SHOW SERVERS", "state").await, ["active"]);
    assert!(column(&console, "SHOW CLIENTS", "replication").await.contains(&"physical".to_owned()));
    // The pool's one server is still there for others.
    let client = pooled.client().await;
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    assert_eq!(pooled.servers(), 2);
    drop(stream);
    eventually("its server is gone", || pooled.servers() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_counts_in_the_databases_limit_and_waits_for_room() {
    let cluster = postgres::shared();
    let wait = Some(SECOND / 2);
    let limited = |pool: Pool| Pool { max_db_connections: Some(1), query_wait_timeout: wait, ..pool };
    let pooled = start(limited(config(&cluster))).await;
    let identify = || {
        let mut command = program("psql", &pooled);
        command.args(["-X", "-A", "-t", "-c", "IDENTIFY_SYSTEM", "-d"]);
        command.arg(format!("dbname={DATABASE} replication=database"));
        command
    };
    let holder = pooled.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    let refused = output(identify()).await;
    assert!(said(&refused).contains("query_wait_timeout"), "{}", said(&refused));
    // One that rests gives way.
    holder.batch_execute("COMMIT").await.unwrap();
    let served = output(identify()).await;
    assert!(served.status.success(), "{}", said(&served));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_ends_a_stream_and_a_drain_does_not_wait_for_one() {
    let cluster = postgres::shared();
    let pooled = any(&cluster, |pool| pool).await;
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let killed = receive(&pooled);
    eventually("it receives", || killed.has_received()).await;
    let ids = column(&console, "SHOW CLIENTS", "id").await;
    let kinds = column(&console, "SHOW CLIENTS", "replication").await;
    let id = ids.iter().zip(&kinds).find(|(_, kind)| *kind == "physical").unwrap().0;
    console.batch_execute(&format!("KILL_CLIENT {id}")).await.unwrap();
    eventually("it is gone", || pooled.servers() == 0).await;
    drop(console);

    let stream = receive(&pooled);
    eventually("it receives", || stream.has_received()).await;
    pooled
        .drain
        .advance(bookend::health::drain::Phase::Draining { deadline: tokio::time::Instant::now() + 30 * SECOND });
    eventually("nothing is in flight", || pooled.pooler.drain().in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_connection_is_told_that_the_process_leaves() {
    let cluster = postgres::shared();
    let pooled = any(&cluster, |pool| pool).await;
    let mut raw = Raw::login(pooled.port, DATABASE, &[("replication", "database")]).await.unwrap();
    raw.send(&query("IDENTIFY_SYSTEM")).await.unwrap();
    assert_eq!(tags(&raw.answer().await.unwrap()), "TDCZ");
    pooled
        .drain
        .advance(bookend::health::drain::Phase::Draining { deadline: tokio::time::Instant::now() + 30 * SECOND });
    let told = raw.read().await.unwrap();
    assert_eq!(sqlstate(std::slice::from_ref(&told)).as_deref(), Some("57P01"), "{}", shown(&told));
    assert!(shown(&told).contains("FATAL"), "{}", shown(&told));
    assert!(raw.read().await.is_err(), "and it is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_replication_says_so_to_the_client() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    direct.batch_execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'pencil'").await.unwrap();
    let users = |pool: Pool| {
        let plain = bookend::config::pool::User::new("plain", pool.users[0].secret.clone());
        Pool { users: vec![pool.users[0].clone(), plain], ..pool }
    };
    let pooled = any(&cluster, users).await;
    let mut command = program("psql", &pooled);
    command.env("PGUSER", "plain").args(["-X", "-c", "IDENTIFY_SYSTEM", "-d", "dbname=arena replication=true"]);
    let refused = output(command).await;
    assert!(!refused.status.success());
    assert!(said(&refused).contains("replication"), "{}", said(&refused));
}

/// Its settings go into a startup packet, in which the last user and database count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_options_of_a_replication_connection_do_not_say_who_it_is_or_where_it_goes() {
    let cluster = postgres::shared();
    let pooled = any(&cluster, |pool| pool).await;
    for options in ["-c database=template1", "--user=postgres", "-c Replication=true", "-c options=-cwork_mem=1MB"] {
        for replication in ["database", "true"] {
            let parameters = [("replication", replication), ("options", options)];
            let refused = Raw::login(pooled.port, DATABASE, &parameters).await.map(drop).unwrap_err().to_string();
            assert!(refused.contains("42704"), "{options}: {refused}");
        }
    }
    let parameters = [("replication", "database"), ("options", "-c work_mem=9MB")];
    let mut raw = Raw::login(pooled.port, DATABASE, &parameters).await.unwrap();
    raw.send(&query("SELECT current_database(), current_setting('work_mem')")).await.unwrap();
    let answer = raw.answer().await.unwrap();
    assert!(
        answer.iter().any(|message| shown(message).contains("9MB")),
        "{:?}",
        answer.iter().map(shown).collect::<Vec<_>>()
    );
}
