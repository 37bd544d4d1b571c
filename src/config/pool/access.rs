//! What `pool:` says about letting clients in, beside who they are: the HBA file, `auth_query`, the limit of failed logins,
//! and what of it is logged.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    AuthType,
    hba::{self, Hba, ident::IdentMaps},
};
use crate::config::{error::ConfigError, field::Field, load, node::Value, reading::Reading, section::Section};

/// PgBouncer's default since its CVE-2025-2291, with every name and operator qualified: no `search_path` can lead it
/// astray (CVE-2025-12819). An expired password is none.
pub const DEFAULT_AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() \
     THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

/// How clients are let in.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The rules of `auth_hba_file`, with `auth_type: hba`.
    pub hba: Option<Arc<Hba>>,
    /// The files as pool.yaml names them.
    pub hba_file: Option<String>,
    pub ident_file: Option<String>,
    pub lookup: Lookup,
    /// Failed logins of one address within the window after which it is refused. Default 1,000. `None`: no limit.
    pub failure_limit: Option<u32>,
    /// Default 60 s.
    pub failure_window: Duration,
    pub log: Logged,
}

/// How users are looked up that are configured nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// `auth_user`: as whom. `None`: nobody is looked up, but where a database says so.
    pub user: Option<String>,
    /// `auth_query`
    pub query: String,
    /// `auth_dbname`: where. `None`: in the database that the client asks for.
    pub dbname: Option<String>,
    /// `auth_query_cache_ttl`: how long an answer is good. Zero: not at all.
    pub cache_ttl: Duration,
    /// `auth_query_cache_size`: answers kept.
    pub cache_size: usize,
}

/// What a database says of its own about looking users up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnLookup {
    pub user: Option<String>,
    pub query: Option<String>,
    pub dbname: Option<String>,
}

/// What is written to the log of clients' coming and going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    pub connections: bool,
    pub disconnections: bool,
    pub pooler_errors: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            hba: None,
            hba_file: None,
            ident_file: None,
            lookup: Lookup::default(),
            failure_limit: Some(1_000),
            failure_window: Duration::from_secs(60),
            log: Logged { connections: true, disconnections: true, pooler_errors: true },
        }
    }
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            user: None,
            query: DEFAULT_AUTH_QUERY.into(),
            dbname: None,
            cache_ttl: Duration::from_secs(1),
            cache_size: 10_000,
        }
    }
}

/// Reads the keys of `pool:`.
pub(super) fn read(reading: &Reading<'_>, section: &mut Section<'_>, auth_type: AuthType) -> Access {
    let default = Access::default();
    let (hba_field, ident_field) = (section.get("auth_hba_file"), section.get("auth_ident_file"));
    let hba = match (auth_type, &hba_field) {
        // PgBouncer looks at the files only then, and a file that is not used need not be there.
        (AuthType::Hba, Some(field)) => read_hba(reading, field, ident_field.as_ref()),
        (AuthType::Hba, None) => {
            section.error("auth_type: hba needs auth_hba_file");
            None
        }
        _ => None,
    };
    let name = |field: Option<Field<'_>>| field.and_then(|field| field.text().map(str::to_owned));
    Access {
        hba: hba.map(Arc::new),
        hba_file: name(hba_field),
        ident_file: name(ident_field),
        lookup: lookup(section, default.lookup),
        failure_limit: match section.get("auth_failure_limit") {
            Some(field) => field.integer(0..=1_000_000).filter(|limit| *limit != 0),
            None => default.failure_limit,
        },
        failure_window: section.duration("auth_failure_window", default.failure_window),
        log: Logged {
            connections: switch(section, "log_connections"),
            disconnections: switch(section, "log_disconnections"),
            pooler_errors: switch(section, "log_pooler_errors"),
        },
    }
}

/// Reads PgBouncer's `1` or `0`, or `true` or `false`. All of these are on by default.
fn switch(section: &mut Section<'_>, key: &'static str) -> bool {
    let words = [("1", true), ("0", false), ("true", true), ("false", false)];
    section.choice(key, true, &words)
}

fn lookup(section: &mut Section<'_>, default: Lookup) -> Lookup {
    let own = own_lookup(section);
    Lookup {
        user: own.user,
        query: own.query.unwrap_or(default.query),
        dbname: own.dbname,
        // Zero is "ask each time", so not a timeout that never ends.
        cache_ttl: section.get("auth_query_cache_ttl").and_then(|field| field.duration()).unwrap_or(default.cache_ttl),
        cache_size: section.integer("auth_query_cache_size", default.cache_size, 1..=1_000_000),
    }
}

/// Reads the three keys that an entry of `databases:` may have as well.
pub(super) fn own_lookup(section: &mut Section<'_>) -> OwnLookup {
    let text = |field: Option<Field<'_>>| field.and_then(|field| field.text().map(str::to_owned));
    OwnLookup {
        user: text(section.get("auth_user")),
        query: section.get("auth_query").and_then(|field| query(&field)),
        dbname: text(section.get("auth_dbname")),
    }
}

/// Reads a query. It may have several lines.
fn query(field: &Field<'_>) -> Option<String> {
    let Value::Scalar(scalar) = &field.node.value else {
        field.reject("must be a query such as SELECT usename, passwd FROM my_function($1)");
        return None;
    };
    if !scalar.text.contains("$1") || scalar.text.contains('\0') {
        field.error("must be a query that has $1 where the user's name belongs");
        return None;
    }
    Some(scalar.text.clone())
}

fn read_hba(reading: &Reading<'_>, field: &Field<'_>, ident: Option<&Field<'_>>) -> Option<Hba> {
    let maps = match ident {
        Some(ident) => read_file(reading, ident, hba::ident::parse)?,
        None => IdentMaps::new(),
    };
    read_file(reading, field, |path, text| {
        let folder = path.parent().unwrap_or(Path::new(""));
        let included = |name: &str| load::read_file(&folder.join(name)).map_err(|error| error.message);
        hba::parse(path, text, &maps, &included)
    })
}

/// Reads and parses a file that a key names. That it cannot be read is an error of the key.
fn read_file<T>(
    reading: &Reading<'_>,
    field: &Field<'_>,
    parse: impl FnOnce(&Path, &str) -> Result<T, Vec<ConfigError>>,
) -> Option<T> {
    let path = reading.beside(field.text()?);
    match load::read_file(&path) {
        Ok(text) => parse(&path, &text).map_err(|errors| reading.extend(errors)).ok(),
        Err(error) if error.position.is_none() => {
            field.error(format!("{} {}", path.display(), error.message));
            None
        }
        Err(error) => {
            reading.extend([error]);
            None
        }
    }
}
