//! How bytes flow: whose turn it is, in how many pieces they leave, and how much of them is kept.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{super::*, link::limits, model::Model, script::script};
use crate::pool::{
    params::Params,
    prepared::Interner,
    stats::Stats,
    wire::{
        backend::{self, TxStatus},
        frame,
        tag::backend as tag,
    },
};

/// Says `said` and then, over and over, `again`, as much as is asked for; takes all there is and notes in what pieces.
#[derive(Default)]
struct Peer {
    said: Vec<u8>,
    again: Vec<u8>,
    at: usize,
    pieces: Vec<usize>,
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = &this.said[this.at.min(this.said.len())..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        this.at += n;
        while buf.remaining() > 0 && !this.again.is_empty() {
            let from = (this.at - this.said.len()) % this.again.len();
            let n = (this.again.len() - from).min(buf.remaining());
            buf.put_slice(&this.again[from..from + n]);
            this.at += n;
        }
        if buf.filled().is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pieces.push(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls the relay of one query until it waits for somebody; returns how often it asked for another turn, what became of it if
/// it ended, and what the client got.
async fn relay(mut server: Peer, turns_max: usize) -> (usize, Option<Outcome>, Peer) {
    let reports = Model::new().reports();
    let reported = || reports.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let interner = Arc::new(Interner::default());
    let mut state = ClientState::new(&Params::reported(reported()), [], &[], &interner).unwrap();
    let mut server_state = ServerState::new(reported());
    let (limits, stats, control, spill) = (limits(), Stats::default(), Control::default(), SpillMemory::new(0));
    let given = Given {
        now: Instant::now(),
        limits: &limits,
        stats: &stats,
        control: &control,
        spill: &spill,
        untold: Vec::new(),
        post: None,
    };
    let mut client = Peer::default();
    let query = script().query("select 1").0;
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let (mut turns, mut outcome) = (0, None);
    {
        let mut run = pin!(run(&mut client, &query, &mut state, &mut server, &mut server_state, given));
        while turns < turns_max {
            turns += 1;
            if let Poll::Ready((end, _)) = run.as_mut().poll(&mut Context::from_waker(&waker)) {
                outcome = Some(end);
                break;
            }
            if !woken.0.swap(false, Ordering::Relaxed) {
                break;
            }
        }
    }
    (turns, outcome, client)
}

fn row(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    backend::data_row(&mut out, [Some(value)].into_iter());
    out
}

fn end() -> Vec<u8> {
    let mut out = Vec::new();
    backend::command_complete(&mut out, "SELECT 1");
    backend::ready_for_query(&mut out, TxStatus::Idle);
    out
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_lets_others_have_their_turn() {
    let (turns, outcome, client) = relay(Peer { again: row(b"more"), ..Peer::default() }, 5).await;
    assert_eq!((turns, outcome), (5, None), "it wants to go on, and says so");
    let most: usize = client.pieces.iter().sum();
    assert!(most <= 5 * 8 * 64 * 1024, "{most} bytes in five turns");
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_leaves_together() {
    let said = [row(b"one"), row(b"two"), end()].concat();
    let whole = said.len();
    let (_, outcome, client) = relay(Peer { said, ..Peer::default() }, 5).await;
    assert_eq!(outcome, Some(Outcome::Released { server: Fate::Reusable }));
    assert_eq!(client.pieces, [whole]);
}

#[tokio::test(start_paused = true)]
async fn a_row_of_a_quarter_of_a_gigabyte_is_never_held() {
    const LEN: usize = 1 << 28;
    let mut said = Vec::new();
    said.push(tag::DATA_ROW);
    said.extend_from_slice(&(LEN as u32 + 4).to_be_bytes());
    let (_, outcome, client) = relay(Peer { said, again: vec![0; 1 << 16], ..Peer::default() }, 600).await;
    // What follows the row is no message.
    assert!(matches!(outcome, Some(Outcome::Ended { .. })), "{outcome:?}");
    let passed: usize = client.pieces.iter().sum();
    assert!(passed >= LEN + frame::HEADER_LEN, "{passed}");
    assert!(client.pieces.iter().all(|&piece| piece <= 1 << 16), "at most what is read at once");
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_both_directions_is_nothing_that_is_pooled() {
    let said = [&[tag::COPY_BOTH_RESPONSE, 0, 0, 0, 7, 0, 0, 0][..], &end()].concat();
    let (_, outcome, _) = relay(Peer { said, ..Peer::default() }, 5).await;
    assert!(matches!(outcome, Some(Outcome::Ended { .. })), "{outcome:?}");
}
