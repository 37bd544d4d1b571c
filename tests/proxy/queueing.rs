//! Servers that take so many requests and no more, and those that wait for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bookend::config::lb::{Balance, Lb, Queue, QueuePriority, Route, Servers};
use tokio::sync::Semaphore;

use crate::{
    front::{Rig, check, free_port, lb, route},
    http::{Client, Script, ask, eventually, get},
};

/// A server that answers a request for each time it is told to.
struct Worker {
    script: Script,
    done: Arc<Semaphore>,
    /// The most requests it had at once.
    most: Arc<AtomicUsize>,
}

impl Worker {
    async fn start() -> Self {
        let (done, most, here) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::default());
        let (told, peak) = (done.clone(), most.clone());
        let script = Script::start(move |mut served| {
            let (told, peak, here): (_, _, Arc<AtomicUsize>) = (told.clone(), peak.clone(), Arc::clone(&here));
            async move {
                while let Some((head, _)) = served.request().await {
                    peak.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    Semaphore::acquire(&told).await.unwrap().forget();
                    here.fetch_sub(1, Ordering::SeqCst);
                    served.answer("200 OK", head.split(' ').nth(1).unwrap()).await;
                }
            }
        })
        .await;
        Self { script, done, most }
    }

    fn finishes(&self, requests: usize) {
        self.done.add_permits(requests);
    }
}

/// One server that takes one request.
fn one_at_a_time(worker: &Worker, queue: Queue) -> Lb {
    let mut config = lb(&[worker.script.address]);
    limit(&mut config, 1);
    config.upstreams[0].queue = queue;
    config
}

fn limit(config: &mut Lb, max_conns: usize) {
    let Servers::Own(servers) = &mut config.upstreams[0].servers else { panic!() };
    servers.iter_mut().for_each(|server| server.max_conns = Some(max_conns));
}

/// Begins a request, and returns what becomes of it: status and body.
fn begin(rig: &Rig, path: &'static str) -> tokio::task::JoinHandle<(u16, String)> {
    let address = rig.address;
    tokio::spawn(async move {
        let answer = ask(address, get(path)).await;
        (answer.status, answer.body)
    })
}

async fn waiting(rig: &Rig, count: usize) {
    eventually("so many wait", || rig.metric("bookend_upstream_queue_length", &[]) == count as f64).await;
}

#[tokio::test]
async fn a_server_never_has_more_than_max_conns_and_all_are_served() {
    let workers = [Worker::start().await, Worker::start().await];
    let mut config = lb(&workers.each_ref().map(|worker| worker.script.address));
    config.upstreams[0].balance = Balance::LeastConn;
    limit(&mut config, 2);
    let rig = Rig::start(config).await;
    let asked: Vec<_> = (0..30).map(|_| begin(&rig, "/")).collect();
    waiting(&rig, 26).await;
    eventually("both are full", || workers.iter().all(|worker| worker.script.requests() == 2)).await;
    workers.iter().for_each(|worker| worker.finishes(30));
    for answer in asked {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    for worker in &workers {
        assert_eq!(worker.most.load(Ordering::SeqCst), 2);
    }
    waiting(&rig, 0).await;
    assert_eq!(rig.metric("bookend_upstream_queued_total", &[]), 26.0);
    let line =
        rig.log.find("who waited", |line| line["queue_seconds"].as_f64().is_some_and(|waited| waited > 0.0)).await;
    assert_eq!(line["status"], 200);
}

#[tokio::test]
async fn who_finds_the_line_full_or_waits_too_long_is_told_so() {
    let worker = Worker::start().await;
    let queue = Queue { limit: 1, timeout: Duration::from_millis(300) };
    let rig = Rig::start(one_at_a_time(&worker, queue)).await;
    let first = begin(&rig, "/first");
    eventually("it is there", || worker.script.requests() == 1).await;
    let second = begin(&rig, "/second");
    waiting(&rig, 1).await;
    let mut third = Client::connect(rig.address).await;
    let refused = third.ask(get("/third")).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    rig.log.find("queue_full", |line| line["reason"] == "queue_full").await;
    assert_eq!(second.await.unwrap().0, 503);
    rig.log.find("queue_timeout", |line| line["reason"] == "queue_timeout").await;
    worker.finishes(2);
    assert_eq!(first.await.unwrap(), (200, "/first".into()));
    assert_eq!(third.ask(get("/again")).await.body, "/again", "the connection goes on");
    assert_eq!(rig.metric("bookend_http_failures_total", &[("reason", "queue_full")]), 1.0);
}

#[tokio::test]
async fn nobody_waits_where_nobody_may() {
    let worker = Worker::start().await;
    let rig = Rig::start(one_at_a_time(&worker, Queue { limit: 0, ..Queue::default() })).await;
    let first = begin(&rig, "/");
    eventually("it is there", || worker.script.requests() == 1).await;
    assert_eq!(ask(rig.address, get("/")).await.status, 503);
    worker.finishes(1);
    assert_eq!(first.await.unwrap().0, 200);
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_in_the_line_to_others() {
    let worker = Worker::start().await;
    let rig = Rig::start(one_at_a_time(&worker, Queue { limit: 1, ..Queue::default() })).await;
    let first = begin(&rig, "/first");
    eventually("it is there", || worker.script.requests() == 1).await;
    let mut leaves = Client::connect(rig.address).await;
    leaves.send(get("/leaves")).await;
    waiting(&rig, 1).await;
    drop(leaves);
    waiting(&rig, 0).await;
    rig.log.find("it left", |line| line["status"] == 499).await;
    let stays = begin(&rig, "/stays");
    waiting(&rig, 1).await;
    worker.finishes(2);
    assert_eq!(first.await.unwrap().1, "/first");
    assert_eq!(stays.await.unwrap().1, "/stays");
    assert_eq!(worker.script.requests(), 2, "the server never heard of who left");
}

#[tokio::test]
async fn the_line_is_served_by_priority_and_then_in_order() {
    let worker = Worker::start().await;
    let mut config = one_at_a_time(&worker, Queue::default());
    config.routes.push(Route { queue_priority: QueuePriority::High, ..route("/pay/") });
    config.routes.push(Route { queue_priority: QueuePriority::Low, ..route("/export/") });
    let rig = Rig::start(config).await;
    let first = begin(&rig, "/first");
    eventually("it is there", || worker.script.requests() == 1).await;
    let mut asked = vec![first];
    for (count, path) in (1..).zip(["/export/", "/a", "/b", "/pay/1", "/pay/2"]) {
        asked.push(begin(&rig, path));
        waiting(&rig, count).await;
    }
    let order = ["/first", "/pay/1", "/pay/2", "/a", "/b", "/export/"];
    for path in order {
        worker.finishes(1);
        let mut done = None;
        eventually("one is done", || {
            done = asked.iter().position(|answer| answer.is_finished());
            done.is_some()
        })
        .await;
        assert_eq!(asked.remove(done.unwrap()).await.unwrap(), (200, path.into()));
    }
}

#[tokio::test]
async fn a_websocket_has_its_place_for_as_long_as_it_lives() {
    let agrees = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let server = Script::start(move |mut served| async move {
        let Some((head, _)) = served.request().await else { return };
        match head.contains("/ws/") {
            true => {
                served.send(agrees.as_bytes()).await;
                while served.head().await.is_some() {}
            }
            false => served.answer("200 OK", "here").await,
        }
    })
    .await;
    let mut config = lb(&[server.address]);
    limit(&mut config, 1);
    let rig = Rig::start(config).await;
    let mut socket = Client::connect(rig.address).await;
    let handshake = "GET /ws/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    socket.send(handshake).await;
    assert!(socket.head().await.starts_with("HTTP/1.1 101"));
    let asked = begin(&rig, "/");
    waiting(&rig, 1).await;
    drop(socket);
    assert_eq!(asked.await.unwrap(), (200, "here".into()));
}

#[tokio::test]
async fn those_who_wait_do_not_outwait_a_server_that_has_gone() {
    let worker = Worker::start().await;
    let mut config = one_at_a_time(&worker, Queue { timeout: Duration::from_secs(3600), ..Queue::default() });
    config.upstreams[0].health_check = Some(check());
    let rig = Rig::start(config).await;
    worker.finishes(1); // the first check
    eventually("it is up", || rig.metric("bookend_upstream_server_up", &[]) == 1.0).await;
    let first = begin(&rig, "/first");
    eventually("it is there", || rig.metric("bookend_upstream_in_flight", &[]) == 1.0).await;
    let second = begin(&rig, "/second");
    waiting(&rig, 1).await;
    // Its checks are not answered any more.
    assert_eq!(second.await.unwrap().0, 503);
    rig.log.find("no server", |line| line["reason"] == "no_server").await;
    first.abort();
}

#[tokio::test]
async fn who_a_server_failed_is_next_in_line_for_another() {
    let worker = Worker::start().await;
    let mut config = lb(&[free_port(), worker.script.address]);
    limit(&mut config, 1);
    let rig = Rig::start(config).await;
    let mut asked = Vec::new();
    for _ in 0..6 {
        asked.push(begin(&rig, "/"));
    }
    worker.finishes(6);
    for answer in asked {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    assert_eq!(worker.most.load(Ordering::SeqCst), 1);
}

/// What a client says behind its request is not taken for its leaving.
#[tokio::test]
async fn a_client_that_has_more_to_ask_waits_like_others() {
    let worker = Worker::start().await;
    let rig = Rig::start(one_at_a_time(&worker, Queue::default())).await;
    let first = begin(&rig, "/first");
    eventually("it is there", || worker.script.requests() == 1).await;
    let mut client = Client::connect(rig.address).await;
    client.send([get("/a"), get("/b")].concat()).await;
    waiting(&rig, 1).await;
    client.send(get("/c")).await;
    worker.finishes(4);
    assert_eq!(first.await.unwrap().0, 200);
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.answer().await.body, path);
    }
}
