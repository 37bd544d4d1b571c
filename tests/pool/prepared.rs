//! Prepared statements on servers that many clients use, while tables change under them.

use bookend::{
    config::pool::{AuthType, Pool, PoolMode},
    pool::wire::{
        frame::{self, put_cstr},
        frontend, tag,
    },
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::*;

/// A client that speaks the extended protocol by hand.
struct Client(TcpStream);

/// A batch of messages.
#[derive(Default, Clone)]
struct Batch(Vec<u8>);

impl Batch {
    fn parse(mut self, name: &str, sql: &str) -> Self {
        frontend::parse(&mut self.0, name.as_bytes(), format!("{sql}\0\0\0").as_bytes());
        self
    }

    fn bind(self, name: &str) -> Self {
        self.bind_with(name, &[])
    }

    fn bind_with(mut self, name: &str, values: &[&str]) -> Self {
        frame::write(&mut self.0, tag::frontend::BIND, |out| {
            put_cstr(out, b"");
            put_cstr(out, name.as_bytes());
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
            for value in values {
                out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                out.extend_from_slice(value.as_bytes());
            }
            out.extend_from_slice(&[0, 0]);
        });
        self
    }

    fn describe(mut self, name: &str) -> Self {
        frame::write(&mut self.0, tag::frontend::DESCRIBE, |out| {
            out.push(b'S');
            put_cstr(out, name.as_bytes());
        });
        self
    }

    fn close(mut self, name: &str) -> Self {
        frame::write(&mut self.0, tag::frontend::CLOSE, |out| {
            out.push(b'S');
            put_cstr(out, name.as_bytes());
        });
        self
    }

    fn execute(mut self) -> Self {
        frame::write(&mut self.0, tag::frontend::EXECUTE, |out| out.extend_from_slice(&[0; 5]));
        self
    }

    fn run(self, name: &str) -> Self {
        self.bind(name).execute()
    }

    fn run_text(self, sql: &str) -> Self {
        self.parse("", sql).run("")
    }

    fn sync(mut self) -> Self {
        frontend::sync(&mut self.0);
        self
    }

    fn flush(mut self) -> Self {
        frame::write(&mut self.0, tag::frontend::FLUSH, |_| {});
        self
    }
}

fn batch() -> Batch {
    Batch::default()
}

impl Client {
    async fn new(pooled: &Pooled) -> Self {
        Self(raw(pooled.port).await)
    }

    async fn send(&mut self, batch: Batch) {
        self.0.write_all(&batch.0).await.unwrap();
    }

    /// What comes up to the next ReadyForQuery, as `tag` or `tag text`.
    async fn answer(&mut self) -> Vec<String> {
        answer(&mut self.0).await.into_iter().map(|(tag, body)| line(tag, &body)).collect()
    }

    async fn ask(&mut self, batch: Batch) -> Vec<String> {
        self.send(batch.sync()).await;
        self.answer().await
    }

    async fn query(&mut self, sql: &str) -> Vec<String> {
        let mut query = Vec::new();
        frontend::query(&mut query, sql.as_bytes());
        self.send(Batch(query)).await;
        self.answer().await
    }
}

fn line(tag: u8, body: &[u8]) -> String {
    let tag = char::from(tag);
    match tag {
        'D' => {
            let (mut rest, mut values) = (&body[2..], Vec::new());
            while let Some((len, after)) = rest.split_first_chunk::<4>() {
                let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
                values.push(String::from_utf8_lossy(&after[..len]).into_owned());
                rest = &after[len..];
            }
            format!("D {}", values.join("|"))
        }
        'E' => {
            let field = |kind| body.split(|&b| b == 0).find(|field| field.first() == Some(&kind)).unwrap_or_default();
            format!("E {} {}", String::from_utf8_lossy(&field(b'C')[1..]), String::from_utf8_lossy(&field(b'M')[1..]))
        }
        'Z' | 'C' => format!("{tag} {}", String::from_utf8_lossy(body).trim_end_matches('\0')),
        _ => tag.to_string(),
    }
}

/// Two servers and a table of one column and one row.
async fn pool_with_table(table: &str) -> (std::sync::Arc<postgres::Cluster>, Pooled, tokio_postgres::Client) {
    let cluster = postgres::shared();
    let admin = postgres::connect(cluster.port, "postgres", "").await.unwrap();
    let sql =
        format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (a text); INSERT INTO {table} VALUES ('one')");
    admin.batch_execute(&sql).await.unwrap();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 2, ..config(&cluster) }).await;
    (cluster, pooled, admin)
}

const STALE: &str = "E 0A000 cached plan must not change result type";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_nothing_to_clients_that_share_servers() {
    let (_cluster, pooled, admin) = pool_with_table("migrated").await;
    let select = "SELECT * FROM migrated";
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::new(&pooled).await;
        let got = client.ask(batch().parse("s", select).run("s")).await;
        assert_eq!(got, ["1", "2", "D one", "C SELECT 1", "Z I"]);
        clients.push(client);
    }
    let mut row = "one".to_owned();
    for column in ["b", "c", "d"] {
        // All of them at once, so that both servers have it with and without a name.
        for _ in 0..5 {
            for client in &mut clients {
                client.send(batch().run("s").sync()).await;
            }
            for client in &mut clients {
                assert_eq!(client.answer().await, ["2", &format!("D {row}"), "C SELECT 1", "Z I"]);
                assert_eq!(client.ask(batch().run_text(select)).await[2], format!("D {row}"));
            }
        }
        admin
            .batch_execute(&format!("ALTER TABLE migrated ADD COLUMN {column} text DEFAULT '{column}'"))
            .await
            .unwrap();
        row = format!("{row}|{column}");
        for client in &mut clients {
            client.send(batch().run("s").sync()).await;
        }
        for client in &mut clients {
            assert_eq!(client.answer().await, ["2", &format!("D {row}"), "C SELECT 1", "Z I"], "after {column}");
        }
        for client in &mut clients {
            let got = client.ask(batch().parse("", select).describe("").bind("").execute()).await;
            assert_eq!(got, ["1", "t", "T", "2", &format!("D {row}"), "C SELECT 1", "Z I"]);
        }
    }
    let healed = pooled.metric_of("bookend_pool_stale_plans_total", "healed");
    assert!((3.0..=8.0).contains(&healed), "a server or two a change, and not each client: {healed}");
    assert_eq!(pooled.metric_of("bookend_pool_stale_plans_total", "told"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_a_transaction_the_error_of_a_migration_is_postgresqls() {
    let (_cluster, pooled, admin) = pool_with_table("inside").await;
    let mut client = Client::new(&pooled).await;
    client.ask(batch().parse("s", "SELECT * FROM inside").run("s")).await;
    admin.batch_execute("ALTER TABLE inside ADD COLUMN b text").await.unwrap();
    client.query("BEGIN").await;
    assert_eq!(client.ask(batch().run("s")).await, [STALE, "Z E"]);
    assert_eq!(client.query("ROLLBACK").await, ["C ROLLBACK", "Z I"]);
    assert_eq!(client.ask(batch().run("s")).await, ["2", "D one|", "C SELECT 1", "Z I"]);
}

/// Both servers at once for two clients, so that each has been to both.
async fn on_both(clients: &mut [Client; 2], ask: &Batch) -> [Vec<String>; 2] {
    let [a, b] = clients;
    a.query("BEGIN").await;
    b.query("BEGIN").await;
    let got = [a.ask(ask.clone()).await, b.ask(ask.clone()).await];
    a.query("ROLLBACK").await;
    b.query("ROLLBACK").await;
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_told_columns_never_gets_rows_of_others() {
    let (_cluster, pooled, admin) = pool_with_table("told").await;
    let select = "SELECT * FROM told";
    let mut clients = [Client::new(&pooled).await, Client::new(&pooled).await];
    for client in &mut clients {
        assert_eq!(client.ask(batch().parse("s", select).describe("s")).await, ["1", "t", "T", "Z I"]);
    }
    for got in on_both(&mut clients, &batch().run("s")).await {
        assert_eq!(got, ["2", "D one", "C SELECT 1", "Z T"]);
    }
    for (n, column) in ["b", "c"].into_iter().enumerate() {
        admin.batch_execute(&format!("ALTER TABLE told ADD COLUMN {column} text DEFAULT '{column}'")).await.unwrap();
        let row = if n == 0 { "D one|b" } else { "D one|b|c" };
        // Somebody else brings one of the servers to what is there now.
        let mut other = Client::new(&pooled).await;
        assert_eq!(other.ask(batch().parse("o", select).run("o")).await[2..], [row, "C SELECT 1", "Z I"]);
        for client in &mut clients {
            for _ in 0..3 {
                assert_eq!(client.ask(batch().run("s")).await, [STALE, "Z I"]);
            }
        }
        for got in on_both(&mut clients, &batch().run("s")).await {
            assert_eq!(got, [STALE, "Z E"]);
        }
        // asyncpg, pgjdbc: prepared anew, wherever.
        let anew = format!("n{n}");
        for got in on_both(&mut clients, &batch().parse(&anew, select).describe(&anew).run(&anew)).await {
            assert_eq!(got, ["1", "t", "T", "2", row, "C SELECT 1", "Z T"]);
        }
        for client in &mut clients {
            assert_eq!(client.ask(batch().run(&anew)).await, ["2", row, "C SELECT 1", "Z I"]);
            assert_eq!(client.ask(batch().describe("s").run("s")).await, ["t", "T", "2", row, "C SELECT 1", "Z I"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_was_dropped_and_made_again_is_that_of_the_next_parse() {
    let cluster = postgres::shared();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 2, ..config(&cluster) }).await;
    let mut client = Client::new(&pooled).await;
    let select = "SELECT $1::pair_made_again";
    for turn in 0..4 {
        client.query("DROP TYPE IF EXISTS pair_made_again").await;
        client.query("CREATE TYPE pair_made_again AS (a int, b text)").await;
        let got = client.ask(batch().parse("s", select).describe("s").bind_with("s", &["(1,x)"]).execute()).await;
        assert_eq!(got, ["1", "t", "T", "2", "D (1,x)", "C SELECT 1", "Z I"], "turn {turn}");
        client.ask(batch().close("s")).await;
    }
    // Inside a transaction one is told, and the next is not.
    client.query("DROP TYPE pair_made_again").await;
    client.query("CREATE TYPE pair_made_again AS (a int, b text)").await;
    let ask = batch().parse("s", select).describe("s").bind_with("s", &["(1,x)"]).execute();
    client.query("BEGIN").await;
    let first = client.ask(ask.clone()).await;
    client.query("ROLLBACK").await;
    assert!(first.iter().any(|line| line.starts_with("E XX000")) || first.len() == 7, "{first:?}");
    client.ask(batch().close("s")).await;
    let mut clients = [client, Client::new(&pooled).await];
    for got in on_both(&mut clients, &ask).await {
        assert_eq!(got, ["1", "t", "T", "2", "D (1,x)", "C SELECT 1", "Z T"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_and_read_before_it_is_synced_survives_a_migration() {
    let (_cluster, pooled, admin) = pool_with_table("flushed").await;
    let select = "SELECT * FROM flushed";
    let mut first = Client::new(&pooled).await;
    first.ask(batch().parse("x", select).run("x")).await;
    admin.batch_execute("ALTER TABLE flushed ADD COLUMN b text DEFAULT 'b'").await.unwrap();
    // asyncpg: Parse, Describe, Flush; once that is answered, Bind, Execute, Sync.
    let mut second = Client::new(&pooled).await;
    second.send(batch().parse("y", select).describe("y").flush()).await;
    let mut head = Vec::new();
    while head.len() < 3 {
        let (tag, body) = message(&mut second.0).await;
        head.push(line(tag, &body));
    }
    assert_eq!(head, ["1", "t", "T"]);
    assert_eq!(second.ask(batch().run("y")).await, ["2", "D one|b", "C SELECT 1", "Z I"]);
    assert_eq!(pooled.metric_of("bookend_pool_stale_plans_total", "healed"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_across_a_migration_gets_every_answer_and_without_names_no_error() {
    let (_cluster, pooled, admin) = pool_with_table("piped").await;
    let select = "SELECT * FROM piped";
    let mut client = Client::new(&pooled).await;
    client.ask(batch().parse("s", select).run("s")).await;
    for _ in 0..3 {
        client.ask(batch().run_text(select)).await;
    }
    admin.batch_execute("ALTER TABLE piped ADD COLUMN b text DEFAULT 'b'").await.unwrap();
    let pipeline = (0..30).fold(batch(), |to, _| to.run_text(select).sync());
    client.send(pipeline).await;
    for n in 0..30 {
        assert_eq!(client.answer().await, ["1", "2", "D one|b", "C SELECT 1", "Z I"], "answer {n}");
    }
    admin.batch_execute("ALTER TABLE piped ADD COLUMN c text DEFAULT 'c'").await.unwrap();
    let pipeline = (0..30).fold(batch(), |to, _| to.run("s").sync());
    client.send(pipeline).await;
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(client.answer().await);
    }
    assert_eq!(answers.last().unwrap(), &["2", "D one|b|c", "C SELECT 1", "Z I"]);
    let told = answers.iter().filter(|answer| answer[0] == STALE).count();
    assert!(told < 30, "those behind the one that met it are prepared again");
    assert!(answers.iter().all(|answer| answer[0] == STALE || answer[1] == "D one|b|c"), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_without_a_name_is_parsed_once_for_each_server() {
    let cluster = postgres::shared();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 1, ..config(&cluster) }).await;
    let (mut one, mut other) = (Client::new(&pooled).await, Client::new(&pooled).await);
    for n in 0..20 {
        for client in [&mut one, &mut other] {
            let got =
                client.ask(batch().parse("", "SELECT $1::int + 1").bind_with("", &[&n.to_string()]).execute()).await;
            assert_eq!(got, ["1", "2", &format!("D {}", n + 1), "C SELECT 1", "Z I"]);
        }
    }
    let count = "SELECT count(*) || ' ' || sum(generic_plans + custom_plans) FROM pg_prepared_statements";
    assert_eq!(one.query(count).await[1], "D 1 39");
    assert_eq!(pooled.metric("bookend_pool_server_parses_total"), 1.0);
    assert_eq!(pooled.metric("bookend_pool_client_parses_total"), 39.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_read_under_its_own_clients_settings() {
    let cluster = postgres::shared();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 1, ..config(&cluster) }).await;
    let (mut one, mut other) = (Client::new(&pooled).await, Client::new(&pooled).await);
    one.query("SET TimeZone TO 'UTC'").await;
    other.query("SET TimeZone TO 'Asia/Tokyo'").await;
    // A literal becomes a moment when the text is parsed.
    let midnight = "SELECT extract(epoch FROM timestamptz '2026-01-01 00:00')::bigint";
    for _ in 0..4 {
        assert_eq!(one.ask(batch().run_text(midnight)).await[2], "D 1767225600");
        assert_eq!(other.ask(batch().run_text(midnight)).await[2], "D 1767193200");
    }
    for (client, expected) in [(&mut one, "D 1767225600"), (&mut other, "D 1767193200")] {
        assert_eq!(client.ask(batch().parse("m", midnight).run("m")).await[2], expected);
    }
    // And a date that moves is not held fast.
    for _ in 0..3 {
        let got = one.ask(batch().run_text("SELECT 'now'::timestamptz > now() - interval '1 second'")).await;
        assert_eq!(got[2], "D t");
        tokio::time::sleep(SECOND / 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_about_a_statement_are_word_for_word_postgresqls() {
    let cluster = postgres::shared();
    let pooled = start(Pool { auth_type: AuthType::Trust, default_pool_size: 1, ..config(&cluster) }).await;
    let mut through = Client::new(&pooled).await;
    // A session's own server connection gets every frame as it is.
    let own = Pool { auth_type: AuthType::Trust, pool_mode: PoolMode::Session, ..config(&cluster) };
    let direct = start(own).await;
    let mut direct = Client::new(&direct).await;
    let one = "SELECT $1::int";
    for step in [
        batch().parse("mine", one),
        batch().bind_with("mine", &["1", "2"]).execute(),
        batch().parse("mine", one),
        batch().run("nobody"),
        batch().parse("", one).bind_with("", &["1"]).execute(),
        batch().parse("", one).bind_with("", &["1"]).execute(),
        batch().parse("", one).bind_with("", &["1", "2"]).execute(),
        batch().parse("", one).bind_with("", &["x"]).execute(),
        batch().parse("", "SELEC 1").run(""),
        batch().parse("", "SELECT nothing FROM nowhere").run(""),
        batch().parse("", "SELECT nothing FROM nowhere").run(""),
        batch().parse("", "SELECT nothing FROM nowhere").run(""),
        batch().parse("", "SELECT 1/0").run(""),
        batch().parse("", "SELECT 1/0").run(""),
        batch().parse("", "SELECT 1/0").run(""),
    ] {
        assert_eq!(through.ask(step.clone()).await, direct.ask(step).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_time_texts_stay_within_the_statements_memory() {
    let cluster = postgres::shared();
    let settings =
        Pool { auth_type: AuthType::Trust, default_pool_size: 1, max_statement_memory: 1 << 20, ..config(&cluster) };
    let pooled = start(settings).await;
    let mut client = Client::new(&pooled).await;
    let text = |n: usize| format!("SELECT {n} -- {}", "x".repeat(60_000));
    for n in 0..10 {
        assert_eq!(client.ask(batch().parse(&format!("s{n}"), &text(n))).await, ["1", "Z I"]);
    }
    let mut refused = 0;
    for n in 10..30 {
        let got = client.ask(batch().parse(&format!("s{n}"), &text(n))).await;
        refused +=
            usize::from(got[0] == "E 53400 no room for another prepared statement (max_statement_memory 1048576)");
    }
    assert!(refused > 10, "{refused}");
    let bytes = pooled.metric("bookend_pool_statement_bytes");
    assert!((600_000.0..=1_048_576.0).contains(&bytes), "{bytes}");
    assert_eq!(client.ask(batch().run("s3")).await[1], "D 3");
    drop(client);
}

/// The types of parameters: no error tells that they are others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_prepared_after_a_table_was_made_again_has_the_parameters_of_the_new_one() {
    let cluster = postgres::shared();
    let pooled = start(Pool { default_pool_size: 2, ..config(&cluster) }).await;
    let (migrates, other, holds) = (pooled.client().await, pooled.client().await, pooled.client().await);
    let insert = "INSERT INTO remade VALUES ($1)";
    let make = |kind: &str| format!("DROP TABLE IF EXISTS remade; CREATE TABLE remade (v {kind})");
    for kind in ["date", "time", "int4", "float4"] {
        // Once by itself, once in a transaction in whose middle the client prepares, and others do before it ends.
        migrates.batch_execute(&make("text")).await.unwrap();
        for client in [&migrates, &other] {
            assert_eq!(client.prepare(insert).await.unwrap().params()[0].name(), "text");
        }
        holds.batch_execute("BEGIN").await.unwrap(); // so that the other server is asked too
        assert_eq!(other.prepare(insert).await.unwrap().params()[0].name(), "text");
        holds.batch_execute("COMMIT").await.unwrap();
        match kind {
            "date" | "int4" => migrates.batch_execute(&make(kind)).await.unwrap(),
            _ => {
                migrates.batch_execute(&format!("BEGIN; {}", make(kind))).await.unwrap();
                assert_eq!(migrates.prepare(insert).await.unwrap().params()[0].name(), kind, "in its own transaction");
                migrates.batch_execute("COMMIT").await.unwrap();
            }
        }
        for _ in 0..2 {
            for client in [&migrates, &other] {
                assert_eq!(client.prepare(insert).await.unwrap().params()[0].name(), kind);
            }
            holds.batch_execute("BEGIN").await.unwrap();
            assert_eq!(other.prepare(insert).await.unwrap().params()[0].name(), kind, "on the other server");
            holds.batch_execute("COMMIT").await.unwrap();
        }
    }
    migrates.batch_execute("DROP TABLE remade").await.unwrap();
}
