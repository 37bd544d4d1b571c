//! The end that is connected to.

use std::{fmt, sync::Arc};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::{Accepted, Identity, Roots, TlsError, Versions, binding, by_name::ByName, provider};

/// Longest record sent. Clients with libpq's old habit of looking at the socket while OpenSSL holds the rest of a record
/// stall on longer ones; the price of two headers instead of one is 0.3 %.
const RECORD_LEN_MAX: usize = 8 * 1024;

/// How connections are accepted.
#[derive(Clone)]
pub struct Accept {
    /// The first is for clients that ask for no name, or for one that none has.
    identities: Vec<Identity>,
    /// Clients must show a certificate that one of these has signed.
    clients: Option<Roots>,
    /// Or none.
    optional: bool,
    versions: Versions,
    end_point: Option<Arc<[u8]>>,
    config: Arc<ServerConfig>,
}

impl Accept {
    /// Prepares for accepting. `protocols` are offered by ALPN, where the client asks for one.
    ///
    /// # Errors
    /// Certificate and key do not belong together, or are of a kind that rustls does not know.
    pub fn new(
        identity: Identity,
        clients: Option<Roots>,
        versions: Versions,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        Self::for_postgres(identity, clients, false, versions, protocols)
    }

    /// The same, but a client may do without a certificate; one that it shows must be right.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn asking(
        identity: Identity,
        clients: Option<Roots>,
        versions: Versions,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        Self::for_postgres(identity, clients, true, versions, protocols)
    }

    /// Prepares for HTTP: several certificates, chosen by the name that the client asks for (RFC 6066 section 3; see
    /// [`ByName`]), and tickets, by which a client that comes again saves the costly half of the handshake (RFC 8446 section
    /// 2.2). Tickets are made with keys of this value alone: what was verified under other roots is worth nothing here.
    ///
    /// # Errors
    /// As [`Self::new`]; and none is no certificate.
    pub fn by_name(
        identities: Vec<Identity>,
        clients: Option<Roots>,
        optional: bool,
        versions: Versions,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let ticketer = rustls::crypto::ring::Ticketer::new()?;
        Self::prepare(identities, clients, optional, versions, protocols, |config| config.ticketer = ticketer)
    }

    fn for_postgres(
        identity: Identity,
        clients: Option<Roots>,
        optional: bool,
        versions: Versions,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let finish = |config: &mut ServerConfig| config.max_fragment_size = Some(RECORD_LEN_MAX);
        Self::prepare(vec![identity], clients, optional, versions, protocols, finish)
    }

    fn prepare(
        identities: Vec<Identity>,
        clients: Option<Roots>,
        optional: bool,
        versions: Versions,
        protocols: &[&[u8]],
        finish: impl FnOnce(&mut ServerConfig),
    ) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions.supported())?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store()?), provider());
                let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| TlsError::new(e.to_string()))?)
            }
        };
        let end_point = identities.first().and_then(|first| binding::end_point(first.leaf())).map(Into::into);
        let mut config = builder.with_cert_resolver(Arc::new(ByName::new(&identities)?));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        finish(&mut config);
        Ok(Self { identities, clients, optional, versions, end_point, config: Arc::new(config) })
    }

    /// Shakes hands. Who calls bounds the time.
    ///
    /// # Errors
    /// What rustls says of the peer's messages, or the socket's own error.
    pub async fn handshake<S>(&self, stream: S) -> std::io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(self.config.clone()).accept(stream).await
    }

    /// Returns what SCRAM binds to (`tls-server-end-point`): a hash of our certificate, where its kind has one.
    pub fn end_point(&self) -> Option<Arc<[u8]>> {
        self.end_point.clone()
    }
}

impl PartialEq for Accept {
    fn eq(&self, other: &Self) -> bool {
        (&self.identities, &self.clients, self.optional, self.versions, &self.config.alpn_protocols)
            == (&other.identities, &other.clients, other.optional, other.versions, &other.config.alpn_protocols)
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Accept");
        shown.field("identities", &self.identities).field("clients", &self.clients).field("versions", &self.versions);
        shown.finish_non_exhaustive()
    }
}

/// Returns whom the certificate that the client showed is made out for: its common name, if it has exactly one.
pub fn client_name<S>(stream: &Accepted<S>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    binding::common_name(connection.peer_certificates()?.first()?)
}
