//! The console over a duplex stream, with a pool made of constants.

mod commands;
mod show;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use super::{
    Rights,
    averages::{Period, Totals},
    rows::{ConfigRow, DatabaseRow, MemoryRow, NameRow, PeerRow, PoolRow, SocketRow, Source, StatsRow, UserRow},
    serve,
};
use crate::{
    health::drain::WaitFor,
    pool::{peer::Peer, pins::Reason, wire::frontend},
};

#[derive(Default)]
pub struct Fixed {
    done: Mutex<Vec<String>>,
}

impl Fixed {
    fn note(&self, what: &str, database: Option<&str>) -> Result<(), String> {
        if database == Some("nowhere") {
            return Err("no such database: nowhere".into());
        }
        self.done.lock().unwrap().push(format!("{what} {}", database.unwrap_or("*")));
        Ok(())
    }
}

#[async_trait]
impl Source for Fixed {
    fn pools(&self) -> Vec<PoolRow> {
        vec![PoolRow {
            database: "arena".into(),
            user: "web".into(),
            cl_waiting: 3,
            maxwait: Duration::from_micros(2_000_345),
            pool_mode: "transaction",
            ..PoolRow::default()
        }]
    }

    fn stats(&self) -> Vec<StatsRow> {
        let total = Totals { xact_count: 7, ..Totals::default() };
        let counts = Totals { xact_count: 6, xact_time: 90, ..Totals::default() };
        let period = Period { counts, length: Duration::from_secs(2) };
        let other = Totals { xact_count: 4, xact_time: 10, ..Totals::default() };
        vec![
            StatsRow { database: "arena".into(), total, period },
            StatsRow {
                database: "other".into(),
                total: Totals { query_count: 3, ..Totals::default() },
                period: Period { counts: other, ..period },
            },
        ]
    }

    fn clients(&self) -> Vec<SocketRow> {
        vec![
            socket("active", 5),
            SocketRow { application_name: "web-2".into(), link: None, ..socket("idle", 6) },
            socket("disconnect", 7),
        ]
    }

    fn strangers(&self) -> Vec<SocketRow> {
        vec![SocketRow { user: "(nouser)".into(), application_name: String::new(), ..socket("login", 8) }]
    }

    fn servers(&self) -> Vec<SocketRow> {
        vec![SocketRow { link: Some(5), application_name: String::new(), ..socket("active", 9) }]
    }

    fn names(&self) -> Vec<NameRow> {
        let addresses = vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        vec![NameRow { host: "db".into(), ttl: Duration::from_millis(8_700), addresses, asking: true }]
    }

    fn pinned(&self) -> Vec<(Arc<str>, Reason)> {
        vec![("arena".into(), Reason::Listen), ("arena".into(), Reason::Listen), ("arena".into(), Reason::Temp)]
    }

    fn listening(&self) -> Vec<(Arc<str>, crate::pool::notify::Census)> {
        vec![(
            "arena".into(),
            crate::pool::notify::Census { listeners: 3, channels: 2, waiting_bytes: 40, connected: true },
        )]
    }

    fn peers(&self) -> Vec<PeerRow> {
        let other = PeerRow {
            id: 2,
            host: "10.0.0.7".into(),
            port: 6432,
            pool_size: 20,
            is_other: true,
            waiting: 5,
            connecting: 1,
            sent: 3,
        };
        vec![PeerRow { id: 1, host: "/run/1".into(), is_other: false, ..other.clone() }, other]
    }

    fn memory(&self) -> Vec<MemoryRow> {
        vec![MemoryRow { name: "client_cache", size: 300, used: 7 }]
    }

    fn databases(&self) -> Vec<DatabaseRow> {
        Vec::new()
    }

    fn users(&self) -> Vec<UserRow> {
        Vec::new()
    }

    fn config(&self) -> Vec<ConfigRow> {
        vec![ConfigRow {
            key: "pool_mode".into(),
            value: "transaction".into(),
            default: "transaction".into(),
            changeable: true,
        }]
    }

    fn serving(&self) -> Vec<(Arc<str>, &'static str, bool)> {
        vec![("arena".into(), "primary", true)]
    }

    fn paused(&self) -> bool {
        false
    }

    async fn pause(&self, database: Option<&str>) -> Result<(), String> {
        self.note("pause", database)
    }

    fn resume(&self, database: Option<&str>) -> Result<(), String> {
        self.note("resume", database)
    }

    fn reconnect(&self, database: Option<&str>) -> Result<(), String> {
        self.note("reconnect", database)
    }

    fn kill(&self, database: Option<&str>) -> Result<(), String> {
        self.note("kill", database)
    }

    fn kill_client(&self, id: u64) -> Result<(), String> {
        if id == 5 { self.note("kill client 5", None) } else { Err("client not found".into()) }
    }

    fn disable(&self, database: &str) -> Result<(), String> {
        self.note("disable", Some(database))
    }

    fn enable(&self, database: &str) -> Result<(), String> {
        self.note("enable", Some(database))
    }

    async fn wait_close(&self, database: Option<&str>) -> Result<(), String> {
        if database == Some("forever") {
            return std::future::pending().await;
        }
        self.note("wait close", database)
    }

    fn leave(&self, wait_for: WaitFor) -> Result<(), String> {
        self.note(&format!("leave {wait_for:?}"), None)
    }

    async fn reload(&self) -> Result<(), String> {
        self.note("reload", None)
    }

    async fn set(&self, key: &str, value: &str) -> Result<(), String> {
        self.note(&format!("set {key} to"), Some(value))
    }
}

fn socket(state: &'static str, id: u64) -> SocketRow {
    SocketRow {
        user: "web".into(),
        database: "arena".into(),
        state,
        replication: "none",
        peer: Some(Peer::Tcp { remote: "10.0.0.5:4242".parse().unwrap(), local: "10.0.0.1:6432".parse().unwrap() }),
        connect_time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_210_096),
        request_time: None,
        wait: Duration::ZERO,
        close_needed: false,
        id,
        link: Some(9),
        remote_pid: 0,
        tls: String::new(),
        application_name: "web-1".into(),
        prepared_statements: 2,
        pinned: [Reason::Temp, Reason::Listen].into_iter().collect(),
    }
}

/// Starts a session and returns the client's end and the pool.
fn console(rights: Rights) -> (DuplexStream, Arc<Fixed>) {
    let (client, source, _) = session(rights);
    (client, source)
}

fn session(rights: Rights) -> (DuplexStream, Arc<Fixed>, JoinHandle<std::io::Result<()>>) {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let source = Arc::new(Fixed::default());
    let served = source.clone();
    let session = tokio::spawn(async move { serve(&mut server, served.as_ref(), rights).await });
    (client, source, session)
}

/// Sends one query and returns the answer's tags and all its bytes as text.
async fn ask(client: &mut DuplexStream, sql: &str) -> (String, String) {
    send(client, sql).await;
    answer(client).await
}

async fn send(client: &mut DuplexStream, sql: &str) {
    let mut out = Vec::new();
    frontend::query(&mut out, sql.as_bytes());
    client.write_all(&out).await.unwrap();
}

/// Returns the rows of an answer, the names of its columns first.
async fn rows(client: &mut DuplexStream, sql: &str) -> Vec<Vec<String>> {
    send(client, sql).await;
    let mut rows = Vec::new();
    loop {
        match message(client).await {
            (b'T', body) => {
                // Name, then 18 bytes of what it is.
                let mut rest = &body[2..];
                let mut names = Vec::new();
                while let Some(end) = rest.iter().position(|byte| *byte == 0) {
                    names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
                    rest = &rest[end + 19..];
                }
                rows.push(names);
            }
            (b'D', body) => {
                let mut rest = &body[2..];
                let mut values = Vec::new();
                while let Some((len, after)) = rest.split_first_chunk::<4>() {
                    let len = usize::try_from(i32::from_be_bytes(*len)).ok();
                    let (value, after) = after.split_at(len.unwrap_or(0));
                    values.push(len.map_or_else(|| "NULL".to_owned(), |_| String::from_utf8_lossy(value).into_owned()));
                    rest = after;
                }
                rows.push(values);
            }
            (b'Z', _) => return rows,
            (b'C', _) => {}
            (tag, body) => panic!("{}: {}", char::from(tag), String::from_utf8_lossy(&body)),
        }
    }
}

async fn message(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    client.read_exact(&mut head).await.unwrap();
    let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
    client.read_exact(&mut body).await.unwrap();
    (head[0], body)
}

async fn answer(client: &mut DuplexStream) -> (String, String) {
    let (mut tags, mut text) = (String::new(), String::new());
    while !tags.ends_with('Z') {
        let (tag, body) = message(client).await;
        tags.push(char::from(tag));
        text.push_str(&String::from_utf8_lossy(&body));
    }
    (tags, text)
}

#[tokio::test]
async fn who_leaves_while_it_waits_waits_for_nothing() {
    let (mut client, _, session) = session(Rights::Admin);
    send(&mut client, "WAIT_CLOSE forever").await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), session).await.expect("it is over").unwrap().unwrap();
}

#[tokio::test]
async fn commands_sent_together_are_answered_in_turn() {
    let (mut client, source) = console(Rights::Admin);
    send(&mut client, "WAIT_CLOSE arena").await;
    send(&mut client, "ENABLE arena").await;
    assert_eq!(answer(&mut client).await.0, "CZ");
    assert_eq!(answer(&mut client).await.0, "CZ");
    assert_eq!(*source.done.lock().unwrap(), ["wait close arena", "enable arena"]);
}

#[tokio::test]
async fn the_extended_protocol_is_refused_once_and_the_session_goes_on() {
    let (mut client, _) = console(Rights::Admin);
    let mut out = Vec::new();
    frontend::parse(&mut out, b"", b"SHOW POOLS\0\0\0");
    frontend::close_statement(&mut out, b"x");
    frontend::sync(&mut out);
    client.write_all(&out).await.unwrap();
    assert_eq!(answer(&mut client).await.0, "EZ");
    assert_eq!(ask(&mut client, "SHOW VERSION").await.0, "TDCZ");
}

#[tokio::test]
async fn an_endless_message_is_refused_before_it_is_read() {
    let (mut client, _) = console(Rights::Admin);
    client.write_all(b"Q\x7f\xff\xff\xff").await.unwrap();
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert_eq!(said[0], b'E');
}
