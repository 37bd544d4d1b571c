//! What an HTTP/2 request becomes, so that everything behind takes it for one of HTTP/1.1. Pure.
//!
//! Frames, pseudo-headers and their order, connection headers, lengths and characters were checked by the h2 crate and
//! pingora on the way in (RFC 9113 sections 8.2 and 8.3).

use http::{HeaderValue, Method, header};
use pingora::{Result, http::RequestHeader};

use super::{accept::head, error::Failure};

/// Puts the authority where HTTP/1.1 has it, in Host, and the crumbs of a cookie together (RFC 9113 sections 8.3.1 and
/// 8.2.3): servers of HTTP/1.1 join them with a comma, and Django then sees one cookie with a strange value.
///
/// # Errors
/// When there are too many headers.
pub(super) fn to_http1(request: &mut RequestHeader) -> Result<()> {
    if let Some(authority) = request.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str());
        if let Ok(host) = host {
            request.insert_header(header::HOST, host)?;
        }
    }
    let mut crumbs = request.headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(_)) = (crumbs.next(), crumbs.next()) {
        let mut cookie = first.as_bytes().to_vec();
        for crumb in request.headers.get_all(header::COOKIE).iter().skip(1) {
            cookie.extend_from_slice(b"; ");
            cookie.extend_from_slice(crumb.as_bytes());
        }
        request.insert_header(header::COOKIE, cookie)?;
    }
    Ok(())
}

/// Sees to what an HTTP/1 head is refused for before it is a request ([`head`]), as far as nobody has: too many headers, the
/// methods that are not for a reverse proxy, a host or a target that a server may read in two ways.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(request: &RequestHeader, max_headers: usize) -> Result<(), Failure> {
    if request.headers.len() > max_headers {
        return Err(Failure::TooManyHeaders);
    }
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err(Failure::MethodNotAllowed);
    }
    let target = request.raw_path();
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let one_host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(|byte| head::is_host(*byte)),
        _ => false,
    };
    let mut lengths = request.headers.get_all(header::CONTENT_LENGTH).iter();
    let one_length = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let origin = target.starts_with(b"/") || (target == b"*" && request.method == Method::OPTIONS);
    if one_host && one_length && origin { Ok(()) } else { Err(Failure::BadRequest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestHeader {
        let request = http::Request::get("https://a.example:8443/x?y").version(http::Version::HTTP_2);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        parts.into()
    }

    #[test]
    fn the_authority_is_the_host_and_crumbs_are_one_cookie() {
        let mut request = request();
        for crumb in ["a=b", "c=d; e=f", "g=h"] {
            request.append_header(header::COOKIE, crumb).unwrap();
        }
        to_http1(&mut request).unwrap();
        assert_eq!(request.headers[header::HOST], "a.example:8443");
        let cookies: Vec<_> = request.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=b; c=d; e=f; g=h"]);
        assert_eq!(request.raw_path(), b"/x?y");
    }

    #[test]
    fn one_cookie_stays_as_it_is() {
        let mut request = request();
        request.append_header(header::COOKIE, "a=b").unwrap();
        to_http1(&mut request).unwrap();
        assert_eq!(request.headers[header::COOKIE], "a=b");
    }

    #[test]
    fn what_two_servers_might_read_differently_is_refused() {
        let with = |name: &'static str, values: &[&str]| {
            let mut request = request();
            to_http1(&mut request).unwrap();
            request.remove_header(name);
            for value in values {
                request.append_header(name, *value).unwrap();
            }
            check(&request, 10)
        };
        assert_eq!(with("host", &["a.example:80"]), Ok(()));
        assert_eq!(with("host", &["[::1]:80"]), Ok(()));
        assert_eq!(with("content-length", &["12"]), Ok(()));
        for (name, values) in [
            ("host", &[][..]),
            ("host", &["a", "a"]),
            ("host", &["a b"]),
            ("host", &["a/b"]),
            ("host", &["user@a"]),
            ("content-length", &["1", "1"]),
            ("content-length", &["1, 1"]),
            ("content-length", &["+1"]),
        ] {
            assert_eq!(with(name, values), Err(Failure::BadRequest), "{name} {values:?}");
        }
        for method in ["CONNECT", "TRACE"] {
            let mut request = request();
            request.set_method(method.parse().unwrap());
            assert_eq!(check(&request, 10), Err(Failure::MethodNotAllowed));
        }
    }

    #[test]
    fn headers_are_counted() {
        let mut request = request();
        to_http1(&mut request).unwrap();
        for name in ["a", "b"] {
            request.append_header(name, "x").unwrap();
        }
        assert_eq!(check(&request, 3), Ok(()));
        assert_eq!(check(&request, 2), Err(Failure::TooManyHeaders));
    }
}
