//! A server connection as the store keeps it, and how the store opens one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;
use rand::Rng;
use tokio::time::Instant;

use super::{
    ask::ask,
    connect::{self, Opened, Spec},
    error::ServerError,
    stream::ServerStream,
};
use crate::pool::{
    auth::{derive::Deriver, scram::NONCE_LEN},
    lease::{Connect, Connection},
    params::Params,
    registry::ServerEntry,
    relay::ServerState,
    wire::frontend,
};

/// One logged-in connection, and what is known of its session.
pub struct Server {
    pub stream: ServerStream,
    pub state: ServerState,
}

/// What the server of a pool told at its last login: what a client that logs in is told in turn, without asking again.
#[derive(Debug)]
pub struct Welcome {
    /// As reported, in order.
    pub params: Vec<(String, String)>,
    /// The same, as sessions compare them.
    pub tracked: Params,
}

/// Opens connections for one pool. Replaced whole when the configuration changes.
pub struct Connector {
    spec: Spec,
    deriver: Arc<Deriver>,
    welcome: Arc<ArcSwapOption<Welcome>>,
    /// Which of several passwords worked last.
    worked: AtomicUsize,
}

impl Connector {
    /// Returns a connector; each login leaves what it was told in `welcome`.
    pub fn new(spec: Spec, deriver: Arc<Deriver>, welcome: Arc<ArcSwapOption<Welcome>>) -> Self {
        Self { spec, deriver, welcome, worked: AtomicUsize::new(0) }
    }

    /// Opens a connection; of several passwords the one that worked last is tried first, and the next one only when the
    /// server has said that this one is wrong.
    ///
    /// Cancel safe: an abandoned call closes the connection.
    pub async fn open(&self) -> Result<Opened, ServerError> {
        let first = self.worked.load(Ordering::Relaxed);
        let mut last = ServerError::Closed;
        for (number, login) in self.spec.login.candidates(first) {
            let mut nonce = [0; NONCE_LEN];
            rand::rng().fill_bytes(&mut nonce);
            let spec = Spec { login, ..self.spec.clone() };
            match connect::open(&spec, &self.deriver, nonce).await {
                Ok(opened) => {
                    self.worked.store(number, Ordering::Relaxed);
                    return Ok(opened);
                }
                Err(error) if error.is_wrong_password() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Keeps the welcome if it is news: it hardly ever is.
    fn learn(&self, params: Vec<(String, String)>, tracked: &mut Params) {
        let known = self.welcome.load();
        if let Some(known) = &*known {
            tracked.share(&known.tracked);
        }
        if known.as_ref().is_none_or(|known| known.params != params) {
            self.welcome.store(Some(Arc::new(Welcome { params, tracked: tracked.clone() })));
        }
    }
}

impl Connect for Connector {
    /// On the heap: it changes hands for every lease.
    type Connection = Box<Server>;

    async fn connect(&self, entry: &ServerEntry) -> Result<Box<Server>, ServerError> {
        entry.set_dbname(self.spec.dbname.clone());
        let Opened { fresh, peer, endpoint, host } = self.open().await?;
        entry.set_address(peer, endpoint, host.text, fresh.stream.suite(), fresh.key);
        // Looked at after the address is known: who takes an address from the name first closes what is known to go there.
        if host.name.zip(peer.ip()).is_some_and(|(name, address)| !name.has(address)) {
            entry.set_close_needed();
        }
        let mut state = ServerState::new(fresh.params.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        entry.set_application_name(state.application_name());
        self.learn(fresh.params, state.params_mut());
        Ok(Box::new(Server { stream: fresh.stream, state }))
    }

    async fn check(&self, server: &mut Box<Server>) -> Result<(), ServerError> {
        let Some(query) = &self.spec.check_query else { return Ok(()) };
        let reported = ask(&mut server.stream, query, Instant::now() + self.spec.connect_timeout).await?;
        // As for one that speaks while it rests: not what its next client was told.
        if reported.is_empty() { Ok(()) } else { Err(ServerError::Protocol { why: "a parameter changed meanwhile" }) }
    }
}

impl Connection for Server {
    /// TLS reads ahead of the relay: what it has decrypted is no longer in the socket, and counts as well. (Of half a record
    /// it does not tell; that is a message still on its way, as half of one in the socket's peer is.)
    fn is_quiet(&self) -> bool {
        self.stream.is_drained() && self.stream.socket().is_quiet()
    }

    fn farewell(&mut self) {
        let mut out = Vec::with_capacity(5);
        frontend::terminate(&mut out);
        // An idle connection's send buffer has room, and a server that is gone needs no goodbye.
        self.stream.try_write(&out);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use socket2::SockRef;

    use super::*;
    use crate::pool::socket::Socket;
    use crate::tls::{self, Accept, Accepted, Identity, Verify, Versions};

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (postgres, _) = listener.accept().await.unwrap();
        (stream, postgres)
    }

    fn tcp(server: &Server) -> &TcpStream {
        match server.stream.socket() {
            Socket::Tcp(stream) => stream,
            Socket::Unix(_) => panic!("a Unix socket"),
        }
    }

    async fn linked() -> (Server, TcpStream) {
        let (stream, postgres) = sockets().await;
        (Server { stream: ServerStream::Plain(Socket::Tcp(stream)), state: ServerState::new([]) }, postgres)
    }

    async fn linked_by_tls(versions: Versions) -> (Server, Accepted<TcpStream>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let identity = Identity::parse(certificate.as_bytes(), key.as_bytes()).unwrap();
        let accept = Accept::new(identity, None, versions, &[]).unwrap();
        let connect = tls::Connect::new(Verify::Nothing, None, versions, &[]).unwrap();
        let (stream, postgres) = sockets().await;
        let (stream, postgres) =
            tokio::join!(connect.handshake("localhost", Socket::Tcp(stream)), accept.handshake(postgres));
        let stream = ServerStream::Tls(Box::new(stream.unwrap()));
        (Server { stream, state: ServerState::new([]) }, postgres.unwrap())
    }

    /// Waits until the reactor has seen that something came.
    async fn noticed(server: &Server) {
        tokio::time::timeout(Duration::from_secs(10), tcp(server).readable()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_has_nothing_to_say_is_quiet() {
        let (server, _postgres) = linked().await;
        assert!(server.is_quiet());
        assert!(server.is_quiet());
    }

    #[tokio::test]
    async fn a_connection_whose_answers_were_read_is_quiet_whatever_the_reads_were_like() {
        let (mut server, mut postgres) = linked().await;
        for room in [3, 64] {
            postgres.write_all(b"abc").await.unwrap();
            noticed(&server).await;
            assert!(!server.is_quiet());
            let mut buf = vec![0; room];
            assert_eq!(server.stream.read(&mut buf).await.unwrap(), 3);
            assert!(server.is_quiet(), "read with room for {room}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ended_is_not_quiet_and_stays_so() {
        let (mut server, mut postgres) = linked().await;
        postgres.write_all(b"answer").await.unwrap();
        noticed(&server).await;
        assert_eq!(server.stream.read(&mut [0; 64]).await.unwrap(), 6);
        drop(postgres);
        noticed(&server).await;
        assert!(!server.is_quiet());
        assert!(!server.is_quiet());
    }

    #[tokio::test]
    async fn a_connection_that_was_reset_is_not_quiet() {
        let (server, postgres) = linked().await;
        SockRef::from(&postgres).set_linger(Some(Duration::ZERO)).unwrap();
        drop(postgres);
        noticed(&server).await;
        assert!(!server.is_quiet());
    }

    #[tokio::test]
    async fn what_tls_has_decrypted_and_nobody_has_taken_is_not_quiet() {
        for versions in [Versions::Only12, Versions::Only13] {
            let (mut server, mut postgres) = linked_by_tls(versions).await;
            postgres.write_all(b"answer").await.unwrap();
            postgres.flush().await.unwrap();
            let mut half = [0; 3];
            server.stream.read_exact(&mut half).await.unwrap();
            assert!(!server.is_quiet(), "{versions:?}");
            server.stream.read_exact(&mut half).await.unwrap();
            assert!(server.is_quiet(), "{versions:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_said_over_tls_that_it_ends_is_not_quiet_though_its_socket_is_open() {
        let (mut server, mut postgres) = linked_by_tls(Versions::Both).await;
        postgres.write_all(b"answer").await.unwrap();
        postgres.get_mut().1.send_close_notify();
        postgres.flush().await.unwrap();
        let mut answer = [0; 6];
        server.stream.read_exact(&mut answer).await.unwrap();
        assert!(!server.is_quiet());
    }

    /// Out of its budget a task is told that nothing is ready, whatever has come.
    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_is_not_told_that_a_dead_connection_is_quiet() {
        let (server, postgres) = linked().await;
        drop(postgres);
        noticed(&server).await;
        poll_fn(|cx| {
            while tcp(&server).poll_read_ready(cx).is_ready() {}
            assert!(!server.is_quiet());
            Poll::Ready(())
        })
        .await;
    }
}
