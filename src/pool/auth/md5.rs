//! PostgreSQL's md5 authentication (`pg_md5_encrypt`): kept for old clients and old password files.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// Returns what PostgreSQL stores: `md5` and 32 hex digits over password and user name.
pub fn stored(password: &str, user: &str) -> String {
    prefixed(&[password.as_bytes(), user.as_bytes()])
}

/// Returns the answer to `salt` by somebody who knows `stored`, which is what [`stored`] returns.
pub fn answer(stored: &str, salt: [u8; 4]) -> String {
    prefixed(&[stored.strip_prefix("md5").unwrap_or(stored).as_bytes(), &salt])
}

/// Returns whether `answer` is the right one, in constant time.
pub fn verify(stored: &str, salt: [u8; 4], given: &[u8]) -> bool {
    answer(stored, salt).as_bytes().ct_eq(given).into()
}

fn prefixed(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = String::with_capacity(35);
    text.push_str("md5");
    for byte in hash.finalize() {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).expect("a nibble is a hex digit"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_is_what_postgresql_stores() {
        // SELECT 'md5' || md5('secret' || 'arena_user') on a server.
        assert_eq!(stored("secret", "arena_user"), format!("md5{}", "fa4e614891cbbbf050cc53c6ee1a570e"));
    }

    #[test]
    fn an_answer_is_good_for_its_own_salt_only() {
        let stored = stored("secret", "ann");
        let given = answer(&stored, [1, 2, 3, 4]);
        assert!(verify(&stored, [1, 2, 3, 4], given.as_bytes()));
        assert!(!verify(&stored, [1, 2, 3, 5], given.as_bytes()));
        assert!(!verify(&stored, [1, 2, 3, 4], b""));
        assert!(!verify(&stored, [1, 2, 3, 4], stored.as_bytes()));
    }
}
