use proptest::prelude::*;

use super::*;

fn of(text: &str) -> Reading {
    read(text.as_bytes(), hints(text.as_bytes()))
}

fn set(name: &str) -> Vec<Deed> {
    vec![Deed::Set(name.to_owned())]
}

fn reset(name: &str) -> Vec<Deed> {
    vec![Deed::Reset(name.to_owned())]
}

#[test]
fn what_applications_run_gives_no_hint() {
    for text in [
        "SELECT id, name FROM shop_item WHERE id = $1",
        "UPDATE t SET temp = temp + 1, template = 'x' WHERE settled",
        "INSERT INTO temperatures (reset, attempt) VALUES ($1, $2)",
        "select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
        "SELECT proname FROM pg_proc WHERE proname = 'offset_'; COMMIT",
        "BEGIN",
        "",
        ";",
        ";;",
        "/*",
        "--",
        "-- only a comment",
        "WITH declared AS (SELECT 1) SELECT * FROM declared",
        "DECLAREX",
        "settle",
        "doctor",
        "loading",
    ] {
        assert_eq!(hints(text.as_bytes()), Hints::default(), "{text}");
    }
}

#[test]
fn settings_are_named_as_people_and_drivers_write_them() {
    for (text, deeds) in [
        ("SET statement_timeout = '5s'", set("statement_timeout")),
        ("set Statement_Timeout to 5000;", set("statement_timeout")),
        ("/* app:web */ SET work_mem=1", set("work_mem")),
        ("-- why\n  SET\twork_mem TO '1MB'", set("work_mem")),
        ("BEGIN; SET SESSION work_mem = 1; COMMIT", set("work_mem")),
        ("SET app.user_id = '7'", set("app.user_id")),
        ("SET \"app.User\" = '7'", set("app.user")),
        ("SET \"app\".\"tenant\" = '7'", set("app.tenant")),
        ("SET ROLE weak", set("role")),
        ("SET role TO 'weak'", set("role")),
        ("SET role = DEFAULT", reset("role")),
        ("RESET ROLE; SELECT 1", reset("role")),
        ("SET SESSION AUTHORIZATION weak", set("session_authorization")),
        ("SET SESSION SESSION AUTHORIZATION weak", set("session_authorization")),
        ("SET SESSION AUTHORIZATION DEFAULT", reset("session_authorization")),
        ("RESET SESSION AUTHORIZATION", reset("session_authorization")),
        ("SET TIME ZONE 'UTC'", set("timezone")),
        ("SET SESSION TIME ZONE LOCAL", reset("timezone")),
        ("SET NAMES 'latin1'", set("client_encoding")),
        ("SET SCHEMA 'x'", set("search_path")),
        ("SET XML OPTION DOCUMENT", set("xmloption")),
        ("SET search_path TO a, \"B c\"", set("search_path")),
        ("SET search_path = DEFAULT", reset("search_path")),
        ("RESET search_path", reset("search_path")),
        ("SET x = 1; RESET ALL", vec![Deed::Set("x".to_owned()), Deed::ResetAll]),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", set("default_transaction_read_only")),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
            set("default_transaction_isolation"),
        ),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE", set(CHARACTERISTICS)),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION NOT DEFERRABLE", set("default_transaction_deferrable")),
    ] {
        let reading = of(text);
        assert_eq!(reading.deeds, deeds, "{text}");
        let sets = if text.contains("RESET ALL") { 2 } else { 1 };
        assert_eq!(reading.sets, sets, "{text}");
    }
}

#[test]
fn a_word_that_counts_is_found_wherever_it_stands() {
    for at in 0..70 {
        for word in ["set_config", "advisory", "TEMP"] {
            for end in ["", ";", " where true; \n"] {
                let text = format!("{}{word}{end}", "x".repeat(at));
                assert!(is_suspect(text.as_bytes()), "{text}");
            }
        }
        let text = format!("{};{}", "x".repeat(at), "y".repeat(70 - at + 1));
        assert!(is_suspect(text.as_bytes()), "{text}");
    }
    assert!(!is_suspect(b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;"));
}

#[test]
fn what_ends_with_its_transaction_is_counted_and_not_kept() {
    for text in [
        "SET LOCAL statement_timeout = 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET transaction_read_only = on",
        "SET seed TO 0.5",
        "SET LOCAL ROLE weak",
    ] {
        let reading = of(text);
        assert_eq!((reading.sets, reading.deeds), (1, vec![]), "{text}");
    }
    assert_eq!(of("SET CONSTRAINTS ALL DEFERRED").sets, 0, "its tag is another");
}

#[test]
fn statements_are_told_apart_where_the_server_tells_them_apart() {
    for (text, sets) in [
        ("SELECT 'a; SET b = 1'", 0),
        ("SELECT $$; SET b = 1$$, $x$ ; SET c = 1 $$ $x$; SET d = 1", 1),
        ("SELECT E'\\'; SET b = 1'; SET c = 2", 1),
        ("SELECT \"; SET b = 1\"; RESET c", 1),
        ("/* ; SET a = 1 /* nested */ ; SET b = 1 */ SET c = 1", 1),
        ("-- ; SET a = 1\nSET b = 1; SET c = 2 -- ; SET d = 3", 2),
        ("SET a = 'x;y'; SET b = $$;$$", 2),
        ("SELECT 'it''s; SET a = 1'; SET b = 1", 1),
    ] {
        assert_eq!(of(text).sets, sets, "{text}");
    }
}

#[test]
fn calls_of_set_config_are_read_as_far_as_they_can_be() {
    let calls = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (text, names, unknown) in [
        ("SELECT set_config('app.user', $1, false)", calls(&["app.user"]), false),
        ("SELECT pg_catalog.SET_CONFIG( 'Work_Mem','1MB',$2)", calls(&["work_mem"]), false),
        ("SELECT set_config('search_path'::text, '', false)", calls(&["search_path"]), false),
        ("SELECT \"set_config\"('a','b',false), set_config('c','d',false)", calls(&["a", "c"]), false),
        ("SELECT set_config('a', coalesce(f(1,2), 'x,y'), true)", calls(&[]), false),
        ("SELECT set_config($1, $2, true)", calls(&[]), false),
        ("SELECT set_config($1, $2, false)", calls(&[]), true),
        ("SELECT set_config($1, $2, $3)", calls(&[]), true),
        ("SELECT set_config('a' || $1, 'b', false)", calls(&[]), true),
        ("SELECT set_config('a", calls(&["a"]), false),
        ("SELECT proname = 'set_config' FROM pg_proc", calls(&[]), false),
        ("DO $$ BEGIN PERFORM set_config('a', 'b', false); SET b = 1; END $$", calls(&["a", "b"]), false),
        ("CREATE OR REPLACE FUNCTION f() RETURNS text AS $$ SELECT set_config($1,$2,false) $$", calls(&[]), false),
        ("UPDATE pg_settings SET setting = '9MB' WHERE name = 'work_mem'", calls(&[]), true),
        ("SELECT 1; update only pg_catalog.pg_settings set setting = '1'", calls(&[]), true),
        ("UPDATE pg_settings_of_ours SET setting = '9MB'", calls(&[]), false),
        ("CREATE FUNCTION f() RETURNS int AS '' ; SELECT set_config('a', 'b', false)", calls(&["a"]), false),
        ("DO $$ BEGIN EXECUTE 'SET a = 1; SELECT 2'; RAISE NOTICE 'Set %', 1; END $$", calls(&["a"]), false),
        ("DO $$ BEGIN EXECUTE format('SET app.b = %L', x); END $$", calls(&["app.b"]), false),
        ("DO $$ BEGIN EXECUTE format('SET %I = %L', x, y); END $$", calls(&[]), true),
        ("DO $$ BEGIN EXECUTE 'SET LOCAL a = 1'; EXECUTE 'UPDATE t SET a = 1'; END $$", calls(&[]), false),
    ] {
        let reading = of(text);
        assert_eq!((reading.calls, reading.unknown), (names, unknown), "{text}");
    }
}

#[test]
fn what_makes_something_that_stays_is_suspected() {
    for text in [
        "CREATE TEMP TABLE t (id int)",
        "create temporary view v as select 1",
        "CREATE GLOBAL TEMPORARY TABLE t (id int)",
        "SELECT 1 AS x INTO TEMP t",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE /* why */ TEMP TABLE t ()",
        "CREATE -- why\n  TEMP TABLE t ()",
        "CREATE TABLE pg_temp.t ()",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DO 'BEGIN CREATE TEMP TABLE t (id int); END'",
    ] {
        assert!(of(text).temp, "{text}");
    }
    for text in ["SELECT temp FROM t", "CREATE TABLE temp (id int)", "DROP TABLE template", "SELECT 'temporary'"] {
        assert!(!of(text).temp, "{text}");
    }
    assert!(of("DECLARE \"c\" NO SCROLL CURSOR WITH HOLD FOR SELECT 1").hold);
    assert!(!of("DECLARE c CURSOR FOR SELECT hold FROM t WITH HOLD").hold);
    assert!(!of("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1").hold);
    assert!(of("SELECT pg_try_advisory_lock(7)").lock && !of("SELECT pg_try_advisory_lock(7)").unlock);
    assert!(of("SELECT PG_ADVISORY_UNLOCK_ALL()").unlock);
    assert!(of("SELECT pg_advisory_lock_shared(1,2)").lock);
}

#[test]
fn deallocate_names_one_statement_or_is_left_alone() {
    let name = |text: &str| deallocated(text.as_bytes()).map(|name| String::from_utf8(name).unwrap());
    assert_eq!(name("DEALLOCATE \"_pg3_0\"\0").as_deref(), Some("_pg3_0"));
    assert_eq!(name("deallocate PREPARE Abc ;").as_deref(), Some("abc"));
    assert_eq!(name("DEALLOCATE prepare").as_deref(), Some("prepare"));
    assert_eq!(name("DEALLOCATE \"a\"\"b\"").as_deref(), Some("a\"b"));
    for text in ["DEALLOCATE ALL", "DEALLOCATE a; SELECT 1", "DEALLOCATE", "DEALLOCATE PREPARE ALL", "SELECT 1"] {
        assert_eq!(name(text), None, "{text}");
    }
}

/// Each of these took minutes of a thread that relays when it was read anew from each of its words.
#[test]
fn a_text_made_to_be_read_over_and_over_is_read_about_once() {
    let begun = std::time::Instant::now();
    for piece in [
        "temp",
        "pg_temp",
        " temp",
        ";/*",
        "; --",
        "/*;",
        "set_config(",
        "set_config('",
        "set_config($a$",
        "$a$ $b$ ",
        "a.",
        "SET a=1;",
        "'x' ",
        "DO $a$ SET b",
        "DECLARE ",
    ] {
        for start in ["", "SET ", "DO "] {
            let text = format!("{start}{}", piece.repeat((1 << 18) / piece.len()));
            of(&text);
            read(text.as_bytes(), Hints::ALL);
            deallocated(text.as_bytes());
            masked(text.as_bytes());
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{start}{piece}{piece}…");
        }
    }
}

#[test]
fn what_stands_behind_comments_full_of_semicolons_is_still_seen() {
    let text = format!("{}*/*/; SET statement_timeout = 1", ";/*".repeat(40));
    assert!(hints(text.as_bytes()).contains(Hints::SET));
    let many_calls = "SELECT set_config('a.b', 'c', false),".repeat(80);
    assert!(of(&many_calls).unknown);
}

#[test]
fn the_log_gets_no_literal() {
    for (text, shown) in [
        ("SELECT pg_advisory_lock(42, 'x')", "SELECT pg_advisory_lock(?, ?)"),
        ("SET app.token = abc123 ; LISTEN c", "SET app.token = ?; LISTEN c"),
        ("set x to secret, secrets", "set x to ?"),
        ("/* token=s3cret */ LISTEN \"Chan\" -- s3cret", "LISTEN Chan"),
        ("CREATE TEMP TABLE t AS SELECT $$s3cret$$, E'a\\'b', -1.5e3", "CREATE TEMP TABLE t AS SELECT ?, ?, - ?"),
        ("SELECT 'never ended", "SELECT ?"),
    ] {
        assert_eq!(masked(text.as_bytes()), shown);
    }
    let long = masked("SELECT äöü ".repeat(50).as_bytes());
    assert!(long.len() <= 100 && long.ends_with('…'), "{long}");
}

proptest! {
    #[test]
    fn a_text_that_is_not_suspect_says_nothing_behind_its_first_word(
        before in "[a-zA-Z_ ;\\n]{0,40}",
        word in proptest::sample::select(vec!["set_config(", "SeT_", "advisory", "temp", "TEMPORARY", ";", "; SET a = 1", ""]),
        after in "[a-z ;\\x00]{0,40}",
    ) {
        let text = [before, word.to_owned(), after].concat();
        prop_assert!(is_suspect(text.as_bytes()) || behind(text.as_bytes(), 0).is_empty(), "{text:?}");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let all = Hints(u16::MAX);
        read(&text, all);
        read(&text, hints(&text));
        deallocated(&text);
        prop_assert!(masked(&text).len() <= 120);
    }

    #[test]
    fn sql_like_texts_are_read_without_a_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "SET", "RESET", "ALL", "=", "TO", "a", ".", "'x'", "$$", ";", "--", "\n", "/*", "*/", "\"", "'", "(", ")", ",",
            "set_config", "DO", "DECLARE", "WITH", "HOLD", "LOCAL", "SESSION", "AUTHORIZATION", "DEFAULT", "DEALLOCATE", "E'",
            "\\", "$1", "TEMP", "CREATE",
        ]), 0..12),
    ) {
        let text = words.join(" ");
        of(&text);
        deallocated(text.as_bytes());
        masked(text.as_bytes());
    }

    /// Whatever stands around it, a literal's content is not shown.
    #[test]
    fn a_secret_is_not_shown(before in "[a-zA-Z =,;(]{0,20}", secret in "[a-z]{6,12}") {
        let text = format!("{before} 'zq{secret}' x");
        let hidden = format!("zq{secret}");
        prop_assert!(!masked(text.as_bytes()).contains(&hidden));
    }
}

#[test]
fn a_do_is_read_for_what_no_tag_will_tell() {
    let within = |text: &str| of(text).within;
    let does = Within::default;
    for (text, expected) in [
        ("DO $$ BEGIN PREPARE p AS SELECT 1; END $$", Within { prepares: true, ..does() }),
        ("DO LANGUAGE 'plpgsql' $$ BEGIN LISTEN a; END $$", Within { listens: true, ..does() }),
        ("do 'begin load ''x''; end' language \"plpgsql\"", Within { loads: true, ..does() }),
        ("DO $$ BEGIN IF a THEN DEALLOCATE p; END IF; END $$", Within { frees: true, ..does() }),
        ("DO $$ BEGIN EXECUTE 'DISCARD PLANS'; END $$", Within { frees: true, ..does() }),
        ("DO $$ BEGIN EXECUTE it; END $$", Within { hidden: true, ..does() }),
        ("DO $$ BEGIN EXECUTE (SELECT it); END $$", Within { hidden: true, ..does() }),
        ("DO $$ BEGIN EXECUTE format(it, 1); END $$", Within { hidden: true, ..does() }),
        ("DO $$ BEGIN EXECUTE format('%s', it); END $$", Within { hidden: true, ..does() }),
        ("DO $$ BEGIN EXECUTE format('ALTER TABLE %I ADD x int', it); END $$", does()),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE ' || it; GRANT EXECUTE ON FUNCTION f() TO a; END $$", does()),
        ("DO $$ BEGIN CREATE TRIGGER t BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION f(); END $$", does()),
        ("DO $$ DECLARE a int; load int := 1; BEGIN load := a; END $$", does()),
        ("DO $$ BEGIN NULL; END $$; LISTEN a", does()),
    ] {
        assert_eq!(within(text), expected, "{text}");
    }
    assert!(of("DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'; END $$").hold);
    assert!(of("DO $$ BEGIN UPDATE pg_settings SET setting = 1; END $$").unknown);
}

#[test]
fn a_prepare_that_sets_is_told_from_others() {
    for (text, sets) in [
        ("PREPARE p AS SELECT set_config('a', $1, false)", true),
        ("PREPARE p AS SELECT set_config($1, $2, false)", true),
        ("PREPARE p AS SELECT set_config('a', $1, true)", false),
        ("PREPARE p AS SELECT 'set_config'", false),
        ("SELECT set_config('a', 'b', false)", false),
    ] {
        assert_eq!(of(text).prepares_set, sets, "{text}");
    }
}

#[test]
fn the_database_that_a_statement_wants_to_itself_is_read() {
    let of = |text: &str| wanted_alone(text.as_bytes()).map(|name| String::from_utf8(name).unwrap());
    for (text, name) in [
        ("DROP DATABASE Test", Some("test")),
        ("drop /* old */ database if exists \"Te\"\"st\" WITH (force);", Some("Te\"st")),
        ("ALTER DATABASE a RENAME TO b", Some("a")),
        ("ALTER DATABASE a SET work_mem = 1", None),
        ("CREATE DATABASE b TEMPLATE a", Some("a")),
        ("CREATE DATABASE b WITH OWNER = me TEMPLATE = \"A\" ENCODING 'UTF8'", Some("A")),
        ("CREATE DATABASE b", None),
        ("DROP DATABASE", None),
    ] {
        assert!(hints(text.as_bytes()).contains(Hints::DATABASE), "{text}");
        assert_eq!(of(text).as_deref(), name, "{text}");
    }
    assert!(hints(b"DROP TABLE database").is_empty() && hints(b"CREATE TABLE t ()").is_empty());
}
