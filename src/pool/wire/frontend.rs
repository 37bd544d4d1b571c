//! Writers of what a client says: to log a server connection in, and what the relay puts between a client's messages.

use super::{
    frame::{put_cstr, write, write_untagged},
    read::code,
    tag::frontend as tag,
};

/// Appends a StartupMessage of a protocol version ([`super::read::code`]). `parameters` holds at least `user`.
pub fn startup<'a>(out: &mut Vec<u8>, version: u32, parameters: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
    write_untagged(out, |out| {
        out.extend_from_slice(&version.to_be_bytes());
        for (name, value) in parameters {
            put_cstr(out, name.as_bytes());
            put_cstr(out, value);
        }
        out.push(0);
    });
}

/// Appends an SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    write_untagged(out, |out| out.extend_from_slice(&code::SSL_REQUEST.to_be_bytes()));
}

/// Appends a CancelRequest.
pub fn cancel_request(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    write_untagged(out, |out| {
        out.extend_from_slice(&code::CANCEL_REQUEST.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Appends a PasswordMessage.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    write(out, tag::PASSWORD, |out| put_cstr(out, password));
}

/// Appends a SASLInitialResponse.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    write(out, tag::PASSWORD, |out| {
        put_cstr(out, mechanism.as_bytes());
        out.extend_from_slice(&(data.len() as i32).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends a SASLResponse.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    write(out, tag::PASSWORD, |out| out.extend_from_slice(data));
}

/// Appends a simple Query.
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    write(out, tag::QUERY, |out| put_cstr(out, sql));
}

/// Appends a Parse; `definition` is as in [`super::read::ParseBody`].
pub fn parse(out: &mut Vec<u8>, name: &[u8], definition: &[u8]) {
    write(out, tag::PARSE, |out| {
        put_cstr(out, name);
        out.extend_from_slice(definition);
    });
}

/// Appends a Bind of the statement `""` to the portal `""`, with parameters in text and results in text.
pub fn bind_text(out: &mut Vec<u8>, parameters: &[&[u8]]) {
    write(out, tag::BIND, |out| {
        // No portal, no statement, no formats: text.
        out.extend_from_slice(&[0, 0, 0, 0]);
        out.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            out.extend_from_slice(&(parameter.len() as i32).to_be_bytes());
            out.extend_from_slice(parameter);
        }
        out.extend_from_slice(&[0, 0]);
    });
}

/// Appends an Execute of the portal `""`, of all its rows.
pub fn execute(out: &mut Vec<u8>) {
    write(out, tag::EXECUTE, |out| out.extend_from_slice(&[0; 5]));
}

/// Appends a Close of a statement.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    write(out, tag::CLOSE, |out| {
        out.push(b'S');
        put_cstr(out, name);
    });
}

/// Appends a Sync.
pub fn sync(out: &mut Vec<u8>) {
    write(out, tag::SYNC, |_| {});
}

/// Appends a Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    write(out, tag::TERMINATE, |_| {});
}
