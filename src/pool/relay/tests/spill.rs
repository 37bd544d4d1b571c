//! Clients that do not take their answers: what is kept for them, what that frees, and what it may cost.

use super::{
    super::*,
    driver::{Ends, serve},
    model::Model,
    script::{lines, script},
};
use crate::pool::wire::{
    backend::{self, TxStatus},
    frame,
};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::Instant,
};

/// What a stream between two takes without anybody reading.
const STREAM_LEN: usize = 1024;

/// A whole answer of `len` bytes.
fn answer(len: usize) -> Vec<u8> {
    let mut end = Vec::new();
    backend::command_complete(&mut end, "SELECT 1");
    backend::ready_for_query(&mut end, TxStatus::Idle);
    let mut out = Vec::new();
    frame::write(&mut out, b'D', |out| {
        out.extend_from_slice(&[0, 1]);
        let value_len = len - end.len() - frame::HEADER_LEN - 6;
        out.extend_from_slice(&(value_len as u32).to_be_bytes());
        out.extend((0..value_len).map(|at| at as u8));
    });
    out.extend_from_slice(&end);
    assert_eq!(out.len(), len);
    out
}

/// A server that reads nothing and says this.
fn says(mut postgres: DuplexStream, bytes: Vec<u8>) {
    tokio::spawn(async move {
        let _ = postgres.write_all(&bytes).await;
        std::future::pending::<()>().await;
    });
}

fn slow(spill_buffer: usize) -> Ends {
    let mut ends = Ends::new(STREAM_LEN);
    ends.limits.spill_buffer = spill_buffer;
    ends
}

/// Takes all that is kept, as a session does, and returns it.
async fn take(ends: &mut Ends, mut untaken: Box<Untaken>, user: &mut DuplexStream, len: usize) -> Vec<u8> {
    let mut got = vec![0; len];
    let give = async { while !std::future::poll_fn(|cx| untaken.poll_take(cx, &mut ends.client)).await.unwrap() {} };
    tokio::join!(give, async { user.read_exact(&mut got).await.unwrap() });
    got
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fits_frees_the_server_of_a_client_that_takes_nothing() {
    for len in [STREAM_LEN + 1, 10_000, STREAM_LEN + 100_000] {
        let mut ends = slow(100_000);
        let (mut user, postgres) = ends.others();
        let answer = answer(len);
        says(postgres, answer.clone());
        let Outcome::Spilled { server, untaken } = ends.run(&script().query("select much").0).await else {
            panic!("{len} bytes kept the server");
        };
        assert_eq!(server, Fate::Reusable);
        let used = ends.spill.used();
        assert!((len - STREAM_LEN..=len + STREAM_LEN).contains(&used), "{used} for {len}");
        assert_eq!(take(&mut ends, untaken, &mut user, len).await, answer);
        assert_eq!((ends.spill.used(), ends.spill.overflows()), (0, 0), "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_waits_for_its_client_and_is_counted_once() {
    let mut ends = slow(10_000);
    let (mut user, postgres) = ends.others();
    let answer = answer(50_000);
    says(postgres, answer.clone());
    let spill = ends.spill.clone();
    let reader = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!((1..=12_000).contains(&spill.used()), "{}", spill.used());
        let mut got = vec![0; 50_000];
        // A little at a time, so that it stops again and again.
        for piece in got.chunks_mut(700) {
            user.read_exact(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (user, got)
    });
    let start = Instant::now();
    let outcome = ends.run(&script().query("select much").0).await;
    assert!(start.elapsed() >= Duration::from_secs(7));
    assert!(ends.spill.held() >= Duration::from_secs(7), "{:?}", ends.spill.held());
    assert_eq!(ends.spill.overflows(), 1);
    if let Outcome::Spilled { mut untaken, .. } = outcome {
        while !std::future::poll_fn(|cx| untaken.poll_take(cx, &mut ends.client)).await.unwrap() {}
    }
    assert_eq!(reader.await.unwrap().1, answer);
    assert_eq!(ends.spill.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_when_that_is_switched_off() {
    let mut ends = slow(0);
    ends.limits.query_timeout = Some(Duration::from_secs(9));
    ends.limits.transaction_timeout = Some(Duration::from_secs(20));
    let (mut user, postgres) = ends.others();
    says(postgres, answer(3_000));
    let reader = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        user.read_exact(&mut [0; 3_000]).await.unwrap();
        user
    });
    let start = Instant::now();
    assert_eq!(ends.run(&script().query("select much").0).await, Outcome::Released { server: Fate::Reusable });
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!((ends.spill.used(), ends.spill.overflows()), (0, 0));
    assert_eq!(ends.spill.held(), Duration::from_secs(5));
    drop(reader.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn many_slow_clients_stay_within_the_memory_of_all_and_the_others_wait() {
    const CLIENTS: usize = 20;
    let memory = SpillMemory::new(100_000);
    let mut freed = Vec::new();
    let mut held = 0;
    for _ in 0..CLIENTS {
        let mut ends = slow(20_000);
        ends.spill = memory.clone();
        ends.limits.query_timeout = Some(Duration::from_secs(1));
        let (user, postgres) = ends.others();
        says(postgres, answer(15_000));
        match ends.run(&script().query("select much").0).await {
            Outcome::Spilled { untaken, .. } => freed.push((untaken, user)),
            Outcome::Ended { error: PoolError::QueryTimeout { .. } } => held += 1,
            other => panic!("{other:?}"),
        }
        assert!(memory.used() <= 100_000);
    }
    assert!((4..=8).contains(&freed.len()), "{} freed", freed.len());
    assert_eq!(memory.overflows() as usize, held);
    drop(freed);
    assert_eq!(memory.used(), 0, "a client that leaves gives its part back");
}

#[tokio::test(start_paused = true)]
async fn inside_a_transaction_the_server_is_read_ahead_and_stays() {
    let mut ends = slow(100_000);
    let (mut user, postgres) = ends.others();
    let mut bytes = answer(30_000);
    let last = bytes.len() - 1;
    bytes[last] = TxStatus::InTransaction.byte();
    let (read_all, mut postgres) = (bytes.clone(), postgres);
    let server = tokio::spawn(async move {
        postgres.write_all(&bytes).await.unwrap(); // all of it, though the client reads nothing
        let mut asked = vec![0; 1024];
        let n = postgres.read(&mut asked).await.unwrap();
        assert!(n > 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let n = postgres.read(&mut asked).await.unwrap();
        assert_eq!(&asked[..n], script().query("commit").0);
        let mut out = Vec::new();
        backend::command_complete(&mut out, "COMMIT");
        backend::ready_for_query(&mut out, TxStatus::Idle);
        postgres.write_all(&out).await.unwrap();
        (postgres, out)
    });
    let client = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut got = vec![0; read_all.len()];
        user.read_exact(&mut got).await.unwrap();
        assert_eq!(got, read_all);
        user.write_all(&script().query("commit").0).await.unwrap();
        let mut end = vec![0; 100];
        let n = user.read(&mut end).await.unwrap();
        end.truncate(n);
        (user, end)
    });
    assert_eq!(ends.run(&script().query("begin").0).await, Outcome::Released { server: Fate::Reusable });
    assert_eq!(client.await.unwrap().1, server.await.unwrap().1);
    assert_eq!(ends.spill.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_said_it_leaves_still_gets_what_it_asked_for() {
    let mut ends = slow(100_000);
    let (mut user, postgres) = ends.others();
    let answer = answer(20_000);
    says(postgres, answer.clone());
    let outcome = ends.run(&script().query("select much").terminate().0).await;
    let Outcome::Spilled { server: Fate::Reusable, untaken } = outcome else { panic!("{outcome:?}") };
    assert!(untaken.is_last());
    assert_eq!(take(&mut ends, untaken, &mut user, 20_000).await, answer);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_is_kept_nothing() {
    let mut ends = slow(100_000);
    let (user, postgres) = ends.others();
    says(postgres, answer(20_000));
    let leaves = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(user);
    });
    let outcome = ends.run(&script().query("select much").0).await;
    if let Outcome::Spilled { mut untaken, .. } = outcome {
        leaves.await.unwrap();
        assert!(std::future::poll_fn(|cx| untaken.poll_take(cx, &mut ends.client)).await.is_err());
    }
    assert_eq!(ends.spill.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_ended_while_it_takes_the_rest_is_told_behind_it() {
    let mut ends = slow(100_000);
    let (mut user, postgres) = ends.others();
    let answer = answer(20_000);
    says(postgres, answer.clone());
    let Outcome::Spilled { untaken, .. } = ends.run(&script().query("select much").0).await else { panic!() };
    let memory = ends.spill.clone();
    let refused = tokio::spawn(async move {
        untaken.refuse(&mut ends.client, &PoolError::Killed).await;
        drop(ends);
    });
    let mut got = Vec::new();
    user.read_to_end(&mut got).await.unwrap();
    refused.await.unwrap();
    assert_eq!(got[..answer.len()], answer);
    assert!(lines(&got[answer.len()..])[0].starts_with("E FATAL 57P01"));
    assert_eq!(memory.used(), 0);
}

/// A stream that keeps what it is given until it is flushed, as TLS does, and is flushed when its reader has taken all.
#[tokio::test(start_paused = true)]
async fn what_the_stream_itself_holds_back_does_not_keep_the_server() {
    let mut ends = slow(100_000);
    let (mut user, postgres) = ends.others();
    tokio::spawn(serve(postgres, Model::new()));
    let Ends { client, server, limits, control, spill, server_state, .. } = &mut ends;
    let mut client = tokio::io::BufWriter::with_capacity(64 * 1024, client);
    let _ = client.write_all(&vec![b'x'; 5_000]).await; // not taken yet: the stream under it takes 1,024 bytes
    let mut fresh = Ends::new(64);
    let stats = crate::pool::stats::Stats::default();
    let given = Given { now: Instant::now(), limits, stats: &stats, control, spill, untold: Vec::new(), post: None };
    let query = script().query("select 1").0;
    let run = super::super::run(&mut client, &query, fresh.state(), server, server_state, given);
    let (outcome, _) = tokio::time::timeout(Duration::from_secs(5), run).await.expect("the server is free");
    let Outcome::Spilled { server: Fate::Reusable, mut untaken } = outcome else { panic!("{outcome:?}") };
    assert!(spill.used() >= 64 * 1024, "{}", spill.used());
    let mut got = vec![0; 5_000];
    let give = async { while !std::future::poll_fn(|cx| untaken.poll_take(cx, &mut client)).await.unwrap() {} };
    let mut rest = vec![0; 100];
    let (_, n) = tokio::join!(give, async {
        user.read_exact(&mut got).await.unwrap();
        user.read(&mut rest).await.unwrap()
    });
    assert_eq!(lines(&rest[..n]), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(untaken);
    assert_eq!(Arc::clone(spill).used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_half_told_before_the_lease_comes_before_the_answer() {
    let mut ends = slow(100_000);
    let (mut user, postgres) = ends.others();
    tokio::spawn(serve(postgres, Model::new()));
    let mut notice = Vec::new();
    crate::pool::error::write_queued(&mut notice);
    let mut fresh = Ends::new(64);
    let Ends { client, server, server_state, limits, control, spill, .. } = &mut ends;
    let stats = crate::pool::stats::Stats::default();
    let untold = notice.clone();
    let given = Given { now: Instant::now(), limits, stats: &stats, control, spill, untold, post: None };
    let script = script().parse("a", "select 1").sync().0;
    let (outcome, _) = super::super::run(client, &script, fresh.state(), server, server_state, given).await;
    assert_eq!(outcome, Outcome::Released { server: Fate::Reusable });
    let mut got = vec![0; 1000];
    let n = user.read(&mut got).await.unwrap();
    assert_eq!(got[..notice.len()], notice);
    assert_eq!(lines(&got[notice.len()..n]), ["1", "Z I"]);
}
