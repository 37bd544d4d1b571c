use std::sync::Arc;

use super::*;

fn params(values: &[(&str, &str)]) -> Params {
    Params::reported(values.iter().map(|(name, value)| (*name, value.as_bytes())))
}

fn options(settings: &[(&str, &str)]) -> Option<Arc<Options>> {
    let mut options = Options::default();
    for (name, value) in settings {
        options.add(name, value.as_bytes()).unwrap();
    }
    Some(Arc::new(options))
}

fn replay(
    client: &Params,
    server: &Params,
    wanted: Option<&Arc<Options>>,
    applied: Option<&Arc<Options>>,
) -> Option<String> {
    let mut now = Applied::default();
    now.set(applied);
    let mut out = Vec::new();
    put_replay(&mut out, client, server, wanted, &now).then(|| String::from_utf8(out).unwrap())
}

fn literal(text: &[u8]) -> String {
    let mut out = Vec::new();
    put_literal(&mut out, text);
    String::from_utf8(out).unwrap()
}

#[test]
fn equal_values_cost_no_sql() {
    let server = params(&[("TimeZone", "UTC"), ("server_version", "17.2")]);
    let client = server.for_client(&[]);
    assert_eq!(replay(&client, &server, None, None), None);
    assert_eq!(client.value("server_version"), None, "a server's own values are not the client's");
}

#[test]
fn names_are_case_insensitive_and_a_difference_is_set_by_set_config() {
    let server = params(&[("TimeZone", "UTC"), ("DateStyle", "ISO, MDY")]);
    let mut client = server.for_client(&[]);
    assert!(client.update("timezone", b"Europe/Oslo"));
    let sql = replay(&client, &server, None, None).unwrap();
    assert_eq!(sql, "SELECT pg_catalog.set_config('TimeZone','Europe/Oslo',false)");
}

#[test]
fn after_a_replay_the_servers_spelling_counts_and_nothing_is_set_again() {
    let mut server = params(&[("TimeZone", "Etc/UTC")]);
    let mut client = server.for_client(&[]);
    client.update("TimeZone", b"utc");
    assert!(replay(&client, &server, None, None).is_some());
    server.set("TimeZone", b"UTC");
    let mut told = Vec::new();
    client.adopt(&server, |name, value| told.push((name.to_owned(), value.to_vec())));
    assert_eq!(told, [("TimeZone".to_owned(), b"UTC".to_vec())]);
    assert_eq!(replay(&client, &server, None, None), None);
    client.adopt(&server, |_, _| panic!("nothing new"));
}

#[test]
fn a_name_the_server_does_not_report_is_not_replayed() {
    let client = params(&[("search_path", "a, b")]);
    assert_eq!(replay(&client, &params(&[("TimeZone", "UTC")]), None, None), None);
}

#[test]
fn extra_parameters_are_tracked_when_asked_for() {
    let server = params(&[("default_transaction_read_only", "off"), ("is_superuser", "off")]);
    let mut client = server.for_client(&["Default_Transaction_Read_Only".to_owned()]);
    assert!(client.update("default_transaction_read_only", b"on"));
    assert!(!client.update("is_superuser", b"on"));
    let sql = replay(&client, &server, None, None).unwrap();
    assert_eq!(sql, "SELECT pg_catalog.set_config('default_transaction_read_only','on',false)");
}

#[test]
fn a_quote_or_backslash_cannot_end_a_literal() {
    assert_eq!(literal(b"it's"), "'it''s'");
    assert_eq!(literal(br"a\'; DROP TABLE t; --"), r"E'a\\''; DROP TABLE t; --'");
    assert_eq!(literal(b""), "''");
}

#[test]
fn no_byte_is_left_for_an_encoding_to_interpret() {
    // Shift-JIS: 0x83 0x5c is one character, whose second byte is a backslash.
    assert_eq!(literal(b"\x83\x5c"), r"E'\203\\'");
    assert_eq!(literal("é".as_bytes()), r"E'\303\251'");
    assert!(literal(&(1..=255).collect::<Vec<u8>>()).is_ascii());
}

#[test]
fn a_list_stays_a_list() {
    let server = params(&[("search_path", "\"$user\", public")]);
    let mut client = server.for_client(&[]);
    client.update("search_path", b"a, \"B c\"");
    let sql = replay(&client, &server, None, None).unwrap();
    assert_eq!(sql, "SELECT pg_catalog.set_config('search_path','a, \"B c\"',false)");
}

#[test]
fn options_are_set_for_their_client_and_reset_for_the_next() {
    let none = Params::default();
    let django = options(&[("statement_timeout", "30000"), ("app.tenant", "o'neil")]);
    let sql = replay(&none, &none, django.as_ref(), None).unwrap();
    let expected = "SELECT pg_catalog.set_config('app.tenant','o''neil',false),\
                    pg_catalog.set_config('statement_timeout','30000',false)";
    assert_eq!(sql, expected);
    assert_eq!(replay(&none, &none, django.as_ref(), django.clone().as_ref()), None);
    let sql = replay(&none, &none, None, django.as_ref()).unwrap();
    assert_eq!(sql, "RESET \"app\".\"tenant\";RESET \"statement_timeout\";");
    let other = options(&[("Statement_Timeout", "5s")]);
    let sql = replay(&none, &none, other.as_ref(), django.as_ref()).unwrap();
    assert_eq!(sql, "RESET \"app\".\"tenant\";SELECT pg_catalog.set_config('Statement_Timeout','5s',false)");
}

#[test]
fn options_are_applied_again_after_sql_may_have_changed_them() {
    let wanted = options(&[("statement_timeout", "30000")]);
    let mut applied = Applied::default();
    applied.set(wanted.as_ref());
    assert!(applied.is(wanted.as_ref()));
    applied.doubt();
    assert!(!applied.is(wanted.as_ref()));
    let none = Params::default();
    let mut out = Vec::new();
    assert!(put_replay(&mut out, &none, &none, wanted.as_ref(), &applied));
}

#[test]
fn after_sql_may_have_set_anything_the_next_client_starts_from_the_login() {
    let server = params(&[("TimeZone", "UTC"), ("application_name", ""), ("is_superuser", "off")]);
    let client = server.for_client(&["is_superuser".to_owned()]);
    let mut applied = Applied::default();
    applied.set(options(&[("work_mem", "1MB")]).as_ref());
    applied.doubt();
    let mut out = Vec::new();
    assert!(put_replay(&mut out, &client, &server, None, &applied));
    let sql = String::from_utf8(out).unwrap();
    let expected = "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;SELECT pg_catalog.set_config('TimeZone','UTC',false),\
                    pg_catalog.set_config('application_name','',false)";
    assert_eq!(sql, expected, "what is equal now is not when all is reset");
    applied.set(None);
    assert!(!put_replay(&mut Vec::new(), &client, &server, None, &applied));
}

#[test]
fn what_cannot_be_a_setting_is_refused_before_it_is_sql() {
    for name in ["", "a b", "a\"b", "1a", "a.", ".a", "x;DROP", "é", &"a".repeat(256)] {
        assert!(Options::default().add(name, b"1").is_err(), "{name}");
    }
    for name in ["statement_timeout", "app.user_id", "_x$1"] {
        assert!(Options::default().add(name, b"1").is_ok(), "{name}");
    }
}

#[test]
fn the_last_value_of_an_option_counts() {
    let twice = options(&[("work_mem", "1MB"), ("WORK_MEM", "2MB")]);
    let none = Params::default();
    let sql = replay(&none, &none, twice.as_ref(), None).unwrap();
    assert_eq!(sql, "SELECT pg_catalog.set_config('work_mem','2MB',false)");
}
