//! Proofs that need no conversation: the certificate of the connection, and the process at the other end of a socket.
//!
//! Both name somebody who need not be the user that the client wants to be; a map of `auth_ident_file` says who may be
//! whom, and without one the names must be the same. The user must be one that is known, as with every other method.

use tokio::task::spawn_blocking;
use tracing::info;

use super::{Claim, Gained, Origin, Reason, users::Known};
use crate::{config::pool::hba::IdentMap, pool::error::PoolError};

/// Lets in who shows a certificate that is made out for the user. That the certificate is right the handshake has checked.
pub(super) fn by_certificate(
    claim: &Claim<'_>,
    map: Option<&IdentMap>,
    known: Option<&Known>,
) -> Result<Gained, PoolError> {
    let proven = match claim.tls {
        None => Err(Reason::NoTls),
        Some(tls) => tls.client_name.as_deref().ok_or(Reason::NoCertificate),
    };
    decide("certificate", claim, map, known, proven)
}

/// Lets in who is the user to the operating system.
pub(super) async fn by_process(
    claim: &Claim<'_>,
    map: Option<&IdentMap>,
    known: Option<&Known>,
) -> Result<Gained, PoolError> {
    let name = match claim.origin {
        // The system's directory may be on the network (NSS).
        Origin::Socket { uid: Some(uid) } => spawn_blocking(move || user_name(uid)).await.ok().flatten(),
        Origin::Socket { uid: None } | Origin::Address(_) => None,
    };
    decide("peer", claim, map, known, name.as_deref().ok_or(Reason::NoSocket))
}

fn decide(
    method: &'static str,
    claim: &Claim<'_>,
    map: Option<&IdentMap>,
    known: Option<&Known>,
    proven: Result<&str, Reason>,
) -> Result<Gained, PoolError> {
    let user = claim.user;
    let reason = match proven {
        Err(reason) => reason,
        Ok(name) if !map.map_or(name == user, |map| map.allows(name, user)) => Reason::OtherName,
        Ok(_) if known.is_none() => Reason::UnknownUser,
        Ok(_) => return Ok(Gained::Nothing),
    };
    info!(user, method, reason = reason.as_str(), "client login refused");
    Err(PoolError::Identity { method, user: user.to_owned() })
}

/// Returns the name of a user of the system. Blocks.
pub fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}
