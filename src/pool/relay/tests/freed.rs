//! Names that `DEALLOCATE ALL` frees while messages that mean them are on their way already.

use super::{
    link::{Pool, Schedule},
    script::{Script, script},
};

/// In pieces of all sizes, `all` is answered as by a server that the client has for itself.
fn is_as_alone(all: &Script) {
    for piece in [1, 7, 4096] {
        let mut pool = Pool::new();
        pool.client(script().parse("other", "select 1").parse("more", "select 2").sync());
        pool.serve_all(&mut Schedule::new(3, piece));
        pool.client(all.clone());
        pool.serve_all(&mut Schedule::new(5, piece));
        assert_eq!(pool.clients[1].lines(), Pool::alone(all), "in pieces of {piece}");
    }
}

fn named() -> Script {
    script().parse("a", "select 1").parse("b", "select 2").sync()
}

#[test]
fn a_name_that_is_freed_in_the_same_pipeline_can_be_given_again() {
    is_as_alone(&named().run_text("deallocate all").parse("a", "select 3").run("a").sync().run("a").sync());
    is_as_alone(&named().parse("all", "deallocate all").run("all").parse("a", "select 3").parse("all", "x").sync());
    is_as_alone(&named().query("deallocate all").parse("a", "select 3").run("a").sync());
    is_as_alone(&named().run_text("deallocate all").sync().parse("a", "select 3").run("a").sync());
    // One that was never given, of a text that the server had.
    is_as_alone(&named().run_text("deallocate all").parse("c", "select 1").run("c").sync());
    is_as_alone(&named().query("begin").run_text("deallocate all").sync().run("a").sync().query("rollback"));
}

#[test]
fn a_name_that_was_freed_in_the_same_pipeline_means_nothing() {
    is_as_alone(&named().run_text("deallocate all").run("a").sync());
    is_as_alone(&named().run_text("deallocate all").describe_statement("b").sync().run("a").sync());
    is_as_alone(&named().bind("p", "a").run_text("deallocate all").execute("p").close_statement("a").sync());
    // It is not executed after all.
    is_as_alone(&named().parse("", "deallocate all").bind("", "").bind("", "a").execute("").sync().run("b").sync());
    is_as_alone(&named().describe_portal("nope").run_text("deallocate all").run("a").sync().run("a").sync());
}

#[test]
fn a_close_that_is_skipped_takes_nothing_away_that_was_parsed_since() {
    let again = script().parse("a", "select 1").close_statement("a").query("deallocate all").parse("a", "select 3");
    is_as_alone(&again.describe_portal("nope").close_statement("a").sync().run("a").sync());
}

#[test]
fn a_close_that_is_skipped_brings_nothing_back_that_was_freed_before() {
    let parsed = script().parse("a", "select 1").run_text("deallocate all");
    is_as_alone(&parsed.describe_portal("nope").close_statement("a").sync().run("a").sync());
    let freed = named().run_text("deallocate all").describe_portal("nope").close_statement("a").close_statement("a");
    is_as_alone(&freed.sync().run("a").sync());
    let after = named().query("deallocate all").parse("a", "select 3").describe_portal("nope").close_statement("a");
    is_as_alone(&after.sync().run("a").sync());
}
