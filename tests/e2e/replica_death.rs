//! A replica that dies under load costs nobody a request.

use std::time::Duration;

use crate::support::{Deployment, eventually, load::Load, turn};

#[test]
fn a_replica_killed_and_started_again_under_50_clients_fails_no_get() {
    let _turn = turn();
    let mut deployment = Deployment::start();
    let load = Load::start(50, &deployment.bookend.url("/api/items/1/"));
    let more = |count: u64| {
        let before = load.good();
        eventually("the load goes on", Duration::from_secs(30), || (load.good() > before + count).then_some(()));
    };
    more(200);
    deployment.stack.kill("web-2");
    more(500);
    deployment.stack.revive("web-2");
    more(500);
    let tally = load.finish();
    let failures = tally.failures();
    assert!(
        failures.is_empty(),
        "{} failed, {:?} first; log:\n{}",
        failures.len(),
        failures[0],
        deployment.bookend.log()
    );
}
