//! The console's tables on the real binary, with the values that PgBouncer 1.26.1 showed when the same was done with it.

use std::sync::Arc;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    ini::{Process, ini},
    support::*,
};

/// Compares a row, found by its first two columns, with `column=value` words: `-` is NULL or nothing, `+` a number above 0,
/// `?` any number.
async fn row_is(console: &Client, command: &str, row: &str) {
    let wanted: Vec<(&str, &str)> = row.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
    let fits = |shown: &str, value: &str| match value {
        "-" => shown.is_empty(),
        "+" => shown.parse::<u64>().is_ok_and(|number| number > 0),
        "?" => shown.parse::<u64>().is_ok(),
        value => shown == value,
    };
    let mut found = Vec::new();
    let rows = rows(console, command).await;
    for row in &rows {
        let differences: Vec<_> = wanted
            .iter()
            .map(|(column, value)| (column, row.get(*column).unwrap_or_default(), value))
            .filter(|(_, shown, value)| !fits(shown, value))
            .collect();
        if differences.is_empty() {
            return;
        }
        found.push(differences);
    }
    panic!("{command}: no row is {row}: {found:?}");
}

/// What the rows were recorded with: three clients with a transaction open, one that has asked three times, in a pool of four
/// servers; one that has asked once and has its own pool.
struct Scene {
    cluster: Arc<Cluster>,
    process: Process,
    console: Client,
    open: Vec<Client>,
    asked: Client,
    _forced: Client,
}

async fn scene() -> Scene {
    let cluster = postgres::shared();
    let process = Process::start(&[], |dir, port| {
        let more = format!(
            "pool_mode = transaction\nstats_period = 1\n[databases]\n\
             forced = host=127.0.0.1 port={port} dbname=postgres user={USER} password={PASSWORD}\n\
             shop = host=127.0.0.1 port={port} dbname=postgres pool_size=3\n[users]\n{USER} = pool_size=4\n",
            port = cluster.port
        );
        ini(&cluster, dir, port, &more)
    });
    let mut open = vec![process.connect("shop").await];
    let named = async |database: &str, name: &str| {
        postgres::connect(process.port, database, &format!("application_name={name}")).await.unwrap()
    };
    let asked = named("shop", "two").await;
    let forced = named("forced", "three").await;
    let begin = async |client: &Client| {
        client.batch_execute("BEGIN").await.unwrap();
        ask(client, "select 1").await.unwrap();
    };
    begin(&open[0]).await;
    ask(&asked, "select 1").await.unwrap();
    ask(&asked, "select 2").await.unwrap();
    ask(&forced, "select 1").await.unwrap();
    for _ in 0..2 {
        let client = process.connect("shop").await;
        begin(&client).await;
        open.push(client);
    }
    ask(&asked, "select 3").await.unwrap();
    let console = process.connect("pgbouncer").await;
    Scene { cluster, process, console, open, asked, _forced: forced }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_databases_users_and_lists_count_as_pgbouncers_do() {
    let scene = scene().await;
    let server = scene.cluster.port;
    for (command, row) in [
        (
            "SHOW POOLS",
            "database=shop user=arena cl_active=4 cl_waiting=0 sv_active=3 sv_being_canceled=0 sv_idle=1 sv_used=0 \
             sv_tested=0 sv_login=0 maxwait=0 maxwait_us=0 pool_mode=transaction load_balance_hosts=-",
        ),
        ("SHOW POOLS", "database=forced user=arena cl_active=1 cl_waiting=0 sv_active=0 sv_idle=1"),
        (
            "SHOW DATABASES",
            "name=shop host=127.0.0.1 database=postgres force_user=- pool_size=3 min_pool_size=0 reserve_pool_size=0 \
             server_lifetime=3600 pool_mode=- load_balance_hosts=- max_connections=0 current_connections=4 \
             max_client_connections=0 current_client_connections=4 paused=0 disabled=0",
        ),
        ("SHOW DATABASES", "name=forced force_user=arena pool_size=20 current_connections=1"),
        (
            "SHOW USERS",
            "name=arena pool_size=4 reserve_pool_size=- pool_mode=- max_user_connections=0 current_connections=5 \
             max_user_client_connections=0 current_client_connections=5",
        ),
        ("SHOW LISTS", "list=used_clients items=6"),
        ("SHOW LISTS", "list=login_clients items=0"),
        ("SHOW LISTS", "list=used_servers items=5"),
        ("SHOW LISTS", "list=dns_names items=0"),
        ("SHOW LISTS", "list=dns_queries items=0"),
        ("SHOW LISTS", "list=dns_zones items=0"),
        ("SHOW LISTS", "list=dns_pending items=0"),
        ("SHOW LISTS", "list=peers items=0"),
        ("SHOW LISTS", "list=peer_pools items=0"),
        ("SHOW STATE", "key=active value=yes"),
        ("SHOW STATE", "key=paused value=no"),
    ] {
        row_is(&scene.console, command, row).await;
    }
    row_is(&scene.console, "SHOW DATABASES", &format!("name=shop port={server}")).await;

    // One more transaction than there are connections.
    scene.asked.batch_execute("BEGIN").await.unwrap();
    let late = scene.process.connect("shop").await;
    let waiting = tokio::spawn(async move { ask(&late, "select 4").await });
    tokio::time::sleep(SECOND + SECOND / 5).await;
    row_is(&scene.console, "SHOW POOLS", "database=shop cl_active=4 cl_waiting=1 sv_active=4 maxwait=1 maxwait_us=+")
        .await;
    row_is(&scene.console, "SHOW CLIENTS", "type=C database=shop state=waiting wait=1 wait_us=+").await;
    scene.asked.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
    for command in ["DISABLE shop", "RECONNECT shop"] {
        scene.console.simple_query(command).await.unwrap();
    }
    row_is(&scene.console, "SHOW DATABASES", "name=shop disabled=1 paused=0").await;
    row_is(&scene.console, "SHOW SERVERS", "database=shop state=active close_needed=1").await;
    row_is(&scene.console, "SHOW SERVERS", "database=forced state=idle close_needed=0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_servers_are_who_is_there() {
    let scene = scene().await;
    let (port, server) = (scene.process.port, scene.cluster.port);
    let client = format!(
        "type=C user=arena database=shop replication=none state=active addr=127.0.0.1 port=+ local_addr=127.0.0.1 \
         local_port={port} wait=0 wait_us=0 close_needed=0 remote_pid=0 tls=- id=+"
    );
    row_is(&scene.console, "SHOW CLIENTS", &client).await;
    row_is(&scene.console, "SHOW CLIENTS", "type=C database=shop state=idle link=- application_name=two").await;
    let backend = ask(&scene.open[0], "SELECT pg_backend_pid()").await.unwrap();
    let held = format!(
        "type=S user=arena database=shop replication=none state=active addr=127.0.0.1 port={server} local_addr=127.0.0.1 \
         local_port=+ wait=0 wait_us=0 close_needed=0 remote_pid={backend} tls=- id=+"
    );
    row_is(&scene.console, "SHOW SERVERS", &held).await;
    row_is(&scene.console, "SHOW SERVERS", "type=S database=forced state=idle link=-").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_count_as_pgbouncers_do() {
    let scene = scene().await;
    row_is(
        &scene.console,
        "SHOW STATS",
        "database=shop total_server_assignment_count=6 total_query_count=9 total_received=117 total_sent=+ \
         total_query_time=+ total_wait_time=+ total_client_parse_count=0 total_client_login_count=4 \
         avg_server_assignment_count=? avg_query_count=? avg_recv=? avg_sent=? avg_query_time=? avg_wait_time=? \
         avg_client_parse_count=0 avg_client_login_count=?",
    )
    .await;
    row_is(&scene.console, "SHOW STATS", "database=forced total_query_count=1 total_received=14 total_wait_time=?")
        .await;
    row_is(
        &scene.console,
        "SHOW STATS_TOTALS",
        "database=shop server_assignment_count=6 query_count=9 bytes_received=117 client_login_count=4",
    )
    .await;
    row_is(&scene.console, "SHOW STATS_AVERAGES", "database=shop query_count=? bytes_received=? wait_time=?").await;
    row_is(&scene.console, "SHOW TOTALS", "name=total_query_count value=10").await;
    row_is(&scene.console, "SHOW TOTALS", "name=total_client_bytes value=131").await;
    // Three transactions are open: not counted yet.
    row_is(&scene.console, "SHOW STATS", "database=shop total_xact_count=3").await;
    for client in &scene.open {
        client.batch_execute("COMMIT").await.unwrap();
    }
    row_is(&scene.console, "SHOW STATS", "database=shop total_xact_count=6 total_query_count=12").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pgbouncer_shows_without_rows_has_none_here() {
    let scene = scene().await;
    for command in ["SHOW PEERS", "SHOW PEER_POOLS", "SHOW DNS_ZONES", "SHOW DNS_HOSTS"] {
        assert!(rows(&scene.console, command).await.is_empty(), "{command}");
    }
    // A notice, and nothing but its tag.
    let help = scene.console.simple_query("SHOW HELP").await.unwrap();
    assert!(help.iter().all(|message| matches!(message, SimpleQueryMessage::CommandComplete(_))));
}
