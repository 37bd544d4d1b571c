//! The driver over in-memory streams: backpressure, ends of either side at every byte, timeouts, orders from outside.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::{
    super::*,
    link::limits,
    model::Model,
    script::{Script, lines, script},
};
use crate::config::pool::PoolMode;
use crate::pool::{
    params::Params,
    prepared::Interner,
    stats::Stats,
    wire::{
        backend::{self, Report, Severity, TxStatus},
        frontend,
    },
};

/// A client's and a server's side of a relay, without the relay.
pub struct Ends {
    pub client: DuplexStream,
    pub server: DuplexStream,
    user: DuplexStream,
    postgres: DuplexStream,
    state: ClientState,
    pub server_state: ServerState,
    pub limits: Limits,
    stats: Stats,
    pub control: Arc<Control>,
    pub spill: Arc<SpillMemory>,
}

impl Ends {
    pub fn new(buffer_len: usize) -> Self {
        Self::asking(&[], buffer_len)
    }

    pub fn asking(requested: &[(&str, &str)], buffer_len: usize) -> Self {
        let reports = Model::new().reports();
        let reported = || reports.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let requested = requested.iter().map(|(name, value)| (*name, value.as_bytes()));
        let interner = Arc::new(Interner::default());
        let (client, user) = duplex(buffer_len);
        let (server, postgres) = duplex(buffer_len);
        Self {
            client,
            server,
            user,
            postgres,
            state: ClientState::new(&Params::reported(reported()), requested, &[], &interner).unwrap(),
            server_state: ServerState::new(reported()),
            limits: limits(),
            stats: Stats::default(),
            control: Arc::default(),
            spill: SpillMemory::new(1 << 20),
        }
    }

    /// The client's side of what is known.
    pub fn state(&mut self) -> &mut ClientState {
        &mut self.state
    }

    /// Splits off what the test plays.
    pub fn others(&mut self) -> (DuplexStream, DuplexStream) {
        let gone = || duplex(1).0;
        (std::mem::replace(&mut self.user, gone()), std::mem::replace(&mut self.postgres, gone()))
    }

    pub async fn run(&mut self, first: &[u8]) -> Outcome {
        let Self { client, server, state, server_state, limits, stats, control, spill, .. } = self;
        let given = Given { now: Instant::now(), limits, stats, control, spill, untold: Vec::new(), post: None };
        super::super::run(client, first, state, server, server_state, given).await.0
    }
}

impl Ends {
    /// Closes both of the relay's streams.
    pub fn hang_up(&mut self) {
        self.client = duplex(1).0;
        self.server = duplex(1).0;
    }
}

/// A server that answers as the model does, until the relay hangs up.
pub async fn serve(mut postgres: DuplexStream, mut model: Model) -> Model {
    let mut buf = [0; 512];
    loop {
        match postgres.read(&mut buf).await {
            Ok(n) if n > 0 => model.feed(&buf[..n]),
            _ => return model,
        }
        if postgres.write_all(&std::mem::take(&mut model.output)).await.is_err() {
            return model;
        }
    }
}

fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let report = Report { severity: Severity::Fatal, sqlstate, message, detail: None, hint: None };
    backend::error_response(&mut out, &report);
    out
}

#[tokio::test(start_paused = true)]
async fn a_query_is_answered_counted_and_the_server_given_back() {
    let mut ends = Ends::new(4096);
    let (mut user, postgres) = ends.others();
    tokio::spawn(serve(postgres, Model::new()));
    let query = script().query("select 1").0;
    assert_eq!(ends.run(&query).await, Outcome::Released { server: Fate::Reusable });
    let mut got = vec![0; 4096];
    let n = user.read(&mut got).await.unwrap();
    assert_eq!(lines(&got[..n]), ["T", "D 1", "C SELECT 1", "Z I"]);
    let seen = ends.stats.snapshot();
    assert_eq!((seen.query_count, seen.xact_count), (1, 1));
    assert_eq!((seen.received, seen.sent), (query.len() as u64, n as u64));
}

#[tokio::test(start_paused = true)]
async fn both_directions_full_do_not_block_each_other() {
    const MESSAGE_LEN: usize = 64 * 1024;
    const MESSAGES: usize = 40;
    let mut ends = Ends::new(1024);
    // Nobody is asked what such long texts have left.
    ends.limits.mode = PoolMode::Session;
    let control = ends.control.clone();
    let (user, mut postgres) = ends.others();
    // Answers each query in full before it reads the next, as PostgreSQL does.
    tokio::spawn(async move {
        let mut query = vec![0; MESSAGE_LEN + 6];
        let mut answer = Vec::new();
        let row = [b'x'; MESSAGE_LEN];
        backend::data_row(&mut answer, [Some(&row[..])].into_iter());
        backend::command_complete(&mut answer, "SELECT 1");
        backend::ready_for_query(&mut answer, TxStatus::Idle);
        for _ in 0..MESSAGES {
            postgres.read_exact(&mut query).await.unwrap();
            postgres.write_all(&answer).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let mut query = Vec::new();
    frontend::query(&mut query, &[b'x'; MESSAGE_LEN]);
    let (mut reader, mut writer) = tokio::io::split(user);
    let (first, rest) = query.split_at(5);
    let (first, rest, whole) = (first.to_vec(), rest.to_vec(), query.clone());
    tokio::spawn(async move {
        writer.write_all(&rest).await.unwrap();
        for _ in 1..MESSAGES {
            writer.write_all(&whole).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let read = tokio::spawn(async move {
        let mut got = vec![0; MESSAGES * (MESSAGE_LEN + 11 + 14 + 6)];
        reader.read_exact(&mut got).await.unwrap();
        control.drain();
    });
    assert_eq!(ends.run(&first).await, Outcome::Released { server: Fate::Reusable });
    read.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_stops_the_server_and_not_the_memory() {
    let mut ends = Ends::new(1024);
    let (user, mut postgres) = ends.others();
    ends.limits.query_timeout = Some(Duration::from_secs(9));
    let writer = tokio::spawn(async move {
        let mut written = 0;
        let mut row = Vec::new();
        backend::data_row(&mut row, [Some(&[b'x'; 1000][..])].into_iter());
        while postgres.write_all(&row).await.is_ok() {
            written += row.len();
        }
        written
    });
    let outcome = ends.run(&script().query("select much").0).await;
    assert!(matches!(outcome, Outcome::Ended { error: PoolError::QueryTimeout { .. } }), "{outcome:?}");
    drop((ends, user));
    let written = writer.await.unwrap();
    assert!(written < 64 * 1024, "{written} bytes were taken from the server");
}

/// What a client does that can be cut off anywhere.
fn long_script() -> Script {
    script()
        .query("begin;insert me")
        .parse("a", "select 1")
        .run("a")
        .sync()
        .query("commit")
        .run_text("copy ok")
        .flush()
        .copy_data("row")
        .copy_done()
        .sync()
        .run("a")
        .sync()
}

#[tokio::test(start_paused = true)]
async fn a_client_may_vanish_at_any_byte_and_the_next_one_notices_nothing() {
    let whole = long_script().0;
    let (mut reused, mut closed) = (0, 0);
    for cut in 5..=whole.len() {
        let mut ends = Ends::new(64);
        let (mut user, postgres) = ends.others();
        let server = tokio::spawn(serve(postgres, Model::new()));
        let sent = whole[..cut].to_vec();
        let client = tokio::spawn(async move {
            user.write_all(&sent[5..]).await.unwrap();
            let mut got = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(1), user.read_to_end(&mut got)).await;
        });
        let mut outcome = ends.run(&whole[..5]).await;
        while outcome == (Outcome::Released { server: Fate::Reusable }) {
            // At rest between transactions, as a session would: until more comes.
            let mut first = vec![0; 5];
            match ends.client.read_exact(&mut first).await {
                Ok(_) => outcome = ends.run(&first).await,
                Err(_) => break,
            }
        }
        client.await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let fit = match outcome {
            Outcome::Released { server: Fate::Reusable } | Outcome::Left { server: Fate::Reusable } => true,
            Outcome::Left { server: Fate::Rollback } => {
                recover(&mut ends.server, &mut ends.server_state, deadline).await
            }
            Outcome::Left { server: Fate::Close } => false,
            other => panic!("cut at {cut}: {other:?}"),
        };
        if !fit {
            closed += 1;
            continue;
        }
        reused += 1;
        let mut next = Ends::new(4096);
        let (mut user, _) = next.others();
        std::mem::swap(&mut next.server, &mut ends.server);
        std::mem::swap(&mut next.server_state, &mut ends.server_state);
        let outcome = next.run(&script().parse("a", "select 9").run("a").sync().0).await;
        assert_eq!(outcome, Outcome::Released { server: Fate::Reusable }, "cut at {cut}");
        let mut got = vec![0; 4096];
        let n = user.read(&mut got).await.unwrap();
        assert_eq!(lines(&got[..n]), ["1", "2", "D 9", "C SELECT 1", "Z I"], "cut at {cut}");
        drop(next);
        assert_eq!(server.await.unwrap().tx, TxStatus::Idle);
    }
    assert!(reused > 3 && closed > 3, "{reused} reused, {closed} closed");
}

#[tokio::test(start_paused = true)]
async fn a_server_may_die_at_any_byte_and_the_client_is_told_once() {
    let mut answer = Vec::new();
    backend::data_row(&mut answer, [Some(&b"hello"[..])].into_iter());
    backend::command_complete(&mut answer, "SELECT 1");
    backend::ready_for_query(&mut answer, TxStatus::InTransaction);
    let row_len = answer.len() - 6 - 14;
    for cut in 0..=answer.len() {
        let mut ends = Ends::new(4096);
        let (mut user, mut postgres) = ends.others();
        postgres.write_all(&answer[..cut]).await.unwrap();
        drop(postgres);
        let outcome = ends.run(&script().query("select 1").0).await;
        assert_eq!(outcome, Outcome::Ended { error: PoolError::ServerGone });
        drop(ends);
        let mut got = Vec::new();
        user.read_to_end(&mut got).await.unwrap();
        if (5..row_len).contains(&cut) {
            assert_eq!(got, answer[..cut], "nothing of ours stands inside a row that has begun to pass");
        } else {
            let mut told = lines(&got);
            assert!(told.pop_if(|last| last.starts_with("E FATAL 08006")).is_some(), "cut at {cut}: {told:?}");
            assert!(told.iter().all(|line| !line.starts_with('E')), "cut at {cut}: {told:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_last_words_are_the_only_ones() {
    let mut ends = Ends::new(4096);
    let (mut user, mut postgres) = ends.others();
    let words = fatal("57P01", "terminating connection due to administrator command");
    postgres.write_all(&words).await.unwrap();
    drop(postgres);
    let outcome = ends.run(&script().query("select 1").0).await;
    assert!(matches!(outcome, Outcome::Ended { .. }));
    drop(ends);
    let mut got = Vec::new();
    user.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, words);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_what_nobody_asked_is_not_trusted() {
    let mut ends = Ends::new(4096);
    let (mut user, mut postgres) = ends.others();
    let mut answer = Vec::new();
    backend::parse_complete(&mut answer);
    postgres.write_all(&answer).await.unwrap();
    let outcome = ends.run(&script().query("select 1").0).await;
    assert!(matches!(outcome, Outcome::Ended { error: PoolError::ServerProtocol { .. } }), "{outcome:?}");
    drop(ends);
    let mut got = Vec::new();
    user.read_to_end(&mut got).await.unwrap();
    assert_eq!(lines(&got).len(), 1);
}
