//! The header by which a proxy of TCP connections says whose connection this is (the PROXY protocol, versions 1 and 2). Pure.
//!
//! Read by the proxy-header crate, which knows both versions and has no dependencies. Ours are the bound on the length and
//! what is made of it. A listener that expects the header refuses connections without it: one that took both would let
//! every client choose its address (the specification, section 2).

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};

/// Bytes of a header that are read at most. Version 1 has 107, version 2 with all that load balancers add some hundred.
pub const HEADER_MAX: usize = 4 * 1024;

/// What stands at the beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Not yet the whole of it.
    Incomplete,
    /// What is there, and how long it is.
    Whole {
        /// Whose connection it is; `None`: the proxy's own, such as a health check, or one it knows nothing of.
        source: Option<SocketAddr>,
        length: usize,
    },
}

/// Not a header of this protocol, or a longer one than [`HEADER_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHeader;

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// There is none.
pub fn read(bytes: &[u8]) -> Result<Header, NoHeader> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let part = &bytes[..bytes.len().min(HEADER_MAX)];
    match ProxyHeader::parse(part, config) {
        Ok((header, length)) => {
            let source = match header.proxied_address() {
                Some(address) if address.protocol == Protocol::Stream => Some(address.source),
                Some(_) => return Err(NoHeader),
                None => None,
            };
            Ok(Header::Whole { source, length })
        }
        // A line that has ended says no more.
        Err(Error::BufferTooShort) if part.starts_with(b"P") && part.contains(&b'\n') => Err(NoHeader),
        Err(Error::BufferTooShort) if part.len() < HEADER_MAX => Ok(Header::Incomplete),
        Err(_) => Err(NoHeader),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Version 2 with a kind of address, and its rest.
    fn version2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, kind][..], &length, rest].concat()
    }

    fn ipv4() -> Vec<u8> {
        version2(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 1, 0xbb])
    }

    fn whole(source: Option<&str>, length: usize) -> Result<Header, NoHeader> {
        Ok(Header::Whole { source: source.map(|source| source.parse().unwrap()), length })
    }

    #[test]
    fn both_versions_say_whose_connection_it_is() {
        let one = b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(one), whole(Some("192.0.2.1:4660"), 40));
        let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 4660 443\r\n";
        assert_eq!(read(six), whole(Some("[2001:db8::1]:4660"), six.len()));
        assert_eq!(read(&ipv4()), whole(Some("192.0.2.1:4660"), 28));
        // What load balancers add (here an AWS endpoint's id) is passed over.
        let more = version2(0x21, 0x11, &[&ipv4()[16..], &[0xEA, 0, 3, 1, b'v', b'p'], b""].concat());
        assert_eq!(read(&more), whole(Some("192.0.2.1:4660"), 34));
    }

    #[test]
    fn a_connection_of_the_proxy_itself_has_no_source() {
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), whole(None, 15));
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), whole(None, 35));
        assert_eq!(read(&version2(0x20, 0, b"")), whole(None, 16));
        assert_eq!(read(&version2(0x20, 0x11, &ipv4()[16..])), whole(None, 28));
        assert_eq!(read(&version2(0x21, 0x31, &[0; 216])), whole(None, 232));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = version2(0x21, 0x11, &[0; HEADER_MAX]);
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 99999\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 4660 443\r\n",
            b"\x16\x03\x01",
            // UDP.
            &version2(0x21, 0x12, &ipv4()[16..]),
            // No such command.
            &version2(0x22, 0x11, &ipv4()[16..]),
            &long,
        ] {
            assert_eq!(read(bytes), Err(NoHeader), "{}", bytes.escape_ascii());
        }
        assert_eq!(read(&long[..HEADER_MAX - 1]), Ok(Header::Incomplete));
    }

    proptest! {
        #[test]
        fn a_header_in_pieces_is_the_same_header(cut in 0usize..28, rest: Vec<u8>) {
            let header = ipv4();
            prop_assert_eq!(read(&header[..cut]), Ok(Header::Incomplete));
            prop_assert_eq!(read(&[&header[..], &rest].concat()), whole(Some("192.0.2.1:4660"), 28));
        }

        #[test]
        fn anything_is_read_or_refused(bytes: Vec<u8>, version in 0u8..3) {
            let begin: &[u8] = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][usize::from(version)];
            let bytes = [begin, &bytes].concat();
            if let Ok(Header::Whole { length, .. }) = read(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
