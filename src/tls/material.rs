//! Certificates and keys from PEM text.

use std::fmt;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::TlsError;

/// Who one is: a certificate with those that lead to a root, and its key.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a certificate file (the server's own first, then the intermediate ones) and a key file (PKCS#8, PKCS#1 or
    /// SEC1, not encrypted).
    ///
    /// # Errors
    /// One of them is not what it should be. Whether they belong together is found out when they are used.
    pub fn parse(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { chain: chain(certificates)?, key: private_key(key)? })
    }

    /// Returns the certificate itself.
    pub(super) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0] // `chain` gives one at least
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key.secret_der() == other.key.secret_der()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Whom one believes: the certificates of authorities.
#[derive(Clone, PartialEq)]
pub struct Roots(pub(super) Vec<CertificateDer<'static>>);

impl Roots {
    /// Reads a file of certificates.
    ///
    /// # Errors
    /// There is none in it, or one is broken.
    pub fn parse(certificates: &[u8]) -> Result<Self, TlsError> {
        chain(certificates).map(Self)
    }

    pub(super) fn store(&self) -> Result<rustls::RootCertStore, TlsError> {
        let mut store = rustls::RootCertStore::empty();
        for certificate in &self.0 {
            store.add(certificate.clone())?;
        }
        Ok(store)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.0.len()).finish()
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::new("has no certificate (-----BEGIN CERTIFICATE-----)")),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::new(format!("is not PEM: {error}"))),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        return Err(TlsError::in_key("is encrypted; there is nobody to ask for its password"));
    }
    // The error may quote what it read.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsError::in_key("has no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)"))
}
