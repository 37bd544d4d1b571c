//! Upstreams: which server a request goes to.
//!
//! A [`Cluster`] is an upstream at work: servers, and a way to choose among them. Upstreams with `servers_of` share the same
//! [`Servers`], and with them health, failures and requests in flight, while each keeps its own rotation. Who may be asked is
//! decided in three steps, each only when the one before found nobody:
//!
//! 1. servers that are not backups, up by their checks and not ejected by failed requests;
//! 2. backups, by the same measure and always in turn: nginx's ip_hash knows none, and nobody is kept on one of them;
//! 3. servers that are only ejected: refusing everything because the last few requests failed helps nobody, so they are
//!    tried anyway, as nginx does when all are out. A server whose check fails, or that is draining, is never tried.
//!
//! A server that has `max_conns` requests is full, which is not down: the request waits for its like ([`queue`]) rather than
//! for those of a later step. A request never goes to a server it was already sent to ([`Tried`]).

pub mod check;
pub mod endpoint;
pub mod latency;
pub mod passive;
pub mod queue;
pub mod select;
pub mod standing;
pub mod sticky;
#[cfg(test)]
mod tests;
pub mod warm;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use tracing::warn;

pub use self::endpoint::{Endpoint, InFlight, Member};
use self::{
    queue::{Class, Queue},
    select::{Candidates, Key, Select, Selector, Weighted},
    standing::{Verdict, verdict},
    sticky::Sticky,
};
use crate::{
    config::lb::{self, Balance, QueuePriority},
    health::board::{DatabaseEntry, Serving},
};

/// The servers of an upstream, shared by all upstreams that use them.
#[derive(Debug)]
pub struct Servers {
    /// In the order of the file. An index into this names a server for as long as the cluster is held.
    pub members: Box<[Member]>,
    /// Those who wait for one of them to have room.
    pub queue: Arc<Queue>,
    /// Whether active checks decide; without, every server is up.
    pub checked: bool,
    /// The database the check names.
    pub database: Option<Arc<DatabaseEntry>>,
}

/// Deadlines and limits towards an upstream's servers; see the configuration for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub send_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub tries: u32,
    /// Requests that may wait for a server with room.
    pub queue_limit: usize,
    pub queue_timeout: Duration,
}

/// An upstream at work.
#[derive(Debug)]
pub struct Cluster {
    name: Arc<str>,
    servers: Arc<Servers>,
    settings: Settings,
    balance: Balance,
    sticky: Option<Sticky>,
    primaries: Tier,
    backups: Tier,
}

/// Servers that are chosen among in one step.
#[derive(Debug, Clone)]
struct Tier {
    /// Indexes into `Servers::members`.
    indexes: Arc<[usize]>,
    selector: Arc<Selector>,
}

/// What of a request matters for choosing.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub client: IpAddr,
    /// Of the route.
    pub needs_database: bool,
    /// See [`Key::hash`].
    pub hash: Option<u64>,
    /// The server that the client's cookie names.
    pub sticky: Option<usize>,
    /// Of the route.
    pub priority: QueuePriority,
}

/// Servers a request was already sent to. Empty costs nothing; at most `tries` entries.
#[derive(Debug, Clone, Default)]
pub struct Tried(Vec<usize>);

/// The server for a request.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    /// For [`Tried`], reports and metrics of the same cluster.
    pub index: usize,
    pub in_flight: InFlight,
}

/// Why there is no server for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    /// None is up.
    NoneUp,
    /// All that are up were tried.
    AllTried,
    /// Those that are up have as many requests as they may have, or others wait for them already.
    Full,
    /// And no more may wait.
    QueueFull,
    /// None had room in time.
    QueueTimeout,
    /// The request needs the database, which is down.
    DatabaseDown,
}

impl Tried {
    /// Remembers a server.
    pub fn insert(&mut self, index: usize) {
        if !self.contains(index) {
            self.0.push(index);
        }
    }

    /// Returns whether the request was sent there.
    pub fn contains(&self, index: usize) -> bool {
        self.0.contains(&index)
    }

    /// Returns how many servers were tried.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Cluster {
    /// Puts an upstream to work. The rotation goes on where `previous` stands if it chose among the same servers.
    pub fn new(
        name: Arc<str>,
        balance: Balance,
        sticky: Option<&lb::Sticky>,
        servers: Arc<Servers>,
        settings: Settings,
        previous: Option<&Self>,
    ) -> Self {
        let kept = previous.filter(|previous| previous.balance == balance && previous.servers.same(&servers));
        let (primaries, backups) = match kept {
            Some(previous) => (previous.primaries.clone(), previous.backups.clone()),
            None => (
                Tier::new(&servers, &balance, |member| !member.backup),
                Tier::new(&servers, &Balance::RoundRobin, |member| member.backup),
            ),
        };
        let sticky = sticky.map(|config| Sticky::new(config, &servers.members));
        Self { name, servers, settings, balance, sticky, primaries, backups }
    }

    /// Returns its name in lb.yaml.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns its way of choosing.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Returns its cookies.
    pub fn sticky(&self) -> Option<&Sticky> {
        self.sticky.as_ref()
    }

    /// Returns the cookie to give to a client that came with the cookie of `before` and was served by `now`: none if it has
    /// that one, or one whose server was only full, or failed it once.
    pub fn new_cookie(&self, before: Option<usize>, now: usize) -> Option<&HeaderValue> {
        let sticky = self.sticky.as_ref()?;
        let is_well = |index: usize| {
            self.servers.verdict_of(index, self.servers.database(), false) == Verdict::Serve
                && !self.servers.members[index].ejected(Instant::now())
        };
        match before {
            Some(before) if before == now || is_well(before) => None,
            _ => sticky.set_cookie(now),
        }
    }

    /// Returns its servers.
    pub fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    /// Returns its deadlines and limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Chooses a server and counts the request in.
    pub fn pick(&self, ask: &Ask, tried: &Tried, now: Instant) -> Result<Picked, NoServer> {
        match self.servers.queue.blocks() {
            true => Err(NoServer::Full),
            false => self.take(ask, tried, now),
        }
    }

    /// Waits in line for a server with room. Cancel safe: who is dropped has left the line.
    pub async fn wait(&self, ask: &Ask, tried: &Tried) -> Result<Picked, NoServer> {
        let class = if tried.is_empty() { Class::By(ask.priority) } else { Class::Again };
        let place = self.servers.queue.join(class, self.settings.queue_limit).ok_or(NoServer::QueueFull)?;
        let waiting = async {
            // A server may have become free between the choice and now; those behind others leave it to them.
            if place.may_look() {
                match self.take(ask, tried, Instant::now()) {
                    Err(NoServer::Full) => {}
                    decided => return decided,
                }
            }
            loop {
                place.called().await;
                match self.take(ask, tried, Instant::now()) {
                    Err(NoServer::Full) => place.missed(),
                    decided => return decided,
                }
            }
        };
        tokio::time::timeout(self.settings.queue_timeout, waiting).await.unwrap_or(Err(NoServer::QueueTimeout))
    }

    /// Chooses a server, whoever waits.
    fn take(&self, ask: &Ask, tried: &Tried, now: Instant) -> Result<Picked, NoServer> {
        let database = self.servers.database();
        if ask.needs_database && database == Serving::Down {
            return Err(NoServer::DatabaseDown);
        }
        let key = Key { client: ask.client, hash: ask.hash };
        let members = &self.servers.members;
        let up = |index: usize| {
            !tried.contains(index) && self.servers.verdict_of(index, database, ask.needs_database) == Verdict::Serve
        };
        let well = |index: usize| up(index) && !members[index].ejected(now);
        if let Some(index) = ask.sticky.filter(|&index| well(index))
            && let Some(in_flight) = members[index].enter(now)
        {
            return Ok(Picked { endpoint: members[index].endpoint.clone(), index, in_flight });
        }
        let steps: [(&Tier, &dyn Fn(usize) -> bool); 4] =
            [(&self.primaries, &well), (&self.backups, &well), (&self.primaries, &up), (&self.backups, &up)];
        for (tier, fits) in steps {
            let may_ask = |index: usize| fits(index) && !members[index].is_full();
            let seen = Seen { tier, members, may_ask: &may_ask, tried: tried.len(), now };
            while let Some(place) = tier.selector.pick(&seen, &key) {
                let index = tier.indexes[place];
                // Somebody else may have taken its last place meanwhile.
                if let Some(in_flight) = members[index].enter(now) {
                    return Ok(Picked { endpoint: members[index].endpoint.clone(), index, in_flight });
                }
            }
            // One that is full is not down: it is waited for, and no backup takes its place.
            if tier.indexes.iter().any(|&index| fits(index)) {
                return Err(NoServer::Full);
            }
        }
        Err(if tried.is_empty() { NoServer::NoneUp } else { NoServer::AllTried })
    }

    /// Learns that a server answered.
    pub fn succeeded(&self, index: usize, now: Instant) {
        if let Some(member) = self.servers.members.get(index) {
            member.succeeded(now);
        }
    }

    /// Learns how long a server took to begin an answer.
    pub fn answered(&self, index: usize, took: Duration, now: Instant) {
        if let (Balance::Ewma, Some(member)) = (&self.balance, self.servers.members.get(index)) {
            member.endpoint.latency.answered(took, now);
        }
    }

    /// Learns that a server failed a request (not that a client went away, nor that a reused connection had been closed).
    pub fn failed(&self, index: usize, now: Instant) {
        let Some(member) = self.servers.members.get(index) else { return };
        if self.balance == Balance::Ewma {
            member.endpoint.latency.failed(now);
        }
        if member.failed(now) {
            warn!(
                upstream = %self.name,
                server = %member.endpoint.name(),
                address = %member.endpoint.address(),
                failures = member.endpoint.recent_failures(),
                "server ejected by failed requests"
            );
        }
        for tier in [&self.primaries, &self.backups] {
            if let Some(place) = tier.indexes.iter().position(|&own| own == index) {
                tier.selector.failed(place, member.limits.max_fails);
            }
        }
    }
}

impl Servers {
    /// Returns whether the database of these servers serves; unknown when the check names none.
    pub fn database(&self) -> Serving {
        self.database.as_ref().map_or(Serving::Unknown, |entry| entry.serving())
    }

    /// Returns whether a server may be given a request, ejection aside.
    pub fn verdict_of(&self, index: usize, database: Serving, needs_database: bool) -> Verdict {
        let Member { endpoint, down, .. } = &self.members[index];
        if *down || endpoint.draining() {
            return Verdict::ServerDown;
        }
        verdict(self.checked.then(|| endpoint.facts.load()), database, needs_database)
    }

    /// Returns whether both hold the same servers with the same shares, so that a rotation over one fits the other.
    fn same(&self, other: &Self) -> bool {
        self.members.len() == other.members.len()
            && self
                .members
                .iter()
                .zip(&other.members)
                .all(|(a, b)| Arc::ptr_eq(&a.endpoint, &b.endpoint) && a.weight == b.weight && a.backup == b.backup)
    }
}

impl Tier {
    fn new(servers: &Servers, balance: &Balance, belongs: impl Fn(&Member) -> bool) -> Self {
        let members = || servers.members.iter().enumerate().filter(|(_, member)| belongs(member));
        let weighted = |member| Weighted { name: Member::name(member), weight: member.weight };
        let weighted: Vec<Weighted<'_>> = members().map(|(_, member)| weighted(member)).collect();
        Self {
            indexes: members().map(|(index, _)| index).collect(),
            selector: Arc::new(Selector::new(balance, &weighted)),
        }
    }
}

/// The servers of a tier at the moment of a choice.
struct Seen<'a> {
    tier: &'a Tier,
    members: &'a [Member],
    may_ask: &'a dyn Fn(usize) -> bool,
    tried: usize,
    now: Instant,
}

impl Seen<'_> {
    fn member(&self, place: usize) -> &Member {
        &self.members[self.tier.indexes[place]]
    }
}

impl Candidates for Seen<'_> {
    fn may_ask(&self, place: usize) -> bool {
        (self.may_ask)(self.tier.indexes[place])
    }

    fn tried(&self) -> usize {
        self.tried
    }

    fn in_flight(&self, place: usize) -> usize {
        self.member(place).endpoint.in_flight()
    }

    fn share(&self, place: usize) -> u32 {
        let member = self.member(place);
        member.endpoint.warmth.share(member.slow_start, self.now)
    }

    fn expected(&self, place: usize) -> f64 {
        self.member(place).endpoint.latency.expected(self.now)
    }

    fn draw(&self, end: u64) -> u64 {
        rand::random_range(0..end.max(1))
    }
}
