//! Writers of what a server says. Each appends one whole message.

use super::{
    frame::{put_cstr, write},
    tag::backend as tag,
};

/// How bad an error is. After a `Fatal` the sender closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
    Warning,
    Notice,
}

impl Severity {
    /// Returns the word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// The last byte of ReadyForQuery: where the session stands with its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxStatus {
    #[default]
    Idle,
    InTransaction,
    Failed,
}

impl TxStatus {
    /// Reads the status byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// Returns the byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// Text of an error or notice.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    pub severity: Severity,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
}

/// Appends an ErrorResponse.
pub fn error_response(out: &mut Vec<u8>, report: &Report<'_>) {
    error_response_of(out, report, None);
}

/// Appends an ErrorResponse that names the function it comes from.
pub fn error_response_of(out: &mut Vec<u8>, report: &Report<'_>, routine: Option<&str>) {
    write(out, tag::ERROR_RESPONSE, |out| fields(out, report, routine));
}

/// Appends a NoticeResponse.
pub fn notice_response(out: &mut Vec<u8>, report: &Report<'_>) {
    write(out, tag::NOTICE_RESPONSE, |out| fields(out, report, None));
}

fn fields(out: &mut Vec<u8>, report: &Report<'_>, routine: Option<&str>) {
    let word = report.severity.word();
    let optional = [(b'D', report.detail), (b'H', report.hint), (b'R', routine)];
    for (kind, text) in [(b'S', word), (b'V', word), (b'C', report.sqlstate), (b'M', report.message)] {
        out.push(kind);
        put_cstr(out, text.as_bytes());
    }
    for (kind, text) in optional {
        if let Some(text) = text {
            out.push(kind);
            put_cstr(out, text.as_bytes());
        }
    }
    out.push(0);
}

/// Appends AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, b"");
}

/// Appends AuthenticationCleartextPassword.
pub fn authentication_cleartext(out: &mut Vec<u8>) {
    authentication(out, 3, b"");
}

/// Appends AuthenticationMD5Password.
pub fn authentication_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

/// Appends AuthenticationSASL with the mechanisms offered, the preferred one first.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    write(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&10i32.to_be_bytes());
        for mechanism in mechanisms {
            put_cstr(out, mechanism.as_bytes());
        }
        out.push(0);
    });
}

/// Appends AuthenticationSASLContinue.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 11, data);
}

/// Appends AuthenticationSASLFinal.
pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 12, data);
}

fn authentication(out: &mut Vec<u8>, kind: i32, data: &[u8]) {
    write(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends BackendKeyData.
pub fn backend_key_data(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    write(out, tag::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Appends NegotiateProtocolVersion: the newest minor version spoken here, and the `_pq_.` options not known.
///
/// The version is the whole code (3.0 is 196608) as PostgreSQL sends it since 9.3.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, version: u32, unknown: &[&[u8]]) {
    write(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        for name in unknown {
            put_cstr(out, name);
        }
    });
}

/// Appends ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    write(out, tag::PARAMETER_STATUS, |out| {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value);
    });
}

/// Appends ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: TxStatus) {
    write(out, tag::READY_FOR_QUERY, |out| out.push(status.byte()));
}

/// Appends ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    write(out, tag::PARSE_COMPLETE, |_| {});
}

/// Appends CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    write(out, tag::CLOSE_COMPLETE, |_| {});
}

/// Appends EmptyQueryResponse.
pub fn empty_query_response(out: &mut Vec<u8>) {
    write(out, tag::EMPTY_QUERY_RESPONSE, |_| {});
}

/// Appends CommandComplete with its tag, such as `SELECT 1`.
pub fn command_complete(out: &mut Vec<u8>, command: &str) {
    write(out, tag::COMMAND_COMPLETE, |out| put_cstr(out, command.as_bytes()));
}

/// PostgreSQL's types that our own answers use, by OID.
pub mod oid {
    pub const INT8: u32 = 20;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const NUMERIC: u32 = 1700;
}

/// Appends RowDescription for columns in text format.
pub fn row_description<'a>(out: &mut Vec<u8>, columns: impl ExactSizeIterator<Item = (&'a str, u32)>) {
    write(out, tag::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&(columns.len() as i16).to_be_bytes());
        for (name, oid) in columns {
            put_cstr(out, name.as_bytes());
            let size: i16 = match oid {
                oid::INT8 => 8,
                oid::INT4 => 4,
                _ => -1,
            };
            out.extend_from_slice(&0i32.to_be_bytes()); // of no table
            out.extend_from_slice(&0i16.to_be_bytes()); // nor column of one
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes()); // type modifier
            out.extend_from_slice(&0i16.to_be_bytes()); // text
        }
    });
}

/// Appends DataRow of values in text format; `None` is NULL.
pub fn data_row<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
    write(out, tag::DATA_ROW, |out| {
        out.extend_from_slice(&(values.len() as i16).to_be_bytes());
        for value in values {
            match value {
                Some(value) => {
                    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                    out.extend_from_slice(value);
                }
                None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            }
        }
    });
}
