//! Client connections that speak HTTP/2.
//!
//! The frames are the h2 crate's, the requests pingora's; the loop between them is ours, because pingora's has no deadline for
//! the first bytes, none for a body that stops coming, no bound on the requests of a connection, and waits for the end of
//! the process with clients that answer nothing. What it bounds: the head's size and the requests at a time (told to the
//! client), malformed requests (after some the connection ends), and by h2's own limits resets and CONTINUATION frames
//! (CVE-2023-44487, CVE-2024-27316).
//!
//! A connection that leaves says so (GOAWAY, RFC 9113 section 6.8), answers what it has begun, and then has [`LINGER`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pingora::{
    apps::HttpServerApp,
    protocols::{
        Digest, Stream,
        http::{
            ServerSession,
            v2::server::{self, H2Accept, H2Options, HttpSession},
        },
    },
    server::ShutdownWatch,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Accept, LINGER,
    limit::Admission,
    progress::{self, Progress},
};
use crate::{config::lb::Client, health::drain::Drain, proxy::error::Failure};

/// What one stream may have under way before the server takes it. A connection has four of it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What is held of an answer that the client does not take.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests that are none (RFC 9113 section 8.1.1): a client is not to be so wrong so often.
const MALFORMED_MAX: u32 = 32;

/// The requests under way on one connection.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    changed: Notify,
}

/// One request among them.
struct Open(Arc<Streams>);

impl Streams {
    fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::AcqRel);
        Open(self.clone())
    }

    /// Waits until there was none for so long.
    async fn idle_for(&self, patience: Duration) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.changed.notified().await;
        }
        sleep(patience).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_one();
        }
    }
}

fn options(client: &Client) -> H2Options {
    let mut options = server::default_h2_options();
    options
        .max_header_list_size(u32::try_from(client.header_max_size).unwrap_or(u32::MAX))
        .max_concurrent_streams(client.max_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

impl<H: HttpServerApp + Send + Sync + 'static> Accept<H> {
    /// Serves requests until the connection ends. Not cancel safe: dropping it cuts the connection.
    pub(super) async fn serve_http2(&self, io: Stream, admission: Admission, shutdown: &ShutdownWatch) {
        let mut drain = self.drain.clone();
        let client = self.rules.client();
        let digest = Arc::new(Digest {
            ssl_digest: io.get_ssl_digest(),
            timing_digest: io.get_timing_digest(),
            proxy_digest: io.get_proxy_digest(),
            socket_digest: io.get_socket_digest(),
        });
        let handshake = timeout(client.header_timeout, server::handshake(io, Some(options(&client))));
        let mut conn = tokio::select! {
            shaken = handshake => match shaken {
                Ok(Ok(conn)) => conn,
                _ => return,
            },
            () = drain.cut() => return,
        };
        let (admission, streams) = (Arc::new(admission), Arc::<Streams>::default());
        let (mut leaving, mut malformed) = (false, 0);
        let mut left = client.keepalive_requests.max(1);
        loop {
            let patience = if leaving { LINGER } else { self.rules.client().keepalive_timeout };
            let mut draining = drain.clone();
            let next = tokio::select! {
                biased;
                () = drain.cut() => return,
                _ = draining.draining(), if !leaving => None,
                // Cancel safe: what has come stays with the connection.
                next = HttpSession::from_h2_conn(&mut conn, digest.clone()) => Some(next),
                () = streams.idle_for(patience) => match leaving {
                    true => return,
                    false => None,
                },
            };
            match next {
                None => {
                    conn.graceful_shutdown();
                    leaving = true;
                }
                Some(Ok(Some(H2Accept::Session(session)))) => {
                    self.begin(session, (streams.begin(), admission.clone()), shutdown, drain.clone());
                    left = left.saturating_sub(1);
                    if left == 0 && !leaving {
                        conn.graceful_shutdown();
                        leaving = true;
                    }
                }
                Some(Ok(Some(H2Accept::Rejected))) => {
                    self.rules.refused(Failure::BadRequest, "HTTP/2", peer(&digest));
                    malformed += 1;
                    if malformed >= MALFORMED_MAX {
                        return;
                    }
                }
                // It has ended, or broken the protocol.
                Some(Ok(None) | Err(_)) => return,
            }
        }
    }

    /// Serves one request beside the others of its connection.
    fn begin(
        &self,
        mut session: HttpSession,
        held: (Open, Arc<Admission>),
        shutdown: &ShutdownWatch,
        mut drain: Drain,
    ) {
        let client = self.rules.client();
        session.set_write_timeout(Some(client.send_timeout));
        let progress = Arc::new(Progress::new(session.is_body_empty()));
        let peer = session.digest().and_then(peer);
        let (http, rules, shutdown) = (self.http.clone(), self.rules.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _held = held;
            let served = http.process_new_http(ServerSession::new_http2(session), &shutdown);
            tokio::select! {
                biased;
                _ = progress::during(progress.clone(), served) => {}
                () = progress.stalls(client.body_timeout) => rules.refused(Failure::BodyTimeout, "client_body_timeout", peer),
                () = drain.cut() => {}
            }
        });
    }
}

fn peer(digest: &Digest) -> Option<SocketAddr> {
    digest.socket_digest.as_ref()?.peer_addr()?.as_inet().copied()
}
