//! What an idle WebSocket costs, measured on demand: `tests/proxy/idle_websockets.py`.

use std::{env, time::Duration};

use crate::front::{Rig, lb};

/// Runs a front before the server at `SERVER` until standard input ends, and says where it listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a fixture of idle_websockets.py"]
async fn hold() {
    let mut config = lb(&[env::var("SERVER").unwrap().parse().unwrap()]);
    config.listeners[0].max_connections = 100_000;
    config.threads = 2;
    let rig = Rig::start(config).await;
    println!("LISTENS {} {}", std::process::id(), rig.address.port());
    let ended = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    ended.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
}
