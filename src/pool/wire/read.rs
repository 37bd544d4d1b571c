//! Parsers for the bodies that must be understood. Each borrows from the body it is given.
//!
//! Bodies come from the network: a missing NUL, a count that promises more than is there, or bytes left over are a
//! [`Malformed`], never a panic. PostgreSQL answers such a message with 08P01 and so do we.

use super::frame::LENGTH_LEN;

/// A body that does not have the shape its tag promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed protocol message")]
pub struct Malformed;

/// Takes a body apart from the front.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Takes `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }

    /// Takes a two-byte integer.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        let bytes = self.rest.first_chunk().ok_or(Malformed)?;
        self.rest = &self.rest[2..];
        Ok(i16::from_be_bytes(*bytes))
    }

    /// Takes a four-byte integer.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        let bytes = self.rest.first_chunk().ok_or(Malformed)?;
        self.rest = &self.rest[4..];
        Ok(i32::from_be_bytes(*bytes))
    }

    /// Takes the bytes before the next NUL, and the NUL.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// Takes the text before the next NUL, which must be UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.cstr()?).map_err(|_| Malformed)
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// What a Describe or Close names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Parses the body of a Describe or Close.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        let name = reader.cstr()?;
        reader.end()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            _ => Err(Malformed),
        }
    }
}

/// The body of a Parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseBody<'a> {
    pub name: &'a [u8],
    /// Query text, its NUL, and the parameter types as they are sent: what makes two statements the same.
    pub definition: &'a [u8],
}

impl<'a> ParseBody<'a> {
    /// Parses and checks a whole body.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let definition = reader.rest();
        let mut reader = Reader::new(definition);
        reader.cstr()?;
        let types = u16::from_be_bytes(reader.i16()?.to_be_bytes()); // unsigned, as `pq_getmsgint` reads it
        reader.bytes(usize::from(types) * 4)?;
        reader.end()?;
        Ok(Self { name, definition })
    }
}

/// A ParameterStatus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Parses a whole body. The value is in the server's idea of the client's encoding, so it stays bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = reader.text()?;
        let value = reader.cstr()?;
        reader.end()?;
        Ok(Self { name, value })
    }
}

/// A NotificationResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// Of the backend that has notified.
    pub pid: i32,
    pub channel: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Parses a whole body. Texts are in the session's `client_encoding`.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let pid = reader.i32()?;
        let channel = reader.cstr()?;
        let payload = reader.cstr()?;
        reader.end()?;
        Ok(Self { pid, channel, payload })
    }
}

/// The fields of an ErrorResponse or NoticeResponse that somebody here asks for. Every field is optional on the wire
/// (CVE-2026-6666 was one that was not there).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorFields<'a> {
    /// `ERROR`, `FATAL`, … untranslated (`V`), or the translated one of a server before 9.6.
    pub severity: &'a [u8],
    /// SQLSTATE; empty when not sent.
    pub code: &'a [u8],
    pub message: &'a [u8],
    /// The function in PostgreSQL's source that reported it; unlike the message it is never translated.
    pub routine: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads what is there; a malformed body gives what was read before the fault.
    pub fn parse(body: &'a [u8]) -> Self {
        let mut fields = Self::default();
        let mut reader = Reader::new(body);
        while let Ok(kind) = reader.u8() {
            let Ok(value) = reader.cstr() else { break };
            match kind {
                b'V' => fields.severity = value,
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'C' => fields.code = value,
                b'M' => fields.message = value,
                b'R' => fields.routine = value,
                _ => {}
            }
        }
        fields
    }

    /// Returns whether the sender ends the session after this message.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// What a server asks for while a session logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthRequest<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// Mechanism names, each ended by a NUL, and a NUL at the end.
    Sasl {
        mechanisms: &'a [u8],
    },
    SaslContinue {
        data: &'a [u8],
    },
    SaslFinal {
        data: &'a [u8],
    },
    /// A method that is not spoken here: Kerberos, GSSAPI, SSPI.
    Other(i32),
}

impl<'a> AuthRequest<'a> {
    /// Parses the body of an Authentication message.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let request = match reader.i32()? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password { salt: reader.bytes(4)?.try_into().map_err(|_| Malformed)? },
            10 => return Ok(Self::Sasl { mechanisms: reader.rest() }),
            11 => return Ok(Self::SaslContinue { data: reader.rest() }),
            12 => return Ok(Self::SaslFinal { data: reader.rest() }),
            other => return Ok(Self::Other(other)),
        };
        reader.end()?;
        Ok(request)
    }
}

/// Splits the mechanism list of [`AuthRequest::Sasl`].
pub fn sasl_mechanisms(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == 0).take_while(|name| !name.is_empty())
}

/// A client's first SASL message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslInitial<'a> {
    pub mechanism: &'a [u8],
    /// `None` when the client sent no initial response.
    pub data: Option<&'a [u8]>,
}

impl<'a> SaslInitial<'a> {
    /// Parses the body of a SASLInitialResponse.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let mechanism = reader.cstr()?;
        let data = match reader.i32()? {
            -1 => None,
            len => Some(reader.bytes(usize::try_from(len).map_err(|_| Malformed)?)?),
        };
        reader.end()?;
        Ok(Self { mechanism, data })
    }
}

/// Process id and secret of a session, by which it can be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    pub pid: i32,
    /// Four bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: &'a [u8],
}

impl<'a> BackendKeyData<'a> {
    /// Parses a whole body.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let pid = reader.i32()?;
        let secret = reader.rest();
        if !(4..=256).contains(&secret.len()) { Err(Malformed) } else { Ok(Self { pid, secret }) }
    }
}

/// The newest protocol version a server speaks, when it was asked for a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NegotiateProtocolVersion {
    /// As in [`code`].
    pub version: u32,
    /// Protocol options that it does not know.
    pub unknown: u32,
}

impl NegotiateProtocolVersion {
    /// Parses a whole body.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (version, unknown) = (reader.i32()?.cast_unsigned(), reader.i32()?.cast_unsigned());
        for _ in 0..unknown {
            reader.cstr()?;
        }
        reader.end()?;
        Ok(Self { version, unknown })
    }
}

/// What stands in the four bytes after a startup packet's length.
pub mod code {
    pub const PROTOCOL_3_0: u32 = 3 << 16;
    pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;
    pub const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
    pub const SSL_REQUEST: u32 = (1234 << 16) | 5679;
    pub const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
}

/// Reads the length field of a packet without tag; `None` when it is not all there, an error when it cannot be one.
pub fn startup_len(bytes: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
    let Some(len) = bytes.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes(*len)) {
        Ok(len) if (8..=max).contains(&len) => Ok(Some(len)),
        _ => Err(Malformed),
    }
}

/// Name and value of a startup parameter, as sent.
pub type StartupParameter<'a> = (&'a [u8], &'a [u8]);

/// Reads the names and values of a StartupMessage (what stands after the protocol version), in order.
pub fn startup_parameters(body: &[u8]) -> Result<Vec<StartupParameter<'_>>, Malformed> {
    let mut reader = Reader::new(body);
    let mut parameters = Vec::new(); // bound: the packet's, 10,000 bytes
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            reader.end()?;
            return Ok(parameters);
        }
        parameters.push((name, reader.cstr()?));
    }
}
