//! Session state at random: two clients whose transactions share servers, each beside a session of its own at PostgreSQL.
//!
//! Both ways are given the same SQL, by simple queries, some of them in one go, or by the extended protocol; after each step
//! both are asked for what a session can keep: settings, who it acts as, temporary objects, held cursors, locks, names of
//! PREPARE. What one client leaves and another meets is a difference, and so is what a client loses. A third client takes a
//! server away now and then, so that the two do not stay where they are.
//!
//! `SEED=… cargo test --test pool session_state` repeats a run, `STATE_SECONDS=600` makes it longer.
//!
//! Not sent: LISTEN, whose channels the pool moves to a connection of its own; a text that a DO puts together, whose settings
//! the pool does not keep. Not given: settings at startup, to which a RESET inside a transaction leads back only behind it. Not
//! told apart: a setting with a dot that was never set, and one that was set back ('' from then on, to everybody).

use std::time::{Duration, Instant};

use bookend::config::pool::Pool;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

use crate::support::*;

/// Of one round, for both clients together.
const STEPS: usize = 40;
/// Advisory locks are of a database: the sessions beside the pool's have one of their own.
const TWIN: &str = "twin";

fn one_of<'a>(rng: &mut StdRng, items: &[&'a str]) -> &'a str {
    items[rng.random_range(0..items.len())]
}

fn statement(rng: &mut StdRng) -> String {
    let setting = one_of(rng, &["work_mem", "lock_timeout", "app.own", "TimeZone", "search_path", "app.asked"]);
    let value = match setting {
        "work_mem" => one_of(rng, &["'6MB'", "'7MB'", "DEFAULT", "'5MB'", "'no size'"]),
        "lock_timeout" => one_of(rng, &["'11s'", "'12s'", "0"]),
        "TimeZone" => one_of(rng, &["'Asia/Tokyo'", "'UTC'", "'No/Where'"]),
        "search_path" => one_of(rng, &["public", "pg_temp, public", "pg_temp", "'a, b', public", "public, pg_catalog"]),
        _ => one_of(rng, &["'1'", "'2'", "'it''s'", "''"]),
    };
    let text = if value == "DEFAULT" { "'8MB'" } else { value };
    let text = if text.starts_with('\'') { text.to_owned() } else { format!("'{text}'") };
    match rng.random_range(0..40) {
        0..=4 => format!("SET {setting} = {value}"),
        5 => format!("SET LOCAL {setting} = {value}"),
        6 | 7 => format!("SELECT set_config('{setting}', {text}, false)"),
        8 => format!("SELECT set_config('{setting}', {text}, true)"),
        9 => format!("DO $$ BEGIN SET {setting} = {value}; END $$"),
        10 => format!("DO LANGUAGE 'plpgsql' $x$ BEGIN EXECUTE $$SET {setting} = {value}$$; END $x$"),
        11 | 12 => format!("RESET {setting}"),
        13 => "RESET ALL".into(),
        14 => "DISCARD ALL".into(),
        15 => one_of(rng, &["SET ROLE pg_monitor", "SET SESSION AUTHORIZATION pg_monitor", "SET ROLE nobody_at_all"])
            .into(),
        16 => one_of(rng, &["RESET ROLE", "RESET SESSION AUTHORIZATION", "SET ROLE NONE"]).into(),
        17 => "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ".into(),
        18..=21 => "BEGIN".into(),
        22..=24 => "COMMIT".into(),
        25 => "ROLLBACK".into(),
        26 => "SAVEPOINT a".into(),
        27 => one_of(rng, &["ROLLBACK TO a", "RELEASE a"]).into(),
        28 => one_of(rng, &["SELECT 1/0", "SELEKT", "SELECT * FROM nothing_at_all"]).into(),
        29 => one_of(
            rng,
            &["CREATE TEMP TABLE t (id int)", "CREATE TABLE pg_temp.u AS SELECT 1", "SELECT 1 AS id INTO TEMP t"],
        )
        .into(),
        30 => "DO $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS v (id int) ON COMMIT DROP; END $$".into(),
        31 => one_of(rng, &["DROP TABLE IF EXISTS t, u", "DISCARD TEMP"]).into(),
        32 => one_of(rng, &["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH 1 FROM c"]).into(),
        33 => one_of(rng, &["CLOSE c", "CLOSE ALL"]).into(),
        34 => {
            one_of(rng, &["PREPARE p(text) AS SELECT set_config('app.own', $1, false)", "PREPARE q AS SELECT 7"]).into()
        }
        35 => one_of(
            rng,
            &["EXECUTE p('by p')", "EXECUTE q", "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) EXECUTE q"],
        )
        .into(),
        36 => one_of(rng, &["DEALLOCATE p", "DEALLOCATE q", "DEALLOCATE ALL"]).into(),
        37 => format!("SELECT pg_try_advisory_lock({})", rng.random_range(1..3)),
        38 => one_of(rng, &["SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock_all()"]).into(),
        _ => "UPDATE pg_settings SET setting = '9216' WHERE name = 'work_mem'".into(),
    }
}

/// What is sent in one go: queries behind each other, or one by the extended protocol.
#[derive(Debug)]
enum Step {
    Simple(Vec<String>),
    Extended(String),
}

fn step(rng: &mut StdRng) -> Step {
    match rng.random_range(0..10) {
        0..=4 => Step::Simple(vec![statement(rng)]),
        5 => Step::Simple(vec![[statement(rng), statement(rng)].join("; ")]),
        6 | 7 => Step::Simple((0..rng.random_range(2..4)).map(|_| statement(rng)).collect()),
        _ => Step::Extended(statement(rng)),
    }
}

/// Rows as text, or an error's SQLSTATE.
fn seen(answer: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>) -> Result<Vec<String>, String> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    answer.map(|messages| messages.iter().filter_map(row).collect()).map_err(code)
}

fn code(error: tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code: &SqlState| code.code().to_owned())
}

async fn play(client: &Client, step: &Step) -> Vec<Result<Vec<String>, String>> {
    match step {
        Step::Simple(queries) => {
            let queries = queries.iter().map(|sql| client.simple_query(sql));
            futures_util::future::join_all(queries).await.into_iter().map(seen).collect()
        }
        Step::Extended(sql) => vec![match client.execute(sql.as_str(), &[]).await {
            Ok(count) => Ok(vec![count.to_string()]),
            Err(error) => Err(code(error)),
        }],
    }
}

/// All that a session keeps; in a failed transaction there is nothing to ask.
const LOOK: &str = "SELECT current_setting('work_mem'), current_setting('lock_timeout'), \
    coalesce(current_setting('app.own', true), ''), coalesce(current_setting('app.asked', true), ''), current_setting('TimeZone'), \
    current_setting('search_path'), current_setting('default_transaction_isolation'), session_user, current_user, \
    (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_catalog.pg_cursors WHERE is_holdable), \
    (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()), \
    (SELECT string_agg(name, ',' ORDER BY name) FROM pg_catalog.pg_prepared_statements WHERE from_sql)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_state_at_random_is_that_of_postgresql() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("SEED").unwrap_or_else(|| rand::rng().random());
    let seconds = number("STATE_SECONDS").unwrap_or(8);
    println!("SEED={seed}");
    let cluster = postgres::shared();
    let _ = cluster.direct().await.batch_execute(&format!("CREATE DATABASE {TWIN}")).await; // there already, or at once
    let pooled = start(Pool { default_pool_size: 4, ..config(&cluster) }).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while Instant::now() < end || rounds == 0 {
        round(&cluster, &pooled, seed.wrapping_add(rounds)).await;
        rounds += 1;
    }
    println!("{rounds} rounds of {STEPS} steps");
}

async fn round(cluster: &Cluster, pooled: &Pooled, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut pairs, mut said) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let twin = postgres::connect(cluster.port, TWIN, "").await.unwrap();
        pairs.push((pooled.client().await, twin));
    }
    let third = pooled.client().await;
    for _ in 0..STEPS {
        if rng.random_bool(0.15) {
            let _ =
                third.batch_execute(one_of(&mut rng, &["BEGIN", "COMMIT", "SET work_mem = '3MB'", "RESET ALL"])).await;
        }
        let step = step(&mut rng);
        let who = rng.random_range(0..2);
        let (client, twin) = &pairs[who];
        said.push(format!("{who}: {step:?}"));
        let last = said.iter().rev().take(16).rev().cloned().collect::<Vec<_>>().join("\n  ");
        let whose = || format!("SEED={seed}, behind\n  {last}\n");
        let patience = Duration::from_secs(20);
        let got = tokio::time::timeout(patience, play(client, &step))
            .await
            .unwrap_or_else(|_| panic!("no answer: {}", whose()));
        let expected = play(twin, &step).await;
        assert_eq!(got, expected, "the pool's, and PostgreSQL's: {}", whose());
        // Each of them, since what one has done must not be seen by the other.
        for (who, (client, twin)) in pairs.iter().enumerate() {
            let (got, expected) = (client.simple_query(LOOK).await, twin.simple_query(LOOK).await);
            assert_eq!(seen(got), seen(expected), "{who} at the pool, and at PostgreSQL: {}", whose());
        }
    }
}
