//! `client_tls_…` and `server_tls_…` of `pool:`, PgBouncer's names and meanings.
//!
//! The files are read here and tried at once with the code that will use them, so that a wrong one is an error with a line,
//! at the start and at each reload, and never a client's. What rustls has no use for (cipher lists in OpenSSL's words,
//! curves) is refused by name where other keys of PgBouncer are: see [`super::foreign`].

use crate::{
    config::{
        field::Field,
        pool::{AuthType, ClientTls, ServerTls, SslMode, TlsFiles, user},
        reading::Reading,
        section::Section,
        tls_files::{read_pem, versions},
    },
    tls::{Accept, Connect, Identity, Roots, TlsError, Verify, Versions},
};

/// What PostgreSQL's clients offer and ask for by ALPN (IANA's registry).
const ALPN: &[u8] = b"postgresql";

/// The mode's word, with `None` for `disable`.
const MODES: [(&str, Option<SslMode>); 6] = [
    ("disable", None),
    ("allow", Some(SslMode::Allow)),
    ("prefer", Some(SslMode::Prefer)),
    ("require", Some(SslMode::Require)),
    ("verify-ca", Some(SslMode::VerifyCa)),
    ("verify-full", Some(SslMode::VerifyFull)),
];

/// One side's keys with what they were found to hold.
struct Side<'a> {
    mode: Option<SslMode>,
    mode_field: Option<Field<'a>>,
    key: Option<(Field<'a>, Vec<u8>)>,
    cert: Option<(Field<'a>, Vec<u8>)>,
    roots: Option<Roots>,
    versions: Versions,
    files: TlsFiles,
    /// A file could not be read or used, which has been reported.
    broken: bool,
}

/// Reads what is said about clients. Where `auth` proves users by certificates, clients must be asked for them.
pub(super) fn read_client(
    reading: &Reading<'_>,
    section: &mut Section<'_>,
    auth: &user::Auth<'_>,
) -> Option<ClientTls> {
    let keys = [
        "client_tls_sslmode",
        "client_tls_key_file",
        "client_tls_cert_file",
        "client_tls_ca_file",
        "client_tls_protocols",
    ];
    let side = read(reading, section, keys, None);
    let verified = side.mode.is_some_and(|mode| mode >= SslMode::VerifyCa);
    if let (AuthType::Cert, false, Some(field)) = (auth.auth_type, verified, &auth.auth_type_field) {
        field.error("cert needs client_tls_sslmode: verify-full (or verify-ca)");
    }
    let rule = auth.access.hba.iter().flat_map(|hba| hba.rules()).find(|rule| rule.needs_certificates());
    if let (Some(rule), true) = (rule, side.mode.is_none() || (side.roots.is_none() && !side.broken)) {
        let line = rule.line;
        section.error(format!(
            "line {line} of auth_hba_file asks for certificates: that needs client_tls_sslmode and client_tls_ca_file"
        ));
    }
    let mode = side.mode?;
    if side.key.is_none() && side.cert.is_none() && !side.broken {
        side.complain(&format!("{} needs client_tls_key_file and client_tls_cert_file", mode.word()));
        return None;
    }
    let verify = verified;
    if verify && side.roots.is_none() && !side.broken {
        side.complain(&format!("{} needs client_tls_ca_file", mode.word()));
        return None;
    }
    let identity = side.identity()?;
    // As PostgreSQL with ssl_ca_file: asked for, and verified if shown.
    let clients = side.roots.clone().filter(|_| verify || rule.is_some());
    let accept = if verify { Accept::new } else { Accept::asking };
    let accept = side.usable(accept(identity, clients, side.versions, &[ALPN]))?;
    Some(ClientTls { mode, files: side.files, accept })
}

/// Reads what is said about servers. PgBouncer's default is `prefer`.
pub(super) fn read_server(reading: &Reading<'_>, section: &mut Section<'_>) -> Option<ServerTls> {
    let keys = [
        "server_tls_sslmode",
        "server_tls_key_file",
        "server_tls_cert_file",
        "server_tls_ca_file",
        "server_tls_protocols",
    ];
    let side = read(reading, section, keys, Some(SslMode::Prefer));
    let negotiation = section.get("server_tls_sslnegotiation");
    let direct = negotiation.as_ref().and_then(|field| field.choice(&[("postgres", false), ("direct", true)]));
    let direct = direct.unwrap_or(false);
    if let (true, Some(field)) = (direct && !side.mode.is_some_and(SslMode::is_required), &negotiation) {
        // libpq's rule as well: there is no way to find out that the server has none.
        field.error("direct needs server_tls_sslmode: require, verify-ca or verify-full");
    }
    let mode = side.mode?;
    let verify = match (mode, side.roots.clone()) {
        (SslMode::VerifyCa, Some(roots)) => Verify::Authority(roots),
        (SslMode::VerifyFull, Some(roots)) => Verify::AuthorityAndName(roots),
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
            if !side.broken {
                side.complain(&format!("{} needs server_tls_ca_file", mode.word()));
            }
            return None;
        }
        _ => Verify::Nothing,
    };
    let identity = match (&side.key, &side.cert) {
        (None, None) => None,
        _ => Some(side.identity()?),
    };
    let connect = side.usable(Connect::new(verify, identity, side.versions, &[ALPN]))?;
    Some(ServerTls { mode, direct, files: side.files, connect })
}

fn read<'a>(
    reading: &Reading<'_>,
    section: &mut Section<'a>,
    [mode, key, cert, ca, protocols]: [&'static str; 5],
    default: Option<SslMode>,
) -> Side<'a> {
    let mode_field = section.get(mode);
    let mut side = Side {
        mode: mode_field.as_ref().map_or(Some(default), |field| field.choice(&MODES)).unwrap_or(default),
        mode_field,
        key: None,
        cert: None,
        roots: None,
        versions: Versions::Both,
        files: TlsFiles::default(),
        broken: false,
    };
    side.key = side.file(reading, section.get(key), |files| &mut files.key);
    side.cert = side.file(reading, section.get(cert), |files| &mut files.cert);
    if let Some((field, pem)) = side.file(reading, section.get(ca), |files| &mut files.ca) {
        match Roots::parse(&pem) {
            Ok(roots) => side.roots = Some(roots),
            Err(error) => {
                field.error(error.to_string());
                side.broken = true;
            }
        }
    }
    if let Some(field) = section.get(protocols) {
        side.versions = versions(&field).unwrap_or(Versions::Both);
        side.files.protocols = field.text().map(str::to_owned);
    }
    side
}

impl<'a> Side<'a> {
    /// Reports at the mode, or at one of the files when the mode is the default.
    fn complain(&self, message: &str) {
        let file = || self.key.as_ref().or(self.cert.as_ref()).map(|(field, _)| field);
        if let Some(field) = self.mode_field.as_ref().or_else(file) {
            field.error(message);
        }
    }

    fn file(
        &mut self,
        reading: &Reading<'_>,
        field: Option<Field<'a>>,
        name: fn(&mut TlsFiles) -> &mut Option<String>,
    ) -> Option<(Field<'a>, Vec<u8>)> {
        let field = field?;
        let Some(path) = field.text() else {
            self.broken = true;
            return None;
        };
        *name(&mut self.files) = Some(path.to_owned());
        match read_pem(reading, path) {
            Ok(pem) => Some((field, pem)),
            Err(why) => {
                field.error(format!("{} {why}", reading.beside(path).display()));
                self.broken = true;
                None
            }
        }
    }

    /// Puts certificate and key together.
    fn identity(&self) -> Option<Identity> {
        match (&self.cert, &self.key) {
            (Some((field, cert)), Some((key_field, key))) => match Identity::parse(cert, key) {
                Ok(identity) => Some(identity),
                Err(error) => {
                    let field = if error.in_key { key_field } else { field };
                    field.error(error.to_string());
                    None
                }
            },
            (Some((field, _)), None) | (None, Some((field, _))) if !self.broken => {
                field.error("a certificate and its key go together: give both files");
                None
            }
            _ => None,
        }
    }

    fn usable<T>(&self, made: Result<T, TlsError>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(error) => {
                match &self.cert {
                    Some((field, _)) => field.error(format!("cannot be used: {error}")),
                    None => self.complain(&error.to_string()),
                }
                None
            }
        }
    }
}
