//! A server to balance to: answers `hello`, and holds `/slow` until it is told to go on.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

#[derive(Default)]
struct State {
    requests: AtomicUsize,
    held: AtomicUsize,
    released: Mutex<bool>,
    changed: Condvar,
}

/// The server; it lives as long as the test process.
pub struct Upstream {
    port: u16,
    state: Arc<State>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::start_on(0)
    }

    pub fn start_on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Requests answered or held so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Requests for `/slow` that wait.
    pub fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// Lets them go on.
    pub fn release(&self) {
        *self.state.released.lock().unwrap() = true;
        self.state.changed.notify_all();
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        state.requests.fetch_add(1, Ordering::SeqCst);
        if head.starts_with(b"GET /slow") {
            state.held.fetch_add(1, Ordering::SeqCst);
            let mut released = state.released.lock().unwrap();
            while !*released {
                released = state.changed.wait(released).unwrap();
            }
        }
        head.clear();
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
            return;
        }
    }
}
