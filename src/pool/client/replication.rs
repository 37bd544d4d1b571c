//! A replication connection: a client and a server connection of its own, and bytes between them.
//!
//! What flows there (CopyBoth, or the commands around it) has no boundary at which the server could serve another, so there is
//! nothing to pool and nothing to understand: the server connection is opened for this client, with its startup parameters,
//! and closed with it. It counts in `max_db_connections` and `max_user_connections` as any other, and idle connections of
//! pools give way to it. As in PgBouncer since 1.23, whatever the pool's mode is.
//!
//! Told to leave, it is cut at once: a standby or subscriber takes up again where it was. PAUSE does not wait for it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{self, AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep},
};

use super::{
    scratch::Scratch,
    session::{farewell, more},
    startup::{Replication, StartupRequest},
    welcome::welcome,
};
use crate::pool::{
    database::{Database, Pool},
    error::PoolError,
    lease::Permit,
    pooler::Pooler,
    registry::{ClientHandle, ClientState, Leave, ServerHandle, ServerState},
    relay::Control,
    server::{connect::Opened, stream::ServerStream},
};

/// How often one that waits looks whether it may open its connection.
const LOOK: Duration = Duration::from_millis(100);

/// A client that wants replication, logged in, and the pool it would be in.
pub(super) struct Replicating<'a> {
    pub pooler: &'a Pooler,
    pub client: &'a ClientHandle,
    pub database: &'a Database,
    pub pool: &'a Arc<Pool>,
}

impl Replicating<'_> {
    /// Serves it to its end.
    pub(super) async fn serve<IO>(
        &self,
        io: &mut IO,
        kind: Replication,
        request: &StartupRequest,
    ) -> Result<(), PoolError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let began = Instant::now();
        self.client.set_replication(kind);
        let mut early = Scratch::take();
        let opening = self.open(kind, request);
        let (_permit, server, mut stream, params) = tokio::select! {
            biased;
            leave = self.client.asked_to_leave(Leave::Draining) => return Err(farewell(leave)),
            () = gone(io, &mut early) => return Err(PoolError::ClientGone),
            opened = opening => opened?,
        };
        server.transition(ServerState::Leased);
        server.give_to(self.client.id(), Instant::now());
        self.client.set_link(Some(server.entry().clone()));
        self.client.set_control(Arc::new(Control::default()));
        let mut out = Vec::with_capacity(1024);
        let params = params.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        welcome(&mut out, params, self.client);
        let greeted = async {
            io.write_all(&out).await?;
            io.flush().await?;
            stream.write_all(&early).await?;
            stream.flush().await
        };
        greeted.await.map_err(|_| PoolError::ClientGone)?;
        drop(early);
        self.pool.logged_in();
        self.pool.assigned(began.elapsed());
        self.client.transition(ClientState::Idle, Instant::now());
        self.client.transition(ClientState::Active, Instant::now());
        tracing::info!(client = self.client.id(), peer = %self.client.peer(), kind = kind.word(), "replication begins");
        let left = tokio::select! {
            () = self.carry(io, &mut stream) => Ok(()),
            // There is no place between two messages for last words.
            _ = self.client.asked_to_leave(Leave::Draining) => Err(PoolError::ClientGone),
        };
        self.client.set_link(None);
        server.take_back();
        left
    }

    /// Opens the server connection, once there is room for it.
    async fn open(
        &self,
        kind: Replication,
        request: &StartupRequest,
    ) -> Result<(Permit, ServerHandle, ServerStream, Vec<(String, String)>), PoolError> {
        let permit = self.permit().await?;
        let server = self.pooler.registry().enter_server(self.pool.group.clone(), Instant::now());
        server.set_replication(kind);
        // Not what is set later, as for a pooled server: where no database is, there is no SET.
        let own = request.settings().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let params = own.chain([("replication".to_owned(), kind.parameter().to_owned())]).collect();
        let opened = self.pool.open_apart(params, &self.pooler.shared).await;
        let Opened { fresh, peer, endpoint, host } = opened.map_err(PoolError::ServerLogin)?;
        server.set_address(peer, endpoint, host.text, fresh.stream.suite(), fresh.key);
        Ok((permit, server, fresh.stream, fresh.params))
    }

    /// Waits until the database is not paused and its limits have room, at most `query_wait_timeout`.
    async fn permit(&self) -> Result<Permit, PoolError> {
        let limit = self.pool.rules.load().settings.query_wait_timeout;
        let began = Instant::now();
        loop {
            if let Some(permit) = self.pool.store.permit().filter(|_| !self.database.is_paused()) {
                return Ok(permit);
            }
            if let Some(limit) = limit.filter(|limit| began.elapsed() >= *limit) {
                return Err(PoolError::QueryWaitTimeout { limit, login: None });
            }
            sleep(LOOK).await;
        }
    }

    /// Carries bytes both ways until one side ends.
    async fn carry<IO>(&self, io: &mut IO, stream: &mut ServerStream)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stats = &self.pool.stats;
        let (from_client, mut to_client) = io::split(io);
        let (from_server, mut to_server) = io::split(stream);
        let mut from_client = Counted { io: from_client, count: &stats.received };
        let mut from_server = Counted { io: from_server, count: &stats.sent };
        // How it ends is the same for both: the other one is closed.
        tokio::select! {
            _ = io::copy(&mut from_client, &mut to_server) => {}
            _ = io::copy(&mut from_server, &mut to_client) => {}
        }
    }
}

/// Ends when the client has left. What it sends meanwhile is kept, and waits for its server.
async fn gone<IO: AsyncRead + Unpin>(io: &mut IO, early: &mut Scratch) {
    while more(io, early).await {}
}

/// A reader whose bytes are counted.
struct Counted<'a, R> {
    io: R,
    count: &'a AtomicU64,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.count.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}
