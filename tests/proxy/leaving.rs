//! The process leaves: nothing is cut that can be finished in time.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    front::{Rig, lb},
    http::{Client, PATIENCE, Script, eventually, get},
};

#[tokio::test]
async fn an_answer_under_way_is_finished_and_is_the_last_on_its_connection() {
    let (go, gone) = oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let server = Script::start(move |mut served| {
        let gone = gone.lock().unwrap().take();
        async move {
            served.request().await;
            let _ = gone.unwrap().await;
            served.answer("200 OK", "late").await;
        }
    })
    .await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut client = Client::connect(rig.address).await;
    client.send(get("/")).await;
    eventually("the request arrives", || server.requests() == 1).await;
    rig.leave(PATIENCE);
    go.send(()).unwrap();
    let answer = client.answer().await;
    assert_eq!((&*answer.body, answer.header("connection")), ("late", Some("close")));
    assert!(client.rest().await.is_empty());
    rig.ended().await;
}

#[tokio::test]
async fn connections_that_wait_do_not_hold_up_leaving() {
    let server = Script::saying("here").await;
    let rig = Rig::start(lb(&[server.address])).await;
    let mut used = Client::connect(rig.address).await;
    used.ask(get("/")).await;
    let mut fresh = Client::connect(rig.address).await;
    eventually("both are known", || rig.metric("bookend_client_connections_open", &[]) >= 2.0).await;
    let since = Instant::now();
    rig.leave(Duration::from_secs(30));
    assert!(used.rest().await.is_empty() && fresh.rest().await.is_empty());
    rig.ended().await;
    assert!(since.elapsed() < Duration::from_secs(5));
}
