//! One startup packet, parsed: bytes in, [`Packet`] or a refusal out. Pure, and never panics.

use crate::pool::{
    client::startup::{Replication, StartupRequest, options},
    error::PoolError,
    wire::read::{Malformed, code, startup_parameters},
};

/// Longest name of a user or database, in bytes: PostgreSQL's NAMEDATALEN - 1.
pub const NAME_LEN_MAX: usize = 63;
/// Longest cancel key, in bytes (protocol 3.2).
const SECRET_LEN_MAX: usize = 256;
/// Prefix of protocol options; they are negotiated, never settings.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";
/// The newest minor version of the protocol: 3.2, which PostgreSQL 18 brought. 3.1 was never any server's.
const MINOR_MAX: u32 = 2;

/// A startup packet.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    TlsRequest,
    GssRequest,
    Cancel {
        pid: i32,
        secret: &'a [u8],
    },
    Startup {
        request: StartupRequest,
        /// `Some` when the client asked for more than there is: the protocol options it named.
        negotiate: Option<Vec<&'a [u8]>>,
    },
}

/// Parses what stands after the length field.
pub fn parse<'a>(body: &'a [u8], ignored: &[String]) -> Result<Packet<'a>, PoolError> {
    let Some((version, rest)) = body.split_first_chunk::<4>() else { return Err(malformed(Malformed)) };
    match u32::from_be_bytes(*version) {
        code::CANCEL_REQUEST => Ok(cancel(rest)),
        code::SSL_REQUEST if rest.is_empty() => Ok(Packet::TlsRequest),
        code::GSSENC_REQUEST if rest.is_empty() => Ok(Packet::GssRequest),
        code::SSL_REQUEST | code::GSSENC_REQUEST => Err(PoolError::EarlyData),
        version if version >> 16 == 3 => startup(rest, version & 0xffff, ignored),
        version => Err(PoolError::ProtocolVersion { major: (version >> 16) as u16, minor: (version & 0xffff) as u16 }),
    }
}

/// One that has no key, or none that can be one, is nobody's: of that too nothing is said.
fn cancel(body: &[u8]) -> Packet<'_> {
    match body.split_first_chunk() {
        Some((pid, secret)) if secret.len() <= SECRET_LEN_MAX => {
            Packet::Cancel { pid: i32::from_be_bytes(*pid), secret }
        }
        _ => Packet::Cancel { pid: 0, secret: &[] },
    }
}

/// A packet of 10,000 bytes may name thousands, each of which would be kept apart until the login is over.
const SETTINGS_MAX: usize = 128;
const TOO_MANY: PoolError = PoolError::StartupPacket { why: "more than 128 settings" };

fn startup<'a>(body: &'a [u8], minor: u32, ignored: &[String]) -> Result<Packet<'a>, PoolError> {
    let (mut user, mut database, mut unknown) = (None, None, Vec::new());
    let (mut params, mut settings, mut replication) = (Vec::new(), Vec::new(), None);
    let is_ignored = |name: &str| ignored.iter().any(|i| i.eq_ignore_ascii_case(name));
    for (name, value) in startup_parameters(body).map_err(malformed)? {
        if name.starts_with(PROTOCOL_OPTION) {
            unknown.push(name);
            continue;
        }
        if params.len() + settings.len() > SETTINGS_MAX {
            return Err(TOO_MANY);
        }
        let (name, value) = (text(name)?, text(value)?);
        match name {
            "user" => user = Some(short_name(value)?),
            "database" => database = Some(short_name(value)?),
            _ if is_ignored(name) => {}
            "replication" => replication = read_replication(value)?,
            "options" => settings = options::parse(value)?,
            _ if options::is_setting_name(name) => params.push((name.to_owned(), value.to_owned())),
            _ => return Err(options::bad_name(name)),
        }
    }
    if params.len() + settings.len() > SETTINGS_MAX {
        return Err(TOO_MANY);
    }
    settings.retain(|(name, _)| !is_ignored(name));
    let user = user.filter(|u| !u.is_empty()).ok_or(PoolError::NoUserName)?;
    // An empty name counts as none, as in PostgreSQL.
    let database = database.filter(|d| !d.is_empty()).unwrap_or(user);
    let request = StartupRequest {
        user: user.to_owned(),
        database: database.to_owned(),
        params,
        options: settings,
        replication,
        minor: minor.min(MINOR_MAX),
    };
    let negotiate = (minor > MINOR_MAX || !unknown.is_empty()).then_some(unknown);
    Ok(Packet::Startup { request, negotiate })
}

/// Reads a boolean, or `database` (`ProcessStartupPacket`; `parse_bool` takes the words' beginnings, all but `o`).
fn read_replication(value: &str) -> Result<Option<Replication>, PoolError> {
    let value = value.to_ascii_lowercase();
    let is = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    match () {
        () if value == "database" => Ok(Some(Replication::Logical)),
        () if is("true", 1) || is("yes", 1) || is("on", 2) || value == "1" => Ok(Some(Replication::Physical)),
        () if is("false", 1) || is("no", 1) || is("off", 2) || value == "0" => Ok(None),
        () => Err(PoolError::Replication),
    }
}

fn short_name(name: &str) -> Result<&str, PoolError> {
    if name.len() <= NAME_LEN_MAX {
        Ok(name)
    } else {
        Err(PoolError::StartupPacket { why: "a user or database name is longer than 63 bytes" })
    }
}

fn text(bytes: &[u8]) -> Result<&str, PoolError> {
    std::str::from_utf8(bytes).map_err(|_| PoolError::StartupPacket { why: "it is not UTF-8" })
}

fn malformed(_: Malformed) -> PoolError {
    PoolError::StartupPacket { why: "it does not have the layout of one" }
}
