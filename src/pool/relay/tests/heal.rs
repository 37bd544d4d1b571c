//! A plan that no longer holds: what its client is spared, and what it is told.

use super::{
    super::Fate,
    link::{Pool, Schedule},
    script::{Script, script},
};

const STALE: &str = "E 0A000 cached plan must not change result type";

fn send(pool: &mut Pool, client: usize, bytes: Script, piece: usize) {
    pool.clients[client].unsent = bytes.0;
    let mut schedule = Schedule::new(11, piece);
    while !pool.clients[client].unsent.is_empty() {
        assert_eq!(pool.serve(client, &mut schedule), Ok(Fate::Reusable));
    }
}

/// Sends what prepares, changes the tables, and sends what must then be as if nothing had been.
fn after_change(prepares: &Script, then: &Script, piece: usize) -> (Pool, Vec<String>) {
    let mut pool = Pool::new();
    pool.limits.max_prepared_statements = 10;
    let client = pool.client(script());
    send(&mut pool, client, prepares.clone(), piece);
    let before = pool.clients[client].lines().len();
    assert!(pool.model.alter());
    send(&mut pool, client, then.clone(), piece);
    let lines = pool.clients[client].lines().split_off(before);
    (pool, lines)
}

/// What `then` gets where nobody changes a table.
fn alone(prepares: &Script, then: &Script) -> Vec<String> {
    let before = Pool::alone(prepares).len();
    Pool::alone(&prepares.clone().then(then.clone())).split_off(before)
}

fn is_healed(prepares: &Script, then: &Script) {
    for piece in [1, 3, 4096] {
        let (pool, lines) = after_change(prepares, then, piece);
        assert_eq!(lines, alone(prepares, then), "in pieces of {piece}");
        assert_eq!(pool.model.refused, 1, "it was sent again once");
        assert_eq!(pool.interner.refused(), (1, 0));
    }
}

fn is_told(prepares: &Script, then: &Script) -> Vec<String> {
    let (pool, lines) = after_change(prepares, then, 4096);
    assert!(lines.iter().any(|line| line == STALE), "{lines:?}");
    assert_eq!(pool.interner.refused().0, 0);
    lines
}

fn prepared() -> Script {
    script().parse("a", "select 1").parse("b", "insert me").sync()
}

#[test]
fn a_statement_bound_outside_a_transaction_is_prepared_again_unseen() {
    is_healed(&prepared(), &script().run("a").sync());
    is_healed(&prepared(), &script().bind("", "a").describe_portal("").execute("").run("b").sync());
    is_healed(&prepared(), &script().bind("p", "a").execute("p").flush().execute("p").close_portal("p").sync());
}

#[test]
fn a_statement_that_is_described_is_prepared_again_unseen_its_parameters_told_once() {
    is_healed(&prepared(), &script().describe_statement("a").sync());
    is_healed(&prepared(), &script().describe_statement("a").bind("", "a").execute("").sync());
}

#[test]
fn parses_and_closes_that_were_answered_are_not_sent_again() {
    let parses = script().parse("c", "select 3").close_statement("b").parse("d", "select 1").flush();
    is_healed(&prepared(), &parses.run("a").run("c").run("d").sync());
    let unnamed = script().parse("", "select 4").flush().run("a").run("").parse("", "insert me").run("").sync();
    is_healed(&prepared(), &unnamed);
    is_healed(&prepared(), &script().parse("", "select 4").close_statement("").flush().run("a").run("").sync());
}

#[test]
fn what_others_had_prepared_when_a_client_prepares_it_is_prepared_again() {
    // asyncpg: Parse, Describe, Flush; Bind, Execute, Sync once the answer is there.
    let mut pool = Pool::new();
    let (first, second) = (pool.client(script()), pool.client(script()));
    send(&mut pool, first, script().parse("x", "select 1").sync(), 4096);
    assert!(pool.model.alter());
    pool.clients[second].unsent = script().parse("y", "select 1").describe_statement("y").flush().0;
    // In the middle of a batch, the server is not to be had.
    assert_eq!(pool.serve(second, &mut Schedule::new(1, 4096)), Ok(Fate::Close));
    assert_eq!(pool.clients[second].lines(), ["1", "t", "T"]);
    assert_eq!(pool.interner.refused(), (1, 0));
}

#[test]
fn a_batch_whose_sync_comes_later_goes_on_where_it_was() {
    for seed in 0..200 {
        let mut pool = Pool::new();
        let client = pool.client(script());
        send(&mut pool, client, prepared(), 4096);
        let before = pool.clients[client].lines().len();
        assert!(pool.model.alter());
        let then = script().describe_statement("a").flush().run("a").flush().run("b").run("a").sync();
        pool.clients[client].unsent = then.clone().0;
        assert_eq!(pool.serve(client, &mut Schedule::new(seed, 5)), Ok(Fate::Reusable));
        assert_eq!(pool.clients[client].lines().split_off(before), alone(&prepared(), &then), "seed {seed}");
        assert_eq!(pool.model.refused, 1);
    }
}

#[test]
fn all_servers_prepare_again() {
    let (mut pool, _) = after_change(&prepared(), &script().run("a").sync(), 4096);
    let parses = pool.model.parses;
    send(&mut pool, 0, script().run("b").sync().run("a").sync(), 4096);
    assert_eq!(pool.model.parses, parses + 1, "the one that was not bound since");
}

#[test]
fn a_statement_the_server_has_lost_is_prepared_again_unseen() {
    let mut pool = Pool::new();
    let client = pool.client(script());
    send(&mut pool, client, prepared(), 4096);
    pool.model.statements.clear();
    send(&mut pool, client, script().run("a").sync(), 4096);
    assert_eq!(pool.clients[client].lines()[3..], ["2", "D 1", "C SELECT 1", "Z I"]);
    assert_eq!(pool.interner.refused(), (0, 0));
}

#[test]
fn a_parse_that_stood_for_another_before_a_type_was_made_again_is_made_up_for_unseen() {
    for piece in [1, 3, 4096] {
        let mut pool = Pool::new();
        pool.model.types_gone = true;
        let (first, second) = (pool.client(script()), pool.client(script()));
        send(&mut pool, first, prepared(), piece);
        assert!(pool.model.alter());
        let then = script().parse("y", "select 1").describe_statement("y").run("y").sync();
        send(&mut pool, second, then.clone(), piece);
        assert_eq!(pool.clients[second].lines(), Pool::alone(&then), "in pieces of {piece}");
        assert_eq!(pool.model.refused, 1);
    }
}

#[test]
fn who_parses_after_such_an_error_was_told_has_it_parsed() {
    let mut pool = Pool::new();
    pool.model.types_gone = true;
    let (first, second) = (pool.client(script()), pool.client(script()));
    send(&mut pool, first, prepared(), 4096);
    assert!(pool.model.alter());
    let inside = script().parse("y", "select 1").sync().query("begin").run("y").sync().query("rollback");
    send(&mut pool, second, inside, 4096);
    assert_eq!(pool.clients[second].lines()[4], "E XX000 cache lookup failed for type 7");
    let parses = pool.model.parses;
    let (third, anew) = (pool.client(script()), script().parse("z", "select 1").run("z").sync());
    send(&mut pool, third, anew.clone(), 4096);
    assert_eq!(pool.clients[third].lines(), Pool::alone(&anew));
    assert_eq!(pool.model.parses, parses + 1);
}

#[test]
fn a_batch_that_frees_names_at_its_end_is_sent_again_whole() {
    is_healed(&prepared(), &script().run("a").run("b").run_text("deallocate all").sync());
    is_healed(&prepared(), &script().run("a").describe_statement("b").run_text("DISCARD ALL").sync());
}

#[test]
fn inside_a_transaction_the_error_is_postgresqls() {
    let mut pool = Pool::new();
    let client = pool.client(prepared());
    send(&mut pool, client, prepared(), 4096);
    assert!(pool.model.alter());
    send(&mut pool, client, script().query("begin").run("a").sync().query("rollback").run("a").sync(), 4096);
    let expected = ["C BEGIN", "Z T", STALE, "Z E", "C ROLLBACK", "Z I", "2", "D 1", "C SELECT 1", "Z I"];
    assert_eq!(pool.clients[client].lines()[3..], expected);
    assert_eq!(pool.interner.refused(), (0, 1));
}

#[test]
fn once_an_answer_has_left_the_error_is_postgresqls() {
    let lines = is_told(&prepared(), &script().run("b").run("a").sync());
    assert_eq!(lines, ["2", "C INSERT 0 1", STALE, "Z I"]);
}

#[test]
fn a_batch_behind_which_more_has_gone_out_is_not_sent_again() {
    let lines = is_told(&prepared(), &script().run("a").sync().run("b").sync());
    assert_eq!(lines, [STALE, "Z I", "2", "C INSERT 0 1", "Z I"]);
    let lines = is_told(&prepared(), &script().run("a").query("rows me").sync());
    assert_eq!(lines, [STALE, "Z I"]);
}

#[test]
fn a_batch_that_is_too_long_is_not_sent_again() {
    let text = format!("select {}", "x".repeat(6_000));
    let long = script().parse("", &text).parse("", &text).parse("", &text);
    assert_eq!(is_told(&prepared(), &long.run("a").sync()), ["1", "1", "1", STALE, "Z I"]);
}

#[test]
fn what_is_sent_again_and_refused_again_is_told() {
    let mut pool = Pool::new();
    let client = pool.client(script());
    send(&mut pool, client, prepared(), 4096);
    pool.model.stubborn = true;
    pool.clients[client].unsent = script().run("a").sync().0;
    assert_eq!(pool.serve(client, &mut Schedule::new(1, 4096)), Ok(Fate::Reusable));
    assert_eq!(pool.clients[client].lines()[3..], [STALE, "Z I"]);
    assert_eq!(pool.model.refused, 2);
}

#[test]
fn a_client_that_says_goodbye_behind_its_batch_has_it_run() {
    for piece in [1, 4096] {
        let mut pool = Pool::new();
        let client = pool.client(script());
        send(&mut pool, client, script().parse("a", "select 1").sync(), 4096);
        assert!(pool.model.alter());
        pool.clients[client].unsent = script().run("a").run_text("insert me").sync().terminate().0;
        let mut schedule = Schedule::new(5, piece);
        assert_eq!(pool.serve(client, &mut schedule), Ok(Fate::Reusable));
        let other = pool.client(script().query("rows me"));
        assert_eq!(pool.serve(other, &mut schedule), Ok(Fate::Reusable));
        assert_eq!(pool.clients[other].lines()[1], "D 1");
    }
}

#[test]
fn an_error_speaks_of_a_statement_by_its_clients_name() {
    let mine = script().parse("mine", "select 1").sync().bind_too_much("mine").sync();
    let unnamed = (0..3).fold(mine, |to, _| to.parse("", "select 2").bind_too_much("").sync());
    let mut pool = Pool::new();
    let client = pool.client(script());
    send(&mut pool, client, unnamed.clone(), 4096);
    assert_eq!(pool.clients[client].lines(), Pool::alone(&unnamed));
}
