//! Limits, orders from outside, and what a client must not send.

use super::{
    super::*,
    driver::{Ends, serve},
    link::limits,
    model::Model,
    script::{Script, lines, script},
};
use crate::pool::wire::{backend, backend::TxStatus, frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

/// Runs a lease against the model until it ends, and returns what the client got too.
async fn ended(ends: &mut Ends, first: Script) -> (Outcome, Vec<String>) {
    let (mut user, postgres) = ends.others();
    let server = tokio::spawn(serve(postgres, Model::new()));
    let outcome = ends.run(&first.0).await;
    server.abort();
    ends.hang_up();
    let mut got = Vec::new();
    user.read_to_end(&mut got).await.unwrap();
    (outcome, lines(&got))
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ended { error } => error.message(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_timeout_ends_both_and_names_the_setting() {
    let mut ends = Ends::new(4096);
    ends.limits.query_timeout = Some(Duration::from_secs(3));
    ends.limits.transaction_timeout = Some(Duration::from_secs(60));
    let (mut user, _silent) = ends.others();
    let start = Instant::now();
    let outcome = ends.run(&script().query("select 1").0).await;
    assert!(said(&outcome).starts_with("query timeout"));
    assert_eq!(start.elapsed().as_secs(), 3);
    ends.hang_up();
    let mut got = Vec::new();
    user.read_to_end(&mut got).await.unwrap();
    assert!(lines(&got)[0].starts_with("E FATAL 57014 query timeout"));
}

/// What we ask of a server ourselves is waited for by the client as its own query is.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_take_a_clients_settings_runs_into_query_timeout() {
    let mut ends = Ends::asking(&[("application_name", "web-1")], 4096);
    ends.limits.query_timeout = Some(Duration::from_secs(3));
    let (_user, _silent) = ends.others();
    let start = Instant::now();
    assert!(said(&ends.run(&script().query("select 1").0).await).starts_with("query timeout"));
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_say_what_is_left_on_it_runs_into_query_timeout() {
    let mut ends = Ends::new(4096);
    ends.limits.query_timeout = Some(Duration::from_secs(3));
    let (mut user, mut postgres) = ends.others();
    let played = tokio::spawn(async move {
        let mut model = Model::new();
        let mut buf = [0; 1024];
        let n = postgres.read(&mut buf).await.unwrap();
        model.feed(&buf[..n]);
        postgres.write_all(&std::mem::take(&mut model.output)).await.unwrap();
        user.write_all(&script().query("select 1").0).await.unwrap();
        std::future::pending::<()>().await;
        drop((user, postgres));
    });
    let start = Instant::now();
    assert!(said(&ends.run(&script().query("listen news").0).await).starts_with("query timeout"));
    assert_eq!(start.elapsed().as_secs(), 3);
    played.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_transaction_is_ended_and_an_active_one_is_not() {
    let mut ends = Ends::new(4096);
    ends.limits.idle_transaction_timeout = Some(Duration::from_secs(2));
    let (mut user, postgres) = ends.others();
    tokio::spawn(serve(postgres, Model::new()));
    let start = Instant::now();
    let client = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            user.write_all(&script().query("select 1").0).await.unwrap();
        }
        let mut got = Vec::new();
        user.read_to_end(&mut got).await.unwrap();
        lines(&got)
    });
    let outcome = ends.run(&script().query("begin").0).await;
    assert!(said(&outcome).starts_with("idle transaction timeout"));
    assert_eq!(start.elapsed(), Duration::from_millis(5 * 1500 + 2000));
    ends.hang_up();
    assert!(client.await.unwrap().last().unwrap().starts_with("E FATAL 25P03"));
}

#[tokio::test(start_paused = true)]
async fn a_long_transaction_is_ended_however_busy_it_is() {
    let mut ends = Ends::new(4096);
    ends.limits.transaction_timeout = Some(Duration::from_secs(5));
    let (mut user, postgres) = ends.others();
    tokio::spawn(serve(postgres, Model::new()));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(400)).await;
            if user.write_all(&script().query("select 1").0).await.is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let outcome = ends.run(&script().query("begin").0).await;
    assert!(said(&outcome).starts_with("transaction timeout"));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_killed_client_is_told_why() {
    for (why, sqlstate) in [(Kill::Admin, "57P01"), (Kill::Shutdown, "57P01"), (Kill::DatabaseRemoved, "57P03")] {
        let mut ends = Ends::new(4096);
        let (mut user, _silent) = ends.others();
        let control = ends.control.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            control.kill(why);
        });
        let outcome = ends.run(&script().query("select 1").0).await;
        assert!(matches!(outcome, Outcome::Ended { .. }));
        ends.hang_up();
        let mut got = Vec::new();
        user.read_to_end(&mut got).await.unwrap();
        assert!(lines(&got)[0].starts_with(&format!("E FATAL {sqlstate}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_not_for_our_own_replay() {
    let mut ends = Ends::asking(&[("application_name", "web-1")], 4096);
    let (_user, mut postgres) = ends.others();
    let control = ends.control.clone();
    let server = tokio::spawn(async move {
        let mut model = Model::new();
        let mut buf = [0; 4096];
        let n = postgres.read(&mut buf).await.unwrap();
        assert!(!control.is_cancellable());
        model.feed(&buf[..n]);
        postgres.write_all(&std::mem::take(&mut model.output)).await.unwrap();
        let n = postgres.read(&mut buf).await.unwrap();
        assert!(control.is_cancellable());
        model.feed(&buf[..n]);
        postgres.write_all(&std::mem::take(&mut model.output)).await.unwrap();
        std::future::pending::<()>().await;
    });
    assert_eq!(ends.run(&script().query("select 1").0).await, Outcome::Released { server: Fate::Reusable });
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_server_until_it_is_over_or_asked_for() {
    let mut ends = Ends::new(4096);
    ends.limits.mode = PoolMode::Session;
    let (mut user, postgres) = ends.others();
    tokio::spawn(serve(postgres, Model::new()));
    let control = ends.control.clone();
    tokio::spawn(async move {
        user.write_all(&script().query("select 2").0).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        control.drain();
        std::future::pending::<()>().await;
    });
    let start = Instant::now();
    assert_eq!(ends.run(&script().query("select 1").0).await, Outcome::Released { server: Fate::Reusable });
    assert_eq!(start.elapsed().as_secs(), 60);
    let deadline = Instant::now() + Duration::from_secs(1);
    assert!(reset(&mut ends.server, &mut ends.server_state, "deallocate all", deadline).await);
}

#[tokio::test(start_paused = true)]
async fn in_statement_mode_a_request_that_ends_inside_a_transaction_ends_the_client() {
    let mut ends = Ends::new(4096);
    ends.limits.mode = PoolMode::Statement;
    let (outcome, told) = ended(&mut ends, script().query("begin")).await;
    assert_eq!(outcome, Outcome::Ended { error: PoolError::TransactionBlock });
    assert_eq!(told, ["C BEGIN", "E FATAL 08P01 transaction blocks not allowed in statement pooling mode"]);
    let mut ends = Ends::new(4096);
    ends.limits.mode = PoolMode::Statement;
    let (outcome, told) = ended(&mut ends, script().query("select 1")).await;
    assert_eq!((outcome, told.len()), (Outcome::Released { server: Fate::Reusable }, 4));
}

#[tokio::test(start_paused = true)]
async fn a_simple_query_is_refused_wherever_it_stands_when_that_is_asked_for() {
    let mut ends = Ends::new(4096);
    ends.limits.disable_pqexec = true;
    let (outcome, told) = ended(&mut ends, script().run_text("select 1").query("select 2").sync()).await;
    assert_eq!(outcome, Outcome::Ended { error: PoolError::SimpleQuery });
    assert_eq!(told.last().map(String::as_str), Some("E FATAL 08P01 PQexec disallowed"));
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sent_before_it_left_is_carried_out() {
    let mut ends = Ends::new(4096);
    let (user, postgres) = ends.others();
    let server = tokio::spawn(serve(postgres, Model::new()));
    drop(user);
    let script = script().query("insert me").run_text("insert me").sync().terminate();
    assert_eq!(ends.run(&script.0).await, Outcome::Left { server: Fate::Reusable });
    ends.hang_up();
    let mut model = server.await.unwrap();
    model.output.clear();
    model.feed(&super::script::script().query("rows me").0);
    assert_eq!(lines(&model.output)[1], "D 2");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_during_a_long_query_does_not_hold_its_server_for_ever() {
    let mut ends = Ends::new(4096);
    let (_user, _silent) = ends.others();
    let start = Instant::now();
    assert_eq!(ends.run(&script().query("select 1").terminate().0).await, Outcome::Left { server: Fate::Close });
    assert_eq!(start.elapsed(), limits().rollback_timeout);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_in_one_sentence() {
    let raw = |bytes: &[u8]| Script(bytes.to_vec());
    let mut long_describe = Vec::new();
    frame::write(&mut long_describe, b'D', |out| out.extend_from_slice(&[b'S'; 20_000]));
    let mut long_parse = Vec::new();
    frame::write(&mut long_parse, b'P', |out| out.extend_from_slice(&[b'x'; 100_000]));
    for (script, sqlstate) in [
        (raw(b"Q\0\0\0\x03"), "08P01"),
        (raw(b"Q\xff\xff\xff\xff"), "08P01"),
        (raw(b"\x16\x03\x01\x02\x00"), "08P01"),
        (raw(b"p\0\0\0\x05\0"), "08P01"),
        (raw(b"P\0\0\0\x06a\0"), "08P01"),
        (raw(b"B\0\0\0\x06ab"), "08P01"),
        (raw(b"D\0\0\0\x07Xa\0"), "08P01"),
        (Script(long_describe), "08P01"),
        (Script(long_parse), "54000"),
    ] {
        let mut ends = Ends::new(4096);
        let (outcome, told) = ended(&mut ends, script.clone()).await;
        assert!(matches!(outcome, Outcome::Ended { .. }), "{script:?}");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with(&format!("E FATAL {sqlstate}")), "{script:?}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn max_packet_size_is_the_limit_of_a_message() {
    let mut ends = Ends::new(4096);
    ends.limits.max_packet_size = 100;
    let (_, told) = ended(&mut ends, script().query(&"x".repeat(96))).await;
    assert_eq!(told, ["E FATAL 08P01 packet too large: 101 bytes (max_packet_size 100)"]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_may_be_a_select_and_what_it_did_not_undo_is_undone_later() {
    for (tag, replays) in [("DISCARD ALL", false), ("RESET", true), ("SELECT 1", true)] {
        let mut ends = Ends::new(4096);
        ends.server_state.applied.doubt();
        let (_user, mut postgres) = ends.others();
        let mut answer = Vec::new();
        backend::data_row(&mut answer, [None].into_iter());
        backend::command_complete(&mut answer, tag);
        backend::ready_for_query(&mut answer, TxStatus::Idle);
        postgres.write_all(&answer).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        assert!(reset(&mut ends.server, &mut ends.server_state, "select reset()", deadline).await, "{tag}");
        assert_eq!(!ends.server_state.applied.is(None), replays, "{tag}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_refused_anything_but_its_answer() {
    let ready = |status| {
        let mut out = Vec::new();
        backend::command_complete(&mut out, "ROLLBACK");
        backend::ready_for_query(&mut out, status);
        out
    };
    let mut row = Vec::new();
    backend::data_row(&mut row, [None].into_iter());
    let late = [ready(TxStatus::Idle), row.clone()].concat();
    for (answer, fit) in [
        (ready(TxStatus::Idle), true),
        (ready(TxStatus::Failed), false),
        (row, false),
        (late, false),
        (b"Z\xff\xff\xff\xff".to_vec(), false),
        (Vec::new(), false),
    ] {
        let mut ends = Ends::new(4096);
        let (_user, mut postgres) = ends.others();
        postgres.write_all(&answer).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        assert_eq!(recover(&mut ends.server, &mut ends.server_state, deadline).await, fit, "{answer:?}");
        assert!(Instant::now() <= deadline + Duration::from_millis(1));
    }
}
