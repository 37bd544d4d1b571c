//! One spelling for a host: lower case, no port, no trailing dot. Written into the caller's buffer.

/// The longest host a request can have and still be known: a DNS name has 253 characters, an IPv6 literal far fewer.
pub(crate) const LENGTH_MAX: usize = 255;

/// Returns the host of a Host header as routes are keyed by it; `None` if it cannot name a host.
///
/// RFC 9110 section 7.2: `uri-host [ ":" port ]`, where an IPv6 address stands in brackets, so the first colon outside of
/// brackets begins the port.
pub(crate) fn normalised<'a>(written: &[u8], buffer: &'a mut [u8; LENGTH_MAX]) -> Option<&'a [u8]> {
    let name = without_port(written)?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let place = buffer.get_mut(..name.len())?;
    place.copy_from_slice(name);
    place.make_ascii_lowercase();
    Some(place)
}

fn without_port(written: &[u8]) -> Option<&[u8]> {
    let name_end = match written.first()? {
        b'[' => memchr::memchr(b']', written)? + 1,
        _ => memchr::memchr(b':', written).unwrap_or(written.len()),
    };
    let (name, port) = written.split_at(name_end);
    match port {
        [] => Some(name),
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => Some(name),
        _ => None,
    }
}
