//! The console's commands on a pool that works.

use crate::support::*;

async fn console(pooled: &Pooled) -> tokio_postgres::Client {
    postgres::connect(pooled.port, "pgbouncer", "").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_waits_for_transactions_and_holds_the_next_ones_back() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, busy, next) = (console(&pooled).await, pooled.client().await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    let paused = tokio::spawn(async move {
        console.simple_query("PAUSE arena").await.unwrap();
        console
    });
    tokio::time::sleep(SECOND / 5).await;
    assert!(!paused.is_finished());
    busy.batch_execute("COMMIT").await.unwrap();
    let console = paused.await.unwrap();
    assert_eq!(pooled.servers(), 0);
    let held = tokio::spawn(async move { ask(&next, "SELECT 1").await });
    tokio::time::sleep(SECOND / 5).await;
    assert!(!held.is_finished());
    console.simple_query("RESUME arena").await.unwrap();
    assert_eq!(held.await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_ends_clients_and_servers_at_once() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, busy) = (console(&pooled).await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    console.simple_query("KILL arena").await.unwrap();
    eventually("the client is gone", || busy.is_closed()).await;
    eventually("the server is gone", || pooled.servers() == 0).await;
    console.simple_query("RESUME arena").await.unwrap();
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_replaces_servers_without_anybody_noticing() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, client) = (console(&pooled).await, pooled.client().await);
    let before = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
    console.simple_query("RECONNECT").await.unwrap();
    assert_ne!(ask(&client, "SELECT pg_backend_pid()").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_told_which_setting_gives_them() {
    let cluster = postgres::shared();
    let pooled = start(bookend::config::pool::Pool { admin_users: Vec::new(), ..config(&cluster) }).await;
    let error = postgres::connect(pooled.port, "pgbouncer", "").await.unwrap_err();
    assert_eq!(told(&error).0, "42501");
    assert!(error.as_db_error().unwrap().hint().is_some_and(|hint| hint.contains("stats_users")), "{error:?}");
}

/// The number of a client in SHOW CLIENTS, by its application_name.
async fn number(console: &tokio_postgres::Client, name: &str) -> String {
    let rows = rows(console, "SHOW CLIENTS").await;
    let row = rows.iter().find(|row| row.get("application_name") == Some(name));
    row.unwrap_or_else(|| panic!("{name} is not in SHOW CLIENTS")).get("id").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_takes_its_server_with_it_and_nobody_else() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let console = console(&pooled).await;
    let victim = pooled.client_with("application_name=victim").await.unwrap();
    let bystander = pooled.client_with("application_name=bystander").await.unwrap();
    victim.batch_execute("BEGIN").await.unwrap();
    bystander.batch_execute("BEGIN").await.unwrap();
    let id = number(&console, "victim").await;
    console.simple_query(&format!("KILL_CLIENT {id}")).await.unwrap();
    eventually("the victim is gone", || victim.is_closed()).await;
    eventually("its server is gone", || pooled.servers() == 1).await;
    assert_eq!(ask(&bystander, "SELECT 1").await.unwrap(), "1");
    bystander.batch_execute("COMMIT").await.unwrap();
    let error = console.simple_query(&format!("KILL_CLIENT {id}")).await.unwrap_err();
    assert_eq!(told(&error).1, "client not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_that_waits_for_a_server_is_told_why() {
    let cluster = postgres::shared();
    let pooled = start(bookend::config::pool::Pool { default_pool_size: 1, ..config(&cluster) }).await;
    let (console, holder) = (console(&pooled).await, pooled.client().await);
    holder.batch_execute("BEGIN").await.unwrap();
    let waits = pooled.client_with("application_name=waits").await.unwrap();
    let waiting = tokio::spawn(async move { ask(&waits, "SELECT 1").await });
    eventually("it waits", || pooled.pooler.view().to_string().contains("\"waiting\":1")).await;
    let id = number(&console, "waits").await;
    console.simple_query(&format!("KILL_CLIENT {id}")).await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(told(&error), ("57P01".into(), "admin forced disconnect".into()));
    assert_eq!(ask(&holder, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_database_refuses_new_clients_and_serves_the_others() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, client) = (console(&pooled).await, pooled.client().await);
    console.simple_query("DISABLE arena").await.unwrap();
    let error = pooled.client_with("").await.err().unwrap();
    assert_eq!(told(&error), ("57P03".into(), "database \"arena\" is disabled".into()));
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    pooled.pooler.reload(&std::sync::Arc::new(config(&cluster)));
    assert!(pooled.client_with("").await.is_err(), "a reload does not enable it");
    console.simple_query("ENABLE arena").await.unwrap();
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
    for command in ["DISABLE nowhere", "ENABLE nowhere"] {
        let error = console.simple_query(command).await.unwrap_err();
        assert_eq!(told(&error).1, "no such database: nowhere");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_database_of_the_fallback_is_not_forgotten() {
    let cluster = postgres::shared();
    let databases = vec![database(&cluster, "*")];
    let pooled = start(bookend::config::pool::Pool { databases, ..config(&cluster) }).await;
    let console = console(&pooled).await;
    console.simple_query("DISABLE arena").await.unwrap();
    // Unused ones are forgotten every half second.
    tokio::time::sleep(SECOND).await;
    assert_eq!(told(&pooled.client_with("").await.err().unwrap()).0, "57P03");
    console.simple_query("ENABLE arena").await.unwrap();
    assert_eq!(ask(&pooled.client().await, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_close_ends_with_the_last_outdated_server() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, busy) = (console(&pooled).await, pooled.client().await);
    console.simple_query("WAIT_CLOSE").await.unwrap();
    busy.batch_execute("BEGIN").await.unwrap();
    console.simple_query("WAIT_CLOSE arena").await.unwrap();
    console.simple_query("RECONNECT arena").await.unwrap();
    let waits = tokio::spawn(async move { console.simple_query("WAIT_CLOSE arena").await.map(drop) });
    tokio::time::sleep(SECOND / 3).await;
    assert!(!waits.is_finished());
    busy.batch_execute("COMMIT").await.unwrap();
    tokio::time::timeout(10 * SECOND, waits).await.expect("it is over").unwrap().unwrap();
    assert_eq!(ask(&busy, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_waits_for_clients_lets_them_stay_and_nobody_in() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, client) = (console(&pooled).await, pooled.client().await);
    console.simple_query("SHUTDOWN WAIT_FOR_CLIENTS").await.unwrap();
    assert_eq!(told(&pooled.client_with("").await.err().unwrap()).0, "57P01");
    for _ in 0..3 {
        assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    }
    assert!(!client.is_closed() && !console.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_waits_for_servers_ends_clients_at_their_transactions_end() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, idle, busy) = (console(&pooled).await, pooled.client().await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    console.simple_query("SHUTDOWN WAIT_FOR_SERVERS").await.unwrap();
    eventually("the idle one is gone", || idle.is_closed()).await;
    assert_eq!(ask(&busy, "SELECT 1").await.unwrap(), "1");
    busy.batch_execute("COMMIT").await.unwrap();
    eventually("the busy one is gone", || busy.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_nothing_and_is_answered() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, busy) = (console(&pooled).await, pooled.client().await);
    busy.batch_execute("BEGIN").await.unwrap();
    console.simple_query("SHUTDOWN").await.unwrap();
    eventually("the transaction is cut", || busy.is_closed()).await;
    eventually("the console is gone", || console.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_look_kills_nobody() {
    let cluster = postgres::shared();
    let rights =
        bookend::config::pool::Pool { admin_users: Vec::new(), stats_users: vec![USER.into()], ..config(&cluster) };
    let pooled = start(rights).await;
    let console = console(&pooled).await;
    let victim = pooled.client_with("application_name=victim").await.unwrap();
    let id = number(&console, "victim").await;
    for command in [&*format!("KILL_CLIENT {id}"), "DISABLE arena", "SHUTDOWN"] {
        let error = console.simple_query(command).await.unwrap_err();
        assert_eq!(told(&error).0, "42501", "{command}");
    }
    assert_eq!(ask(&victim, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_and_memory_are_those_that_are_there_strangers_too() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (console, client) = (console(&pooled).await, pooled.client().await);
    let _stranger = tokio::net::TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
    eventually("it is seen", || pooled.pooler.registry().client_count() == 3).await;
    client.batch_execute("BEGIN").await.unwrap();
    let sockets = rows(&console, "SHOW ACTIVE_SOCKETS").await;
    let sockets = sockets.iter().filter(|row| row.get("database") != Some("pgbouncer"));
    let states: Vec<_> = sockets.map(|row| row.get("state").unwrap()).collect();
    assert_eq!(states, ["cl_active", "sv_active", "cl_login"]);
    let memory = rows(&console, "SHOW MEM").await;
    let used: Vec<_> = memory.iter().map(|row| (row.get("name").unwrap(), row.get("used").unwrap())).collect();
    assert_eq!(used, [("db_cache", "1"), ("pool_cache", "1"), ("client_cache", "3"), ("server_cache", "1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_console_does_not_hold_a_shutdown_back() {
    let cluster = postgres::shared();
    let pooled = start(config(&cluster)).await;
    let (watching, console, client) = (console(&pooled).await, console(&pooled).await, pooled.client().await);
    console.simple_query("SHUTDOWN WAIT_FOR_CLIENTS").await.unwrap();
    tokio::time::sleep(SECOND / 3).await;
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    assert!(!watching.is_closed(), "it can be watched while somebody is left");
    drop(client);
    eventually("the consoles go with the last client", || watching.is_closed() && console.is_closed()).await;
    eventually("nobody is left", || pooled.pooler.registry().client_count() == 0).await;
}
