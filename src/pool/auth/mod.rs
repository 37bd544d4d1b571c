//! Client authentication: a StartupRequest comes in, a user who has proven who it is goes out.
//!
//! The pool is the server here: it asks for a proof (md5 or SCRAM-SHA-256) and checks it against what the configuration
//! knows. Nobody learns from outside which users exist: an unknown user goes through the same exchange, with a salt that
//! is as stable as a real one, and fails at the end with the same words. Nothing about databases is said before that.
//!
//! - [`users`] who may log in; [`scram`] and [`md5`] the methods, pure; [`derive`] the slow part, cached and bounded.
//! - Randomness is an argument ([`Random`]) so that an exchange can be tested.
//!
//! Source: PostgreSQL documentation, "SASL Authentication"; auth.c and auth-scram.c.

pub mod derive;
pub mod md5;
pub mod scram;
pub mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::info;

use self::{
    derive::Deriver,
    scram::{
        Keys, NONCE_LEN,
        server::{Binding, Exchange, Failure},
    },
    users::{Known, Users},
};
use crate::{
    config::pool::{AuthType, ClientTls, UserSecret},
    pool::{
        client::deadline::LoginDeadline,
        error::PoolError,
        wire::{
            backend,
            frame::{HEADER_LEN, Header},
            read::{Reader, SaslInitial},
            tag::frontend as tag,
        },
    },
};

/// Longest message of the exchange, its length field included: PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH is 1,024.
const MESSAGE_LEN_MAX: u32 = 1024;

/// How clients of one configuration prove who they are.
pub struct Auth {
    pub auth_type: AuthType,
    pub users: Users,
    pub scram_iterations: u32,
    /// TLS for those who ask for it, or must.
    pub tls: Option<ClientTls>,
    /// Shared by all configurations of the process.
    pub deriver: Arc<Deriver>,
}

impl Auth {
    /// Computes the keys of every user whose plain password is known, so that neither the first login after a start is
    /// slower than an unknown user's (which would tell them apart), nor a crowd of different users waits in line for it.
    /// Meant for a task of its own at start and reload; what is known already costs nothing.
    ///
    /// Cancel safe.
    pub async fn warm(&self) {
        if self.auth_type != AuthType::ScramSha256 {
            return;
        }
        for user in self.users.iter() {
            if let UserSecret::Plain(password) = &user.secret {
                let salt = self.deriver.salt(&user.name);
                if self.deriver.keys(password, &salt, self.scram_iterations).await.is_err() {
                    return; // the process is stopping
                }
            }
        }
    }
}

/// What must be new in every exchange.
#[derive(Clone, Copy)]
pub struct Random {
    md5_salt: [u8; 4],
    nonce: [u8; NONCE_LEN],
}

impl Random {
    /// Draws from `rng`, which must be fit for cryptography outside of tests.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let mut random = Self { md5_salt: [0; 4], nonce: [0; NONCE_LEN] };
        rng.fill_bytes(&mut random.md5_salt);
        rng.fill_bytes(&mut random.nonce);
        random
    }
}

/// A client that has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    pub user: String,
    /// What a SCRAM login leaves behind: enough to log in to a server that has the same verifier.
    pub captured: Option<Arc<Captured>>,
}

/// The keys of a SCRAM login, with the verifier they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub keys: Keys,
    pub salt: Box<[u8]>,
    pub iterations: u32,
}

/// Why a login was refused: for the log, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    UnknownUser,
    WrongPassword,
    /// The configuration knows an md5 hash or an unreadable verifier, and the method needs something else.
    UnusableSecret,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownUser => "no such user",
            Self::WrongPassword => "wrong password",
            Self::UnusableSecret => {
                "the user's secret does not fit auth_type: scram-sha-256 needs a password or a verifier"
            }
        }
    }
}

/// Asks the client for a proof and, when it is right, says AuthenticationOk. `end_point` is the `tls-server-end-point` of
/// the connection, to which a SCRAM proof may be bound.
///
/// Not cancel safe: an abandoned call leaves the stream inside the exchange.
pub async fn authenticate<S>(
    io: &mut S,
    user: &str,
    auth: &Auth,
    end_point: Option<&[u8]>,
    random: Random,
    deadline: LoginDeadline,
) -> Result<Authenticated, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    deadline.guard(exchange(io, user, auth, end_point, random)).await
}

async fn exchange<S>(
    io: &mut S,
    user: &str,
    auth: &Auth,
    end_point: Option<&[u8]>,
    random: Random,
) -> Result<Authenticated, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let known = auth.users.known(user);
    let scram_only = known.is_some_and(|known| matches!(known.user.secret, UserSecret::Scram(_)));
    let captured = match auth.auth_type {
        AuthType::Trust if known.is_some() => {
            send(io, backend::authentication_ok).await?;
            None
        }
        AuthType::Trust => return Err(refused(user, Reason::UnknownUser)),
        // A user of whom only a verifier is known can log in by SCRAM alone; PgBouncer's md5 does the same.
        AuthType::Md5 if !scram_only => {
            md5_exchange(io, user, known, random.md5_salt).await?;
            None
        }
        AuthType::Md5 | AuthType::ScramSha256 => scram_exchange(io, user, known, auth, end_point, random.nonce).await?,
    };
    Ok(Authenticated { user: user.to_owned(), captured })
}

async fn md5_exchange<S>(io: &mut S, user: &str, known: Option<&Known>, salt: [u8; 4]) -> Result<(), PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(io, |out| backend::authentication_md5(out, salt)).await?;
    let body = read_answer(io).await?;
    let mut reader = Reader::new(&body);
    let given = reader.cstr().and_then(|given| reader.end().map(|()| given));
    let given = given.map_err(|_| PoolError::AuthenticationProtocol { why: "a password must end with a NUL" })?;
    let stored = match known.map(|known| &known.user.secret) {
        Some(UserSecret::Plain(password)) => Ok(md5::stored(password.expose(), user)),
        Some(UserSecret::Md5(stored)) => Ok(stored.expose().to_owned()),
        Some(UserSecret::Scram(_)) => Err(Reason::UnusableSecret),
        None => Err(Reason::UnknownUser),
    };
    // Unknown users cost the same hash; the result is not looked at.
    let right = md5::verify(stored.as_deref().unwrap_or_default(), salt, given);
    match stored {
        Ok(_) if right => send(io, backend::authentication_ok).await,
        Ok(_) => Err(refused(user, Reason::WrongPassword)),
        Err(reason) => Err(refused(user, reason)),
    }
}

/// What the proof is checked against.
struct Check<'a> {
    salt: Box<[u8]>,
    iterations: u32,
    keys: CheckKeys<'a>,
}

enum CheckKeys<'a> {
    Verifier(&'a scram::Verifier),
    Password(&'a crate::config::secret::Secret),
    /// Goes through the motions.
    Mock(Reason),
}

impl<'a> Check<'a> {
    fn of(user: &str, known: Option<&'a Known>, auth: &Auth) -> Self {
        let keys = match known {
            Some(Known { verifier: Some(verifier), .. }) => {
                let (salt, iterations) = (verifier.salt.clone(), verifier.iterations);
                return Self { salt, iterations, keys: CheckKeys::Verifier(verifier) };
            }
            Some(known) => match &known.user.secret {
                UserSecret::Plain(password) => CheckKeys::Password(password),
                UserSecret::Md5(_) | UserSecret::Scram(_) => CheckKeys::Mock(Reason::UnusableSecret),
            },
            None => CheckKeys::Mock(Reason::UnknownUser),
        };
        Self { salt: auth.deriver.salt(user).into(), iterations: auth.scram_iterations, keys }
    }
}

async fn scram_exchange<S>(
    io: &mut S,
    user: &str,
    known: Option<&Known>,
    auth: &Auth,
    end_point: Option<&[u8]>,
    nonce: [u8; NONCE_LEN],
) -> Result<Option<Arc<Captured>>, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // PostgreSQL's order: clients take the first they can (CheckSASLAuth, auth-scram.c).
    let offered = [scram::MECHANISM_PLUS, scram::MECHANISM];
    let offered = if end_point.is_some() { &offered[..] } else { &offered[1..] };
    send(io, |out| backend::authentication_sasl(out, offered)).await?;
    let body = read_answer(io).await?;
    let initial = SaslInitial::parse(&body).map_err(|_| malformed("not a SASLInitialResponse"))?;
    let binding = match end_point {
        Some(hash) if initial.mechanism == scram::MECHANISM_PLUS.as_bytes() => Binding::EndPoint(hash),
        _ if initial.mechanism != scram::MECHANISM.as_bytes() => {
            return Err(malformed("the client chose a SASL mechanism that was not offered"));
        }
        Some(_) => Binding::Declined,
        None => Binding::NotOffered,
    };
    let client_first = initial.data.ok_or(malformed("no initial response"))?;
    let check = Check::of(user, known, auth);
    let exchange = Exchange::start(client_first, &scram::nonce(&nonce), &check.salt, check.iterations, binding)
        .map_err(|e| malformed(e.0))?;
    send(io, |out| backend::authentication_sasl_continue(out, exchange.server_first().as_bytes())).await?;

    let client_final = read_answer(io).await?;
    let (stored, server, doomed) = match check.keys {
        CheckKeys::Verifier(verifier) => (verifier.stored, verifier.server, None),
        CheckKeys::Password(password) => {
            let keys = auth.deriver.keys(password, &check.salt, check.iterations).await;
            let keys = keys.map_err(|_| PoolError::Internal)?;
            (keys.stored, keys.server, None)
        }
        CheckKeys::Mock(reason) => {
            let (stored, server) = auth.deriver.mock(user);
            (stored, server, Some(reason))
        }
    };
    let proven = match (exchange.finish(&client_final, &stored, &server), doomed) {
        (Err(Failure::Malformed(e)), _) => return Err(malformed(e.0)),
        (_, Some(reason)) => return Err(refused(user, reason)),
        (Err(Failure::WrongProof), None) => return Err(refused(user, Reason::WrongPassword)),
        (Ok(proven), None) => proven,
    };
    send(io, |out| {
        backend::authentication_sasl_final(out, proven.server_final.as_bytes());
        backend::authentication_ok(out);
    })
    .await?;
    // Only a verifier of the configuration can be one that a server has too; the salt of a plain password is ours.
    let passes_through = matches!(check.keys, CheckKeys::Verifier(_));
    let keys = Keys::from_client_key(proven.client_key, server);
    Ok(passes_through.then(|| Arc::new(Captured { keys, salt: check.salt, iterations: check.iterations })))
}

/// Reads the body of the client's next message, which must be a `p`. Nothing behind it is taken from the socket.
async fn read_answer<S: AsyncRead + Unpin>(io: &mut S) -> Result<Vec<u8>, PoolError> {
    let mut header = [0; HEADER_LEN];
    // psql hangs up here to ask its user for the password: nobody to tell, nothing wrong.
    io.read_exact(&mut header).await.map_err(|_| PoolError::ClientGone)?;
    match header[0] {
        tag::PASSWORD => {}
        tag::TERMINATE => return Err(PoolError::ClientGone),
        _ => return Err(malformed("expected a password or SASL message")),
    }
    let header = Header::parse(header, MESSAGE_LEN_MAX).map_err(|_| malformed("its length is not 4 to 1,024 bytes"))?;
    let mut body = vec![0; header.body_len()];
    io.read_exact(&mut body).await.map_err(|_| PoolError::ClientGone)?;
    Ok(body)
}

async fn send<S: AsyncWrite + Unpin>(io: &mut S, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PoolError> {
    let mut out = Vec::with_capacity(256);
    write(&mut out);
    io.write_all(&out).await.map_err(|_| PoolError::ClientGone)?;
    io.flush().await.map_err(|_| PoolError::ClientGone)
}

fn malformed(why: &'static str) -> PoolError {
    PoolError::AuthenticationProtocol { why }
}

fn refused(user: &str, reason: Reason) -> PoolError {
    info!(user, reason = reason.as_str(), "client login refused");
    PoolError::Authentication { user: user.to_owned() }
}
