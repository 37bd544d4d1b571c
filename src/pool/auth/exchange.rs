//! The conversations in which a client proves that it knows a password: in clear text, md5, SCRAM-SHA-256.

use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    Auth, Captured, Claim, Gained, Proof, Reason, md5, refused, scram,
    scram::{
        ITERATIONS_MAX, Keys, NONCE_LEN,
        server::{Binding, Exchange, Failure},
    },
    send,
    users::Known,
};
use crate::{
    config::{pool::UserSecret, secret::Secret},
    pool::{
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
/// Longest PasswordMessage: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH is 65,535, PgBouncer's MAX_PASSWORD 2,048.
const PASSWORD_LEN_MAX: u32 = 4096;

/// Asks for the password itself. Where only a hash or verifier of it is known, it is good for servers as well. Who is not
/// known and would have a verifier (`has_verifier`) is refused after as much work as who has one.
pub(super) async fn plain<S>(
    io: &mut S,
    user: &str,
    known: Option<&Known>,
    has_verifier: bool,
    auth: &Auth,
) -> Result<Gained, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(io, backend::authentication_cleartext).await?;
    let body = read_answer(io, PASSWORD_LEN_MAX).await?;
    let given = cstr(&body)?;
    let Ok(given) = std::str::from_utf8(given).map(Secret::new) else {
        return Err(refused(user, Reason::WrongPassword));
    };
    let given_bytes = given.expose().as_bytes();
    let right = match known {
        None => {
            if has_verifier && !given_bytes.is_empty() {
                let mock = auth.deriver.mock_verifier(user, auth.scram_iterations);
                auth.deriver.verify(&given, &mock).await.map_err(|_| PoolError::Internal)?;
            }
            return Err(refused(user, Reason::UnknownUser));
        }
        Some(known) => match (&known.user.secret, &known.verifier) {
            // An empty password is none (PostgreSQL refuses it as well, in CheckPasswordAuth).
            _ if given_bytes.is_empty() => false,
            (UserSecret::Plain(password), _) => same(password.expose(), given_bytes),
            (UserSecret::Several(passwords), _) => {
                passwords.iter().fold(false, |right, password| right | same(password.expose(), given_bytes))
            }
            (UserSecret::Md5(stored), _) => same(stored.expose(), md5::stored(given.expose(), user).as_bytes()),
            // Whoever may change a role's password chose the rounds, and who computes them here is us.
            (UserSecret::Scram(_), Some(verifier)) if verifier.iterations <= ITERATIONS_MAX => {
                auth.deriver.verify(&given, verifier).await.map_err(|_| PoolError::Internal)?
            }
            (UserSecret::Scram(_) | UserSecret::Absent, _) => {
                return Err(refused(user, Reason::UnusableSecret));
            }
        },
    };
    if !right {
        return Err(refused(user, Reason::WrongPassword));
    }
    let gained = known.is_some_and(|known| matches!(known.user.secret, UserSecret::Md5(_) | UserSecret::Scram(_)));
    Ok(if gained { Gained::Secret(UserSecret::Plain(given)) } else { Gained::Nothing })
}

/// Compares in a time that does not depend on where they differ.
fn same(password: &str, given: &[u8]) -> bool {
    password.as_bytes().ct_eq(given).into()
}

pub(super) async fn md5<S>(io: &mut S, user: &str, known: Option<&Known>, salt: [u8; 4]) -> Result<Gained, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(io, |out| backend::authentication_md5(out, salt)).await?;
    let body = read_answer(io, MESSAGE_LEN_MAX).await?;
    let given = cstr(&body)?;
    let of = |password: &Secret| md5::stored(password.expose(), user);
    let stored = match known.map(|known| &known.user.secret) {
        Some(UserSecret::Plain(password)) if !password.expose().is_empty() => Ok(vec![of(password)]),
        Some(UserSecret::Several(passwords)) => Ok(passwords.iter().map(of).collect()),
        Some(UserSecret::Md5(stored)) => Ok(vec![stored.expose().to_owned()]),
        Some(UserSecret::Plain(_) | UserSecret::Scram(_) | UserSecret::Absent) => Err(Reason::UnusableSecret),
        None => Err(Reason::UnknownUser),
    };
    // Unknown users cost the same hash; the result is not looked at.
    let mock = [String::new()];
    let candidates = stored.as_deref().unwrap_or(&mock);
    let right = candidates.iter().fold(false, |right, stored| right | md5::verify(stored, salt, given));
    match stored {
        Ok(_) if right => Ok(Gained::Nothing),
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
    /// Any of them is right: all have the one salt that is ours.
    Passwords(&'a [Secret]),
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
                UserSecret::Plain(password) if !password.expose().is_empty() => {
                    CheckKeys::Passwords(std::slice::from_ref(password))
                }
                UserSecret::Several(passwords) => CheckKeys::Passwords(passwords),
                UserSecret::Plain(_) | UserSecret::Md5(_) | UserSecret::Scram(_) | UserSecret::Absent => {
                    CheckKeys::Mock(Reason::UnusableSecret)
                }
            },
            None => CheckKeys::Mock(Reason::UnknownUser),
        };
        Self { salt: auth.deriver.salt(user).into(), iterations: auth.scram_iterations, keys }
    }

    /// Returns stored key and server key of everything that would be right, and why nothing is.
    async fn candidates(
        &self,
        user: &str,
        auth: &Auth,
    ) -> Result<(Vec<(scram::Key, scram::Key)>, Option<Reason>), PoolError> {
        match &self.keys {
            CheckKeys::Verifier(verifier) => Ok((vec![(verifier.stored, verifier.server)], None)),
            CheckKeys::Passwords(passwords) => {
                let mut found = Vec::with_capacity(passwords.len());
                for password in *passwords {
                    let keys = auth.deriver.keys(password, &self.salt, self.iterations).await;
                    let keys = keys.map_err(|_| PoolError::Internal)?;
                    found.push((keys.stored, keys.server));
                }
                Ok((found, None))
            }
            CheckKeys::Mock(reason) => Ok((vec![auth.deriver.mock(user)], Some(*reason))),
        }
    }
}

pub(super) async fn scram<S>(
    io: &mut S,
    claim: &Claim<'_>,
    known: Option<&Known>,
    auth: &Auth,
    nonce: [u8; NONCE_LEN],
) -> Result<Proof, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let user = claim.user;
    let end_point = claim.tls.and_then(|tls| tls.end_point.as_deref());
    // PostgreSQL's order: clients take the first they can (CheckSASLAuth, auth-scram.c).
    let offered = [scram::MECHANISM_PLUS, scram::MECHANISM];
    let offered = if end_point.is_some() { &offered[..] } else { &offered[1..] };
    send(io, |out| backend::authentication_sasl(out, offered)).await?;
    let body = read_answer(io, MESSAGE_LEN_MAX).await?;
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

    let client_final = read_answer(io, MESSAGE_LEN_MAX).await?;
    let (candidates, doomed) = check.candidates(user, auth).await?;
    let mut proven = None;
    for (stored, server) in candidates {
        match exchange.finish(&client_final, &stored, &server) {
            Err(Failure::Malformed(e)) => return Err(malformed(e.0)),
            Err(Failure::WrongProof) => {}
            Ok(right) => proven = Some((right, server)),
        }
    }
    let (proven, server) = match (proven, doomed) {
        (_, Some(reason)) => return Err(refused(user, reason)),
        (None, None) => return Err(refused(user, Reason::WrongPassword)),
        (Some(proven), None) => proven,
    };
    // Only a verifier that was made elsewhere can be one that a server has too; the salt of a plain password is ours.
    let gained = match check.keys {
        CheckKeys::Verifier(_) => {
            let keys = Keys::from_client_key(proven.client_key, server);
            Gained::Keys(Captured { keys, salt: check.salt, iterations: check.iterations }.into())
        }
        CheckKeys::Passwords(_) | CheckKeys::Mock(_) => Gained::Nothing,
    };
    Ok(Proof { gained, server_final: Some(proven.server_final) })
}

/// Reads the body of the client's next message, which must be a `p`. Nothing behind it is taken from the socket.
async fn read_answer<S: AsyncRead + Unpin>(io: &mut S, limit: u32) -> Result<Vec<u8>, PoolError> {
    let mut header = [0; HEADER_LEN];
    // psql hangs up here to ask its user for the password: nobody to tell, nothing wrong.
    io.read_exact(&mut header).await.map_err(|_| PoolError::ClientGone)?;
    match header[0] {
        tag::PASSWORD => {}
        tag::TERMINATE => return Err(PoolError::ClientGone),
        _ => return Err(malformed("expected a password or SASL message")),
    }
    let header = Header::parse(header, limit).map_err(|_| malformed("its length is not what it can be"))?;
    let mut body = vec![0; header.body_len()];
    io.read_exact(&mut body).await.map_err(|_| PoolError::ClientGone)?;
    Ok(body)
}

/// Returns the text of a PasswordMessage.
fn cstr(body: &[u8]) -> Result<&[u8], PoolError> {
    let mut reader = Reader::new(body);
    let given = reader.cstr().and_then(|given| reader.end().map(|()| given));
    given.map_err(|_| malformed("a password must end with a NUL"))
}

fn malformed(why: &'static str) -> PoolError {
    PoolError::AuthenticationProtocol { why }
}
