//! The repository keeps its own rules: who may name whom, where each library may be used, and what a file may not hold.
//!
//! The arrows are those of `ARCHITECTURE.md`. Adding one is a change of design: edit that page and this table together.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Top-level modules and what they may name beside themselves.
const ARROWS: &[(&str, &[&str])] = &[
    ("tls", &[]),
    ("config", &["tls"]),
    ("telemetry", &["config"]),
    ("health", &["telemetry", "config"]),
    ("proxy", &["health", "telemetry", "config", "tls"]),
    ("pool", &["health", "telemetry", "config", "tls"]),
    ("admin", &["health", "telemetry", "config"]),
    ("cli", &["config"]),
    ("app", &["admin", "proxy", "pool", "health", "telemetry", "config"]),
    ("main", &["cli", "app"]),
    ("lib", &["admin", "app", "cli", "config", "health", "pool", "proxy", "telemetry", "tls"]),
];

/// Modules that name nothing of the crate but themselves: `(module, what it may name)`.
const PURE: &[(&str, &[&str])] = &[("pool::wire", &["pool::wire"])];

/// Where a library may be used: module prefixes; `*::metrics` is any module of that name.
const CONFINED: &[(&str, &[&str])] = &[
    ("pingora", &["app", "proxy", "admin", "pool::listener"]),
    ("postgres_protocol", &["pool::wire", "pool::auth", "pool::server"]),
    ("tokio_postgres", &["pool::probe", "pool::auth::query"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("x509_cert", &["tls"]),
    ("bb8", &["pool::lease", "pool::probe"]),
    ("prometheus", &["telemetry", "*::metrics"]),
    ("clap", &["cli"]),
    ("serde_yaml", &["config::load"]),
    ("saphyr_parser", &["config::load"]),
];

/// A source file of the crate.
struct Source {
    path: PathBuf,
    /// `pool::wire::frame`; the file of a folder's module has the folder's name.
    module: String,
    /// Without comments, strings and whitespace between tokens that matter.
    code: String,
    /// Unit tests may use libraries freely.
    is_test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    assert!(files.len() > 20, "the walk found only {} files", files.len());
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&src).unwrap().with_extension("");
            let mut parts: Vec<String> =
                relative.iter().map(|part| part.to_string_lossy().into_owned()).filter(|part| part != "mod").collect();
            let is_test = parts.iter().any(|part| part == "tests");
            parts.retain(|part| part != "tests");
            let code = code_only(&fs::read_to_string(&path).unwrap());
            Source { module: parts.join("::"), code, is_test, path }
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// Blanks comments and literals, so that only what is compiled is looked at.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = comment(rest).or_else(|| raw_string(rest, at, bytes)).or_else(|| literal(rest));
        match skip {
            Some(length) => {
                code.push(' ');
                at += length;
            }
            None => {
                let character = rest.chars().next().unwrap();
                code.push(character);
                at += character.len_utf8();
            }
        }
    }
    code
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then(|| rest.find("*/").map_or(rest.len(), |end| end + 2))
}

fn raw_string(rest: &str, at: usize, bytes: &[u8]) -> Option<usize> {
    let in_a_name = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b';
    let body = rest.strip_prefix('r').filter(|_| !in_a_name)?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

fn literal(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        if quote == '\'' && at > 1 && !rest[1..].starts_with('\\') && character != '\'' {
            return None; // A lifetime.
        }
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote && at > 1 || character == '"' && quote == '"' => {
                return Some(at + quote.len_utf8());
            }
            _ => {}
        }
    }
    None
}

/// Returns the paths that follow `prefix::`, groups in braces opened: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn named(code: &str, prefix: &str) -> BTreeSet<String> {
    let needle = format!("{prefix}::");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&needle) {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if !before.is_alphanumeric() && before != '_' && before != ':' {
            tree(&code[at + needle.len()..], "", &mut found);
        }
    }
    found
}

/// Reads one tree of a `use` or path; returns how much of `code` it took.
fn tree(code: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let trimmed = code.trim_start();
    let mut at = code.len() - trimmed.len();
    if trimmed.starts_with('{') {
        at += 1;
        loop {
            at += tree(&code[at..], prefix, found);
            let rest = code[at..].trim_start();
            at = code.len() - rest.len();
            match rest.chars().next() {
                Some(',') => at += 1,
                Some('}') => return at + 1,
                _ => return at,
            }
        }
    }
    let name: String = trimmed.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    at += name.len();
    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
    if code[at..].starts_with("::") && !name.is_empty() {
        return at + 2 + tree(&code[at + 2..], &path, found);
    }
    if !name.is_empty() {
        found.insert(path);
    }
    // `as other` belongs to this leaf.
    let rest = code[at..].trim_start();
    match rest.strip_prefix("as ") {
        Some(alias) => code.len() - alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len(),
        None => at,
    }
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn is_within(module: &str, prefix: &str) -> bool {
    module == prefix || module.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn modules_name_only_what_the_arrows_allow() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut broken = Vec::new();
    for source in sources() {
        let from = first(&source.module);
        let allowed = arrows.get(from).unwrap_or_else(|| panic!("{}: which module is this?", source.path.display()));
        let own = if from == "main" { "bookend" } else { "crate" };
        for path in named(&source.code, own) {
            let to = first(&path);
            if to != from && arrows.contains_key(to) && !allowed.contains(&to) {
                broken.push(format!("{}: {from} must not name {path}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_modules_name_only_themselves() {
    let mut broken = Vec::new();
    for source in sources() {
        for (module, allowed) in PURE.iter().filter(|(module, _)| is_within(&source.module, module)) {
            for path in named(&source.code, "crate") {
                if !allowed.iter().any(|allowed| is_within(&path, allowed)) {
                    broken.push(format!("{}: {module} must not name {path}", source.path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        let code = source.code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (library, places) in CONFINED {
            let at_home = places.iter().any(|place| match place.strip_prefix("*::") {
                Some(name) => source.module.split("::").any(|part| part == name),
                None => is_within(&source.module, place),
            });
            if !at_home && !named(code, library).is_empty() {
                broken.push(format!("{}: {library} belongs to {}", source.path.display(), places.join(", ")));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut silent = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        if !fs::read_to_string(&source.path).unwrap().starts_with("//! ") {
            silent.push(source.path.display().to_string());
        }
    }
    assert!(silent.is_empty(), "no header: {}", silent.join(", "));
}

/// What `docs/pool-behaviour.md` says is shown by a test, and what the head of a test file says so.
#[test]
fn every_test_that_a_table_names_is_there() {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    walk(&root().join("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let tables =
        ["docs/pool-behaviour.md", "tests/pool/auth.rs"].map(|file| fs::read_to_string(root().join(file)).unwrap());
    let rows =
        tables.iter().flat_map(|table| table.lines()).filter(|line| line.trim_start_matches("//! ").starts_with('|'));
    // A test's name is a sentence.
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|name| name.matches('_').count() >= 2);
    let names: BTreeSet<_> = names.filter(|name| !name.contains([':', '.', '/'])).collect();
    let missing: Vec<_> = names.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(names.len() > 100 && missing.is_empty(), "{missing:#?}");
}

#[test]
fn no_file_names_a_path_of_someones_machine() {
    // Spelled so that this file does not find itself.
    let machine = [["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), ["/Us", "ers/"].concat(), ["/wo", "rk/"].concat()];
    let listed =
        Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git lists the files");
    assert!(listed.status.success(), "git: {}", String::from_utf8_lossy(&listed.stderr));
    let mut found = Vec::new();
    for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        // Binary files and files just removed have no text to look at.
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(path) = machine.iter().find(|path| line.contains(path.as_str())) {
                found.push(format!("{name}:{}: {path}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_scanner_sees_paths_and_not_comments() {
    let code = code_only(
        "//! crate::admin\nuse crate::{config::{lb, pool::Pool as P}, health};\n/* crate::app */ fn f<'a>(_: &'a str) \
         { let _ = (\"crate::cli\", '\"', r#\"crate::x\"#, '\\'', b'\"'); crate::telemetry::log::init() }",
    );
    let found: Vec<String> = named(&code, "crate").into_iter().collect();
    assert_eq!(found, ["config::lb", "config::pool::Pool", "health", "telemetry::log::init"]);
    assert!(named("my_crate::a; xcrate::b; a::crate::c", "crate").is_empty());
}
