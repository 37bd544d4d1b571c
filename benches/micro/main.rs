//! Micro-benchmarks of the small pure pieces that every request or message goes through: `cargo bench`, or
//! `cargo bench -- route` for some of them. loadtest/INSTRUCTIONS.md says how to read the numbers.

#![allow(clippy::unwrap_used)] // a benchmark that cannot go on panics

mod access_log;
mod relay;
mod route;
mod select;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// All of it stays below two minutes; what these pieces take is steady enough for that.
fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(30)
        .without_plots()
}

criterion_group! {
    name = micro;
    config = short();
    targets = route::benches, select::benches, relay::benches, access_log::benches
}
criterion_main!(micro);
