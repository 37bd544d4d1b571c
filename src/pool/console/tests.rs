//! The console over a duplex stream, with a pool made of constants.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{
    Rights,
    averages::{Averager, Totals},
    command::{Command, Show, parse},
    rows::{ConfigRow, DatabaseRow, PoolRow, SocketRow, Source, StatsRow, UserRow},
    serve,
};
use crate::pool::wire::frontend;

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
        vec![StatsRow { database: "arena".into(), total, average: Totals::default() }]
    }

    fn clients(&self) -> Vec<SocketRow> {
        vec![SocketRow {
            user: "web".into(),
            database: "arena".into(),
            state: "active",
            address: Some("10.0.0.5:4242".parse().unwrap()),
            local_address: None,
            connect_time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_210_096),
            request_time: None,
            wait: Duration::ZERO,
            close_needed: false,
            id: 5,
            link: Some(9),
            remote_pid: 0,
            tls: String::new(),
            application_name: "web-1".into(),
            prepared_statements: 2,
        }]
    }

    fn servers(&self) -> Vec<SocketRow> {
        Vec::new()
    }

    fn databases(&self) -> Vec<DatabaseRow> {
        Vec::new()
    }

    fn users(&self) -> Vec<UserRow> {
        Vec::new()
    }

    fn config(&self) -> Vec<ConfigRow> {
        vec![ConfigRow {
            key: "pool_mode",
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

    async fn reload(&self) -> Result<(), String> {
        self.note("reload", None)
    }
}

/// Starts a session and returns the client's end and the pool.
fn console(rights: Rights) -> (DuplexStream, Arc<Fixed>) {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let source = Arc::new(Fixed::default());
    let served = source.clone();
    tokio::spawn(async move { serve(&mut server, served.as_ref(), rights).await });
    (client, source)
}

/// Sends one query and returns the answer's tags and all its bytes as text.
async fn ask(client: &mut DuplexStream, sql: &str) -> (String, String) {
    let mut out = Vec::new();
    frontend::query(&mut out, sql.as_bytes());
    client.write_all(&out).await.unwrap();
    answer(client).await
}

async fn answer(client: &mut DuplexStream) -> (String, String) {
    let (mut tags, mut text) = (String::new(), String::new());
    while !tags.ends_with('Z') {
        let mut head = [0; 5];
        client.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        client.read_exact(&mut body).await.unwrap();
        tags.push(char::from(head[0]));
        text.push_str(&String::from_utf8_lossy(&body));
    }
    (tags, text)
}

#[test]
fn commands_are_read_in_any_case_with_or_without_a_semicolon() {
    assert_eq!(parse(" show  pools ; "), Ok(Command::Show(Show::Pools)));
    assert_eq!(parse("SHOW"), Ok(Command::Show(Show::Help)));
    assert_eq!(parse("pause arena;"), Ok(Command::Pause(Some("arena".into()))));
    assert_eq!(parse("KILL \"we\"\"ird db\""), Ok(Command::Kill(Some("we\"ird db".into()))));
    assert_eq!(parse(";"), Ok(Command::Empty));
    assert_eq!(parse("Resume"), Ok(Command::Resume(None)));
}

#[test]
fn what_is_no_command_is_named_and_shortened() {
    for text in ["DROP TABLE users", "PAUSE two words", "KILL \"open", "RELOAD now", "SHOW SOMETHING", "PAUSE \"\""] {
        let error = parse(text).unwrap_err();
        assert!(error.contains("SHOW HELP"), "{error}");
    }
    assert!(parse(&"x".repeat(10_000)).unwrap_err().len() < 150);
}

#[tokio::test]
async fn show_pools_has_pgbouncers_columns_and_microseconds() {
    let (mut client, _) = console(Rights::Stats);
    let (tags, text) = ask(&mut client, "SHOW POOLS;").await;
    assert_eq!(tags, "TDCZ");
    for column in ["cl_active", "cl_waiting", "sv_being_canceled", "maxwait_us", "pool_mode", "load_balance_hosts"] {
        assert!(text.contains(column), "{column}");
    }
    assert!(text.contains("345"), "microseconds beside the seconds: {text}");
}

#[tokio::test]
async fn every_show_command_answers_with_a_table() {
    let (mut client, _) = console(Rights::Stats);
    for what in [
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "CLIENTS",
        "SERVERS",
        "DATABASES",
        "USERS",
        "LISTS",
        "CONFIG",
        "STATE",
        "VERSION",
    ] {
        let (tags, text) = ask(&mut client, &format!("SHOW {what}")).await;
        assert!(tags.starts_with('T') && tags.ends_with("CZ"), "SHOW {what}: {tags}");
        assert!(text.contains("SHOW"), "its command tag");
    }
    let (tags, text) = ask(&mut client, "SHOW HELP").await;
    assert_eq!(tags, "NCZ");
    assert!(text.contains("RECONNECT"));
}

#[tokio::test]
async fn a_client_row_links_to_its_server_and_shows_when_it_came() {
    let (mut client, _) = console(Rights::Stats);
    let (_, text) = ask(&mut client, "SHOW CLIENTS").await;
    for value in ["10.0.0.5", "4242", "2024-02-29 12:34:56 UTC", "c5", "s9", "web-1"] {
        assert!(text.contains(value), "{value} in {text}");
    }
}

#[tokio::test]
async fn stats_users_may_look_but_not_touch() {
    let (mut client, source) = console(Rights::Stats);
    for command in ["PAUSE", "RESUME", "RELOAD", "KILL arena", "RECONNECT"] {
        let (tags, text) = ask(&mut client, command).await;
        assert_eq!(tags, "EZ", "{command}");
        assert!(text.contains("42501"), "{text}");
    }
    assert!(source.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn admin_commands_reach_the_pool_and_its_refusals_the_user() {
    let (mut client, source) = console(Rights::Admin);
    assert_eq!(ask(&mut client, "PAUSE arena").await.0, "CZ");
    assert_eq!(ask(&mut client, "RESUME").await.0, "CZ");
    assert_eq!(ask(&mut client, "RELOAD").await.0, "CZ");
    assert_eq!(*source.done.lock().unwrap(), ["pause arena", "resume *", "reload *"]);
    let (tags, text) = ask(&mut client, "KILL nowhere").await;
    assert_eq!(tags, "EZ");
    assert!(text.contains("no such database"), "{text}");
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

#[test]
fn averages_are_per_second_and_times_per_item() {
    let mut averager = Averager::default();
    let start = Instant::now();
    averager.tick(start, Totals::default());
    assert_eq!(averager.averages(), Totals::default());
    let totals = Totals { xact_count: 120, xact_time: 6_000, received: 60_000, ..Totals::default() };
    averager.tick(start + Duration::from_secs(60), totals);
    let averages = averager.averages();
    assert_eq!((averages.xact_count, averages.xact_time, averages.received), (2, 50, 1_000));
}
