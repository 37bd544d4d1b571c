//! TLS by rustls: what certificate and key files say, checked, and what is made of it for either end of a connection.
//!
//! A leaf: it names nothing else of the crate, so that the configuration can check its files with the very code that will
//! use them, and a file that was accepted cannot fail later. [`Accept`] is for connections that come in, [`Connect`] for
//! those that go out. Two of either are equal when their files say the same, which is how a reload sees a new certificate.
//!
//! rustls because no C library has to be installed, patched and matched with the image; ring because pingora's rustls has it.

mod accept;
mod binding;
mod by_name;
mod connect;
mod material;
mod versions;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use self::{
    accept::{Accept, client_name},
    binding::end_point,
    connect::{Connect, Verify, server_end_point, without_names},
    material::{Identity, Roots},
    versions::Versions,
};

/// What is wrong with a certificate, a key, or how they go together. The text names no file and quotes no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TlsError {
    text: String,
    /// The key's file is the place to mend; else the certificate's.
    pub in_key: bool,
}

impl TlsError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), in_key: false }
    }

    fn in_key(text: &str) -> Self {
        Self { text: text.into(), in_key: true }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// A connection that came in, after the handshake.
pub type Accepted<S> = tokio_rustls::server::TlsStream<S>;
/// A connection that was opened, after the handshake.
pub type Connected<S> = tokio_rustls::client::TlsStream<S>;

/// The cipher suite of a connection by its number in IANA's registry; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Suite(pub u16);

impl Suite {
    /// Returns the suite that the handshake agreed on.
    pub fn of(connection: &rustls::CommonState) -> Self {
        Self(connection.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into()))
    }

    /// Returns version and cipher as PgBouncer shows them: `TLSv1.3/TLS_AES_256_GCM_SHA384`; nothing without TLS.
    pub fn describe(self) -> String {
        if self.0 == 0 {
            return String::new();
        }
        // A suite belongs to one version (RFC 8446 appendix B.4 begins its own with 0x13).
        let version = if self.0 >> 8 == 0x13 { "TLSv1.3" } else { "TLSv1.2" };
        let name = rustls::CipherSuite::from(self.0);
        format!("{version}/{}", name.as_str().unwrap_or("?").replacen("TLS13_", "TLS_", 1))
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}
