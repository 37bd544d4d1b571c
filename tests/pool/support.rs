//! A pooler on a free port, over loopback.

#[path = "../support/postgres.rs"]
pub mod postgres;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bookend::{
    config::{
        pool::{
            Access, AuthType, Database, DatabaseServers, Listen, OwnLookup, Peers, Pool, PoolMode, Probe, RequireAuth,
            Servers, Sessions, Tcp, User, UserSecret,
        },
        secret::Secret,
    },
    health::{
        board::Board,
        drain::{self, DrainControl, Phase, WaitFor},
        ready::Ready,
    },
    pool::{
        client::arrival,
        names::{Lookup, System},
        peer::Peer,
        pooler::{Deps, Pooler},
        socket::Socket,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

pub use self::postgres::{Cluster, PASSWORD, USER};

pub const SECOND: Duration = Duration::from_secs(1);

/// The pool's name of the cluster's database.
pub const DATABASE: &str = "arena";

pub struct Pooled {
    pub pooler: Arc<Pooler>,
    pub port: u16,
    pub drain: Arc<DrainControl>,
    pub metrics: prometheus::Registry,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.accepting.abort();
        self.drain.advance(Phase::Cut);
    }
}

/// A configuration with PgBouncer's defaults, and one database.
pub fn config(cluster: &Cluster) -> Pool {
    Pool {
        listen: Listen::tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        tcp: Tcp::default(),
        threads: 1,
        auth_type: AuthType::ScramSha256,
        access: Access::default(),
        client_tls: None,
        server_tls: None,
        server_require_auth: RequireAuth::default(),
        admin_users: vec![USER.into()],
        stats_users: Vec::new(),
        pool_mode: PoolMode::Transaction,
        max_client_conn: 1000,
        max_db_client_connections: None,
        max_user_client_connections: None,
        default_pool_size: 5,
        min_pool_size: 0,
        reserve_pool_size: 0,
        reserve_pool_timeout: Some(5 * SECOND),
        max_db_connections: None,
        query_wait_timeout: Some(30 * SECOND),
        server_idle_timeout: Some(600 * SECOND),
        server_lifetime: 3600 * SECOND,
        server_connect_timeout: 15 * SECOND,
        server_login_retry: 15 * SECOND,
        query_timeout: None,
        transaction_timeout: None,
        idle_transaction_timeout: None,
        client_idle_timeout: None,
        client_login_timeout: 60 * SECOND,
        rollback_timeout: 5 * SECOND,
        cancel_wait_timeout: 10 * SECOND,
        max_prepared_statements: 200,
        prepare_unnamed_statements: true,
        max_statement_memory: 64 << 20,
        max_packet_size: i32::MAX as u32,
        max_held_message: 16 << 20,
        spill_buffer: 256 << 10,
        spill_memory: 64 << 20,
        ignore_startup_parameters: Vec::new(),
        track_extra_parameters: Vec::new(),
        scram_iterations: 4096,
        stats_period: 60 * SECOND,
        servers: Servers::default(),
        sessions: Sessions::default(),
        probe: Probe { interval: 2 * SECOND, down_interval: SECOND / 2, timeout: SECOND, rise: 1, fall: 2 },
        peers: Peers::default(),
        daemon: Default::default(),
        databases: vec![database(cluster, DATABASE)],
        users: vec![User::new(USER, UserSecret::Plain(Secret::new(PASSWORD)))],
    }
}

pub fn database(cluster: &Cluster, name: &str) -> Database {
    Database {
        name: name.into(),
        dbname: Some("postgres".into()),
        host: "127.0.0.1".into(),
        port: cluster.port,
        user: None,
        password: None,
        pool_size: None,
        min_pool_size: None,
        reserve_pool_size: None,
        max_db_connections: None,
        max_db_client_connections: None,
        pool_mode: None,
        servers: DatabaseServers::default(),
        query_wait_timeout: None,
        lookup: OwnLookup::default(),
    }
}

/// As the process does.
pub async fn start(config: Pool) -> Pooled {
    start_with(config, Arc::new(System)).await
}

/// Where names of servers are found by `lookup`.
pub async fn start_with(config: Pool, lookup: Arc<dyn Lookup>) -> Pooled {
    let (control, drain) = drain::channel();
    let control = Arc::new(control);
    let left = control.clone();
    let metrics = prometheus::Registry::new();
    let deps = Deps {
        board: Arc::new(Board::default()),
        drain: drain.clone(),
        ready: Ready::default(),
        metrics: metrics.clone(),
        lookup,
        reload: Arc::new(|| Ok(())),
        set: Arc::new(|_, _| Ok(())),
        leave: Arc::new(move |wait_for| {
            left.advance(match wait_for {
                WaitFor::Nothing => Phase::Cut,
                WaitFor::Transactions => Phase::Draining { deadline: Instant::now() + 30 * SECOND },
                WaitFor::Clients => Phase::Closed,
            });
            Ok(())
        }),
    };
    let pooler = Pooler::new(Arc::new(config), deps).unwrap();
    pooler.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = pooler.clone();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, remote)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let peer = Peer::Tcp { remote, local: stream.local_addr().unwrap() };
            drain.spawn(arrival::serve(served.clone(), Socket::Tcp(stream), peer));
        }
    });
    Pooled { pooler, port, drain: control, metrics, accepting }
}

impl Pooled {
    pub async fn client(&self) -> tokio_postgres::Client {
        postgres::connect(self.port, DATABASE, "").await.unwrap()
    }

    pub async fn client_with(&self, more: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        postgres::connect(self.port, DATABASE, more).await
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        let metric = &family.get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    /// The value of a metric with one label.
    pub fn metric_of(&self, name: &str, label: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        let labelled =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == label);
        let metric = family.get_metric().iter().find(labelled).unwrap_or_else(|| panic!("no {label} of {name}"));
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    /// Server connections that are open now.
    pub fn servers(&self) -> usize {
        self.pooler.registry().servers().len()
    }
}

/// Waits until `what` is so.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(20 * SECOND, wait).await.is_ok(), "never: {what}");
}

/// The SQLSTATE and message of an error that came from the pool or the server.
pub fn told(error: &tokio_postgres::Error) -> (String, String) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("not told by a server: {error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

/// The first value of a simple query.
pub async fn ask(client: &tokio_postgres::Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    for message in client.simple_query(sql).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or_default().to_owned());
        }
    }
    Ok(String::new())
}

/// The rows of a simple query.
pub async fn rows(client: &tokio_postgres::Client, sql: &str) -> Vec<tokio_postgres::SimpleQueryRow> {
    let row = |message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    client.simple_query(sql).await.unwrap().into_iter().filter_map(row).collect()
}

/// One column of the rows of a simple query; NULL is nothing.
pub async fn column(client: &tokio_postgres::Client, sql: &str, name: &str) -> Vec<String> {
    rows(client, sql).await.iter().map(|row| row.get(name).unwrap_or_default().to_owned()).collect()
}

/// A client whose frames a test writes by hand. Logs in by trust.
pub async fn raw(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let parameters = format!("user\0{USER}\0database\0{DATABASE}\0\0");
    let length = u32::try_from(parameters.len() + 8).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat()).await.unwrap();
    assert!(answer(&mut stream).await.ends_with(&[(b'Z', b"I".to_vec())]));
    stream
}

/// A session that shows its cancel key. Logs in by trust.
pub struct Keyed {
    pub stream: TcpStream,
    /// What came before ReadyForQuery.
    pub welcome: Vec<(u8, Vec<u8>)>,
    /// As in BackendKeyData, and as a cancel request has it: process id and secret.
    pub key: Vec<u8>,
}

/// Logs in with a version of the protocol (`0x30000` is 3.0) and parameters beside user and database.
pub async fn keyed(port: u16, version: u32, more: &str) -> Keyed {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let parameters = format!("user\0{USER}\0database\0{DATABASE}\0{more}\0");
    let length = u32::try_from(parameters.len() + 8).unwrap();
    let packet = [&length.to_be_bytes()[..], &version.to_be_bytes(), parameters.as_bytes()].concat();
    stream.write_all(&packet).await.unwrap();
    let welcome = answer(&mut stream).await;
    let key = welcome.iter().find(|(tag, _)| *tag == b'K').expect("a cancel key").1.clone();
    Keyed { stream, welcome, key }
}

impl Keyed {
    /// Sends a simple query.
    pub async fn send(&mut self, sql: &str) {
        let length = u32::try_from(sql.len() + 5).unwrap();
        let message = [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat();
        self.stream.write_all(&message).await.unwrap();
    }

    /// Returns the SQLSTATE of the answer, if it is an error.
    pub async fn sqlstate(&mut self) -> Option<String> {
        let messages = answer(&mut self.stream).await;
        let (_, error) = messages.into_iter().find(|(tag, _)| *tag == b'E')?;
        let field = error.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C')).unwrap();
        Some(String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// Begins a query that only a cancel ends in time.
    pub async fn sleep(&mut self) {
        self.send("SELECT pg_sleep(30)").await;
    }

    /// Cancels what runs by requests to `port`, one after another, until it has ended. Returns its SQLSTATE.
    pub async fn cancelled_by(&mut self, port: u16) -> Option<String> {
        let key = self.key.clone();
        let requests = async move {
            loop {
                // The first may come before the query.
                tokio::time::sleep(SECOND / 20).await;
                cancel(port, &key).await;
            }
        };
        tokio::select! {
            sqlstate = self.sqlstate() => sqlstate,
            () = requests => unreachable!("they go on for ever"),
        }
    }

    /// Says that nothing has stopped what [`Self::sleep`] began.
    pub async fn still_sleeps(&mut self) {
        let mut byte = [0];
        let told = tokio::time::timeout(SECOND / 5, self.stream.peek(&mut byte)).await;
        assert!(told.is_err(), "it was stopped, or is over");
    }
}

/// Sends a cancel request and waits for its end, which is all the answer there may be.
pub async fn cancel(port: u16, key: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let length = u32::try_from(key.len() + 8).unwrap();
    let code = (1234u32 << 16) | 5678;
    stream.write_all(&[&length.to_be_bytes()[..], &code.to_be_bytes(), key].concat()).await.unwrap();
    let mut said = Vec::new();
    let end = tokio::time::timeout(20 * SECOND, stream.read_to_end(&mut said)).await;
    assert!(end.is_ok(), "the connection of a cancel request is closed");
    assert!(said.is_empty(), "a cancel request is not answered: {said:?}");
}

/// Reads messages to the next ReadyForQuery.
pub async fn answer(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    loop {
        messages.push(message(stream).await);
        if messages.last().is_some_and(|(tag, _)| *tag == b'Z') {
            return messages;
        }
    }
}

/// Reads a message: its tag and body.
pub async fn message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let tag = tokio::time::timeout(5 * SECOND, stream.read_u8()).await.expect("an answer in time").unwrap();
    let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}
