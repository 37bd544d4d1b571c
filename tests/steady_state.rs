//! The relay's hot path allocates nothing: counted by an allocator of our own, over streams that live in two arrays.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bookend::{
    config::pool::PoolMode,
    pool::{
        params::Params,
        prepared::Interner,
        relay::{self, ClientState, Control, Fate, Given, Limits, Outcome, ServerState, SpillMemory},
        stats::Stats,
        wire::{
            backend::{self, TxStatus},
            frame::{self, put_cstr},
            frontend, tag,
        },
    },
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed to the system's allocator as it is; counting is a thread-local cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as this function's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as this function's own.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Says one thing each time it was written to, as long as it has any, and counts the writes.
struct Canned {
    says: Vec<Vec<u8>>,
    /// The one it is at, and how much of that it has said.
    at: usize,
    said: usize,
    writes: usize,
}

impl Canned {
    fn new(says: Vec<u8>) -> Self {
        Self::of(vec![says])
    }

    fn of(says: Vec<Vec<u8>>) -> Self {
        Self { says, at: 0, said: 0, writes: 0 }
    }

    fn again(&mut self) {
        (self.at, self.said, self.writes) = (0, 0, 0);
    }
}

impl AsyncRead for Canned {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.says.get(self.at).is_none_or(Vec::is_empty) || self.writes <= self.at {
            return Poll::Pending;
        }
        let says = &self.says[self.at];
        let n = buf.remaining().min(says.len() - self.said);
        let to = self.said + n;
        buf.put_slice(&says[self.said..to]);
        let over = to == says.len();
        (self.at, self.said) = if over { (self.at + 1, 0) } else { (self.at, to) };
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Canned {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Bench {
    state: ClientState,
    server_state: ServerState,
    limits: Limits,
    stats: Stats,
    control: Control,
    spill: Arc<SpillMemory>,
}

impl Bench {
    fn new() -> Self {
        let reported = [("TimeZone", &b"UTC"[..]), ("client_encoding", b"UTF8")];
        let interner = Arc::new(Interner::default());
        Self {
            state: ClientState::new(&Params::reported(reported), [], &[], &interner).unwrap(),
            server_state: ServerState::new(reported),
            limits: Limits {
                mode: PoolMode::Transaction,
                max_packet_size: i32::MAX as u32,
                max_held_message: 1 << 20,
                max_prepared_statements: 10,
                prepare_unnamed_statements: true,
                query_timeout: Some(Duration::from_secs(30)),
                transaction_timeout: None,
                idle_transaction_timeout: None,
                client_idle_timeout: None,
                disable_pqexec: false,
                spill_buffer: 256 << 10,
                rollback_timeout: Duration::from_secs(5),
            },
            stats: Stats::default(),
            control: Control::default(),
            spill: SpillMemory::new(64 << 20),
        }
    }

    /// One lease. `first` is what the session has read, the server answers all when it was asked.
    fn lease(&mut self, first: &[u8], client: &mut Canned, server: &mut Canned) {
        client.again();
        server.again();
        let given = Given {
            now: tokio::time::Instant::now(),
            limits: &self.limits,
            stats: &self.stats,
            control: &self.control,
            spill: &self.spill,
            untold: Vec::new(),
            post: None,
        };
        let run = relay::run(client, first, &mut self.state, server, &mut self.server_state, given);
        let mut run = std::pin::pin!(run);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match run.as_mut().poll(&mut cx) {
            Poll::Ready((outcome, _)) => assert_eq!(outcome, Outcome::Released { server: Fate::Reusable }),
            Poll::Pending => panic!("the lease is not over"),
        }
    }

    /// Allocations of many leases, after a few that fill buffers which stay.
    fn allocations(&mut self, first: &[u8], client: &mut Canned, server: &mut Canned) -> usize {
        (0..3).for_each(|_| self.lease(first, client, server));
        let before = ALLOCATIONS.with(Cell::get);
        (0..100).for_each(|_| self.lease(first, client, server));
        ALLOCATIONS.with(Cell::get) - before
    }
}

fn answer(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    backend::command_complete(&mut out, "SELECT 1");
    backend::ready_for_query(&mut out, TxStatus::Idle);
    out
}

fn rows(out: &mut Vec<u8>) {
    for _ in 0..1000 {
        backend::data_row(out, [Some(&b"a row of some length"[..])].into_iter());
    }
}

/// Longer than a vector, with a second statement's semicolon at its end: all that is looked at in a text is looked at here.
const TEXT: &[u8] = b"SELECT id, name, price FROM items WHERE id = 12345 ORDER BY created DESC LIMIT 20; ";

#[tokio::test]
async fn a_simple_query_allocates_nothing() {
    let mut query = Vec::new();
    frontend::query(&mut query, TEXT);
    let (mut client, mut server) = (Canned::new(Vec::new()), Canned::new(answer(rows)));
    assert_eq!(Bench::new().allocations(&query, &mut client, &mut server), 0);
    assert!(client.writes <= 2, "{} writes for one answer", client.writes);
}

fn bind_execute_sync(out: &mut Vec<u8>, name: &[u8]) {
    frame::write(out, tag::frontend::BIND, |out| {
        put_cstr(out, b"");
        put_cstr(out, name);
        out.extend_from_slice(&[0; 6]);
    });
    frame::write(out, tag::frontend::EXECUTE, |out| out.extend_from_slice(&[0; 5]));
    frontend::sync(out);
}

#[tokio::test]
async fn a_statement_without_a_name_that_the_server_has_allocates_nothing() {
    let mut bench = Bench::new();
    let mut run = Vec::new();
    frontend::parse(&mut run, b"", &[TEXT, b"\0\0\0"].concat());
    bind_execute_sync(&mut run, b"");
    let answers = |parsed| {
        answer(|out| {
            if parsed {
                backend::parse_complete(out);
            }
            frame::write(out, tag::backend::BIND_COMPLETE, |_| {});
            rows(out);
        })
    };
    for _ in 0..2 {
        bench.lease(&run, &mut Canned::new(Vec::new()), &mut Canned::new(answers(true)));
    }
    let (mut client, mut server) = (Canned::new(Vec::new()), Canned::new(answers(false)));
    assert_eq!(bench.allocations(&run, &mut client, &mut server), 0);
    assert_eq!(server.writes, 1, "the batch is one write");
    assert!(client.writes <= 2, "what the pool answers goes with what the server answers: {}", client.writes);
}

#[tokio::test]
async fn a_prepared_statement_that_the_server_has_allocates_nothing() {
    let mut bench = Bench::new();
    let mut prepare = Vec::new();
    frontend::parse(&mut prepare, b"a", &[TEXT, b"\0\0\0"].concat());
    frontend::sync(&mut prepare);
    let mut prepared = Vec::new();
    backend::parse_complete(&mut prepared);
    backend::ready_for_query(&mut prepared, TxStatus::Idle);
    bench.lease(&prepare, &mut Canned::new(Vec::new()), &mut Canned::new(prepared));

    let mut run = Vec::new();
    bind_execute_sync(&mut run, b"a");
    let rows = answer(|out| {
        frame::write(out, tag::backend::BIND_COMPLETE, |_| {});
        rows(out);
    });
    let (mut client, mut server) = (Canned::new(Vec::new()), Canned::new(rows));
    assert_eq!(bench.allocations(&run, &mut client, &mut server), 0);
    assert_eq!(server.writes, 1, "the batch is one write");
}

#[tokio::test]
async fn a_row_longer_than_the_buffer_allocates_nothing() {
    let mut query = Vec::new();
    frontend::query(&mut query, TEXT);
    let row = vec![b'x'; 300 << 10];
    let rows = answer(|out| backend::data_row(out, [Some(&row[..])].into_iter()));
    let (mut client, mut server) = (Canned::new(Vec::new()), Canned::new(rows));
    assert_eq!(Bench::new().allocations(&query, &mut client, &mut server), 0);
}

fn copy_data(out: &mut Vec<u8>) {
    for _ in 0..500 {
        frame::write(out, tag::frontend::COPY_DATA, |out| out.extend_from_slice(b"1\ta row of some length\n"));
    }
}

#[tokio::test]
async fn copy_to_a_client_allocates_nothing() {
    let mut query = Vec::new();
    frontend::query(&mut query, b"COPY items TO STDOUT");
    let data = answer(|out| {
        frame::write(out, tag::backend::COPY_OUT_RESPONSE, |out| out.extend_from_slice(&[0; 3]));
        copy_data(out); // has the same tag in both directions
        frame::write(out, tag::backend::COPY_DONE, |_| {});
    });
    let (mut client, mut server) = (Canned::new(Vec::new()), Canned::new(data));
    assert_eq!(Bench::new().allocations(&query, &mut client, &mut server), 0);
}

#[tokio::test]
async fn copy_from_a_client_allocates_nothing() {
    let (mut query, mut asks, mut data) = (Vec::new(), Vec::new(), Vec::new());
    frontend::query(&mut query, b"COPY items FROM STDIN");
    frame::write(&mut asks, tag::backend::COPY_IN_RESPONSE, |out| out.extend_from_slice(&[0; 3]));
    copy_data(&mut data);
    frame::write(&mut data, tag::frontend::COPY_DONE, |_| {});
    let (mut client, mut server) = (Canned::new(data), Canned::of(vec![asks, answer(|_| {})]));
    assert_eq!(Bench::new().allocations(&query, &mut client, &mut server), 0);
}
