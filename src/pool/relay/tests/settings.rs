//! Settings follow their client from server to server, and stay behind with nobody.

use super::{
    super::Fate,
    link::{Pool, Schedule},
    script::script,
};
use crate::pool::{error::PoolError, wire::backend};

fn serve(pool: &mut Pool, client: usize) -> Result<Fate, PoolError> {
    pool.serve(client, &mut Schedule::new(1, 4096))
}

fn ask(pool: &mut Pool, client: usize, sql: &str) -> Vec<String> {
    pool.clients[client].got.clear();
    pool.clients[client].unsent = script().query(sql).0;
    assert_eq!(serve(pool, client), Ok(Fate::Reusable));
    pool.clients[client].lines()
}

#[test]
fn a_setting_follows_its_client_and_nobody_else() {
    let mut pool = Pool::new();
    let (a, b) = (pool.client(script()), pool.client(script()));
    assert_eq!(ask(&mut pool, a, "set TimeZone Europe/Oslo"), ["C SET", "S TimeZone Europe/Oslo", "Z I"]);
    assert_eq!(ask(&mut pool, b, "show TimeZone"), ["T", "D UTC", "C SHOW", "Z I"]);
    assert_eq!(ask(&mut pool, a, "show TimeZone"), ["T", "D Europe/Oslo", "C SHOW", "Z I"]);
}

#[test]
fn a_setting_of_a_transaction_that_rolled_back_is_not_kept() {
    let mut pool = Pool::new();
    let (a, b) = (pool.client(script()), pool.client(script()));
    ask(&mut pool, a, "begin;set TimeZone Europe/Oslo;rollback");
    ask(&mut pool, b, "set TimeZone Asia/Tokyo");
    assert_eq!(ask(&mut pool, a, "show TimeZone")[1], "D UTC");
}

#[test]
fn the_servers_spelling_is_told_once_and_costs_nothing_afterwards() {
    let mut pool = Pool::new();
    let client = pool.client_asking(&[("timezone", "utc"), ("application_name", "web-1")], script());
    assert_eq!(ask(&mut pool, client, "select 1"), ["S TimeZone UTC", "T", "D 1", "C SELECT 1", "Z I"]);
    for _ in 0..3 {
        assert_eq!(ask(&mut pool, client, "select 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    }
    assert!(pool.clients[client].state.params.differing(&pool.server.params).next().is_none());
}

#[test]
fn what_the_server_says_about_a_replay_is_not_the_clients() {
    let mut pool = Pool::new();
    pool.model.noisy = true;
    let (a, b) = (pool.client(script()), pool.client(script()));
    ask(&mut pool, a, "set TimeZone Europe/Oslo");
    assert_eq!(ask(&mut pool, b, "select 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn startup_options_are_set_for_their_client_and_reset_for_the_next() {
    let mut pool = Pool::new();
    let django = pool.client_asking(&[("statement_timeout", "30000")], script());
    let plain = pool.client(script());
    assert_eq!(ask(&mut pool, django, "show statement_timeout")[1], "D 30000");
    assert_eq!(ask(&mut pool, plain, "show statement_timeout")[1], "D 0");
    assert_eq!(ask(&mut pool, django, "show statement_timeout")[1], "D 30000");
    ask(&mut pool, django, "set statement_timeout = 5s");
    assert_eq!(ask(&mut pool, plain, "show statement_timeout")[1], "D 0");
    assert_eq!(ask(&mut pool, django, "show statement_timeout")[1], "D 5s", "what it has set since counts");
}

#[test]
fn nothing_runs_under_settings_the_server_refuses() {
    let mut pool = Pool::new();
    let client = pool.client_asking(&[("TimeZone", "bad")], script().query("insert me"));
    let error = serve(&mut pool, client).unwrap_err();
    assert_eq!(error.sqlstate(), "22023");
    assert!(error.message().contains("invalid value for parameter \"TimeZone\""), "{error}");
    assert_eq!(pool.clients[client].lines(), [""; 0]);
    let mut other = Pool::new();
    other.model = pool.model;
    let client = other.client(script());
    assert_eq!(ask(&mut other, client, "rows me")[1], "D 0");
}

#[test]
fn proven_settings_travel_in_front_of_the_first_message() {
    let mut pool = Pool::new();
    let (a, b) = (pool.client(script()), pool.client(script()));
    ask(&mut pool, a, "set TimeZone Europe/Oslo");
    ask(&mut pool, b, "select 1");
    assert!(pool.clients[a].state.proven, "values the server itself reported need no proof");
    pool.clients[a].got.clear();
    pool.clients[a].unsent = script().parse("x", "show TimeZone").run("x").sync().0;
    assert_eq!(serve(&mut pool, a), Ok(Fate::Reusable));
    assert_eq!(pool.clients[a].lines(), ["1", "2", "D Europe/Oslo", "C SHOW", "Z I"]);
}

#[test]
fn what_the_server_says_unasked_passes_between_messages() {
    let mut pool = Pool::new();
    let client = pool.client(script().query("begin"));
    pool.serve(client, &mut Schedule::new(1, 4096)).unwrap();
    pool.model.say(|out| backend::parameter_status(out, "in_hot_standby", b"on"));
    pool.clients[client].unsent = script().query("rollback").0;
    // A new lease here only stands for the rest of the transaction's.
    pool.server.tx = crate::pool::wire::backend::TxStatus::Idle;
    assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    let lines = pool.clients[client].lines();
    assert_eq!(lines, ["C BEGIN", "Z T", "S in_hot_standby on", "C ROLLBACK", "Z I"]);
    assert_eq!(pool.server.params().value("in_hot_standby").map(|value| &**value), Some(&b"on"[..]));
}
