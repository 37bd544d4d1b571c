//! What a request to the admin listener asks for. Pure.

use std::sync::Arc;

use http::Method;
use serde_json::json;

use crate::{
    admin::Pages,
    telemetry::view::{Page, View},
};

/// The parts of a request that matter here.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    /// The peer is this machine.
    pub local: bool,
    /// It carries an `Origin`: a page in a browser sent it. Browsers on this machine reach loopback ports for any site
    /// they show, so being local is not enough.
    pub from_a_page: bool,
}

/// What it asks for.
pub enum Asked {
    Show(Arc<dyn View>),
    Reload,
    Drain(String),
    Undrain(String),
    Refuse(Refusal),
}

/// Why it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 404
    NotFound,
    /// 405, with what would be allowed.
    Method(&'static str),
    /// 403
    NotLocal,
}

const READ: &str = "GET, HEAD";
const ORDER: &str = "POST";

/// Decides.
pub fn decide(pages: &Pages, request: &Request<'_>) -> Asked {
    if let Some(order) = order(request.path) {
        return match () {
            () if *request.method != Method::POST => Asked::Refuse(Refusal::Method(ORDER)),
            () if !request.local || request.from_a_page => Asked::Refuse(Refusal::NotLocal),
            () => order,
        };
    }
    let Some(view) = page(pages, request.path) else { return Asked::Refuse(Refusal::NotFound) };
    match *request.method {
        Method::GET | Method::HEAD => Asked::Show(view.clone()),
        _ => Asked::Refuse(Refusal::Method(READ)),
    }
}

fn order(path: &str) -> Option<Asked> {
    if path == "/reload" {
        return Some(Asked::Reload);
    }
    // A server's name may hold a slash when it is said with its upstream (`django/web-1`) or a colon when it is an
    // address; nothing in it is decoded, since names that need it do not pass the configuration's checks.
    let named = |rest: &str| (!rest.is_empty()).then(|| rest.to_owned());
    path.strip_prefix("/drain/")
        .and_then(named)
        .map(Asked::Drain)
        .or_else(|| path.strip_prefix("/ready/").and_then(named).map(Asked::Undrain))
}

/// A last slash makes no difference, in either direction: people type both.
fn page<'a>(pages: &'a Pages, path: &str) -> Option<&'a Arc<dyn View>> {
    pages.iter().find(|(known, _)| known.trim_end_matches('/') == path.trim_end_matches('/')).map(|(_, view)| view)
}

impl Asked {
    /// Returns the Allow header that goes with the answer (RFC 9110 15.5.6: a 405 must have one).
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::Refuse(Refusal::Method(allow)) => Some(allow),
            _ => None,
        }
    }
}

impl Refusal {
    /// Returns the page that says so.
    pub fn page(self) -> Page {
        let (status, error) = match self {
            Self::NotFound => (404, "no such page; / lists them".to_owned()),
            Self::Method(allow) => (405, format!("allowed here: {allow}")),
            Self::NotLocal => {
                (403, "orders are taken from this machine only, and not from a page in a browser".to_owned())
            }
        };
        Page::json_with(status, &json!({ "error": error }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        let page: Arc<dyn View> = Arc::new(|| Page::text(200, "page"));
        ["/", "/ready", "/db/connections/"].into_iter().map(|path| (path, page.clone())).collect()
    }

    fn decided(method: Method, path: &str, local: bool, from_a_page: bool) -> String {
        match decide(&pages(), &Request { method: &method, path, local, from_a_page }) {
            Asked::Show(_) => "show".into(),
            Asked::Reload => "reload".into(),
            Asked::Drain(name) => format!("drain {name}"),
            Asked::Undrain(name) => format!("undrain {name}"),
            Asked::Refuse(refusal) => refusal.page().status.to_string(),
        }
    }

    #[test]
    fn pages_are_read_and_nothing_else() {
        assert_eq!(decided(Method::GET, "/ready", false, false), "show");
        assert_eq!(decided(Method::HEAD, "/ready", false, true), "show");
        assert_eq!(decided(Method::POST, "/ready", true, false), "405");
        assert_eq!(decided(Method::DELETE, "/", true, false), "405");
    }

    #[test]
    fn a_last_slash_makes_no_difference() {
        assert_eq!(decided(Method::GET, "/db/connections", false, false), "show");
        assert_eq!(decided(Method::GET, "/ready/", false, false), "show");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in ["/nothing", "/readyx", "/db", "/drain/", "/drain", "*", ""] {
            let expected = if path.is_empty() { "show" } else { "404" };
            assert_eq!(decided(Method::GET, path, true, false), expected, "{path}");
        }
    }

    #[test]
    fn orders_need_a_post_from_this_machine() {
        assert_eq!(decided(Method::POST, "/reload", true, false), "reload");
        assert_eq!(decided(Method::GET, "/reload", true, false), "405");
        assert_eq!(decided(Method::POST, "/reload", false, false), "403");
        assert_eq!(decided(Method::POST, "/drain/web-1", false, false), "403");
    }

    #[test]
    fn a_page_in_a_browser_on_this_machine_gives_no_orders() {
        assert_eq!(decided(Method::POST, "/reload", true, true), "403");
        assert_eq!(decided(Method::POST, "/drain/web-1", true, true), "403");
    }

    #[test]
    fn a_server_is_named_with_or_without_its_upstream() {
        assert_eq!(decided(Method::POST, "/drain/web-1", true, false), "drain web-1");
        assert_eq!(decided(Method::POST, "/drain/django/web-1", true, false), "drain django/web-1");
        assert_eq!(decided(Method::POST, "/ready/web-1", true, false), "undrain web-1");
    }
}
