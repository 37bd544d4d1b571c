//! `auth_query`: users that the configuration does not know, looked up in PostgreSQL.
//!
//! The question goes over the pool of `auth_user`, as a client of that pool's would send it: through the relay, so that
//! sizes, PAUSE, timeouts and everything the relay knows of a server hold for it too. (A second library with connections of
//! its own would stand beside `max_db_connections` and beside RECONNECT.) It is sent with no setting of anybody's: what the
//! client that wants in has asked for at startup is never seen by that connection (CVE-2025-12819).
//!
//! A crowd of clients of one user asks once: who comes while the question is under way waits for that answer. Answers are
//! kept for a moment, those that say "no such user" too, within a bound. A question that fails lets nobody in, least of all
//! as `auth_user` (CVE-2015-6817).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use self::question::Question;
use crate::{
    config::pool::{self as config, User, UserSecret},
    pool::{
        auth::{Directory, users::Known},
        console,
        database::Running,
        error::PoolError,
        lease::{Patience, Refusal},
        pooler::Pooler,
        rules,
    },
};

mod question;

/// Returns whether these bytes are the answer of a server to `auth_query`, somebody or nobody.
pub fn is_lookup_answer(bytes: &[u8]) -> bool {
    question::read(bytes).is_ok()
}

/// A doubted answer is thrown away only if it is this old: wrong passwords do not make a question each.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// What a question brought home. Why one failed has been logged.
type Answer = Result<Option<Arc<Known>>, Failed>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failed;

/// Who is asked about whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// By the name clients use.
    database: String,
    auth_user: String,
    query: String,
    user: String,
}

/// The answers of a process. Outlives reloads, but not its content.
#[derive(Default)]
pub struct Lookups {
    entries: Mutex<HashMap<Key, Entry, ahash::RandomState>>,
    /// How often they were forgotten; changed under the lock of `entries`.
    age: AtomicU64,
    verifiers: AtomicBool,
}

enum Entry {
    /// Asked now, as long as somebody waits for it.
    UnderWay(WeakShared<BoxFuture<'static, Answer>>),
    Known {
        user: Option<Arc<Known>>,
        at: Instant,
    },
}

impl Lookups {
    /// Forgets everything: the configuration has changed.
    pub fn clear(&self) {
        let mut entries = self.entries.lock();
        self.age.fetch_add(1, Ordering::Relaxed);
        entries.clear();
    }

    /// Returns an answer that is good, or one that is under way, or begins to ask.
    fn answer(
        self: &Arc<Self>,
        key: Key,
        lookup: &config::Lookup,
        now: Instant,
        ask: impl FnOnce() -> BoxFuture<'static, Answer>,
    ) -> Shared<BoxFuture<'static, Answer>> {
        let mut entries = self.entries.lock();
        match entries.get(&key) {
            Some(Entry::UnderWay(shared)) => {
                if let Some(shared) = shared.upgrade() {
                    return shared;
                }
            }
            Some(Entry::Known { user, at }) if now.saturating_duration_since(*at) < lookup.cache_ttl => {
                return std::future::ready(Ok(user.clone())).boxed().shared();
            }
            _ => {}
        }
        let (me, kept, asked) = (self.clone(), key.clone(), ask());
        let age = self.age.load(Ordering::Relaxed);
        let keep = !lookup.cache_ttl.is_zero();
        let shared = async move {
            let answer = asked.await;
            me.keep(kept, age, &answer, keep);
            answer
        };
        let shared = shared.boxed().shared();
        if entries.len() >= lookup.cache_size && !entries.contains_key(&key) {
            make_room(&mut entries, lookup, now);
        }
        if let Some(weak) = shared.downgrade() {
            entries.insert(key, Entry::UnderWay(weak));
        }
        shared
    }

    fn keep(&self, key: Key, age: u64, answer: &Answer, keep: bool) {
        if let Ok(Some(known)) = answer {
            // One is enough: as long as any is, who is not there looks as if it had one.
            self.verifiers.fetch_or(known.is_scram(), Ordering::Relaxed);
        }
        let mut entries = self.entries.lock();
        if self.age.load(Ordering::Relaxed) != age {
            return; // an answer of another configuration
        }
        match answer {
            Ok(user) if keep => drop(entries.insert(key, Entry::Known { user: user.clone(), at: Instant::now() })),
            _ => drop(entries.remove(&key)),
        }
    }

    fn doubt(&self, key: &Key, now: Instant) {
        let mut entries = self.entries.lock();
        if let Some(Entry::Known { at, .. }) = entries.get(key)
            && now.saturating_duration_since(*at) >= DOUBT_AFTER
        {
            entries.remove(key);
        }
    }
}

/// Takes out what is of no use any more, and if that is nothing, any entry: it costs a question.
fn make_room(entries: &mut HashMap<Key, Entry, ahash::RandomState>, lookup: &config::Lookup, now: Instant) {
    entries.retain(|_, entry| match entry {
        Entry::UnderWay(shared) => shared.upgrade().is_some(),
        Entry::Known { at, .. } => now.saturating_duration_since(*at) < lookup.cache_ttl,
    });
    if entries.len() >= lookup.cache_size {
        let any = entries.keys().next().cloned();
        any.and_then(|any| entries.remove(&any));
    }
}

/// The directory of one login: what the configuration in force at its beginning says.
pub struct Finder {
    pub pooler: Arc<Pooler>,
    pub running: Arc<Running>,
}

impl Finder {
    /// Returns where and how to ask; `None`: nobody is looked up for this database.
    fn key(&self, user: &str, database: &str) -> Option<Key> {
        let (pool, lookup) = (&self.running.pool, &self.running.pool.access.lookup);
        let entry = if database == console::DATABASE { None } else { rules::resolve(pool, database) };
        let own = entry.as_ref().map(|entry| entry.lookup.clone()).unwrap_or_default();
        let place = own.dbname.or_else(|| lookup.dbname.clone()).or_else(|| Some(entry?.name.to_string()))?;
        Some(Key {
            database: place,
            auth_user: own.user.or_else(|| lookup.user.clone())?,
            query: own.query.unwrap_or_else(|| lookup.query.clone()),
            user: user.to_owned(),
        })
    }
}

impl Directory for Finder {
    async fn find(&self, user: &str, database: &str) -> Result<Option<Arc<Known>>, PoolError> {
        let Some(key) = self.key(user, database) else { return Ok(None) };
        let lookup = &self.running.pool.access.lookup;
        let (pooler, running, asked) = (self.pooler.clone(), self.running.clone(), key.clone());
        let ask = || ask(pooler, running, asked).boxed();
        let answer = self.pooler.lookups.answer(key, lookup, Instant::now(), ask);
        answer.await.map_err(|Failed| PoolError::AuthQuery)
    }

    fn doubt(&self, user: &str, database: &str) {
        if let Some(key) = self.key(user, database) {
            self.pooler.lookups.doubt(&key, Instant::now());
        }
    }

    fn has_verifiers(&self) -> bool {
        self.pooler.lookups.verifiers.load(Ordering::Relaxed)
    }
}

/// Asks PostgreSQL. Cancel safe: a question that has a server is seen through by a task of its own, so that nobody who hangs
/// up at the right moment makes the pool close connections.
async fn ask(pooler: Arc<Pooler>, running: Arc<Running>, key: Key) -> Answer {
    let failed = |why: &dyn std::fmt::Display| {
        warn!(database = key.database, auth_user = key.auth_user, %why, "auth_query failed");
        Failed
    };
    let database = pooler.database(&key.database).ok_or_else(|| failed(&"auth_dbname is none of databases:"))?;
    let pool = database.pool_for_lookups(&key.auth_user, &running, &pooler.shared);
    let is_named = rules::is_named(&running.pool, &key.database);
    drop(running);
    let lease = match pool.store.try_lease(NOBODY, Instant::now()) {
        Some(lease) => lease,
        None => {
            let mut waiting = pool.store.wait(NOBODY, Patience::UntilRefused, Instant::now());
            match waiting.served().await {
                Ok(lease) => lease,
                Err(refusal) => {
                    let is_none = matches!(&refusal, Refusal::Login(why) if why.sqlstate() == Some(NO_SUCH_DATABASE));
                    let failed = failed(&PoolError::from(refusal));
                    // A name that only `*` takes: where there is no such database there is no such user, and that is said
                    // behind a proof, as of any other. One that the file has is the operator's mistake.
                    return if is_none && !is_named { Ok(None) } else { Err(failed) };
                }
            }
        }
    };
    let question = Question { lease, pool, query: key.query.clone(), user: key.user.clone() };
    let asked = pooler.drain.spawn(question.ask(pooler.statements.clone()));
    drop(pooler);
    let secret = asked.await.map_err(|_| failed(&"the process is stopping"))?.map_err(|why| failed(&why))?;
    Ok(secret.map(|secret| {
        let secret = config::classify(secret).unwrap_or_else(|why| {
            warn!(user = key.user, "what auth_query returned {why}");
            UserSecret::Absent
        });
        Arc::new(Known::new(User::new(key.user, secret)))
    }))
}

const NO_SUCH_DATABASE: &str = "3D000";
/// The client that a server is lent to for a question: none has this number.
const NOBODY: u64 = 0;

#[cfg(test)]
mod tests;
