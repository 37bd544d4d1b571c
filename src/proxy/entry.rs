//! What a request is owed because of where it came in: HTTPS instead of HTTP, or the word that it must stay with HTTPS. Pure.

use std::net::SocketAddr;

use http::HeaderValue;

use super::{
    error::{Answer, Failure},
    route::host,
};
use crate::config::lb::Listener;

/// By this path authorities look at who asks for a certificate, in plain HTTP (RFC 8555 section 8.3).
const ACME: &[u8] = b"/.well-known/acme-challenge/";
const HTTPS: u16 = 443;

/// Listeners that ask for something; most do not.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<Entry>);

/// One of them.
#[derive(Debug)]
pub(super) struct Entry {
    address: SocketAddr,
    redirect: Option<u16>,
    pub(super) hsts: Option<HeaderValue>,
}

impl Entries {
    pub(super) fn new(listeners: &[Listener]) -> Self {
        let entry = |listener: &Listener| {
            let hsts = listener.tls.as_ref().and_then(|tls| tls.hsts.clone());
            let redirect = listener.redirect_https;
            (hsts.is_some() || redirect.is_some()).then_some(Entry { address: listener.address, redirect, hsts })
        };
        Self(listeners.iter().filter_map(entry).collect())
    }

    /// Returns the one at whose address a connection came in; `local` is asked only if there are any.
    pub(super) fn find(&self, local: impl FnOnce() -> Option<SocketAddr>) -> Option<&Entry> {
        if self.0.is_empty() {
            return None;
        }
        let local = local()?;
        let own = |entry: &&Entry| {
            let ip = entry.address.ip();
            entry.address.port() == local.port() && (ip.is_unspecified() || ip == local.ip())
        };
        self.0.iter().find(own)
    }
}

impl Entry {
    /// Returns the answer that leads to HTTPS, where that is asked for. The method stays what it was (308).
    ///
    /// # Errors
    /// The request says nothing that a client could be sent to.
    pub(super) fn to_https(&self, host: Option<&[u8]>, path: &[u8], uri: &[u8]) -> Result<Option<Answer>, Failure> {
        let Some(port) = self.redirect else { return Ok(None) };
        if path.starts_with(ACME) {
            return Ok(None);
        }
        let mut buffer = [0; host::LENGTH_MAX];
        let host = host.and_then(|host| host::normalised(host, &mut buffer)).ok_or(Failure::BadRequest)?;
        if !uri.starts_with(b"/") {
            return Err(Failure::BadRequest);
        }
        let port = if port == HTTPS { String::new() } else { format!(":{port}") };
        let to = [b"https://", host, port.as_bytes(), uri].concat();
        let location = HeaderValue::from_bytes(&to).map_err(|_| Failure::BadRequest)?;
        Ok(Some(Answer { location: Some(location), ..Answer::of(308, "text/plain; charset=utf-8", Vec::new()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(redirect: u16) -> Entries {
        let first = Listener { redirect_https: Some(redirect), ..Listener::plain(([0, 0, 0, 0], 80).into(), 1) };
        Entries::new(&[first, Listener::plain(([127, 0, 0, 1], 81).into(), 1)])
    }

    fn to(redirect: u16, host: Option<&str>, uri: &str) -> Result<Option<String>, Failure> {
        let entries = entries(redirect);
        let entry = entries.find(|| Some(([10, 0, 0, 1], 80).into())).unwrap();
        let path = uri.split('?').next().unwrap();
        let answer = entry.to_https(host.map(str::as_bytes), path.as_bytes(), uri.as_bytes())?;
        Ok(answer.map(|answer| answer.location.unwrap().to_str().unwrap().to_owned()))
    }

    #[test]
    fn what_is_asked_for_in_the_clear_is_had_by_https() {
        assert_eq!(to(443, Some("A.example:80"), "/x?y=z"), Ok(Some("https://a.example/x?y=z".into())));
        assert_eq!(to(8443, Some("a.example"), "/"), Ok(Some("https://a.example:8443/".into())));
        assert_eq!(to(443, Some("a.example"), "/.well-known/acme-challenge/t"), Ok(None));
        assert_eq!(to(443, None, "/"), Err(Failure::BadRequest));
        assert_eq!(to(443, Some("a b"), "/"), Err(Failure::BadRequest));
        assert_eq!(to(443, Some("a.example"), "*"), Err(Failure::BadRequest));
    }

    #[test]
    fn a_listener_that_asks_for_nothing_is_none() {
        assert!(entries(443).find(|| Some(([127, 0, 0, 1], 81).into())).is_none());
        assert!(Entries::default().find(|| panic!("nobody needs it")).is_none());
    }
}
