//! What a client's session leaves on a server, in transaction mode: settings are kept for their owner, what cannot be moved
//! keeps the server with its client exactly as long as it is there, and nobody else meets any of it.

use std::future::poll_fn;

use bookend::{
    config::pool::{Notifications, Pool, Sessions},
    health::{board::PoolCensus, drain::Phase},
    pool::{pins::Reason, registry::Leave},
};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Client};

use crate::{
    frames::{Raw, bind, describe, execute, function_call, parse, query, sqlstate, sync, values},
    support::*,
};

async fn one_server(cluster: &Cluster) -> Pooled {
    start(Pool { default_pool_size: 1, ..config(cluster) }).await
}

fn scrape(pooled: &Pooled) -> String {
    prometheus::TextEncoder::new().encode_to_string(&pooled.metrics.gather()).unwrap()
}

/// Why any client keeps its server.
fn pinned(pooled: &Pooled) -> Vec<Reason> {
    let clients = pooled.pooler.registry().clients();
    clients
        .iter()
        .filter_map(|client| client.control())
        .flat_map(|control| control.pins().iter().collect::<Vec<_>>())
        .collect()
}

async fn is_pinned(pooled: &Pooled, reasons: &[Reason]) {
    eventually(&format!("{reasons:?}"), || pinned(pooled) == reasons).await;
}

/// Runs `sql` as `one`, and checks that from then on `one` sees `value` of `looks` and `other` what it saw before.
async fn is_kept(one: &Client, other: &Client, sql: &str, looks: &str, value: &str) {
    let before = ask(other, looks).await.unwrap();
    one.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    for _ in 0..2 {
        assert_eq!(ask(other, looks).await.unwrap(), before, "{sql}: the other");
        assert_eq!(ask(one, looks).await.unwrap(), value, "{sql}: its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_kept_for_who_made_them() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    for (sql, looks, value) in [
        ("SET statement_timeout = '77s'", "SHOW statement_timeout", "77s"),
        ("/* app */ set local_x.y to 'z'", "SELECT coalesce(current_setting('local_x.y', true), '')", "z"),
        ("SET search_path TO a, \"B c\", pg_catalog", "SHOW search_path", "a, \"B c\", pg_catalog"),
        ("SET search_path = 'a, b'", "SHOW search_path", "\"a, b\""),
        ("SET search_path = ''", "SHOW search_path", "\"\""),
        ("SELECT set_config('search_path', '', false)", "SHOW search_path", ""),
        ("SET search_path = 'größe', \"it's\"", "SHOW search_path", "\"größe\", \"it's\""),
        (
            "SET app.text = E'a\\\\b''c\\nd'",
            "SELECT coalesce(current_setting('app.text', true), '') = E'a\\\\b''c\\nd'",
            "t",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SHOW transaction_isolation",
            "serializable",
        ),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW transaction_read_only", "on"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SHOW transaction_read_only", "off"),
        ("SET XML OPTION DOCUMENT", "SHOW xmloption", "document"),
        ("SET SCHEMA 'somewhere'", "SHOW search_path", "somewhere"),
        ("SET TIME ZONE INTERVAL '+05:30' HOUR TO MINUTE", "SHOW TIME ZONE", "<+05:30>-05:30"),
        ("BEGIN; SET lock_timeout = '3s'; COMMIT", "SHOW lock_timeout", "3s"),
        ("BEGIN; SET lock_timeout = '4s'; ROLLBACK", "SHOW lock_timeout", "3s"),
        (
            "BEGIN; SAVEPOINT s; SET lock_timeout = '5s'; ROLLBACK TO s; SET work_mem = '5MB'; COMMIT",
            "SHOW lock_timeout",
            "3s",
        ),
        ("SELECT 1", "SHOW work_mem", "5MB"),
        ("BEGIN; SET LOCAL work_mem = '6MB'; COMMIT", "SHOW work_mem", "5MB"),
        ("SELECT set_config('work_mem', '6MB', true)", "SHOW work_mem", "5MB"),
        ("DO $$ BEGIN SET work_mem = '7MB'; END $$", "SHOW work_mem", "7MB"),
        ("DO LANGUAGE 'plpgsql' $$ BEGIN SET work_mem = '6MB'; END $$", "SHOW work_mem", "6MB"),
        ("DO 'BEGIN SET work_mem = ''7MB''; END' LANGUAGE 'plpgsql'", "SHOW work_mem", "7MB"),
        ("SET ROLE pg_monitor", "SELECT current_user", "pg_monitor"),
        ("SET work_mem = '8MB'", "SELECT current_user", "pg_monitor"),
        ("RESET ROLE", "SELECT current_user", USER),
        ("SET SESSION AUTHORIZATION pg_monitor", "SELECT session_user", "pg_monitor"),
        ("RESET SESSION AUTHORIZATION", "SELECT session_user", USER),
        ("SET ROLE pg_monitor", "SELECT current_user", "pg_monitor"),
        ("RESET SESSION AUTHORIZATION", "SELECT current_user", USER),
        ("RESET work_mem", "SHOW work_mem", "4MB"),
        ("SET lock_timeout TO DEFAULT", "SHOW lock_timeout", "0"),
    ] {
        is_kept(&one, &other, sql, looks, value).await;
    }
    for (sets, looks, back) in [
        ("SET SESSION AUTHORIZATION pg_monitor; RESET ALL", "SELECT session_user", "RESET SESSION AUTHORIZATION"),
        ("SET ROLE pg_monitor; RESET ALL", "SELECT current_user", "RESET ROLE; RESET ALL"),
    ] {
        is_kept(&one, &other, sets, looks, "pg_monitor").await;
        is_kept(&one, &other, back, looks, USER).await;
    }
    one.batch_execute("RESET ALL").await.unwrap();
    for setting in ["statement_timeout", "search_path", "xmloption", "lock_timeout", "transaction_isolation"] {
        let looks = format!("SHOW {setting}");
        assert_eq!(ask(&one, &looks).await.unwrap(), ask(&other, &looks).await.unwrap(), "{setting}");
    }
    assert_eq!(pinned(&pooled), [], "none of it keeps a server");
    assert_eq!(pooled.servers(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_and_discard_lead_back_to_the_startup_packet() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = pooled.client_with("application_name=web options='-c work_mem=5MB'").await.unwrap();
    let other = pooled.client().await;
    for back in ["RESET work_mem", "RESET ALL", "DISCARD ALL", "SET work_mem TO DEFAULT"] {
        is_kept(&one, &other, "SET work_mem = '9MB'", "SHOW work_mem", "9MB").await;
        is_kept(&one, &other, back, "SHOW work_mem", "5MB").await;
        assert_eq!(ask(&one, "SHOW application_name").await.unwrap(), "web", "{back}");
    }
    is_kept(&one, &other, "SET application_name = 'job'", "SHOW application_name", "job").await;
    is_kept(&one, &other, "RESET application_name", "SHOW application_name", "web").await;
}

/// In one pipeline, or with a savepoint, an error or a rollback is beside the RESET ALL and not of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_beside_a_failure_is_neither_forgotten_nor_believed() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    let undone = "BEGIN; SET work_mem = '9MB'; SAVEPOINT a; RESET ALL; ROLLBACK TO a; COMMIT";
    is_kept(&one, &other, undone, "SHOW work_mem", "9MB").await;
    let done = "BEGIN; RESET ALL; SAVEPOINT a; ROLLBACK TO a; COMMIT";
    is_kept(&one, &other, done, "SHOW work_mem", "4MB").await;
    let options = "options='-c lock_timeout=30s'";
    let (asks, same) = (pooled.client_with(options).await.unwrap(), pooled.client_with(options).await.unwrap());
    for (first, second) in [("RESET ALL", "SELECT 1/0"), ("SELECT 1/0", "RESET ALL")] {
        asks.batch_execute("SET work_mem = '9MB'").await.unwrap();
        let (first, second) = tokio::join!(asks.batch_execute(first), asks.batch_execute(second));
        assert!(first.is_err() != second.is_err());
        for client in [&same, &asks] {
            assert_eq!(ask(client, "SHOW lock_timeout").await.unwrap(), "30s");
            assert_eq!(ask(client, "SHOW work_mem").await.unwrap(), "4MB");
        }
        assert_eq!(ask(&other, "SHOW lock_timeout").await.unwrap(), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_was_prepared_is_kept_too() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    let sets = one.prepare("SELECT set_config('app.tenant', $1, false)").await.unwrap();
    let looks = "SELECT coalesce(current_setting('app.tenant', true), '')";
    for tenant in ["seven", "eight"] {
        one.query_one(&sets, &[&tenant]).await.unwrap();
        assert_eq!(ask(&other, looks).await.unwrap(), "");
        assert_eq!(ask(&one, looks).await.unwrap(), tenant);
    }
    one.execute("SET lock_timeout = '9s'", &[]).await.unwrap();
    assert_eq!(ask(&other, "SHOW lock_timeout").await.unwrap(), "0");
    assert_eq!(ask(&one, "SHOW lock_timeout").await.unwrap(), "9s");
}

/// A role that is gone must not make its statements run as somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_when_a_kept_role_is_gone() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let direct = cluster.direct().await;
    direct.batch_execute("CREATE ROLE short_lived; CREATE TABLE role_traces (who text)").await.unwrap();
    direct.batch_execute("GRANT ALL ON role_traces TO PUBLIC").await.unwrap();
    let (one, other) = (pooled.client().await, pooled.client().await);
    one.batch_execute("SET ROLE short_lived").await.unwrap();
    one.batch_execute("INSERT INTO role_traces SELECT current_user").await.unwrap();
    ask(&other, "SELECT 1").await.unwrap();
    direct.batch_execute("DROP ROLE short_lived").await.unwrap();
    let error = one.batch_execute("INSERT INTO role_traces SELECT current_user").await.unwrap_err();
    let (code, message) = told(&error);
    assert_eq!(code, "22023", "{message}");
    assert!(message.contains("settings of this connection"), "{message}");
    assert_eq!(ask(&other, "SELECT string_agg(who, ',') FROM role_traces").await.unwrap(), "short_lived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_remains_keeps_the_server_until_it_is_gone() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = pooled.client().await;
    let pid = ask(&one, "SELECT pg_backend_pid()").await.unwrap();
    for (makes, looks, ends, reason) in [
        ("CREATE TEMP TABLE mine (id int)", "SELECT count(*) FROM mine", "DROP TABLE mine", Reason::Temp),
        ("SELECT 1 AS id INTO TEMPORARY mine", "SELECT id FROM mine", "DROP TABLE mine", Reason::Temp),
        ("CREATE TEMP VIEW mine AS SELECT 1", "SELECT * FROM mine", "DISCARD TEMP", Reason::Temp),
        (
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT pg_temp.f()",
            "DROP FUNCTION pg_temp.f()",
            Reason::Temp,
        ),
        ("CREATE TEMP TABLE mine (id int)", "SELECT count(*) FROM mine", "DISCARD ALL", Reason::Temp),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH 0 FROM c", "CLOSE c", Reason::Cursor),
        ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "FETCH 0 FROM c", "CLOSE ALL", Reason::Cursor),
        ("SELECT pg_advisory_lock(42)", "SELECT 1", "SELECT pg_advisory_unlock(42)", Reason::AdvisoryLock),
        (
            "SELECT pg_try_advisory_lock_shared(1, 2)",
            "SELECT 1",
            "SELECT pg_advisory_unlock_all()",
            Reason::AdvisoryLock,
        ),
        ("PREPARE mine AS SELECT 1", "EXECUTE mine", "DEALLOCATE mine", Reason::Prepare),
        ("PREPARE mine AS SELECT 1", "EXECUTE mine", "DEALLOCATE ALL", Reason::Prepare),
        ("DO $$ BEGIN PREPARE mine AS SELECT 1; END $$", "EXECUTE mine", "DEALLOCATE mine", Reason::Prepare),
        (
            "DO LANGUAGE 'plpgsql' $$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; END $$",
            "EXECUTE mine",
            "DEALLOCATE mine",
            Reason::Prepare,
        ),
        (
            "DO $$ DECLARE it text := 'PREPARE mine AS SELECT 1'; BEGIN EXECUTE it; END $$",
            "EXECUTE mine",
            "DEALLOCATE mine",
            Reason::Prepare,
        ),
        (
            "DO $$ DECLARE it text := 'CREATE TE' || 'MP TABLE mine (id int)'; BEGIN EXECUTE it; END $$",
            "SELECT count(*) FROM mine",
            "DROP TABLE mine",
            Reason::Temp,
        ),
        ("SELECT set_config('app.' || 'x', '7', false)", "SHOW app.x", "RESET ALL", Reason::Setting),
    ] {
        one.batch_execute(makes).await.unwrap();
        is_pinned(&pooled, &[reason]).await;
        for _ in 0..2 {
            ask(&one, looks).await.unwrap_or_else(|error| panic!("{makes}: {error:?}"));
        }
        // The only server is its own.
        let other = pooled.client().await;
        let waits = tokio::time::timeout(SECOND / 5, other.simple_query("SELECT 1")).await;
        assert!(waits.is_err(), "{makes}");
        drop(other);
        one.batch_execute(ends).await.unwrap();
        is_pinned(&pooled, &[]).await;
        let other = pooled.client().await;
        assert_eq!(ask(&other, "SELECT count(*) FROM pg_cursors").await.unwrap(), "0", "{ends}");
        assert_eq!(ask(&one, "SELECT pg_backend_pid()").await.unwrap(), pid, "{ends}: the same server");
    }
    assert_eq!(pooled.servers(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_at_the_boundary_keeps_nothing() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    for sql in [
        "BEGIN; CREATE TEMP TABLE mine (id int) ON COMMIT DROP; COMMIT",
        "BEGIN; CREATE TEMP TABLE mine (id int); ROLLBACK",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
        "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c; COMMIT",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)",
        "BEGIN; LISTEN news; ROLLBACK",
        "PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p",
        "SELECT ';CREATE TEMP TABLE x'",
    ] {
        one.batch_execute(sql).await.unwrap();
        assert_eq!(ask(&other, "SELECT 1").await.unwrap(), "1", "{sql}");
    }
    assert_eq!(pinned(&pooled), []);
    let text = scrape(&pooled);
    assert!(!text.lines().any(|line| line.starts_with("bookend_pool_pins_total") && !line.ends_with(" 0")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_leads_back_to_the_startup_packet_while_the_server_is_kept_too() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = pooled.client_with("application_name=web options='-c work_mem=5MB'").await.unwrap();
    one.batch_execute("CREATE TEMP TABLE mine (id int)").await.unwrap();
    for back in ["RESET ALL", "RESET work_mem", "SET application_name = 'x'; RESET ALL"] {
        one.batch_execute("SET work_mem = '9MB'").await.unwrap();
        assert_eq!(ask(&one, "SHOW work_mem").await.unwrap(), "9MB");
        one.batch_execute(back).await.unwrap();
        assert_eq!(ask(&one, "SHOW work_mem").await.unwrap(), "5MB", "{back}");
        assert_eq!(ask(&one, "SHOW application_name").await.unwrap(), "web", "{back}");
    }
    is_pinned(&pooled, &[Reason::Temp]).await;
}

/// `QuerySet.iterator()` of Django in autocommit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_side_cursor_is_read_over_several_transactions_and_then_the_server_is_everybodys() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    let declare = "DECLARE \"_django_curs_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 5)";
    one.batch_execute(declare).await.unwrap();
    let waits = pooled.client().await;
    let waits = tokio::time::timeout(SECOND / 5, waits.simple_query("SELECT 1")).await;
    assert!(waits.is_err(), "the only server is kept with its cursor");
    for expected in ["1", "3", "5"] {
        assert_eq!(ask(&one, "FETCH FORWARD 2 FROM \"_django_curs_1\"").await.unwrap(), expected);
    }
    one.batch_execute("CLOSE \"_django_curs_1\"").await.unwrap();
    assert_eq!(ask(&other, "SELECT count(*) FROM pg_cursors").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_what_it_left_with_it() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    for (makes, looks, value) in [
        ("CREATE TEMP TABLE mine (id int)", "SELECT to_regclass('mine') IS NULL", "t"),
        (
            "SELECT pg_advisory_lock(7)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "0",
        ),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors", "0"),
        ("LISTEN news", "SELECT count(*) FROM pg_listening_channels()", "0"),
        ("PREPARE p AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE from_sql", "0"),
        ("BEGIN; SET ROLE pg_monitor; CREATE TEMP TABLE mine (id int)", "SELECT current_user", USER),
        (
            "BEGIN; SELECT pg_advisory_lock(7)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "0",
        ),
        ("SELECT set_config('app.' || 'x', 'left', false)", "SELECT coalesce(current_setting('app.x', true), '')", ""),
    ] {
        let one = pooled.client().await;
        one.batch_execute(makes).await.unwrap_or_else(|error| panic!("{makes}: {error:?}"));
        let pid = ask(&one, "SELECT pg_backend_pid()").await.unwrap();
        drop(one);
        let other = pooled.client().await;
        assert_eq!(ask(&other, looks).await.unwrap(), value, "{makes}");
        assert_eq!(ask(&other, "SELECT pg_backend_pid()").await.unwrap(), pid, "{makes}: cleaned, not closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_was_loaded_goes_with_its_client() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = pooled.client().await;
    one.batch_execute("LOAD 'plpgsql'").await.unwrap();
    let pid = ask(&one, "SELECT pg_backend_pid()").await.unwrap();
    is_pinned(&pooled, &[Reason::Load]).await;
    one.batch_execute("DISCARD ALL").await.unwrap();
    is_pinned(&pooled, &[Reason::Load]).await;
    drop(one);
    let other = pooled.client().await;
    assert_ne!(ask(&other, "SELECT pg_backend_pid()").await.unwrap(), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_reach_a_client_that_idles() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 2, ..config(&cluster) }).await;
    let login = format!("host=127.0.0.1 port={} user={USER} password={PASSWORD} dbname={DATABASE}", pooled.port);
    let (listener, mut connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await.unwrap();
    let (tell, mut messages) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(news) = message {
                tell.send(news).unwrap();
            }
        }
    });
    listener.batch_execute("LISTEN news").await.unwrap();
    let other = pooled.client().await;
    other.batch_execute("NOTIFY news, 'hello'").await.unwrap();
    let news = tokio::time::timeout(10 * SECOND, messages.recv()).await.expect("at once").unwrap();
    assert_eq!((news.channel(), news.payload()), ("news", "hello"));
    assert_eq!(ask(&other, "SELECT count(*) FROM pg_listening_channels()").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_client_is_seen_and_counted_and_its_secrets_are_not() {
    let cluster = postgres::shared();
    let notifications = Notifications { fan_out: false, ..Notifications::default() };
    let sessions = Sessions { notifications, ..Sessions::default() };
    let pooled = start(Pool { sessions, ..config(&cluster) }).await;
    let (one, two) = (pooled.client().await, pooled.client().await);
    one.batch_execute("LISTEN news").await.unwrap();
    two.batch_execute("LISTEN news; CREATE TEMP TABLE mine AS SELECT 's3cret'").await.unwrap();
    eventually("three reasons", || pinned(&pooled).len() == 3).await;
    let text = scrape(&pooled);
    for line in [
        "bookend_pool_pinned_clients{database=\"arena\",reason=\"listen\"} 2",
        "bookend_pool_pinned_clients{database=\"arena\",reason=\"temp\"} 1",
        "bookend_pool_pins_total{database=\"arena\",reason=\"listen\"} 2",
        "bookend_pool_pins_total{database=\"arena\",reason=\"load\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    let mut shown = column(&console, "SHOW CLIENTS", "pinned").await;
    shown.sort_unstable();
    assert_eq!(shown, ["", "listen", "temp,listen"], "the first is the console's own");
    let longest_first = || {
        let listed = PoolCensus::pinned(&*pooled.pooler);
        assert!(listed.is_sorted_by_key(|client| std::cmp::Reverse(client.age)));
        listed.into_iter().map(|client| (client.database.to_string(), client.reasons)).collect::<Vec<_>>()
    };
    let (listens, both) = ((DATABASE.to_owned(), vec!["listen"]), (DATABASE.to_owned(), vec!["temp", "listen"]));
    assert_eq!(longest_first(), [listens.clone(), both.clone()]);
    one.batch_execute("UNLISTEN news").await.unwrap();
    eventually("it is not listed while it is free", || longest_first() == [both.clone()]).await;
    one.batch_execute("LISTEN news").await.unwrap();
    eventually("it is listed anew, behind", || longest_first() == [both.clone(), listens.clone()]).await;
    drop((one, two));
    eventually("nobody is pinned", || pinned(&pooled).is_empty()).await;
    assert!(!scrape(&pooled).contains("bookend_pool_pinned_clients{"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_client_leaves_at_a_boundary_when_the_process_does() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let one = pooled.client().await;
    one.batch_execute("CREATE TEMP TABLE mine (id int)").await.unwrap();
    is_pinned(&pooled, &[Reason::Temp]).await;
    one.batch_execute("BEGIN").await.unwrap();
    pooled.drain.advance(Phase::Draining { deadline: Instant::now() + 30 * SECOND });
    pooled.pooler.registry().clients().iter().for_each(|client| client.ask_to_leave(Leave::Draining));
    one.batch_execute("INSERT INTO mine VALUES (1); COMMIT").await.unwrap();
    eventually("it has left", || one.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_path_with_functions_of_its_own_does_not_deceive_the_pool() {
    let cluster = Cluster::start();
    let direct = cluster.direct().await;
    direct
        .batch_execute(
            "CREATE SCHEMA evil; CREATE FUNCTION evil.lies(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false'; \
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.lies); \
             CREATE FUNCTION evil.pg_my_temp_schema() RETURNS oid LANGUAGE sql AS 'SELECT 0::oid'; \
             CREATE VIEW evil.pg_locks AS SELECT * FROM pg_catalog.pg_locks WHERE false; \
             CREATE VIEW evil.pg_cursors AS SELECT * FROM pg_catalog.pg_cursors WHERE false;",
        )
        .await
        .unwrap();
    let pooled = one_server(&cluster).await;
    let one = pooled.client().await;
    one.batch_execute("SET search_path = evil, pg_catalog; SET lock_timeout = '7s'").await.unwrap();
    one.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    is_pinned(&pooled, &[Reason::AdvisoryLock]).await;
    one.batch_execute("CREATE TEMP TABLE mine (id int)").await.unwrap();
    is_pinned(&pooled, &[Reason::Temp, Reason::AdvisoryLock]).await;
    one.batch_execute("DROP TABLE mine; SELECT pg_advisory_unlock(7)").await.unwrap();
    is_pinned(&pooled, &[]).await;
    assert_eq!(ask(&pooled.client().await, "SHOW lock_timeout").await.unwrap(), "0");
    assert_eq!(ask(&one, "SHOW lock_timeout").await.unwrap(), "7s");
}

/// As asyncpg does after each use of a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleaning_up_what_was_not_left_keeps_nothing() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client_with("options='-c work_mem=5MB'").await.unwrap(), pooled.client().await);
    for _ in 0..3 {
        one.batch_execute("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;").await.unwrap();
        assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "4MB");
        assert_eq!(ask(&one, "SHOW work_mem").await.unwrap(), "5MB");
    }
    assert_eq!(pinned(&pooled), []);
}

/// Rows of `SELECT * FROM shadowed`: by a name given before, by a new one, and without one; or the error.
async fn rows(raw: &mut Raw, new: &str) -> Vec<String> {
    const TEXT: &str = "SELECT * FROM shadowed";
    let run = |name: &str| [bind("", name, &[], false), describe(b'P', ""), execute("", 0), sync()].concat();
    let mut all = Vec::new();
    for (parses, name) in [(false, "old"), (true, new), (true, "")] {
        let parses = if parses { parse(name, TEXT, &[]) } else { Vec::new() };
        raw.send(&[parses, run(name)].concat()).await.unwrap();
        let answer = raw.answer().await.unwrap();
        all.push(sqlstate(&answer).unwrap_or_else(|| values(&answer).join("|")));
    }
    all
}

async fn does(raw: &mut Raw, sql: &str) {
    raw.send(&query(sql)).await.unwrap();
    let answer = raw.answer().await.unwrap();
    assert_eq!(sqlstate(&answer), None, "{sql}");
}

/// One has a temporary table of the name that for others is a table of the schema's: texts and plans that clients share mean
/// one thing to it and another to them, and PostgreSQL keeps a plan for the table that was meant first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_table_is_met_by_its_owner_alone_with_and_without_a_name() {
    let cluster = Cluster::start();
    let direct = cluster.direct().await;
    direct.batch_execute("CREATE TABLE shadowed (v text); INSERT INTO shadowed VALUES ('all')").await.unwrap();
    let pooled = start(Pool { default_pool_size: 2, ..config(&cluster) }).await;
    let mut one = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    let mut other = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    let mut same = Raw::login(cluster.port, "postgres", &[]).await.unwrap();
    for raw in [&mut one, &mut other, &mut same] {
        raw.send(&[parse("old", "SELECT * FROM shadowed", &[]), sync()].concat()).await.unwrap();
        raw.answer().await.unwrap();
    }
    let mut number = 0;
    let steps = [
        "SELECT 1",
        // Both servers have been used for such things before.
        "CREATE TEMP TABLE first (id int)",
        "DROP TABLE first",
        "BEGIN; CREATE TEMP TABLE shadowed (v text) ON COMMIT DROP; INSERT INTO shadowed VALUES ('own')",
        "COMMIT",
        "BEGIN; CREATE TEMP TABLE shadowed (v text); INSERT INTO shadowed VALUES ('own')",
        "COMMIT",
        "SELECT 1",
        "UPDATE shadowed SET v = 'own still'",
        "DROP TABLE shadowed",
        "BEGIN; CREATE TEMP TABLE shadowed (v text); INSERT INTO shadowed VALUES ('own')",
        "ROLLBACK",
        "SELECT 1",
    ];
    for sql in steps {
        for raw in [&mut one, &mut same] {
            does(raw, sql).await;
        }
        for _ in 0..3 {
            number += 1;
            let new = format!("new {number}");
            let (mut got, mut expected) = (rows(&mut one, &new).await, rows(&mut same, &new).await);
            if got[1].starts_with("own") {
                // Where the session has had temporary tables before, PostgreSQL leaves an older plan at the other table.
                (got, expected) = (got.split_off(1), expected.split_off(1));
            }
            assert_eq!(got, expected, "{sql}");
            // Within a transaction nothing is mended.
            does(&mut other, "BEGIN").await;
            assert_eq!(rows(&mut other, &new).await, ["all", "all", "all"], "the other, after {sql}");
            does(&mut other, "COMMIT").await;
            assert_eq!(rows(&mut other, &format!("{new}, once more")).await, ["all", "all", "all"], "{sql}");
        }
    }
    assert_eq!(pinned(&pooled), []);
    // The first such table of a session changes its search path, and so every plan.
    let mut answers = Vec::new();
    for (port, database) in [(pooled.port, DATABASE), (cluster.port, "postgres")] {
        let mut raw = Raw::login(port, database, &[]).await.unwrap();
        raw.send(&[parse("old", "SELECT * FROM shadowed", &[]), sync()].concat()).await.unwrap();
        raw.answer().await.unwrap();
        does(&mut raw, "CREATE TEMP TABLE shadowed (v text); INSERT INTO shadowed VALUES ('own')").await;
        answers.push(rows(&mut raw, "new").await);
    }
    assert_eq!(answers, [["own", "own", "own"], ["own", "own", "own"]]);
}

/// The table has other columns than the one it hides, and comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_table_of_another_shape_fails_nobody_in_a_transaction() {
    let cluster = Cluster::start();
    let direct = cluster.direct().await;
    direct.batch_execute("CREATE TABLE shadowed (v text); INSERT INTO shadowed VALUES ('all')").await.unwrap();
    let pooled = one_server(&cluster).await;
    let mut one = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    let mut other = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    let look = |name: &str| {
        let parse = parse(name, "SELECT * FROM shadowed", &[]);
        [parse, bind("", name, &[], false), describe(b'P', ""), execute("", 0), sync()].concat()
    };
    for round in 0..3 {
        let temporary = [("a int, b int", "1, 2", "1|2"), ("c int, d int, e int", "1, 2, 3", "1|2|3")];
        for (columns, row, expected) in temporary {
            let make = format!("BEGIN; CREATE TEMP TABLE shadowed ({columns}); INSERT INTO shadowed VALUES ({row})");
            does(&mut one, &make).await;
            for (number, end) in ["", "COMMIT", "BEGIN", "DROP TABLE shadowed"].into_iter().enumerate() {
                does(&mut one, end).await;
                let expected = if end == "DROP TABLE shadowed" { "all" } else { expected };
                for name in [format!("{round} {columns} {number}"), String::new()] {
                    one.send(&look(&name)).await.unwrap();
                    let answer = one.answer().await.unwrap();
                    assert_eq!((sqlstate(&answer), values(&answer).join("|")), (None, expected.into()), "{end}");
                }
            }
            does(&mut one, "COMMIT").await;
            does(&mut other, "BEGIN").await;
            for name in [format!("{round} {columns}"), String::new()] {
                other.send(&look(&name)).await.unwrap();
                let answer = other.answer().await.unwrap();
                assert_eq!((sqlstate(&answer), values(&answer).join("|")), (None, "all".into()));
            }
            does(&mut other, "COMMIT").await;
        }
    }
}

/// To PostgreSQL that is SET, though no word of it says so; nobody can say by its text what it sets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_pg_settings_keeps_the_server_and_nobody_meets_what_it_set() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    one.batch_execute("UPDATE pg_settings SET setting = '9216' WHERE name = 'work_mem'").await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&one, "SHOW work_mem").await.unwrap(), "9MB");
    }
    one.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "4MB", "it has given the server back");
    one.batch_execute("UPDATE pg_catalog.pg_settings SET setting = '9216' WHERE name = 'work_mem'").await.unwrap();
    drop(one);
    assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "4MB");
}

/// What it creates is temporary though no word says so: `pg_temp` is the first schema of its `search_path` that exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_made_under_a_search_path_with_pg_temp_is_met_by_its_owner_alone() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let set = pooled.client().await;
    set.batch_execute("SET search_path = pg_temp, public").await.unwrap();
    let called = pooled.client().await;
    called.execute("SELECT set_config('search_path', $1, false)", &[&"\"$user\", PG_Temp"]).await.unwrap();
    called.batch_execute("RESET ALL; SET search_path TO pg_temp").await.unwrap();
    let asked = pooled.client_with("options='-c search_path=pg_temp'").await.unwrap();
    for one in [set, called, asked] {
        assert_eq!(ask(&one, "SELECT 1").await.unwrap(), "1");
        for makes in ["CREATE TABLE mine (id int)", "CREATE TABLE mine AS SELECT 1 AS id", "SELECT 1 AS id INTO mine"] {
            assert_eq!(pinned(&pooled), []);
            one.batch_execute(makes).await.unwrap();
            is_pinned(&pooled, &[Reason::Temp]).await;
            one.batch_execute("DROP TABLE mine").await.unwrap();
            is_pinned(&pooled, &[]).await;
        }
        one.batch_execute("RESET ALL; SET search_path = public").await.unwrap();
    }
}

/// A DO may put together what it executes: what that sets is set back before anybody else's turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_meets_what_a_do_has_set_by_a_text_that_stands_nowhere() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    for executes in ["EXECUTE it", "EXECUTE (it)", "EXECUTE format('%s', it)", "EXECUTE '' || it", "EXECUTE concat(it)"]
    {
        let sql = format!("DO $$ DECLARE it text := 'SET work_mem = ''9MB'''; BEGIN {executes}; END $$");
        one.batch_execute(&sql).await.unwrap();
        assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "4MB", "{executes}");
    }
    // Names that it frees are made again.
    let named = one.prepare("SELECT 'named'").await.unwrap();
    for frees in ["DEALLOCATE ALL", "EXECUTE 'DEALLOCATE ALL'", "EXECUTE 'DEALLOCATE' || ' ALL'"] {
        assert_eq!(one.query_one(&named, &[]).await.unwrap().get::<_, &str>(0), "named");
        other.batch_execute(&format!("DO $$ BEGIN {frees}; END $$")).await.unwrap();
        assert_eq!(one.query_one(&named, &[]).await.unwrap().get::<_, &str>(0), "named", "{frees}");
    }
    assert_eq!(pooled.servers(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_do_that_listens_or_loads_leaves_that_to_nobody() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    one.batch_execute("DO $$ BEGIN LISTEN inside_a_do; END $$").await.unwrap();
    assert_eq!(ask(&other, "SELECT count(*) FROM pg_listening_channels()").await.unwrap(), "0");
    let pid = ask(&one, "SELECT pg_backend_pid()").await.unwrap();
    one.batch_execute("DO $$ BEGIN IF true THEN LOAD 'plpgsql'; END IF; END $$").await.unwrap();
    is_pinned(&pooled, &[Reason::Load]).await;
    drop(one);
    assert_ne!(ask(&other, "SELECT pg_backend_pid()").await.unwrap(), pid, "its server went with it");
}

/// The value is in the EXECUTE, the name of the setting in what was prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_execute_sets_reaches_nobody_else() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let other = pooled.client_with("options='-c work_mem=8MB'").await.unwrap();
    for meanwhile in ["SELECT 1", "RESET ALL"] {
        let one = pooled.client().await;
        one.batch_execute("PREPARE p(text) AS SELECT set_config('work_mem', $1, false)").await.unwrap();
        one.batch_execute("EXECUTE p('8MB')").await.unwrap();
        one.batch_execute(meanwhile).await.unwrap();
        one.batch_execute("EXECUTE p('9MB'); DEALLOCATE p").await.unwrap();
        assert_eq!(ask(&one, "SHOW work_mem").await.unwrap(), "9MB", "{meanwhile}");
        drop(one);
        assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "8MB", "{meanwhile}");
    }
    let one = pooled.client().await;
    one.batch_execute("PREPARE p(text) AS SELECT set_config('work_mem', $1, false)").await.unwrap();
    is_pinned(&pooled, &[Reason::Prepare]).await;
    one.batch_execute("DISCARD ALL").await.unwrap();
    is_pinned(&pooled, &[]).await;
    // What it sets is not known: it goes with the server.
    one.batch_execute("PREPARE p AS SELECT set_config($1, $2, false)").await.unwrap();
    one.batch_execute("RESET ALL; EXECUTE p('work_mem', '9MB'); DEALLOCATE p").await.unwrap();
    assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "8MB");
}

/// A FunctionCall has no text: what it calls is known by its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_call_that_sets_or_locks_keeps_its_server() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    let oid = async |signature: &str| -> u32 {
        ask(&direct, &format!("SELECT '{signature}'::regprocedure::oid")).await.unwrap().parse().unwrap()
    };
    let pooled = one_server(&cluster).await;
    for (locks, unlocks, arguments) in [
        ("pg_advisory_lock(bigint)", "pg_advisory_unlock(bigint)", &["4711"][..]),
        ("pg_advisory_lock_shared(bigint)", "pg_advisory_unlock_shared(bigint)", &["4711"]),
        ("pg_try_advisory_lock(bigint)", "pg_advisory_unlock(bigint)", &["4711"]),
        ("pg_try_advisory_lock_shared(bigint)", "pg_advisory_unlock_all()", &["4711"]),
        ("pg_advisory_lock(int,int)", "pg_advisory_unlock(int,int)", &["47", "11"]),
        ("pg_advisory_lock_shared(int,int)", "pg_advisory_unlock_shared(int,int)", &["47", "11"]),
        ("pg_try_advisory_lock(int,int)", "pg_advisory_unlock(int,int)", &["47", "11"]),
        ("pg_try_advisory_lock_shared(int,int)", "pg_advisory_unlock_all()", &["47", "11"]),
    ] {
        let mut one = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
        one.send(&function_call(oid(locks).await, arguments)).await.unwrap();
        assert_eq!(crate::frames::tags(&one.answer().await.unwrap()), "VZ", "{locks}");
        is_pinned(&pooled, &[Reason::AdvisoryLock]).await;
        let arguments = if unlocks.contains("all") { &[] } else { arguments };
        one.send(&function_call(oid(unlocks).await, arguments)).await.unwrap();
        assert_eq!(crate::frames::tags(&one.answer().await.unwrap()), "VZ", "{unlocks}");
        is_pinned(&pooled, &[]).await;
    }
    let mut one = Raw::login(pooled.port, DATABASE, &[]).await.unwrap();
    let sets = function_call(oid("set_config(text,text,boolean)").await, &["work_mem", "9MB", "false"]);
    one.send(&sets).await.unwrap();
    assert_eq!(crate::frames::tags(&one.answer().await.unwrap()), "VZ");
    is_pinned(&pooled, &[Reason::Setting]).await;
    drop(one);
    let other = pooled.client().await;
    assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "4MB");
}

/// While a client keeps its server for good nobody asks what it has set: a RESET of something else must not take that away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_one_setting_leaves_the_others_of_a_client_that_keeps_its_server() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let one = pooled.client_with("options='-c lock_timeout=30s'").await.unwrap();
    one.batch_execute("LOAD 'plpgsql'").await.unwrap();
    one.batch_execute("SET work_mem = '9MB'; SET TimeZone = 'Asia/Tokyo'; SET ROLE pg_monitor").await.unwrap();
    one.batch_execute("RESET TimeZone").await.unwrap();
    let looks = "SELECT concat_ws(' ', current_setting('work_mem'), current_setting('lock_timeout'), current_user)";
    assert_eq!(ask(&one, looks).await.unwrap(), "9MB 30s pg_monitor");
    one.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(ask(&one, looks).await.unwrap(), "4MB 30s pg_monitor");
}

/// What is sent behind a DISCARD ALL, before that is answered, is not discarded by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_behind_a_discard_all_in_one_go_is_kept_and_reaches_nobody_else() {
    let cluster = postgres::shared();
    let pooled = one_server(&cluster).await;
    let (one, other) = (pooled.client().await, pooled.client().await);
    for sets in ["SET work_mem = '9MB'", "DO $$ BEGIN SET work_mem = '9MB'; END $$"] {
        let (first, second) = tokio::join!(one.batch_execute("DISCARD ALL"), one.batch_execute(sets));
        first.and(second).unwrap();
        assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "4MB", "{sets}");
        assert_eq!(ask(&one, "SHOW work_mem").await.unwrap(), "9MB", "{sets}");
    }
    let (first, second) =
        tokio::join!(one.batch_execute("DISCARD ALL"), one.batch_execute("CREATE TEMP TABLE mine ()"));
    first.and(second).unwrap();
    is_pinned(&pooled, &[Reason::Temp]).await;
}
