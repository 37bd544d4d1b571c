//! Which certificate a client is shown: the one for the name it asks for.
//!
//! A certificate is for the names it is made out for (its subjectAltName; the common name where it has none), as HAProxy
//! takes them: nothing to keep in step by hand. An exact name goes before a wildcard, which stands for exactly one label
//! (RFC 9525 section 6.3). Of several for one name the first counts whose key the client can verify, so that one of ECDSA may
//! stand before one of RSA. A client without a name, or with one that none has, is shown the first of all: it decides itself
//! what to make of that.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Identity, TlsError, binding, provider};

/// Certificates by name.
#[derive(Debug)]
pub(super) struct ByName {
    /// In the order given; at least one.
    all: Vec<Arc<CertifiedKey>>,
    /// By name in lower case; a wildcard's is what stands behind the star, `.example.com`.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    /// Puts certificates and keys together.
    ///
    /// # Errors
    /// There is none, or one does not belong to its key or is of a kind that rustls does not know.
    pub(super) fn new(identities: &[Identity]) -> Result<Self, TlsError> {
        let mut all = Vec::new();
        let mut named: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for identity in identities {
            let own = CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), &provider())?;
            let own = Arc::new(own);
            for name in binding::host_names(identity.leaf()) {
                let name = name.to_ascii_lowercase();
                let key = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&name);
                named.entry(key.to_owned()).or_default().push(own.clone());
            }
            all.push(own);
        }
        if all.is_empty() {
            return Err(TlsError::new("there is no certificate"));
        }
        Ok(Self { all, named })
    }

    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |own: &&Arc<CertifiedKey>| own.key.choose_scheme(schemes).is_some();
        let of = |key: &str| self.named.get(key).and_then(|several| several.iter().find(fits));
        // rustls has checked that it is a name, and made it lower case.
        let by_name = name.and_then(|name| {
            let parent = || name.find('.').and_then(|dot| of(&name[dot..]));
            of(name).or_else(parent)
        });
        by_name.or_else(|| self.all.iter().find(fits)).or(self.all.first()).cloned()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Identity::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    const ECDSA: &rcgen::SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    const BOTH: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];

    /// Which of the certificates is shown.
    fn shown(of: &ByName, name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        let found = of.find(name, schemes).unwrap();
        of.all.iter().position(|own| Arc::ptr_eq(own, &found)).unwrap()
    }

    #[test]
    fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
        let names = [&["a.example"][..], &["*.b.example", "b.example"], &["Exact.b.example"]];
        let identities: Vec<Identity> = names.iter().map(|names| identity(names, ECDSA)).collect();
        let by_name = ByName::new(&identities).unwrap();
        for (name, expected) in [
            ("a.example", 0),
            ("b.example", 1),
            ("x.b.example", 1),
            ("exact.b.example", 2),
            // A star is one label, and nothing is below a name without one.
            ("x.y.b.example", 0),
            ("x.a.example", 0),
            ("localhost", 0),
        ] {
            assert_eq!(shown(&by_name, Some(name), &BOTH), expected, "{name}");
        }
        assert_eq!(shown(&by_name, None, &BOTH), 0);
    }

    #[test]
    fn of_two_for_one_name_the_first_is_shown_that_the_client_can_verify() {
        let name = &["a.example"];
        let by_name = ByName::new(&[identity(name, &rcgen::PKCS_ED25519), identity(name, ECDSA)]).unwrap();
        assert_eq!(shown(&by_name, Some("a.example"), &BOTH), 0);
        assert_eq!(shown(&by_name, Some("a.example"), &BOTH[..1]), 1);
        assert_eq!(shown(&by_name, None, &BOTH[..1]), 1);
        // Nothing fits: the handshake says so, not we.
        assert_eq!(shown(&by_name, None, &[]), 0);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (mut one, other) = (identity(&["a.example"], ECDSA), identity(&["a.example"], ECDSA));
        one.key = other.key;
        assert!(ByName::new(&[one]).is_err());
        assert!(ByName::new(&[]).is_err());
    }
}
