//! What both files' keys about TLS have in common: reading PEM files, and PgBouncer's words for versions.

use std::{fs::File, io::Read};

use super::{field::Field, reading::Reading};
use crate::tls::Versions;

/// Bytes of a certificate or key file that are read at most: a bundle of all public authorities has a quarter of it.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// PgBouncer's words for sets of versions.
const OLD_WORDS: [&str; 5] = ["all", "legacy", "tlsv1.0", "tlsv1.1", "tlsv1"];

/// Reads a file that stands beside the configuration's, or says why it cannot.
pub(super) fn read_pem(reading: &Reading<'_>, path: &str) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut pem = Vec::new();
    let file = File::open(reading.beside(path)).map_err(unreadable)?;
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err("is larger than 1MiB".into());
    }
    Ok(pem)
}

/// Reads PgBouncer's word or list: `secure`, or `tlsv1.2`, `tlsv1.3` with commas or colons between.
pub(super) fn versions(field: &Field<'_>) -> Option<Versions> {
    const MUST: &str = "must be secure, tlsv1.2, tlsv1.3, or both with a comma";
    let (mut two, mut three) = (false, false);
    for word in field.text()?.split([',', ':']).map(|word| word.trim().to_ascii_lowercase()) {
        match word.as_str() {
            "secure" | "default" => (two, three) = (true, true),
            "tlsv1.2" => two = true,
            "tlsv1.3" => three = true,
            word if OLD_WORDS.contains(&word) => {
                field.error_with_hint(
                    format!("{word} includes versions before 1.2, which are not offered (RFC 8996)"),
                    "secure",
                );
                return None;
            }
            _ => {
                field.reject(MUST);
                return None;
            }
        }
    }
    Some(match (two, three) {
        (true, false) => Versions::Only12,
        (false, true) => Versions::Only13,
        _ => Versions::Both,
    })
}
