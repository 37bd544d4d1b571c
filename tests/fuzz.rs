//! Every file of the fuzz corpora, through the code that is fuzzed: as it is, broken off, spliced, a bit flipped.

use std::{fs, path::Path};

#[path = "../fuzz/entries/answers.rs"]
mod answers;
#[path = "../fuzz/entries/command.rs"]
mod command;
#[path = "../fuzz/entries/config.rs"]
mod config;
#[path = "../fuzz/entries/frames.rs"]
mod frames;
#[path = "../fuzz/entries/hba.rs"]
mod hba;
#[path = "../fuzz/entries/ini.rs"]
mod ini;
#[path = "../fuzz/entries/login.rs"]
mod login;
#[path = "../fuzz/entries/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../fuzz/entries/relay.rs"]
mod relay;
#[path = "../fuzz/entries/scram.rs"]
mod scram;
#[path = "../fuzz/entries/sql.rs"]
mod sql;
#[path = "../fuzz/entries/startup.rs"]
mod startup;
#[path = "../fuzz/entries/userlist.rs"]
mod userlist;

/// Splices begin and end at every `step`th byte.
fn each_file(corpus: &str, step: usize, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let files: Vec<_> = fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    assert!(!files.is_empty());
    let inputs: Vec<_> = files.iter().map(|file| fs::read(file).expect("a file")).collect();
    for (file, data) in files.iter().zip(&inputs) {
        println!("{}", file.display());
        run(data);
        for (other, cut) in inputs.iter().flat_map(|other| (0..data.len()).step_by(step).map(move |cut| (other, cut))) {
            (0..other.len()).step_by(step).for_each(|from| run(&[&data[..cut], &other[from..]].concat()));
        }
        // What a connection that breaks off leaves, and what a bit that flips makes of it.
        (0..data.len()).for_each(|end| run(&data[..end]));
        for at in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            run(&flipped);
        }
    }
}

#[test]
fn proxy_headers_of_the_corpus() {
    each_file("proxy_protocol", 1, proxy_protocol::run);
}

#[test]
fn frames_of_the_corpus() {
    each_file("frames", 8, frames::run);
}

#[test]
fn relays_of_the_corpus() {
    each_file("relay", 8, relay::run);
}

#[test]
fn startups_of_the_corpus() {
    each_file("startup", 8, startup::run);
}

#[test]
fn scram_exchanges_of_the_corpus() {
    each_file("scram", 8, scram::run);
}

#[test]
fn userlists_of_the_corpus() {
    each_file("userlist", 8, userlist::run);
}

#[test]
fn inis_of_the_corpus() {
    each_file("ini", 32, ini::run);
}

#[test]
fn hba_files_of_the_corpus() {
    each_file("hba", 32, hba::run);
}

#[test]
fn configurations_of_the_corpus() {
    each_file("config", 64, config::run);
}

#[test]
fn sql_of_the_corpus() {
    each_file("sql", 16, sql::run);
}

#[test]
fn answers_of_the_corpus() {
    each_file("answers", 8, answers::run);
}

#[test]
fn commands_of_the_corpus() {
    each_file("command", 8, command::run);
}

#[test]
fn logins_of_the_corpus() {
    each_file("login", 16, login::run);
}
