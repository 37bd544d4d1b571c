//! Load from threads of this process: many clients that count what went wrong.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A small HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the first header of that (lower case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Gets a URL on a connection of its own; `None` when no whole answer came.
pub fn get(url: &str) -> Option<Answer> {
    request(url, "GET", "", b"")
}

/// The same, giving up after `patience`.
pub fn get_within(url: &str, patience: Duration) -> Option<Answer> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/')?);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    parse(&raw_within(host, head.as_bytes(), patience)?)
}

/// Sends a request on a connection of its own. `headers` are whole lines ending in CRLF.
pub fn request(url: &str, method: &str, headers: &str, body: &[u8]) -> Option<Answer> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/')?);
    let length =
        if body.is_empty() && method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n");
    let answer = raw(host, &[head.as_bytes(), body].concat())?;
    parse(&answer)
}

/// Sends bytes and reads until the other side closes, or is silent for 30 s.
pub fn raw(host: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    raw_within(host, bytes, Duration::from_secs(30))
}

fn raw_within(host: &str, bytes: &[u8], silence: Duration) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(silence)).ok()?;
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Some(answer),
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            // A reset after an answer is how a refused body ends; what came before it is the answer.
            Err(_) if !answer.is_empty() => return Some(answer),
            Err(_) => return None,
        }
    }
}

/// Reads an answer that ended with its connection; `None` when it is not whole.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).ok()? else { return None };
    let headers: Vec<(String, String)> = response
        .headers
        .iter()
        .map(|header| (header.name.to_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let mut answer = Answer { status: response.code?, headers, body: bytes[length..].to_vec() };
    if answer.header("transfer-encoding").is_some() {
        answer.body = dechunk(&answer.body)?;
    } else if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().ok()?;
        (answer.body.len() >= length).then_some(())?;
        answer.body.truncate(length);
    }
    Some(answer)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// Clients that get one path again and again until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    tally: Arc<Tally>,
}

/// What a load saw.
#[derive(Default)]
pub struct Tally {
    pub good: AtomicU64,
    pub failures: Mutex<Vec<(Instant, String)>>,
    pub slowest_ms: AtomicU64,
}

impl Load {
    /// Starts `clients` threads.
    pub fn start(clients: usize, url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Tally::default());
        let threads = (0..clients)
            .map(|_| {
                let (stop, tally, url) = (stop.clone(), tally.clone(), url.to_owned());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        tally.one(&url);
                    }
                })
            })
            .collect();
        Self { stop, threads, tally }
    }

    /// Returns requests that were answered 200 so far.
    pub fn good(&self) -> u64 {
        self.tally.good.load(Ordering::Relaxed)
    }

    /// Stops and returns what was seen.
    pub fn finish(mut self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.tally.clone()
    }
}

impl Drop for Load {
    /// A test that fails must not go on loading the machine.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    fn one(&self, url: &str) {
        let began = Instant::now();
        let answer = get(url);
        self.slowest_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap(), Ordering::Relaxed);
        match answer {
            Some(answer) if answer.status == 200 => {
                self.good.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                let seen = other.map_or("no answer".into(), |answer| format!("{}: {}", answer.status, answer.text()));
                self.failures.lock().unwrap().push((Instant::now(), seen));
            }
        }
    }

    /// Returns failures in words.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().iter().map(|(_, seen)| seen.clone()).collect()
    }
}
