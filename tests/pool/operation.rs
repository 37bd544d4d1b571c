//! What a service manager, a log reader and an administrator of the machine see of a pgbouncer.ini's process.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use tokio::{net::TcpStream, time::timeout};
use tokio_postgres::Client;

use crate::{
    ini::{Process, ini},
    support::*,
    tls::{Authority, pair},
};

fn run(cluster: &Cluster, settings: &str) -> Process {
    Process::start(&[], |dir, port| {
        let settings = settings.replace("FOLDER", &dir.display().to_string());
        ini(cluster, dir, port, &format!("pool_mode = transaction\n{settings}"))
    })
}

async fn connect_as(process: &Process, database: &str, more: &str) -> Result<Client, tokio_postgres::Error> {
    process.connect("pgbouncer").await; // it listens
    postgres::connect(process.port, database, more).await
}

/// How many rows of a column have this value.
async fn count(console: &Client, command: &str, name: &str, value: &str) -> usize {
    column(console, command, name).await.iter().filter(|each| *each == value).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_of_clients_what_it_is_told_to_have() {
    let cluster = postgres::shared();
    let process = run(&cluster, "log_connections = 0\nlog_disconnections = 0\nlog_pooler_errors = 0");
    let console = process.connect("pgbouncer").await;
    let visit = async || {
        drop(process.connect("shop").await);
        assert!(postgres::connect(process.port, "nowhere", "").await.is_err());
    };
    let lines = |text: &str| process.text("stderr").matches(text).count();
    let texts = ["client logged in", "client disconnected", "login refused"];
    visit().await;
    for setting in ["log_connections", "log_disconnections", "log_pooler_errors"] {
        console.simple_query(&format!("SET {setting} = 1")).await.unwrap();
    }
    assert_eq!(texts.map(lines), [0; 3]);
    visit().await;
    eventually("each has a line", || texts.map(lines).iter().all(|count| *count > 0)).await;
    // Of those who came before, none has one after all.
    assert_eq!(texts.map(lines)[0], 1, "{}", process.text("stderr"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verbose_process_says_more() {
    let cluster = postgres::shared();
    for (settings, arguments, more) in [("", &[][..], false), ("verbose = 1", &[], true), ("", &["-v"], true)] {
        let settings = format!("log_pooler_errors = 0\n{settings}");
        let process = Process::start(arguments, |dir, port| ini(&cluster, dir, port, &settings));
        process.connect("shop").await;
        assert!(postgres::connect(process.port, "nowhere", "").await.is_err());
        process.connect("pgbouncer").await;
        eventually("it has logged", || process.text("stderr").matches("client logged in").count() == 2).await;
        assert_eq!(process.text("stderr").contains("login refused"), more, "{settings} {arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_becomes_the_user_it_is_told_to_be() {
    let cluster = postgres::shared();
    // SAFETY: plain system call.
    let own = unsafe { libc::geteuid() };
    // Only root can become somebody else.
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let is_wanted = |fields: &Vec<&str>| if own == 0 { fields[0] == "nobody" } else { fields[2] == own.to_string() };
    let wanted = users.filter(|fields| fields.len() > 2).find(is_wanted).unwrap();
    let (name, uid) = (wanted[0], wanted[2]);
    for by_flag in [false, true] {
        let arguments = if by_flag { vec!["-u", name] } else { Vec::new() };
        let process = Process::start(&arguments, |dir, port| {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
            ini(&cluster, dir, port, &if by_flag { String::new() } else { format!("user = {name}") })
        });
        process.connect("shop").await;
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        assert!(line.split_whitespace().all(|id| id == uid), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigusr1_holds_the_databases_and_sigusr2_serves_them_again() {
    let cluster = postgres::shared();
    let process = run(&cluster, "");
    let (console, client) = (process.connect("pgbouncer").await, process.connect("shop").await);
    assert_eq!(count(&console, "SHOW STATE", "value", "yes").await, 1, "active");
    let paused = async || count(&console, "SHOW DATABASES", "paused", "1").await;
    process.signal(libc::SIGUSR1);
    let begun = tokio::time::Instant::now();
    while paused().await == 0 {
        assert!(begun.elapsed() < 20 * SECOND);
        tokio::time::sleep(SECOND / 50).await;
    }
    let mut waiting = Box::pin(ask(&client, "SELECT 'served'"));
    assert!(timeout(SECOND / 3, &mut waiting).await.is_err());
    process.signal(libc::SIGUSR2);
    assert_eq!(waiting.await.unwrap(), "served");
    assert_eq!(paused().await, 0);
}

#[test]
fn version_and_help_are_printed_as_scripts_ask_for_them() {
    let said = |argument: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_bookend")).arg(argument).output().unwrap();
        assert!(output.status.success(), "{argument}");
        String::from_utf8(output.stdout).unwrap()
    };
    for argument in ["-V", "--version"] {
        assert_eq!(said(argument), format!("bookend {}\n", env!("CARGO_PKG_VERSION")));
    }
    for argument in ["-h", "--help"] {
        assert!(said(argument).contains("Usage: bookend"), "{argument}");
    }
}

/// The kernel's timers of connections between these ports: kind and hundredths of a second, from proc(5).
fn timers(pid: i32, (local, remote): (Option<u16>, Option<u16>)) -> Vec<(u8, u64)> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let is = |field: &str, port: Option<u16>| port.is_none_or(|port| field.ends_with(&format!(":{port:04X}")));
    let timer = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // State 01 is ESTABLISHED.
        let ours = is(fields[1], local) && is(fields[2], remote) && fields[3] == "01";
        let (kind, when) = fields[5].split_once(':')?;
        ours.then(|| (kind.parse().unwrap(), u64::from_str_radix(when, 16).unwrap()))
    };
    table.lines().skip(1).filter_map(timer).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_clients_and_to_servers_are_kept_alive() {
    let cluster = postgres::shared();
    for (settings, idle) in [("tcp_keepidle = 77", 77), ("tcp_keepalive = 1", 60), ("tcp_keepalive = 0", 0)] {
        let process = run(&cluster, settings);
        let client = process.connect("shop").await;
        let own: u16 = ask(&client, "SELECT inet_client_port()").await.unwrap().parse().unwrap();
        for ports in [(Some(process.port), None), (Some(own), Some(cluster.port))] {
            // Not at once: data that is not acknowledged yet has a timer of its own, and a connection that asked whether the
            // process listens may still be there.
            let fits = |(kind, when): &(u8, u64)| match idle {
                0 => *kind == 0,
                idle => *kind == 2 && (idle * 100 - 2_000..=idle * 100).contains(when),
            };
            let are_kept = || {
                let found = timers(process.pid(), ports);
                !found.is_empty() && found.iter().all(fits)
            };
            eventually(&format!("timers of {settings}"), are_kept).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tcp_defer_accept_a_connection_that_says_nothing_is_the_kernels() {
    let cluster = postgres::shared();
    for (settings, seen) in [("tcp_defer_accept = 30", false), ("tcp_defer_accept = 0", true)] {
        let process = run(&cluster, settings);
        let console = process.connect("pgbouncer").await;
        let _silent = TcpStream::connect(("127.0.0.1", process.port)).await.unwrap();
        let begun = tokio::time::Instant::now();
        let there = async || count(&console, "SHOW SOCKETS", "state", "cl_login").await > 0;
        while there().await != seen && begun.elapsed() < 10 * SECOND || !seen && begun.elapsed() < SECOND {
            tokio::time::sleep(SECOND / 50).await;
        }
        assert_eq!(there().await, seen, "{settings}");
    }
}

/// Whether each thread of a process is stopped: state T of proc(5), behind the name in parentheses.
fn is_stopped(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.into_iter().all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_backlog_is_how_many_connections_wait_to_be_accepted() {
    let cluster = postgres::shared();
    for (backlog, all) in [(1, false), (64, true)] {
        let process = run(&cluster, &format!("tcp_defer_accept = 0\nlisten_backlog = {backlog}"));
        process.connect("shop").await;
        process.signal(libc::SIGSTOP);
        eventually("all of it stands still", || is_stopped(process.pid())).await;
        let mut waiting = Vec::new();
        for _ in 0..8 {
            if let Ok(Ok(stream)) = timeout(SECOND / 4, TcpStream::connect(("127.0.0.1", process.port))).await {
                waiting.push(stream);
            }
        }
        process.signal(libc::SIGCONT);
        assert_eq!(waiting.len() == 8, all, "{} of 8 with listen_backlog = {backlog}", waiting.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unix_socket_belongs_to_its_group() {
    let cluster = postgres::shared();
    let groups = fs::read_to_string("/etc/group").unwrap();
    // SAFETY: plain system calls.
    let (root, own) = unsafe { (libc::geteuid() == 0, libc::getegid()) };
    let groups = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut groups = groups.map(|fields| (fields[0].to_owned(), fields[2].parse::<u32>().unwrap()));
    // Only root can give a file to any group.
    let (name, gid) = groups.find(|(_, gid)| if root { *gid != own } else { *gid == own }).unwrap();
    let settings = format!("unix_socket_dir = FOLDER\nunix_socket_mode = 0770\nunix_socket_group = {name}");
    let process = run(&cluster, &settings);
    process.connect("shop").await;
    let socket = fs::metadata(process.file(&format!(".s.PGSQL.{}", process.port))).unwrap();
    assert_eq!((socket.gid(), socket.mode() & 0o777), (gid, 0o770));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_of_auth_ident_file_lets_a_user_of_the_system_in_as_another() {
    let cluster = postgres::shared();
    let system = Command::new("id").arg("-un").output().unwrap();
    let system = String::from_utf8(system.stdout).unwrap();
    let process = Process::start(&[], |dir, port| {
        fs::write(dir.join("hba"), "local all arena peer map=ours\nhost all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        fs::write(dir.join("ident"), format!("ours {} {USER}\n", system.trim())).unwrap();
        let folder = dir.display();
        let settings = format!(
            "unix_socket_dir = {folder}\nauth_type = hba\nauth_hba_file = {folder}/hba\nauth_ident_file = {folder}/ident"
        );
        ini(&cluster, dir, port, &settings)
    });
    process.connect("shop").await;
    let by_socket = async |user: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host_path(process.file("")).port(process.port).dbname("shop").user(user);
        config.connect(tokio_postgres::NoTls).await.map(|(client, connection)| {
            tokio::spawn(connection);
            client
        })
    };
    let client = by_socket(USER).await.unwrap();
    assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), USER);
    // The map names one user, and what it names changes at a reload.
    assert_eq!(told(&by_socket("other").await.err().unwrap()).0, "28000");
    fs::write(process.file("ident"), "ours somebody_else arena\n").unwrap();
    process.connect("pgbouncer").await.simple_query("RELOAD").await.unwrap();
    assert_eq!(told(&by_socket(USER).await.err().unwrap()).0, "28000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_file_is_read_again_and_a_broken_line_is_named() {
    let cluster = postgres::shared();
    cluster.direct().await.batch_execute("CREATE ROLE joined LOGIN PASSWORD 'secret'").await.unwrap();
    let process = run(&cluster, "auth_type = scram-sha-256");
    let console = process.connect("pgbouncer").await;
    let joined = "user=joined password=secret";
    assert_eq!(told(&connect_as(&process, "shop", joined).await.err().unwrap()).0, "28P01");
    let users = process.text("userlist.txt");
    fs::write(process.file("userlist.txt"), format!("{users}\"joined\" secret\n")).unwrap();
    let error = told(&console.simple_query("RELOAD").await.unwrap_err()).1;
    assert!(error.contains("userlist.txt:2"), "{error}");
    fs::write(process.file("userlist.txt"), format!("{users}\"joined\" \"secret\"\n")).unwrap();
    console.simple_query("RELOAD").await.unwrap();
    let client = connect_as(&process, "shop", joined).await.unwrap();
    assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), "joined");
}

/// As PgBouncer's `auth_type = md5` has it. A hash cannot answer a server that asks for SCRAM: that one is reached by a forced user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_a_hash_and_a_verifier_of_auth_file_let_their_users_in_and_reach_the_server() {
    let cluster = postgres::shared();
    let direct = cluster.direct().await;
    let create = "CREATE ROLE listed_plain LOGIN PASSWORD 'secret'; CREATE ROLE listed_scram LOGIN PASSWORD 'secret'";
    direct.batch_execute(create).await.unwrap();
    let verifier = ask(&direct, "SELECT rolpassword FROM pg_authid WHERE rolname = 'listed_scram'").await.unwrap();
    let hash = ask(&direct, "SELECT 'md5' || md5('secret' || 'listed_md5')").await.unwrap();
    let process = Process::start(&[], |dir, port| {
        let forced = format!(
            "forced = host=127.0.0.1 port={} dbname=postgres user={USER} password={PASSWORD}\n\n[pgbouncer]",
            cluster.port
        );
        ini(&cluster, dir, port, "auth_type = md5").replace("[pgbouncer]", &forced)
    });
    let console = process.connect("pgbouncer").await;
    let users = process.text("userlist.txt");
    let listed =
        format!("{users}\"listed_plain\" \"secret\"\n\"listed_scram\" \"{verifier}\"\n\"listed_md5\" \"{hash}\"\n");
    fs::write(process.file("userlist.txt"), listed).unwrap();
    console.simple_query("RELOAD").await.unwrap();
    for (user, database, works_as) in [
        ("listed_plain", "shop", "listed_plain"),
        ("listed_scram", "shop", "listed_scram"),
        ("listed_md5", "forced", USER),
    ] {
        let client = connect_as(&process, database, &format!("user={user} password=secret")).await.unwrap();
        assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), works_as);
        let refused = connect_as(&process, database, &format!("user={user} password=other")).await.err().unwrap();
        assert_eq!(told(&refused).0, "28P01", "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_in_stats_users_may_look_and_who_stands_in_admin_users_may_do() {
    let cluster = postgres::shared();
    let create = "CREATE ROLE looker LOGIN PASSWORD 'secret'; CREATE ROLE passer_by LOGIN PASSWORD 'secret'";
    cluster.direct().await.batch_execute(create).await.unwrap();
    let process = run(
        &cluster,
        &format!("auth_type = scram-sha-256\nauth_user = {USER}\nauth_dbname = shop\nstats_users = looker"),
    );
    let looker = connect_as(&process, "pgbouncer", "user=looker password=secret").await.unwrap();
    looker.simple_query("SHOW POOLS").await.unwrap();
    for command in [
        "PAUSE",
        "RESUME",
        "RECONNECT",
        "KILL",
        "KILL_CLIENT 1",
        "DISABLE shop",
        "ENABLE shop",
        "WAIT_CLOSE",
        "RELOAD",
        "SET verbose = 1",
        "SUSPEND",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "SHUTDOWN WAIT_FOR_SERVERS",
    ] {
        assert_eq!(told(&looker.simple_query(command).await.unwrap_err()).0, "42501", "{command}");
    }
    let passer_by = connect_as(&process, "pgbouncer", "user=passer_by password=secret").await.err().unwrap();
    assert_eq!(told(&passer_by).0, "42501");
    process.connect("pgbouncer").await.simple_query("PAUSE").await.unwrap();
}

/// Runs psql: libpq, the client that counts. Returns what it printed, or its error.
fn psql(process: &Process, more: &str) -> Result<String, String> {
    let said = Command::new("psql")
        .args(["-XAtqw", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"])
        .arg(format!("host=127.0.0.1 port={} user={USER} dbname=shop connect_timeout=10 {more}", process.port))
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_what_the_files_of_an_ini_make_it_in_both_directions() {
    let (pair, authority) = (pair(), Authority::new());
    let cluster = Cluster::start_with_tls_that_asks(&pair.certificate, &pair.key, &authority.certificate);
    let process = Process::start(&[], |dir, port| {
        write(dir, "pool.crt", &pair.certificate);
        write(dir, "pool.key", &pair.key);
        write(dir, "authority.crt", &authority.certificate);
        for name in ["client", "server"] {
            let (certificate, key) = authority.client_files(USER);
            write(dir, &format!("{name}.crt"), &certificate);
            write(dir, &format!("{name}.key"), &key);
        }
        let folder = dir.display();
        let settings = format!(
            "pool_mode = transaction\nadmin_users =\n\
             client_tls_sslmode = verify-full\nclient_tls_cert_file = {folder}/pool.crt\n\
             client_tls_key_file = {folder}/pool.key\nclient_tls_ca_file = {folder}/authority.crt\n\
             server_tls_sslmode = verify-full\nserver_tls_ca_file = {folder}/pool.crt\n\
             server_tls_cert_file = {folder}/server.crt\nserver_tls_key_file = {folder}/server.key\n"
        );
        ini(&cluster, dir, port, &settings)
    });
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", process.port)).is_ok()).await;
    let folder = process.file("").display().to_string();
    let certified = format!("sslcert={folder}/client.crt sslkey={folder}/client.key");
    let verified = format!("sslmode=verify-full sslrootcert={folder}/pool.crt {certified}");
    let said = tokio::task::spawn_blocking(move || {
        [verified, format!("sslmode=disable {certified}"), format!("sslmode=require sslcert={folder}/none")]
            .map(|more| psql(&process, &more))
    });
    let [verified, plain, nameless] = said.await.unwrap();
    assert_eq!(verified.as_deref(), Ok("t"), "and the server is reached by TLS");
    assert!(plain.unwrap_err().contains("SSL required"));
    assert!(nameless.is_err(), "a certificate must be shown");
}
