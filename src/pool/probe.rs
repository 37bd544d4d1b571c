//! The pool's own look at each database: does it serve, what is it, how full is its server.
//!
//! A probe asks with tokio-postgres over a session of its own, so that it neither waits in a pool's queue nor takes a
//! server from a client. bb8 keeps that one session between looks and drops it once it has broken. What is seen goes on
//! the board, where the front reads it; nothing here decides about leases.
//!
//! A look that is not answered in time is no failure while clients' queries were answered meanwhile: then it is the probe
//! (or this machine) that is starved, not the database, and refusing requests would make an outage of a load peak.
//!
//! While a database is paused its probe has no session and does not look: what was seen last stands, and the database can be
//! dropped, renamed or moved.
//!
//! A refusal by PostgreSQL itself can still prove that it serves: a password it does not accept (the probe may not know
//! one) or a full house (`53300`) comes from a living server. Starting up or shutting down (`57P03`) does not.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::{
    Client, Config, NoTls, SimpleQueryMessage,
    config::{SslMode, SslNegotiation},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::pool::{self as config, Pool, ServerTls, UserSecret},
    health::{
        board::{Board, DatabaseEntry, DatabaseState, Role, Serving},
        probe::{self, Failure, Look, Probe, Schedule},
        ready::{Latch, Ready},
        threshold::{Health, Threshold},
    },
    pool::socket::is_unix,
};

/// One round trip: role, client sessions on the server, its limit.
const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'), \
     pg_catalog.current_setting('max_connections')";

/// The running probes; one per configured database (`*` names none and has none).
#[derive(Default)]
pub struct Probes {
    running: Mutex<HashMap<Arc<str>, Running>>,
}

struct Running {
    target: Target,
    held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a probe was told; a reload that leaves it equal leaves the probe alone.
#[derive(Clone, PartialEq)]
struct Target {
    config: Config,
    tls: Option<Arc<ServerTls>>,
    schedule: Schedule,
    rise: NonZeroU32,
    fall: NonZeroU32,
}

impl Probes {
    /// Starts, keeps and ends probes so that they are those of `pool`. Readiness waits for each new probe's first look.
    /// `answered` counts a database's answered queries so far; `on_look` hears of each look how long it took and whether
    /// the server answered it. Must run inside the pool's runtime.
    pub fn apply(
        &self,
        pool: &Pool,
        board: &Board,
        ready: &Ready,
        answered: impl Fn(&str) -> u64 + Clone + Send + Sync + 'static,
        on_look: impl Fn(&str, Duration, bool) + Clone + Send + Sync + 'static,
    ) {
        let mut running = self.running.lock();
        let named = |database: &&config::Database| &*database.name != "*";
        running.retain(|name, _| {
            let kept = pool.databases.iter().any(|database| database.name == *name);
            if !kept {
                board.database(name).publish(Serving::Unknown, DatabaseState::default());
            }
            kept
        });
        for database in pool.databases.iter().filter(named) {
            let target = Target::of(pool, database);
            if running.get(&database.name).is_some_and(|probe| probe.target == target) {
                continue;
            }
            let entry = board.database(&database.name);
            let latch = ready.latch(format!("first look at database {}", database.name));
            let (held, hold) = watch::channel(false);
            let task = tokio::spawn(look_after(target.clone(), entry, latch, hold, answered.clone(), on_look.clone()));
            running.insert(database.name.clone(), Running { target, held, task });
        }
    }

    /// Lets the probes of which `held` says so go of their sessions, and lets the others look.
    pub fn hold(&self, held: impl Fn(&str) -> bool) {
        for (name, probe) in self.running.lock().iter() {
            let held = held(name);
            probe.held.send_if_modified(|now| std::mem::replace(now, held) != held);
        }
    }
}

impl Target {
    fn of(pool: &Pool, database: &config::Database) -> Self {
        let schedule = Schedule {
            interval: pool.probe.interval,
            down_interval: pool.probe.down_interval,
            timeout: pool.probe.timeout,
        };
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            config: login(pool, database),
            tls: pool.server_tls.clone(),
            schedule,
            rise: at_least_one(pool.probe.rise),
            fall: at_least_one(pool.probe.fall),
        }
    }
}

/// Returns how to log in: as the database's own user, or the first user whose password is known as text.
fn login(pool: &Pool, database: &config::Database) -> Config {
    let mut login = Config::new();
    match database.host.strip_prefix('@') {
        Some(name) => login.host_path(format!("\0{name}")),
        // Of several the first one that is there answers for all.
        None => database.host.split(',').fold(&mut login, |login, host| login.host(host)),
    };
    login
        .port(database.port)
        .dbname(database.dbname.as_deref().unwrap_or(&database.name))
        .application_name("bookend probe")
        .ssl_mode(match &pool.server_tls {
            _ if is_unix(&database.host) => SslMode::Disable,
            Some(tls) if tls.mode.is_required() => SslMode::Require,
            Some(tls) if tls.mode == config::SslMode::Prefer => SslMode::Prefer,
            _ => SslMode::Disable,
        })
        .ssl_negotiation(match &pool.server_tls {
            Some(tls) if tls.direct => SslNegotiation::Direct,
            _ => SslNegotiation::Postgres,
        });
    let plain = |user: &config::User| match &user.secret {
        UserSecret::Plain(password) => Some((user.name.clone(), password.clone())),
        // A wrong one tells as much: the server serves.
        UserSecret::Several(passwords) => passwords.first().map(|password| (user.name.clone(), password.clone())),
        UserSecret::Md5(_) | UserSecret::Scram(_) | UserSecret::Absent => None,
    };
    let known = |name: &str| pool.users.iter().filter(|user| user.name == name).find_map(plain);
    match (&database.user, &database.password) {
        (Some(user), Some(password)) => login.user(user).password(password.expose()),
        (Some(user), None) => match known(user) {
            Some((user, password)) => login.user(user).password(password.expose()),
            None => login.user(user),
        },
        (None, _) => match pool.users.iter().find_map(plain) {
            Some((user, password)) => login.user(user).password(password.expose()),
            None => login.user(pool.users.first().map_or("postgres", |user| user.name.as_str())),
        },
    };
    login
}

async fn look_after(
    target: Target,
    entry: Arc<DatabaseEntry>,
    latch: Latch,
    mut hold: watch::Receiver<bool>,
    answered: impl Fn(&str) -> u64 + Send + Sync + 'static,
    on_look: impl Fn(&str, Duration, bool) + Send + Sync + 'static,
) {
    let name = entry.name().clone();
    let answered: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(move || answered(&name));
    let patience = target.schedule.timeout;
    let health = Mutex::new(Health::Unproven);
    let latch = Mutex::new(Some(latch));
    let mut note = |look: Look<Seen, Trouble>| {
        *health.lock() = look.health;
        let serving = match look.health {
            Health::Up => Serving::Up,
            Health::Down => Serving::Down,
            Health::Unproven => Serving::Unknown,
        };
        if let Some(health) = look.changed {
            tracing::info!(database = %entry.name(), ?health, reason = reason(&look.result), "database changed");
        }
        entry.publish(serving, state(&look, &entry.state()));
        // This look, not what `rise` and `fall` make of it: they keep a server up that is away, and down that is back.
        on_look(entry.name(), look.took, matches!(look.result, Ok(Seen::Answer { .. })));
        latch.lock().take();
    };
    // The probe keeps the timeout itself, because it judges what that means; the loop's is behind it.
    let schedule = Schedule { timeout: patience * 2, ..target.schedule };
    loop {
        if *hold.borrow_and_update() {
            // Nobody waits for a look at a paused database.
            latch.lock().take();
        }
        // Fails only when the probe has been forgotten.
        if hold.wait_for(|held| !held).await.is_err() {
            return;
        }
        let threshold = Threshold::resume(target.rise, target.fall, *health.lock());
        let sessions = sessions(target.config.clone(), target.tls.clone());
        let database = DatabaseProbe { sessions, patience, seen: answered(), answered: answered.clone() };
        tokio::select! {
            () = probe::run(database, schedule, threshold, rand::random, &mut note) => {}
            _ = hold.wait_for(|held| *held) => {}
        }
    }
}

/// Returns what to publish: what was seen, or what was last known with the reason why not.
fn state(look: &Look<Seen, Trouble>, before: &DatabaseState) -> DatabaseState {
    match &look.result {
        Ok(Seen::Answer { role, connections, max_connections }) => DatabaseState {
            role: *role,
            latency: Some(look.took),
            server_connections: Some(*connections),
            server_max_connections: Some(*max_connections),
            error: None,
        },
        Ok(Seen::Refused(why)) => DatabaseState { error: Some(why.clone()), ..before.clone() },
        Ok(Seen::Busy) => DatabaseState { latency: None, error: None, ..before.clone() },
        failed @ Err(_) => DatabaseState { latency: None, error: reason(failed), ..before.clone() },
    }
}

fn reason(result: &Result<Seen, Failure<Trouble>>) -> Option<String> {
    match result {
        Ok(Seen::Answer { .. } | Seen::Busy) => None,
        Ok(Seen::Refused(why)) | Err(Failure::Probe(Trouble(why))) => Some(why.clone()),
        Err(Failure::Timeout(limit)) => Some(format!("no answer within {limit:?} (probe.timeout)")),
    }
}

/// What a successful look brings home.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Answer {
        role: Role,
        connections: u32,
        max_connections: u32,
    },
    /// Not answered in time, but clients were.
    Busy,
    /// PostgreSQL serves, but not us; why, in its words.
    Refused(String),
}

/// Why a look failed, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble(String);

struct DatabaseProbe {
    sessions: bb8::Pool<Sessions>,
    /// `probe.timeout`
    patience: Duration,
    /// Queries of clients answered until the last look.
    seen: u64,
    answered: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Probe for DatabaseProbe {
    type Seen = Seen;
    type Error = Trouble;

    async fn look(&mut self) -> Result<Seen, Trouble> {
        let before = std::mem::replace(&mut self.seen, (self.answered)());
        match tokio::time::timeout(self.patience, self.ask()).await {
            Ok(Ok(seen)) => Ok(seen),
            Err(_) if (self.answered)() > before => Ok(Seen::Busy),
            Err(_) => Err(Trouble(format!("no answer within {:?} (probe.timeout)", self.patience))),
            Ok(Err(error)) => judge(error.as_db_error().map(|db| (db.code(), db.message())), &error),
        }
    }
}

impl DatabaseProbe {
    async fn ask(&self) -> Result<Seen, tokio_postgres::Error> {
        // Only an idle session is taken from bb8, never a fresh one: it would keep a failed login to itself until its own
        // timeout. One that broke since the last look is let go here (`has_broken`), and another is opened.
        if self.sessions.state().idle_connections > 0
            && let Ok(session) = self.sessions.get().await
            && !session.is_closed()
        {
            return answer(&session).await;
        }
        let session = self.sessions.dedicated_connection().await?;
        let seen = answer(&session).await?;
        let _ = self.sessions.add(session);
        Ok(seen)
    }
}

async fn answer(session: &Client) -> Result<Seen, tokio_postgres::Error> {
    let messages = session.simple_query(QUESTION).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let number = |index: usize| row.and_then(|row| row.get(index)).and_then(|text| text.parse().ok()).unwrap_or(0);
    let role = match row.and_then(|row| row.get(0)) {
        Some("t") => Role::Replica,
        Some("f") => Role::Primary,
        _ => Role::Unknown,
    };
    Ok(Seen::Answer { role, connections: number(1), max_connections: number(2) })
}

/// Decides what a failed look says. Pure.
fn judge(refusal: Option<(&SqlState, &str)>, error: &dyn std::error::Error) -> Result<Seen, Trouble> {
    let Some((code, message)) = refusal else { return Err(Trouble(chain(error))) };
    let why = format!("{message} (SQLSTATE {})", code.code());
    // Class 28: invalid authorization. The server and its catalogs work, only we may not look.
    if code.code().starts_with("28") || *code == SqlState::TOO_MANY_CONNECTIONS {
        Ok(Seen::Refused(why))
    } else {
        Err(Trouble(why))
    }
}

/// Returns an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Opens probe sessions for bb8.
#[derive(Debug)]
struct Sessions {
    login: Config,
    tls: Option<Arc<ServerTls>>,
}

impl bb8::ManageConnection for Sessions {
    type Connection = Client;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        // The connection ends when the client is dropped or the socket breaks; the client then says `is_closed`.
        match &self.tls {
            None => {
                let (client, connection) = self.login.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            }
            Some(tls) => {
                let connect = MakeRustlsConnect::new(tls.connect.config());
                let (client, connection) = self.login.connect(connect).await?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }

    async fn is_valid(&self, _: &mut Client) -> Result<(), tokio_postgres::Error> {
        Ok(())
    }

    fn has_broken(&self, session: &mut Client) -> bool {
        session.is_closed()
    }
}

fn sessions(login: Config, tls: Option<Arc<ServerTls>>) -> bb8::Pool<Sessions> {
    bb8::Pool::builder()
        .max_size(1)
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .build_unchecked(Sessions { login, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Result<Seen, Trouble> {
        judge(Some((&SqlState::from_code(code), "no")), &std::fmt::Error)
    }

    #[test]
    fn a_refusal_that_only_a_living_server_gives_proves_it_serves() {
        for code in ["28P01", "28000", "53300"] {
            assert!(refused(code).is_ok(), "{code}");
        }
    }

    #[test]
    fn a_server_that_starts_stops_or_lacks_the_database_does_not_serve() {
        for code in ["57P03", "57P01", "3D000", "XX000"] {
            assert!(refused(code).is_err(), "{code}");
        }
        assert!(judge(None, &std::io::Error::from(std::io::ErrorKind::ConnectionRefused)).is_err());
    }

    #[test]
    fn what_was_known_outlives_a_failed_look() {
        let before =
            DatabaseState { role: Role::Primary, server_max_connections: Some(100), ..DatabaseState::default() };
        let look = Look {
            result: Err(Failure::Timeout(Duration::from_secs(1))),
            took: Duration::from_secs(1),
            health: Health::Down,
            changed: Some(Health::Down),
        };
        let after = state(&look, &before);
        assert_eq!((after.role, after.server_max_connections), (Role::Primary, Some(100)));
        assert!(after.error.unwrap().contains("probe.timeout"));
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_waits_for_the_first_look_and_no_longer() {
        let ready = Ready::default();
        let board = Board::default();
        let entry = board.database("nowhere");
        let mut config = Config::new();
        config.host("127.0.0.1").port(1).user("nobody");
        let second = Duration::from_secs(1);
        let schedule = Schedule { interval: second, down_interval: second, timeout: second };
        let target = Target { config, tls: None, schedule, rise: NonZeroU32::MIN, fall: NonZeroU32::MIN };
        let latch = ready.latch("first look");
        assert!(!ready.is_ready());
        let (sender, mut looks) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(look_after(
            target,
            entry.clone(),
            latch,
            hold(),
            |_| 0,
            move |_, _, answered| {
                let _ = sender.send(answered);
            },
        ));
        assert_eq!(looks.recv().await, Some(false));
        assert_eq!(looks.recv().await, Some(false));
        assert!(ready.is_ready());
        assert_eq!(entry.serving(), Serving::Down);
        assert!(entry.state().error.as_ref().unwrap().contains("refused"), "{:?}", entry.state().error);
        task.abort();
    }

    /// Held by nobody.
    fn hold() -> watch::Receiver<bool> {
        static NEVER: std::sync::LazyLock<watch::Sender<bool>> = std::sync::LazyLock::new(|| watch::Sender::new(false));
        NEVER.subscribe()
    }

    /// A server that accepts connections and never says a word; what it is held to be, and whether it answered the look.
    async fn looks_at_a_silent_server(answered: impl Fn(&str) -> u64 + Send + Sync + 'static) -> [(Serving, bool); 2] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new();
        config.host("127.0.0.1").port(listener.local_addr().unwrap().port()).user("nobody");
        let timeout = Duration::from_millis(20);
        let schedule = Schedule { interval: timeout, down_interval: timeout, timeout };
        let target = Target { config, tls: None, schedule, rise: NonZeroU32::MIN, fall: NonZeroU32::MIN };
        let (sender, mut looks) = tokio::sync::mpsc::unbounded_channel();
        let (board, ready) = (Board::default(), Ready::default());
        let entry = board.database("silent");
        let seen = entry.clone();
        let note = move |_: &str, _, answered| {
            let _ = sender.send((seen.serving(), answered));
        };
        let task = tokio::spawn(look_after(target, entry, ready.latch("look"), hold(), answered, note));
        let seen = [looks.recv().await.unwrap(), looks.recv().await.unwrap()];
        task.abort();
        seen
    }

    #[tokio::test]
    async fn a_database_that_answers_nobody_in_time_is_down() {
        assert_eq!(looks_at_a_silent_server(|_| 7).await, [(Serving::Down, false); 2]);
    }

    #[tokio::test]
    async fn a_database_that_answers_clients_is_up_though_it_did_not_answer_the_probe() {
        let count = std::sync::atomic::AtomicU64::new(0);
        let busy = move |_: &str| count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(looks_at_a_silent_server(busy).await, [(Serving::Up, false); 2]);
    }
}
