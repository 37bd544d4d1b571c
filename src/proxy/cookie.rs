//! Reading a client's cookies. Pure.
//!
//! Source: RFC 6265 5.4 for what clients send. Values are taken as they are: quotes and percent signs belong to whoever made
//! the cookie.

use http::{HeaderMap, header};

/// Returns the value of the first cookie with this name.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    // HTTP/2 may split them into several lines (RFC 9113 8.2.3).
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_every_line() {
        let mut headers = HeaderMap::new();
        for line in ["xsessionid=1; sessionidx=2;sessionid=a=b%20; sessionid=second", " last = 3; bare; empty="] {
            headers.append(header::COOKIE, line.parse().unwrap());
        }
        assert_eq!(find(&headers, "sessionid"), Some(&b"a=b%20"[..]));
        assert_eq!(find(&headers, "xsessionid"), Some(&b"1"[..]));
        assert_eq!(find(&headers, "empty"), Some(&b""[..]));
        for name in ["session", "bare", "", "last", "SESSIONID"] {
            assert_eq!(find(&headers, name), None, "{name}");
        }
    }
}
