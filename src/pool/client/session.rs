//! A logged-in client: idle, waiting, active, idle again, until it leaves or must.
//!
//! Between transactions a client is this small future and its socket: no buffer, no server, nothing that belongs to one.
//! The first bytes of a request are read before a server is leased for them, and what needs no server gets none: a Sync by
//! itself is answered here, Terminate ends quietly, and a message that is none is refused. Everything else is the relay's.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{notice::Notice, refuse::refuse, scratch::Scratch};
use crate::pool::{
    database::Pool,
    error::PoolError,
    lease::{Lease, Patience, Refusal},
    notify::{Mailbox, Post},
    registry::{ClientHandle, ClientState, Leave, ServerState},
    relay::{self, Fate, Given, MAIL_MAX, Outcome, Untaken},
    rules::Rules,
    server::pooled::{Connector, Server},
    wire::{
        backend::{self, TxStatus},
        frame::{HEADER_LEN, Header, HeaderError},
        tag::frontend as tag,
    },
};

/// What puts a server that was a client's beyond a transaction back into the state of a new one.
const DISCARD: &str = "DISCARD ALL";

/// One client from its login to its end.
pub struct Session<IO> {
    io: IO,
    client: ClientHandle,
    pool: Arc<Pool>,
    state: relay::ClientState,
    /// What has been read of a request that is not there yet: less than a header, or what came before the login was over.
    early: Option<Scratch>,
    /// As of the last request, with their age.
    rules: (u32, Arc<Rules>),
}

/// How an idle client's wait ended.
enum Woken {
    Request(Scratch),
    Gone,
    Asked(Leave),
    /// Notifications wait, or were missed.
    Mail,
    TooLong(Duration),
}

/// How a transaction ended, as far as the client is concerned.
enum Next {
    Idle,
    /// The client has left, or has been told why it must.
    Over,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<IO> {
    /// Returns a session that is idle; `early` is what has been read of it beyond its login.
    pub fn new(
        io: IO,
        client: ClientHandle,
        pool: Arc<Pool>,
        state: relay::ClientState,
        early: Option<Scratch>,
    ) -> Self {
        // The age first: rules that come in between are only read once more.
        let rules = (pool.rules_age.load(Ordering::Acquire), pool.rules.load_full());
        Self { io, client, pool, state, early, rules }
    }

    /// Serves the client until it leaves. What it must be told at the end it is told here.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps `self` twice, as argument and as variable")]
    pub fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let end = self.serve().await;
            self.client.transition(ClientState::Closing, Instant::now());
            self.note_end();
            if let Err(error) = end {
                self.refused(&error);
                // On the heap: an idle client's future has no room for last words.
                Box::pin(refuse(&mut self.io, &error)).await;
            }
        }
    }

    async fn serve(&mut self) -> Result<(), PoolError> {
        loop {
            let request = match self.idle().await {
                Woken::Request(request) => Some(request),
                Woken::Mail => None,
                Woken::Gone => return Ok(()),
                Woken::Asked(leave) => return Err(farewell(leave)),
                Woken::TooLong(limit) => return Err(PoolError::ClientIdleTimeout { limit }),
            };
            // On the heap while it lasts: the relay's future is many times the size of an idle client.
            if let Next::Over = Box::pin(self.request(request)).await? {
                return Ok(());
            }
        }
    }

    /// Waits for the beginning of a request: a whole header. Cancel safe.
    async fn idle(&mut self) -> Woken {
        if let Some(early) = self.early.take_if(|early| early.len() >= HEADER_LEN) {
            return Woken::Request(early);
        }
        let mut late = pin!(too_long(self.rules().client_idle_timeout));
        let Self { io, early, client, state, .. } = self;
        poll_fn(|cx| {
            // Before the request: those may go on for ever.
            if let Poll::Ready(leave) = client.poll_leave(cx, Leave::Draining) {
                return Poll::Ready(Woken::Asked(leave));
            }
            // Who puts something in rings, which wakes this task; after the look above, which lets it be woken.
            if state.mailbox().is_some_and(Mailbox::is_waiting) {
                return Poll::Ready(Woken::Mail);
            }
            loop {
                let mut scratch = early.take().unwrap_or_else(Scratch::take);
                match scratch.fill(|buf| Pin::new(&mut *io).poll_read(cx, buf)) {
                    Some((Poll::Ready(Ok(())), added)) if added > 0 => {
                        if scratch.len() >= HEADER_LEN {
                            return Poll::Ready(Woken::Request(scratch));
                        }
                        *early = Some(scratch);
                    }
                    Some((Poll::Pending, _)) => {
                        // Nothing to read: the buffer goes back to the thread, unless half a header is in it.
                        *early = (!scratch.is_empty()).then_some(scratch);
                        return late.as_mut().poll(cx).map(Woken::TooLong);
                    }
                    _ => return Poll::Ready(Woken::Gone),
                }
            }
        })
        .await
    }

    /// Returns the rules as they are now. Kept from one request to the next, and read again when they were changed.
    fn rules(&mut self) -> &Arc<Rules> {
        let age = self.pool.rules_age.load(Ordering::Acquire);
        if self.rules.0 != age {
            self.rules = (age, self.pool.rules.load_full());
        }
        &self.rules.1
    }

    /// Gives the client what it listens to. Who has missed something must not go on.
    async fn hand_mail(&mut self) -> Result<(), PoolError> {
        let mut mail = Vec::new(); // bound: MAIL_MAX and one message
        self.state.take_mail(&mut mail, MAIL_MAX);
        if mail.is_empty() {
            return self.state.missed().map_or(Ok(()), Err);
        }
        self.tell(mail).await
    }

    /// Serves what has come: here as far as it needs no server, and with one for the rest. Without a request it is what the
    /// client listens to.
    async fn request(&mut self, request: Option<Scratch>) -> Result<Next, PoolError> {
        let Some(mut request) = request else {
            Box::pin(self.hand_mail()).await?;
            return Ok(Next::Idle);
        };
        self.answer_alone(&mut request).await?;
        if request.len() < HEADER_LEN {
            self.early = (!request.is_empty()).then_some(request);
            return Ok(Next::Idle);
        }
        self.transaction(request).await
    }

    /// Answers what needs no server at the front of `scratch` and takes it out: Sync, and Flush, which asks for nothing. A
    /// client that does not take the answers is let go without a word, which it would not take either.
    async fn answer_alone(&mut self, scratch: &mut Scratch) -> Result<(), PoolError> {
        let mut answers = Vec::new();
        loop {
            match **scratch {
                [tag::SYNC, 0, 0, 0, 4, ..] => backend::ready_for_query(&mut answers, TxStatus::Idle),
                [tag::FLUSH, 0, 0, 0, 4, ..] => {}
                _ => break,
            }
            scratch.consume(HEADER_LEN);
        }
        if answers.is_empty() {
            return Ok(());
        }
        Box::pin(self.tell(answers)).await
    }

    async fn tell(&mut self, answers: Vec<u8>) -> Result<(), PoolError> {
        let limit = self.pool.rules.load().client_idle_timeout;
        let io = &mut self.io;
        let told = async {
            io.write_all(&answers).await?;
            io.flush().await
        };
        tokio::select! {
            told = told => told.map_err(|_| PoolError::ClientGone),
            _ = self.client.asked_to_leave(Leave::Draining) => Err(PoolError::ClientGone),
            _ = too_long(limit) => Err(PoolError::ClientGone),
        }
    }

    /// One lease: from the first bytes of a request to the boundary at which the server is given back.
    async fn transaction(&mut self, mut request: Scratch) -> Result<Next, PoolError> {
        let rules = self.rules().clone();
        match Header::peek(&request, rules.limits.max_packet_size) {
            Ok(Some(Header { tag: tag::TERMINATE, .. })) => return Ok(Next::Over),
            Ok(Some(Header { tag: tag::QUERY, .. })) if rules.limits.disable_pqexec => {
                return Err(PoolError::SimpleQuery);
            }
            Ok(_) => {}
            Err(error) => return Err(garbled(error)),
        }
        let began = Instant::now();
        let (mut lease, leased, untold) = match self.pool.store.try_lease(self.client.id(), began) {
            Some(lease) => (lease, began, Vec::new()),
            // On the heap: hardly any lease is waited for.
            None => match Box::pin(self.wait(&mut request, began, rules.query_wait_notify)).await? {
                Some(served) => served,
                None => return Ok(Next::Over),
            },
        };
        self.client.transition(ClientState::Active, leased);
        self.pool.assigned(leased.saturating_duration_since(began));
        self.client.set_link(Some(lease.entry().clone()));

        let server = lease.connection();
        let listening = &rules.notifications;
        let (hub, client, channels_max) = (&self.pool.hub, self.client.entry(), listening.channels_max);
        let post = Post { hub, client, channels_max };
        let given = Given {
            now: leased,
            limits: &rules.limits,
            stats: &self.pool.stats,
            control: self.client.control().ok_or(PoolError::Internal)?,
            spill: &self.pool.spill,
            untold,
            post: listening.fan_out.then_some(&post),
        };
        let (outcome, over) =
            relay::run(&mut self.io, &request, &mut self.state, &mut server.stream, &mut server.state, given).await;
        drop(request);

        self.client.set_link(None);
        self.pool.metrics.transaction(over.saturating_duration_since(leased));
        self.note(&mut lease);
        match outcome {
            Outcome::Released { server } => {
                self.finish(lease, server, &rules, over).await;
                self.client.transition(ClientState::Idle, over);
                self.note_loss(server);
                self.next()
            }
            Outcome::Spilled { server, untaken } => {
                self.note_loss(server);
                self.client.transition(ClientState::Idle, over);
                self.finish(lease, server, &rules, over).await;
                match Box::pin(self.hand_over(*untaken)).await {
                    Next::Idle => self.next(),
                    Next::Over => Ok(Next::Over),
                }
            }
            Outcome::Left { server } => {
                // Closed before the server is looked after: the client does not wait for that.
                self.hang_up();
                self.client.transition(ClientState::Closing, over);
                self.finish(lease, server, &rules, over).await;
                Ok(Next::Over)
            }
            Outcome::Ended { error } => {
                self.refused(&error);
                drop(lease);
                Ok(Next::Over)
            }
        }
    }

    /// A server was taken at a boundary. A client that kept it past boundaries was asked to leave, and must not go on without
    /// what it has left there.
    fn note_loss(&mut self, server: Fate) {
        if matches!(server, Fate::Discard | Fate::Close) {
            self.state.bereave();
        }
    }

    fn next(&self) -> Result<Next, PoolError> {
        match self.state.is_bereft() {
            true => Err(self.state.missed().unwrap_or_else(|| farewell(self.client.leave()))),
            false => Ok(Next::Idle),
        }
    }

    /// Lets the client take the rest of an answer whose server has gone back. Its next request waits until it has. Who is asked
    /// to go at the next boundary may take it first; who takes nothing for `client_idle_timeout` has been idle for so long.
    async fn hand_over(&mut self, mut untaken: Untaken) -> Next {
        let limit = self.pool.rules.load().client_idle_timeout;
        let error = loop {
            let io = &mut self.io;
            tokio::select! {
                taken = poll_fn(|cx| untaken.poll_take(cx, io)) => match taken {
                    Ok(false) => {}
                    Ok(true) if !untaken.is_last() => return Next::Idle,
                    Ok(true) | Err(_) => return Next::Over,
                },
                leave = self.client.asked_to_leave(Leave::Killed) => break farewell(leave),
                limit = too_long(limit) => break PoolError::ClientIdleTimeout { limit },
            }
        };
        self.refused(&error);
        untaken.refuse(&mut self.io, &error).await;
        Next::Over
    }

    /// Waits for a server; returns when it came, and what the client is to be told first. `None` when the client left
    /// meanwhile. Once for `notify` it is told that it waits.
    async fn wait(
        &mut self,
        request: &mut Scratch,
        now: Instant,
        notify: Option<Duration>,
    ) -> Result<Option<(Lease<Connector>, Instant, Vec<u8>)>, PoolError> {
        self.client.transition(ClientState::Waiting, now);
        let mut waiting = self.pool.store.wait(self.client.id(), Patience::UntilTimeout, now);
        let mut notice = Notice::new(notify);
        let refused = loop {
            let io = &mut self.io;
            let client = poll_fn(|cx| {
                notice.poll(cx, io);
                poll_more(cx, io, request)
            });
            tokio::select! {
                // A server that has come is taken before anything else is looked at.
                biased;
                served = waiting.served() => match served {
                    Ok(lease) => return Ok(Some((lease, Instant::now(), notice.into_rest()))),
                    Err(refusal) => break refusal.into(),
                },
                // Weaker than this is draining: who waits then is still served, until the deadline.
                leave = self.client.asked_to_leave(Leave::DatabaseRemoved) => break farewell(leave),
                here = client => if !here { return Ok(None) },
            }
        };
        // Nothing can be said in the middle of something else.
        Err(if notice.is_half_told() { PoolError::ClientGone } else { refused })
    }

    /// Closes our direction as far as that goes without waiting. TLS has a last word of its own, and a client that takes
    /// nothing more must not keep the server until it does.
    fn hang_up(&mut self) {
        let _ = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }

    /// Gives the server back if it is fit for the next client, and closes it otherwise.
    async fn finish(&mut self, mut lease: Lease<Connector>, fate: Fate, rules: &Rules, now: Instant) {
        let again = renewal(&mut lease, rules).is_some();
        match (fate, &rules.reset_query) {
            (Fate::Close, _) => drop(lease),
            (Fate::Reusable, None) if !again => lease.release(now),
            // On the heap: a lease is seldom over like this.
            (Fate::Reusable | Fate::Rollback | Fate::Discard, _) => Box::pin(clean(lease, fate, rules, now)).await,
        }
    }

    /// Counts and logs what the client is told at its end.
    fn refused(&self, error: &PoolError) {
        self.pool.refused(error);
        let (client, peer, group) = (self.client.id(), self.client.peer(), &self.pool.group);
        if self.pool.rules.load().log.pooler_errors && *error != PoolError::ClientGone {
            tracing::info!(client, %peer, user = %group.user, database = %group.database, %error, "client refused");
        } else {
            tracing::debug!(client, %peer, %error, "client refused");
        }
    }

    fn note_end(&self) {
        if self.pool.rules.load().log.disconnections {
            let (client, peer, group) = (self.client.id(), self.client.peer(), &self.pool.group);
            let age = self.client.connected_at().elapsed().unwrap_or_default().as_secs();
            tracing::info!(client, %peer, user = %group.user, database = %group.database, age, "client disconnected");
        }
    }

    /// Copies what pages show. Names are looked at when one of them may have changed.
    fn note(&mut self, lease: &mut Lease<Connector>) {
        let renamed = self.state.take_renamed();
        self.client.set_prepared_statements(self.state.prepared());
        let server = &lease.connection().state;
        let (prepared, name) = (server.prepared(), renamed.then(|| server.application_name().to_vec()));
        lease.entry().set_prepared_statements(prepared);
        if let Some(name) = name {
            lease.entry().set_application_name(&name);
            self.client.set_application_name(self.state.param("application_name").unwrap_or_default());
        }
    }
}

/// Returns `connect_query` if it must run again before the next client: what resets settings takes what it has set with it.
fn renewal<'a>(lease: &mut Lease<Connector>, rules: &'a Rules) -> Option<&'a str> {
    let query = rules.connect_query.as_deref()?;
    (rules.reset_query.is_some() || lease.connection().state.is_changed()).then_some(query)
}

/// Rolls back what a client left open, runs `server_reset_query`, and gives the server back; closes it when that fails.
async fn clean(mut lease: Lease<Connector>, fate: Fate, rules: &Rules, now: Instant) {
    let deadline = now + rules.limits.rollback_timeout;
    let discarded = rules.connect_query.as_deref().filter(|_| fate == Fate::Discard);
    let again = renewal(&mut lease, rules).or(discarded);
    lease.entry().transition(ServerState::Resetting);
    let Server { stream, state } = &mut **lease.connection();
    if state.tx() != TxStatus::Idle && !relay::recover(stream, state, deadline).await {
        return;
    }
    let discard = (fate == Fate::Discard).then_some(DISCARD);
    let own = rules.reset_query.as_deref().filter(|query| discard != Some(query));
    for query in discard.into_iter().chain(own) {
        if !relay::reset(stream, state, query, deadline).await {
            return;
        }
    }
    if let Some(query) = again
        && !relay::renew(stream, state, query, deadline).await
    {
        return;
    }
    let name = state.application_name().to_vec();
    lease.entry().set_application_name(&name);
    lease.release(Instant::now());
}

/// Ends when a client has done nothing for `limit`, which it returns. On the heap, and only where there is a limit: a timer is
/// larger than all the rest of an idle client.
fn too_long(limit: Option<Duration>) -> impl Future<Output = Duration> + Send {
    let mut timer = limit.map(|limit| {
        Box::pin(async move {
            tokio::time::sleep(limit).await;
            limit
        })
    });
    poll_fn(move |cx| match &mut timer {
        Some(timer) => timer.as_mut().poll(cx),
        None => Poll::Pending,
    })
}

/// Reads on while the client waits, to notice that it has left; what comes is part of its request. Returns false when it
/// has. Once the buffer is full nothing more is read, and a client that leaves then is noticed when it is served.
pub(super) async fn more<IO: AsyncRead + Unpin>(io: &mut IO, request: &mut Scratch) -> bool {
    poll_fn(|cx| poll_more(cx, io, request)).await
}

fn poll_more<IO: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut IO, request: &mut Scratch) -> Poll<bool> {
    if request.is_full() {
        return Poll::Pending;
    }
    match request.fill(|buf| Pin::new(io).poll_read(cx, buf)) {
        Some((polled, added)) => Poll::Ready(ready!(polled).is_ok() && added > 0),
        None => Poll::Pending,
    }
}

/// What a client is told whose bytes are no message.
fn garbled(error: HeaderError) -> PoolError {
    match error {
        HeaderError::TooShort { .. } => PoolError::Protocol { why: "message length is below the smallest possible" },
        HeaderError::TooLong { len, limit, .. } => {
            PoolError::PacketTooLarge { len: u64::from(len), limit: u64::from(limit) }
        }
    }
}

/// What a client is told that was asked to leave.
pub fn farewell(leave: Leave) -> PoolError {
    match leave {
        Leave::Killed => PoolError::Killed,
        Leave::DatabaseRemoved => PoolError::DatabaseRemoved,
        Leave::Stay | Leave::Draining | Leave::Cut => PoolError::Shutdown,
    }
}

impl From<Refusal> for PoolError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::WaitedTooLong { limit, login } => Self::QueryWaitTimeout { limit, login },
            Refusal::Login(error) => Self::ServerLogin(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle client is this future, its socket, its registry entry and its settings; 2.5 KB all together.
    #[test]
    fn an_idle_client_is_small() {
        fn size_of<T>(_make: fn(Session<crate::pool::socket::Socket>) -> T) -> usize {
            std::mem::size_of::<T>()
        }
        let size = size_of(Session::run);
        assert!(size <= 624, "{size} bytes");
    }
}
