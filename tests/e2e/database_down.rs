//! What only one process can do: judge a replica by HTTP and database together.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Deployment,
    bookend::Settings,
    eventually,
    load::{get, get_within},
    turn,
};

#[test]
fn without_its_database_the_front_serves_what_needs_none_and_refuses_the_rest_at_once() {
    let _turn = turn();
    let mut deployment = Deployment::start();
    let items = deployment.bookend.url("/api/items/1/");
    let nodb = deployment.bookend.url("/nodb/");
    assert_eq!(get(&items).unwrap().status, 200);
    deployment.stack.command(json!({"cmd": "stop_postgres", "mode": "immediate"}));
    eventually("requests that need the database are refused", Duration::from_secs(10), || {
        let began = Instant::now();
        // Until the pool has noticed, a request waits for its database, as it would behind PgBouncer.
        let answer = get_within(&items, Duration::from_millis(500))?;
        (answer.status == 503 && answer.header("retry-after").is_some() && began.elapsed() < Duration::from_millis(250))
            .then_some(())
    });
    // Long enough for every replica's own check to have failed too: /health/ answers 503 without a database.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let answer = get(&nodb).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let began = Instant::now();
    assert_eq!(get(&items).unwrap().status, 503);
    assert!(began.elapsed() < Duration::from_millis(250));
    deployment.stack.command(json!({"cmd": "start_postgres"}));
    eventually("the front serves again", Duration::from_secs(5), || {
        (get_within(&items, Duration::from_secs(1))?.status == 200).then_some(())
    });
}

#[test]
fn a_replica_that_says_it_is_well_without_its_database_is_not_believed() {
    let _turn = turn();
    let lying = json!({"HEALTH_IGNORES_DATABASE": "1"});
    let mut deployment = Deployment::with_replicas(&Settings::default(), &lying);
    deployment.stack.command(json!({"cmd": "stop_postgres", "mode": "immediate"}));
    let items = deployment.bookend.url("/api/items/1/");
    eventually("the front refuses though every check is answered 200", Duration::from_secs(10), || {
        let answer = get_within(&items, Duration::from_millis(500))?;
        (answer.status == 503 && answer.header("retry-after").is_some()).then_some(())
    });
    let status = get(&deployment.bookend.admin("/status")).unwrap().text();
    assert!(status.contains("web-1"), "{status}");
    assert_eq!(get(&deployment.bookend.url("/nodb/")).unwrap().status, 200);
}
