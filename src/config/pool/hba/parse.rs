//! From the text of pg_hba.conf to rules; every mistake at once, each with its line and column.

use std::{net::IpAddr, path::Path, sync::Arc};

use ipnet::IpNet;

use super::{
    Databases, Hba, IdentMap, Kind, Method, Rule, Users,
    ident::IdentMaps,
    words::{self, Field, Word},
};
use crate::config::{
    error::{ConfigError, Position},
    section::nearest,
};

/// `@file` may name files that name files, to this depth (PostgreSQL's CONF_FILE_MAX_DEPTH).
const DEPTH_MAX: usize = 10;
/// Names that a line may list, files followed.
const NAMES_MAX: usize = 10_000;

const METHODS: [(&str, Method); 8] = [
    ("trust", Method::Trust),
    ("reject", Method::Reject),
    ("password", Method::Plain),
    ("plain", Method::Plain),
    ("md5", Method::Md5),
    ("scram-sha-256", Method::ScramSha256),
    ("cert", Method::Cert),
    ("peer", Method::Peer),
];
/// PostgreSQL's other methods, and what to use instead.
const FOREIGN_METHODS: [&str; 8] = ["bsd", "gss", "ident", "ldap", "oauth", "pam", "radius", "sspi"];

/// Reads the text of an HBA file. `maps` are those of `auth_ident_file`; `read` returns the text of a file that the
/// text names after an `@`, or why not. `path` is named in errors.
///
/// # Errors
/// Every line that is broken.
pub fn parse(
    path: &Path,
    text: &str,
    maps: &IdentMaps,
    read: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Hba, Vec<ConfigError>> {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    for line in words::lines(text) {
        let rule = match line.fields {
            Ok(fields) => Parser { maps, read, rest: &fields, end: 1 }.rule(line.number),
            Err(column) => Err(Wrong { column, why: "has a quote that is not closed".into() }),
        };
        match rule {
            Ok(rule) => rules.push(rule),
            Err(Wrong { column, why }) => {
                let position = Some(Position { line: line.number, column });
                errors.push(ConfigError { position, ..ConfigError::of_file(path, why) });
            }
        }
    }
    if errors.is_empty() { Ok(Hba { rules }) } else { Err(errors) }
}

/// What is wrong with a line.
struct Wrong {
    column: usize,
    why: String,
}

struct Parser<'a> {
    maps: &'a IdentMaps,
    read: &'a dyn Fn(&str) -> Result<String, String>,
    rest: &'a [Field],
    /// Where the last field began: the place of what is missing.
    end: usize,
}

impl<'a> Parser<'a> {
    fn rule(mut self, line: usize) -> Result<Rule, Wrong> {
        let kind = self.kind()?;
        let databases = self.databases()?;
        let users = self.users()?;
        let network = if kind == Kind::Local { None } else { self.network()? };
        let (method, column) = self.method()?;
        match (method, kind) {
            (Method::Peer, Kind::Host | Kind::HostSsl | Kind::HostNoSsl) => {
                return Err(Wrong { column, why: "peer is for local (Unix sockets) alone".into() });
            }
            (Method::Cert, Kind::Local | Kind::Host | Kind::HostNoSsl) => {
                return Err(Wrong { column, why: "cert is for hostssl alone".into() });
            }
            _ => {}
        }
        let map = self.options(method)?;
        Ok(Rule { line, kind, databases, users, network, method, map })
    }

    fn next(&mut self, what: &str) -> Result<&'a Field, Wrong> {
        let Some((field, rest)) = self.rest.split_first() else {
            return Err(Wrong { column: self.end, why: format!("ends before {what}") });
        };
        (self.rest, self.end) = (rest, field.column);
        Ok(field)
    }

    /// Takes a field that is one word.
    fn word(&mut self, what: &str) -> Result<(&'a Word, usize), Wrong> {
        let field = self.next(what)?;
        match &field.words[..] {
            [word] => Ok((word, field.column)),
            _ => Err(Wrong { column: field.column, why: format!("{what} must be one word") }),
        }
    }

    fn kind(&mut self) -> Result<Kind, Wrong> {
        let (word, column) = self.word("the kind of connection")?;
        match &*word.text {
            "local" => Ok(Kind::Local),
            "host" => Ok(Kind::Host),
            "hostssl" => Ok(Kind::HostSsl),
            "hostnossl" => Ok(Kind::HostNoSsl),
            foreign @ ("hostgssenc" | "hostnogssenc" | "include" | "include_if_exists" | "include_dir") => {
                Err(Wrong { column, why: format!("{foreign} is PostgreSQL's; not offered here") })
            }
            _ => Err(Wrong { column, why: "must begin with local, host, hostssl or hostnossl".into() }),
        }
    }

    fn databases(&mut self) -> Result<Vec<Databases>, Wrong> {
        let field = self.next("the databases")?;
        let mut found = Vec::new();
        self.names(&field.words, field.column, 0, &mut |word| {
            let foreign = |why: &str| Err(format!("{why} is PostgreSQL's; not offered here"));
            found.push(match word {
                word if word.is("all") => Databases::All,
                word if word.is("sameuser") => Databases::SameUser,
                word if word.is("replication") => Databases::Replication,
                word if word.is("samerole") || word.is("samegroup") => return foreign(&word.text),
                word if !word.quoted && word.text.starts_with('/') => return foreign("a regular expression"),
                word => Databases::Named(word.text.as_str().into()),
            });
            Ok(())
        })?;
        Ok(found)
    }

    fn users(&mut self) -> Result<Vec<Users>, Wrong> {
        let field = self.next("the users")?;
        let mut found = Vec::new();
        self.names(&field.words, field.column, 0, &mut |word| {
            let foreign = |why: &str| Err(format!("{why} is PostgreSQL's; not offered here"));
            found.push(match word {
                word if word.is("all") => Users::All,
                word if !word.quoted && word.text.starts_with('+') => return foreign("a group (+role)"),
                word if !word.quoted && word.text.starts_with('/') => return foreign("a regular expression"),
                word => Users::Named(word.text.as_str().into()),
            });
            Ok(())
        })?;
        Ok(found)
    }

    /// Gives each name of a list to `take`, and those of files that the list names.
    fn names(
        &self,
        words: &[Word],
        column: usize,
        depth: usize,
        take: &mut dyn FnMut(&Word) -> Result<(), String>,
    ) -> Result<(), Wrong> {
        let mut left = NAMES_MAX;
        self.follow(words, column, depth, &mut left, take)
    }

    fn follow(
        &self,
        words: &[Word],
        column: usize,
        depth: usize,
        left: &mut usize,
        take: &mut dyn FnMut(&Word) -> Result<(), String>,
    ) -> Result<(), Wrong> {
        let wrong = |why: String| Wrong { column, why };
        for word in words {
            *left = left.checked_sub(1).ok_or_else(|| wrong(format!("lists more than {NAMES_MAX} names")))?;
            let Some(file) = word.text.strip_prefix('@').filter(|file| !word.quoted && !file.is_empty()) else {
                take(word).map_err(wrong)?;
                continue;
            };
            if depth == DEPTH_MAX {
                return Err(wrong(format!("names files in files more than {DEPTH_MAX} deep")));
            }
            let text = (self.read)(file).map_err(|why| wrong(format!("@{file}: {why}")))?;
            for line in words::lines(&text) {
                let unclosed = |_| wrong(format!("@{file}: line {} has a quote that is not closed", line.number));
                for field in line.fields.map_err(unclosed)? {
                    self.follow(&field.words, column, depth + 1, left, take)?;
                }
            }
        }
        Ok(())
    }

    /// Reads `all`, `address/bits`, or an address and its mask. `None`: any.
    fn network(&mut self) -> Result<Option<IpNet>, Wrong> {
        const MUST: &str = "must be all, or a network such as 10.0.0.0/8";
        let (word, column) = self.word("the address")?;
        let wrong = |why: &str| Wrong { column, why: why.into() };
        if word.is("all") {
            return Ok(None);
        }
        if word.is("samehost") || word.is("samenet") {
            return Err(wrong(&format!("{} is PostgreSQL's; not offered here", word.text)));
        }
        if let Ok(network) = word.text.parse::<IpNet>() {
            return Ok(Some(canonical(network)));
        }
        let Ok(address) = word.text.parse::<IpAddr>() else {
            let is_name = word.text.chars().any(char::is_alphabetic) && !word.text.contains(['/', ':']);
            return Err(wrong(if is_name {
                "a host name is PostgreSQL's; not offered here: give its address"
            } else {
                MUST
            }));
        };
        let (mask, column) = self.word("the mask of the address")?;
        let mask = mask.text.parse::<IpAddr>().ok();
        let network = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
        let must = "must be a mask such as 255.255.0.0 (or write the address with its bits: 10.0.0.1/32)";
        network.map(|network| Some(canonical(network))).ok_or_else(|| Wrong { column, why: must.into() })
    }

    fn method(&mut self) -> Result<(Method, usize), Wrong> {
        let (word, column) = self.word("the method")?;
        if let Some((_, method)) = METHODS.iter().find(|(name, _)| *name == word.text) {
            return Ok((*method, column));
        }
        if FOREIGN_METHODS.contains(&word.text.as_str()) {
            let why = format!("{} is PostgreSQL's; not offered here: scram-sha-256, or cert, or peer", word.text);
            return Err(Wrong { column, why });
        }
        let near = nearest(&word.text, METHODS.iter().map(|(name, _)| *name));
        let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        Err(Wrong {
            column,
            why: format!("must have trust, reject, password, md5, scram-sha-256, cert or peer here{hint}"),
        })
    }

    fn options(&mut self, method: Method) -> Result<Option<Arc<IdentMap>>, Wrong> {
        let mut map = None;
        while !self.rest.is_empty() {
            let (word, column) = self.word("an option")?;
            let wrong = |why: String| Wrong { column, why };
            let Some((name, value)) = word.text.split_once('=') else {
                return Err(wrong("an option must be name=value".into()));
            };
            if name != "map" {
                return Err(wrong(format!("{name} is PostgreSQL's; not offered here (map is)")));
            }
            if !matches!(method, Method::Cert | Method::Peer) {
                return Err(wrong("map goes with cert and peer".into()));
            }
            let found = self.maps.get(value);
            map = Some(found.cloned().ok_or_else(|| wrong(format!("there is no map {value} in auth_ident_file")))?);
        }
        Ok(map)
    }
}

/// Returns a network as addresses are compared with it: one of IPv4 addresses written as IPv6 (`::ffff:10.0.0.0/104`) is of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(wide) = network else { return network.trunc() };
    let mapped = wide.addr().to_ipv4_mapped().filter(|_| wide.prefix_len() >= 96);
    let narrow = mapped.and_then(|address| IpNet::new(address.into(), wide.prefix_len() - 96).ok());
    narrow.unwrap_or(network).trunc()
}
