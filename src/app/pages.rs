//! The pages: one set, shown by the admin listener and by the front's `builtin:` routes.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    admin::{self, IndexView},
    config::lb::Builtin,
    health::{
        board::Board,
        drain::{Drain, Phase},
        ready::Ready,
        report::{self, ConnectionsView},
    },
    telemetry::{
        metrics::{MetricsView, Registry, Started},
        view::{Page, View},
    },
};

/// A part of the status page, drawn anew for each request.
pub type Section = Box<dyn Fn() -> Value + Send + Sync>;

/// What the pages show.
pub struct Sources {
    pub started: Started,
    pub board: Arc<Board>,
    pub front: Drain,
    pub pool: Drain,
    pub ready: Ready,
    pub registry: Arc<Registry>,
    /// The halves' parts of the status page.
    pub sections: Vec<(&'static str, Section)>,
    /// The host name of this process.
    pub container: String,
}

/// Returns the pages a route may name.
pub fn builtin(sources: Sources) -> HashMap<Builtin, Arc<dyn View>> {
    let Sources { started, board, front, pool, ready, registry, sections, container } = sources;
    let ready_page = {
        let ready = ready.clone();
        move || ready_page(&ready)
    };
    let connections = ConnectionsView::new(board.clone(), container);
    let status = move || Page::json(&status(started, &board, [&front, &pool], &ready, &sections));
    HashMap::from([
        (Builtin::Live, Arc::new(|| Page::json(&json!({ "live": true }))) as Arc<dyn View>),
        (Builtin::Ready, Arc::new(ready_page)),
        (Builtin::Metrics, Arc::new(MetricsView::new(registry))),
        (Builtin::Status, Arc::new(status)),
        (Builtin::DbConnections, Arc::new(connections)),
    ])
}

/// Returns the admin listener's pages: the same, and the one for people.
pub fn admin(builtin: &HashMap<Builtin, Arc<dyn View>>) -> admin::Pages {
    let mut pages = admin::Pages::new();
    for (path, page) in [
        ("/live", Builtin::Live),
        ("/ready", Builtin::Ready),
        ("/metrics", Builtin::Metrics),
        ("/status", Builtin::Status),
        ("/db/connections/", Builtin::DbConnections),
    ] {
        pages.extend(builtin.get(&page).map(|view| (path, view.clone())));
    }
    let links: Vec<&'static str> = pages.keys().copied().collect();
    if let Some(status) = builtin.get(&Builtin::Status).cloned() {
        let value = Arc::new(move || serde_json::from_slice(&status.render().body).unwrap_or_default());
        pages.insert("/", Arc::new(IndexView::new(value, links)));
    }
    pages
}

fn ready_page(ready: &Ready) -> Page {
    let missing = ready.pending();
    let status = if missing.is_empty() { 200 } else { 503 };
    Page::json_with(status, &json!({ "ready": missing.is_empty(), "missing": missing }))
}

fn status(
    started: Started,
    board: &Board,
    halves: [&Drain; 2],
    ready: &Ready,
    sections: &[(&'static str, Section)],
) -> Value {
    let mut status = Map::new();
    status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    status.insert("uptime_seconds".into(), started.instant.elapsed().as_secs().into());
    status.insert("phase".into(), phase(halves[0].phase()).into());
    status.insert("in_flight".into(), halves.map(Drain::in_flight).iter().sum::<usize>().into());
    status.insert("ready".into(), ready.is_ready().into());
    status.insert("missing".into(), ready.pending().into());
    status.extend(sections.iter().map(|(name, section)| ((*name).to_owned(), section())));
    status.insert("clients".into(), report::clients(board));
    Value::Object(status)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Leaving => "leaving",
        Phase::Closed => "closed",
        Phase::Draining { .. } => "draining",
        Phase::Cut => "cut",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::drain;

    fn pages(ready: &Ready) -> admin::Pages {
        let builtin = builtin(Sources {
            started: Started::now(),
            board: Arc::default(),
            front: drain::channel().1,
            pool: drain::channel().1,
            ready: ready.clone(),
            registry: Arc::default(),
            sections: vec![("upstreams", Box::new(|| json!({ "django": { "servers": 3 } })))],
            container: "bookend-1".into(),
        });
        admin(&builtin)
    }

    fn json(page: &Page) -> Value {
        serde_json::from_slice(&page.body).unwrap()
    }

    #[test]
    fn not_ready_is_503_with_what_is_missing() {
        let ready = Ready::default();
        let latch = ready.latch("first health checks of upstream django");
        let page = pages(&ready)["/ready"].render();
        assert_eq!(page.status, 503);
        assert_eq!(json(&page)["missing"], json!(["first health checks of upstream django"]));
        drop(latch);
        let page = pages(&ready)["/ready"].render();
        assert_eq!((page.status, json(&page)), (200, json!({ "ready": true, "missing": [] })));
        ready.leave();
        assert_eq!(pages(&ready)["/ready"].render().status, 503);
    }

    #[test]
    fn live_stays_live_while_not_ready() {
        let ready = Ready::default();
        ready.leave();
        assert_eq!(pages(&ready)["/live"].render().status, 200);
    }

    #[test]
    fn the_status_has_the_process_and_the_sections_of_the_halves() {
        let page = json(&pages(&Ready::default())["/status"].render());
        assert_eq!(page["phase"], "running");
        assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(page["upstreams"]["django"]["servers"], 3);
    }

    #[test]
    fn the_page_for_people_shows_the_status_and_links_the_rest() {
        let html = String::from_utf8(pages(&Ready::default())["/"].render().body).unwrap();
        for text in ["running", "django", "href=\"/db/connections/\"", "href=\"/metrics\""] {
            assert!(html.contains(text), "{text} is missing: {html}");
        }
    }
}
