//! Who may come in, with PostgreSQL's own users behind the pool. What is known to have gone wrong elsewhere, by its number:
//!
//! | CVE | here |
//! |---|---|
//! | 2021-3935 (and 2021-23214, -23222: bytes behind a request for encryption) | `client::startup`: `bytes_behind_an_encryption_request_are_refused_and_never_used`; `server::secure`: `what_stands_behind_a_servers_yes_is_never_taken_for_what_it_says_under_tls`; `tls.rs` |
//! | 2025-2291 (expired passwords) | `an_expired_password_is_none` |
//! | 2025-12819 (settings of a client on the lookup's connection) | `what_a_client_asks_for_at_startup_never_reaches_the_lookup` |
//! | 2026-6665 (overflow in server-final) | no buffer of a fixed size; `server::tests`: `a_server_that_never_comes_to_an_end_is_left`, and the fuzz targets `login` and `scram` |
//! | 2026-6666 (an error without SQLSTATE) | `server::error`: `an_error_without_any_field_still_has_words` |
//! | 2026-6667 (KILL_CLIENT without rights) | `console::tests`: `stats_users_may_look_but_not_touch`; `console.rs`: `who_may_only_look_kills_nobody`; fuzz target `command` |
//! | 2015-6817 (a failed lookup logs in as auth_user) | `a_lookup_that_fails_logs_nobody_in_least_of_all_as_auth_user` |
//! | 2012-4575 (a long database name in the log) | no buffer of a fixed size; `client::startup`: `names_are_bounded` |
//! | 2024-10977 (an error before TLS, told as the server's) | `server::secure`: `an_error_instead_of_an_answer_is_not_believed` |
//! | 2026-6664 (length arithmetic) | `wire::tests`: `a_negative_or_huge_length_is_over_the_limit`, `a_length_below_four_is_no_length`; fuzz target `frames` |

use std::{path::Path, sync::Arc, time::Duration};

use bookend::config::{
    pool::{Access, AuthType, Database, Lookup, Pool, User, UserSecret, hba},
    secret::Secret,
};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio_postgres::{Client, Error};

use crate::support::*;

/// Looks users up in `pg_authid`, as the cluster's own user.
fn looks_up(cluster: &Cluster) -> Pool {
    let lookup = Lookup { user: Some(USER.into()), ..Lookup::default() };
    Pool { access: Access { lookup, ..Access::default() }, ..config(cluster) }
}

fn with_query(pool: Pool, query: &str, ttl: Duration) -> Pool {
    let lookup = Lookup { query: query.into(), cache_ttl: ttl, ..pool.access.lookup.clone() };
    Pool { access: Access { lookup, ..pool.access }, ..pool }
}

async fn log_in(pooled: &Pooled, user: &str, password: &str) -> Result<Client, Error> {
    pooled.client_with(&format!("user={user} password={password}")).await
}

async fn refusal(pooled: &Pooled, user: &str, password: &str) -> (String, String) {
    told(&log_in(pooled, user, password).await.err().unwrap_or_else(|| panic!("{user} was let in")))
}

fn wrong_password(user: &str) -> (String, String) {
    ("28P01".into(), format!("password authentication failed for user \"{user}\""))
}

async fn who(client: &Client) -> String {
    ask(client, "SELECT current_user").await.unwrap()
}

fn user(name: &str, secret: UserSecret) -> User {
    User::new(name, secret)
}

/// Makes roles of this test alone, with the password `secret`.
async fn roles(cluster: &Cluster, sql: &str) -> Client {
    let direct = cluster.direct().await;
    direct.batch_execute(sql).await.unwrap();
    direct
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_postgres_logs_in_with_nothing_configured_and_reaches_the_server_by_its_own_keys() {
    let cluster = postgres::shared();
    let _direct = roles(&cluster, "CREATE ROLE looked_up LOGIN PASSWORD 'secret'").await;
    let pooled = start(looks_up(&cluster)).await;
    let client = log_in(&pooled, "looked_up", "secret").await.unwrap();
    assert_eq!(who(&client).await, "looked_up");
    assert_eq!(refusal(&pooled, "looked_up", "Secret").await, wrong_password("looked_up"));
    assert_eq!(refusal(&pooled, "looked_out", "secret").await, wrong_password("looked_out"));
    assert_eq!(who(&log_in(&pooled, USER, PASSWORD).await.unwrap()).await, USER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_and_passwords_are_looked_up_as_well_as_verifiers() {
    let cluster = postgres::shared();
    let sql = "SET password_encryption = md5; CREATE ROLE hashed LOGIN PASSWORD 'secret'; \
               CREATE FUNCTION plain_secret(name text, OUT usename text, OUT passwd text) LANGUAGE sql AS \
               $$ SELECT $1, 'secret'::text WHERE $1 = 'plainly' $$; \
               RESET password_encryption; CREATE ROLE plainly LOGIN PASSWORD 'secret'";
    let _direct = roles(&cluster, sql).await;
    // The cluster asks for SCRAM, which an md5 hash cannot give: a forced user reaches it.
    let forced =
        Database { user: Some(USER.into()), password: Some(Secret::new(PASSWORD)), ..database(&cluster, DATABASE) };
    let pooled = start(Pool { auth_type: AuthType::Md5, databases: vec![forced], ..looks_up(&cluster) }).await;
    assert_eq!(who(&log_in(&pooled, "hashed", "secret").await.unwrap()).await, USER);
    assert_eq!(refusal(&pooled, "hashed", "other").await, wrong_password("hashed"));
    let pool = with_query(looks_up(&cluster), "SELECT * FROM plain_secret($1)", SECOND);
    let pooled = start(pool).await;
    assert_eq!(who(&log_in(&pooled, "plainly", "secret").await.unwrap()).await, "plainly");
    assert_eq!(refusal(&pooled, "hashed", "secret").await, wrong_password("hashed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_password_is_none() {
    let cluster = postgres::shared();
    let sql = "CREATE ROLE expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01'; \
               CREATE ROLE lasting LOGIN PASSWORD 'secret' VALID UNTIL '2999-01-01'; \
               CREATE ROLE no_login NOLOGIN PASSWORD 'secret'; CREATE ROLE no_password LOGIN";
    let _direct = roles(&cluster, sql).await;
    let pooled = start(looks_up(&cluster)).await;
    assert!(log_in(&pooled, "lasting", "secret").await.is_ok());
    for name in ["expired", "no_login", "no_password"] {
        assert_eq!(refusal(&pooled, name, "secret").await, wrong_password(name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_asks_for_at_startup_never_reaches_the_lookup() {
    let cluster = postgres::shared();
    let function = |schema: &str, password: &str| {
        format!(
            "CREATE FUNCTION {schema}.misled(name text, OUT usename text, OUT passwd text) LANGUAGE sql AS \
             $$ SELECT $1, '{password}'::text $$; "
        )
    };
    let sql = format!(
        "CREATE SCHEMA evil; CREATE ROLE victim LOGIN PASSWORD 'secret'; {}{}",
        function("public", "secret"),
        function("evil", "hacked")
    );
    let _direct = roles(&cluster, &sql).await;
    let pooled = start(with_query(looks_up(&cluster), "SELECT * FROM misled($1)", Duration::ZERO)).await;
    for _ in 0..2 {
        for misleading in ["options='-c search_path=evil'", "options='-csearch_path=evil,public -crole=victim'"] {
            let with = |password| format!("user=victim password={password} {misleading}");
            let error = pooled.client_with(&with("hacked")).await.expect_err("the attacker's function is not asked");
            assert_eq!(told(&error), wrong_password("victim"));
            pooled.client_with(&with("secret")).await.unwrap();
        }
        // Nor does what clients of auth_user itself have set on the servers that the lookup shares with them.
        let same_pool = pooled.client_with("options='-c search_path=evil'").await.unwrap();
        assert_eq!(ask(&same_pool, "SHOW search_path").await.unwrap(), "evil");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_that_fails_logs_nobody_in_least_of_all_as_auth_user() {
    let cluster = postgres::shared();
    let queries = [
        "SELECT nothing FROM nowhere WHERE $1 = ''",
        "SELECT $1::text",
        "SELECT $1::text, 'a' UNION ALL SELECT $1, 'b'",
    ];
    for query in queries {
        let pooled = start(with_query(looks_up(&cluster), query, SECOND)).await;
        for password in ["", PASSWORD, "a"] {
            let refusal = pooled.client_with(&format!("user=anybody password='{password}'")).await.err().unwrap();
            let expected = ("57P03".to_owned(), "auth_query failed: the user could not be looked up".to_owned());
            assert_eq!(told(&refusal), expected, "{query}");
        }
        assert_eq!(who(&pooled.client().await).await, USER, "the connection is as good as before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_logins_asks_once_and_a_new_password_counts_at_once() {
    let cluster = postgres::shared();
    let sql = "CREATE ROLE stormy LOGIN PASSWORD 'secret'; CREATE SEQUENCE asked; \
               CREATE FUNCTION counted(name text, OUT usename name, OUT passwd text) LANGUAGE sql AS \
               $$ SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND nextval('asked') > 0 $$";
    let direct = roles(&cluster, sql).await;
    let asked = async || ask(&direct, "SELECT last_value FROM asked").await.unwrap();
    let pooled = start(with_query(looks_up(&cluster), "SELECT * FROM counted($1)", 600 * SECOND)).await;
    let clients = join_all((0..100).map(|_| log_in(&pooled, "stormy", "secret"))).await;
    assert!(clients.iter().all(Result::is_ok));
    assert_eq!(asked().await, "1");
    direct.batch_execute("ALTER ROLE stormy PASSWORD 'changed'").await.unwrap();
    tokio::time::sleep(SECOND).await; // as old as an answer must be to be doubted
    // The answer that is kept fails the new password once, and is thrown away for that.
    assert_eq!(refusal(&pooled, "stormy", "changed").await, wrong_password("stormy"));
    let changed = log_in(&pooled, "stormy", "changed").await.unwrap();
    assert_eq!(asked().await, "2");
    assert_eq!(refusal(&pooled, "stormy", "secret").await, wrong_password("stormy"));
    // Servers are logged in with the new keys from now on.
    pooled.pooler.reconnect(None).unwrap();
    assert_eq!(who(&changed).await, "stormy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_looked_up_where_auth_dbname_says_and_nobody_learns_which_databases_there_are() {
    let cluster = postgres::shared();
    let _direct = roles(&cluster, "CREATE ROLE elsewhere LOGIN PASSWORD 'secret'").await;
    // The database has a user of its own, and its lookups do not log in as that one.
    let forced =
        Database { user: Some(USER.into()), password: Some(Secret::new(PASSWORD)), ..database(&cluster, DATABASE) };
    let names = database(&cluster, "names");
    let lookup = Lookup { user: Some(USER.into()), dbname: Some("names".into()), ..Lookup::default() };
    let access = Access { lookup, ..Access::default() };
    let admin_users = vec!["elsewhere".into()];
    let pooled = start(Pool { access, admin_users, databases: vec![forced, names], ..config(&cluster) }).await;
    assert_eq!(who(&log_in(&pooled, "elsewhere", "secret").await.unwrap()).await, USER);
    let to = async |dbname: &str, password: &str| {
        postgres::connect(pooled.port, dbname, &format!("user=elsewhere password={password}")).await
    };
    assert_eq!(told(&to("nowhere", "wrong").await.err().unwrap()), wrong_password("elsewhere"));
    assert_eq!(told(&to("nowhere", "secret").await.err().unwrap()).0, "3D000");
    assert!(to("pgbouncer", "secret").await.is_ok(), "the console's users are looked up there as well");
}

/// Where every name leads to the server, only it knows which are databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_the_server_knows_to_be_none_is_told_to_nobody_without_a_proof() {
    let cluster = postgres::shared();
    let any = Database { dbname: None, ..database(&cluster, "*") };
    let pooled = start(Pool { databases: vec![any], ..looks_up(&cluster) }).await;
    for dbname in [DATABASE, "there_is_none"] {
        let error = postgres::connect(pooled.port, dbname, "user=unheard_of password=guess").await.err().unwrap();
        assert_eq!(told(&error), wrong_password("unheard_of"), "{dbname}");
    }
}

/// It is nobody's password that is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_file_that_the_server_does_not_have_is_told_as_a_lookup_that_failed() {
    let cluster = postgres::shared();
    let wrong = Database { dbname: Some("there_is_none".into()), ..database(&cluster, "names") };
    let lookup = Lookup { user: Some(USER.into()), dbname: Some("names".into()), ..Lookup::default() };
    let access = Access { lookup, ..Access::default() };
    let pooled = start(Pool { access, databases: vec![database(&cluster, DATABASE), wrong], ..config(&cluster) }).await;
    assert_eq!(refusal(&pooled, "unheard_of", "guess").await.0, "57P03");
}

/// No reload asks anybody for a password again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_login_reach_new_servers_after_a_reload_too() {
    let cluster = postgres::shared();
    let direct = roles(&cluster, "CREATE ROLE still_here LOGIN PASSWORD 'secret'").await;
    let pooled = start(looks_up(&cluster)).await;
    let client = log_in(&pooled, "still_here", "secret").await.unwrap();
    let process = "SELECT pg_backend_pid()";
    let before = ask(&client, process).await.unwrap();
    pooled.pooler.reload(&Arc::new(Pool { server_lifetime: 1800 * SECOND, ..looks_up(&cluster) }));
    direct.batch_execute(&format!("SELECT pg_terminate_backend({before})")).await.unwrap();
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {before}");
    let deadline = tokio::time::Instant::now() + 10 * SECOND;
    while ask(&direct, &gone).await.unwrap() != "0" {
        assert!(tokio::time::Instant::now() < deadline, "its server does not end");
    }
    let mut after = ask(&client, process).await;
    if after.is_err() {
        after = ask(&client, process).await; // its server was lost as the question was put
    }
    assert_ne!(after.unwrap(), before);
    assert_eq!(who(&client).await, "still_here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_waits_its_turn_like_any_client_of_auth_user() {
    let cluster = postgres::shared();
    let _direct = roles(&cluster, "CREATE ROLE patient LOGIN PASSWORD 'secret'").await;
    let pooled = start(Pool { default_pool_size: 1, ..looks_up(&cluster) }).await;
    let holder = pooled.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    let mut login = Box::pin(log_in(&pooled, "patient", "secret"));
    assert!(tokio::time::timeout(SECOND / 5, &mut login).await.is_err());
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(who(&login.await.unwrap()).await, "patient");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_settings_alone_is_for_a_user_that_is_looked_up() {
    let cluster = postgres::shared();
    let _direct = roles(&cluster, "CREATE ROLE settled LOGIN PASSWORD 'secret'").await;
    let mut pool = looks_up(&cluster);
    pool.users.push(User { pool_size: Some(1), ..user("settled", UserSecret::Absent) });
    let pooled = start(pool).await;
    let (first, second) =
        (log_in(&pooled, "settled", "secret").await.unwrap(), log_in(&pooled, "settled", "secret").await.unwrap());
    first.batch_execute("BEGIN").await.unwrap();
    assert!(tokio::time::timeout(SECOND / 5, second.batch_execute("SELECT 1")).await.is_err(), "one server, for both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_with_both_in_force() {
    let cluster = postgres::shared();
    let direct = roles(&cluster, "CREATE ROLE rotated LOGIN PASSWORD 'before'").await;
    let secret = UserSecret::Several(vec![Secret::new("after"), Secret::new("before")]);
    let pooled =
        start(Pool { users: vec![user("rotated", secret)], admin_users: Vec::new(), ..config(&cluster) }).await;
    let (new, old) =
        (log_in(&pooled, "rotated", "after").await.unwrap(), log_in(&pooled, "rotated", "before").await.unwrap());
    assert_eq!((who(&new).await, who(&old).await), ("rotated".into(), "rotated".into()));
    direct.batch_execute("ALTER ROLE rotated PASSWORD 'after'").await.unwrap();
    pooled.pooler.reconnect(None).unwrap();
    assert_eq!((who(&new).await, who(&old).await), ("rotated".into(), "rotated".into()));
    assert_eq!(refusal(&pooled, "rotated", "neither").await, wrong_password("rotated"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_clear_text_reaches_a_server_of_which_only_the_verifier_is_known() {
    let cluster = postgres::shared();
    let direct = roles(&cluster, "CREATE ROLE clearly LOGIN PASSWORD 'secret'").await;
    let verifier = ask(&direct, "SELECT rolpassword FROM pg_authid WHERE rolname = 'clearly'").await.unwrap();
    let users = vec![user("clearly", UserSecret::Scram(Secret::new(verifier)))];
    let pooled = start(Pool { auth_type: AuthType::Plain, users, admin_users: Vec::new(), ..config(&cluster) }).await;
    assert_eq!(who(&log_in(&pooled, "clearly", "secret").await.unwrap()).await, "clearly");
    assert_eq!(refusal(&pooled, "clearly", "other").await, wrong_password("clearly"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_say_who_may_come_from_where_and_change_at_a_reload() {
    let cluster = postgres::shared();
    let rules = |text: &str| {
        let rules = hba::parse(Path::new("hba"), text, &hba::ident::IdentMaps::new(), &|_| Err(String::new())).unwrap();
        let access = Access { hba: Some(Arc::new(rules)), ..Access::default() };
        Pool { auth_type: AuthType::Hba, access, ..config(&cluster) }
    };
    let pooled = start(rules("host all all 10.0.0.0/8 trust\nhost arena all 127.0.0.1/32 scram-sha-256\n")).await;
    assert_eq!(who(&pooled.client().await).await, USER);
    assert_eq!(refusal(&pooled, USER, "wrong").await, wrong_password(USER));
    let error = postgres::connect(pooled.port, "pgbouncer", "").await.err().unwrap();
    let text = "no auth_hba_file entry for host \"127.0.0.1\", user \"arena\", database \"pgbouncer\", no encryption";
    assert_eq!(told(&error), ("28000".into(), text.into()));
    pooled.pooler.reload(&Arc::new(rules("host arena arena 127.0.0.1/32 reject\nhost all all all trust")));
    assert_eq!(refusal(&pooled, USER, PASSWORD).await.0, "28000");
    assert!(postgres::connect(pooled.port, "pgbouncer", "").await.is_ok());
    // There is no replication of the console.
    pooled.pooler.reload(&Arc::new(rules("host replication all all trust")));
    let console = crate::frames::Raw::login(pooled.port, "pgbouncer", &[("replication", "true")]).await;
    assert!(console.map(drop).unwrap_err().to_string().contains("28000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_asked_of_anybody_the_databases_user_does_the_work() {
    let cluster = postgres::shared();
    let forced =
        Database { user: Some(USER.into()), password: Some(Secret::new(PASSWORD)), ..database(&cluster, DATABASE) };
    let pool = Pool { auth_type: AuthType::Any, users: Vec::new(), databases: vec![forced], ..config(&cluster) };
    let pooled = start(pool).await;
    assert_eq!(who(&log_in(&pooled, "whoever", "x").await.unwrap()).await, USER);
    let console = postgres::connect(pooled.port, "pgbouncer", "user=whoever").await;
    assert_eq!(told(&console.err().unwrap()).0, "42501", "the console stays closed to those who are not named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_fails_too_often_is_refused_until_its_window_is_over() {
    let cluster = postgres::shared();
    let limited = |window| {
        let access = Access { failure_limit: Some(3), failure_window: window, ..Access::default() };
        start(Pool { access, ..config(&cluster) })
    };
    // No machine is slow enough to come to the end of the one window, or to miss that of the other.
    let (long, short) = (limited(3600 * SECOND).await, limited(SECOND / 2).await);
    for _ in 0..3 {
        assert!(log_in(&long, USER, PASSWORD).await.is_ok(), "those who succeed do not count");
        assert_eq!(refusal(&long, USER, "wrong").await, wrong_password(USER));
    }
    let (code, message) = refusal(&long, USER, PASSWORD).await;
    assert_eq!(code, "53400");
    assert!(message.starts_with("auth_failure_limit: "), "{message}");
    for _ in 0..3 {
        assert!(log_in(&short, USER, "wrong").await.is_err());
    }
    let end = tokio::time::Instant::now() + 20 * SECOND;
    while log_in(&short, USER, PASSWORD).await.is_err() {
        assert!(tokio::time::Instant::now() < end, "its window does not end");
        tokio::time::sleep(SECOND / 10).await;
    }
}

/// Whoever may change a role's password may write a verifier of four thousand million rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_computes_for_an_hour_because_a_verifier_says_so() {
    let cluster = postgres::shared();
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let verifier = format!("SCRAM-SHA-256$4294967295:c2FsdA==${key}:{key}");
    let users = vec![user("costly", UserSecret::Scram(Secret::new(verifier)))];
    let pooled = start(Pool { auth_type: AuthType::Plain, users, admin_users: Vec::new(), ..config(&cluster) }).await;
    let refused = tokio::time::timeout(20 * SECOND, refusal(&pooled, "costly", "any")).await.unwrap();
    assert_eq!(refused, wrong_password("costly"));
}

/// Guesses that are under way when the last one that counts fails are not told whether they were right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_at_the_same_time_are_no_more_than_guesses_one_by_one() {
    let cluster = postgres::shared();
    let access = Access { failure_limit: Some(3), failure_window: 3600 * SECOND, ..Access::default() };
    let pooled = start(Pool { auth_type: AuthType::Plain, access, ..config(&cluster) }).await;
    let mut guesses = Vec::new();
    for _ in 0..5 {
        let mut guess = tokio::net::TcpStream::connect(("127.0.0.1", pooled.port)).await.unwrap();
        let body = format!("\0\x03\0\0user\0{USER}\0database\0{DATABASE}\0\0");
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        guess.write_all(&[&length[..], body.as_bytes()].concat()).await.unwrap();
        assert_eq!(message(&mut guess).await, (b'R', vec![0, 0, 0, 3]), "it is asked for its password");
        guesses.push(guess);
    }
    let mut said = Vec::new();
    for (guess, password) in guesses.iter_mut().zip(["1", "2", "3", "4", PASSWORD]) {
        guess.write_all(&crate::frames::message(b'p', format!("{password}\0").as_bytes())).await.unwrap();
        let (tag, body) = message(guess).await;
        assert_eq!(tag, b'E');
        said.push(crate::frames::sqlstate(&[(tag, body)]).unwrap());
    }
    assert_eq!(said, ["28P01", "28P01", "28P01", "53400", "53400"]);
}
