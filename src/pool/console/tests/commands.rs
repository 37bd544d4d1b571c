//! Which texts are commands, who may give them, and what becomes of them.

use super::{ask, console, rows};
use crate::{
    health::drain::WaitFor,
    pool::console::{
        Rights,
        command::{Command, PARAMETERS, Show, parse},
    },
};

#[test]
fn commands_are_read_in_any_case_with_or_without_a_semicolon() {
    assert_eq!(parse(" show  pools ; "), Ok(Command::Show(Show::Pools)));
    assert_eq!(parse("SHOW"), Ok(Command::Show(Show::Help)));
    assert_eq!(parse("pause arena;"), Ok(Command::Pause(Some("arena".into()))));
    assert_eq!(parse("KILL \"we\"\"ird db\""), Ok(Command::Kill(Some("we\"ird db".into()))));
    assert_eq!(parse(";"), Ok(Command::Empty));
    assert_eq!(parse("Resume"), Ok(Command::Resume(None)));
    assert_eq!(parse("kill_client 17;"), Ok(Command::KillClient(17)));
    assert_eq!(parse("DISABLE \"arena\""), Ok(Command::Disable("arena".into())));
    assert_eq!(parse("wait_close"), Ok(Command::WaitClose(None)));
    assert_eq!(parse("shutdown"), Ok(Command::Shutdown(WaitFor::Nothing)));
    assert_eq!(parse("SHUTDOWN wait_for_clients"), Ok(Command::Shutdown(WaitFor::Clients)));
    assert_eq!(parse("Shutdown WAIT_FOR_SERVERS;"), Ok(Command::Shutdown(WaitFor::Transactions)));
    assert_eq!(parse("SELECT version"), Ok(Command::Show(Show::Version)));
    assert_eq!(parse("show TimeZone"), Ok(Command::Show(Show::Parameter("timezone", "UTC"))));
}

#[test]
fn a_setting_is_read_in_each_of_its_spellings() {
    let values = [
        ("SET pool_mode=session", "session"),
        ("set pool_mode to 'a;b'", "a;b"),
        ("set POOL_MODE = 'it''s';", "it's"),
        ("SET pool_mode = ''", ""),
    ];
    for (text, value) in values {
        assert_eq!(parse(text), Ok(Command::Set("pool_mode".into(), value.into())), "{text}");
    }
}

#[test]
fn what_is_no_command_is_named_and_shortened() {
    for text in [
        "DROP TABLE users",
        "PAUSE two words",
        "KILL \"open",
        "RELOAD now",
        "SHOW SOMETHING",
        "PAUSE \"\"",
        "SELECT",
        "SELECT 1",
        "SHUTDOWN now",
        "SUSPEND arena",
        "DISABLE one two",
        "SET",
        "SET x",
        "SET = 1",
        "SET x =",
        "SET x tomorrow",
        "SET x = 'a' b",
        "SET x = 'a",
        "SET timezone = 1; SHUTDOWN",
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains("SHOW HELP"), "{error}");
    }
    assert!(parse(&"x".repeat(10_000)).unwrap_err().len() < 150);
    for text in ["KILL_CLIENT", "KILL_CLIENT -1", "KILL_CLIENT c5", "KILL_CLIENT 99999999999999999999"] {
        assert_eq!(parse(text).unwrap_err(), "invalid client pointer supplied");
    }
    assert_eq!(parse("DISABLE").unwrap_err(), "a database is required");
    assert_eq!(parse("ENABLE;").unwrap_err(), "a database is required");
}

#[tokio::test]
async fn what_drivers_insist_on_is_answered_and_changes_nothing() {
    let (mut client, source) = console(Rights::Stats);
    for (name, value) in PARAMETERS {
        assert_eq!(rows(&mut client, &format!("SHOW {name}")).await, [[name], [value]]);
        let (tags, text) = ask(&mut client, &format!("SET {name} = 'x'")).await;
        assert_eq!(tags, "NCZ", "{name}");
        assert!(text.contains("SET ignored"), "{text}");
    }
    assert!(source.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_offered_is_refused_with_the_reason() {
    let (mut client, source) = console(Rights::Admin);
    for (command, reason) in [("SUSPEND", "PAUSE"), ("SHOW FDS", "cancel keys")] {
        let (tags, text) = ask(&mut client, command).await;
        assert_eq!(tags, "EZ", "{command}");
        assert!(text.contains("0A000") && text.contains("not offered") && text.contains(reason), "{text}");
    }
    assert!(source.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_set_is_answered_as_pgbouncer_answers_it() {
    let (mut client, source) = console(Rights::Admin);
    let (tags, text) = ask(&mut client, "SET max_client_conn TO '500'").await;
    assert_eq!(tags, "CZ");
    assert!(text.contains("SET max_client_conn=500"), "{text}");
    let (tags, text) = ask(&mut client, "SET max_client_conn = nowhere").await;
    assert_eq!(tags, "EZ", "what the pool does not take is an error");
    assert!(text.contains("08P01"), "{text}");
    assert_eq!(*source.done.lock().unwrap(), ["set max_client_conn to 500"]);
}

/// What clients with a prompt or a tree of objects send at first: an answer or an error, and the session goes on.
#[tokio::test]
async fn what_clients_of_databases_open_with_is_answered_or_refused_and_the_session_goes_on() {
    let (mut client, _) = console(Rights::Admin);
    let refused = [
        "SELECT version()",
        "SELECT 1",
        "BEGIN",
        "SELECT current_database()",
        "SHOW TRANSACTION ISOLATION LEVEL",
        "SHOW search_path",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET DateStyle=ISO; SET client_min_messages=notice; SELECT set_config('bytea_output','hex',false)",
        "SELECT n.nspname as \"Schema\", c.relname as \"Name\" FROM pg_catalog.pg_class c ORDER BY 1,2;",
    ];
    for text in refused {
        let (tags, said) = ask(&mut client, text).await;
        assert_eq!(tags, "EZ", "{text}");
        assert!(said.contains("08P01") && said.contains("invalid command"), "{said}");
    }
    for text in ["SET extra_float_digits = 3", "SET DateStyle TO ISO", "SET client_encoding='utf8'"] {
        assert_eq!(ask(&mut client, text).await.0, "NCZ", "{text}");
    }
    assert_eq!(ask(&mut client, "SELECT pools").await.0, "TDCZ");
}

#[tokio::test]
async fn the_console_itself_is_no_database_to_steer() {
    let (mut client, source) = console(Rights::Admin);
    for command in ["PAUSE", "RESUME", "RECONNECT", "KILL", "DISABLE", "ENABLE", "WAIT_CLOSE"] {
        let (tags, text) = ask(&mut client, &format!("{command} pgbouncer")).await;
        assert_eq!(tags, "EZ", "{command}");
        assert!(text.contains("admin db: pgbouncer"), "{text}");
    }
    assert!(source.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn stats_users_may_look_but_not_touch() {
    let (mut client, source) = console(Rights::Stats);
    for command in [
        "PAUSE",
        "RESUME",
        "RELOAD",
        "KILL arena",
        "RECONNECT",
        "KILL_CLIENT 5",
        "DISABLE arena",
        "ENABLE arena",
        "WAIT_CLOSE",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "SHUTDOWN WAIT_FOR_SERVERS",
        "SUSPEND",
        "SET pool_mode = session",
        "SHOW FDS",
    ] {
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
    source.done.lock().unwrap().clear();
    for (command, tag) in [
        ("KILL_CLIENT 5", "KILL_CLIENT"),
        ("DISABLE arena", "DISABLE"),
        ("ENABLE arena", "ENABLE"),
        ("WAIT_CLOSE", "WAIT_CLOSE"),
        ("SHUTDOWN", "SHUTDOWN"),
        ("SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN"),
        ("SHUTDOWN WAIT_FOR_CLIENTS", "SHUTDOWN"),
    ] {
        let (tags, text) = ask(&mut client, command).await;
        assert_eq!((&*tags, text.split('\0').next()), ("CZ", Some(tag)), "{command}");
    }
    assert_eq!(
        *source.done.lock().unwrap(),
        [
            "kill client 5 *",
            "disable arena",
            "enable arena",
            "wait close *",
            "leave Nothing *",
            "leave Transactions *",
            "leave Clients *",
        ]
    );
    assert!(ask(&mut client, "KILL_CLIENT 6").await.1.contains("client not found"));
    let (tags, text) = ask(&mut client, "KILL nowhere").await;
    assert_eq!(tags, "EZ");
    assert!(text.contains("no such database"), "{text}");
}
