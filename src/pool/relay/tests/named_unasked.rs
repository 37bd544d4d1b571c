//! A statement without a name that is prepared under one: who gains, and that nobody can tell.

use super::{
    super::Fate,
    link::{Pool, Schedule},
    script::{Script, script},
};

fn send(pool: &mut Pool, client: usize, bytes: Script) {
    pool.clients[client].unsent = bytes.0;
    let mut schedule = Schedule::new(3, 4096);
    while !pool.clients[client].unsent.is_empty() {
        assert_eq!(pool.serve(client, &mut schedule), Ok(Fate::Reusable));
    }
}

/// A pool with a client that has sent `text` twice already.
fn known(text: &str) -> Pool {
    let mut pool = Pool::new();
    pool.client(script());
    for _ in 0..2 {
        send(&mut pool, 0, script().run_text(text).sync());
    }
    pool.clients[0].got.clear();
    pool
}

#[test]
fn a_text_that_comes_again_is_parsed_once_for_a_server_whoever_sends_it() {
    let mut pool = known("select 1");
    assert_eq!(pool.model.parses, 2, "as it is, and under a name");
    let other = pool.client(script());
    for client in [0, other, 0] {
        send(&mut pool, client, script().run_text("select 1").sync());
        assert_eq!(pool.clients[client].lines()[..4], ["1", "2", "D 1", "C SELECT 1"]);
    }
    assert_eq!(pool.model.parses, 2);
    assert_eq!(pool.server.prepared(), 1);
}

#[test]
fn a_text_that_comes_once_leaves_nothing_behind() {
    let mut pool = Pool::new();
    pool.client(script());
    for n in 0..50 {
        send(&mut pool, 0, script().run_text(&format!("select {n}")).sync());
    }
    assert_eq!((pool.model.parses, pool.server.prepared(), pool.interner.bytes()), (50, 0, 0));
}

#[test]
fn what_has_no_plan_is_passed_as_it_is() {
    let pool = known("show TimeZone");
    assert_eq!((pool.model.parses, pool.server.prepared()), (2, 0));
}

#[test]
fn it_can_be_turned_off() {
    let mut pool = Pool::new();
    pool.limits.prepare_unnamed_statements = false;
    pool.client(script());
    for _ in 0..4 {
        send(&mut pool, 0, script().run_text("select 1").sync());
    }
    assert_eq!((pool.model.parses, pool.server.prepared()), (4, 0));
}

#[test]
fn inside_a_transaction_it_is_parsed_as_it_is() {
    let mut pool = known("select 1");
    let again = script().query("begin").run_text("select 1").sync().run_text("select 1").sync().query("commit");
    send(&mut pool, 0, again.clone());
    assert_eq!(pool.model.parses, 4);
    assert_eq!(pool.clients[0].lines(), Pool::alone(&again));
}

#[test]
fn a_plan_that_no_longer_holds_is_never_seen_by_who_named_nothing() {
    for then in [
        script().run_text("select 1").sync(),
        script().parse("", "select 1").describe_statement("").bind("", "").execute("").sync(),
        script().run_text("select 1").sync().run_text("select 1").sync().query("rows me"),
        script().run_text("select 1").query("rows me").sync(),
        script().run_text("select 1").copy_data("stray").sync(),
        (0..3000).fold(script().run_text("select 1"), |to, _| to.describe_portal("")).sync(),
    ] {
        let mut pool = known("select 1");
        assert!(pool.model.alter());
        send(&mut pool, 0, then.clone());
        assert_eq!(pool.clients[0].lines(), Pool::alone(&then));
        assert_eq!(pool.model.refused, 1);
    }
}

#[test]
fn a_client_that_sends_batch_upon_batch_waits_once_and_is_left_alone_then() {
    let mut pool = known("select 1");
    let pipeline = (0..20).fold(script(), |to, _| to.run_text("select 1").sync());
    send(&mut pool, 0, pipeline.clone());
    assert_eq!(pool.clients[0].lines(), Pool::alone(&pipeline));
    assert!(pool.model.parses > 15, "{}", pool.model.parses);
}

#[test]
fn only_the_first_of_a_batch_is_named_and_the_rest_is_as_it_was() {
    let mut pool = known("select 1");
    let batch = script().run_text("insert me").run_text("select 1").flush().run_text("select 1").run("").sync();
    send(&mut pool, 0, batch.clone());
    assert_eq!(pool.clients[0].lines(), Pool::alone(&batch));
    assert_eq!(pool.model.parses, 5);
}

#[test]
fn described_in_one_batch_it_is_bound_in_the_next_by_its_name() {
    let mut pool = known("select 1");
    let parses = pool.model.parses;
    let split = script().parse("", "select 1").describe_statement("").sync().run("").sync();
    for _ in 0..3 {
        pool.clients[0].got.clear();
        send(&mut pool, 0, script().parse("", "select 1").describe_statement("").sync());
        send(&mut pool, 0, script().run("").sync());
        assert_eq!(pool.clients[0].lines(), Pool::alone(&split));
    }
    assert_eq!(pool.model.parses, parses);
    // Inside a transaction it is there without a name.
    pool.clients[0].got.clear();
    let begins = script().parse("b", "begin").sync();
    send(&mut pool, 0, begins.clone());
    let inside = script().parse("", "select 1").describe_statement("").sync().run("b").sync();
    let inside = inside.run("").describe_statement("").sync().query("rollback");
    send(&mut pool, 0, inside.clone());
    assert_eq!(pool.clients[0].lines(), Pool::alone(&begins.then(inside)));
}

#[test]
fn it_goes_with_a_query_a_close_and_a_parse_that_failed() {
    for ends in [script().query("select 1"), script().close_statement("").sync(), script().parse("", "syntax").sync()] {
        let mut pool = known("select 1");
        let ours = script().parse("", "select 1").sync().then(ends).run("").sync();
        send(&mut pool, 0, ours.clone());
        assert_eq!(pool.clients[0].lines(), Pool::alone(&ours));
    }
}

#[test]
fn a_close_that_was_discarded_leaves_it() {
    let mut pool = known("select 1");
    let ours = script()
        .query("begin")
        .parse("x", "select 1")
        .sync()
        .query("commit")
        .parse("", "select 1")
        .flush()
        .bind("", "nobody")
        .close_statement("")
        .sync();
    send(&mut pool, 0, ours.clone());
    assert_eq!(pool.clients[0].lines(), Pool::alone(&ours));
}

#[test]
fn texts_share_the_servers_room_with_statements_that_have_names() {
    let mut pool = known("select 1");
    for n in 0..8 {
        for _ in 0..3 {
            send(&mut pool, 0, script().run_text(&format!("select {n}")).sync());
        }
    }
    assert!(pool.model.statements_max <= 4, "{} with the one that has none", pool.model.statements_max);
    assert_eq!(pool.server.prepared(), 2);
}

#[test]
fn who_lives_under_other_settings_has_a_statement_of_its_own() {
    let mut pool = known("select 1");
    pool.limits.max_prepared_statements = 10;
    let other = pool.client_asking(&[("TimeZone", "Asia/Tokyo")], script());
    let third = pool.client_asking(&[("statement_timeout", "5s")], script());
    for client in [other, third, 0] {
        for _ in 0..2 {
            send(&mut pool, client, script().run_text("select 1").sync());
        }
    }
    assert_eq!(pool.model.parses, 2 + 2 + 2, "once as it is and once under a name for each");
}

#[test]
fn a_named_statement_read_under_settings_that_have_changed_is_another() {
    let mut pool = Pool::new();
    let (first, second) = (pool.client(script()), pool.client(script()));
    send(&mut pool, first, script().parse("a", "select 1").sync());
    send(&mut pool, second, script().parse("a", "select 1").sync());
    assert_eq!(pool.model.parses, 1);
    send(&mut pool, second, script().query("set TimeZone Asia/Tokyo"));
    send(&mut pool, second, script().run("a").sync());
    assert_eq!(pool.model.parses, 2, "what it reads there is not what the first one's text says");
    send(&mut pool, first, script().run("a").sync());
    assert_eq!(pool.model.parses, 2);
    for client in [first, second] {
        assert!(pool.clients[client].lines().contains(&"D 1".to_owned()));
    }
}

#[test]
fn without_room_a_text_is_passed_as_it_is_and_a_name_is_refused_in_band() {
    let mut pool = Pool::new();
    pool.interner.set_bytes_max(600);
    pool.client(script());
    let long = |n: usize| format!("select {n}{}", " ".repeat(200));
    for _ in 0..3 {
        send(&mut pool, 0, script().run_text(&long(1)).sync());
    }
    assert_eq!((pool.model.parses, pool.server.prepared()), (3, 0));
    let named =
        script().query("begin").parse("a", &long(1)).parse("b", &long(2)).sync().query("rollback").run("a").sync();
    pool.clients[0].got.clear();
    send(&mut pool, 0, named);
    let full = "E 53400 no room for another prepared statement (max_statement_memory 600)";
    assert_eq!(pool.clients[0].lines()[2..5], ["1", full, "Z E"]);
    assert_eq!(pool.clients[0].lines()[9..], ["C SELECT 1", "Z I"], "the name that there was room for");
}
