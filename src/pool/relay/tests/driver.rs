use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::super::*;
use crate::pool::{
    params::Params,
    prepared::Interner,
    stats::Stats,
    wire::{backend, backend::TxStatus, frontend},
};

fn limits() -> Limits {
    Limits {
        mode: PoolMode::Transaction,
        max_packet_size: i32::MAX as u32,
        max_held_message: 1 << 20,
        max_prepared_statements: 10,
        query_timeout: None,
        transaction_timeout: None,
        idle_transaction_timeout: None,
        rollback_timeout: Duration::from_secs(5),
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_is_answered_and_the_server_given_back() {
    let reported = [("TimeZone", &b"UTC"[..])];
    let mut client_state =
        ClientState::new(&Params::reported(reported), [], &[], &Arc::new(Interner::default())).unwrap();
    let mut server_state = ServerState::new(reported);
    let (mut client, mut user) = duplex(4096);
    let (mut server, mut postgres) = duplex(4096);
    let mut first = Vec::new();
    frontend::query(&mut first, b"select 1");
    let expected = first.clone();
    let mut answer = Vec::new();
    backend::command_complete(&mut answer, "SELECT 1");
    backend::ready_for_query(&mut answer, TxStatus::Idle);
    let said = answer.clone();
    let other = async {
        let mut got = vec![0; expected.len()];
        postgres.read_exact(&mut got).await.unwrap();
        assert_eq!(got, expected);
        postgres.write_all(&answer).await.unwrap();
        let mut got = vec![0; said.len()];
        user.read_exact(&mut got).await.unwrap();
        assert_eq!(got, said);
    };
    let (limits, stats, control) = (limits(), Stats::default(), Control::default());
    let run = run(&mut client, &first, &mut client_state, &mut server, &mut server_state, &limits, &stats, &control);
    let (outcome, ()) = tokio::join!(run, other);
    assert_eq!(outcome, Outcome::Released { server: Fate::Reusable });
    let seen = stats.snapshot();
    assert_eq!((seen.query_count, seen.xact_count), (1, 1));
    assert_eq!((seen.received as usize, seen.sent as usize), (expected.len(), said.len()));
}
