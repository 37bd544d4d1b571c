//! The loop, driven over a duplex stream with an application that answers `ok`.

use std::sync::Mutex;

use pingora::{apps::ReusedHttpStream, http::ResponseHeader};
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    sync::watch,
    task::JoinHandle,
};

use super::{limit::limit, *};
use crate::health::drain::{self, DrainControl, Phase};

/// Answers every request with its body, and remembers request lines.
#[derive(Default)]
struct Echo {
    seen: Mutex<Vec<String>>,
}

#[async_trait]
impl HttpServerApp for Echo {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        session.read_request().await.ok()?;
        let target = String::from_utf8_lossy(session.req_header().raw_path()).into_owned();
        self.seen.lock().unwrap().push(target);
        let mut body = Vec::new();
        while let Some(bytes) = session.read_request_body().await.ok()? {
            body.extend_from_slice(&bytes);
        }
        let mut answer = ResponseHeader::build(200, None).ok()?;
        answer.insert_header("content-length", body.len()).ok()?;
        session.write_response_header(Box::new(answer)).await.ok()?;
        session.write_response_body(body.into(), true).await.ok()?;
        let reusable = session.finish().await.ok()??;
        let (stream, prefix) = reusable.into_parts();
        assert!(prefix.is_none(), "pingora must never see a byte of the next request");
        Some(ReusedHttpStream::new(stream, None))
    }
}

#[derive(Default)]
struct Refusals(Mutex<Vec<(Failure, &'static str)>>);

impl Rules for Refusals {
    fn client(&self) -> Client {
        client_settings()
    }

    fn refused(&self, failure: Failure, detail: &'static str, _peer: Option<SocketAddr>) {
        self.0.lock().unwrap().push((failure, detail));
    }
}

struct Rig {
    client: DuplexStream,
    control: DrainControl,
    drain: Drain,
    app: Arc<Echo>,
    refusals: Arc<Refusals>,
    task: JoinHandle<Option<Stream>>,
}

fn client_settings() -> Client {
    Client {
        header_timeout: Duration::from_secs(10),
        header_max_size: 4096,
        max_headers: 20,
        body_timeout: Duration::from_secs(60),
        max_body_size: None,
        keepalive_timeout: Duration::from_secs(75),
        keepalive_requests: 3,
        send_timeout: Duration::from_secs(60),
        max_streams: 128,
    }
}

fn rig() -> Rig {
    let (client, server) = duplex(64 * 1024);
    let (control, drain) = drain::channel();
    let app = Arc::new(Echo::default());
    let refusals = Arc::new(Refusals::default());
    let accept = Arc::new(Accept {
        http: app.clone(),
        limits: [limit("127.0.0.1:80", 1)].into(),
        drain: drain.clone(),
        rules: refusals.clone(),
    });
    let task = tokio::spawn(async move {
        // The sender must outlive the watch.
        let (_sender, shutdown) = watch::channel(false);
        accept.process_new(Box::new(server), &shutdown).await
    });
    Rig { client, control, drain, app, refusals, task }
}

impl Rig {
    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one answer with a counted body.
    async fn answer(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.client.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
        let mut body = vec![0; length.unwrap_or("0").parse().unwrap()];
        self.client.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn closed(&mut self) {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    fn failures(&self) -> Vec<Failure> {
        self.refusals.0.lock().unwrap().iter().map(|(failure, _)| *failure).collect()
    }
}

const GET: &str = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn requests_follow_each_other_on_one_connection_up_to_the_limit() {
    let mut rig = rig();
    for round in 0..3 {
        rig.send("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        let (head, body) = rig.answer().await;
        assert_eq!(body, "hello");
        assert_eq!(head.contains("connection: close"), round == 2, "{head}");
    }
    rig.closed().await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_one_after_the_other() {
    let mut rig = rig();
    rig.send(concat!(
        "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "\r\nPOST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ndef",
        "GET /three HTTP/1.1\r\nHost: a\r\n\r\n"
    ))
    .await;
    assert_eq!(rig.answer().await.1, "abc");
    assert_eq!(rig.answer().await.1, "def");
    assert_eq!(rig.answer().await.1, "");
    assert_eq!(*rig.app.seen.lock().unwrap(), ["/one", "/two", "/three"]);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_byte_by_byte_is_served() {
    let mut rig = rig();
    for byte in GET.bytes() {
        rig.client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(rig.answer().await.0.starts_with("http/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_refused_at_the_deadline_however_it_drips() {
    let mut rig = rig();
    let since = Instant::now();
    rig.send("GET / HTTP/1.1\r\n").await;
    for _ in 0..5 {
        rig.send("X: y\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (head, _) = rig.answer().await;
    assert!(head.starts_with("http/1.1 408") && head.contains("connection: close"), "{head}");
    assert_eq!(since.elapsed().as_secs(), 10);
    assert_eq!(rig.failures(), [Failure::HeaderTimeout]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_a_word() {
    let mut rig = rig();
    rig.send(GET).await;
    rig.answer().await;
    let since = Instant::now();
    rig.send("\r\n").await;
    rig.closed().await;
    assert_eq!(since.elapsed().as_secs(), 75);
    assert!(rig.failures().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_refusal_has_its_status_and_closes_the_connection() {
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(5000));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "a".repeat(5000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(30));
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET /\r\n", "400"),
        (&long, "414"),
        (&large, "431"),
        (&many, "431"),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    ] {
        let mut rig = rig();
        rig.send(request).await;
        let (head, body) = rig.answer().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request:.60} gave {head}");
        assert!(head.contains("connection: close") && !body.is_empty());
        rig.closed().await;
        assert!(rig.app.seen.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_longer_than_declared_is_refused_as_the_next_request() {
    let mut rig = rig();
    rig.send("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab{\"more\": 1}").await;
    assert_eq!(rig.answer().await.1, "ab");
    assert!(rig.answer().await.0.starts_with("http/1.1 400"));
    rig.closed().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_client_still_sends_does_not_destroy_the_answer() {
    let mut rig = rig();
    rig.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n").await;
    for _ in 0..50 {
        rig.client.write_all(&[b'x'; 16 * 1024]).await.unwrap();
    }
    assert!(rig.answer().await.0.starts_with("http/1.1 400"));
    drop(rig.client);
    rig.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn leaving_closes_waiting_connections_at_once_and_waits_for_none() {
    let mut rig = rig();
    rig.send(GET).await;
    rig.answer().await;
    assert_eq!(rig.drain.in_flight(), 1);
    let since = Instant::now();
    rig.control.advance(Phase::Draining { deadline: since + Duration::from_secs(30) });
    rig.closed().await;
    rig.drain.idle().await;
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_finished_while_leaving() {
    let mut rig = rig();
    rig.send("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.control.advance(Phase::Draining { deadline: Instant::now() + Duration::from_secs(30) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.send("b").await;
    assert_eq!(rig.answer().await.1, "ab");
    rig.closed().await;
    rig.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_cut_ends_what_is_under_way() {
    let mut rig = rig();
    rig.send("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.control.advance(Phase::Cut);
    rig.closed().await;
}

/// An idle connection costs what its future costs.
#[tokio::test]
async fn a_waiting_connection_stays_small() {
    let (_client, server) = duplex(1);
    let (_control, mut drain) = drain::channel();
    let limit = limit("127.0.0.1:80", 1);
    let mut conn = Conn::new(Box::new(server), limit.admit(drain.token()).unwrap());
    let settings = client_settings();
    let size = size_of_val(&conn) + size_of_val(&next(&mut conn, &settings, true, &mut Alarm::default(), &mut drain));
    assert!(size < 1536, "{size} bytes");
}
