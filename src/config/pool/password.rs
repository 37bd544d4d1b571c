//! What is written as a password: the password itself, an md5 hash, or a SCRAM verifier.
//!
//! PgBouncer's rule (get_password_type in src/scram.c and util.c): `md5` and 32 hex digits is a hash, a well-formed
//! `SCRAM-SHA-256$…` a verifier, everything else a password. One that starts as a verifier and is not well-formed is an
//! error here, since nobody's password looks like that.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::config::{
    pool::{AuthType, UserSecret},
    secret::Secret,
};

/// Bytes of StoredKey and ServerKey: SHA-256.
const KEY_BYTES: usize = 32;

/// Tells the three apart.
///
/// # Errors
/// A broken SCRAM verifier. The text never quotes it.
pub fn classify(secret: Secret) -> Result<UserSecret, &'static str> {
    let text = secret.expose();
    if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
        return match verifier(rest) {
            Some(()) => Ok(UserSecret::Scram(secret)),
            None => Err("is a broken SCRAM verifier; it must be as pg_authid.rolpassword has it"),
        };
    }
    let is_hash = |hash: &str| hash.len() == 32 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text.strip_prefix("md5") {
        Some(hash) if is_hash(hash) => Ok(UserSecret::Md5(secret)),
        _ => Ok(UserSecret::Plain(secret)),
    }
}

/// Checks `iterations:salt$StoredKey:ServerKey`.
fn verifier(text: &str) -> Option<()> {
    let (start, keys) = text.split_once('$')?;
    let (iterations, salt) = start.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let key = |text: &str| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    let counted = iterations.parse::<u32>().is_ok_and(|iterations| iterations > 0);
    let salted = STANDARD.decode(salt).is_ok_and(|salt| !salt.is_empty());
    (counted && salted && key(stored) && key(server)).then_some(())
}

/// Returns why nobody could log in with this secret, if so.
pub(super) fn unusable(auth_type: AuthType, secret: &UserSecret) -> Option<&'static str> {
    match (auth_type, secret) {
        // Some ask for no password, and of `hba` only the rules know which do.
        (auth_type, _) if !auth_type.asks_for_password() => None,
        (_, UserSecret::Plain(password)) if password.expose().is_empty() => {
            Some("has no password, and auth_type is not trust")
        }
        // A SCRAM exchange needs the password or a verifier; the other way round, PgBouncer's md5 takes a user with a
        // verifier through SCRAM.
        (AuthType::ScramSha256, UserSecret::Md5(_)) => {
            Some("has an md5 hash, which auth_type scram-sha-256 cannot use")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                            AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn kind(text: &str) -> Result<UserSecret, &'static str> {
        classify(Secret::new(text))
    }

    #[test]
    fn tells_passwords_hashes_and_verifiers_apart() {
        assert!(matches!(kind("md5d41d8cd98f00b204e9800998ecf8427e"), Ok(UserSecret::Md5(_))));
        assert!(matches!(kind(VERIFIER), Ok(UserSecret::Scram(_))));
        for plain in ["secret", "md5", "md5d41d8cd98f00b204e9800998ecf8427", "md5D41D8CD98F00B204E9800998ECF8427E", ""]
        {
            assert!(matches!(kind(plain), Ok(UserSecret::Plain(_))), "{plain}");
        }
    }

    #[test]
    fn refuses_a_broken_verifier() {
        let zero = VERIFIER.replace("4096", "0");
        let short = VERIFIER.replace("AQEB", "");
        for broken in ["SCRAM-SHA-256$", "SCRAM-SHA-256$4096:!$a:b", &zero, &short, &VERIFIER[..60]] {
            assert!(kind(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn knows_which_secrets_no_login_can_use() {
        let md5 = kind("md5d41d8cd98f00b204e9800998ecf8427e").unwrap();
        assert!(unusable(AuthType::ScramSha256, &md5).is_some());
        assert!(unusable(AuthType::Md5, &md5).is_none());
        assert!(unusable(AuthType::Md5, &kind(VERIFIER).unwrap()).is_none());
        assert!(unusable(AuthType::Md5, &kind("").unwrap()).is_some());
        assert!(unusable(AuthType::Trust, &kind("").unwrap()).is_none());
    }
}
