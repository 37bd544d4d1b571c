use prometheus::TextEncoder;

use super::*;

fn text(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

fn route(metrics: &Metrics) -> RouteMetrics {
    metrics.route(Some(&"/".into()), Some(&"django".into()), &["web-1".into(), "web-2".into()])
}

#[test]
fn two_fronts_live_in_one_process_and_one_registry_takes_one() {
    let registry = Registry::new();
    Metrics::register(&registry).unwrap();
    assert!(Metrics::register(&registry).is_err());
    assert!(Metrics::register(&Registry::new()).is_ok());
}

#[test]
fn requests_are_counted_by_who_answered_and_class_of_status() {
    let registry = Registry::new();
    let route = route(&Metrics::register(&registry).unwrap());
    route.finished(Some(1), 204, 0.004, 10, 20);
    route.finished(None, 503, 0.001, 0, 30);
    route.finished(Some(9), 999, 0.001, 0, 0);
    route.finished(Some(0), 0, 0.001, 0, 0);
    let text = text(&registry);
    for line in [
        r#"bookend_http_requests_total{route="/",server="web-2",status="2xx",upstream="django"} 1"#,
        r#"bookend_http_requests_total{route="/",server="-",status="5xx",upstream="django"} 2"#,
        r#"bookend_http_request_duration_seconds_count{route="/",upstream="django"} 4"#,
        r#"bookend_http_request_body_bytes_total{route="/"} 10"#,
        r#"bookend_http_response_body_bytes_total{route="/"} 50"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn failures_and_retries_are_counted_by_reason() {
    let registry = Registry::new();
    let route = route(&Metrics::register(&registry).unwrap());
    for failure in Failure::ALL {
        route.failed(failure);
    }
    route.retried(Failure::ConnectRefused);
    let text = text(&registry);
    for failure in Failure::ALL {
        let line = format!(r#"bookend_http_failures_total{{reason="{}",route="/"}} 1"#, failure.reason());
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let line = r#"bookend_http_retries_total{reason="connect_refused",route="/",upstream="django"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_is_open_is_counted_while_it_is() {
    let registry = Registry::new();
    let route = route(&Metrics::register(&registry).unwrap());
    let (request, socket) = (route.begin(), route.websocket());
    assert!(text(&registry).contains(r#"bookend_http_requests_in_flight{route="/"} 1"#));
    assert!(text(&registry).contains(r#"bookend_websockets_open{route="/",upstream="django"} 1"#));
    drop((request, socket));
    assert!(text(&registry).contains(r#"bookend_http_requests_in_flight{route="/"} 0"#));
    assert!(text(&registry).contains(r#"bookend_websockets_open{route="/",upstream="django"} 0"#));
    route.websocket_bytes(Direction::FromClient, 3);
    route.websocket_bytes(Direction::FromServer, 5);
    assert!(text(&registry).contains(r#"bookend_websocket_bytes_total{from="client",route="/"} 3"#));
    assert!(text(&registry).contains(r#"bookend_websocket_bytes_total{from="server",route="/"} 5"#));
}

#[test]
fn requests_without_a_route_have_a_label_of_their_own() {
    let registry = Registry::new();
    let unmatched = Metrics::register(&registry).unwrap().route(None, None, &[]);
    unmatched.finished(None, 404, 0.0001, 0, 0);
    let line = r#"bookend_http_requests_total{route="-",server="-",status="4xx",upstream="-"} 1"#;
    assert!(text(&registry).contains(line));
}

#[test]
fn every_name_has_help_and_the_prefix() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let _route = route(&metrics);
    for family in registry.gather() {
        assert!(family.name().starts_with("bookend_"), "{}", family.name());
        assert!(!family.help().is_empty(), "{}", family.name());
    }
}
