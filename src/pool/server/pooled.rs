//! A server connection as the store keeps it, and how the store opens one.

use std::{io, mem::MaybeUninit, sync::Arc};

use arc_swap::ArcSwapOption;
use rand::Rng;
use socket2::SockRef;

use super::{
    connect::{self, Spec},
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
}

impl Connector {
    /// Returns a connector; each login leaves what it was told in `welcome`.
    pub fn new(spec: Spec, deriver: Arc<Deriver>, welcome: Arc<ArcSwapOption<Welcome>>) -> Self {
        Self { spec, deriver, welcome }
    }

    /// Keeps the welcome if it is news: it hardly ever is.
    fn learn(&self, params: Vec<(String, String)>, tracked: &Params) {
        if self.welcome.load().as_ref().is_none_or(|known| known.params != params) {
            self.welcome.store(Some(Arc::new(Welcome { params, tracked: tracked.clone() })));
        }
    }
}

impl Connect for Connector {
    type Connection = Server;

    async fn connect(&self, entry: &ServerEntry) -> Result<Server, ServerError> {
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let fresh = connect::open(&self.spec, &self.deriver, nonce).await?;
        let lost = |error: io::Error| ServerError::Connect { why: error.kind().to_string() };
        let (remote, local) = fresh.stream.addresses().map_err(lost)?;
        entry.set_address(remote, local, fresh.stream.suite(), fresh.key);
        let state = ServerState::new(fresh.params.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        self.learn(fresh.params, state.params());
        Ok(Server { stream: fresh.stream, state })
    }
}

impl Connection for Server {
    /// One `recv` that neither waits nor takes anything. Whatever can be read means that the connection ends or is out of
    /// step (with TLS too, whose records for us were all read by then; an ErrorResponse between queries "signifies probably dying backend", says PgBouncer's server.c); a changed
    /// parameter after a reload of PostgreSQL's configuration is the harmless exception, and costs a new login.
    fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let looked = SockRef::from(self.stream.socket()).recv_with_flags(&mut byte, flags);
        matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn farewell(&mut self) {
        let mut out = Vec::with_capacity(5);
        frontend::terminate(&mut out);
        // An idle connection's send buffer has room, and a server that is gone needs no goodbye.
        self.stream.try_write(&out);
    }
}
