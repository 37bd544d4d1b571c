//! The login of a server connection: StartupMessage to the first ReadyForQuery.
//!
//! The pool is the client here and trusts the server no further than it must: messages are bounded one by one and all
//! together, a server that began SCRAM must finish it with the signature only the right server can make
//! (AuthenticationOk alone is an impostor's shortcut), notices and parameters may come at any time, every field of an
//! ErrorResponse may be missing, and a byte behind ReadyForQuery means that somebody miscounted: the connection is not
//! used. Who calls bounds the time.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::{
    credential::{ServerLogin, ServerSecret},
    error::ServerError,
};
use crate::{
    config::pool::{Asked, Protocol, RequireAuth},
    pool::{
        auth::{
            derive::Deriver,
            md5,
            scram::{
                self, Keys, NONCE_LEN,
                client::{self, Binding},
            },
        },
        wire::{
            backend::TxStatus,
            frame::{self, Message},
            frontend,
            read::{
                AuthRequest, BackendKeyData, ErrorFields, NegotiateProtocolVersion, ParameterStatus, code,
                sasl_mechanisms,
            },
            tag::backend as tag,
        },
    },
};

/// Longest message before ReadyForQuery, length field included.
const MESSAGE_LEN_MAX: u32 = 64 * 1024;
/// Bytes of all messages before ReadyForQuery.
const LOGIN_LEN_MAX: usize = 1024 * 1024;
/// Bytes read at a time; a whole login fits.
const READ_LEN: usize = 4096;

/// What the startup packet says.
#[derive(Debug, Clone, Copy)]
pub struct Greeting<'a> {
    pub dbname: &'a str,
    pub login: &'a ServerLogin,
    pub params: &'a [(String, String)],
    pub require_auth: RequireAuth,
    /// The newest version of the protocol to be spoken.
    pub protocol: Protocol,
    /// `tls-server-end-point` of the connection, if it has TLS: what a SCRAM proof is bound to when the server can.
    pub end_point: Option<&'a [u8]>,
}

/// A connection at its first ReadyForQuery, with nothing buffered.
#[derive(Debug)]
pub struct Fresh<S> {
    pub stream: S,
    pub key: BackendKey,
    /// As the server reported them, in order; of a name reported twice the later counts.
    pub params: Vec<(String, String)>,
}

/// By which the session can be cancelled.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct BackendKey {
    pub pid: i32,
    /// Empty when the server sent none; such a session cannot be cancelled.
    pub secret: Box<[u8]>,
}

impl std::fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Logs in over `stream`. `nonce` must be random.
///
/// Not cancel safe: an abandoned call leaves the stream inside the login (and drops it).
pub async fn login<S>(
    mut stream: S,
    greeting: Greeting<'_>,
    deriver: &Deriver,
    nonce: [u8; NONCE_LEN],
) -> Result<Fresh<S>, ServerError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(&mut stream, &startup(greeting)).await?;
    let mut progress = Progress {
        login: greeting.login,
        deriver,
        nonce: scram::nonce(&nonce),
        end_point: greeting.end_point,
        require_auth: greeting.require_auth,
        step: Step::Start,
    };
    let (mut key, mut params) = (BackendKey::default(), Vec::new());
    let mut incoming = Incoming::default();
    let mut first = true;
    loop {
        let message = incoming.next(&mut stream).await?;
        let is_first = std::mem::replace(&mut first, false);
        match message.tag {
            tag::NEGOTIATE_PROTOCOL_VERSION if is_first => negotiated(message.body, greeting.protocol)?,
            tag::AUTHENTICATION => {
                let request = AuthRequest::parse(message.body).map_err(|_| protocol("malformed Authentication"))?;
                if let Some(answer) = progress.authentication(request).await? {
                    send(&mut stream, &answer).await?;
                }
            }
            tag::ERROR_RESPONSE => return Err(error_response(message.body)),
            tag::NOTICE_RESPONSE => debug!("notice during server login"),
            // bound: LOGIN_LEN_MAX
            tag::PARAMETER_STATUS => params.push(parameter(message.body)?),
            tag::BACKEND_KEY_DATA if progress.done() => {
                let data = BackendKeyData::parse(message.body).map_err(|_| protocol("malformed BackendKeyData"))?;
                key = BackendKey { pid: data.pid, secret: data.secret.into() };
            }
            tag::READY_FOR_QUERY if progress.done() => {
                if message.body != [TxStatus::Idle.byte()] {
                    return Err(protocol("the first ReadyForQuery is not idle"));
                }
                break;
            }
            tag::BACKEND_KEY_DATA | tag::READY_FOR_QUERY => return Err(protocol("ready before authentication")),
            _ => return Err(protocol("a message that has no place in a login")),
        }
    }
    if incoming.is_empty() { Ok(Fresh { stream, key, params }) } else { Err(protocol("bytes behind ReadyForQuery")) }
}

fn startup(greeting: Greeting<'_>) -> Vec<u8> {
    // The last of a name counts: nothing that is given with a login says who logs in, or where.
    let given = greeting.params.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let given = given.filter(|(name, _)| !matches!(*name, "user" | "database"));
    let has_encoding = greeting.params.iter().any(|(name, _)| name.eq_ignore_ascii_case("client_encoding"));
    // What the pool reads of a server's answers (errors, parameters) it reads as UTF-8.
    let encoding = (!has_encoding).then_some(("client_encoding", &b"UTF8"[..]));
    let who = [("user", greeting.login.user.as_bytes()), ("database", greeting.dbname.as_bytes())];
    let mut out = Vec::with_capacity(256);
    frontend::startup(&mut out, version(greeting.protocol), who.into_iter().chain(encoding).chain(given));
    out
}

fn version(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::V3_0 => code::PROTOCOL_3_0,
        Protocol::V3_2 => code::PROTOCOL_3_2,
    }
}

/// Checks a server's answer that it speaks an older version: all that differs for us is the length of its cancel key.
fn negotiated(body: &[u8], asked: Protocol) -> Result<(), ServerError> {
    let answer = NegotiateProtocolVersion::parse(body);
    let answer = answer.map_err(|_| protocol("malformed NegotiateProtocolVersion"))?;
    // As libpq has it (pqGetNegotiateProtocolVersion3).
    if !(code::PROTOCOL_3_0..version(asked)).contains(&answer.version) || answer.unknown > 0 {
        return Err(protocol("a protocol version that was not asked for"));
    }
    Ok(())
}

/// Where the authentication stands.
enum Step {
    /// Left by the server's first request.
    Start,
    /// client-first was sent, with or without binding; left by server-first.
    ScramFirst { bound: bool },
    /// client-final was sent; left by server-final.
    ScramFinal(client::Expected),
    /// A password was sent or the server has proven itself; left by AuthenticationOk.
    Answered,
    /// AuthenticationOk.
    Done,
}

struct Progress<'a> {
    login: &'a ServerLogin,
    deriver: &'a Deriver,
    nonce: String,
    end_point: Option<&'a [u8]>,
    require_auth: RequireAuth,
    step: Step,
}

impl Progress<'_> {
    fn done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Takes one step; returns what is to be sent.
    async fn authentication(&mut self, request: AuthRequest<'_>) -> Result<Option<Vec<u8>>, ServerError> {
        self.check_allowed(&request)?;
        let mut out = Vec::new();
        self.step = match (std::mem::replace(&mut self.step, Step::Start), request) {
            (Step::Start | Step::Answered, AuthRequest::Ok) => Step::Done,
            (Step::ScramFirst { .. } | Step::ScramFinal(_), AuthRequest::Ok) => return Err(ServerError::Unproven),
            (Step::Start, AuthRequest::CleartextPassword) => {
                frontend::password(&mut out, self.cleartext()?.as_bytes());
                Step::Answered
            }
            (Step::Start, AuthRequest::Md5Password { salt }) => {
                frontend::password(&mut out, self.md5(salt)?.as_bytes());
                Step::Answered
            }
            (Step::Start, AuthRequest::Sasl { mechanisms }) => {
                let bound = self.check_mechanisms(mechanisms)?;
                let first = client::first(&self.nonce, self.binding(bound));
                let mechanism = if bound { scram::MECHANISM_PLUS } else { scram::MECHANISM };
                frontend::sasl_initial_response(&mut out, mechanism, first.as_bytes());
                Step::ScramFirst { bound }
            }
            (Step::ScramFirst { bound }, AuthRequest::SaslContinue { data }) => {
                let challenge = client::Challenge::read(&self.nonce, data).map_err(|e| protocol(e.0))?;
                let keys = self.keys(&challenge).await?;
                let (client_final, expected) = challenge.answer(&keys, self.binding(bound));
                frontend::sasl_response(&mut out, client_final.as_bytes());
                Step::ScramFinal(expected)
            }
            (Step::ScramFinal(expected), AuthRequest::SaslFinal { data }) => {
                if !expected.matches(data) {
                    return Err(ServerError::Unproven);
                }
                Step::Answered
            }
            (Step::Start, AuthRequest::Other(kind)) => return Err(unsupported(kind)),
            _ => return Err(protocol("an Authentication message out of turn")),
        };
        Ok((!out.is_empty()).then_some(out))
    }

    /// Checks, before anything is said, that the server may ask for this. What was asked first counts.
    fn check_allowed(&self, request: &AuthRequest<'_>) -> Result<(), ServerError> {
        let asked = match (&self.step, request) {
            (Step::Start, AuthRequest::Ok) => Asked::Nothing,
            (Step::Start, AuthRequest::CleartextPassword) => Asked::Password,
            (Step::Start, AuthRequest::Md5Password { .. }) => Asked::Md5,
            (Step::Start, AuthRequest::Sasl { .. }) => Asked::Scram,
            _ => return Ok(()),
        };
        if self.require_auth.allows(asked) { Ok(()) } else { Err(ServerError::NotAllowed { asked: asked.word() }) }
    }

    fn cleartext(&self) -> Result<&str, ServerError> {
        match &self.login.secret {
            ServerSecret::Plain(password) => Ok(password.expose()),
            _ => Err(self.credential("the server asks for the password in clear text")),
        }
    }

    fn md5(&self, salt: [u8; 4]) -> Result<String, ServerError> {
        match &self.login.secret {
            ServerSecret::Plain(password) => Ok(md5::answer(&md5::stored(password.expose(), &self.login.user), salt)),
            ServerSecret::Md5(stored) => Ok(md5::answer(stored.expose(), salt)),
            _ => Err(self.credential("the server asks for md5 and only a SCRAM verifier is known")),
        }
    }

    fn binding(&self, bound: bool) -> Binding<'_> {
        match self.end_point {
            Some(hash) if bound => Binding::EndPoint(hash),
            Some(_) => Binding::NotOffered,
            None => Binding::None,
        }
    }

    /// Checks, before anything is sent, that we can log in by SCRAM at all; returns whether with channel binding.
    fn check_mechanisms(&self, mechanisms: &[u8]) -> Result<bool, ServerError> {
        let offers = |wanted: &str| sasl_mechanisms(mechanisms).any(|name| name == wanted.as_bytes());
        let bound = self.end_point.is_some() && offers(scram::MECHANISM_PLUS);
        if !bound && !offers(scram::MECHANISM) {
            return Err(ServerError::Method { method: "SASL without SCRAM-SHA-256" });
        }
        match self.login.secret {
            ServerSecret::Plain(_) | ServerSecret::PassThrough(_) => Ok(bound),
            ServerSecret::Md5(_) | ServerSecret::Several(_) | ServerSecret::Nothing(_) => {
                Err(self.credential("the server asks for SCRAM and only an md5 hash is known"))
            }
        }
    }

    async fn keys(&self, challenge: &client::Challenge) -> Result<Keys, ServerError> {
        match &self.login.secret {
            ServerSecret::Plain(password) => {
                let keys = self.deriver.keys(password, &challenge.salt, challenge.iterations).await;
                keys.map_err(|_| self.credential("the computation of its keys was interrupted"))
            }
            ServerSecret::PassThrough(c) if c.salt == challenge.salt && c.iterations == challenge.iterations => {
                Ok(c.keys.clone())
            }
            _ => Err(self.credential("the server's SCRAM verifier is another one than auth_file or users: has")),
        }
    }

    fn credential(&self, why: &'static str) -> ServerError {
        let why = if let ServerSecret::Nothing(reason) = self.login.secret { reason } else { why };
        ServerError::Credential { user: self.login.user.to_string(), why }
    }
}

fn unsupported(kind: i32) -> ServerError {
    let method = match kind {
        2 => "Kerberos",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "unknown",
    };
    ServerError::Method { method }
}

pub(super) fn error_response(body: &[u8]) -> ServerError {
    let fields = ErrorFields::parse(body);
    let code = std::str::from_utf8(fields.code).ok();
    let message = String::from_utf8_lossy(fields.message);
    ServerError::refused(code, Some(&*message).filter(|m| !m.is_empty()))
}

pub(super) fn parameter(body: &[u8]) -> Result<(String, String), ServerError> {
    let status = ParameterStatus::parse(body).map_err(|_| protocol("malformed ParameterStatus"))?;
    Ok((status.name.to_owned(), String::from_utf8_lossy(status.value).into_owned()))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), ServerError> {
    stream.write_all(bytes).await.map_err(|_| ServerError::Closed)?;
    stream.flush().await.map_err(|_| ServerError::Closed)
}

fn protocol(why: &'static str) -> ServerError {
    ServerError::Protocol { why }
}

/// The server's messages, one at a time.
#[derive(Default)]
struct Incoming {
    /// bound: LOGIN_LEN_MAX
    bytes: Vec<u8>,
    /// Bytes at the front that belong to messages already handed out.
    taken: usize,
    total: usize,
}

impl Incoming {
    async fn next<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<Message<'_>, ServerError> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        loop {
            if let Some(len) = self.whole()? {
                self.taken = len;
                let body = &self.bytes[frame::HEADER_LEN..len];
                return Ok(Message { tag: self.bytes[0], body });
            }
            let mut chunk = [0; READ_LEN];
            let n = match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return Err(self.ended()),
                Ok(n) => n,
            };
            self.total += n;
            if self.total > LOGIN_LEN_MAX {
                return Err(protocol("more than 1 MiB before ReadyForQuery"));
            }
            self.bytes.extend_from_slice(&chunk[..n]);
        }
    }

    fn whole(&self) -> Result<Option<usize>, ServerError> {
        match frame::whole(&self.bytes, MESSAGE_LEN_MAX) {
            Ok(message) => Ok(message.map(|m| m.total_len())),
            Err(_) => Err(self.fork_failure().unwrap_or(protocol("a message of impossible length"))),
        }
    }

    fn ended(&self) -> ServerError {
        self.fork_failure().unwrap_or(ServerError::Closed)
    }

    /// A postmaster that cannot fork has no memory for protocol 3: it sends `E`, a line of text and a NUL
    /// (`report_fork_failure_to_client` in postmaster.c).
    fn fork_failure(&self) -> Option<ServerError> {
        let text = self.bytes.strip_prefix(b"E").filter(|text| text.len() > 4 && text[0].is_ascii_graphic())?;
        let text = text.split(|&b| b == 0).next()?;
        Some(ServerError::refused(Some("53000"), Some(String::from_utf8_lossy(text).trim())))
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == self.taken
    }
}
