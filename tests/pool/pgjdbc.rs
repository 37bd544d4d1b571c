//! The messages of pgjdbc, by hand: its opening sequence, `S_1` from the fifth execution on, batches, fetch sizes by portals,
//! autosave. Two clients use the same names on one server.

use std::sync::Arc;

use bookend::config::pool::Pool;

use crate::{
    frames::{Raw, bind, close, describe, execute, parse, sqlstate, sync, tags, values},
    support::*,
};

const INT4: u32 = 23;
const TEXT: u32 = 25;

/// One statement as pgjdbc executes it: `BEGIN` by the unnamed one in front where it is not yet in a transaction.
fn once(name: &str, sql: Option<&str>, types: &[u32], parameters: &[Option<&str>], begin: bool) -> Vec<u8> {
    let begin = begin.then(|| [parse("", "BEGIN", &[]), bind("", "", &[], false), execute("", 0)].concat());
    let parsed = sql.map(|sql| parse(name, sql, types));
    let run = [bind("", name, parameters, false), describe(b'P', ""), execute("", 0), sync()].concat();
    [begin.unwrap_or_default(), parsed.unwrap_or_default(), run].concat()
}

/// Logs in with the parameters of version 42, and asks what it asks then.
async fn open(port: u16, application: &str) -> Raw {
    let parameters =
        [("client_encoding", "UTF8"), ("DateStyle", "ISO"), ("TimeZone", "Europe/Berlin"), ("extra_float_digits", "2")];
    let mut raw = Raw::login(port, DATABASE, &parameters).await.unwrap();
    for sql in ["SET extra_float_digits = 3".to_owned(), format!("SET application_name = '{application}'")] {
        raw.send(&[parse("", &sql, &[]), bind("", "", &[], false), execute("", 1), sync()].concat()).await.unwrap();
        let answer = raw.answer().await.unwrap();
        assert_eq!(tags(&answer).replace('S', ""), "12CZ");
    }
    raw
}

async fn asked(raw: &mut Raw, bytes: Vec<u8>) -> Vec<crate::frames::Message> {
    raw.send(&bytes).await.unwrap();
    raw.answer().await.unwrap_or_else(|error| panic!("{error} to {}", bytes.escape_ascii()))
}

/// Two clients of one pool; what stands in front of them lives as long as they do.
async fn two(servers: u32) -> ((Arc<Cluster>, Pooled), Raw, Raw) {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: servers, max_prepared_statements: 2, ..config(&cluster) }).await;
    let (one, other) = (open(pooled.port, "one").await, open(pooled.port, "other").await);
    ((cluster, pooled), one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_prepared_statements_have_one_name_and_different_texts_for_two_clients() {
    let (_alive, mut one, mut other) = two(1).await;
    for turn in 0..12 {
        let number = turn.to_string();
        for (raw, sql, who) in
            [(&mut one, "SELECT $1 + 1, 'one'", "one"), (&mut other, "SELECT $1 + 100, 'other'", "other")]
        {
            // Unnamed four times; then S_1 is parsed, then bound alone.
            let name = if turn < 4 { "" } else { "S_1" };
            let sql = (turn <= 4).then_some(sql);
            let answer = asked(raw, once(name, sql, &[INT4], &[Some(&number)], false)).await;
            assert_eq!(tags(&answer), if sql.is_some() { "12TDCZ" } else { "2TDCZ" }, "turn {turn}");
            let added = if who == "one" { 1 } else { 100 };
            assert_eq!(values(&answer), [(turn + added).to_string(), who.to_owned()]);
        }
    }
    // Closed when its statement is collected, with the next thing that is sent; then unknown.
    let answer = asked(&mut one, [close(b'S', "S_1"), once("S_1", None, &[], &[Some("1")], false)].concat()).await;
    assert_eq!((tags(&answer).as_str(), sqlstate(&answer).as_deref()), ("3EZ", Some("26000")));
    let answer = asked(&mut other, once("S_1", None, &[], &[Some("1")], false)).await;
    assert_eq!(values(&answer), ["101", "other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_sync_and_fails_as_a_whole() {
    let (_alive, mut one, mut other) = two(1).await;
    let mut batch = parse("S_2", "SELECT 12 / $1, $2", &[INT4, TEXT]);
    for divisor in ["1", "2", "3"] {
        batch.extend(
            [bind("", "S_2", &[Some(divisor), Some("one")], false), describe(b'P', ""), execute("", 1)].concat(),
        );
    }
    batch.extend(sync());
    let answer = asked(&mut one, batch).await;
    // PortalSuspended after each: a limit of one row, and one row came.
    assert_eq!(tags(&answer), "12TDs2TDs2TDsZ");
    assert_eq!(values(&answer), ["12", "one", "6", "one", "4", "one"]);
    let mut batch = Vec::new();
    for divisor in ["1", "0", "3"] {
        batch.extend([bind("", "S_2", &[Some(divisor), Some("one")], false), execute("", 0)].concat());
    }
    let answer = asked(&mut one, [batch, sync()].concat()).await;
    assert_eq!((tags(&answer).as_str(), sqlstate(&answer).as_deref()), ("2DCEZ", Some("22012")));
    let answer = asked(&mut other, once("", Some("SELECT 'other'"), &[], &[], false)).await;
    assert_eq!(values(&answer), ["other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_size_reads_a_named_portal_over_several_syncs() {
    let (_alive, mut one, mut other) = two(2).await;
    let begin = [parse("", "BEGIN", &[]), bind("", "", &[], false), execute("", 0)].concat();
    let rows = parse("S_3", "SELECT n FROM generate_series(1, $1) n", &[INT4]);
    let first = [bind("C_4", "S_3", &[Some("25")], false), describe(b'P', "C_4"), execute("C_4", 10), sync()].concat();
    let mut answer = asked(&mut one, [begin, rows, first].concat()).await;
    assert_eq!(tags(&answer), format!("12C12T{}sZ", "D".repeat(10)));
    let mut seen = values(&answer);
    for last in [false, true] {
        assert_eq!(values(&asked(&mut other, once("", Some("SELECT 'other'"), &[], &[], false)).await), ["other"]);
        answer = asked(&mut one, [execute("C_4", 10), sync()].concat()).await;
        assert_eq!(tags(&answer).contains('s'), !last);
        seen.extend(values(&answer));
    }
    assert_eq!(seen, (1..=25).map(|n| n.to_string()).collect::<Vec<_>>());
    let answer = asked(&mut one, [close(b'P', "C_4"), once("", Some("COMMIT"), &[], &[], false)].concat()).await;
    assert_eq!((tags(&answer).as_str(), answer.last().unwrap().1.as_slice()), ("312nCZ", &b"I"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autosave_rolls_back_to_its_savepoint() {
    let (_alive, mut one, mut other) = two(1).await;
    let save = [parse("", "SAVEPOINT PGJDBC_AUTOSAVE", &[]), bind("", "", &[], false), execute("", 0)].concat();
    let begin = [parse("", "BEGIN", &[]), bind("", "", &[], false), execute("", 0)].concat();
    let answer =
        asked(&mut one, [begin, save, once("", Some("SELECT 1 / $1"), &[INT4], &[Some("0")], false)].concat()).await;
    assert_eq!((sqlstate(&answer).as_deref(), answer.last().unwrap().1.as_slice()), (Some("22012"), &b"E"[..]));
    let answer = asked(&mut one, once("", Some("ROLLBACK TO SAVEPOINT PGJDBC_AUTOSAVE"), &[], &[], false)).await;
    assert_eq!(answer.last().unwrap().1, b"T");
    let answer = asked(&mut one, once("", Some("SHOW TimeZone"), &[], &[], false)).await;
    assert_eq!(values(&answer), ["Europe/Berlin"]);
    asked(&mut one, once("", Some("COMMIT"), &[], &[], false)).await;
    let answer = asked(&mut other, once("", Some("SHOW application_name"), &[], &[], true)).await;
    assert_eq!(values(&answer), ["other"]);
    asked(&mut other, once("", Some("ROLLBACK"), &[], &[], false)).await;
}
