//! What a certificate says beside its key: the hash that SCRAM binds to, how long it is good, and for whom.

use rustls::{CertificateError, Error};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::{
    Certificate,
    der::{
        Decode, Encode, Tag, Tagged,
        asn1::{BmpString, PrintableStringRef, TeletexStringRef, Utf8StringRef},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// commonName in a subject (X.520).
const COMMON_NAME: &str = "2.5.4.3";

/// Signature algorithms by their hash; every other one (MD5 and SHA-1 included, by the RFC's rule) has SHA-256 or none.
const SHA256: [&str; 4] = [
    "1.2.840.113549.1.1.4",  // md5WithRSAEncryption
    "1.2.840.113549.1.1.5",  // sha1WithRSAEncryption
    "1.2.840.113549.1.1.11", // sha256WithRSAEncryption
    "1.2.840.10045.4.3.2",   // ecdsa-with-SHA256
];
const SHA384: [&str; 2] = ["1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"];
const SHA512: [&str; 2] = ["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"];

/// Returns `tls-server-end-point` of a certificate (RFC 5929 section 4.1): its hash by the hash function of its signature.
/// `None` where the signature has none (Ed25519) or names it in its parameters (RSASSA-PSS): then nothing is bound to.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = parsed.signature_algorithm.oid.to_string();
    let is = |list: &[&str]| list.contains(&algorithm.as_str());
    if is(&SHA256) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is(&SHA384) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is(&SHA512) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

/// Returns a certificate's public key (SubjectPublicKeyInfo), whatever version the certificate has.
pub(super) fn public_key(certificate: &[u8]) -> Result<Vec<u8>, Error> {
    let parsed = Certificate::from_der(certificate);
    let key = parsed.and_then(|parsed| parsed.tbs_certificate.subject_public_key_info.to_der());
    key.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Checks that a certificate is good at `now`, seconds since 1970.
pub(super) fn valid_at(certificate: &[u8], now: u64) -> Result<(), Error> {
    let bad = |error| Err(Error::InvalidCertificate(error));
    let Ok(parsed) = Certificate::from_der(certificate) else { return bad(CertificateError::BadEncoding) };
    let validity = parsed.tbs_certificate.validity;
    if now < validity.not_before.to_unix_duration().as_secs() {
        bad(CertificateError::NotValidYet)
    } else if now > validity.not_after.to_unix_duration().as_secs() {
        bad(CertificateError::Expired)
    } else {
        Ok(())
    }
}

/// Returns the common name of a certificate's subject. `None` where there is none, more than one (which of them is meant
/// cannot be known), or one with a control character in it.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let subject = Certificate::from_der(certificate).ok()?.tbs_certificate.subject;
    let mut names = subject.0.iter().flat_map(|part| part.0.iter()).filter(|name| name.oid.to_string() == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    let value = &name.value;
    let text = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::BmpString => value.decode_as::<BmpString>().ok()?.to_string(),
        _ => return None,
    };
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

/// Returns the hosts that a certificate is made out for: the DNS names of its subjectAltName, or its common name where it has
/// none (RFC 9525 section 6.3 lets clients ignore that one; certificates made by hand have it still).
pub(super) fn host_names(certificate: &[u8]) -> Vec<String> {
    let Ok(parsed) = Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some((_, SubjectAltName(names)))) = parsed.tbs_certificate.get::<SubjectAltName>() else {
        return common_name(certificate).into_iter().collect();
    };
    let host = |name: GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    };
    names.into_iter().filter_map(host).collect()
}
