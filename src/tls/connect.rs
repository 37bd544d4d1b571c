//! The end that connects, with libpq's three degrees of trust in the server.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::verify_tls13_signature_with_raw_key,
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::ParsedCertificate,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{Connected, Identity, Roots, TlsError, Versions, binding, provider};

/// What of the server's certificate is checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Verify {
    /// Nothing: against those who only listen (libpq's `require` without a root certificate).
    Nothing,
    /// An authority of ours has signed it.
    Authority(Roots),
    /// And it was made out for the host that was connected to.
    AuthorityAndName(Roots),
}

/// How connections are opened.
#[derive(Clone)]
pub struct Connect {
    verify: Verify,
    identity: Option<Identity>,
    versions: Versions,
    config: Arc<ClientConfig>,
}

impl Connect {
    /// Prepares for connecting. `protocols` are offered by ALPN.
    ///
    /// # Errors
    /// A certificate of an authority is broken, or our own and its key do not belong together.
    pub fn new(
        verify: Verify,
        identity: Option<Identity>,
        versions: Versions,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions.supported())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(&verify)?));
        let mut config = match &identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { verify, identity, versions, config: Arc::new(config) })
    }

    /// Shakes hands with `host`, a name or an address. Who calls bounds the time.
    ///
    /// # Errors
    /// What rustls says of the server, its certificate included, or the socket's own error.
    pub async fn handshake<S>(&self, host: &str, stream: S) -> std::io::Result<Connected<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }

    /// Returns rustls's configuration, for a library that shakes hands itself.
    pub fn config(&self) -> ClientConfig {
        (*self.config).clone()
    }
}

/// Returns what SCRAM binds to on a connection: the hash of the certificate the server showed.
pub fn server_end_point<S>(stream: &Connected<S>) -> Option<Vec<u8>> {
    let (_, connection) = stream.get_ref();
    binding::end_point(connection.peer_certificates()?.first()?)
}

/// Returns why a handshake failed, in words that anybody may read: rustls's own name the host and those the certificate is
/// made out for.
pub fn without_names(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "its certificate is made out for another host".to_owned(),
        _ => error.to_string(),
    }
}

impl PartialEq for Connect {
    fn eq(&self, other: &Self) -> bool {
        (&self.verify, &self.identity, self.versions, &self.config.alpn_protocols)
            == (&other.verify, &other.identity, other.versions, &other.config.alpn_protocols)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Connect");
        shown.field("verify", &self.verify).field("identity", &self.identity).field("versions", &self.versions);
        shown.finish_non_exhaustive()
    }
}

/// rustls's own check, with less of it where less was asked for. That the server has the certificate's key is always
/// checked: without that a handshake proves nothing.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// A server's own certificate may stand among the authorities, as OpenSSL allows: `server_tls_ca_file: server.crt` of a
    /// server that signed its certificate itself.
    pinned: Vec<CertificateDer<'static>>,
    name: bool,
}

impl Verifier {
    fn new(verify: &Verify) -> Result<Self, TlsError> {
        let (roots, name) = match verify {
            Verify::Nothing => return Ok(Self { chain: None, pinned: Vec::new(), name: false }),
            Verify::Authority(roots) => (roots, false),
            Verify::AuthorityAndName(roots) => (roots, true),
        };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.store()?), provider()).build();
        let chain = chain.map_err(|error| TlsError::new(error.to_string()))?;
        Ok(Self { chain: Some(chain), pinned: roots.0.clone(), name })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|pinned| pinned == leaf) {
            binding::valid_at(leaf, now.as_secs())?;
            if self.name {
                verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // The name is looked at last (rustls, webpki/server_verifier.rs): the chain was found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        if self.chain.is_none() {
            // Of a certificate that proves nothing only the key counts. webpki reads X.509 version 3 alone, and
            // `openssl x509 -req`, as PostgreSQL's documentation has it, makes version 1 (OpenSSL 3.0).
            let key = SubjectPublicKeyInfoDer::from(binding::public_key(certificate)?);
            return verify_tls13_signature_with_raw_key(message, &key, signature, &algorithms);
        }
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
