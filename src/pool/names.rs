//! The addresses behind the host names of servers, looked up again and again, so that a failover by DNS is followed.
//!
//! The system's getaddrinfo is asked, as libpq does: it honours /etc/hosts and nsswitch.conf, which a resolver of our own
//! would read its own way; what it does not tell is how long an answer holds, so that is a setting (`dns_max_ttl`), as
//! PgBouncer has it. It runs on threads of its own. One task looks after all names ([`keep`]): it asks again when an answer
//! is too old, or, after a connection could not be made, sooner ([`Name::doubt`]). Who connects never waits for that: the
//! last good answer counts until there is another, however long the resolver fails. Only a name without any answer is
//! waited for.
//!
//! An address that is gone from an answer is reported, so that the connections to it can be closed at their next boundary.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{Rng, RngExt};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use crate::pool::server::error::ServerError;

/// A doubted answer is asked for again no sooner than so long after it came, and none more often, whatever the settings are.
const AGAIN: Duration = Duration::from_secs(1);
/// An address that could not be reached is tried after the others for so long.
const SHUNNED: Duration = Duration::from_secs(30);
/// Sleep when no name is known: the alarm ends it.
const LONG: Duration = Duration::from_secs(3600);

/// Finds the addresses of a name. The only view of the network here, so that all else is tested without one.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Returns all addresses, at least one.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
pub struct System;

#[async_trait]
impl Lookup for System {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip().to_canonical()).collect())
    }
}

/// How long answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// `dns_max_ttl`
    pub found: Duration,
    /// `dns_nxdomain_ttl`
    pub failed: Duration,
}

/// All names in use. A name is forgotten with the last pool that has it.
pub struct Names {
    lookup: Arc<dyn Lookup>,
    ttl: Mutex<Ttl>,
    names: Mutex<HashMap<Arc<str>, Weak<Name>>>,
    alarm: Arc<Notify>,
}

/// One host: a name, or an address that is its own answer.
pub struct Name {
    host: Arc<str>,
    known: watch::Sender<Known>,
    /// Where the next connection begins among the addresses.
    turn: AtomicUsize,
    /// Addresses that could not be reached, and when. At most as many as have been answered.
    failed: Mutex<Vec<(IpAddr, Instant)>>,
    alarm: Arc<Notify>,
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)
    }
}

/// What is known of a name.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last good answer.
    addresses: Option<Arc<[IpAddr]>>,
    /// Why the last question had no answer.
    error: Option<String>,
    /// When the last answer came, or failed to.
    answered: Option<Instant>,
    /// When to ask again; `None`: now, or never if it is an address.
    until: Option<Instant>,
    /// A question is under way.
    asking: bool,
    fixed: bool,
}

/// What a new answer was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Same,
    Changed,
    Failed,
}

impl Outcome {
    /// Every label.
    pub const ALL: [Self; 3] = [Self::Same, Self::Changed, Self::Failed];

    /// Returns the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}

/// A name as pages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub host: Arc<str>,
    /// Until it is asked for again.
    pub ttl: Duration,
    /// Empty: it has no answer.
    pub addresses: Vec<IpAddr>,
    /// Whether a question is under way.
    pub asking: bool,
}

impl Names {
    /// Returns an empty table; nothing is looked up before [`keep`] runs.
    pub fn new(lookup: Arc<dyn Lookup>, ttl: Ttl) -> Arc<Self> {
        Arc::new(Self { lookup, ttl: Mutex::new(ttl), names: Mutex::default(), alarm: Arc::default() })
    }

    /// Takes other settings; they hold from the next answer on.
    pub fn set_ttl(&self, ttl: Ttl) {
        *self.ttl.lock() = ttl;
    }

    /// Returns the name, looked up from now on if it is new.
    pub fn get(&self, host: &str) -> Arc<Name> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Arc::new(Name::fixed(address));
        }
        let mut names = self.names.lock();
        if let Some(name) = names.get(host).and_then(Weak::upgrade) {
            return name;
        }
        names.retain(|_, name| name.strong_count() > 0);
        let name = Arc::new(Name::new(host.into(), Known::default(), self.alarm.clone()));
        names.insert(name.host.clone(), Arc::downgrade(&name)); // bound: the hosts of the configuration
        self.alarm.notify_one();
        name
    }

    /// Returns the names in use, sorted.
    pub fn list(&self, now: Instant) -> Vec<Listed> {
        let mut listed: Vec<_> = self.living().iter().map(|name| name.listed(now)).collect();
        listed.sort_by(|a, b| a.host.cmp(&b.host));
        listed
    }

    fn living(&self) -> Vec<Arc<Name>> {
        self.names.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Takes the names that are to be asked for at `now`, and returns when the next one is.
    fn due(&self, now: Instant) -> (Vec<Arc<Name>>, Option<Instant>) {
        let (mut due, mut next) = (Vec::new(), None);
        for name in self.living() {
            let mut taken = false;
            name.known.send_if_modified(|known| {
                match known.until {
                    _ if known.asking => {}
                    Some(until) if until > now => next = Some(next.map_or(until, |next: Instant| next.min(until))),
                    _ => {
                        known.asking = true;
                        taken = true;
                    }
                }
                false
            });
            if taken {
                due.push(name);
            }
        }
        (due, next)
    }
}

/// Looks after all names until the table has gone. `on_answer` hears of each answer: whose, what it was like, and which
/// addresses are gone. Must run inside a runtime.
pub async fn keep(names: Weak<Names>, on_answer: impl Fn(&Name, Outcome, &[IpAddr]) + Clone + Send + Sync + 'static) {
    loop {
        let (next, alarm) = {
            let Some(names) = names.upgrade() else { return };
            let now = Instant::now();
            let (due, next) = names.due(now);
            for name in due {
                // One at a time for each name, and names are those of the configuration.
                tokio::spawn(ask(name, names.lookup.clone(), *names.ttl.lock(), on_answer.clone()));
            }
            (next.unwrap_or(now + LONG), names.alarm.clone())
        };
        tokio::select! {
            () = alarm.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// Asks for one name. A resolver that hangs keeps this name's next question, and nothing else, waiting.
async fn ask(name: Arc<Name>, lookup: Arc<dyn Lookup>, ttl: Ttl, on_answer: impl Fn(&Name, Outcome, &[IpAddr])) {
    let answer = lookup.addresses(&name.host).await;
    let (outcome, gone) = name.answered(answer, ttl, Instant::now(), &mut rand::rng());
    on_answer(&name, outcome, &gone);
    name.alarm.notify_one();
}

impl Name {
    fn new(host: Arc<str>, known: Known, alarm: Arc<Notify>) -> Self {
        Self { host, known: watch::Sender::new(known), turn: AtomicUsize::new(0), failed: Mutex::default(), alarm }
    }

    fn fixed(address: IpAddr) -> Self {
        let known = Known { addresses: Some([address].into()), fixed: true, ..Known::default() };
        Self::new(address.to_string().into(), known, Arc::default())
    }

    /// Returns the host as the configuration has it.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Returns whether the last good answer has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.known.borrow().addresses.as_ref().is_some_and(|known| known.contains(&address))
    }

    /// Returns the addresses in the order in which a new connection is to try them. Waits only if there was no answer yet;
    /// who calls bounds the time. Cancel safe.
    ///
    /// # Errors
    /// When the name has never been found, and the last try failed.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, ServerError> {
        let mut known = self.known.subscribe();
        let answered = known.wait_for(|known| known.addresses.is_some() || known.error.is_some()).await;
        // The sender is `self`.
        let answered = answered.map_err(|_| ServerError::Resolve { why: "the name was forgotten".into() })?;
        match (&answered.addresses, &answered.error) {
            (Some(addresses), _) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                Ok(order(addresses, turn, &self.failed.lock(), Instant::now()))
            }
            (None, error) => Err(ServerError::Resolve { why: error.clone().unwrap_or_default() }),
        }
    }

    /// Says whether an address could be reached.
    pub fn tried(&self, address: IpAddr, reached: bool, now: Instant) {
        let mut failed = self.failed.lock();
        if reached && failed.is_empty() {
            return;
        }
        failed.retain(|(each, since)| *each != address && now.saturating_duration_since(*since) < SHUNNED);
        if !reached {
            failed.push((address, now));
        }
    }

    /// A connection failed: the name is asked for again soon, it may have moved.
    pub fn doubt(&self, now: Instant) {
        let mut sooner = false;
        self.known.send_if_modified(|known| {
            if let (false, Some(answered), Some(until)) = (known.fixed, known.answered, known.until) {
                let soon = (answered + AGAIN).max(now);
                // What failed is not asked for any sooner than the setting says.
                sooner = known.error.is_none() && soon < until;
                if sooner {
                    known.until = Some(soon);
                }
            }
            false
        });
        if sooner {
            self.alarm.notify_one();
        }
    }

    /// Takes an answer in. Returns what it was like, and the addresses that are gone.
    fn answered(
        &self,
        answer: io::Result<Vec<IpAddr>>,
        ttl: Ttl,
        now: Instant,
        rng: &mut impl Rng,
    ) -> (Outcome, Vec<IpAddr>) {
        // Jitter: processes that began together do not ask together for ever.
        let mut until = |ttl: Duration| Some(now + ttl.mul_f64(rng.random_range(0.8..=1.0)).max(AGAIN));
        let (mut outcome, mut gone) = (Outcome::Same, Vec::new());
        self.known.send_modify(|known| {
            known.asking = false;
            known.answered = Some(now);
            match answer {
                Ok(addresses) if !addresses.is_empty() => {
                    let before = known.addresses.as_deref().unwrap_or_default();
                    gone = before.iter().filter(|address| !addresses.contains(address)).copied().collect();
                    if !before.is_empty() && (!gone.is_empty() || addresses.iter().any(|each| !before.contains(each))) {
                        outcome = Outcome::Changed;
                    }
                    known.addresses = Some(distinct(addresses).into());
                    known.error = None;
                    known.until = until(ttl.found);
                }
                Ok(_) => {
                    outcome = Outcome::Failed;
                    known.error = Some("the name has no address".into());
                    known.until = until(ttl.failed);
                }
                Err(error) => {
                    outcome = Outcome::Failed;
                    known.error = Some(error.to_string());
                    known.until = until(ttl.failed);
                }
            }
        });
        (outcome, gone)
    }

    fn listed(&self, now: Instant) -> Listed {
        let known = self.known.borrow();
        Listed {
            host: self.host.clone(),
            ttl: known.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            addresses: known.addresses.as_deref().unwrap_or_default().to_vec(),
            asking: known.asking,
        }
    }
}

/// getaddrinfo may name an address twice.
fn distinct(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut kept = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// Returns the addresses from the one whose turn it is, those that failed lately behind the others. Pure.
fn order(addresses: &[IpAddr], turn: usize, failed: &[(IpAddr, Instant)], now: Instant) -> Vec<IpAddr> {
    let shunned = |address: &IpAddr| {
        failed.iter().any(|(each, since)| each == address && now.saturating_duration_since(*since) < SHUNNED)
    };
    let start = turn % addresses.len().max(1);
    let in_turn = addresses[start..].iter().chain(&addresses[..start]).copied();
    let (last, mut first): (Vec<_>, Vec<_>) = in_turn.partition(shunned);
    first.extend(last);
    first
}

#[cfg(test)]
pub mod tests;
