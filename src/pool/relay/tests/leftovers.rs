//! What a client leaves on its server: kept for it, or kept with it, and never for another.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{
    super::{Fate, Outcome},
    driver::Ends,
    link::{Pool, Schedule},
    model::Model,
    script::{Script, lines, script},
};
use crate::pool::{
    error::PoolError,
    pins::{Pins, Reason},
    wire::{
        backend::{self, TxStatus},
        frame,
    },
};

fn serve(pool: &mut Pool, client: usize, script: Script) -> (Result<Fate, PoolError>, Vec<String>) {
    pool.clients[client].got.clear();
    pool.clients[client].unsent = script.0;
    let fate = pool.serve(client, &mut Schedule::new(1, 4096));
    (fate, pool.clients[client].lines())
}

fn ask(pool: &mut Pool, client: usize, sql: &str) -> Vec<String> {
    let (fate, lines) = serve(pool, client, script().query(sql));
    assert_eq!(fate, Ok(Fate::Reusable), "{sql}");
    lines
}

fn two() -> (Pool, usize, usize) {
    let mut pool = Pool::new();
    let (a, b) = (pool.client(script()), pool.client(script()));
    (pool, a, b)
}

#[test]
fn a_setting_nobody_reports_is_kept_for_its_client_alone() {
    let (mut pool, a, b) = two();
    assert_eq!(ask(&mut pool, a, "set statement_timeout = 5s"), ["C SET", "Z I"], "the question is not the client's");
    for _ in 0..3 {
        assert_eq!(ask(&mut pool, b, "show statement_timeout")[1], "D 0");
        assert_eq!(ask(&mut pool, a, "show statement_timeout")[1], "D 5s");
    }
    assert_eq!(pool.model.asked, 1, "once, when it was set");
}

#[test]
fn who_sets_nothing_unreported_is_never_asked_about() {
    let (mut pool, a, b) = two();
    for sql in ["select 1", "set TimeZone Asia/Tokyo", "begin;insert x;rollback"] {
        ask(&mut pool, a, sql);
        ask(&mut pool, b, "select 2");
    }
    let extended = script().parse("x", "select 1").run("x").run_text("set TimeZone UTC").sync();
    assert_eq!(serve(&mut pool, a, extended).0, Ok(Fate::Reusable));
    assert_eq!(pool.model.asked, 0);
}

#[test]
fn a_set_that_was_rolled_back_leaves_what_was_before() {
    let (mut pool, a, b) = two();
    ask(&mut pool, a, "set statement_timeout = 5s");
    ask(&mut pool, a, "begin;set statement_timeout = 9s;rollback");
    let fails = script().query("begin;set statement_timeout = 9s;error").query("rollback");
    assert_eq!(serve(&mut pool, a, fails).0, Ok(Fate::Reusable));
    assert_eq!(ask(&mut pool, b, "show statement_timeout")[1], "D 0");
    assert_eq!(ask(&mut pool, a, "show statement_timeout")[1], "D 5s");
}

#[test]
fn a_set_that_failed_is_not_asked_about() {
    let (mut pool, a, _) = two();
    ask(&mut pool, a, "set statement_timeout = bad");
    assert_eq!(pool.model.asked, 0);
}

#[test]
fn reset_leads_back_to_what_the_client_asked_for_when_it_connected() {
    let mut pool = Pool::new();
    let asked = [("statement_timeout", "30s"), ("application_name", "web")];
    let (a, b) = (pool.client_asking(&asked, script()), pool.client(script()));
    for back in ["RESET statement_timeout", "RESET ALL", "DISCARD ALL"] {
        ask(&mut pool, a, "set statement_timeout = 5s");
        assert_eq!(ask(&mut pool, b, "show statement_timeout")[1], "D 0", "{back}");
        ask(&mut pool, a, back);
        assert_eq!(ask(&mut pool, b, "show statement_timeout")[1], "D 0", "{back}");
        assert_eq!(ask(&mut pool, a, "show statement_timeout")[1], "D 30s", "{back}");
        assert_eq!(ask(&mut pool, a, "show application_name")[1], "D web", "{back}");
    }
    let told = ask(&mut pool, a, "RESET ALL");
    assert_eq!(told, ["C RESET", "S application_name ", "S application_name web", "Z I"].map(str::trim_end));
}

#[test]
fn what_was_reset_without_having_been_asked_for_is_not_kept() {
    let (mut pool, a, _) = two();
    ask(&mut pool, a, "set statement_timeout = 5s");
    assert!(pool.clients[a].state.options.is_some());
    ask(&mut pool, a, "RESET statement_timeout");
    assert!(pool.clients[a].state.options.is_none());
    ask(&mut pool, a, "set statement_timeout = 5s");
    ask(&mut pool, a, "RESET ALL");
    assert!(pool.clients[a].state.options.is_none());
}

#[test]
fn clients_that_set_the_same_share_it() {
    let (mut pool, a, b) = two();
    ask(&mut pool, a, "set statement_timeout = 5s");
    let mut schedule = Schedule::new(1, 4096);
    pool.clients[b].unsent = script().query("set statement_timeout = 5s").0;
    pool.serve(b, &mut schedule).unwrap();
    assert_eq!(ask(&mut pool, a, "show statement_timeout")[1], "D 5s");
    assert_eq!(pool.model.asked, 2);
}

#[test]
fn what_remains_keeps_the_server_and_what_is_gone_gives_it_back() {
    for (makes, ends) in [
        ("CREATE TEMP TABLE t", "DROP TABLE t"),
        ("listen", "UNLISTEN"),
        ("PREPARE x", "DEALLOCATE x"),
        ("PREPARE x", "DEALLOCATE ALL"),
        ("CREATE TEMP TABLE t", "DISCARD ALL"),
        ("begin;CREATE TEMP TABLE t;commit", "DROP TABLE t"),
    ] {
        let (mut pool, a, _) = two();
        let pinned = serve(&mut pool, a, script().query(makes).query("select 1"));
        assert_eq!(pinned.0, Ok(Fate::Discard), "{makes}: what is left goes with it");
        let (mut pool, a, _) = two();
        let (fate, lines) = serve(&mut pool, a, script().query(makes).query("select 1").query(ends));
        assert_eq!(fate, Ok(Fate::Reusable), "{makes}, {ends}");
        assert_eq!((lines.last().map(String::as_str), pool.leases), (Some("Z I"), 1), "{makes}, {ends}: {lines:?}");
    }
}

#[test]
fn a_question_that_fails_is_answered_by_the_worst() {
    let (mut pool, a, _) = two();
    pool.model.secretive = true;
    let (fate, lines) = serve(&mut pool, a, script().query("set statement_timeout = 1").query("select 1"));
    assert_eq!(fate, Ok(Fate::Discard));
    assert_eq!(lines, ["C SET", "Z I", "T", "D 1", "C SELECT 1", "Z I"], "the client hears nothing of it");
    assert_eq!(pool.model.asked, 1, "and it is not asked again");
}

#[test]
fn a_setting_nobody_saw_keeps_the_server_until_all_is_reset() {
    let (mut pool, a, _) = two();
    // As if it were in a text that was too long to be looked at.
    let unseen = script().query(&format!("select {};set statement_timeout = 5s", "x".repeat(100)));
    let (fate, _) = serve(&mut pool, a, unseen);
    assert_eq!(fate, Ok(Fate::Reusable), "seen: a long text in one piece");
    let hidden = script().query("select set_config($1,$2,false)").query("select 1");
    assert_eq!(serve(&mut pool, a, hidden.clone()).0, Ok(Fate::Discard));
    let mut pool = Pool::new();
    let a = pool.client(script());
    assert_eq!(serve(&mut pool, a, hidden.query("RESET ALL")).0, Ok(Fate::Reusable));
}

#[test]
fn a_name_of_the_protocol_can_be_dropped_by_sql() {
    for drop in [script().query("DEALLOCATE a"), script().run_text("DEALLOCATE \"a\"").sync()] {
        for piece in [1, 4096] {
            let mut pool = Pool::new();
            let (a, b) = (pool.client(script()), pool.client(script()));
            let mine = script().parse("a", "select 5").run("a").sync();
            let theirs = script().parse("a", "select 5").sync();
            pool.clients[b].unsent = theirs.0;
            pool.serve(b, &mut Schedule::new(3, piece)).unwrap();
            pool.clients[a].unsent = mine.then(drop.clone()).then(script().run("a").sync()).0;
            let mut schedule = Schedule::new(5, piece);
            while !pool.clients[a].unsent.is_empty() {
                assert_eq!(pool.serve(a, &mut schedule), Ok(Fate::Reusable));
            }
            let got = pool.clients[a].lines();
            let dropped = ["C DEALLOCATE", "Z I", "E 26000 prepared statement \"a\" does not exist", "Z I"];
            assert_eq!(got[got.len() - 4..], dropped, "{got:?}");
            assert_eq!(
                serve(&mut pool, b, script().run("a").sync()).1,
                ["2", "D 5", "C SELECT 1", "Z I"],
                "another's stays"
            );
        }
    }
}

#[test]
fn in_a_failed_transaction_deallocate_fails_and_the_name_stays() {
    let mut pool = Pool::new();
    let a = pool.client(script());
    let fails = script().parse("a", "select 5").sync().query("begin;error").query("DEALLOCATE a").query("rollback");
    let (_, lines) = serve(&mut pool, a, fails.run("a").sync());
    assert!(lines.iter().any(|line| line.starts_with("E 25P02")), "{lines:?}");
    assert_eq!(lines[lines.len() - 4..], ["2", "D 5", "C SELECT 1", "Z I"]);
}

/// Answers what it is asked, and says of everything that it is so.
async fn read_query(postgres: &mut DuplexStream) -> String {
    let mut header = [0; 5];
    postgres.read_exact(&mut header).await.unwrap();
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
    let mut body = vec![0; len];
    postgres.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

fn done(tag: &str) -> Vec<u8> {
    let mut out = Vec::new();
    backend::command_complete(&mut out, tag);
    backend::ready_for_query(&mut out, TxStatus::Idle);
    out
}

async fn read_lines(user: &mut DuplexStream, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let mut rest = &got[..];
        let mut seen = 0;
        while let Ok(Some(message)) = frame::whole(rest, 1 << 20) {
            rest = &rest[message.total_len()..];
            seen += 1;
        }
        if seen >= count {
            return lines(&got);
        }
        assert!(user.read_buf(&mut got).await.unwrap() > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_does_not_wait_for_the_question_and_the_next_message_does() {
    let mut ends = Ends::new(4096);
    let (mut user, mut postgres) = ends.others();
    let played = tokio::spawn(async move {
        assert_eq!(read_query(&mut postgres).await, "listen news\0");
        postgres.write_all(&done("LISTEN")).await.unwrap();
        let question = read_query(&mut postgres).await;
        assert!(question.contains("pg_catalog.pg_listening_channels()"), "{question}");
        assert_eq!(read_lines(&mut user, 2).await, ["C LISTEN", "Z I"], "while the question is open");
        user.write_all(&script().query("select 1").0).await.unwrap();
        let early = tokio::time::timeout(Duration::from_secs(9), read_query(&mut postgres)).await;
        assert!(early.is_err(), "{early:?}");
        // Nothing is left after all.
        postgres.write_all(&done("SELECT 0")).await.unwrap();
        assert_eq!(read_query(&mut postgres).await, "select 1\0");
        postgres.write_all(&done("SELECT 1")).await.unwrap();
        assert_eq!(read_lines(&mut user, 2).await, ["C SELECT 1", "Z I"]);
        (user, postgres)
    });
    // The client's next message came before the answer, so the lease goes on.
    assert_eq!(ends.run(&script().query("listen news").0).await, Outcome::Released { server: Fate::Reusable });
    played.await.unwrap();
}

/// A client that listens, and what it is told by `postgres` while it idles.
async fn listening(ends: &mut Ends, then: impl AsyncFnOnce(&mut DuplexStream, &mut DuplexStream)) -> Outcome {
    let (mut user, mut postgres) = ends.others();
    let query = script().query("listen").0;
    let run = ends.run(&query);
    let play = async {
        let mut model = Model::new();
        for _ in 0..2 {
            let mut buf = [0; 1024];
            let n = postgres.read(&mut buf).await.unwrap();
            model.feed(&buf[..n]);
            postgres.write_all(&std::mem::take(&mut model.output)).await.unwrap();
        }
        assert_eq!(read_lines(&mut user, 2).await, ["C LISTEN", "Z I"]);
        then(&mut user, &mut postgres).await;
        (user, postgres)
    };
    let (outcome, _held) = tokio::join!(run, play);
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_pinned_client_hears_at_once_what_the_server_says_unasked() {
    let mut ends = Ends::new(4096);
    let control = ends.control.clone();
    let outcome = listening(&mut ends, async |user, postgres| {
        while control.pins().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(control.pins(), [Reason::Listen].into_iter().collect());
        let mut news = Vec::new();
        frame::write(&mut news, b'A', |out| out.extend_from_slice(b"\0\0\0\x07news\0hello\0"));
        postgres.write_all(&news).await.unwrap();
        assert_eq!(read_lines(user, 1).await, ["A \u{7}news hello"]);
        control.drain();
    })
    .await;
    assert_eq!(outcome, Outcome::Released { server: Fate::Discard });
    assert_eq!(ends.control.pins(), Pins::none());
}

#[tokio::test(start_paused = true)]
async fn a_pinned_client_that_idles_is_idle_and_not_in_a_transaction() {
    let mut ends = Ends::new(4096);
    ends.limits.idle_transaction_timeout = Some(Duration::from_secs(1));
    ends.limits.client_idle_timeout = Some(Duration::from_secs(60));
    let began = tokio::time::Instant::now();
    let outcome = listening(&mut ends, async |_, _| {}).await;
    let limit = Duration::from_secs(60);
    assert_eq!(outcome, Outcome::Ended { error: PoolError::ClientIdleTimeout { limit } });
    assert!(began.elapsed() >= limit && began.elapsed() < limit * 2, "{:?}", began.elapsed());
}
