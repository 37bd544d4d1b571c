//! `sticky:` of an upstream: a cookie that keeps a browser at its server.

use std::time::Duration;

use crate::config::{address::is_host_name, field::Field, lb::balance::is_token, secret::Secret, section::Section};

/// Shorter secrets can be guessed.
const SECRET_LEN_MIN: usize = 16;

/// `sticky: {cookie, secret, path, domain, max_age, secure, http_only, same_site}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Its name. Default `bookend_server`.
    pub cookie: Box<str>,
    /// What values are made with. All instances, before and after a restart, need the same; `None`: drawn at the start.
    pub secret: Option<Secret>,
    /// Default `/`.
    pub path: Box<str>,
    pub domain: Option<Box<str>>,
    /// `None`: until the browser ends.
    pub max_age: Option<Duration>,
    /// Default false: set it where clients come by HTTPS alone.
    pub secure: bool,
    /// Default true.
    pub http_only: bool,
    /// Default `lax`.
    pub same_site: SameSite,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            cookie: "bookend_server".into(),
            secret: None,
            path: "/".into(),
            domain: None,
            max_age: None,
            secure: false,
            http_only: true,
            same_site: SameSite::Lax,
        }
    }
}

/// When a browser sends a cookie with requests that other sites cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

impl SameSite {
    /// Returns the word that browsers know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

const SAME_SITE: [(&str, SameSite); 3] =
    [("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];

pub(super) fn read(field: &Field<'_>) -> Sticky {
    let mut section = field.section();
    let default = Sticky::default();
    let secure = section.flag("secure", default.secure);
    let same_site = read_same_site(&mut section, secure);
    let sticky = Sticky {
        cookie: section.get("cookie").and_then(|field| cookie(&field)).unwrap_or(default.cookie),
        secret: section.get("secret").and_then(|field| secret(&field)),
        path: section.get("path").and_then(|field| path(&field)).unwrap_or(default.path),
        domain: section.get("domain").and_then(|field| domain(&field)),
        max_age: section.timeout("max_age", None),
        secure,
        http_only: section.flag("http_only", default.http_only),
        same_site,
    };
    section.finish();
    sticky
}

fn read_same_site(section: &mut Section<'_>, secure: bool) -> SameSite {
    let field = section.get("same_site");
    let same_site = field.as_ref().and_then(|field| field.choice(&SAME_SITE)).unwrap_or(SameSite::Lax);
    if let (Some(field), SameSite::None, false) = (&field, same_site, secure) {
        field.error("none needs secure: true beside it: browsers refuse the cookie otherwise");
    }
    same_site
}

fn cookie(field: &Field<'_>) -> Option<Box<str>> {
    let name = field.text()?;
    if name.is_empty() || !name.bytes().all(is_token) {
        field.reject("must be a cookie's name: letters, digits and any of !#$%&'*+-.^_`|~");
        return None;
    }
    Some(name.into())
}

fn secret(field: &Field<'_>) -> Option<Secret> {
    let secret = field.secret()?;
    if secret.expose().len() < SECRET_LEN_MIN {
        field.error(format!("must have {SECRET_LEN_MIN} characters at least: openssl rand -hex 32 makes a good one"));
        return None;
    }
    Some(secret)
}

fn path(field: &Field<'_>) -> Option<Box<str>> {
    let path = field.text()?;
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
        field.reject("must be a path such as /app/, without ; and spaces");
        return None;
    }
    Some(path.into())
}

fn domain(field: &Field<'_>) -> Option<Box<str>> {
    let domain = field.text()?;
    if !is_host_name(domain) {
        field.reject("must be a domain such as example.com");
        return None;
    }
    Some(domain.into())
}
