//! lb.yaml and pool.yaml at the root: runnable as they are, and the whole reference of keys.
//!
//! A key that is commented out stands there as `#key: default`, without a space; prose has one.

use std::{collections::BTreeSet, sync::LazyLock};

use super::*;

const LB: &str = include_str!("../../../lb.yaml");
const POOL: &str = include_str!("../../../pool.yaml");

/// Takes the `#` off every commented key.
fn uncommented(text: &str) -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        match line[indent..].strip_prefix('#') {
            Some(rest)
                if rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '"') || rest.starts_with("- {") =>
            {
                format!("{}{rest}\n", &line[..indent])
            }
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

/// The front with every key there is. Its certificates are an example, and need to be there.
fn whole_lb() -> String {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
        for (name, text) in [
            ("site.pem", pair.cert.pem()),
            ("site.key", pair.signing_key.serialize_pem()),
            ("clients.pem", pair.cert.pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    });
    uncommented(LB).replace("/etc/bookend/", &format!("{}/", FOLDER.path().display()))
}

/// The pool with every key there is. Peers are an example, and need a process that is one of them.
fn whole_pool() -> String {
    uncommented(POOL).replace("peer_id: 0", "peer_id: 1")
}

/// Returns every key path that the readers asked for while reading `text`, and the errors.
fn asked(text: &str, sections: fn(&Reading<'_>, &Node)) -> (BTreeSet<String>, Vec<String>, Node) {
    let surroundings = surroundings();
    let reading = Reading::new(Path::new("sample.yaml"), &surroundings);
    let tree = load::parse(Path::new("sample.yaml"), text, reading.env(), &mut Vec::new()).unwrap();
    sections(&reading, &tree);
    let (errors, known) = reading.finish();
    (known, errors.iter().map(ToString::to_string).collect(), tree)
}

/// Returns every key path that stands in a tree, in the form the readers ask for it.
fn written(node: &Node, known: &BTreeSet<String>, path: &str, found: &mut BTreeSet<String>) {
    match &node.value {
        node::Value::List(items) => items.iter().for_each(|item| written(item, known, &format!("{path}[]"), found)),
        node::Value::Map(entries) => {
            for (key, node) in entries {
                let named = load::join(path, &key.name);
                let path = if known.contains(&named) { named } else { load::join(path, "*") };
                found.insert(path.clone());
                written(node, known, &path, found);
            }
        }
        node::Value::Null | node::Value::Scalar(_) | node::Value::Broken => {}
    }
}

fn explains_every_key(text: &str, sections: fn(&Reading<'_>, &Node)) {
    let (known, errors, tree) = asked(text, sections);
    assert_eq!(errors, [""; 0]);
    let mut found = BTreeSet::new();
    written(&tree, &known, "", &mut found);
    let missing: Vec<_> = known.difference(&found).collect();
    assert!(missing.is_empty(), "not explained: {missing:?}");
}

#[test]
fn every_key_that_is_read_stands_in_the_sample_files_and_the_other_way_round() {
    explains_every_key(&whole_lb(), |reading, tree| drop(lb::read(reading, tree)));
    explains_every_key(&whole_pool(), |reading, tree| drop(pool::read(reading, tree)));
}

#[test]
fn a_commented_key_stands_there_with_its_default() {
    let config = |lb: &str, pool: &str| load(Some(lb), Some(pool)).unwrap_or_else(|errors| panic!("{errors}"));
    let plain = config(LB, POOL);
    // The fallback database is an example, not a default, and so are the peers.
    let all = uncommented(POOL).replace("  \"*\": { host: 127.0.0.1 }\n", "");
    let (before, rest) = all.split_once("\npeers:").unwrap();
    let all = format!("{before}\n{}", rest.split_once("\n\n").unwrap().1);
    let lb = whole_lb();
    let examples = [
        "    redirect_https: ",
        "  - { address: \"0.0.0.0:8443\"",
        "  tenants: ",
        "    sticky: ",
        "  - { host: www.example.com",
        "  - { host: closed.example.com",
    ];
    let is_example = |line: &str| examples.iter().any(|example| line.starts_with(example));
    let is_header = |line: &str| {
        line.trim_start().starts_with("request_headers:") || line.trim_start().starts_with("response_headers:")
    };
    let defaults = lb.lines().filter(|line| !is_example(line) && !is_header(line));
    assert_eq!(config(&defaults.collect::<Vec<_>>().join("\n"), &all), plain);
}

#[test]
fn every_key_of_the_front_is_printed_and_reads_back_without_the_secret() {
    let read = |text: &str| load(Some(text), Some(POOL)).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let config = read(&whole_lb());
    let printed = print(&config);
    assert!(!printed.contains("0123456789abcdef"), "{printed}");
    let again = read(printed.split_once("---\n").unwrap().0).lb.unwrap();
    let mut expected = (*config.lb.unwrap()).clone();
    for upstream in &mut expected.upstreams {
        upstream.sticky.iter_mut().for_each(|sticky| sticky.secret = None);
    }
    assert_eq!(*again, expected);
}

#[test]
fn the_sample_files_are_what_the_demo_counts_on() {
    let config = load(Some(LB), Some(POOL)).unwrap_or_else(|errors| panic!("{errors}"));
    let (lb, pool) = (config.lb.unwrap(), config.pool.unwrap());
    assert_eq!(config.admin.unwrap().address.to_string(), "127.0.0.1:9180");
    assert_eq!(lb.listeners[0].address.to_string(), "0.0.0.0:8080");
    let lb::Servers::Own(servers) = &lb.upstreams[0].servers else { panic!() };
    let servers: Vec<_> = servers.iter().map(|s| (&*s.name, s.address.to_string(), s.backup)).collect();
    let expected = [("web-1", 8001), ("web-2", 8002), ("web-3", 8003)];
    assert_eq!(servers, expected.map(|(name, port)| (name, format!("127.0.0.1:{port}"), false)));
    assert_eq!(pool.listen.addresses[0].to_string(), "127.0.0.1:6432");
    let names: Vec<_> = pool.databases.iter().map(|database| &*database.name).collect();
    assert_eq!(names, ["arena_db", "arena_db_read"]);
    assert_eq!((pool.users[0].name.as_str(), pool.databases[0].port), ("arena_user", 5432));
}

#[test]
fn the_sample_pool_cannot_run_without_its_password() {
    let surroundings = Surroundings::new(|_| None, |_, _| Ok(Vec::new()));
    let errors = lines(Config::from_texts(None, Some(POOL), &surroundings));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("users.arena_user.password: environment variable DB_PASSWORD is not set"), "{errors:?}");
}
