//! The statement without a name, when its client is not alone on the server.

use super::{
    super::unnamed::Kept,
    link::{Pool, Schedule},
    script::{Script, script},
};

/// Serves each script in turn, a lease or more each; the same client again with the same index.
fn serve(pool: &mut Pool, turns: &[(usize, Script)]) {
    for (index, turn) in turns {
        pool.clients[*index].unsent = turn.0.clone();
        let mut schedule = Schedule::bytewise();
        while !pool.clients[*index].unsent.is_empty() {
            pool.serve(*index, &mut schedule).unwrap();
        }
    }
}

fn two_clients() -> Pool {
    let mut pool = Pool::new();
    pool.client(script());
    pool.client(script());
    pool
}

#[test]
fn what_was_described_in_one_batch_is_bound_in_the_next_whoever_came_between() {
    let mut pool = two_clients();
    let mine = script().parse("", "select mine").describe_statement("").sync();
    let theirs = script().run_text("select theirs").sync();
    serve(&mut pool, &[(0, mine), (1, theirs), (0, script().run("").sync())]);
    assert_eq!(pool.clients[0].lines(), ["1", "t", "T", "Z I", "2", "D mine", "C SELECT 1", "Z I"]);
}

#[test]
fn nobody_runs_anothers() {
    let mut pool = two_clients();
    let theirs = script().parse("", "select theirs").sync();
    serve(&mut pool, &[(1, theirs), (0, script().run("").sync()), (0, script().describe_statement("").sync())]);
    let missing = "E 26000 unnamed prepared statement does not exist";
    assert_eq!(pool.clients[0].lines(), [missing, "Z I", missing, "Z I"]);
}

#[test]
fn it_goes_with_a_query_a_close_and_a_parse_that_failed() {
    for ends in [script().query("select 1"), script().close_statement("").sync(), script().parse("", "syntax").sync()] {
        let mut pool = two_clients();
        let mine = script().parse("", "select mine").sync();
        let theirs = script().run_text("select theirs").sync();
        serve(&mut pool, &[(0, mine), (0, ends), (1, theirs), (0, script().run("").sync())]);
        let lines = pool.clients[0].lines();
        assert_eq!(lines[lines.len() - 2..], ["E 26000 unnamed prepared statement does not exist", "Z I"]);
    }
}

#[test]
fn a_bind_waits_for_the_batch_of_its_parse() {
    let mut pool = two_clients();
    let theirs = script().run_text("select theirs").sync();
    let mine = script().run("nobody").parse("", "select mine").sync().run("").sync();
    serve(&mut pool, &[(1, theirs), (0, mine)]);
    let lines = pool.clients[0].lines();
    assert_eq!(lines[lines.len() - 2..], ["E 26000 unnamed prepared statement does not exist", "Z I"]);
}

#[test]
fn the_end_of_a_copy_that_failed_long_ago_is_nothing_even_behind_a_replay() {
    let mut pool = two_clients();
    let sets = script().query("set TimeZone Asia/Tokyo");
    let late = script().copy_data("row").copy_done().sync().query("select 1");
    serve(&mut pool, &[(1, sets), (0, late)]);
    assert_eq!(pool.clients[0].lines(), ["Z I", "T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn the_end_of_a_copy_is_nothing_behind_an_answer_of_ours() {
    let mut pool = two_clients();
    let both = script().parse("a", "select 1").close_statement("a").copy_done().sync().query("select 2");
    serve(&mut pool, &[(0, both)]);
    assert_eq!(pool.clients[0].lines(), ["1", "3", "Z I", "T", "D 2", "C SELECT 1", "Z I"]);
}

/// What `turns` of one client get, another's statement on the server before each, and what they get alone.
fn is_as_alone(turns: &[Script]) {
    let mut pool = two_clients();
    let theirs = || script().run_text("select theirs").sync();
    for turn in turns {
        serve(&mut pool, &[(1, theirs()), (0, turn.clone())]);
    }
    let all = turns.iter().fold(script(), |all, turn| all.then(turn.clone()));
    assert_eq!(pool.clients[0].lines(), Pool::alone(&all));
    is_as_alone_at_once(&all);
}

/// The same, in one lease.
fn is_as_alone_at_once(all: &Script) {
    let mut pool = two_clients();
    serve(&mut pool, &[(1, script().run_text("select theirs").sync()), (0, all.clone())]);
    assert_eq!(pool.clients[0].lines(), Pool::alone(all), "at once");
}

#[test]
fn a_close_of_ours_that_the_server_skips_leaves_nobodys_statement_to_be_run() {
    is_as_alone(&[script().describe_portal("nope").run("").sync().run("").sync()]);
    let fails = script().query("begin").describe_portal("nope").run("").sync();
    is_as_alone_at_once(&fails.query("rollback").run("").sync());
}

#[test]
fn it_is_there_until_another_is_parsed_however_often_it_is_bound() {
    let mine = || script().run_text("select mine").sync();
    is_as_alone(&[mine(), script().run("").sync(), script().query(""), script().run("").sync()]);
    is_as_alone(&[mine(), script().run("").run("").sync(), script().describe_statement("").run("").sync()]);
    is_as_alone(&[mine(), mine(), mine(), script().run("").sync(), script().run("").sync()]);
    is_as_alone(&[mine(), script().execute("p").sync(), script().run("").sync()]);
    is_as_alone(&[mine(), script().bind_too_much("").sync(), script().run("").sync()]);
    is_as_alone_at_once(&script().query("begin").then(mine()).run("").sync().query("commit").run("").sync());
}

#[test]
fn what_the_server_skips_after_an_error_leaves_it_as_it_was() {
    let mine = || script().parse("", "select mine").sync();
    let fails = || script().describe_portal("nope");
    for skipped in [
        fails().parse("", "select new"),
        fails().run_text("select new").run_text("select newer"),
        fails().close_statement(""),
        fails().close_statement("").parse("", "select new").close_statement(""),
        fails().query("select 1"),
        fails().query("select 1").parse("", "select new"),
        script().run("").execute("nope").parse("", "select new"),
        script().close_statement("x").parse("", "select new").execute("nope").parse("", "select newer"),
        script().parse("x", "syntax").parse("", "select new").flush(),
        script().parse("", "syntax").parse("", "select new"),
        script().parse("", "select new").parse("", "syntax").parse("", "select newer"),
    ] {
        is_as_alone(&[mine(), skipped.clone().sync(), script().run("").sync()]);
        is_as_alone(&[mine(), mine(), mine(), skipped.clone().sync(), script().run("").sync().run("").sync()]);
        let skipped = script().query("begin").then(mine()).then(skipped).sync();
        is_as_alone_at_once(&skipped.parse("x", "rollback").run("x").run("").sync().run("").sync());
    }
}

#[test]
fn a_later_batch_keeps_what_it_parsed_when_an_earlier_one_fails() {
    let mine = script().parse("", "select mine").sync();
    for later in [
        script().parse("", "select new"),
        script().close_statement("x").parse("", "select new"),
        script().query("select 1"),
    ] {
        let fails = script().parse("x", "select x").execute("nope").parse("", "select lost").sync();
        is_as_alone(&[mine.clone(), fails.then(later).sync().run("").sync(), script().run("").sync()]);
    }
}

#[test]
fn a_long_one_is_kept_for_another_batch_unless_its_own_has_bound_it() {
    let mut pool = two_clients();
    let long = format!("select {}", "long".repeat(5_000));
    let theirs = script().run_text("select theirs").sync();
    let turns = [
        (0, script().parse("", &long).sync()),
        (1, theirs.clone()),
        (0, script().run("").sync()),
        (1, theirs.clone()),
        (0, script().run("").sync()),
    ];
    serve(&mut pool, &turns);
    let row = format!("D {}", &long["select ".len()..]);
    let ran = ["2", &row, "C SELECT 1", "Z I"];
    assert_eq!(pool.clients[0].lines(), [&["1", "Z I"][..], &ran, &ran].concat());
    pool.clients[0].got.clear();
    serve(&mut pool, &[(0, script().run_text(&long).sync()), (1, theirs)]);
    assert!(matches!(pool.clients[0].state.unnamed, Kept::Nothing), "its text would lie with every client that idles");
}

/// A thousand clients that parse and go to sleep must not have a thousand times `max_held_message`.
#[test]
fn long_ones_of_all_clients_together_are_bounded_and_one_that_went_makes_room() {
    let mut pool = two_clients();
    pool.interner.set_bytes_max(50_000);
    let long = || script().parse("", &format!("select {}", "long".repeat(5_000))).sync();
    serve(&mut pool, &[(0, long()), (1, long())]);
    assert!(matches!(pool.clients[0].state.unnamed, Kept::Long(_)));
    assert!(matches!(pool.clients[1].state.unnamed, Kept::Nothing), "there is no room for another");
    serve(&mut pool, &[(0, script().parse("", "select short").sync())]);
    assert_eq!(pool.interner.bytes(), 0);
    serve(&mut pool, &[(1, long())]);
    assert!(matches!(pool.clients[1].state.unnamed, Kept::Long(_)));
    serve(&mut pool, &[(1, script().run("").sync())]);
    assert!(pool.clients[1].lines().contains(&"C SELECT 1".to_owned()));
}
