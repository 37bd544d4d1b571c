use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd,
};
use rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest, Sha256, Sha384};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsAcceptor;
use x509_cert::{
    Certificate, Version,
    der::{Decode, Encode},
};

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> Roots {
        Roots::parse(self.pem.as_bytes()).unwrap()
    }
}

impl Pair {
    fn identity(&self) -> Identity {
        Identity::parse(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

fn self_signed(algorithm: &'static rcgen::SignatureAlgorithm) -> (Pair, Vec<u8>) {
    let params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let der = certificate.der().to_vec();
    (Pair { certificate: certificate.pem(), key: key.serialize_pem() }, der)
}

fn accept(pair: &Pair) -> Accept {
    Accept::new(pair.identity(), None, Versions::Both, &[b"postgresql"]).unwrap()
}

fn connect(verify: Verify) -> Connect {
    Connect::new(verify, None, Versions::Both, &[b"postgresql"]).unwrap()
}

/// Shakes hands and sends a byte each way; the error is the connecting side's.
async fn meet(accept: &Accept, connect: &Connect, host: &str) -> Result<(), String> {
    let (near, far) = duplex(64 * 1024);
    let (served, reached) = tokio::join!(
        async {
            let mut stream = accept.handshake(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte + 1).await?;
            stream.flush().await
        },
        async {
            let mut stream = connect.handshake(host, near).await?;
            stream.write_u8(7).await?;
            stream.flush().await?;
            stream.read_u8().await
        }
    );
    match reached {
        Ok(8) => served.map_err(|error| error.to_string()),
        Ok(byte) => Err(format!("{byte}")),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn each_degree_of_trust_checks_what_it_says() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = accept(&ours.sign(|_| {}));
    let foreign = accept(&theirs.sign(|_| {}));

    let nothing = connect(Verify::Nothing);
    assert_eq!(meet(&foreign, &nothing, "whatever.example").await, Ok(()));
    let authority = connect(Verify::Authority(ours.roots()));
    assert_eq!(meet(&server, &authority, "another.example").await, Ok(()));
    let error = meet(&foreign, &authority, "db.example").await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let full = connect(Verify::AuthorityAndName(ours.roots()));
    assert_eq!(meet(&server, &full, "db.example").await, Ok(()));
    for host in ["another.example", "127.0.0.1"] {
        let error = meet(&server, &full, host).await.unwrap_err();
        assert!(error.contains("not valid for"), "{host}: {error}");
    }
}

#[tokio::test]
async fn what_anybody_may_read_of_a_failed_handshake_names_no_host() {
    let authority = Authority::new();
    let server = accept(&authority.sign(|_| {}));
    let full = connect(Verify::AuthorityAndName(authority.roots()));
    let (near, far) = duplex(64 * 1024);
    let (_, reached) = tokio::join!(server.handshake(far), full.handshake("another.example", near));
    let error = reached.unwrap_err();
    assert!(error.to_string().contains("another.example") && error.to_string().contains("db.example"), "{error}");
    let told = without_names(&error);
    assert!(told.contains("made out for another host") && !told.contains("example"), "{told}");
    assert_eq!(without_names(&std::io::Error::other("why")), "why");
}

#[tokio::test]
async fn a_certificate_that_is_out_of_date_does_not_pass() {
    let authority = Authority::new();
    let expired = accept(&authority.sign(|params| params.not_after = date_time_ymd(2020, 1, 1)));
    for verify in [Verify::Authority(authority.roots()), Verify::AuthorityAndName(authority.roots())] {
        assert!(meet(&expired, &connect(verify), "db.example").await.unwrap_err().contains("expired"));
    }
    assert_eq!(meet(&expired, &connect(Verify::Nothing), "db.example").await, Ok(()));
}

#[tokio::test]
async fn a_server_that_signed_itself_passes_when_its_own_certificate_is_trusted() {
    let (pair, _) = self_signed(&PKCS_ECDSA_P256_SHA256);
    let (other, _) = self_signed(&PKCS_ECDSA_P256_SHA256);
    let roots = Roots::parse(pair.certificate.as_bytes()).unwrap();
    let server = accept(&pair);
    assert_eq!(meet(&server, &connect(Verify::Authority(roots.clone())), "any.example").await, Ok(()));
    let full = connect(Verify::AuthorityAndName(roots));
    assert_eq!(meet(&server, &full, "db.example").await, Ok(()));
    assert!(meet(&server, &full, "any.example").await.is_err());
    assert!(meet(&accept(&other), &full, "db.example").await.is_err());
}

/// Shakes hands, with nothing checked, with a server that shows this certificate and signs with this key; rustls's own way
/// to make one refuses a pair that is none, and reads version 3 alone.
async fn meet_impostor(certificate: &Identity, key: &Identity, versions: Versions) -> Result<(), String> {
    let key = provider().key_provider.load_private_key(key.key.clone_key()).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(certificate.chain.clone(), key));
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions.supported()).unwrap();
    let config = config.with_no_client_auth().with_cert_resolver(Arc::new(shown));
    let connect = Connect::new(Verify::Nothing, None, versions, &[]).unwrap();
    let (near, far) = duplex(64 * 1024);
    let accept = TlsAcceptor::from(Arc::new(config));
    let (_, reached) = tokio::join!(accept.accept(far), connect.handshake("db.example", near));
    reached.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_server_without_the_certificates_key_does_not_pass_even_where_nothing_is_checked() {
    let authority = Authority::new();
    let (own, stolen) = (authority.sign(|_| {}).identity(), authority.sign(|_| {}).identity());
    for versions in [Versions::Only12, Versions::Only13] {
        assert_eq!(meet_impostor(&own, &own, versions).await, Ok(()));
        let error = meet_impostor(&stolen, &own, versions).await.unwrap_err();
        assert!(error.contains("BadSignature"), "{error}");
    }
    // Nor would we be one by mistake.
    let pair = Identity { chain: stolen.chain.clone(), key: own.key.clone_key() };
    let error = Accept::new(pair, None, Versions::Both, &[]).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("key"), "{error}");
}

/// The same certificate as one of X.509 version 1, which has no extensions. Its signature fits no more; nobody looks.
fn of_version_1(identity: &Identity) -> Identity {
    let mut certificate = Certificate::from_der(identity.leaf()).unwrap();
    certificate.tbs_certificate.version = Version::V1;
    certificate.tbs_certificate.extensions = None;
    Identity { chain: vec![certificate.to_der().unwrap().into()], key: identity.key.clone_key() }
}

#[tokio::test]
async fn a_certificate_of_version_1_is_good_where_nothing_is_checked() {
    let authority = Authority::new();
    let (own, other) = (authority.sign(|_| {}).identity(), authority.sign(|_| {}).identity());
    let old = of_version_1(&own);
    assert_eq!(meet_impostor(&old, &own, Versions::Only13).await, Ok(()));
    assert!(meet_impostor(&old, &other, Versions::Only13).await.unwrap_err().contains("BadSignature"));
    assert!(end_point(old.leaf()).is_some());
}

#[tokio::test]
async fn clients_must_show_a_certificate_of_the_authority_when_one_is_named() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Accept::new(ours.sign(|_| {}).identity(), Some(ours.roots()), Versions::Both, &[]).unwrap();
    let client = |identity| Connect::new(Verify::Nothing, identity, Versions::Both, &[]).unwrap();
    assert_eq!(meet(&server, &client(Some(ours.sign(|_| {}).identity())), "db.example").await, Ok(()));
    for stranger in [None, Some(theirs.sign(|_| {}).identity())] {
        assert!(meet(&server, &client(stranger), "db.example").await.is_err());
    }
}

#[tokio::test]
async fn versions_are_kept_to() {
    let pair = Authority::new().sign(|_| {});
    let server = |versions| Accept::new(pair.identity(), None, versions, &[]).unwrap();
    let client = |versions| Connect::new(Verify::Nothing, None, versions, &[]).unwrap();
    let (two, three) = (Versions::Only12, Versions::Only13);
    assert_eq!(meet(&server(two), &client(two), "db.example").await, Ok(()));
    assert_eq!(meet(&server(three), &client(Versions::Both), "db.example").await, Ok(()));
    assert!(meet(&server(three), &client(two), "db.example").await.is_err());
    assert!(meet(&server(two), &client(three), "db.example").await.is_err());
}

#[test]
fn the_end_point_is_the_certificates_hash_by_its_signatures_function() {
    let (_, der) = self_signed(&PKCS_ECDSA_P256_SHA256);
    assert_eq!(end_point(&der).unwrap(), Sha256::digest(&der).to_vec());
    let (_, der) = self_signed(&PKCS_ECDSA_P384_SHA384);
    assert_eq!(end_point(&der).unwrap(), Sha384::digest(&der).to_vec());
    let (_, der) = self_signed(&PKCS_ED25519);
    assert_eq!(end_point(&der), None);
    assert_eq!(end_point(b"not a certificate"), None);
    assert_eq!(end_point(&der[..der.len() / 2]), None);
}

#[test]
fn files_that_hold_something_else_are_named_for_what_they_lack() {
    let pair = Authority::new().sign(|_| {});
    let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
    let parse = |certificate: &[u8], key: &[u8]| Identity::parse(certificate, key).unwrap_err();
    assert!(parse(b"", key).to_string().contains("no certificate"));
    assert!(parse(key, key).to_string().contains("no certificate"));
    let error = parse(certificate, certificate);
    assert!(error.in_key && error.to_string().contains("no private key"), "{error}");
    let encrypted = pair.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert!(parse(certificate, encrypted.as_bytes()).to_string().contains("encrypted"));
    assert!(Roots::parse(b"nothing").is_err());
    let broken = pair.certificate.replacen('M', "*", 1);
    assert!(Roots::parse(broken.as_bytes()).is_err());
}

#[test]
fn what_is_equal_is_what_the_files_say() {
    let authority = Authority::new();
    let (one, two) = (authority.sign(|_| {}), authority.sign(|_| {}));
    assert_eq!(accept(&one), accept(&one));
    assert_ne!(accept(&one), accept(&two));
    assert_eq!(connect(Verify::Authority(authority.roots())), connect(Verify::Authority(authority.roots())));
    assert_ne!(connect(Verify::Authority(authority.roots())), connect(Verify::AuthorityAndName(authority.roots())));
    assert_ne!(connect(Verify::Authority(authority.roots())), connect(Verify::Authority(Authority::new().roots())));
}

#[test]
fn keys_do_not_print() {
    let pair = Authority::new().sign(|_| {});
    let shown = format!("{:?} {:?}", pair.identity(), accept(&pair));
    let line = pair.key.lines().nth(1).unwrap();
    assert!(!shown.contains(&line[..16]), "{shown}");
}

#[test]
fn a_suite_is_described_as_pgbouncer_does() {
    assert_eq!(Suite(0).describe(), "");
    assert_eq!(Suite(0x1302).describe(), "TLSv1.3/TLS_AES_256_GCM_SHA384");
    assert_eq!(Suite(0xc02b).describe(), "TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
}

/// TLS 1.3 lets a client that was here before speak before the handshake is over; whoever has recorded that can say it again.
#[tokio::test]
async fn nothing_is_said_before_the_handshake_is_over_by_a_known_client_either() {
    let (pair, _) = self_signed(&PKCS_ECDSA_P256_SHA256);
    let accept = accept(&pair);
    let mut config = connect(Verify::Nothing).config();
    config.enable_early_data = true;
    let config = Arc::new(config);
    let name = rustls::pki_types::ServerName::try_from("db.example").unwrap();
    let (near, far) = duplex(64 * 1024);
    let (served, reached) = tokio::join!(
        async {
            let mut stream = accept.handshake(far).await?;
            stream.write_u8(7).await?;
            stream.flush().await
        },
        async {
            // With the byte come the tickets by which it would be known again.
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            connector.connect(name.clone(), near).await?.read_u8().await
        }
    );
    assert!(served.is_ok() && reached.unwrap() == 7);
    let mut again = rustls::ClientConnection::new(config, name).unwrap();
    assert!(again.early_data().is_none());
}
