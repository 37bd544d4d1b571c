//! Whole inis: those of real life, and what is wrong with others.

use std::{fs, net::IpAddr, path::PathBuf};

use proptest::prelude::*;

use super::settings::SETTINGS;
use crate::config::{
    Config, Surroundings, import,
    lb::Sources,
    pool::{AuthType, Pool, PoolMode},
    print,
};

const SAMPLES: [&str; 4] = ["debian", "container", "tuned", "includes"];

fn sample(name: &str) -> PathBuf {
    PathBuf::from(format!("tests/data/pgbouncer/{name}.ini"))
}

fn surroundings() -> Surroundings {
    Surroundings::new(|_| Some("from the environment".into()), |_, _| Ok(vec![IpAddr::from([127, 0, 0, 1])]))
}

fn load_file(path: PathBuf) -> Result<Config, Vec<String>> {
    let sources = Sources { lb: None, pool: Some(path) };
    Config::load(&sources, &surroundings()).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn load(text: &str) -> Result<Config, Vec<String>> {
    Config::from_texts(None, Some(text), &surroundings())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn loaded(name: &str) -> Config {
    load_file(sample(name)).unwrap_or_else(|errors| panic!("{}", errors.join("\n")))
}

fn pool(text: &str) -> Pool {
    let config = load(text).unwrap_or_else(|errors| panic!("{}", errors.join("\n")));
    Pool::clone(&config.pool.unwrap())
}

fn errors(text: &str) -> Vec<String> {
    load(text).err().unwrap_or_default()
}

/// Right as it is, to add a line to.
const INI: &str = "[databases]\nshop = host=10.0.0.5\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\n";

#[test]
fn a_fresh_installation_runs() {
    let config = loaded("debian");
    let pool = config.pool.unwrap();
    assert_eq!((pool.auth_type, pool.pool_mode, pool.max_client_conn), (AuthType::Md5, PoolMode::Session, 100));
    let users: Vec<_> = pool.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["app", "reports", "ops", "batch"]);
    assert_eq!((&*pool.databases[0].name, pool.databases[0].port), ("shop", 5432));
}

#[test]
fn what_an_entry_point_wrote_runs_and_says_what_has_no_effect() {
    let config = loaded("container");
    let pool = config.pool.unwrap();
    assert_eq!((pool.auth_type, pool.pool_mode), (AuthType::Trust, PoolMode::Transaction), "the last one counts");
    assert_eq!(pool.ignore_startup_parameters, ["extra_float_digits", "options", "search_path"]);
    assert_eq!(pool.admin_users, ["ops"]);
    assert!(config.notes.iter().any(|note| note.contains("somebody_else")), "{:?}", config.notes);
    let idle = config.notes.iter().find(|note| note.contains("no effect here")).unwrap();
    assert!(idle.contains("pkt_buf") && !idle.contains("pool_mode"), "{idle}");
}

#[test]
fn numbers_and_quotes_are_read_as_pgbouncer_reads_them() {
    let config = loaded("tuned");
    let pool = config.pool.as_ref().unwrap();
    let database = |name: &str| pool.databases.iter().find(|database| &*database.name == name).unwrap();
    assert_eq!((database("shop").dbname.as_deref(), database("shop").pool_size), (Some("shop production"), Some(30)));
    assert_eq!((database("shop_ro").reserve_pool_size, database("shop_ro").host.as_str()), (Some(5), "10.0.0.7"));
    let password = database("with blank").password.as_ref().map(|password| password.expose());
    assert_eq!(password, Some("it's # not; a comment"));
    assert_eq!(database("nobodys").password, None);
    assert_eq!((database("twice").host.as_str(), database("twice").min_pool_size), ("10.0.0.2", Some(99)));
    let user = |name: &str| pool.users.iter().find(|user| user.name == name);
    assert_eq!(
        user("batch").map(|user| (user.pool_size, user.pool_mode)),
        Some((Some(5), Some(PoolMode::Transaction)))
    );
    assert!(user("stranger").is_none(), "no password of it is known");
    assert_eq!(pool.max_client_conn, 1024);
    let ms = |time: Option<std::time::Duration>| time.map(|time| time.as_millis());
    assert_eq!(ms(pool.reserve_pool_timeout), Some(500));
    assert_eq!(pool.server_lifetime, std::time::Duration::ZERO, "one use");
    assert_eq!(ms(pool.server_idle_timeout), Some(100_000));
    assert_eq!(ms(pool.idle_transaction_timeout), Some(300_000));
    assert_eq!(ms(pool.query_timeout), Some(250));
    assert_eq!(config.admin.as_ref().unwrap().address.port(), 9999);
    assert_eq!(config.shutdown.grace_period.as_secs(), 60);
}

#[test]
fn an_included_file_goes_on_with_the_section_and_leaves_its_own() {
    let pool = loaded("includes").pool.unwrap();
    assert_eq!((pool.auth_type, pool.pool_mode), (AuthType::ScramSha256, PoolMode::Transaction));
    let names: Vec<_> = pool.databases.iter().map(|database| &*database.name).collect();
    assert_eq!(names, ["shop", "archive"]);
}

#[test]
fn what_is_left_out_has_pgbouncers_default() {
    let pool = pool(INI);
    assert_eq!((pool.pool_mode, pool.max_client_conn, pool.default_pool_size), (PoolMode::Session, 100, 20));
    let unsaid = INI.replace("auth_type = trust\n", "");
    assert_eq!(self::pool(&unsaid).auth_type, AuthType::Md5);
}

#[test]
fn every_setting_of_pgbouncer_is_taken_with_its_default() {
    let mut text = INI.replace("listen_addr = 127.0.0.1\n", "").replace("auth_type = trust\n", "");
    // `verbose` has none.
    for setting in SETTINGS.iter().filter(|setting| setting.name != "verbose") {
        let value = if setting.name == "listen_addr" { "127.0.0.1" } else { setting.default };
        text.push_str(&format!("{} = {value}\n", setting.name));
    }
    assert_eq!(errors(&text), [""; 0]);
}

#[test]
fn a_second_section_of_settings_begins_from_the_defaults() {
    let text = format!(
        "{INI}max_client_conn = 500\npool_mode = transaction\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\n"
    );
    let config = load(&text).unwrap();
    assert_eq!(config.pool.unwrap().max_client_conn, 100);
    assert!(config.notes[0].starts_with("a second [pgbouncer]"), "{:?}", config.notes);
}

#[test]
fn variables_of_the_environment_are_no_part_of_an_ini() {
    let pool = pool(&INI.replace("10.0.0.5", "10.0.0.5 user=app password=${HOME}"));
    assert_eq!(pool.databases[0].password.as_ref().unwrap().expose(), "${HOME}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let text = "\
[databases]
; a comment
shop = host=10.0.0.5 pool_size=many
sho p = host=x
broken = host=10.0.0.5 password='hunter2
bare = host=hunter2=hunter2 port
[nonsense]
ignored = 1
[pgbouncer]
listen_addr = 127.0.0.1
auth_type = trust
max_client_con = 5
pool_mode = sesion
query_timeout = soon
client_tls_ciphers = HIGH:!aNULL
conffile = /etc/other.ini
%include /nowhere.ini
[users";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pool.yaml"), text).unwrap();
    let found = load_file(dir.path().join("pool.yaml")).unwrap_err();
    let found: Vec<_> = found.iter().map(|line| line.replace(&format!("{}/", dir.path().display()), "")).collect();
    let expected = [
        "pool.yaml:3:32: databases.shop.pool_size: must be ",
        "pool.yaml:4:1: must be a section, a comment, or a key with = and a value",
        "pool.yaml:5:33: a quote is never closed",
        "pool.yaml:6:29: must be key=value pairs with white space between",
        "pool.yaml:7:1: unknown section [nonsense]",
        "pool.yaml:12:1: max_client_con: unknown key (did you mean max_client_conn?)",
        "pool.yaml:13:13: pool_mode: must be transaction or session",
        "pool.yaml:14:17: query_timeout: must be a duration",
        "pool.yaml:15:1: client_tls_ciphers: is not offered (rustls's suites",
        "pool.yaml:16:1: conffile: is not offered (the file of the command line",
        "pool.yaml:17:1: /nowhere.ini cannot be read",
        "pool.yaml:18:1: a section must end with ]",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} / {expected}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn an_error_in_an_included_file_has_that_files_name() {
    let dir = tempfile::tempdir().unwrap();
    let (main, part) = (dir.path().join("main.ini"), dir.path().join("part.ini"));
    fs::write(&part, "\n  default_pool_size = x\n").unwrap();
    fs::write(&main, format!("{INI}%include {}\nmin_pool_size = y\n", part.display())).unwrap();
    let found = load_file(main.clone()).unwrap_err();
    assert!(
        found.iter().any(|line| line.starts_with(&format!("{}:2:23: default_pool_size: ", part.display()))),
        "{found:?}"
    );
    assert!(
        found.iter().any(|line| line.starts_with(&format!("{}:7:17: min_pool_size: ", main.display()))),
        "{found:?}"
    );
}

#[test]
fn what_stands_before_the_first_section_belongs_to_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgbouncer.ini");
    fs::write(&path, format!("pool_mode = session\n{INI}")).unwrap();
    let found = load_file(path.clone()).unwrap_err();
    assert_eq!(found, [format!("{}:1:1: stands before the first section", path.display())]);
}

#[test]
fn files_that_include_each_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.ini"), dir.path().join("two.ini"));
    fs::write(&one, format!("{INI}%include {}\n", two.display())).unwrap();
    fs::write(&two, format!("%include {}\n", one.display())).unwrap();
    let found = load_file(one).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("would include itself"), "{found:?}");

    let many = dir.path().join("many.ini");
    fs::write(&two, "").unwrap();
    fs::write(&many, INI.to_owned() + &format!("%include {}\n", two.display()).repeat(100)).unwrap();
    let found = load_file(many).unwrap_err();
    assert!(found.iter().all(|line| line.contains("may consist of 64")) && found.len() == 37, "{found:?}");
}

#[test]
fn a_file_without_settings_is_refused_as_pgbouncer_does() {
    assert_eq!(errors("[databases]\nshop = host=h\n"), ["pool.yaml: has no section [pgbouncer]"]);
}

#[test]
fn the_reset_query_is_taken_as_it_is_and_nothing_is_none() {
    for (query, read) in [("", ""), ("DISCARD ALL;", "DISCARD ALL;"), ("SELECT my_cleanup()", "SELECT my_cleanup()")] {
        assert_eq!(pool(&format!("{INI}server_reset_query = {query}\n")).sessions.reset_query, read);
    }
    assert_eq!(pool(INI).sessions, crate::config::pool::Sessions::default());
}

#[test]
fn the_defaults_are_those_of_a_running_pgbouncer() {
    let recorded = include_str!("../../../tests/data/pgbouncer/config.tsv");
    let recorded: Vec<Vec<&str>> = recorded.lines().map(|line| line.split('\t').collect()).collect();
    let own: Vec<Vec<&str>> = SETTINGS
        .iter()
        .map(|setting| vec![setting.name, setting.default, if setting.changeable { "yes" } else { "no" }])
        .collect();
    assert_eq!(own, recorded);
}

#[test]
fn what_is_imported_means_the_same() {
    for name in SAMPLES {
        let ini = loaded(name);
        let yaml = import(&sample(name), &surroundings()).unwrap_or_else(|errors| panic!("{errors}"));
        let imported = load(&yaml).unwrap_or_else(|errors| panic!("{name}: {}\n{yaml}", errors.join("\n")));
        assert_eq!(print(&imported), print(&ini), "{name}:\n{yaml}");
    }
}

#[test]
fn an_import_says_what_is_left_out_and_which_defaults_count() {
    let yaml = import(&sample("container"), &surroundings()).unwrap();
    assert!(yaml.contains("# left out: pkt_buf, it has no effect here: "), "{yaml}");
    assert!(yaml.contains("somebody_else"), "{yaml}");
    let yaml = import(&sample("includes"), &surroundings()).unwrap();
    assert!(yaml.contains("  # PgBouncer's default\n  max_client_conn: 100\n"), "{yaml}");
    assert!(!yaml.contains("default_pool_size"), "the same by default: {yaml}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgbouncer.ini");
    let ini = INI.replace("10.0.0.5", "10.0.0.5 user=app password=a${HOME}");
    fs::write(&path, ini + "auth_file = tests/data/pgbouncer/userlist.txt\n").unwrap();
    let yaml = import(&path, &surroundings()).unwrap();
    let config = load(&yaml).unwrap_or_else(|errors| panic!("{}", errors.join("\n")));
    assert_eq!(config.pool.unwrap().databases[0].password.as_ref().unwrap().expose(), "a${HOME}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(\\[(databases|users|peers|pgbouncer|bookend|x)\\]|%include x|[a-z*]{1,3} ?= ?|[;#'\"\\]= \n]|host=h|\\PC){0,60}") {
        let _ = load(&format!("[pgbouncer]\n{text}"));
    }

    #[test]
    fn a_sample_with_any_damage_is_read_or_refused(
        which in 0..SAMPLES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "([\\[\\]=;#%'\" \n0-9a-z]|\\PC){0,4}"), 1..6),
    ) {
        let mut text = fs::read_to_string(sample(SAMPLES[which])).unwrap();
        for (index, length, put) in &damage {
            let place = |at: usize| (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            let start = place(index.index(text.len()));
            let end = place((start + length).min(text.len()));
            text.replace_range(start..end, put);
        }
        let _ = load(&format!("[pgbouncer]\n{text}"));
    }
}
