//! From an accepted socket to what its peer wants, in plain text or over TLS; the rest is [`super::login`]'s.
//!
//! TLS begins in one of two ways: the peer asks with an SSLRequest and is told to begin, or it begins at once ("direct TLS",
//! PostgreSQL 17), which shows in its first byte. That byte is looked at and left where it is, so the handshake gets all that
//! was sent, and nothing that came before the handshake is ever taken for something said under it (CVE-2021-3935). Direct TLS
//! must name its protocol by ALPN, so that a request meant for another kind of server cannot be led here (ALPACA attack).
//!
//! Source: `ProcessSSLStartup` and `ProcessStartupPacket` in PostgreSQL's backend_startup.c.

use std::sync::{Arc, OnceLock};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use super::{
    ahead::Ahead,
    deadline::LoginDeadline,
    login::{Admitted, admit},
    refuse::refuse,
    session::Session,
    startup::{Encryption, First, TLS_HANDSHAKE, read_first},
};
use crate::{
    config::pool::ClientTls,
    pool::{
        auth::{Auth, UnderTls},
        database::Running,
        error::PoolError,
        peer::Peer,
        pooler::Pooler,
        registry::{ClientHandle, ClientState},
        relay::Control,
        socket::Socket,
    },
    tls::{Accepted, Suite, client_name},
};

/// Connections beyond `max_client_conn` that may say who they are: cancel requests and the console.
const SPARE_CONNECTIONS: usize = 64;

/// A connection whose peer is not known yet, and what its first bytes are measured against. Its login is by what is in force
/// when it says who it is.
pub struct Arrival {
    pub pooler: Arc<Pooler>,
    pub client: ClientHandle,
    pub(super) running: Arc<Running>,
    pub(super) auth: Arc<Auth>,
    pub deadline: LoginDeadline,
    /// Once the connection has TLS.
    pub(super) tls: Option<UnderTls>,
    /// User and database that it asked for, for the log.
    pub(super) asked: OnceLock<(String, String)>,
}

/// Serves one accepted connection to its end. What of that is a session is a task of its own, which leaving waits for: a
/// login needs more room than an idle client is to cost.
pub async fn serve(pooler: Arc<Pooler>, io: Socket, peer: Peer) {
    let client = pooler.registry().enter_client(peer, pooler.peering.id(), Instant::now(), &mut rand::rng());
    let (running, auth) = (pooler.running.load_full(), pooler.auth.load_full());
    let deadline = LoginDeadline::new(Instant::now(), running.pool.client_login_timeout);
    let arrival = Arrival { pooler, client, running, auth, deadline, tls: None, asked: OnceLock::new() };
    let mut io = Ahead::new(io);
    match arrival.plain(&mut io).await {
        Ok(Opening::Said(first)) => arrival.go_in(io, first).await,
        // On the heap, like all that only some logins need: this future is copied about several times while it is spawned.
        Ok(Opening::Tls { direct }) => Box::pin(arrival.go_in_by_tls(io, direct)).await,
        Err(error) => arrival.refuse(&mut io, &error).await,
    }
}

/// What the first bytes of a connection were.
enum Opening {
    Said(First),
    Tls { direct: bool },
}

impl Arrival {
    fn limit(&self) -> usize {
        self.running.pool.max_client_conn
    }

    /// Returns whether `max_client_conn` and `spare` more are taken, of all connections.
    fn is_overrun(&self, spare: usize) -> bool {
        self.pooler.registry().client_count() > self.limit().saturating_add(spare)
    }

    /// Returns whether `max_client_conn` is taken: by others that have said that they want to log in, or are. A flood of cancel
    /// requests takes nobody's place.
    pub(super) fn is_full(&self) -> bool {
        let registry = self.pooler.registry();
        let of_no_session = [ClientState::Startup, ClientState::Cancelling, ClientState::Closing];
        let others: u32 = of_no_session.iter().map(|state| registry.lobby().clients(*state)).sum();
        registry.client_count().saturating_sub(others as usize) >= self.limit()
    }

    pub(super) fn too_many(&self) -> PoolError {
        PoolError::TooManyClients { limit: self.limit() }
    }

    /// Reads what is said in plain text. On a Unix socket all is: it does not leave the machine, and neither PostgreSQL nor
    /// PgBouncer has TLS there, whatever is required elsewhere.
    async fn plain(&self, io: &mut Ahead<Socket>) -> Result<Opening, PoolError> {
        if self.is_overrun(SPARE_CONNECTIONS) {
            return Err(self.too_many());
        }
        let encryption = match (&self.auth.tls, io.inner()) {
            (None, _) | (_, Socket::Unix(_)) => Encryption::Unavailable,
            (Some(_), Socket::Tcp(tcp)) if self.deadline.guard(begins_tls(tcp)).await? => {
                return Ok(Opening::Tls { direct: true });
            }
            (Some(ClientTls { mode, .. }), Socket::Tcp(_)) => Encryption::Offered { required: mode.is_required() },
        };
        match self.read(io, encryption).await? {
            First::Tls => Ok(Opening::Tls { direct: false }),
            first => Ok(Opening::Said(first)),
        }
    }

    async fn go_in_by_tls(mut self, io: Ahead<Socket>, direct: bool) {
        let mut io = match self.shake_hands(io, direct).await {
            Ok(io) => Ahead::new(io),
            // There is no channel to say it on.
            Err(error) => return self.note(&error),
        };
        match self.read(&mut io, Encryption::On).await {
            Ok(first) => self.go_in(io, first).await,
            Err(error) => self.refuse(&mut io, &error).await,
        }
    }

    async fn shake_hands(&mut self, io: Ahead<Socket>, direct: bool) -> Result<Accepted<Socket>, PoolError> {
        let io = io.into_inner().ok_or(PoolError::EarlyData)?;
        let Some(tls) = &self.auth.tls else { return Err(PoolError::Internal) };
        let accept = tls.accept.clone();
        let handshake = async move {
            let stream = accept.handshake(io).await;
            stream.map_err(|error| PoolError::TlsHandshake { why: error.to_string() })
        };
        let aside = self.pooler.handshakes.run(self.running.pool.threads, handshake);
        let stream = self.deadline.guard(async { aside.await? }).await?;
        let connection = stream.get_ref().1;
        if direct && connection.alpn_protocol().is_none() {
            let why = "direct TLS without ALPN (the client must ask for \"postgresql\")".to_owned();
            return Err(PoolError::TlsHandshake { why });
        }
        let told = UnderTls { end_point: tls.accept.end_point(), client_name: client_name(&stream) };
        self.client.set_tls(Suite::of(connection));
        self.tls = Some(told);
        Ok(stream)
    }

    async fn read<IO>(&self, io: &mut IO, encryption: Encryption) -> Result<First, PoolError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        read_first(io, &self.running.pool.ignore_startup_parameters, encryption, self.deadline).await
    }

    /// Lets the peer in, or says why not.
    async fn go_in<IO>(self, mut io: Ahead<IO>, first: First)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match admit(&self, &mut io, first).await {
            Ok(Some(Admitted { pool, state, early })) => {
                let Self { pooler, client, .. } = self;
                client.set_control(Arc::new(Control::default()));
                pooler.drain.spawn(Session::new(io.into_parts().0, client, pool, state, early).run());
            }
            Ok(None) => self.client.transition(ClientState::Closing, Instant::now()),
            Err(error) => self.refuse(&mut io, &error).await,
        }
    }

    async fn refuse<IO>(&self, io: &mut IO, error: &PoolError)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.note(error);
        Box::pin(refuse(io, error)).await;
    }

    fn note(&self, error: &PoolError) {
        self.client.transition(ClientState::Closing, Instant::now());
        self.pooler.metrics.error(error.kind());
        let (client, peer) = (self.client.id(), self.client.peer());
        // Who hung up, and what was never a client, is nothing to tell of.
        if self.running.pool.access.log.pooler_errors && *error != PoolError::ClientGone {
            let (user, database) = self.asked.get().map(|asked| (&*asked.0, &*asked.1)).unzip();
            tracing::info!(client, %peer, user, database, %error, "login refused");
        } else {
            tracing::debug!(client, %peer, %error, "login refused");
        }
    }
}

/// Waits for the first byte and leaves it in the socket.
async fn begins_tls(io: &TcpStream) -> Result<bool, PoolError> {
    let mut first = [0];
    match io.peek(&mut first).await {
        Ok(1) => Ok(first[0] == TLS_HANDSHAKE),
        _ => Err(PoolError::ClientGone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is made, wrapped, put on the heap and overwritten at its end: each of these copies all of it.
    #[test]
    fn a_login_is_small() {
        fn size_of<F: Future>(_make: fn(Arc<Pooler>, Socket, Peer) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size_of(serve);
        assert!(size <= 4608, "{size} bytes");
    }
}
