//! Real WebSocket clients against Django Channels.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::{Deployment, shared};

async fn replica_of(deployment: &Deployment, client: &str) -> String {
    let url = format!("ws://127.0.0.1:{}/ws/echo/", deployment.bookend.front_port);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("X-Forwarded-For", client.parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    let hello = socket.next().await.unwrap().unwrap();
    let hello: Value = serde_json::from_str(hello.to_text().unwrap()).unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let echo: Value = serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(echo["echo"], "hello");
    assert_eq!(echo["replica"], hello["replica"]);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    hello["replica"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_address_always_meets_the_same_replica() {
    let deployment = shared();
    for client in ["198.51.100.7", "203.0.113.20", "192.0.2.99", "2001:db8::7"] {
        let first = replica_of(&deployment, client).await;
        for _ in 0..5 {
            assert_eq!(replica_of(&deployment, client).await, first, "{client}");
        }
    }
}

#[tokio::test]
async fn the_replica_of_an_address_is_the_one_nginx_chooses() {
    let deployment = shared();
    let table = include_str!("../data/ip_hash_nginx.tsv");
    let rows = table.lines().filter_map(|line| line.strip_prefix("equal\t")?.split_once('\t'));
    let mut asked = 0;
    for (client, peer) in rows {
        let expected = match peer {
            "a" => "web-1",
            "b" => "web-2",
            "c" => "web-3",
            other => panic!("nginx answered by {other}"),
        };
        assert_eq!(replica_of(&deployment, client).await, expected, "{client}");
        asked += 1;
    }
    assert!(asked >= 100, "{asked} addresses");
}

#[tokio::test]
async fn addresses_of_one_24_network_share_a_replica_and_networks_are_spread() {
    let deployment = shared();
    assert_eq!(replica_of(&deployment, "198.51.100.1").await, replica_of(&deployment, "198.51.100.254").await);
    let mut replicas = std::collections::BTreeSet::new();
    for network in 0..40 {
        replicas.insert(replica_of(&deployment, &format!("10.{network}.7.1")).await);
    }
    assert_eq!(replicas.len(), 3, "{replicas:?}");
}

#[tokio::test]
async fn binary_messages_of_a_megabyte_come_back_unchanged() {
    let deployment = shared();
    let url = format!("ws://127.0.0.1:{}/ws/echo/", deployment.bookend.front_port);
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let payload: Vec<u8> = (0..900_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..3 {
        socket.send(Message::binary(payload.clone())).await.unwrap();
        let back = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(back.into_data().as_ref(), payload.as_slice());
    }
}

#[tokio::test]
async fn the_feed_pushes_without_being_asked() {
    let deployment = shared();
    let url = format!("ws://127.0.0.1:{}/ws/feed/", deployment.bookend.front_port);
    let (mut socket, _) = connect_async(url).await.unwrap();
    for _ in 0..5 {
        let message = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap().unwrap().unwrap();
        assert!(message.is_text());
    }
}
