//! The five bytes before every message: a tag, and a length that counts itself but not the tag.
//!
//! The length is the peer's word and is checked before anything is done with it (CVE-2026-6664 was arithmetic on an
//! unchecked one): below four it is not a length, above the configured limit it is refused.

/// Bytes of a message header: tag and length.
pub const HEADER_LEN: usize = 5;

/// Bytes of a startup packet's length field, which has no tag before it.
pub const LENGTH_LEN: usize = 4;

/// A checked message header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    body_len: u32,
}

/// Why five bytes are no header. The stream cannot be understood any more after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("message length {len} is below the smallest possible")]
    TooShort { tag: u8, len: u32 },
    #[error("message of {len} bytes is over the limit of {limit}")]
    TooLong { tag: u8, len: u32, limit: u32 },
}

impl Header {
    /// Reads a header; `max_len` bounds the length field (tag not counted).
    pub fn parse(bytes: [u8; HEADER_LEN], max_len: u32) -> Result<Self, HeaderError> {
        let [tag, rest @ ..] = bytes;
        let len = u32::from_be_bytes(rest);
        if len < 4 {
            return Err(HeaderError::TooShort { tag, len });
        }
        if len > max_len {
            return Err(HeaderError::TooLong { tag, len, limit: max_len });
        }
        Ok(Self { tag, body_len: len - 4 })
    }

    /// Reads the header at the start of `bytes`; `None` when fewer than five are there.
    pub fn peek(bytes: &[u8], max_len: u32) -> Result<Option<Self>, HeaderError> {
        match bytes.first_chunk::<HEADER_LEN>() {
            Some(header) => Self::parse(*header, max_len).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the bytes after the header.
    pub fn body_len(self) -> usize {
        self.body_len as usize
    }

    /// Returns the bytes of the whole message.
    pub fn total_len(self) -> usize {
        self.body_len as usize + HEADER_LEN
    }

    /// Returns the header as it is sent.
    pub fn bytes(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = (self.body_len + 4).to_be_bytes();
        [self.tag, a, b, c, d]
    }
}

/// A message that is there from end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub tag: u8,
    pub body: &'a [u8],
}

impl Message<'_> {
    /// Returns the bytes of the whole message.
    pub fn total_len(&self) -> usize {
        self.body.len() + HEADER_LEN
    }
}

/// Reads the message at the start of `bytes`; `None` when it is not all there.
pub fn whole(bytes: &[u8], max_len: u32) -> Result<Option<Message<'_>>, HeaderError> {
    let Some(header) = Header::peek(bytes, max_len)? else { return Ok(None) };
    Ok(bytes.get(HEADER_LEN..header.total_len()).map(|body| Message { tag: header.tag, body }))
}

/// Appends one message: `body` writes its bytes, the length is put in afterwards.
///
/// # Panics
/// When the body is over 2 GiB: what we write ourselves is short, and what is long is streamed.
pub fn write(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    write_untagged(out, body);
}

/// Appends a length and what `body` writes: the form of a startup packet.
///
/// # Panics
/// As [`write`].
pub fn write_untagged(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_LEN]);
    body(out);
    let len = i32::try_from(out.len() - at).expect("messages we write ourselves are far below 2 GiB");
    out[at..at + LENGTH_LEN].copy_from_slice(&len.to_be_bytes());
}

/// Appends `text` and the NUL that ends it. A NUL inside would end it early for the peer, so the text is cut there.
pub fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}
