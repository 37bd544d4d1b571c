//! What `docs/pool.md` calls "same" or "better" is held by a test. `docs/pool.tests.tsv` says by which: the heading, the name as
//! the table has it, the test, and the word of the test's text that shows what it is about (the name, if none is given).
//!
//! A row that is added or changed to "same" needs a line there; a line whose row has gone is an error, and so is a test that is
//! not there, is ignored, or does not speak of the thing. Columns of SHOW are looked for in what a real PgBouncer answered,
//! which the console is compared with, and in the test that compares values.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Where the names and orders of all columns are compared with PgBouncer's.
const COLUMNS_TEST: &str = "src/pool/console/tests/show::every_table_has_pgbouncers_columns_and_every_list_its_rows";
/// Where values are compared with those PgBouncer showed.
const VALUES: &str = "tests/pool/shows.rs";

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A name in a row of a table that says "same" or "better", with the heading it stands under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    heading: String,
    name: String,
}

/// Returns what the tables of a page claim. A heading is `## Heading` or `**SHOW THIS**`.
fn claims(page: &str) -> BTreeSet<Claim> {
    let mut claims = BTreeSet::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')) {
            title.clone_into(&mut heading);
        }
        if let Some(bold) = line.strip_prefix("**") {
            // `**SHOW CLIENTS**, **SHOW SERVERS**. Connections …`
            let shows = bold.split("**").step_by(2).filter(|part| part.starts_with("SHOW "));
            let shows: Vec<_> = shows.collect();
            if !shows.is_empty() {
                heading = shows.join(", ");
            }
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, names, verdict, ..] = &cells[..] else { continue };
        if !["same", "better"].iter().any(|word| verdict.starts_with(word)) {
            continue;
        }
        let claim = |name: &str| Claim { heading: heading.clone(), name: name.to_owned() };
        match spelled(names) {
            quoted if quoted.is_empty() => claims.extend([claim(names)]),
            quoted => claims.extend(quoted.iter().map(|name| claim(name))),
        }
    }
    claims
}

/// Returns the words between backticks; after `total_` and `avg_` of, each with both beginnings.
fn spelled(cell: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in cell.split(';') {
        let quoted: Vec<&str> = part.split('`').skip(1).step_by(2).collect();
        match &quoted[..] {
            ["total_", "avg_", names @ ..] => {
                words.extend(names.iter().flat_map(|name| [format!("total_{name}"), format!("avg_{name}")]));
            }
            names => words.extend(names.iter().map(|name| (*name).to_owned())),
        }
    }
    words
}

/// Returns the text of a test, `path::name`; what is wrong with it otherwise.
fn test_text(test: &str) -> Result<String, String> {
    let (file, name) = test.rsplit_once("::").ok_or("not a path and a name")?;
    let path = PathBuf::from(format!("{file}.rs"));
    if path.starts_with("src/config") {
        return Err("a test of reading the setting is not one of what it does".into());
    }
    let text = read(&path);
    let begins = format!("fn {name}(");
    let at = text.find(&begins).ok_or("no such test")?;
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let attributes: Vec<&str> = text[..line].lines().rev().take_while(|line| !line.trim().is_empty()).collect();
    if !attributes.iter().any(|line| line.contains("#[test]") || line.contains("#[tokio::test")) {
        return Err("not a test".into());
    }
    if attributes.iter().any(|line| line.contains("#[ignore")) {
        return Err("is ignored".into());
    }
    let body = &text[at..];
    // What rustfmt leaves at the beginning of a line ends the function that stands there, or in a module of tests.
    let indent: String = text[line..].chars().take_while(|char| *char == ' ').collect();
    let end = body.find(&format!("\n{indent}}}\n")).unwrap_or(body.len());
    Ok(body[..end].to_owned())
}

#[test]
fn whatever_is_called_same_or_better_is_held_by_a_test() {
    let claimed: BTreeSet<_> =
        claims(&read("docs/pool.md")).into_iter().filter(|claim| !claim.heading.starts_with("SHOW ")).collect();
    assert!(claimed.len() > 100, "the tables were not understood: {claimed:?}");
    let mut held = BTreeSet::new();
    let mut wrong = Vec::new();
    let map = read("docs/pool.tests.tsv");
    for (number, line) in map.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [heading, name, test, word @ ..] = &fields[..] else {
            wrong.push(format!("docs/pool.tests.tsv:{}: heading, name, test, word", number + 1));
            continue;
        };
        let claim = Claim { heading: (*heading).to_owned(), name: (*name).to_owned() };
        if !claimed.contains(&claim) {
            wrong.push(format!("{heading}: {name} is not called same or better in docs/pool.md: take its line away"));
        }
        let word = word.first().copied().unwrap_or_else(|| name.split(' ').next().unwrap_or(name));
        match test_text(test) {
            Ok(text) if text.contains(word) => _ = held.insert(claim),
            Ok(_) => wrong.push(format!("{heading}: {name}: {test} does not speak of {word}")),
            Err(error) => wrong.push(format!("{heading}: {name}: {test}: {error}")),
        }
    }
    let bare = claimed.difference(&held).map(|claim| {
        format!(
            "{}: {} is called same or better in docs/pool.md: name its test in docs/pool.tests.tsv",
            claim.heading, claim.name
        )
    });
    wrong.extend(bare);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn columns_that_are_called_same_are_pgbouncers_and_their_values_are_compared() {
    test_text(COLUMNS_TEST).unwrap();
    let (values, columns, rows) =
        (read(VALUES), read("tests/data/pgbouncer/columns.tsv"), read("tests/data/pgbouncer/rows.tsv"));
    let recorded: BTreeMap<&str, BTreeSet<&str>> = columns
        .lines()
        .map(|line| {
            let mut words = line.split('\t');
            let show = words.next().unwrap();
            let rows = rows.lines().filter_map(|line| line.split_once('\t')).filter(|(of, _)| *of == show);
            (show, words.chain(rows.map(|(_, row)| row)).collect())
        })
        .collect();
    let mut wrong = Vec::new();
    let claims = claims(&read("docs/pool.md"));
    let shown: Vec<_> = claims.iter().filter(|claim| claim.heading.starts_with("SHOW ")).collect();
    assert!(shown.len() > 60, "the tables were not understood: {shown:?}");
    for Claim { heading, name } in shown {
        for show in heading.split(", ").map(|show| show.trim_start_matches("SHOW ")) {
            if !recorded.get(show).is_some_and(|columns| columns.contains(name.as_str())) {
                wrong.push(format!("SHOW {show}: PgBouncer has no {name}"));
            }
        }
        let compared = [format!("{name}="), format!("list={name} ")];
        let whole = |at: usize| {
            values[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_')
        };
        if !compared.iter().any(|word| values.match_indices(word).any(|(at, _)| whole(at))) {
            wrong.push(format!("{heading}: no value of {name} is compared in {VALUES}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tables_are_understood() {
    let page = "## One\n\n| a | | here |\n|---|---|---|\n| `b`, `c` | same | `d` |\n| `e` | differs | same |\n\
                **SHOW X**, **SHOW Y**. Text.\n| `f`; `total_` and `avg_` of `g`; `h` | same, mostly | |\n| plain | better | |\n";
    let names: Vec<_> = claims(page).into_iter().map(|claim| format!("{}: {}", claim.heading, claim.name)).collect();
    let expected = [
        "One: b",
        "One: c",
        "SHOW X, SHOW Y: avg_g",
        "SHOW X, SHOW Y: f",
        "SHOW X, SHOW Y: h",
        "SHOW X, SHOW Y: plain",
    ];
    assert_eq!(names[..6], expected);
    assert_eq!(names[6], "SHOW X, SHOW Y: total_g");
}
