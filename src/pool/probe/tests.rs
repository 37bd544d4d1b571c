//! What is made of a look, and what a probe does with a server that is silent or away.

use tokio_postgres::error::SqlState;

use super::{look::judge, *};
use crate::{
    config::Surroundings,
    health::board::Role,
    pool::names::{System, Ttl},
};

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
    let before = DatabaseState { role: Role::Primary, server_max_connections: Some(100), ..DatabaseState::default() };
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
    let second = Duration::from_secs(1);
    let schedule = Schedule { interval: second, down_interval: second, timeout: second };
    let target = target(1, schedule);
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

/// A database of this machine.
fn target(port: u16, schedule: Schedule) -> Target {
    let file = format!(
        "pool: {{ auth_type: trust }}\ndatabases: {{ shop: {{ host: 127.0.0.1, port: {port} }} }}\nusers: {{ nobody: {{}} }}\n"
    );
    let nowhere = Surroundings::new(|_| None, |_, _| Err(std::io::Error::other("unknown host")));
    let pool = crate::config::Config::from_texts(None, Some(&file), &nowhere).unwrap().pool.unwrap();
    let ttl = Ttl { found: Duration::ZERO, failed: Duration::ZERO };
    let way = Way::of(&pool, &pool.databases[0], &Names::new(Arc::new(System), ttl));
    let mut config = Config::new();
    config.user("nobody");
    Target { config, way, schedule, rise: NonZeroU32::MIN, fall: NonZeroU32::MIN }
}

/// Held by nobody.
fn hold() -> watch::Receiver<bool> {
    static NEVER: std::sync::LazyLock<watch::Sender<bool>> = std::sync::LazyLock::new(|| watch::Sender::new(false));
    NEVER.subscribe()
}

/// A server that accepts connections and never says a word; what it is held to be, and whether it answered the look.
async fn looks_at_a_silent_server(answered: impl Fn(&str) -> u64 + Send + Sync + 'static) -> [(Serving, bool); 2] {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timeout = Duration::from_millis(20);
    let schedule = Schedule { interval: timeout, down_interval: timeout, timeout };
    let target = target(listener.local_addr().unwrap().port(), schedule);
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
