//! Any bytes from a client and from a server, in any pieces: no panic, no endless loop, no more memory than is allowed, and
//! a server is given back only when it owes nothing.
//!
//! The input is a script: a byte says whose turn it is (its lowest bit) and how long the piece is (the rest), then the piece.

use std::{sync::Arc, time::Duration};

use bookend::{
    config::pool::PoolMode,
    pool::{
        params::Params,
        prepared::Interner,
        relay::{self, ClientState, Control, Fate, Given, Limits, Outcome, ServerState, SpillMemory},
        stats::Stats,
        wire::backend::TxStatus,
    },
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, timeout},
};

const REPORTED: [(&str, &[u8]); 2] = [("TimeZone", b"UTC"), ("application_name", b"")];

pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(scripted(data));
}

async fn scripted(data: &[u8]) {
    let Some((&first_len, rest)) = data.split_first() else { return };
    let (first, rest) = rest.split_at(usize::from(first_len).min(rest.len()));
    if first.len() < 5 {
        return; // a lease begins with a header
    }
    let requested = [("TimeZone", &b"Asia/Tokyo"[..])];
    let requested = requested.into_iter().take(usize::from(first_len & 1));
    let interner = Arc::new(Interner::default());
    let client_state = ClientState::new(&Params::reported(REPORTED), requested, &[], &interner);
    let mut client_state = client_state.expect("sound names");
    let mut server_state = ServerState::new(REPORTED);
    let limits = Limits {
        mode: if first_len & 2 == 0 { PoolMode::Transaction } else { PoolMode::Session },
        max_packet_size: 1 << 20,
        max_held_message: 1 << 10,
        max_prepared_statements: 2,
        prepare_unnamed_statements: true,
        query_timeout: Some(Duration::from_secs(2)),
        transaction_timeout: None,
        idle_transaction_timeout: Some(Duration::from_secs(1)),
        disable_pqexec: false,
        client_idle_timeout: None,
        spill_buffer: 100,
        rollback_timeout: Duration::from_secs(1),
    };
    let (mut client, user) = duplex(256);
    let (mut server, postgres) = duplex(256);
    let (stats, control, spill) = (Stats::default(), Control::default(), SpillMemory::new(1000));
    let given = Given {
        now: Instant::now(),
        limits: &limits,
        stats: &stats,
        control: &control,
        spill: &spill,
        untold: Vec::new(),
        post: None,
    };
    let run = relay::run(&mut client, first, &mut client_state, &mut server, &mut server_state, given);
    let script = play(rest, user, postgres);
    let both = async {
        tokio::pin!(run);
        tokio::select! {
            outcome = &mut run => outcome,
            // Both have hung up.
            () = script => timeout(Duration::from_secs(60), run).await.expect("an end when both sides are gone"),
        }
    };
    let (outcome, _) = timeout(Duration::from_secs(600), both).await.expect("every wait has its limit");
    assert!(spill.used() <= 1000);
    if let Outcome::Released { server } | Outcome::Spilled { server, .. } | Outcome::Left { server } = outcome
        && server == Fate::Reusable
    {
        assert_eq!(server_state.tx(), TxStatus::Idle);
    }
}

/// Sends the pieces, reads what comes, and hangs up.
async fn play(mut script: &[u8], user: DuplexStream, postgres: DuplexStream) {
    let (mut from_pool, mut to_pool) = tokio::io::split(user);
    let (mut from_relay, mut to_relay) = tokio::io::split(postgres);
    let send = async {
        while let Some((&turn, rest)) = script.split_first() {
            let (piece, rest) = rest.split_at(usize::from(turn >> 1).min(rest.len()));
            script = rest;
            let sent = if turn & 1 == 0 { to_pool.write_all(piece).await } else { to_relay.write_all(piece).await };
            if sent.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ends = (to_pool.shutdown().await, to_relay.shutdown().await);
    };
    let (mut to_user, mut to_postgres) = (tokio::io::sink(), tokio::io::sink());
    let drain = async {
        let _ends = tokio::join!(
            tokio::io::copy(&mut from_pool, &mut to_user),
            tokio::io::copy(&mut from_relay, &mut to_postgres),
        );
    };
    tokio::select! {
        () = send => {}
        () = drain => {}
    }
}
