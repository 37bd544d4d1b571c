//! Where clients come in: several addresses, Unix sockets, a port that two processes share.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use bookend::config::pool::{Database, Pool};

use crate::{
    process::{Process, free_port},
    support::*,
};

const UNIX: &str = "unix_socket_dir: FOLDER";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_in_by_a_unix_socket_and_by_each_address() {
    let cluster = postgres::shared();
    let process = Process::start(&cluster, free_port(), &format!("{UNIX}\nlisten_addr: '127.0.0.1, 127.0.0.2'")).await;
    let client = process.unix_client(process.folder(), DATABASE, USER).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    for host in ["127.0.0.1", "127.0.0.2"] {
        assert!(std::net::TcpStream::connect((host, process.port)).is_ok(), "{host}");
    }
    let console = process.unix_client(process.folder(), "pgbouncer", USER).await.unwrap();
    // As PgBouncer shows such a client: the socket's number for a port, and the process at its other end.
    assert_eq!(column(&console, "SHOW CLIENTS", "addr").await, ["unix", "unix"]);
    assert_eq!(column(&console, "SHOW CLIENTS", "local_addr").await, ["unix", "unix"]);
    assert_eq!(column(&console, "SHOW CLIENTS", "port").await[0], process.port.to_string());
    assert_eq!(column(&console, "SHOW CLIENTS", "remote_pid").await[0], std::process::id().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_asks_for_the_password_as_any_other() {
    let cluster = postgres::shared();
    let process = Process::start(&cluster, free_port(), &format!("{UNIX}\nlisten_addr: []")).await;
    assert!(process.client().await.is_err(), "nothing listens by TCP");
    let refused = process.unix_client(process.folder(), DATABASE, "somebody").await.unwrap_err();
    assert_eq!(told(&refused).0, "28P01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_a_unix_socket_has_its_permissions_and_is_gone_at_the_end() {
    let cluster = postgres::shared();
    let mut process = Process::start(&cluster, free_port(), &format!("{UNIX}\nunix_socket_mode: '0700'")).await;
    let mode = std::fs::metadata(process.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    process.signal(libc::SIGTERM);
    assert!(process.end().await.success(), "{}", process.log());
    assert!(!process.socket().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_left_behind_is_replaced_and_one_in_use_ends_the_start() {
    let cluster = postgres::shared();
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("listen_addr: []\nunix_socket_dir: {}", folder.path().display());
    let port = free_port();
    let mut killed = Process::start(&cluster, port, &settings).await;
    killed.signal(libc::SIGKILL);
    killed.end().await;
    let heir = Process::start(&cluster, port, &settings).await;
    let mut late = Process::spawn(&cluster, port, &settings);
    assert_eq!(late.end().await.code(), Some(1));
    let name = format!("cannot listen on {}/.s.PGSQL.{port}", folder.path().display());
    assert!(late.log().contains(&name) && late.log().contains("somebody listens there"), "{}", late.log());
    assert!(late.log().contains("pool.unix_socket_dir"), "{}", late.log());
    heir.unix_client(folder.path().to_str().unwrap(), DATABASE, USER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abstract_socket_has_no_file() {
    let cluster = postgres::shared();
    let name = format!("@bookend-{}", std::process::id());
    let process = Process::start(&cluster, free_port(), &format!("unix_socket_dir: '{name}'")).await;
    let client = process.unix_client(&name, DATABASE, USER).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_runs_as_our_user_may_use_the_console_of_the_unix_socket_without_a_password() {
    let cluster = postgres::shared();
    let process = Process::start(&cluster, free_port(), UNIX).await;
    let console = process.unix_client(process.folder(), "pgbouncer", "pgbouncer").await.unwrap();
    // All of it, not SHOW alone.
    console.simple_query("RELOAD").await.unwrap();
    assert_eq!(column(&console, "SHOW CLIENTS", "user").await, ["pgbouncer"]);
    // Neither for the databases, nor over TCP, nor for another name.
    for (database, user) in [(DATABASE, "pgbouncer"), ("pgbouncer", "root")] {
        let refused = process.unix_client(process.folder(), database, user).await.unwrap_err();
        assert_eq!(told(&refused).0, "28P01", "{user} of {database}");
    }
    let config = format!("host=127.0.0.1 port={} user=pgbouncer password=x dbname=pgbouncer", process.port);
    let refused = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(told(&refused).0, "28P01");
}

/// Another user of this machine may open the socket, and is asked for a password as everybody is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_of_the_machine_is_no_operator() {
    // SAFETY: plain system call.
    if unsafe { libc::geteuid() } != 0 {
        return; // only root can be somebody else
    }
    let cluster = postgres::shared();
    let process = Process::start(&cluster, free_port(), UNIX).await;
    std::fs::set_permissions(process.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(process.folder(), None, None).unwrap();
    let script = format!(
        "import socket,struct\n\
         s = socket.socket(socket.AF_UNIX); s.connect('{}')\n\
         b = struct.pack('>I', 196608) + b'user\\0pgbouncer\\0database\\0pgbouncer\\0\\0'\n\
         s.sendall(struct.pack('>I', len(b) + 4) + b)\n\
         kind, _, what = struct.unpack('>cII', s.recv(9))\n\
         print(kind.decode(), what)",
        process.socket().display()
    );
    use std::os::unix::process::CommandExt as _;
    let output = Command::new("python3").arg("-c").arg(script).uid(65_534).gid(65_534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // AuthenticationSASL, not AuthenticationOk.
    assert_eq!(said.trim(), "R 10", "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_reached_by_their_unix_socket() {
    let cluster = postgres::shared();
    let database = Database { host: cluster.socket_folder(), ..database(&cluster, DATABASE) };
    let pooled = start(Pool { databases: vec![database], ..config(&cluster) }).await;
    let client = pooled.client().await;
    // Of a Unix socket PostgreSQL knows no address.
    assert_eq!(ask(&client, "SELECT coalesce(host(inet_client_addr()), 'unix')").await.unwrap(), "unix");
    let console = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap();
    assert_eq!(column(&console, "SHOW SERVERS", "addr").await, ["unix"]);
    assert_eq!(column(&console, "SHOW SERVERS", "port").await, [cluster.port.to_string()]);

    let token = client.cancel_token();
    let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(30)").await.unwrap_err() });
    eventually("it runs", || pooled.pooler.registry().clients().iter().any(|client| client.link().is_some())).await;
    let mut tried = 0;
    while !query.is_finished() && tried < 100 {
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        tokio::time::sleep(SECOND / 20).await;
        tried += 1;
    }
    assert_eq!(told(&query.await.unwrap()).0, "57014");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_names_what_takes_a_restart_and_leaves_it_as_it_is() {
    let cluster = postgres::shared();
    let process = Process::start(&cluster, free_port(), UNIX).await;
    process.reload(&cluster, "listen_addr: 127.0.0.3\nso_reuseport: true\ntcp_keepidle: 30s");
    eventually("it is named", || process.log().contains("take a restart")).await;
    let log = process.log();
    for key in ["pool.listen_addr", "pool.so_reuseport", "pool.unix_socket_dir"] {
        assert!(log.contains(key), "{key}: {log}");
    }
    assert!(!log.contains("tcp_keepidle"), "{log}");
    let console = process.unix_client(process.folder(), "pgbouncer", USER).await.unwrap();
    process.client().await.unwrap();
    let rows = rows(&console, "SHOW CONFIG").await;
    let row = |key: &str| {
        let row = rows.iter().find(|row| row.get(0) == Some(key))?;
        Some((row.get(1).unwrap_or_default().to_owned(), row.get(3).unwrap_or_default().to_owned()))
    };
    assert_eq!(row("tcp_keepidle"), Some(("30".into(), "yes".into())));
    for key in ["listen_addr", "listen_port", "listen_backlog", "so_reuseport", "unix_socket_dir", "unix_socket_mode"] {
        assert_eq!(row(key).map(|row| row.1).as_deref(), Some("no"), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_port_and_the_one_that_leaves_takes_nobodys_connection_with_it() {
    let cluster = postgres::shared();
    let port = free_port();
    let first = Process::start(&cluster, port, "so_reuseport: true").await;
    let stranger = Process::spawn(&cluster, port, "").end().await;
    assert_eq!(stranger.code(), Some(1), "one that does not share is refused");
    let mut old = first;
    let new = Process::start(&cluster, port, "so_reuseport: true").await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(old.client().await.unwrap());
    }
    let of = |process: &Process| sockets_on(process.pid(), port);
    let (at_old, at_new) = (of(&old), of(&new));
    assert!(at_old > 1 && at_new > 1, "both are reached: {at_old} and {at_new}");

    old.signal(libc::SIGTERM);
    eventually("the old one accepts no more", || old.log().contains("draining")).await;
    old.end().await;
    for attempt in 0..40 {
        let client = new.client().await.unwrap_or_else(|error| panic!("{attempt}: {error}"));
        assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    }
    // Those of the other process never felt it.
    let mut served = 0;
    for client in &clients {
        served += usize::from(ask(client, "SELECT 1").await.is_ok());
    }
    // One socket of the new process listens.
    assert_eq!(served, at_new - 1);
}

/// Sockets of a process that are bound to `port` at their own end.
fn sockets_on(pid: i32, port: u16) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let inodes: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let bound = fields.next()?.ends_with(&format!(":{port:04X}"));
            fields.nth(7).filter(|_| bound).map(|inode| format!("socket:[{inode}]"))
        })
        .collect();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str())).count()
}
