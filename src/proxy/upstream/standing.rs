//! Whether a server may be given a request, from what its checks and the database say. Pure: the truth table is the file.
//!
//! Two facts are kept of each server, because Django's `/health/` answers 503 when its *database* is down: `alive` (it
//! answers HTTP at all) and `passing` (its check's own verdict). Which one counts depends on the database the check names:
//!
//! | database      | the request needs it | otherwise                              |
//! |---------------|----------------------|----------------------------------------|
//! | up or unknown | `passing`            | `passing`                              |
//! | down          | refused at once      | `alive`: a 503 from a live process is  |
//! |               |                      | the database's fault, not the server's |
//!
//! So a dead database takes no server down, the routes that do without it go on, and a server whose own page claims that
//! its database is fine is not believed.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::health::{board::Serving, threshold::Health};

/// What checks found out about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Answers HTTP, whatever it says.
    pub alive: Health,
    /// Answers with the statuses the check asks for.
    pub passing: Health,
}

/// What follows for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    ServerDown,
    /// The request needs a database that is down; no server can help.
    DatabaseDown,
}

/// Decides for a server with `facts` (`None`: its upstream has no check) and a database that is `database`.
pub fn verdict(facts: Option<Facts>, database: Serving, needs_database: bool) -> Verdict {
    let health = match (database, needs_database) {
        (Serving::Down, true) => return Verdict::DatabaseDown,
        (Serving::Down, false) => facts.map(|facts| facts.alive),
        (Serving::Up | Serving::Unknown, _) => facts.map(|facts| facts.passing),
    };
    match health {
        None | Some(Health::Up) => Verdict::Serve,
        Some(Health::Unproven | Health::Down) => Verdict::ServerDown,
    }
}

/// [`Facts`] as every thread sees them.
#[derive(Debug)]
pub struct SharedFacts {
    alive: AtomicU8,
    passing: AtomicU8,
}

impl SharedFacts {
    /// Returns facts of which nothing is proven.
    pub fn unproven() -> Self {
        Self { alive: AtomicU8::new(code(Health::Unproven)), passing: AtomicU8::new(code(Health::Unproven)) }
    }

    /// Returns what is known.
    pub fn load(&self) -> Facts {
        Facts {
            alive: health(self.alive.load(Ordering::Relaxed)),
            passing: health(self.passing.load(Ordering::Relaxed)),
        }
    }

    /// Replaces what is known.
    pub fn store(&self, facts: Facts) {
        self.alive.store(code(facts.alive), Ordering::Relaxed);
        self.passing.store(code(facts.passing), Ordering::Relaxed);
    }
}

fn code(health: Health) -> u8 {
    match health {
        Health::Unproven => 0,
        Health::Up => 1,
        Health::Down => 2,
    }
}

fn health(code: u8) -> Health {
    match code {
        1 => Health::Up,
        2 => Health::Down,
        _ => Health::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_table() {
        use Health::{Down, Unproven, Up};
        let facts = |alive, passing| Some(Facts { alive, passing });
        for (facts, database, needs_database, expected) in [
            // No check: always up, but for a database that is down.
            (None, Serving::Unknown, true, Verdict::Serve),
            (None, Serving::Down, false, Verdict::Serve),
            (None, Serving::Down, true, Verdict::DatabaseDown),
            // While the database serves, or nobody knows, the check's own verdict counts for every route.
            (facts(Up, Up), Serving::Up, true, Verdict::Serve),
            (facts(Up, Up), Serving::Unknown, true, Verdict::Serve),
            (facts(Up, Down), Serving::Up, true, Verdict::ServerDown),
            (facts(Up, Down), Serving::Up, false, Verdict::ServerDown),
            (facts(Up, Down), Serving::Unknown, false, Verdict::ServerDown),
            (facts(Up, Unproven), Serving::Up, true, Verdict::ServerDown),
            (facts(Unproven, Unproven), Serving::Up, false, Verdict::ServerDown),
            (facts(Down, Down), Serving::Up, true, Verdict::ServerDown),
            // While it does not, a live process is good for the routes that do without it.
            (facts(Up, Down), Serving::Down, false, Verdict::Serve),
            (facts(Up, Unproven), Serving::Down, false, Verdict::Serve),
            (facts(Down, Down), Serving::Down, false, Verdict::ServerDown),
            (facts(Unproven, Unproven), Serving::Down, false, Verdict::ServerDown),
            // A page that claims all is well is not believed.
            (facts(Up, Up), Serving::Down, true, Verdict::DatabaseDown),
            (facts(Down, Down), Serving::Down, true, Verdict::DatabaseDown),
        ] {
            assert_eq!(
                verdict(facts, database, needs_database),
                expected,
                "{facts:?} {database:?} needs_database={needs_database}"
            );
        }
    }

    #[test]
    fn shared_facts_return_what_was_stored() {
        let shared = SharedFacts::unproven();
        assert_eq!(shared.load(), Facts { alive: Health::Unproven, passing: Health::Unproven });
        let facts = Facts { alive: Health::Up, passing: Health::Down };
        shared.store(facts);
        assert_eq!(shared.load(), facts);
    }
}
