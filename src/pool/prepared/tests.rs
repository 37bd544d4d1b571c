use std::sync::Arc;

use super::{
    Interner, Statement, Ticket,
    client::{ClientStatements, Meaning, NO_COLUMNS},
    server::{Need, ServerStatements},
};

/// A change in a batch.
fn t(batch: u64) -> Ticket {
    Ticket { batch, number: batch }
}

fn intern(interner: &Interner, scope: u64, definition: &[u8]) -> Arc<Statement> {
    interner.intern(interner.key(scope, definition)).unwrap()
}

fn statement(interner: &Interner, text: &str) -> Arc<Statement> {
    intern(interner, 0, format!("{text}\0\0\0").as_bytes())
}

fn means(client: &ClientStatements, name: &str, batch: u64) -> &'static str {
    match client.look_up(name.as_bytes(), batch) {
        Meaning::Nothing => "nothing",
        Meaning::Statement(..) => "statement",
        Meaning::Undecided => "undecided",
    }
}

#[test]
fn the_same_text_with_other_types_is_another_statement() {
    let interner = Interner::default();
    let a = intern(&interner, 0, b"select $1\0\0\x01\0\0\0\x17");
    let b = intern(&interner, 0, b"select $1\0\0\x01\0\0\0\x19");
    assert_ne!(a.id, b.id);
    assert_ne!(a.name(), b.name());
    assert!(Arc::ptr_eq(&a, &intern(&interner, 0, b"select $1\0\0\x01\0\0\0\x17")));
}

#[test]
fn the_same_text_under_other_settings_is_another_statement() {
    let interner = Interner::default();
    let (a, b) = (interner.scope("UTC"), interner.scope("Europe/Oslo"));
    let text = b"select timestamptz '2026-01-01'\0\0\0";
    assert_ne!(intern(&interner, a, text).id, intern(&interner, b, text).id);
    let mut server = ServerStatements::default();
    let statement = intern(&interner, a, text);
    server.prepare(&statement, t(1));
    assert_eq!(server.find(interner.key(a, text)).map(|found| found.id), Some(statement.id));
    assert!(server.find(interner.key(b, text)).is_none());
}

#[test]
fn all_statements_together_are_bounded_and_what_is_dropped_makes_room() {
    let interner = Interner::new(10_000);
    let key = |text: &'static str| interner.key(0, text.as_bytes());
    let long = "x".repeat(4_000).leak();
    let other = "y".repeat(4_000).leak();
    let third = "z".repeat(4_000).leak();
    let first = interner.intern(key(long)).unwrap();
    assert!(interner.intern_unnamed(key(other)).is_err(), "half of it is for statements with names");
    let second = interner.intern(key(other)).unwrap();
    assert!(interner.intern(key(third)).is_err());
    assert!(Arc::ptr_eq(&interner.intern(key(long)).unwrap(), &first), "what there is needs no room");
    assert!(interner.bytes() > 8_000);
    drop((first, second));
    assert_eq!(interner.bytes(), 0);
    assert!(interner.intern_unnamed(key(third)).is_ok());
}

#[test]
fn a_text_without_a_name_is_seen_the_second_time() {
    let interner = Interner::default();
    assert!(!interner.seen(interner.key(0, b"select 1")));
    assert!(interner.seen(interner.key(0, b"select 1")));
    assert!(!interner.seen(interner.key(1, b"select 1")), "under other settings it is another");
}

#[test]
fn servers_that_find_the_same_change_together_note_it_once() {
    let interner = Interner::default();
    let then = interner.schema();
    interner.schema_changed(then);
    let now = interner.schema();
    interner.schema_changed(then);
    assert_ne!(then, now);
    assert_eq!(interner.schema(), now);
}

#[test]
fn statements_nobody_has_are_forgotten() {
    let interner = Interner::default();
    for n in 0..10_000 {
        statement(&interner, &format!("select {n}"));
    }
    assert!(interner.len() <= 512, "{}", interner.len());
}

#[test]
fn a_name_holds_inside_its_batch_and_is_undecided_outside() {
    let interner = Interner::default();
    let mut client = ClientStatements::default();
    client.parsing(b"a"[..].into(), statement(&interner, "select 1"), t(1));
    assert_eq!(means(&client, "a", 1), "statement");
    assert_eq!(means(&client, "a", 2), "undecided");
    client.parsed(b"a", t(1));
    assert_eq!(means(&client, "a", 2), "statement");
    client.closing(b"a", t(2)).unwrap();
    assert_eq!(means(&client, "a", 2), "nothing");
    assert_eq!(means(&client, "a", 3), "undecided");
    client.closed(b"a", t(2));
    assert_eq!(means(&client, "a", 3), "nothing");
}

#[test]
fn a_discarded_batch_leaves_a_client_what_it_had() {
    let interner = Interner::default();
    let (old, new) = (statement(&interner, "select 1"), statement(&interner, "select 2"));
    let mut client = ClientStatements::default();
    client.parsing(b"a"[..].into(), old.clone(), t(1));
    client.parsed(b"a", t(1));
    // Close(a) Parse(a) Close(a), all discarded, taken back from the last.
    let closed = client.closing(b"a", t(2)).unwrap();
    client.parsing(b"a"[..].into(), new.clone(), t(2));
    let closed2 = client.closing(b"a", t(2)).unwrap();
    client.undo_close(closed2);
    client.undo_parse(b"a", &new, t(2));
    client.undo_close(closed);
    let Meaning::Statement(_, now, _) = client.look_up(b"a", 3) else { panic!("{client:?}") };
    assert_eq!(now.id, old.id);
    assert_eq!(client.len(), 1);
}

#[test]
fn a_clients_names_are_bounded_by_count_and_bytes() {
    let interner = Interner::default();
    let mut client = ClientStatements::default();
    let text = statement(&interner, &"x".repeat(1000));
    assert!(!client.is_full(&text, 1, 2000));
    client.parsing(b"a"[..].into(), text.clone(), t(1));
    client.parsed(b"a", t(1));
    assert!(client.is_full(&text, 1, 1_000_000));
    assert!(client.is_full(&text, 100, 2000));
    client.clear();
    assert!(!client.is_full(&text, 1, 2000), "what is forgotten no longer counts");
}

#[test]
fn deallocate_all_forgets_what_was_there_and_keeps_what_came_after() {
    let interner = Interner::default();
    let (a, b) = (statement(&interner, "a"), statement(&interner, "b"));
    let mut client = ClientStatements::default();
    client.parsing(b"a"[..].into(), a.clone(), t(1));
    client.parsed(b"a", t(1));
    client.parsing(b"b"[..].into(), b.clone(), t(1));
    client.clear();
    client.parsed(b"b", t(1));
    assert_eq!((means(&client, "a", 2), means(&client, "b", 2)), ("nothing", "statement"));
    let mut server = ServerStatements::default();
    server.prepare(&a, t(1));
    server.parsed(a.id, t(1));
    server.prepare(&b, t(1));
    server.clear();
    server.parsed(b.id, t(1));
    assert_eq!((server.touch(a.id), server.touch(b.id), server.len()), (false, true, 1));
}

#[test]
fn what_deallocate_all_dropped_does_not_come_back_when_a_close_is_discarded() {
    let interner = Interner::default();
    let mut client = ClientStatements::default();
    client.parsing(b"a"[..].into(), statement(&interner, "a"), t(1));
    client.parsed(b"a", t(1));
    let closed = client.closing(b"a", t(2)).unwrap();
    client.clear();
    client.undo_close(closed);
    assert_eq!((means(&client, "a", 3), client.len()), ("nothing", 0));
}

#[test]
fn a_server_is_told_once() {
    let interner = Interner::default();
    let a = statement(&interner, "a");
    let mut server = ServerStatements::default();
    assert_eq!(server.prepare(&a, t(1)).need, Need::Parse { fresh: true });
    assert_eq!(server.prepare(&a, t(1)).need, Need::Nothing, "sent before in the same batch");
    assert!(!server.touch(a.id), "not proven yet");
    server.parsed(a.id, t(1));
    assert!(server.touch(a.id));
    assert_eq!(server.prepare(&a, t(7)).need, Need::Nothing);
}

#[test]
fn a_parse_that_failed_leaves_nothing_and_one_unanswered_is_not_relied_on() {
    let interner = Interner::default();
    let a = statement(&interner, "a");
    let mut server = ServerStatements::default();
    server.prepare(&a, t(1));
    assert_eq!(server.prepare(&a, t(2)).need, Need::CloseAndParse, "batch 1 may yet fail");
    server.undo_parse(a.id, t(1), true);
    assert!(server.is_parsing(a.id, 2), "the later Parse stands by itself");
    server.undo_parse(a.id, t(2), false);
    assert_eq!(server.prepare(&a, t(3)).need, Need::CloseAndParse, "the Close before it may or may not have run");
    server.parsed(a.id, t(3));
    assert!(server.touch(a.id));
    let b = statement(&interner, "b");
    server.prepare(&b, t(4));
    server.undo_parse(b.id, t(4), true);
    assert!(server.find(interner.key(0, b.definition())).is_none());
    assert_eq!(server.prepare(&b, t(5)).need, Need::Parse { fresh: true });
}

#[test]
fn the_least_recently_used_goes_first_and_comes_back_when_its_close_is_discarded() {
    let interner = Interner::default();
    let [a, b, c] = ["a", "b", "c"].map(|text| statement(&interner, text));
    let mut server = ServerStatements::default();
    for statement in [&a, &b] {
        server.prepare(statement, t(1));
        server.parsed(statement.id, t(1));
    }
    server.touch(a.id);
    server.prepare(&c, t(2));
    assert_eq!(server.evict(2, t(2)).unwrap().id, b.id);
    assert!(server.evict(2, t(2)).is_none());
    assert_eq!(server.prepare(&b, t(3)).need, Need::CloseAndParse, "its Close is not answered");
    server.undo_parse(b.id, t(3), false);
    server.undo_close(b.id, t(2));
    assert_eq!(server.prepare(&b, t(4)).need, Need::CloseAndParse);
    server.parsed(b.id, t(4));
    assert!(server.touch(b.id));
}

#[test]
fn an_eviction_that_ran_makes_room() {
    let interner = Interner::default();
    let [a, b] = ["a", "b"].map(|text| statement(&interner, text));
    let mut server = ServerStatements::default();
    server.prepare(&a, t(1));
    assert!(server.evict(0, t(1)).is_none(), "what is not answered is left");
    server.parsed(a.id, t(1));
    server.prepare(&b, t(2));
    assert_eq!(server.evict(1, t(2)).unwrap().id, a.id);
    server.closed(a.id, t(2));
    assert_eq!((server.len(), server.prepare(&a, t(2)).need), (1, Need::Parse { fresh: true }));
}

#[test]
fn changed_tables_make_every_server_prepare_again() {
    let interner = Interner::default();
    let a = statement(&interner, "a");
    let mut server = ServerStatements::default();
    server.prepare(&a, t(1));
    server.parsed(a.id, t(1));
    server.refresh(interner.schema());
    assert!(server.touch(a.id));
    interner.schema_changed(interner.schema());
    server.refresh(interner.schema());
    assert_eq!(server.prepare(&a, t(2)).need, Need::CloseAndParse);
}

#[test]
fn what_a_server_had_before_a_lease_is_prepared_again_everywhere_once_it_is_outdated() {
    let interner = Interner::default();
    let [a, b] = ["a", "b"].map(|text| statement(&interner, text));
    let [mut here, mut there] = [ServerStatements::default(), ServerStatements::default()];
    for server in [&mut here, &mut there] {
        for statement in [&a, &b] {
            server.prepare(statement, t(1));
            server.parsed(statement.id, t(1));
        }
    }
    assert!(!here.outdate(a.id), "made in this lease");
    here.begin_lease();
    assert!(here.outdate(a.id));
    for server in [&mut here, &mut there] {
        assert!(!server.touch(a.id));
        assert_eq!(server.prepare(&a, t(2)).need, Need::CloseAndParse);
        server.parsed(a.id, t(2));
        assert!(server.touch(a.id) && server.touch(b.id));
    }
}

#[test]
fn what_was_used_in_a_lease_and_is_older_can_be_doubted() {
    let interner = Interner::default();
    let [a, b, c] = ["a", "b", "c"].map(|text| statement(&interner, text));
    let mut server = ServerStatements::default();
    for (statement, batch) in [(&a, 1), (&b, 1), (&c, 2)] {
        if batch == 2 {
            server.begin_lease();
            server.touch(a.id);
        }
        server.prepare(statement, t(batch));
        server.parsed(statement.id, t(batch));
    }
    server.doubt_older();
    assert_eq!((server.touch(a.id), server.touch(b.id), server.touch(c.id)), (false, true, true));
}

/// A RowDescription of one column.
fn row(name: &str, table: u8, type_oid: u8, modifier: u8, format: u8) -> Vec<u8> {
    let numbers = [0, 0, 0, table, 0, 1, 0, 0, 0, type_oid, 0, 4, 0, 0, 0, modifier, 0, format];
    [&[0, 1], name.as_bytes(), &[0], &numbers].concat()
}

#[test]
fn columns_are_the_same_by_name_type_and_modifier() {
    let interner = Interner::default();
    let one = interner.columns(&row("a", 7, 23, 9, 0));
    assert!(one.is_some_and(|columns| columns > NO_COLUMNS));
    assert_eq!(interner.columns(&row("a", 8, 23, 9, 1)), one, "of another table, in another format");
    for other in [row("b", 7, 23, 9, 0), row("a", 7, 25, 9, 0), row("a", 7, 23, 8, 0), vec![0, 0]] {
        let other = interner.columns(&other);
        assert!(other.is_some() && other != one);
    }
    for malformed in [&b""[..], &[0], &[0, 1, b'a'], &[0, 0, 0]] {
        assert_eq!(interner.columns(malformed), None);
    }
}
