//! The same frames to PostgreSQL and through the pool, cut at random bytes: the answers are the same, byte for byte.
//!
//! Several sessions at once on fewer servers, so that a session's transactions run on whatever server comes. What one sends is
//! made from a seed before anything is sent: `SEED=... cargo test --test pool differential` repeats a run as far as the
//! machine's timing lets it, `DIFFERENTIAL_SECONDS=600` makes it longer.
//!
//! Not compared, because they must differ: BackendKeyData; the process id of a NotificationResponse; the source file, line and
//! routine of an error (the pool words some itself); "bind message supplies 1 parameters, but prepared statement ... requires 2",
//! which has the name that servers know it by; what a failed transaction answers up to its ReadyForQuery (a server that lacks a
//! statement is asked to parse it first, and refuses that with 25P02 where PostgreSQL would describe it). Not sent: what needs a
//! session beyond the settings a server reports; RESET of what was given at startup.

use std::time::Duration;

use bookend::config::pool::{AuthType, Pool};
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    frames::{Message, Raw, bind, close, describe, execute, flush, function_call, message, parse, query, shown, sync},
    support::*,
};

/// At once.
const SESSIONS: u64 = 6;
const SERVERS: u32 = 2;
/// Of one session.
const STEPS: usize = 25;

/// What is sent in one go and answered before the next.
struct Step {
    /// For a person to read.
    said: Vec<String>,
    bytes: Vec<u8>,
}

impl Step {
    fn new() -> Self {
        Self { said: Vec::new(), bytes: Vec::new() }
    }

    fn say(&mut self, said: impl Into<String>, bytes: Vec<u8>) {
        self.said.push(said.into());
        self.bytes.extend(bytes);
    }

    fn query(&mut self, sql: &str) {
        self.say(sql, query(sql));
    }

    fn parse(&mut self, name: &str, sql: &str, types: &[u32]) {
        self.say(format!("Parse {name:?} {sql:?} {types:?}"), parse(name, sql, types));
    }

    fn bind(&mut self, portal: &str, statement: &str, parameters: &[Option<&str>], binary: bool) {
        let said = format!("Bind {portal:?} {statement:?} {parameters:?} binary={binary}");
        self.say(said, bind(portal, statement, parameters, binary));
    }
}

fn one_of<'a>(rng: &mut StdRng, items: &[&'a str]) -> &'a str {
    items[rng.random_range(0..items.len())]
}

/// A simple query for session `id`; its table is `d<id>`, of `(n int primary key, v text)`.
fn sql(rng: &mut StdRng, id: u64) -> String {
    let n = rng.random_range(0..20);
    match rng.random_range(0..34) {
        0..=3 => format!("SELECT {id}, 'it''s {n}', null"),
        4 => format!("SELECT n, repeat('{id}.', n % 50) FROM generate_series(1, {}) n", rng.random_range(1..3000)),
        5 => format!("SELECT repeat('{id}', {})", rng.random_range(0..300_000)),
        6 => "SELECT 1/0".into(),
        7 => format!("SELEKT {id}"),
        8 => format!("SELECT {id}; SELECT 1/0; SELECT 'never'"),
        9 => format!("INSERT INTO d{id} VALUES ({n}, 'a'); SELECT count(*) FROM d{id}; SELECT nothing"),
        10 | 11 => format!("INSERT INTO d{id} VALUES ({n}, '{id}.{n}') ON CONFLICT DO NOTHING RETURNING *"),
        12 => format!("INSERT INTO d{id} VALUES ({n}, 'twice')"),
        13 => format!("SELECT * FROM d{id} ORDER BY n"),
        14 => format!("DELETE FROM d{id} WHERE n > {n}"),
        15..=17 => "BEGIN".into(),
        18 | 19 => "COMMIT".into(),
        20 => "ROLLBACK".into(),
        21 => "SAVEPOINT a".into(),
        22 => "ROLLBACK TO a".into(),
        23 => format!(
            "DO $$ BEGIN RAISE NOTICE 'n {id}'; RAISE WARNING USING MESSAGE = 'w {n}', ERRCODE = '01234'; END $$"
        ),
        24 => format!("SET TimeZone = '{}'", one_of(rng, &["UTC", "Asia/Tokyo", "Europe/Oslo", "No/Where"])),
        25 => format!("SET application_name = 'app {id} {n}'"),
        26 => format!("SET DateStyle = '{}'", one_of(rng, &["ISO", "German", "SQL, DMY"])),
        27 => format!("SET {} = '{}'", "IntervalStyle", one_of(rng, &["postgres", "iso_8601"])),
        28 => "SHOW TimeZone; SHOW DateStyle; SHOW application_name; SHOW IntervalStyle".into(),
        29 => "SELECT timestamptz '2026-01-02 03:04:05+00', interval '1 day 2 hours'".into(),
        30 => format!("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'; SET application_name = 'x{n}'; ROLLBACK"),
        31 => one_of(rng, &["RESET TimeZone", "RESET ALL", "RESET application_name"]).into(),
        32 => one_of(rng, &["COMMIT AND CHAIN", "RELEASE a", "NOTIFY nobody"]).into(),
        _ => "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SHOW transaction_isolation; COMMIT; COMMIT".into(),
    }
}

const STATEMENTS: &[&str] = &["", "", "s0", "s1", "s2"];
const PORTALS: &[&str] = &["", "", "p0", "p1"];

/// No BEGIN, COMMIT or ROLLBACK: executed in pieces between other portals they crash PostgreSQL 15 itself.
///
/// A statement's text, its parameters' types where they are named, and how many parameters it has.
fn prepared(rng: &mut StdRng, id: u64) -> (String, Vec<u32>, usize) {
    match rng.random_range(0..11) {
        0 => (format!("SELECT {id}"), vec![], 0),
        1 => ("SELECT $1::int + 1, $2::text".into(), vec![], 2),
        2 => ("SELECT $1, $2".into(), vec![23, 25], 2),
        3 => (format!("SELECT n, '{id}' FROM generate_series(1, $1) n"), vec![23], 1),
        4 => (format!("SELECT * FROM d{id} ORDER BY n"), vec![], 0),
        5 => (format!("INSERT INTO d{id} VALUES ($1, $2) ON CONFLICT (n) DO UPDATE SET v = excluded.v"), vec![], 2),
        6 => (one_of(rng, &["SELECT 1/0", "SELECT nothing", "SELECT 1; SELECT 2"]).into(), vec![], 0),
        7 => ("SELECT 10 / $1::int".into(), vec![], 1),
        8 => (one_of(rng, &["SET TimeZone = 'Asia/Tokyo'", "SHOW TimeZone"]).into(), vec![], 0),
        9 => (one_of(rng, &["DEALLOCATE ALL", "DISCARD PLANS"]).into(), vec![], 0),
        _ => (format!("SELECT '{id}', $1::text -- {}", "long ".repeat(rng.random_range(0..400))), vec![], 1),
    }
}

/// A batch of the extended protocol, sensible or not.
fn extended(rng: &mut StdRng, id: u64, step: &mut Step) {
    for _ in 0..rng.random_range(1..5) {
        let (statement, portal) = (one_of(rng, STATEMENTS), one_of(rng, PORTALS));
        let (text, types, count) = prepared(rng, id);
        if rng.random_bool(0.6) {
            if !statement.is_empty() && rng.random_bool(0.7) {
                step.say(format!("Close S {statement}"), close(b'S', statement));
            }
            step.parse(statement, &text, &types);
        }
        if rng.random_bool(0.3) {
            step.say(format!("Describe S {statement:?}"), describe(b'S', statement));
        }
        if rng.random_bool(0.8) {
            let count = if rng.random_bool(0.9) { count } else { rng.random_range(0..3) };
            let numbers: Vec<String> = (0..count).map(|_| rng.random_range(0..8).to_string()).collect();
            let parameters: Vec<Option<&str>> =
                numbers.iter().map(|number| rng.random_bool(0.9).then_some(number.as_str())).collect();
            step.bind(portal, statement, &parameters, rng.random_bool(0.3));
        }
        if rng.random_bool(0.5) {
            step.say(format!("Describe P {portal:?}"), describe(b'P', portal));
        }
        for _ in 0..rng.random_range(0..3) {
            let rows = [0, 0, 1, 3][rng.random_range(0..4)];
            step.say(format!("Execute {portal:?} {rows}"), execute(portal, rows));
        }
        match rng.random_range(0..10) {
            0 => step.say("Flush", flush()),
            1..=5 => step.say("Sync", sync()),
            6 => step.say(format!("Close P {portal:?}"), close(b'P', portal)),
            7 => step.say(format!("Close S {statement:?}"), close(b'S', statement)),
            _ => {}
        }
    }
}

/// A COPY in either direction, well or badly ended, by either protocol.
fn copy(rng: &mut StdRng, id: u64, step: &mut Step) {
    let sql = match rng.random_range(0..6) {
        0 => format!("COPY (SELECT n, {id} FROM generate_series(1, {}) n) TO STDOUT", rng.random_range(0..2000)),
        1 => format!("COPY d{id} TO STDOUT (FORMAT BINARY)"),
        2 => format!("COPY no_such_table_{id} FROM STDIN"),
        _ => format!("COPY d{id} FROM STDIN"),
    };
    let by_parse = rng.random_bool(0.4);
    if !by_parse {
        step.query(&sql);
    } else {
        step.parse("", &sql, &[]);
        step.bind("", "", &[], false);
        step.say("Execute", execute("", 0));
        if rng.random_bool(0.5) {
            step.say("Sync", sync());
        }
    }
    // Sent without looking: where there is no COPY any more, PostgreSQL drops it.
    for _ in 0..rng.random_range(0..6) {
        let n = rng.random_range(100..10_000);
        let line = match rng.random_range(0..12) {
            0 => "no number\tx\n".into(),
            1 => format!("{n}\n"),
            2 => format!("{n}\thalf a li"),
            _ => format!("{n}\t{id}\n"),
        };
        step.say(format!("CopyData {line:?}"), message(b'd', line.as_bytes()));
    }
    if rng.random_bool(0.2) {
        step.say("CopyFail", message(b'f', b"changed my mind\0"));
    } else {
        step.say("CopyDone", message(b'c', b""));
    }
    if by_parse {
        // A later Bind of it would begin a COPY that nobody feeds: PostgreSQL ends such a session.
        step.say("Sync", sync());
        step.parse("", "SELECT 'after a COPY'", &[]);
        step.say("Sync", sync());
    }
}

/// All that a session will send. Every step ends with a Sync and two empty queries, whose answers say that it is over.
fn script(seed: u64, id: u64) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let rng = &mut rng;
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let mut step = Step::new();
        for _ in 0..rng.random_range(1..4) {
            match rng.random_range(0..21) {
                0..=7 => {
                    let sql = sql(rng, id);
                    step.query(&sql);
                }
                8..=15 => extended(rng, id, &mut step),
                16 | 17 => copy(rng, id, &mut step),
                18 => {
                    let function = if rng.random_bool(0.7) { 177 } else { 1 }; // int4pl, or nothing
                    step.say(format!("FunctionCall {function}"), function_call(function, &["1", &id.to_string()]));
                }
                19 => step.query(one_of(rng, &["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s1"])),
                _ => {
                    let stray: [(u8, &[u8]); 3] = [(b'd', b"lost"), (b'c', b""), (b'f', b"lost\0")];
                    let (tag, body) = stray[rng.random_range(0..3)];
                    step.say(format!("stray {}", char::from(tag)), message(tag, body));
                }
            }
        }
        step.bytes.extend([sync(), query(""), query("")].concat());
        steps.push(step);
    }
    let mut last = Step::new();
    last.query("ROLLBACK");
    last.bytes.extend([sync(), query(""), query("")].concat());
    steps.push(last);
    steps
}

/// Sends `steps` and returns what each was answered, and at the end what was not right.
async fn play(port: u16, database: &str, steps: &[Step], mut rng: StdRng) -> (Vec<Vec<Message>>, Option<String>) {
    let mut answers = Vec::new();
    let mut raw = match Raw::login(port, database, &[]).await {
        Ok(raw) => raw,
        Err(error) => return (answers, Some(error.to_string())),
    };
    let mut parameters = raw.parameters.clone();
    parameters.sort();
    answers.push(parameters.into_iter().map(|body| (b'S', body)).collect());
    let mut failed = false;
    for step in steps {
        let mut answer: Vec<Message> = Vec::new();
        let mut sent = Ok(());
        if rng.random_bool(0.5) {
            sent = raw.send(&step.bytes).await;
        } else {
            // Larger than any buffer in between, and answered meanwhile: it must be read while it is written.
            sent = raw.send_split(&step.bytes, &mut rng).await.and(sent);
        }
        let over = |answer: &[Message]| answer.len() >= 4 && crate::frames::tags(&answer[answer.len() - 4..]) == "IZIZ";
        while sent.is_ok() && !over(&answer) {
            match raw.read().await {
                Ok(message) => {
                    let tag = message.0;
                    failed = if tag == b'Z' { message.1 == b"E" } else { failed };
                    if !failed || b"ZI".contains(&tag) {
                        answer.push(normal(message));
                    }
                }
                Err(error) => sent = Err(error),
            }
        }
        answers.push(answer);
        if let Err(error) = sent {
            return (answers, Some(error.to_string()));
        }
    }
    // Gone only when the server has let go of the connection.
    if raw.send(&message(b'X', b"")).await.is_ok() {
        while raw.read().await.is_ok() {}
    }
    (answers, None)
}

/// Without what must differ.
fn normal((tag, mut body): Message) -> Message {
    if tag == b'A' {
        body[..4].fill(0);
    }
    if tag == b'E' {
        let mut fields = crate::frames::fields(&body);
        fields.retain(|(kind, text)| !b"FLR".contains(kind) && !text.starts_with("bind message supplies"));
        body = fields.into_iter().flat_map(|(kind, text)| [&[kind], text.as_bytes(), b"\0"].concat()).collect();
    }
    (tag, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_postgresql_byte_for_byte() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("SEED").unwrap_or_else(|| rand::rng().random());
    let seconds = number("DIFFERENTIAL_SECONDS").unwrap_or(8);
    println!("SEED={seed}");
    let cluster = Cluster::start(); // it may crash, which the tests beside this one would feel
    let direct = cluster.direct().await;
    for id in 0..SESSIONS {
        let sql = format!("DROP TABLE IF EXISTS d{id}; CREATE TABLE d{id} (n int PRIMARY KEY, v text)");
        direct.batch_execute(&sql).await.unwrap();
    }
    let sizes = Pool { default_pool_size: SERVERS, max_prepared_statements: 5, ..config(&cluster) };
    let pooled = start(Pool { auth_type: AuthType::Trust, ..sizes }).await;
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut compared, mut messages) = (0, 0, 0);
    while std::time::Instant::now() < end {
        let round = seed.wrapping_add(rounds * 1000);
        let scripts: Vec<_> = (0..SESSIONS).map(|id| script(round + id, id)).collect();
        let mut seen = Vec::new();
        // A crash of PostgreSQL itself ends all its connections, this one among them; such a round says nothing.
        emptied(cluster.port, "d0").await;
        let witness = cluster.direct().await;
        for (port, database) in [(cluster.port, "postgres"), (pooled.port, DATABASE)] {
            let tables: Vec<_> = (0..SESSIONS).map(|id| format!("d{id}")).collect();
            emptied(cluster.port, &tables.join(", ")).await;
            let sessions = scripts.iter().zip(0..).map(|(steps, id)| {
                play(port, database, steps, StdRng::seed_from_u64(round.wrapping_mul(31) + id + u64::from(port)))
            });
            seen.push(join_all(sessions).await);
        }
        rounds += 1;
        tokio::time::sleep(SECOND / 5).await;
        if witness.is_closed() {
            println!("PostgreSQL crashed in round {}", rounds - 1);
            continue;
        }
        compared += 1;
        for (id, steps) in scripts.iter().enumerate() {
            let ((expected, none), (got, wrong)) = (&seen[0][id], &seen[1][id]);
            let last = expected.last().map(|answer| answer.iter().map(shown).collect::<Vec<_>>());
            let step = steps.get(expected.len().wrapping_sub(2)).map(|step| {
                step.said.join(
                    "
",
                )
            });
            assert_eq!(none, &None, "PostgreSQL itself did not answer: {last:#?} to {}", step.unwrap_or_default());
            same(steps, expected, got, &format!("SEED={seed}, round {rounds}, session {id}"));
            assert_eq!(wrong, &None, "SEED={seed}, round {rounds}, session {id}");
            messages += expected.iter().map(Vec::len).sum::<usize>();
        }
    }
    assert!(compared > 0, "none of {rounds} rounds came to its end");
    println!("{compared} rounds of {SESSIONS} sessions, {messages} messages");
}

/// Empties the tables. PostgreSQL 15 has been seen to crash (signal 11) at the end of such a session, and to come back
/// by itself; that is no difference between the two ways to it.
async fn emptied(port: u16, tables: &str) {
    let end = std::time::Instant::now() + 20 * SECOND;
    loop {
        tokio::time::sleep(SECOND / 5).await;
        if let Ok(direct) = postgres::connect(port, "postgres", "").await
            && direct.batch_execute(&format!("TRUNCATE {tables}")).await.is_ok()
        {
            return;
        }
        assert!(std::time::Instant::now() < end, "PostgreSQL does not come back");
    }
}

/// Compares answer by answer; shows where they part.
fn same(steps: &[Step], expected: &[Vec<Message>], got: &[Vec<Message>], whose: &str) {
    for (number, expected) in expected.iter().enumerate() {
        let none = Vec::new();
        let got = got.get(number).unwrap_or(&none);
        if expected == got {
            continue;
        }
        let show = |messages: &[Message]| messages.iter().map(shown).collect::<Vec<_>>();
        let (expected, got) = (show(expected), show(got));
        let at = (0..).find(|at| expected.get(*at) != got.get(*at)).unwrap_or_default();
        let before = steps[..number.saturating_sub(1)].iter().rev().take(3).rev().map(|step| step.said.join(" | "));
        let said = if number == 0 { "the login".to_owned() } else { steps[number - 1].said.join("\n  ") };
        panic!(
            "{whose}: after {:#?}\nstep {number} was\n  {said}\nand from message {at} on\nPostgreSQL: {:#?}\nthe pool:   {:#?}",
            before.collect::<Vec<_>>(),
            expected.iter().skip(at.saturating_sub(2)).take(8).collect::<Vec<_>>(),
            got.iter().skip(at.saturating_sub(2)).take(8).collect::<Vec<_>>(),
        );
    }
}
