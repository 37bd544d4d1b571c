//! An address as text without `fmt`, which takes some 1,200 instructions for an IPv4 one: several are written for every
//! request.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

/// Bytes of the longest: an IPv6 address in brackets with a scope and a port.
const LENGTH_MAX: usize = 64;

/// The text, kept in place.
pub(super) struct AddressText {
    bytes: [u8; LENGTH_MAX],
    len: usize,
}

impl AddressText {
    /// Returns the text of an address; an IPv4 one that came as IPv6 is named by its IPv4 address.
    pub(super) fn of(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; LENGTH_MAX], len: 0 };
        match address.to_canonical() {
            IpAddr::V4(address) => text.put_octets(address.octets()),
            IpAddr::V6(address) => text.put_fmt(format_args!("{address}")),
        }
        text
    }

    /// Returns the text of an address with its port.
    pub(super) fn of_socket(address: SocketAddr) -> Self {
        let mut text = Self { bytes: [0; LENGTH_MAX], len: 0 };
        match address {
            SocketAddr::V4(address) => {
                text.put_octets(address.ip().octets());
                text.put(b":");
                text.put(itoa::Buffer::new().format(address.port()).as_bytes());
            }
            SocketAddr::V6(address) => text.put_fmt(format_args!("{address}")),
        }
        text
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put_octets(&mut self, octets: [u8; 4]) {
        for (place, octet) in octets.into_iter().enumerate() {
            if place > 0 {
                self.put(b".");
            }
            self.put(itoa::Buffer::new().format(octet).as_bytes());
        }
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    fn put_fmt(&mut self, text: std::fmt::Arguments<'_>) {
        let mut rest = &mut self.bytes[self.len..];
        // Cannot fail: the longest of all fits.
        let _ = rest.write_fmt(text);
        self.len = LENGTH_MAX - rest.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_fits() {
        let longest = "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535";
        assert_eq!(AddressText::of_socket(longest.parse().unwrap()).as_bytes(), longest.as_bytes());
    }

    proptest! {
        #[test]
        fn it_is_what_the_standard_library_says(address: IpAddr, port: u16) {
            let text = |text: AddressText| String::from_utf8_lossy(text.as_bytes()).into_owned();
            prop_assert_eq!(text(AddressText::of(address)), address.to_canonical().to_string());
            let socket = SocketAddr::new(address, port);
            prop_assert_eq!(text(AddressText::of_socket(socket)), socket.to_string());
        }
    }
}
