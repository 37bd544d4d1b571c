//! Which route a request takes. Pure, and without an allocation per lookup (but for paths with a `%`).
//!
//! The rule, in this order: routes written for the request's host before those for `*.` and the end of it (a longer end
//! first), and those before routes for any host (nginx's `server_name`); an exact path before a prefix; the longest prefix
//! before shorter ones. A host whose own routes do not match the path still has the others. The order in the file never matters. Prefixes are looked up by hash, once per distinct length, so the cost
//! grows with how differently long they are, not with how many there are.
//!
//! A path is compared as Django will see it: percent-decoded once, as application servers do (`/%61dmin/` is `/admin/`, and
//! `%2F` a slash), and otherwise as it came. Doubled slashes, dots and case make another path for Django, and so do they
//! here. A proxy that sees another path than its server is how an `allow` is walked around. What is sent on is the path as
//! it came.

pub(super) mod host;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use ahash::AHashMap;

use crate::config::lb::PathMatch;

/// Why no route was found. Both are answered 404 by us, never by a wrong upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFound {
    /// Every route is for another host.
    Host,
    /// No route of this host, nor any for all hosts, has the path.
    Path,
}

/// Where a route applies, as the configuration says it.
#[derive(Debug, Clone)]
pub struct Pattern<'a> {
    /// Without port; `None` = any host.
    pub host: Option<&'a str>,
    pub path: &'a PathMatch,
}

/// All routes, compiled. `T` is what a route leads to.
#[derive(Debug)]
pub struct Table<T> {
    entries: Vec<T>,
    hosts: AHashMap<Box<[u8]>, Paths>,
    /// By what stands behind the `*`: `.example.com`.
    wildcards: AHashMap<Box<[u8]>, Paths>,
    any_host: Paths,
}

/// The paths of one host; values are indexes into `Table::entries`.
#[derive(Debug, Default)]
struct Paths {
    exact: AHashMap<Box<[u8]>, usize>,
    prefixes: AHashMap<Box<[u8]>, usize>,
    /// Lengths that occur in `prefixes`, longest first.
    prefix_lengths: Vec<usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), hosts: AHashMap::new(), wildcards: AHashMap::new(), any_host: Paths::default() }
    }
}

impl<T> Table<T> {
    /// Compiles routes. Of two with the same host and path the first stays (the configuration refuses such pairs).
    pub fn build<'a>(routes: impl IntoIterator<Item = (Pattern<'a>, T)>) -> Self {
        let mut table = Self::default();
        for (pattern, entry) in routes {
            let index = table.entries.len();
            table.entries.push(entry);
            let paths = match pattern.host {
                None => &mut table.any_host,
                Some(written) if written.starts_with("*.") => {
                    table.wildcards.entry(written.as_bytes()[1..].to_ascii_lowercase().into()).or_default()
                }
                Some(written) => {
                    let mut buffer = [0; host::LENGTH_MAX];
                    // A name that cannot be a host can never be asked for: its route stays unreachable.
                    let Some(name) = host::normalised(written.as_bytes(), &mut buffer) else { continue };
                    table.hosts.entry(name.into()).or_default()
                }
            };
            paths.insert(pattern.path, index);
        }
        table
    }

    /// Returns the route for a Host header (or the authority of an absolute target) and a raw path without its query.
    pub fn find(&self, host: Option<&[u8]>, path: &[u8]) -> Result<&T, NotFound> {
        let path = decoded(path);
        let mut buffer = [0; host::LENGTH_MAX];
        let named = !self.hosts.is_empty() || !self.wildcards.is_empty();
        let host = host.filter(|_| named).and_then(|host| host::normalised(host, &mut buffer));
        let mut is_known = !self.any_host.is_empty();
        let own = host.and_then(|host| {
            self.of_host(host).find_map(|paths| {
                is_known = true;
                paths.find(&path)
            })
        });
        own.or_else(|| self.any_host.find(&path)).map(|index| &self.entries[index]).ok_or(if is_known {
            NotFound::Path
        } else {
            NotFound::Host
        })
    }

    /// Returns all entries, in the order they were given.
    pub fn entries(&self) -> &[T] {
        &self.entries
    }

    /// Returns the paths of a host's own routes, then those of wildcards that it fits, the longest first.
    fn of_host<'a>(&'a self, host: &'a [u8]) -> impl Iterator<Item = &'a Paths> {
        let has_wildcards = !self.wildcards.is_empty();
        let dots = memchr::memchr_iter(b'.', host).filter(move |at| has_wildcards && *at > 0);
        let wildcards = dots.filter_map(|at| self.wildcards.get(&host[at..]));
        self.hosts.get(host).into_iter().chain(wildcards)
    }
}

impl Paths {
    fn insert(&mut self, path: &PathMatch, index: usize) {
        match path {
            PathMatch::Exact(path) => {
                self.exact.entry(decoded(path.as_bytes()).into()).or_insert(index);
            }
            PathMatch::Prefix(prefix) => {
                let prefix = decoded(prefix.as_bytes());
                self.prefixes.entry(prefix[..].into()).or_insert(index);
                if let Err(place) = self.prefix_lengths.binary_search_by(|length| prefix.len().cmp(length)) {
                    self.prefix_lengths.insert(place, prefix.len());
                }
            }
        }
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.exact
            .get(path)
            .copied()
            .or_else(|| self.prefix_lengths.iter().find_map(|&length| self.prefixes.get(path.get(..length)?).copied()))
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }
}

/// Decodes `%XX` once; what is no such thing stays as it is, as in Python's `unquote`, which uvicorn calls.
fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    let first = memchr::memchr(b'%', path).filter(|_| path.starts_with(b"/"));
    let Some(first) = first else { return Cow::Borrowed(path) };
    let digit = |at: usize| path.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut plain = path[..first].to_vec();
    let mut at = first;
    while let Some(&byte) = path.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(plain)
}
