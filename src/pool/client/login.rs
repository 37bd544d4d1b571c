//! From what a peer wants to a session: proof, database, welcome.
//!
//! A cancel request is carried out at any load and never answered. Everybody else must fit into `max_client_conn`; the
//! console has a few places of its own, because it is needed most when the rest are taken. Nothing is said about databases
//! before the client has proven who it is.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{
    ahead::Ahead,
    arrival::Arrival,
    replication::Replicating,
    scratch::Scratch,
    session::{farewell, more},
    startup::{First, Replication, StartupRequest},
    welcome::welcome,
};
use crate::{
    config::pool as config,
    pool::{
        auth::{Authenticated, Claim, Origin, Random, authenticate, throttle::Gate},
        cancel,
        console::{self, Rights, rows::Source},
        database::{Pool, Running},
        error::PoolError,
        lease::Patience,
        lookup::Finder,
        pooler::Pooler,
        registry::{ClientEntry, ClientHandle, ClientState, Leave, Of, Place},
        relay::ClientState as RelayState,
        rules,
        server::pooled::Welcome,
        wire::backend,
    },
};

/// The protocol's minor version from which on cancel keys are long.
const LONG_KEYS: u32 = 2;

/// What the console tells about itself as a server. Drivers parse `server_version`.
const CONSOLE_PARAMS: [(&str, &str); 7] = [
    ("server_version", concat!("1.26.1/bookend-", env!("CARGO_PKG_VERSION"))),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];

/// A client that may begin.
pub(super) struct Admitted {
    pub pool: Arc<Pool>,
    pub state: RelayState,
    pub early: Option<Scratch>,
}

/// Returns `None` when the connection has served its purpose: a cancel request, a console session.
pub(super) async fn admit<IO>(
    arrival: &Arrival,
    io: &mut Ahead<IO>,
    first: First,
) -> Result<Option<Admitted>, PoolError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Arrival { pooler, client, .. } = arrival;
    let request = match first {
        First::Cancel { pid, secret } => {
            client.transition(ClientState::Cancelling, Instant::now());
            Box::pin(cancel::carry_out(pooler, pid, &secret)).await;
            return Ok(None);
        }
        First::Startup(request) => request,
        First::Tls => return Err(PoolError::Internal),
    };
    if request.minor >= LONG_KEYS {
        client.set_long_key();
    }
    let for_console = request.database == console::DATABASE;
    if pooler.drain.is_closed() {
        return Err(PoolError::Shutdown);
    }
    if !for_console && arrival.is_full() {
        return Err(arrival.too_many());
    }
    client.transition(ClientState::Authenticating, Instant::now());
    let _ = arrival.asked.set((request.user.clone(), request.database.clone()));
    if for_console && is_own_operator(client, &request) {
        note_login(arrival, &request);
        Box::pin(console_session(pooler, io, client, &request.user, Some(Rights::Admin))).await?;
        return Ok(None);
    }
    let authenticated = prove(arrival, io, &request).await?;
    // What is in force by now: a login of before a reload must not lead the pool back to what was.
    let running = &*pooler.running.load_full();
    if for_console {
        note_login(arrival, &request);
        Box::pin(console_session(pooler, io, client, &authenticated.user, None)).await?;
        return Ok(None);
    }
    let database = pooler.database(&request.database);
    let database = database.ok_or_else(|| PoolError::NoDatabase { database: request.database.clone() })?;
    if database.is_disabled() {
        return Err(PoolError::DatabaseDisabled { database: request.database });
    }
    client.keep(places(pooler, running, &database.config.load(), &authenticated.user)?);
    let pool = database.enter(client, &authenticated, running, &pooler.shared);
    let name = application_name(&request, client, running.pool.sessions.application_name_add_host);
    client.set_application_name(name.unwrap_or_default().as_bytes());
    if pooler.known(&database.name).is_none_or(|known| !Arc::ptr_eq(&known, &database)) {
        // A reload has taken it away meanwhile.
        return Err(PoolError::NoDatabase { database: request.database });
    }
    if let Some(kind) = request.replication {
        note_login(arrival, &request);
        let replicating = Replicating { pooler, client, database: &database, pool: &pool };
        Box::pin(replicating.serve(io, kind, &request)).await?;
        return Ok(None);
    }
    let (known, early) = match pool.welcome() {
        Some(known) => (known, io.rest()),
        None => Box::pin(first_welcome(&pool, io, client)).await?,
    };
    let state = greet(pooler, io, client, &known, &request).await?;
    pool.logged_in();
    note_login(arrival, &request);
    client.transition(ClientState::Idle, Instant::now());
    if pooler.drain.is_draining() {
        // The others were told before this one was there.
        client.ask_to_leave(Leave::Draining);
    }
    Ok(Some(Admitted { pool, state, early }))
}

/// Takes the client's places among those of its database and of its user.
fn places(
    pooler: &Pooler,
    running: &Running,
    database: &config::Database,
    user: &str,
) -> Result<[Place; 2], PoolError> {
    let registry = pooler.registry();
    let limit = rules::database_clients(&running.pool, database);
    let in_database = registry.tally(Of::Database, &database.name).take(limit);
    let in_database = in_database.ok_or(PoolError::TooManyDatabaseClients { limit: limit.unwrap_or(u32::MAX) })?;
    let limit = rules::user_clients(&running.pool, running.users.get(user));
    let of_user = registry.tally(Of::User, user).take(limit);
    let of_user = of_user.ok_or(PoolError::TooManyUserClients { limit: limit.unwrap_or(u32::MAX) })?;
    Ok([in_database, of_user])
}

/// Whoever runs processes as our own user could read our files and our memory as well; PgBouncer lets such a one in as
/// `pgbouncer`, and the kernel vouches for it.
fn is_own_operator(client: &ClientHandle, request: &StartupRequest) -> bool {
    request.user == console::DATABASE && client.peer().is_own_user()
}

/// Lets the client prove who it is. An address that has failed too often is not heard.
async fn prove<IO>(arrival: &Arrival, io: &mut IO, request: &StartupRequest) -> Result<Authenticated, PoolError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Arrival { pooler, client, deadline, tls, .. } = arrival;
    // Not what was in force when it connected: that may be a minute and a reload ago.
    let (running, auth) = (pooler.running.load_full(), pooler.auth.load_full());
    let access = &running.pool.access;
    let address = client.peer().ip();
    let gate = Gate { throttle: &pooler.throttle, address, limit: access.failure_limit, window: access.failure_window };
    gate.pass(Instant::now())?;
    let claim = Claim {
        user: &request.user,
        database: &request.database,
        // The console has none: a rule for replication lets nobody in there.
        replication: request.replication == Some(Replication::Physical) && request.database != console::DATABASE,
        origin: match address {
            Some(address) => Origin::Address(address),
            None => Origin::Socket { uid: client.peer().credentials().map(|credentials| credentials.uid) },
        },
        tls: tls.as_ref(),
        gate,
    };
    let directory = Finder { pooler: pooler.clone(), running: running.clone() };
    let random = Random::draw(&mut rand::rng());
    let proven = authenticate(io, &claim, &auth, &directory, random, *deadline).await;
    if let Err(PoolError::Authentication { .. } | PoolError::Identity { .. }) = &proven {
        // What others have failed meanwhile counts first: then this guess is not answered either.
        gate.pass(Instant::now())?;
        if gate.failed(Instant::now()) {
            let peer = client.peer();
            tracing::warn!(%peer, "auth_failure_limit: the address is refused until its window is over");
        }
    }
    proven
}

fn note_login(arrival: &Arrival, request: &StartupRequest) {
    if arrival.running.pool.access.log.connections {
        let (client, peer, tls) = (arrival.client.id(), arrival.client.peer(), arrival.client.tls().describe());
        tracing::info!(client, %peer, user = request.user, database = request.database, tls, "client logged in");
    }
}

/// Returns what the pool's servers tell of themselves. A cold pool opens one first (PgBouncer's welcome_msg), which the
/// client waits for as for any lease, but not for a login that the server refuses for good. What the client sends meanwhile
/// is kept; that it left is noticed.
async fn first_welcome<IO>(
    pool: &Pool,
    io: &mut Ahead<IO>,
    client: &ClientHandle,
) -> Result<(Arc<Welcome>, Option<Scratch>), PoolError>
where
    IO: AsyncRead + Unpin,
{
    let mut early = io.rest().unwrap_or_else(Scratch::take);
    let mut waiting = pool.store.wait(client.id(), Patience::UntilRefused, Instant::now());
    let lease = loop {
        tokio::select! {
            biased;
            lease = waiting.served() => break lease?,
            leave = client.asked_to_leave(Leave::Draining) => return Err(farewell(leave)),
            here = more(io.inner_mut(), &mut early) => if !here { return Err(PoolError::ClientGone) },
        }
    };
    lease.release(Instant::now());
    let welcome = pool.welcome().ok_or(PoolError::Internal)?;
    Ok((welcome, (!early.is_empty()).then_some(early)))
}

/// Returns what a client calls itself, with where it is if that is asked for: as PgBouncer writes it.
fn application_name<'a>(request: &'a StartupRequest, client: &ClientHandle, add_host: bool) -> Option<Cow<'a, str>> {
    let name = request.setting("application_name");
    match add_host {
        true => Some(format!("{} - {}", name.unwrap_or("app"), client.peer()).into()),
        false => name.map(Cow::Borrowed),
    }
}

/// Sends everything up to ReadyForQuery and returns the session's state.
async fn greet<IO>(
    pooler: &Pooler,
    io: &mut IO,
    client: &ClientHandle,
    known: &Welcome,
    request: &StartupRequest,
) -> Result<RelayState, PoolError>
where
    IO: AsyncWrite + Unpin,
{
    let running = pooler.running.load_full();
    let name = application_name(request, client, running.pool.sessions.application_name_add_host);
    let settings = request.settings().chain(name.as_deref().map(|name| ("application_name", name)));
    let requested = settings.map(|(name, value)| (name, value.as_bytes()));
    let state = RelayState::new(&known.tracked, requested, &running.pool.track_extra_parameters, &pooler.statements)?;
    let mut out = Vec::with_capacity(1024);
    let told: Vec<(&str, &[u8])> = state.params().map(|(name, value)| (name, &**value)).collect();
    let others = known.params.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let others = others.filter(|(name, _)| !told.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
    welcome(&mut out, others.chain(told.iter().copied()), client);
    io.write_all(&out).await.map_err(|_| PoolError::ClientGone)?;
    io.flush().await.map_err(|_| PoolError::ClientGone)?;
    Ok(state)
}

/// A whole console session. `rights` are those of one who needed no proof, and of the configuration otherwise.
async fn console_session<IO>(
    pooler: &Arc<Pooler>,
    io: &mut IO,
    client: &ClientHandle,
    user: &str,
    rights: Option<Rights>,
) -> Result<(), PoolError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let pool = pooler.running.load().pool.clone();
    let mut out = Vec::with_capacity(512);
    if rights.is_some() {
        backend::authentication_ok(&mut out);
    }
    let rights = rights.or_else(|| Rights::of(user, &pool.admin_users, &pool.stats_users));
    let rights = rights.ok_or_else(|| PoolError::ConsoleDenied { user: user.to_owned() })?;
    client.identify(pooler.registry().group(&console::DATABASE.into(), &user.into()));
    let params = CONSOLE_PARAMS.map(|(name, value)| (name, value.as_bytes()));
    welcome(&mut out, params, client);
    io.write_all(&out).await.map_err(|_| PoolError::ClientGone)?;
    io.flush().await.map_err(|_| PoolError::ClientGone)?;
    client.transition(ClientState::Idle, Instant::now());
    let source: Arc<dyn Source> = pooler.clone();
    tokio::select! {
        served = console::serve(io, &*source, rights) => served.map_err(|_| PoolError::ClientGone),
        // The console watches a drain: it stays until the time is over.
        leave = client.asked_to_leave(Leave::Killed) => Err(farewell(leave)),
        () = last_one(pooler) => Err(PoolError::Shutdown),
    }
}

/// How often a console that watches a shutdown looks whether anybody else is left.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Waits until the pool is being left and nobody but consoles is here: they must not hold it back. Cancel safe.
async fn last_one(pooler: &Pooler) {
    pooler.drain.clone().closed().await;
    loop {
        // First of all, so that whoever has sent it away gets an answer.
        tokio::time::sleep(LOOK_AGAIN).await;
        let is_console =
            |client: &Arc<ClientEntry>| client.group().is_some_and(|group| &*group.database == console::DATABASE);
        if pooler.registry().clients().iter().all(is_console) {
            return;
        }
    }
}
