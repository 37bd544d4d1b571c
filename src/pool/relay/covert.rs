//! What leaves something on a server under a tag that says nothing of it: a DO, and a FunctionCall, which has no text either.
//!
//! A DO is read as far as its text goes ([`super::sql`]). One that executes a text which it puts together may have done
//! anything: all is asked for that can be asked for; settings cannot, without their names, so the server is reset before
//! anybody's next lease, and its statements are prepared again.

use super::{
    leftovers::NAMES_MAX,
    session::Session,
    sql::{self, Reading, Within},
};
use crate::pool::{params::is_setting_name, pins::Reason};

/// `set_config`, as it is numbered since it is there (pg_proc.dat).
const SET_CONFIG: u32 = 2078;
/// `pg_advisory_lock`, `pg_try_advisory_lock`, shared or not, of one number or two.
const ADVISORY_LOCKS: [u32; 8] = [2880, 2881, 2882, 2883, 2886, 2887, 2888, 2889];
/// `pg_advisory_unlock` and `pg_advisory_unlock_all`.
const ADVISORY_UNLOCKS: [u32; 5] = [2884, 2885, 2890, 2891, 2892];

impl Session<'_> {
    /// A FunctionCall passes. What it calls has a number, and no text.
    pub(super) fn note_function(&mut self, function: u32) {
        match function {
            SET_CONFIG if !self.shares() => self.server.applied.doubt(),
            _ if !self.shares() => {}
            SET_CONFIG => {
                self.server.applied.doubt();
                self.suspect([Reason::Setting].into_iter().collect(), b"function call: set_config").unknown = true;
            }
            _ if ADVISORY_LOCKS.contains(&function) => {
                self.suspect([Reason::AdvisoryLock].into_iter().collect(), b"function call: pg_advisory_lock");
            }
            _ if ADVISORY_UNLOCKS.contains(&function) => self.ask_again(Reason::AdvisoryLock),
            _ => {}
        }
    }

    /// A statement of databases is on its way. In session mode too, others' idle connections are in its way.
    #[cold]
    pub(super) fn note_wanted_alone(&mut self, text: &[u8]) {
        if let Some(name) = sql::wanted_alone(text) {
            self.notes.get_or_insert_default().wanted_alone = Some(name);
        }
    }

    /// A PREPARE of something that sets: each EXECUTE may set another value, and its text does not say so.
    pub(super) fn note_prepared_set(&mut self, reading: &Reading) {
        let known = &mut self.set_by_execute;
        known.extend(reading.calls.iter().filter(|name| is_setting_name(name)).cloned());
        known.sort_unstable();
        known.dedup();
        // Whatever it sets goes with the server, if the names are too many or are not known.
        self.server.unfit |= reading.unknown || known.len() > NAMES_MAX;
        known.truncate(NAMES_MAX);
    }

    /// A command ran that may have been an EXECUTE of that.
    #[cold]
    pub(super) fn note_execute(&mut self) {
        let tracked = &self.client.params;
        let notes = self.notes.get_or_insert_default();
        for name in self.set_by_execute.iter().filter(|name| tracked.value(name).is_none()) {
            if !notes.calls.contains(name) {
                notes.calls.push(name.clone());
            }
        }
        self.suspects.insert(Reason::Setting);
        self.server.applied.doubt();
    }

    /// What a DO may do that no tag will tell of, and no question finds.
    pub(super) fn note_within(&mut self, within: Within, text: &[u8]) {
        if within.frees || within.hidden {
            self.frees = true;
            self.server.statements.doubt_all();
        }
        if within.hidden {
            self.server.applied.doubt();
        }
        if within.loads {
            let load = [Reason::Load].into_iter().collect();
            self.server.unfit = true;
            self.notes.get_or_insert_default().blame(load, text);
            self.pin(load);
        }
    }
}
