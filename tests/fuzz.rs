//! Every file of the pool's fuzz corpora, through the code that is fuzzed.

use std::{fs, path::Path};

#[path = "../fuzz/entries/frames.rs"]
mod frames;
#[path = "../fuzz/entries/relay.rs"]
mod relay;
#[path = "../fuzz/entries/scram.rs"]
mod scram;
#[path = "../fuzz/entries/startup.rs"]
mod startup;
#[path = "../fuzz/entries/userlist.rs"]
mod userlist;

fn each_file(corpus: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        let data = fs::read(&file).unwrap();
        run(&data);
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
fn frames_of_the_corpus() {
    each_file("frames", frames::run);
}

#[test]
fn relays_of_the_corpus() {
    each_file("relay", relay::run);
}

#[test]
fn startups_of_the_corpus() {
    each_file("startup", startup::run);
}

#[test]
fn scram_exchanges_of_the_corpus() {
    each_file("scram", scram::run);
}

#[test]
fn userlists_of_the_corpus() {
    each_file("userlist", userlist::run);
}
