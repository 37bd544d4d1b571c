//! Client authentication: a StartupRequest comes in, a user who has proven who it is goes out.
//!
//! The pool is the server here: it asks for a proof and checks it against what the configuration knows, or what a
//! [`Directory`] (`auth_query`) finds out. Nobody learns from outside which users exist: an unknown user goes through the
//! same exchange, with a salt that is as stable as a real one, and fails at the end with the same words. Nothing about
//! databases is said before that.
//!
//! - [`users`] who may log in; [`exchange`] the conversations; [`scram`] and [`md5`] the methods, pure; [`derive`] the slow
//!   part, cached and bounded; [`identity`] proofs that need no conversation; [`throttle`] who has failed too often.
//! - Randomness is an argument ([`Random`]) so that an exchange can be tested.
//!
//! Source: PostgreSQL documentation, "SASL Authentication"; auth.c and auth-scram.c.

pub mod derive;
mod exchange;
pub mod identity;
pub mod md5;
pub mod scram;
pub mod throttle;
pub mod users;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, ops::Deref, sync::Arc};

use rand::Rng;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use tracing::info;

use self::{
    derive::Deriver,
    scram::{Keys, NONCE_LEN},
    throttle::Gate,
    users::{Known, Users},
};
use crate::{
    config::pool::{
        AuthType, ClientTls, UserSecret,
        hba::{Asked, Hba, IdentMap, Method},
    },
    pool::{client::deadline::LoginDeadline, error::PoolError, wire::backend},
};

/// How clients of one configuration prove who they are.
pub struct Auth {
    pub auth_type: AuthType,
    /// With `auth_type: hba`.
    pub hba: Option<Arc<Hba>>,
    pub users: Users,
    pub scram_iterations: u32,
    /// TLS for those who ask for it, or must.
    pub tls: Option<ClientTls>,
    /// Shared by all configurations of the process.
    pub deriver: Arc<Deriver>,
}

/// Who a client says it is, and what is known of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub user: &'a str,
    /// The database it asks for.
    pub database: &'a str,
    pub replication: bool,
    pub origin: Origin,
    pub tls: Option<&'a UnderTls>,
    /// Whether it is heard at all.
    pub gate: Gate<'a>,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Address(IpAddr),
    /// On this machine, by a Unix socket: a process of this system user, if the kernel says so.
    Socket {
        uid: Option<u32>,
    },
}

/// What the handshake of a connection told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnderTls {
    /// `tls-server-end-point`: what a SCRAM proof may be bound to.
    pub end_point: Option<Arc<[u8]>>,
    /// The common name of the certificate that the client showed and that has been verified.
    pub client_name: Option<String>,
}

/// Finds users that the configuration does not know.
pub trait Directory: Sync {
    /// Returns what is known of `user`, who asks for `database`; `None`: there is no such user. Cancel safe.
    ///
    /// # Errors
    /// It could not be found out.
    fn find(&self, user: &str, database: &str) -> impl Future<Output = Result<Option<Arc<Known>>, PoolError>> + Send;

    /// A proof did not fit what was found: it may be out of date.
    fn doubt(&self, user: &str, database: &str);

    /// Returns whether users that are found have SCRAM verifiers, as far as that shows: an unknown one then has one too.
    fn has_verifiers(&self) -> bool;
}

impl Auth {
    /// Computes the keys of every user whose plain password is known, so that neither the first login after a start is
    /// slower than an unknown user's (which would tell them apart), nor a crowd of different users waits in line for it.
    /// Meant for a task of its own at start and reload; what is known already costs nothing.
    ///
    /// Cancel safe.
    pub async fn warm(&self) {
        let by_rules = |hba: &Hba| hba.rules().iter().any(|rule| rule.method == Method::ScramSha256);
        if self.auth_type != AuthType::ScramSha256 && !self.hba.as_deref().is_some_and(by_rules) {
            return;
        }
        for user in self.users.iter() {
            let passwords = match &user.secret {
                UserSecret::Plain(password) => std::slice::from_ref(password),
                UserSecret::Several(passwords) => passwords,
                UserSecret::Md5(_) | UserSecret::Scram(_) | UserSecret::Absent => &[],
            };
            for password in passwords {
                let salt = self.deriver.salt(&user.name);
                if self.deriver.keys(password, &salt, self.scram_iterations).await.is_err() {
                    return; // the process is stopping
                }
            }
        }
    }

    /// Decides how a client proves itself.
    fn way(&self, claim: &Claim<'_>) -> Result<Way<'_>, PoolError> {
        let by = |method| Ok(Way::By(method, None));
        match self.auth_type {
            AuthType::Any => Ok(Way::Anybody),
            AuthType::Trust => by(Method::Trust),
            AuthType::Plain => by(Method::Plain),
            AuthType::Md5 => by(Method::Md5),
            AuthType::ScramSha256 => by(Method::ScramSha256),
            AuthType::Cert => by(Method::Cert),
            AuthType::Peer => by(Method::Peer),
            AuthType::Hba => {
                let asked = claim.asked();
                match self.hba.as_deref().and_then(|hba| hba.find(&asked)) {
                    Some(rule) if rule.method != Method::Reject => Ok(Way::By(rule.method, rule.map.as_deref())),
                    rule => {
                        info!(user = claim.user, rule = rule.map(|rule| rule.line), "client refused by auth_hba_file");
                        let (user, database) = (claim.user, claim.database);
                        Err(PoolError::not_admitted(rule.is_some(), asked.address, user, database, asked.tls))
                    }
                }
            }
        }
    }
}

impl<'a> Claim<'a> {
    fn asked(&self) -> Asked<'a> {
        Asked {
            address: match self.origin {
                Origin::Address(address) => Some(address.to_canonical()),
                Origin::Socket { .. } => None,
            },
            tls: self.tls.is_some(),
            database: self.database,
            user: self.user,
            replication: self.replication,
        }
    }
}

enum Way<'a> {
    Anybody,
    By(Method, Option<&'a IdentMap>),
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

/// A right proof that nobody has been told about yet.
struct Proof {
    gained: Gained,
    /// With what a SCRAM exchange ends.
    server_final: Option<String>,
}

impl From<Gained> for Proof {
    fn from(gained: Gained) -> Self {
        Self { gained, server_final: None }
    }
}

/// A client that has proven who it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Authenticated {
    pub user: String,
    pub gained: Gained,
}

/// What a login leaves behind: with what the same user can be logged in to a server, where the configuration says nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Gained {
    #[default]
    Nothing,
    /// Of a SCRAM login by a verifier: enough for a server that has the same verifier.
    Keys(Arc<Captured>),
    /// The password that was sent in clear text, or what `auth_query` returned: a password or an md5 hash.
    Secret(UserSecret),
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
    NoTls,
    NoCertificate,
    OtherName,
    NoSocket,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownUser => "no such user",
            Self::WrongPassword => "wrong password",
            Self::UnusableSecret => {
                "the user's secret does not fit the method: scram-sha-256 needs a password or a verifier"
            }
            Self::NoTls => "no TLS",
            Self::NoCertificate => "no certificate with one common name",
            Self::OtherName => "the proven name is not this user's, and no map allows it",
            Self::NoSocket => "not a Unix socket whose process the kernel knows",
        }
    }
}

/// A user that was found: in the configuration, or by a directory.
enum Found<'a> {
    Configured(&'a Known),
    LookedUp(Arc<Known>),
}

impl Deref for Found<'_> {
    type Target = Known;

    fn deref(&self) -> &Known {
        match self {
            Self::Configured(known) => known,
            Self::LookedUp(known) => known,
        }
    }
}

/// Asks the client for a proof and, when it is right and its gate still open, says AuthenticationOk.
///
/// Not cancel safe: an abandoned call leaves the stream inside the exchange.
pub async fn authenticate<S, D>(
    io: &mut S,
    claim: &Claim<'_>,
    auth: &Auth,
    directory: &D,
    random: Random,
    deadline: LoginDeadline,
) -> Result<Authenticated, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Directory,
{
    deadline.guard(prove(io, claim, auth, directory, random)).await
}

async fn prove<S, D>(
    io: &mut S,
    claim: &Claim<'_>,
    auth: &Auth,
    directory: &D,
    random: Random,
) -> Result<Authenticated, PoolError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Directory,
{
    let user = claim.user;
    let Way::By(method, map) = auth.way(claim)? else {
        send(io, backend::authentication_ok).await?;
        return Ok(Authenticated { user: user.to_owned(), gained: Gained::Nothing });
    };
    let found = find(claim, auth, directory).await?;
    let known = found.as_deref();
    // Who is not known at all has a verifier where the others have one.
    let has_verifier = known.map_or_else(|| auth.users.has_verifiers() || directory.has_verifiers(), Known::is_scram);
    let proof = match method {
        Method::Trust if known.is_some() => Ok(Gained::Nothing.into()),
        Method::Trust => Err(refused(user, Reason::UnknownUser)),
        Method::Cert => identity::by_certificate(claim, map, known).map(Proof::from),
        // On the heap, so that nobody else's login is as large as all of them.
        Method::Peer => Box::pin(identity::by_process(claim, map, known)).await.map(Proof::from),
        Method::Plain => Box::pin(exchange::plain(io, user, known, has_verifier, auth)).await.map(Proof::from),
        // A user of whom only a verifier is known can log in by SCRAM alone; PgBouncer's md5 does the same.
        Method::Md5 if !has_verifier => {
            Box::pin(exchange::md5(io, user, known, random.md5_salt)).await.map(Proof::from)
        }
        Method::Md5 | Method::ScramSha256 => exchange::scram(io, claim, known, auth, random.nonce).await,
        Method::Reject => Err(PoolError::Internal), // refused above
    };
    let Proof { gained, server_final } = match proof {
        Ok(proof) => proof,
        Err(error) => {
            if matches!(error, PoolError::Authentication { .. }) {
                directory.doubt(user, claim.database);
            }
            return Err(error);
        }
    };
    claim.gate.pass(Instant::now())?;
    send(io, |out| {
        if let Some(server_final) = &server_final {
            backend::authentication_sasl_final(out, server_final.as_bytes());
        }
        backend::authentication_ok(out);
    })
    .await?;
    let gained = match (gained, &found) {
        // What was looked up serves towards servers as what is configured does.
        (Gained::Nothing, Some(Found::LookedUp(known))) => known.usable_elsewhere(),
        (gained, _) => gained,
    };
    Ok(Authenticated { user: user.to_owned(), gained })
}

/// Finds the user: in the configuration, else in the directory. An entry without a secret is who may log in and nothing
/// more, so the directory is asked for the rest.
async fn find<'a, D: Directory>(
    claim: &Claim<'_>,
    auth: &'a Auth,
    directory: &D,
) -> Result<Option<Found<'a>>, PoolError> {
    let configured = auth.users.known(claim.user).map(Found::Configured);
    match configured {
        Some(known) if known.user.secret != UserSecret::Absent => Ok(Some(known)),
        configured => Ok(directory.find(claim.user, claim.database).await?.map(Found::LookedUp).or(configured)),
    }
}

async fn send<S: AsyncWrite + Unpin>(io: &mut S, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PoolError> {
    let mut out = Vec::with_capacity(256);
    write(&mut out);
    io.write_all(&out).await.map_err(|_| PoolError::ClientGone)?;
    io.flush().await.map_err(|_| PoolError::ClientGone)
}

fn refused(user: &str, reason: Reason) -> PoolError {
    info!(user, reason = reason.as_str(), "client login refused");
    PoolError::Authentication { user: user.to_owned() }
}
