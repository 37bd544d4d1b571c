//! FunctionCall, which no driver here sends any more, as frames by hand.

use bookend::config::pool::{AuthType, Pool};
use tokio::io::AsyncWriteExt;

use crate::support::*;

/// `int4pl(int4, int4)` in every PostgreSQL's catalogue.
const INT4PL: u32 = 177;
/// A function nobody has.
const NONE: u32 = 1;

/// A FunctionCall with two int4 in binary, and its result so.
fn call(function: u32, left: i32, right: i32) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 2]); // one format for all arguments: binary; two arguments
    for argument in [left, right] {
        body.extend([0, 0, 0, 4]);
        body.extend(argument.to_be_bytes());
    }
    body.extend([0, 1]); // a binary result
    let length = u32::try_from(body.len() + 4).unwrap();
    [&b"F"[..], &length.to_be_bytes(), &body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn function_calls_of_two_clients_share_one_server_and_a_failed_one_ends_neither() {
    let cluster = postgres::shared();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 1, ..config(&cluster) }).await;
    let (mut one, mut other) = (raw(pooled.port).await, raw(pooled.port).await);
    for round in 0..20 {
        for (client, base) in [(&mut one, 1_000), (&mut other, 2_000)] {
            client.write_all(&call(INT4PL, base, round)).await.unwrap();
            let value = [&[0, 0, 0, 4][..], &(base + round).to_be_bytes()].concat();
            assert_eq!(answer(client).await, [(b'V', value), (b'Z', b"I".to_vec())]);
        }
        one.write_all(&call(NONE, 0, 0)).await.unwrap();
        let tags: Vec<u8> = answer(&mut one).await.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, [b'E', b'Z']);
    }
}
