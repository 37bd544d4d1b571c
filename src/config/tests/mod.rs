//! Whole files in, a configuration or every error out.

mod bad_files;
mod bad_front;
mod cross_checks;
mod environment;
mod good_files;
mod listening;
mod peers;
mod sample_files;
mod tls_files;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

/// `web` has two addresses, `silent` never answers, nothing else exists. `DB_PASSWORD` is the only secret there is.
fn surroundings() -> Surroundings {
    let env = |name: &str| match name {
        "DB_PASSWORD" => Some("hunter2".to_owned()),
        "PORT" => Some("6000".to_owned()),
        _ => None,
    };
    let resolve = |host: &str, _: Duration| match host {
        "web" => Ok(vec![IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::new(10, 0, 0, 7))]),
        "silent" => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        _ => Err(io::Error::other("unknown host")),
    };
    Surroundings::new(env, resolve)
}

/// Loads texts as if they stood in `lb.yaml` and `pool.yaml`.
fn load(lb: Option<&str>, pool: Option<&str>) -> Result<Config, Errors> {
    Config::from_texts(lb, pool, &surroundings())
}

fn load_lb(text: &str) -> lb::Lb {
    let config = load(Some(text), None).unwrap_or_else(|errors| panic!("{errors}"));
    lb::Lb::clone(&config.lb.unwrap())
}

fn load_pool(text: &str) -> pool::Pool {
    let config = load(None, Some(text)).unwrap_or_else(|errors| panic!("{errors}"));
    pool::Pool::clone(&config.pool.unwrap())
}

/// Returns the error lines of a front's file.
fn lb_errors(text: &str) -> Vec<String> {
    lines(load(Some(text), None))
}

fn pool_errors(text: &str) -> Vec<String> {
    lines(load(None, Some(text)))
}

fn lines(loaded: Result<Config, Errors>) -> Vec<String> {
    loaded.err().map_or_else(Vec::new, |errors| errors.iter().map(ToString::to_string).collect())
}

/// A front that is right, to break one thing of.
const FRONT: &str = "\
listeners: [{ address: 127.0.0.1:8080 }]
upstreams:
  django:
    servers: [{ name: web-1, address: 127.0.0.1:8001 }]
routes:
  - { path_prefix: /, upstream: django }
";

/// A pool that is right, to break one thing of.
const POOL: &str = "\
databases:
  arena_db: { host: 127.0.0.1 }
users:
  arena_user: { password: hunter2 }
";

#[test]
fn with_no_flag_the_files_that_stand_here_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let missing = found_in(dir.path()).unwrap_err().to_string();
    assert_eq!(missing, "there is neither lb.yaml nor pool.yaml here; name one with --lb or --pool");
    std::fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
    let sources = found_in(dir.path()).unwrap();
    assert_eq!(sources, Sources { lb: None, pool: Some(dir.path().join("pool.yaml")) });
    std::fs::write(dir.path().join("lb.yaml"), FRONT).unwrap();
    assert!(found_in(dir.path()).unwrap().lb.is_some());
}

#[test]
fn a_file_that_is_not_there_is_one_error_and_the_other_file_is_still_checked() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool.yaml");
    std::fs::write(&pool, "databases: 5").unwrap();
    let sources = Sources { lb: Some(PathBuf::from("/nowhere/lb.yaml")), pool: Some(pool.clone()) };
    let errors = lines(Config::load(&sources, &surroundings()));
    let pool = pool.display();
    assert_eq!(
        errors,
        [
            "/nowhere/lb.yaml: cannot be read: No such file or directory (os error 2)".to_owned(),
            format!(
                "{pool}:1:1: has nobody who may log in: give users, or pool.auth_file, or pool.auth_user and pool.auth_query"
            ),
            format!("{pool}:1:12: databases: must be a mapping, got 5"),
        ]
    );
}

#[test]
fn a_file_without_end_is_cut_off() {
    let sources = Sources { lb: Some("/dev/zero".into()), pool: None };
    assert_eq!(lines(Config::load(&sources, &surroundings())), ["/dev/zero: is larger than 4MiB"]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = load::utf8(Path::new("lb.yaml"), bytes) {
            let _ = load(Some(&text), Some(&text));
        }
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused(text in "([a-z]{1,3}|[-:,?*&!|>'\"%@`#{}\\[\\] \n\t$]|\\PC){0,60}") {
        let _ = load(Some(&text), Some(&text));
    }

    /// Close to right: what reaches deepest.
    #[test]
    fn the_sample_files_with_any_damage_are_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "([-:,?*&!|>'\"%@`#{}\\[\\]~ \n$0-9a-z]|\\PC){0,4}"), 1..6),
    ) {
        let mut files = [include_str!("../../../lb.yaml").to_owned(), include_str!("../../../pool.yaml").to_owned()];
        for text in &mut files {
            for (index, length, put) in &damage {
                let place = |at: usize| (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
                let start = place(index.index(text.len()));
                let end = place((start + length).min(text.len()));
                text.replace_range(start..end, put);
            }
        }
        if let Ok(config) = load(Some(&files[0]), Some(&files[1])) {
            prop_assert!(!print(&config).contains("hunter2"));
        }
    }

    /// Known keys with wrong values everywhere: the readers themselves.
    #[test]
    fn any_values_of_known_keys_are_read_or_refused(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12),
    ) {
        const KEYS: [&str; 14] = ["listeners", "upstreams", "routes", "admin", "pool", "databases", "users", "probe",
            "shutdown", "access_log", "threads", "trusted_proxies", "client_max_body_size", "nonsense"];
        const VALUES: [&str; 12] = ["5", "~", "x", "[]", "{}", "[{address: a}]", "{a: {servers: [~]}}", "[[[1]]]",
            "{'*': {host: h}}", "-1", "{listen_port: 70000, auth_file: /nowhere}", "99999999999999999999"];
        let line = |(key, value): &(prop::sample::Index, prop::sample::Index)| {
            format!("{}: {}\n", key.get(&KEYS), value.get(&VALUES))
        };
        let text: String = picks.iter().map(line).collect();
        let _ = load(Some(&text), Some(&text));
    }
}

/// What fuzzing starts from, and what it once found, is read in every test run.
#[test]
fn the_fuzzing_corpus_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let errors = [lb_errors(&text), pool_errors(&text), lines(load(Some(&text), Some(&text)))];
        // What is to reach behind the readers must be right.
        match path.file_name().and_then(|name| name.to_str()) {
            Some("front" | "json") => assert_eq!(errors[0], [""; 0]),
            Some("pool") => assert_eq!(errors[1], [""; 0]),
            _ => {}
        }
    }
}
