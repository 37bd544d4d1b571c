//! `request_headers` and `response_headers` at work. Pure.
//!
//! Those for all routes come first, then those of the route, so that a route may take out or replace what all have (nginx's
//! `add_header` in a location makes it forget all others; here nothing is forgotten). Answers of our own have them too: HSTS
//! and a CSP are for error pages as well.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};

use super::template::{Values, render};
use crate::config::lb::{self, HeaderRules, Template};

/// The rules of all routes, or of one.
#[derive(Debug, Default)]
pub struct Headers {
    pub(super) request: Rules,
    pub(super) response: Rules,
}

impl Headers {
    /// Makes rules ready for requests.
    pub(super) fn new(headers: &lb::Headers) -> Self {
        Self { request: Rules::new(&headers.request), response: Rules::new(&headers.response) }
    }
}

/// Rules whose values are made as far as they can be without a request.
#[derive(Debug, Default)]
pub(super) struct Rules {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Value)]>,
    add: Box<[(HeaderName, Value)]>,
}

#[derive(Debug)]
enum Value {
    /// The same for every request: taking one copies nothing.
    Fixed(HeaderValue),
    Made(Template),
}

impl Value {
    fn new(template: &Template) -> Self {
        let fixed = template.fixed().and_then(|text| HeaderValue::from_str(&text).ok());
        fixed.map_or_else(|| Self::Made(template.clone()), Self::Fixed)
    }

    fn of(&self, values: &Values<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Made(template) => HeaderValue::from_maybe_shared(Bytes::from(render(template, values)?)).ok(),
        }
    }
}

impl Rules {
    fn new(rules: &HeaderRules) -> Self {
        let values = |pairs: &[(HeaderName, Template)]| {
            pairs.iter().map(|(name, template)| (name.clone(), Value::new(template))).collect()
        };
        Self { remove: rules.remove.clone().into(), set: values(&rules.set), add: values(&rules.add) }
    }

    /// Returns whether they change nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// A head whose headers can be changed.
pub(super) trait Head {
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    fn remove(&mut self, name: &HeaderName);
}

impl Head for RequestHeader {
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Head for ResponseHeader {
    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

/// Changes a head as rules say. A value that the request lacks something for is left out, as nginx leaves out empty ones.
pub(super) fn apply(rules: &Rules, head: &mut impl Head, values: &Values<'_>) -> Result<()> {
    for name in &rules.remove {
        head.remove(name);
    }
    for (name, value) in &rules.set {
        match value.of(values) {
            Some(value) => head.insert(name.clone(), value)?,
            None => head.remove(name),
        }
    }
    for (name, value) in &rules.add {
        if let Some(value) = value.of(values) {
            head.append(name.clone(), value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lb::{Piece, Template, Variable};

    fn text(text: &str) -> Template {
        Template::from(vec![Piece::Text(text.into())])
    }

    fn variable(variable: Variable) -> Template {
        Template::from(vec![Piece::Variable(variable)])
    }

    fn name(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    const VALUES: Values<'_> = Values {
        host: Some(b"Example.com:80"),
        request_uri: b"/a?b",
        client: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        request_id: "id-1",
    };

    #[test]
    fn headers_are_taken_out_then_set_then_added() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [("server", "uvicorn"), ("x-a", "1"), ("x-a", "2"), ("link", "a")] {
            head.append_header(name, value).unwrap();
        }
        let rules = HeaderRules {
            set: vec![(name("x-a"), text("3")), (name("x-who"), variable(Variable::RemoteAddr))],
            add: vec![(name("link"), text("b")), (name("server"), text("ours"))],
            remove: vec![name("server"), name("not-there")],
        };
        apply(&Rules::new(&rules), &mut head, &VALUES).unwrap();
        let all =
            |name: &str| head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-a"), ["3"]);
        assert_eq!(all("link"), ["a", "b"]);
        assert_eq!((all("server"), all("x-who")), (vec!["ours"], vec!["127.0.0.1"]));
    }

    #[test]
    fn what_a_client_says_cannot_leave_its_header() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.insert_header("x-host", "forged").unwrap();
        let rules = HeaderRules {
            set: vec![(name("x-host"), variable(Variable::Host)), (name("x-uri"), variable(Variable::RequestUri))],
            ..HeaderRules::default()
        };
        let evil = Values { host: Some(b"a\r\nx-b: c"), request_uri: b"/\r\nx-b: c", ..VALUES };
        apply(&Rules::new(&rules), &mut head, &evil).unwrap();
        assert!(head.headers.is_empty(), "{:?}", head.headers);
        apply(&Rules::new(&rules), &mut head, &VALUES).unwrap();
        assert_eq!(
            (&head.headers["x-host"], &head.headers["x-uri"]),
            (&"example.com".parse().unwrap(), &"/a?b".parse().unwrap())
        );
    }
}
