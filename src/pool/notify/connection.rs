//! The listening connection: opened at the first join, told what to listen to, read for ever.
//!
//! It counts as a connection of its pool beside `pool_size`. It answers a look every [`LOOK`], because a connection that says
//! nothing cannot be told from one whose server has vanished, and every session that listens waits for what it does not hear.
//! There is no way to take up again where a lost one was: PostgreSQL keeps nothing for a session that is gone. So its
//! listeners are told, and the next connection begins with who comes next.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    hub::{Hub, Step},
    mailbox::Loss,
    roster::{Channel, Command},
};
use crate::pool::{
    lease::Permit,
    registry::{ServerHandle, ServerState},
    server::stream::ServerStream,
    wire::{
        backend::TxStatus,
        frame, frontend,
        read::{ErrorFields, Notification},
        tag::backend as tag,
    },
};

/// Between two looks at a connection that says nothing.
const LOOK: Duration = Duration::from_secs(30);
/// After a command that the server refused.
const AGAIN: Duration = Duration::from_secs(1);
/// After a login that failed, doubling up to `server_login_retry`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest message: a payload has less than 8,000 bytes.
const MESSAGE_MAX: u32 = 64 * 1024;
/// How it calls itself in `pg_stat_activity` and SHOW SERVERS.
pub(super) const NAME: &str = "bookend listen";

/// Keeps the pool listening while anybody wants that.
pub(super) async fn run(hub: Arc<Hub>) {
    let mut failures = 0;
    loop {
        match hub.step() {
            Step::Stop => return,
            Step::Wait => hub.wake.notified().await,
            Step::Open => match open(&hub).await {
                Ok(mut line) => {
                    failures = 0;
                    let loss = line.serve(&hub).await;
                    line.hang_up();
                    drop(line);
                    let ended = hub.lost(loss);
                    tracing::info!(?loss, clients = ended, "the listening connection is closed");
                }
                Err(why) => {
                    hub.not_opened();
                    failures += 1;
                    tracing::warn!(failures, why, "no listening connection; clients keep their servers to listen");
                    sleep(pause(failures, &hub)).await;
                }
            },
        }
    }
}

/// With jitter: an outage fails all pools at once.
fn pause(failures: u32, hub: &Hub) -> Duration {
    let most = hub.pool.upgrade().map_or(FIRST_PAUSE, |pool| pool.rules.load().settings.server_login_retry);
    (FIRST_PAUSE * 2u32.pow(failures.min(10))).min(most).mul_f64(rand::random_range(0.5..1.0))
}

async fn open(hub: &Hub) -> Result<Line, String> {
    let pool = hub.pool.upgrade().ok_or("the pool has gone")?;
    let permit = pool.store.permit().ok_or("max_db_connections or max_user_connections is reached")?;
    let (server, stream) = pool.open_to_listen(NAME).await.map_err(|error| error.to_string())?;
    server.transition(ServerState::Leased);
    server.set_application_name(NAME.as_bytes());
    hub.opened(&server);
    let rules = pool.rules.load();
    let (patience, idle) = (pool.connect_timeout(), rules.settings.server_idle_timeout);
    Ok(Line { stream, _server: server, _permit: permit, buf: Vec::new(), patience, idle })
}

/// What the server is being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To be there, and to listen to markers.
    Greeting,
    Command,
    Look,
}

struct Line {
    stream: ServerStream,
    _server: ServerHandle,
    _permit: Permit,
    /// What has come of a message. bound: [`MESSAGE_MAX`] and what is read at once
    buf: Vec<u8>,
    /// How long an answer may take: `server_connect_timeout`.
    patience: Duration,
    /// How long the connection is kept when nobody listens.
    idle: Option<Duration>,
}

/// What is under way on a connection.
struct Progress {
    asked: Option<(Asked, Instant)>,
    failed: bool,
    /// When to say something next, though nothing is to be said.
    look_at: Instant,
    not_before: Option<Instant>,
    idle_since: Option<Instant>,
}

impl Line {
    /// Listens until that is over; returns why it is.
    async fn serve(&mut self, hub: &Hub) -> Loss {
        let now = Instant::now();
        let mut progress = Progress { asked: None, failed: false, look_at: now, not_before: None, idle_since: None };
        if self.ask(Asked::Greeting, &greeting(hub.marker()), &mut progress).await.is_none() {
            return Loss::Connection;
        }
        loop {
            if let Some(loss) = hub.ending() {
                return loss;
            }
            let now = Instant::now();
            let Some(next) = self.speak(hub, &mut progress, now).await else { return Loss::Connection };
            tokio::select! {
                read = self.stream.read_buf(&mut self.buf) => {
                    let alive = read.is_ok_and(|count| count > 0) && self.hear(hub, &mut progress).is_some();
                    if !alive {
                        return Loss::Connection;
                    }
                }
                () = hub.wake.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Says what is to be said; returns when to come back at the latest. `None`: the connection is over.
    async fn speak(&mut self, hub: &Hub, progress: &mut Progress, now: Instant) -> Option<Instant> {
        if let Some((asked, by)) = progress.asked {
            if by <= now {
                tracing::warn!(?asked, "the listening connection does not answer within server_connect_timeout");
                return None;
            }
            return Some(by);
        }
        if hub.is_idle() {
            let since = *progress.idle_since.get_or_insert(now);
            if self.idle.is_some_and(|idle| now.duration_since(since) >= idle) {
                return None;
            }
        } else {
            progress.idle_since = None;
        }
        let held_back = progress.not_before.is_some_and(|at| now < at);
        if !held_back && let Some(command) = hub.command() {
            self.ask(Asked::Command, &sql(&command), progress).await?;
        } else if progress.look_at <= now {
            self.ask(Asked::Look, b"", progress).await?;
        }
        let idle_until = progress.idle_since.zip(self.idle).map(|(since, idle)| since + idle);
        let by = progress.asked.map(|(_, by)| by);
        let again = progress.not_before.filter(|_| held_back);
        [by, idle_until, again].into_iter().flatten().chain([progress.look_at.max(now)]).min()
    }

    async fn ask(&mut self, asked: Asked, sql: &[u8], progress: &mut Progress) -> Option<()> {
        let mut out = Vec::with_capacity(sql.len() + 6);
        frontend::query(&mut out, sql);
        let by = Instant::now() + self.patience;
        let said = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        timeout_at(by, said).await.ok()?.ok()?;
        (progress.asked, progress.failed, progress.look_at) = (Some((asked, by)), false, by + LOOK);
        Some(())
    }

    /// Takes the whole messages that have come. `None`: the connection is over.
    fn hear(&mut self, hub: &Hub, progress: &mut Progress) -> Option<()> {
        let mut taken = 0;
        while let Some(message) = frame::whole(&self.buf[taken..], MESSAGE_MAX).ok()? {
            match message.tag {
                tag::NOTIFICATION_RESPONSE => {
                    let Notification { channel, payload, .. } = Notification::parse(message.body).ok()?;
                    let whole = &self.buf[taken..taken + message.total_len()];
                    hub.notified(whole, channel, payload);
                }
                tag::ERROR_RESPONSE => {
                    let fields = ErrorFields::parse(message.body);
                    let (sqlstate, said) =
                        (String::from_utf8_lossy(fields.code), String::from_utf8_lossy(fields.message));
                    tracing::warn!(%sqlstate, %said, "the listening connection was refused something");
                    if fields.is_fatal() || progress.asked.is_none_or(|(asked, _)| asked == Asked::Greeting) {
                        return None;
                    }
                    progress.failed = true;
                    progress.not_before = Some(Instant::now() + AGAIN);
                }
                tag::READY_FOR_QUERY => {
                    if message.body != [TxStatus::Idle.byte()] {
                        return None;
                    }
                    let (asked, _) = progress.asked.take()?;
                    if asked == Asked::Command {
                        hub.answered(!progress.failed);
                    }
                    progress.look_at = Instant::now() + LOOK;
                }
                // Rows of the greeting, tags, notices, parameters.
                _ => {}
            }
            taken += message.total_len();
        }
        self.buf.drain(..taken);
        if self.buf.is_empty() && self.buf.capacity() > MESSAGE_MAX as usize {
            self.buf = Vec::new();
        }
        Some(())
    }

    /// Says goodbye, as far as that goes without waiting.
    fn hang_up(&mut self) {
        let mut out = Vec::with_capacity(5);
        frontend::terminate(&mut out);
        self.stream.try_write(&out);
    }
}

/// A server that ends idle sessions (`idle_session_timeout`, PostgreSQL 14) must not end this one.
fn greeting(marker: &str) -> Vec<u8> {
    let lasting = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
                   WHERE name OPERATOR(pg_catalog.=) 'idle_session_timeout';LISTEN \"";
    [lasting, marker, "\""].concat().into_bytes()
}

/// Names as identifiers: in quotes, with those inside doubled.
fn sql(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |verb: &[u8], channel: &Channel| {
        out.extend_from_slice(verb);
        for &byte in channel.iter() {
            out.extend_from_slice(if byte == b'"' { b"\"\"" } else { std::slice::from_ref(&byte) });
        }
        out.extend_from_slice(b"\";");
    };
    command.listen.iter().for_each(|channel| put(b"LISTEN \"", channel));
    command.unlisten.iter().for_each(|channel| put(b"UNLISTEN \"", channel));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_identifier_whatever_stands_in_it() {
        let command = Command { listen: vec![(*br#"a"; DROP TABLE b; --"#).into()], unlisten: vec![(*b"C d").into()] };
        assert_eq!(sql(&command), br#"LISTEN "a""; DROP TABLE b; --";UNLISTEN "C d";"#);
    }
}
