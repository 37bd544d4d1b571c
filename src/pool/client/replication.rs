//! A replication connection: a client and a server connection of its own, and bytes between them.
//!
//! What flows there (CopyBoth, or the commands around it) has no boundary at which the server could serve another, so there is
//! nothing to pool and nothing to understand: the server connection is opened for this client, with its startup parameters,
//! and closed with it. It counts in `max_db_connections` and `max_user_connections` as any other, and idle connections of
//! pools give way to it. As in PgBouncer since 1.23, whatever the pool's mode is.
//!
//! Told to leave, it is not waited for: a standby or subscriber takes up again where it was. It is told so behind the message
//! that it is being sent, if that comes to its end within [`LAST_WORDS`]. PAUSE does not wait for it.

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
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
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
    wire::frame::HEADER_LEN,
};

/// How often one that waits looks whether it may open its connection.
const LOOK: Duration = Duration::from_millis(100);
/// How long the end of a message is waited for behind which the client is told that it must go.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes read of the server at once.
const CHUNK_LEN: usize = 16 * 1024;

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
        let (tell, told) = oneshot::channel();
        let asked = async {
            let _ = tell.send(self.client.asked_to_leave(Leave::Draining).await);
            sleep(LAST_WORDS).await;
        };
        let left = tokio::select! {
            left = self.carry(io, &mut stream, told) => left,
            () = asked => Err(PoolError::ClientGone),
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

    /// Carries bytes both ways until one side ends, or the client is `told` to leave.
    async fn carry<IO>(
        &self,
        io: &mut IO,
        stream: &mut ServerStream,
        told: oneshot::Receiver<Leave>,
    ) -> Result<(), PoolError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stats = &self.pool.stats;
        let (from_client, to_client) = io::split(io);
        let (from_server, mut to_server) = io::split(stream);
        let mut from_client = Counted { io: from_client, count: &stats.received };
        let from_server = Counted { io: from_server, count: &stats.sent };
        // How it ends is the same for both: the other one is closed.
        tokio::select! {
            _ = io::copy(&mut from_client, &mut to_server) => Ok(()),
            left = answers(from_server, to_client, told) => left,
        }
    }
}

/// Carries what the server says until it ends, or the client is `told` to leave and stands between two messages.
async fn answers<R, W>(mut from: R, mut to: W, mut told: oneshot::Receiver<Leave>) -> Result<(), PoolError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK_LEN];
    let (mut position, mut leave) = (Position::default(), None);
    loop {
        if let Some(leave) = leave.filter(|_| position.is_between()) {
            return Err(farewell(leave));
        }
        let read = tokio::select! {
            biased;
            asked = &mut told, if leave.is_none() => {
                leave = Some(asked.unwrap_or(Leave::Draining));
                continue;
            }
            read = from.read(&mut chunk) => read,
        };
        let Ok(read @ 1..) = read else { return Ok(()) };
        let len = position.advance(&chunk[..read], leave.is_some());
        let written = async {
            to.write_all(&chunk[..len]).await?;
            to.flush().await
        };
        written.await.map_err(|_| PoolError::ClientGone)?;
    }
}

/// Where a stream stands in its messages.
#[derive(Debug, Default)]
struct Position {
    /// Of the header it stands in, as far as it has come.
    header: [u8; HEADER_LEN],
    come: usize,
    /// What is to come of the body.
    left: usize,
}

impl Position {
    fn is_between(&self) -> bool {
        self.come == 0 && self.left == 0
    }

    /// Goes on over `bytes`, or to the end of the message at hand (`one`). Returns how far.
    fn advance(&mut self, bytes: &[u8], one: bool) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            taken += self.step(&bytes[taken..]);
            if one && self.is_between() {
                break;
            }
        }
        taken
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let body = self.left.min(bytes.len());
            self.left -= body;
            return body;
        }
        let head = (HEADER_LEN - self.come).min(bytes.len());
        self.header[self.come..self.come + head].copy_from_slice(&bytes[..head]);
        self.come += head;
        if self.come == HEADER_LEN {
            let [_, length @ ..] = self.header;
            self.come = 0;
            self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
        }
        head
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::wire::frame;

    fn messages() -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, b'd', |out| out.extend_from_slice(&[7; 300]));
        frame::write(&mut bytes, b'c', |_| {});
        frame::write(&mut bytes, b'd', |out| out.extend_from_slice(&[8; 20]));
        bytes
    }

    #[test]
    fn a_stream_is_between_two_messages_however_it_was_cut() {
        let ends = [305, 310, 335];
        for piece in 1..400 {
            let (mut position, mut come) = (Position::default(), 0);
            for bytes in messages().chunks(piece) {
                come += position.advance(bytes, false);
                assert_eq!(position.is_between(), ends.contains(&come), "{come} in pieces of {piece}");
            }
        }
    }

    /// What the client has got, and how it ended; `first` had come when it was told to leave.
    async fn told_after(first: usize) -> (Vec<u8>, Result<(), PoolError>) {
        let (server, mut says) = io::duplex(64);
        let (client, mut gets) = io::duplex(1024);
        let (tell, told) = oneshot::channel();
        let carried = tokio::spawn(answers(server, client, told));
        says.write_all(&messages()[..first]).await.unwrap();
        let mut got = vec![0; first];
        gets.read_exact(&mut got).await.unwrap();
        tell.send(Leave::Draining).unwrap();
        let rest = messages();
        let _ = says.write_all(&rest[first..]).await; // nobody reads it all
        let end = carried.await.unwrap();
        gets.read_to_end(&mut got).await.unwrap();
        (got, end)
    }

    #[tokio::test]
    async fn who_must_leave_gets_the_message_at_hand_whole_and_no_more() {
        for (first, end) in [(305, 305), (310, 310), (1, 305), (100, 305), (306, 310), (312, 335)] {
            let (got, left) = told_after(first).await;
            assert_eq!((got.len(), left), (end, Err(PoolError::Shutdown)), "told after {first}");
        }
    }
}
