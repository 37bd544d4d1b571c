//! The admin listener: what the process knows of itself, over HTTP, and the few things an operator may ask of it.
//!
//! A request comes in over pingora's HTTP server, [`route`] decides what it is (pure), and the answer is a page rendered
//! by a [`View`] that `app` handed over: this module knows neither the front nor the pool. It keeps serving while the
//! process drains, so that the last minute can be watched. Nothing here may hold the process up: one thread of its own,
//! few connections, deadlines for reading and writing, request bodies are not read.
//!
//! What changes something is for this machine alone: a loopback peer, and not a page in a browser that runs there.

mod html;
mod route;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::Method;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream},
    http::ResponseHeader,
    protocols::http::ServerSession,
    server::ShutdownWatch,
    services::listening::Service,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

pub use crate::admin::html::IndexView;
use crate::{
    admin::route::{Asked, Request},
    health::control::Control,
    telemetry::view::{Page, View},
};

/// Connections served at a time; further ones are closed. Scrapers, probes and a few people.
const MAX_CONNECTIONS: usize = 64;
/// From the start of a connection, or the last answer on it, to the end of the next request header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// For each write of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a reload or drain that was asked for, files, name resolution and password hashing included.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);

/// Pages by their path, e.g. `/metrics`.
pub type Pages = BTreeMap<&'static str, Arc<dyn View>>;

/// The application behind the admin listener.
pub struct Admin {
    pages: Pages,
    control: Arc<dyn Control>,
    connections: Arc<Semaphore>,
}

impl Admin {
    /// Shows `pages`, passes orders on to `control`.
    pub fn new(pages: Pages, control: Arc<dyn Control>) -> Self {
        Self { pages, control, connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Returns the listening service for `address`.
    pub fn service(self, address: &str) -> Service<Self> {
        let mut service = Service::new("admin".into(), self);
        service.add_tcp(address);
        service
    }

    async fn answer(&self, asked: Asked) -> Page {
        match asked {
            Asked::Show(view) => view.render(),
            Asked::Reload => {
                self.order(|control| match control.reload() {
                    Ok(summary) => Page::json(&json!({
                        "reloaded": true,
                        "changed": summary.changed,
                        "needs_restart": summary.needs_restart,
                    })),
                    Err(errors) => Page::json_with(422, &json!({ "reloaded": false, "errors": errors })),
                })
                .await
            }
            Asked::Drain(name) => {
                self.order(move |control| match control.drain(&name) {
                    Ok(in_flight) => Page::json(&json!({ "draining": name, "in_flight": in_flight })),
                    Err(error) => Page::json_with(404, &json!({ "error": error.to_string() })),
                })
                .await
            }
            Asked::Undrain(name) => {
                self.order(move |control| match control.undrain(&name) {
                    Ok(()) => Page::json(&json!({ "ready": name })),
                    Err(error) => Page::json_with(404, &json!({ "error": error.to_string() })),
                })
                .await
            }
            Asked::Refuse(refusal) => refusal.page(),
        }
    }

    /// Carries an order out on a thread that may block.
    async fn order(&self, order: impl FnOnce(&dyn Control) -> Page + Send + 'static) -> Page {
        let control = self.control.clone();
        let done = tokio::task::spawn_blocking(move || order(&*control));
        match tokio::time::timeout(CONTROL_TIMEOUT, done).await {
            Ok(Ok(page)) => page,
            Ok(Err(_)) => Page::json_with(500, &json!({ "error": "failed; the log says why" })),
            Err(_) => Page::json_with(504, &json!({ "error": "still running; the log will say how it ends" })),
        }
    }
}

#[async_trait]
impl HttpServerApp for Admin {
    async fn process_new_http(
        self: &Arc<Self>,
        mut http: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let Ok(_permit) = self.connections.clone().try_acquire_owned() else {
            warn!(max_connections = MAX_CONNECTIONS, "too many connections to the admin listener; one is closed");
            return None;
        };
        http.set_write_timeout(Some(WRITE_TIMEOUT));
        match tokio::time::timeout(HEADER_TIMEOUT, http.read_request()).await {
            Ok(Ok(true)) => {}
            Ok(Err(error)) => {
                debug!(%error, "bad request to the admin listener");
                return None;
            }
            Ok(Ok(false)) | Err(_) => return None,
        }
        let asked = {
            let header = http.req_header();
            let request = Request {
                method: &header.method,
                path: header.uri.path(),
                local: peer(&http).is_some_and(|ip| ip.is_loopback()),
                from_a_page: header.headers.contains_key(http::header::ORIGIN),
            };
            route::decide(&self.pages, &request)
        };
        let allow = asked.allow();
        let head_only = http.req_header().method == Method::HEAD;
        // A body is not read, so what follows it on the connection cannot be told from it.
        if *shutdown.borrow() || !http.is_body_empty() {
            http.set_keepalive(None);
        }
        let page = self.answer(asked).await;
        if let Err(error) = send(&mut http, page, allow, head_only).await {
            debug!(%error, "the admin listener's client is gone");
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&http);
        let reusable = http.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}

fn peer(http: &ServerSession) -> Option<IpAddr> {
    Some(http.client_addr()?.as_inet()?.ip().to_canonical())
}

async fn send(
    http: &mut ServerSession,
    page: Page,
    allow: Option<&'static str>,
    head_only: bool,
) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(page.status, Some(5))?;
    header.insert_header(http::header::CONTENT_TYPE, page.content_type)?;
    header.insert_header(http::header::CONTENT_LENGTH, page.body.len())?;
    header.insert_header(http::header::CACHE_CONTROL, "no-store")?;
    header.insert_header(http::header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    if let Some(allow) = allow {
        header.insert_header(http::header::ALLOW, allow)?;
    }
    http.write_response_header(Box::new(header)).await?;
    if !head_only {
        http.write_response_body(page.body.into(), true).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
