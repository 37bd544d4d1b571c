//! The pool's hot path, from the bottom up: finding messages, counting what is owed, and whole transactions through the
//! relay over in-memory streams, where no socket hides what the relay itself takes.

use std::{hint::black_box, sync::Arc, time::Duration};

use bookend::{
    config::pool::PoolMode,
    pool::{
        params::Params,
        prepared::Interner,
        relay::{
            self, ClientState, Control, Fate, Given, Limits, Outcome, ServerState, SpillMemory,
            bench::{Queue, Scan},
        },
        stats::Stats,
        wire::{backend, backend::TxStatus, frame, frontend, tag},
    },
};
use criterion::{Criterion, Throughput};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::Runtime,
    time::Instant,
};

const REPORTED: [(&str, &[u8]); 3] = [("TimeZone", b"UTC"), ("application_name", b""), ("client_encoding", b"UTF8")];
const SQL: &[u8] = b"SELECT id, name, price FROM shop_item WHERE id = $1";
/// Bytes the relay reads at once.
const CHUNK_LEN: usize = 32 * 1024;

pub fn benches(criterion: &mut Criterion) {
    frames(criterion);
    owed(criterion);
    transactions(criterion);
}

/// What finding the messages in a chunk takes, per byte.
fn frames(criterion: &mut Criterion) {
    let chunks = [
        ("queries", filled(|out| frontend::query(out, SQL))),
        ("pipeline", filled(|out| extended(out, false))),
        ("rows_60_bytes", filled(|out| row(out, 40))),
        ("rows_4_kib", filled(|out| row(out, 4096))),
        ("rows_1_mib", vec_of(|out| row(out, 1 << 20))),
    ];
    let mut group = criterion.benchmark_group("frames");
    for (name, bytes) in chunks {
        let mut scan = Scan::default();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let fed = black_box(&bytes).chunks(CHUNK_LEN).map(|chunk| scan.feed(chunk).unwrap().1);
                assert_eq!(fed.sum::<usize>(), bytes.len());
            });
        });
    }
    group.finish();
}

/// What the queue of what is owed takes, per request.
fn owed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("owed");
    for batches in [1, 16, 1000] {
        let mut queue = Queue::default();
        group.throughput(Throughput::Elements(batches as u64 * 4));
        group.bench_function(format!("pipeline/{batches}"), |bencher| {
            bencher.iter(|| queue.pipeline(black_box(batches)));
        });
        group
            .bench_function(format!("failing/{batches}"), |bencher| bencher.iter(|| queue.failing(black_box(batches))));
    }
    group.finish();
}

/// Whole leases: a client's transaction there, its answer back, the server proven fit for the next client.
fn transactions(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let simple = (vec_of(|out| frontend::query(out, b"SELECT 1")), vec_of(|out| selected(out, 1)));
    let rows = (simple.0.clone(), vec_of(|out| selected(out, 1000)));
    let prepared = (vec_of(|out| extended(out, false)), vec_of(|out| answered(out, false)));
    let mut group = criterion.benchmark_group("relay");
    for (name, (asked, answer)) in [("simple", simple), ("simple_1000_rows", rows), ("prepared", prepared)] {
        let mut ends = Ends::new(answer.len().max(4096));
        // The one time the statement is parsed: on the client's side and on the server's.
        let (parse, parsed) = (vec_of(|out| extended(out, true)), vec_of(|out| answered(out, true)));
        ends.transaction(&runtime, &parse, &parsed);
        group.bench_function(name, |bencher| bencher.iter(|| ends.transaction(&runtime, &asked, black_box(&answer))));
    }
    group.finish();
}

/// A client and a server on either side of the relay, both played.
struct Ends {
    client: DuplexStream,
    user: DuplexStream,
    server: DuplexStream,
    postgres: DuplexStream,
    client_state: ClientState,
    server_state: ServerState,
    limits: Limits,
    stats: Stats,
    control: Control,
    spill: Arc<SpillMemory>,
    read: Vec<u8>,
}

impl Ends {
    fn new(room: usize) -> Self {
        let ((client, user), (server, postgres)) = (duplex(room), duplex(room));
        let interner = Arc::new(Interner::default());
        Self {
            client,
            user,
            server,
            postgres,
            client_state: ClientState::new(&Params::reported(REPORTED), [], &[], &interner).unwrap(),
            server_state: ServerState::new(REPORTED),
            limits: Limits {
                mode: PoolMode::Transaction,
                max_packet_size: i32::MAX as u32,
                max_held_message: 1 << 24,
                max_prepared_statements: 200,
                prepare_unnamed_statements: true,
                query_timeout: None,
                transaction_timeout: None,
                idle_transaction_timeout: None,
                disable_pqexec: false,
                client_idle_timeout: None,
                spill_buffer: 256 << 10,
                rollback_timeout: Duration::from_secs(5),
            },
            stats: Stats::default(),
            control: Control::default(),
            spill: SpillMemory::new(64 << 20),
            read: Vec::with_capacity(room),
        }
    }

    /// One lease. The answer lies ready: the relay reads it once it has sent on what it answers.
    fn transaction(&mut self, runtime: &Runtime, asked: &[u8], answer: &[u8]) {
        let Self { client, user, server, postgres, client_state, server_state, limits, stats, control, spill, read } =
            self;
        runtime.block_on(async {
            postgres.write_all(answer).await.unwrap();
            let given = Given { now: Instant::now(), limits, stats, control, spill, untold: Vec::new(), post: None };
            let (outcome, _) = relay::run(client, asked, client_state, server, server_state, given).await;
            assert_eq!(outcome, Outcome::Released { server: Fate::Reusable });
            // All of it is there: what the relay wrote to either side.
            for (stream, least) in [(user, answer.len()), (postgres, 1)] {
                read.clear();
                while read.len() < least {
                    stream.read_buf(read).await.unwrap();
                }
            }
        });
    }
}

fn vec_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// As many messages as fill what is read at once.
fn filled(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < CHUNK_LEN {
        write(&mut out);
    }
    out
}

fn row(out: &mut Vec<u8>, value_len: usize) {
    backend::data_row(out, [Some(&b"17"[..]), Some(&vec![b'x'; value_len]), None].into_iter());
}

/// A Query's answer.
fn selected(out: &mut Vec<u8>, rows: usize) {
    backend::row_description(out, [("id", 23), ("name", 25), ("price", 1700)].into_iter());
    (0..rows).for_each(|_| row(out, 40));
    backend::command_complete(out, &format!("SELECT {rows}"));
    backend::ready_for_query(out, TxStatus::Idle);
}

/// What a driver with prepared statements sends: the statement once, then Bind, Describe, Execute, Sync.
fn extended(out: &mut Vec<u8>, with_parse: bool) {
    if with_parse {
        frontend::parse(out, b"_pg3_0", &[SQL, b"\0\x00\x01\x00\x00\x00\x17"].concat());
    }
    frame::write(out, tag::frontend::BIND, |out| {
        // The portal without a name, the statement, one parameter as text, all of the answer as text.
        out.extend_from_slice(b"\0_pg3_0\0\x00\x00\x00\x01\x00\x00\x00\x0217\x00\x00");
    });
    frame::write(out, tag::frontend::DESCRIBE, |out| out.extend_from_slice(b"P\0"));
    frame::write(out, tag::frontend::EXECUTE, |out| out.extend_from_slice(b"\0\x00\x00\x00\x00"));
    frontend::sync(out);
}

fn answered(out: &mut Vec<u8>, with_parse: bool) {
    if with_parse {
        backend::parse_complete(out);
    }
    frame::write(out, tag::backend::BIND_COMPLETE, |_| {});
    selected(out, 1);
}
