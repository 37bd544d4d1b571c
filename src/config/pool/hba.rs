//! `auth_hba_file`: who may come from where, and by which method they prove who they are. PostgreSQL's pg_hba.conf, as far
//! as PgBouncer understands it.
//!
//! Text -> [`parse`] -> [`Hba`], a list of rules; [`Hba::find`] is the whole of the matching: the first rule that fits
//! counts, and what none fits is refused. Both are pure. What PostgreSQL has and this does not (host names, `samenet`,
//! groups, regular expressions, includes) is an error with its line, never a rule that silently fits nobody.
//!
//! Source: PostgreSQL documentation, "The pg_hba.conf File"; PgBouncer's manual, "HBA file format".

pub mod ident;
mod parse;
mod words;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

pub use self::{ident::IdentMap, parse::parse};

/// The rules of one file, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hba {
    rules: Vec<Rule>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it stands, for the log.
    pub line: usize,
    kind: Kind,
    databases: Vec<Databases>,
    users: Vec<Users>,
    /// `None`: any address. Only rules for addresses have one.
    network: Option<IpNet>,
    pub method: Method,
    /// `map=`, looked up: which certificates or system users may be which user.
    pub map: Option<Arc<IdentMap>>,
}

/// The first word: how the client connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Debug, Clone, PartialEq)]
enum Databases {
    /// Every one; replication is none.
    All,
    /// The one of the user's name.
    SameUser,
    Replication,
    Named(Box<str>),
}

#[derive(Debug, Clone, PartialEq)]
enum Users {
    All,
    Named(Box<str>),
}

/// How a client that a rule fits proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Trust,
    Reject,
    /// The password in clear text: `password`.
    Plain,
    Md5,
    ScramSha256,
    /// A certificate's common name is the user's name, or one that the map allows.
    Cert,
    /// The system user at the other end of a Unix socket is the user, or one that the map allows.
    Peer,
}

/// What is known of a client before it proves anything.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `None`: by a Unix socket.
    pub address: Option<IpAddr>,
    pub tls: bool,
    pub database: &'a str,
    pub user: &'a str,
    pub replication: bool,
}

impl Hba {
    /// Returns the first rule that fits; none means that the client must be refused.
    pub fn find(&self, asked: &Asked<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(asked))
    }

    /// Returns the rules in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Rule {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        self.fits_way(asked)
            && self.databases.iter().any(|databases| databases.has(asked))
            && self.users.iter().any(|users| users.has(asked.user))
    }

    fn fits_way(&self, asked: &Asked<'_>) -> bool {
        // A listener on `::` sees IPv4 as ::ffff:a.b.c.d, and rules are written for what people see.
        let in_network = |address: IpAddr| self.network.is_none_or(|network| network.contains(&address.to_canonical()));
        match (self.kind, asked.address) {
            (Kind::Local, None) => true,
            (Kind::Host, Some(address)) => in_network(address),
            (Kind::HostSsl, Some(address)) => asked.tls && in_network(address),
            (Kind::HostNoSsl, Some(address)) => !asked.tls && in_network(address),
            _ => false,
        }
    }

    /// Returns whether clients that the rule fits need TLS for its method.
    pub fn needs_certificates(&self) -> bool {
        self.method == Method::Cert
    }
}

impl Databases {
    fn has(&self, asked: &Asked<'_>) -> bool {
        match self {
            // PostgreSQL: "The value all does not match replication" (check_db in hba.c).
            Self::All => !asked.replication,
            Self::SameUser => !asked.replication && asked.database == asked.user,
            Self::Replication => asked.replication,
            Self::Named(name) => !asked.replication && **name == *asked.database,
        }
    }
}

impl Users {
    fn has(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => **name == *user,
        }
    }
}
