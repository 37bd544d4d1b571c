//! `listeners:` of `lb.yaml`.
//!
//! Certificates are read here and tried at once with the code that will use them: a wrong one is an error with a line, at the
//! start and at each reload.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;

use crate::{
    config::{
        field::Field,
        lb::Listener,
        reading::Spot,
        section::Section,
        tls_files::{read_pem, versions},
    },
    tls::{Accept, Identity, Roots, Versions},
};

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";
/// What a value of Strict-Transport-Security must have (RFC 6797 section 6.1.1).
const MAX_AGE: &str = "max-age=";

/// `tls:` of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// `certificates`
    pub certificates: Vec<CertificateFiles>,
    /// `client_ca_file`, as written.
    pub client_ca_file: Option<Arc<str>>,
    /// `client_auth`. Default: `required` with a client_ca_file.
    pub client_auth: ClientAuth,
    /// `protocols`, as written. Default: 1.2 and 1.3.
    pub protocols: Option<Arc<str>>,
    /// `handshake_timeout`: for the whole handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// `hsts`: the value of Strict-Transport-Security in every answer.
    pub hsts: Option<HeaderValue>,
    /// What all of it comes to.
    pub accept: Accept,
}

/// A certificate and its key: the files, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert_file: Arc<str>,
    pub key_file: Arc<str>,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    /// One that is shown must be right.
    Optional,
    Required,
}

impl ClientAuth {
    /// The words of lb.yaml.
    pub const WORDS: [(&str, Self); 3] =
        [("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)];
}

/// Reads the listeners, each with the place of its address.
pub(super) fn read(file: &mut Section<'_>) -> Vec<(Listener, Spot)> {
    let Some(list) = file.require("listeners", "[{ address: 0.0.0.0:8080 }]") else { return Vec::new() };
    list.some_items("listener").iter().filter_map(listener).collect()
}

fn listener(field: &Field<'_>) -> Option<(Listener, Spot)> {
    let mut section = field.section();
    let address = section.require("address", "0.0.0.0:8080");
    let max_connections = section.integer("max_connections", 20_000, 1..=10_000_000);
    let tls_field = section.get("tls");
    let http2 = section.flag("http2", tls_field.is_some());
    let redirect = section.get("redirect_https");
    let redirect_https = redirect.as_ref().and_then(|field| field.integer(1..=65_535));
    if let (Some(redirect), Some(_)) = (&redirect, &tls_field) {
        redirect.error("is for a listener without tls: what comes by HTTPS is where it should be");
    }
    let proxy_protocol = section.flag("proxy_protocol", false);
    let read = tls_field.as_ref().map(|field| tls(field, http2));
    section.finish();
    let field = address?;
    let address = field.listen_address()?;
    let tls = match read {
        Some(tls) => Some(tls?),
        None => None,
    };
    Some((Listener { address, max_connections, tls, http2, redirect_https, proxy_protocol }, field.spot))
}

fn tls(field: &Field<'_>, http2: bool) -> Option<ListenerTls> {
    let mut section = field.section();
    let listed = section.require("certificates", "[{ cert_file: site.pem, key_file: site.key }]");
    let listed: Vec<_> = listed.iter().flat_map(|list| list.some_items("certificate")).collect();
    let read: Vec<_> = listed.iter().map(certificate).collect();
    let ca = section.get("client_ca_file");
    let roots = ca.as_ref().map(roots);
    let default = if ca.is_some() { ClientAuth::Required } else { ClientAuth::None };
    let auth_field = section.get("client_auth");
    let client_auth = auth_field.as_ref().and_then(|field| field.choice(&ClientAuth::WORDS)).unwrap_or(default);
    if let (Some(field), None) = (&auth_field, &ca)
        && client_auth != ClientAuth::None
    {
        field.error("needs client_ca_file beside it: whose certificates are believed");
    }
    let protocols = section.get("protocols");
    let handshake_timeout = section.duration("handshake_timeout", Duration::from_secs(10));
    let hsts = section.get("hsts").and_then(|field| hsts(&field));
    section.finish();

    let (files, identities): (Vec<_>, Vec<_>) = read.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
    let roots = match roots {
        Some(roots) => Some(roots?),
        None => None,
    };
    if identities.is_empty() {
        return None; // Complained of where there are none.
    }
    let versions = protocols.as_ref().map_or(Some(Versions::Both), versions)?;
    let alpn: &[&[u8]] = if http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
    let clients = roots.filter(|_| client_auth != ClientAuth::None);
    let accept = match Accept::by_name(identities, clients, client_auth == ClientAuth::Optional, versions, alpn) {
        Ok(accept) => accept,
        Err(error) => {
            field.error(format!("cannot be used: {error}"));
            return None;
        }
    };
    let text = |field: &Option<Field<'_>>| field.as_ref().and_then(Field::text).map(Into::into);
    Some(ListenerTls {
        certificates: files,
        client_ca_file: text(&ca),
        client_auth,
        protocols: text(&protocols),
        handshake_timeout,
        hsts,
        accept,
    })
}

/// Reads one certificate and its key, and sees that they belong together.
fn certificate(field: &Field<'_>) -> Option<(CertificateFiles, Identity)> {
    let mut section = field.section();
    let cert = section.require("cert_file", "site.pem");
    let key = section.require("key_file", "site.key");
    section.finish();
    let (cert, key) = (cert?, key?);
    let (cert_pem, key_pem) = (pem(&cert), pem(&key));
    let identity = match Identity::parse(&cert_pem?, &key_pem?) {
        Ok(identity) => identity,
        Err(error) => {
            if error.in_key { &key } else { &cert }.error(error.to_string());
            return None;
        }
    };
    if let Err(error) = Accept::by_name(vec![identity.clone()], None, false, Versions::Both, &[]) {
        cert.error(format!("cannot be used: {error}"));
        return None;
    }
    Some((CertificateFiles { cert_file: cert.text()?.into(), key_file: key.text()?.into() }, identity))
}

fn roots(field: &Field<'_>) -> Option<Roots> {
    match Roots::parse(&pem(field)?) {
        Ok(roots) => Some(roots),
        Err(error) => {
            field.error(error.to_string());
            None
        }
    }
}

fn pem(field: &Field<'_>) -> Option<Vec<u8>> {
    let path = field.text()?;
    match read_pem(field.reading, path) {
        Ok(pem) => Some(pem),
        Err(why) => {
            field.error(format!("{} {why}", field.reading.beside(path).display()));
            None
        }
    }
}

fn hsts(field: &Field<'_>) -> Option<HeaderValue> {
    let text = field.text()?;
    let has_age = text.split(';').any(|part| {
        part.trim().strip_prefix(MAX_AGE).is_some_and(|age| !age.is_empty() && age.bytes().all(|b| b.is_ascii_digit()))
    });
    let value = HeaderValue::from_str(text).ok().filter(|_| has_age);
    if value.is_none() {
        field.reject("must be a value of Strict-Transport-Security such as max-age=31536000; includeSubDomains");
    }
    value
}
