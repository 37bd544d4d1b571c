//! Which host a new connection goes to: one, or PgBouncer's list with `load_balance_hosts`.
//!
//! `round-robin` begins each connection with the next host, `disable` stays with one until it fails. PgBouncer lets the
//! attempt fail and takes the next host for the next one; here the attempt itself goes on with the next host, so that no
//! client waits for a pause between logins while another host would have served. What a server says of the login (a wrong
//! password, no such database) is its answer, and the others are not asked for another.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    config::pool::{Database, LoadBalance},
    pool::{
        names::{Name, Names},
        socket::is_unix,
    },
};

/// The hosts of one database, and whose turn it is.
pub struct Hosts {
    /// As the configuration has them.
    text: Arc<str>,
    balance: LoadBalance,
    all: Box<[Host]>,
    turn: AtomicUsize,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Host {
    /// As TLS and the log name it.
    pub text: Arc<str>,
    /// `None`: a Unix socket.
    pub name: Option<Arc<Name>>,
}

impl Host {
    /// Returns the host that a text means: a folder of Unix sockets, a name, an address.
    pub fn of(text: &str, names: &Names) -> Self {
        Self { text: text.into(), name: (!is_unix(text)).then(|| names.get(text)) }
    }
}

impl Hosts {
    /// Returns the hosts of a database.
    pub fn of(database: &Database, names: &Names) -> Arc<Self> {
        let text = &*database.host;
        let all = match is_unix(text) {
            true => [Host::of(text, names)].into(),
            false => text.split(',').map(|text| Host::of(text, names)).collect(),
        };
        let balance = database.servers.load_balance_hosts;
        Arc::new(Self { text: text.into(), balance, all, turn: AtomicUsize::new(0) })
    }

    /// Returns them as the configuration has them.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Returns whether these are the hosts of `database`.
    pub fn are_of(&self, database: &Database) -> bool {
        *self.text == *database.host && self.balance == database.servers.load_balance_hosts
    }

    /// Returns the hosts in the order in which one connection is to try them, each with what [`Self::failed`] must know.
    pub fn in_turn(&self) -> impl ExactSizeIterator<Item = (usize, &Host)> {
        let start = match self.balance {
            LoadBalance::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
            LoadBalance::Disable => self.turn.load(Ordering::Relaxed),
        };
        (0..self.all.len()).map(move |step| {
            let at = (start % self.all.len() + step) % self.all.len();
            (at, &self.all[at])
        })
    }

    /// A host could not be reached. Of several attempts that were under way together the first one moves on.
    pub fn failed(&self, at: usize) {
        if self.balance == LoadBalance::Disable {
            let next = (at + 1) % self.all.len();
            let _ = self.turn.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Returns the names among them.
    pub fn names(&self) -> impl Iterator<Item = &Arc<Name>> {
        self.all.iter().filter_map(|host| host.name.as_ref())
    }
}

impl PartialEq for Hosts {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.balance == other.balance
    }
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.balance.word())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::pool::DatabaseServers,
        pool::names::{System, Ttl},
    };

    fn hosts(text: &str, load_balance_hosts: LoadBalance) -> Arc<Hosts> {
        let servers = DatabaseServers { load_balance_hosts, ..DatabaseServers::default() };
        let database = Database { servers, ..crate::pool::server::tests::database(text) };
        let names = Names::new(Arc::new(System), Ttl { found: Duration::ZERO, failed: Duration::ZERO });
        Hosts::of(&database, &names)
    }

    fn tried(hosts: &Hosts) -> String {
        hosts.in_turn().map(|(_, host)| host.text.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn round_robin_begins_each_connection_with_the_next_host() {
        let hosts = hosts("a,b,c", LoadBalance::RoundRobin);
        assert_eq!([tried(&hosts), tried(&hosts), tried(&hosts)], ["a b c", "b c a", "c a b"]);
    }

    #[test]
    fn disable_stays_with_a_host_until_it_fails_and_then_with_the_next() {
        let hosts = hosts("a,b", LoadBalance::Disable);
        assert_eq!([tried(&hosts), tried(&hosts)], ["a b", "a b"]);
        hosts.failed(0);
        hosts.failed(0);
        assert_eq!(tried(&hosts), "b a");
        hosts.failed(1);
        assert_eq!(tried(&hosts), "a b");
    }

    #[test]
    fn a_folder_of_sockets_is_one_host_whatever_is_in_its_name() {
        let hosts = hosts("/run/a,b", LoadBalance::RoundRobin);
        assert_eq!(tried(&hosts), "/run/a,b");
        assert_eq!(hosts.names().count(), 0);
    }
}
