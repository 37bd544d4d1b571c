//! HTTP by hand: servers that do exactly what a test wants of them, and a client that sees every byte.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Longer than anything a test waits for; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a script; gone when dropped.
pub struct Script {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// A connection to a scripted server.
pub struct Served {
    pub io: BufReader<TcpStream>,
    requests: Arc<AtomicUsize>,
}

impl Script {
    /// Runs `script` for every connection.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Served) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (accepted, seen) = (connections.clone(), requests.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(Served { io: BufReader::new(stream), requests: seen.clone() }));
            }
        });
        Self { address, connections, requests, task }
    }

    /// A server that answers every request with `body`, as often as it is asked.
    pub async fn saying(body: &'static str) -> Self {
        Self::start(move |mut served| async move {
            while served.request().await.is_some() {
                served.answer("200 OK", body).await;
            }
        })
        .await
    }

    /// A server that answers every request with its head.
    pub async fn mirror() -> Self {
        Self::start(|mut served| async move {
            while let Some((head, _)) = served.request().await {
                served.answer("200 OK", &head).await;
            }
        })
        .await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests whose head was read.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    /// Reads a request and its body.
    pub async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head().await?;
        let body = body(&mut self.io, &head).await?;
        Some((head, body))
    }

    /// Reads a request's head, lower-cased names and all as they came.
    pub async fn head(&mut self) -> Option<String> {
        let head = head(&mut self.io).await?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        Some(head)
    }

    pub async fn answer(&mut self, status: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.send(answer.as_bytes()).await;
    }

    /// Sends bytes; a peer that is gone is not the script's business.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.io.get_mut().write_all(bytes).await;
    }
}

/// A client connection.
pub struct Client {
    pub io: BufReader<TcpStream>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { io: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.io.get_mut().write_all(text.as_ref()).await.unwrap();
    }

    /// Reads an answer's head.
    pub async fn head(&mut self) -> String {
        tokio::time::timeout(PATIENCE, head(&mut self.io)).await.expect("an answer in time").expect("an answer")
    }

    /// Reads an answer.
    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head[9..12].parse().unwrap();
        let body = match status {
            204 | 304 => Vec::new(),
            _ if header(&head, "content-length").is_none() && header(&head, "transfer-encoding").is_none() => {
                self.rest().await
            }
            _ => tokio::time::timeout(PATIENCE, body(&mut self.io, &head)).await.unwrap().expect("a whole body"),
        };
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    /// Reads to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends it as well.
        let _ = tokio::time::timeout(PATIENCE, self.io.read_to_end(&mut rest)).await.expect("an end in time");
        rest
    }

    /// Sends a request and reads the answer.
    pub async fn ask(&mut self, text: impl AsRef<[u8]>) -> Answer {
        self.send(text).await;
        self.answer().await
    }
}

/// Sends one request on a connection of its own.
pub async fn ask(address: SocketAddr, text: impl AsRef<[u8]>) -> Answer {
    Client::connect(address).await.ask(text).await
}

/// A GET with nothing special about it.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n")
}

/// Returns the first value of a header.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

async fn head(io: &mut BufReader<TcpStream>) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(io.read_u8().await.ok()?);
    }
    Some(String::from_utf8(bytes).unwrap())
}

async fn body(io: &mut BufReader<TcpStream>, head: &str) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        while let Some(mut chunk) = chunk(io).await? {
            body.append(&mut chunk);
        }
    } else if let Some(length) = header(head, "content-length") {
        body.resize(length.parse().unwrap(), 0);
        io.read_exact(&mut body).await.ok()?;
    }
    Some(body)
}

/// Reads a chunk; `Some(None)` is the last one.
pub async fn chunk(io: &mut BufReader<TcpStream>) -> Option<Option<Vec<u8>>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(io.read_u8().await.ok()?);
    }
    let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
    let mut data = vec![0; size + 2];
    io.read_exact(&mut data).await.ok()?;
    data.truncate(size);
    Some((size > 0).then_some(data))
}

/// Waits until `is_so`, or fails the test.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
