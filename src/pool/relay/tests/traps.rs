//! Behaviours that poolers have got wrong, each by its name. Every script is run in many pieces and orders, between other
//! clients that do their worst, and must get what it gets on a connection of its own.

use super::{
    super::Fate,
    link::{Pool, Schedule},
    script::{Script, script},
};
use crate::pool::error::PoolError;

/// Runs `ours` against a server that others use too, a byte at a time and otherwise.
fn like_alone(ours: &Script) -> Vec<String> {
    let alone = Pool::alone(ours);
    for seed in 0..40 {
        let mut pool = Pool::new();
        let others = script()
            .query("set TimeZone Asia/Tokyo")
            .parse("a", "select 1")
            .sync()
            .parse("other", "insert other")
            .run("other")
            .sync()
            .run("a")
            .run("missing")
            .sync();
        pool.client(others.clone());
        let index = pool.client(ours.clone());
        pool.client(others);
        pool.serve_all(&mut Schedule::new(seed, [1, 1, 5, 4096][seed as usize % 4]));
        assert_eq!(pool.clients[index].lines(), alone, "seed {seed}");
    }
    alone
}

/// One client, one lease.
fn serve(pool: &mut Pool, client: usize) -> Result<Fate, PoolError> {
    pool.serve(client, &mut Schedule::new(1, 4096))
}

fn has(lines: &[String], line: &str) -> bool {
    lines.iter().any(|each| each == line)
}

#[test]
fn after_an_error_everything_up_to_sync_is_discarded_queries_too() {
    let lines = like_alone(&script().run_text("error").query("select 2").run_text("select 3").sync().query("select 4"));
    assert_eq!(lines, ["1", "2", "E 22012 division by zero", "Z I", "T", "D 4", "C SELECT 1", "Z I"]);
}

#[test]
fn each_sync_in_flight_is_answered_once() {
    let lines = like_alone(&script().sync().run_text("select 1").sync().sync().run_text("error").sync().sync());
    assert_eq!(lines.iter().filter(|line| *line == "Z I").count(), 5);
}

#[test]
fn a_query_may_follow_bind_and_execute_without_sync() {
    let lines = like_alone(&script().run_text("insert me").query("rows me").sync());
    assert_eq!(lines, ["1", "2", "C INSERT 0 1", "T", "D 1", "C SELECT 1", "Z I", "Z I"]);
}

#[test]
fn a_flushed_batch_keeps_its_server_until_sync() {
    let mut pool = Pool::new();
    let client = pool.client(script().parse("", "select 1").describe_statement("").flush());
    assert_eq!(serve(&mut pool, client), Ok(Fate::Close), "answered, but not at a boundary");
    assert_eq!(pool.clients[client].lines(), ["1", "t", "T"]);
    like_alone(&script().parse("", "select 1").describe_statement("").flush().bind("", "").execute("").sync());
}

#[test]
fn a_batch_is_all_or_nothing_though_statements_are_prepared_inside_it() {
    let prepare = script().parse("ins", "insert me").sync();
    let batch = script().run("ins").run("ins").run("missing").sync().query("rows me");
    let lines = like_alone(&prepare.then(batch));
    assert!(has(&lines, "D 0"), "{lines:?}");
}

#[test]
fn a_multi_statement_query_is_one_transaction() {
    let lines = like_alone(&script().query("insert me;insert me;error").query("rows me"));
    assert!(has(&lines, "D 0"), "{lines:?}");
}

#[test]
fn fakes_keep_their_order_and_fall_with_their_batch() {
    let mut pool = Pool::new();
    pool.client(script().parse("x", "select 1").sync());
    let ours = script()
        .run_text("select 5")
        .parse("y", "select 1")
        .close_statement("y")
        .run_text("select 6")
        .sync()
        .run_text("error")
        .parse("z", "select 1")
        .sync()
        .run("z")
        .sync();
    let index = pool.client(ours.clone());
    for client in 0..2 {
        while !pool.clients[client].unsent.is_empty() {
            assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
        }
    }
    assert_eq!(pool.clients[index].lines(), Pool::alone(&ours));
    like_alone(&ours);
}

#[test]
fn a_failed_transaction_refuses_parse_though_the_server_has_the_statement() {
    let lines = like_alone(
        &script()
            .parse("a", "select 1")
            .sync()
            .query("begin;error")
            .parse("b", "select 1")
            .sync()
            .parse("c", "rollback")
            .run("c")
            .sync()
            .run("a")
            .sync(),
    );
    assert!(has(&lines, "E 25P02 current transaction is aborted"));
    assert!(has(&lines, "C ROLLBACK"));
}

#[test]
fn a_discarded_parse_is_not_there_and_a_discarded_close_has_not_been() {
    let lines = like_alone(
        &script()
            .parse("kept", "select 1")
            .sync()
            .run_text("error")
            .parse("lost", "select 2")
            .close_statement("kept")
            .sync()
            .run("kept")
            .sync()
            .run("lost")
            .sync(),
    );
    assert!(has(&lines, "D 1"));
    assert!(has(&lines, "E 26000 prepared statement \"lost\" does not exist"));
}

#[test]
fn an_unknown_or_taken_name_is_an_error_in_band_with_the_clients_word_for_it() {
    let lines = like_alone(
        &script()
            .parse("a", "select 1")
            .sync()
            .parse("a", "select 2")
            .run("a")
            .sync()
            .parse("a", "syntax")
            .sync()
            .describe_statement("nobody")
            .sync()
            .run("a")
            .sync(),
    );
    assert!(has(&lines, "E 42P05 prepared statement \"a\" already exists"));
    assert!(has(&lines, "E 42601 syntax error at or near \"syntax\""), "PostgreSQL looks at the text first");
    assert!(has(&lines, "E 26000 prepared statement \"nobody\" does not exist"));
    assert!(has(&lines, "D 1"));
}

#[test]
fn a_name_longer_than_any_buffer_is_a_name() {
    let name = "n".repeat(9_000);
    let ours = script().parse(&name, "select 1").describe_statement(&name).sync().run(&name).sync();
    let lines = like_alone(&ours.close_statement(&name).sync().run(&name).sync());
    assert!(has(&lines, "D 1"));
    assert!(lines.iter().any(|line| line.starts_with("E 26000 ")), "and is gone once it is closed");
}

#[test]
fn a_statement_is_described_before_anybody_has_bound_it_there() {
    let mut pool = Pool::new();
    let client = pool.client(script().parse("a", "select 1").sync());
    assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    // Another server, which has never seen it.
    let reports = pool.model.reports();
    pool.model = super::model::Model::new();
    pool.server = super::super::ServerState::new(reports.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    pool.clients[client].unsent = script().describe_statement("a").sync().0;
    assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    assert_eq!(pool.clients[client].lines(), ["1", "Z I", "t", "T", "Z I"]);
    assert_eq!(pool.model.parses, 1);
}

#[test]
fn what_comes_before_goodbye_is_done_and_goodbye_goes_no_further() {
    let mut pool = Pool::new();
    let leaves = pool.client(script().query("insert me").terminate());
    assert_eq!(serve(&mut pool, leaves), Ok(Fate::Reusable));
    let stays = pool.client(script().query("rows me"));
    assert_eq!(serve(&mut pool, stays), Ok(Fate::Reusable));
    assert!(has(&pool.clients[stays].lines(), "D 1"), "the server is still there, and so is the row");
}

#[test]
fn a_name_like_ours_reaches_nobody_elses_statement() {
    let mut pool = Pool::new();
    let owner = pool.client(script().parse("secret", "select 42").sync());
    assert_eq!(serve(&mut pool, owner), Ok(Fate::Reusable));
    let name = pool.model.statements.keys().next().cloned().unwrap();
    let stolen = std::str::from_utf8(&name).unwrap();
    assert!(stolen.starts_with("bookend_"));
    let ours = script().run(stolen).sync().describe_statement(stolen).sync().close_statement(stolen).sync();
    let thief = pool.client(ours.clone());
    while !pool.clients[thief].unsent.is_empty() {
        assert_eq!(serve(&mut pool, thief), Ok(Fate::Reusable));
    }
    assert_eq!(pool.clients[thief].lines(), Pool::alone(&ours));
    assert!(pool.model.statements.contains_key(&name), "nor closes it");
}

#[test]
fn equal_statements_are_prepared_once_for_everybody() {
    let mut pool = Pool::new();
    for name in ["a", "b", "c", "d"] {
        pool.client(script().parse(name, "select 1").describe_statement(name).sync().run(name).sync().run(name).sync());
    }
    pool.serve_all(&mut Schedule::new(3, 4096));
    assert_eq!(pool.model.parses, 1);
    assert!(pool.leases >= 4, "each client had the server");
}

#[test]
fn a_full_server_forgets_the_least_recently_used_inside_the_batch() {
    let prepare = |to: Script| (0..6).fold(to, |to, n| to.parse(&format!("s{n}"), &format!("select {n}"))).sync();
    let run = |to: Script| (0..6).fold(to, |to, n| to.run(&format!("s{n}")).sync());
    let ours = run(prepare(script()));
    like_alone(&ours);
    let mut pool = Pool::new();
    let mut unhurried = (0..6).map(|n| script().parse(&format!("s{n}"), &format!("select {n}")).sync());
    let client = pool.client(script());
    for step in unhurried.by_ref() {
        pool.clients[client].unsent = step.0;
        assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    }
    assert!(pool.model.statements_max <= 3, "{}", pool.model.statements_max);
    assert_eq!((pool.model.statements.len(), pool.server.prepared()), (2, 2));
    assert_eq!(pool.clients[client].state.prepared(), 6);
}

#[test]
fn deallocate_all_by_sql_empties_both_maps() {
    let lines = like_alone(
        &script()
            .parse("a", "select 1")
            .sync()
            .query("deallocate all")
            .run("a")
            .sync()
            .parse("a", "select 2")
            .run("a")
            .sync(),
    );
    assert!(has(&lines, "E 26000 prepared statement \"a\" does not exist"));
    assert!(has(&lines, "D 2"));
    let mut pool = Pool::new();
    let first = pool.client(script().parse("a", "select 1").sync());
    let second = pool.client(script().query("deallocate all"));
    for client in [first, second] {
        assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    }
    pool.clients[first].unsent = script().run("a").sync().0;
    assert_eq!(serve(&mut pool, first), Ok(Fate::Reusable));
    assert!(has(&pool.clients[first].lines(), "D 1"), "another client's DEALLOCATE ALL is not ours");
}

#[test]
fn a_name_that_a_query_on_its_way_takes_away_is_not_bound() {
    // The second statement has the first one's text, so that the server has it again by the time of the Bind.
    let lines = like_alone(
        &script().parse("a", "select 1").sync().query("deallocate all").parse("b", "select 1").run("a").sync(),
    );
    assert!(has(&lines, "E 26000 prepared statement \"a\" does not exist"));
}

#[test]
fn statements_whose_tables_changed_are_prepared_again() {
    let mut pool = Pool::new();
    let client = pool.client(script().parse("a", "select 1").sync());
    assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    assert!(pool.model.alter());
    for times in 1..=2 {
        pool.clients[client].unsent = script().run("a").sync().0;
        assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
        let lines = pool.clients[client].lines();
        assert_eq!(lines.iter().filter(|line| *line == "D 1").count(), times, "{lines:?}");
    }
    assert_eq!((pool.model.parses, pool.model.refused), (2, 1));
}

#[test]
fn a_clients_statements_are_bounded_and_the_error_is_in_band() {
    let mut pool = Pool::new();
    pool.limits.max_held_message = 1000;
    let text = |n: usize| format!("select {n}{}", " ".repeat(800));
    let mut ours = script().query("begin").run_text("insert me");
    for n in 0..8 {
        ours = ours.parse(&format!("s{n}"), &text(n));
    }
    let client = pool.client(ours.sync().query("rollback"));
    while !pool.clients[client].unsent.is_empty() {
        assert_eq!(serve(&mut pool, client), Ok(Fate::Reusable));
    }
    let lines = pool.clients[client].lines();
    assert!(lines.iter().any(|line| line.starts_with("E 53400 too many prepared statements")), "{lines:?}");
    assert!(has(&lines, "Z E"), "the server knows that it failed");
    assert!(pool.clients[client].state.prepared() < 5);
}

#[test]
fn late_copy_data_is_nobodys_after_the_copy_failed() {
    let copy = script().query("copy data").copy_data("a").copy_data("b").copy_done().query("select 1");
    assert!(has(&like_alone(&copy), "D 1"));
    let early = script().run_text("copy early").sync().copy_data("a").copy_done().sync().query("select 1");
    assert_eq!(like_alone(&early).iter().filter(|line| *line == "Z I").count(), 3);
    let refused = script().query("error").copy_data("a").copy_fail().query("select 1");
    assert!(has(&like_alone(&refused), "D 1"));
}

#[test]
fn syncs_inside_a_copy_are_not_owed_an_answer() {
    let well = script().run_text("copy ok").sync().copy_data("a").sync().flush().copy_done().sync().query("select 1");
    assert_eq!(like_alone(&well).iter().filter(|line| *line == "Z I").count(), 2);
    let badly = script().run_text("copy end").sync().copy_data("a").copy_done().sync().query("select 1");
    assert_eq!(like_alone(&badly).iter().filter(|line| *line == "Z I").count(), 2);
    let unwilling = script().run_text("copy ok").sync().copy_fail().sync().run_text("select 1").sync();
    assert!(has(&like_alone(&unwilling), "E 57014 COPY from stdin failed"));
}

#[test]
fn copy_out_and_two_copies_in_one_query_pass() {
    like_alone(&script().query("out hello;select 1"));
    like_alone(
        &script().query("copy ok;select 1;copy ok;select 2").copy_data("a").copy_done().copy_data("b").copy_done(),
    );
}
