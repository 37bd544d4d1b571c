//! What SQL may leave on a server that its next client must not find: seen here, asked about in [`super::census`].
//!
//! | left by | seen by | what is done at the boundary |
//! |---|---|---|
//! | `SET`, `RESET`, `SET ROLE`, … of what is not reported | names in the text, and the command's tag | the server is asked for the values, which are kept for the client |
//! | `set_config('name', …)` | its name in the text | the same |
//! | a setting whose name is not known | the tag, or `set_config($1, …)` | the client is pinned |
//! | `RESET ALL`, `DISCARD ALL` | the text and the tag | the client has again what it asked for at startup |
//! | temporary objects | `TEMP`, `pg_temp` in the text | the server is asked; the client is pinned while there are any |
//! | `DECLARE … WITH HOLD` | the text | the same |
//! | session advisory locks | `advisory_lock` in the text | the same |
//! | `PREPARE` | the command's tag | the same |
//! | `LISTEN` | the command's tag | the same, until somebody else listens for the client ([`super::listen`]) |
//! | `LOAD` | the command's tag | the client is pinned, and its server closed when it leaves |
//! | any of them inside a DO | the words of its body ([`super::covert`]) | the same; of a text that it puts together, all is asked for but settings, which are reset |
//! | the EXECUTE of a `PREPARE` that sets | `set_config` in the text of that | the server is asked behind each command while the client is pinned |
//! | a FunctionCall | its function's number | as for a call of it |
//! | `CREATE TABLE` under a `search_path` with `pg_temp` | that setting, which we keep | as for temporary objects |
//!
//! A pinned client keeps its server over the boundary. What may end that (`CLOSE`, `DROP`, `UNLISTEN`, `DEALLOCATE`,
//! `advisory_unlock`, …) makes the server be asked again. Suspicion is cheap: a lease without any of this pays one look at
//! each text and one comparison at its boundary. A text over [`TEXT_MAX`] that came in pieces counts as if it might have left
//! everything. What is done inside a function of the database's own is not seen.

use std::sync::Arc;

use super::{
    census::Question,
    listen::Unlistens,
    session::Session,
    sql::{self, Deed, Hints, Name, Reading},
};
use crate::{
    config::pool::PoolMode,
    pool::{
        params::{Options, is_identity, is_setting_name},
        pins::{Pins, Reason},
        prepared::Statement,
        wire::frame::Header,
    },
};

/// A text no longer than this is looked at whole, in however many pieces it comes.
pub(super) const TEXT_MAX: usize = 8 * 1024;
/// Settings the server is asked for at once. With more the client is pinned.
pub(super) const NAMES_MAX: usize = 100;

/// What a lease has seen. Made with the first thing worth noting.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What statements said whose tag is SET or RESET, done or not.
    pub deeds: Vec<Deed>, // bound: NAMES_MAX
    /// The same, of what ran before a RESET ALL: of use again if that did not happen.
    pub before_reset: Vec<Deed>, // bound: NAMES_MAX and one, which says that there were more
    /// [`Self::unknown`] and [`Self::shaken`] before it.
    pub unseen_before_reset: (bool, bool),
    /// One of those tags came.
    pub set: bool,
    /// Settings to ask for whatever the tags are.
    pub calls: Vec<Name>, // bound: NAMES_MAX
    /// Reported settings that were reset: the client's own are those of its startup.
    pub restore: Vec<Name>, // bound: NAMES_MAX
    pub restore_all: bool,
    /// Something is set and its name is not known.
    pub unknown: bool,
    /// A text was not seen whole.
    pub shaken: bool,
    /// By reason, the statement that gave it, for the log.
    culprits: [Option<Box<str>>; Reason::COUNT],
    /// The last statement whose tag tells what it left.
    told: Option<Box<str>>,
    /// Pins that are new, for metrics and the log.
    pub fresh: Vec<Reason>, // bound: one for each reason between two wake-ups
    /// The statement that the unnamed one, a DEALLOCATE, drops when it is run.
    pub deallocates: Option<Arc<[u8]>>,
    /// The database that a statement wants to itself: nobody's idle connection is to be in its way.
    pub wanted_alone: Option<Vec<u8>>,
    /// What UNLISTEN may have done.
    pub unlistens: Unlistens,
    /// The question under way.
    pub question: Question,
}

impl Notes {
    /// Returns whether nothing is noted that is still of use.
    pub fn is_spent(&self) -> bool {
        !self.shaken
            && !self.unknown
            && self.deallocates.is_none()
            && self.fresh.is_empty()
            && self.wanted_alone.is_none()
            && self.deeds.is_empty()
            && self.calls.is_empty()
            && self.unlistens.is_empty()
    }

    pub(super) fn blame(&mut self, reasons: Pins, text: &[u8]) {
        for reason in reasons.iter() {
            self.culprits[reason as usize].get_or_insert_with(|| sql::masked(text).into());
        }
    }

    /// A RESET ALL may have happened or not. All that it may have changed is asked for, and what the server has is not taken
    /// for known: the next replay begins with a reset of its own.
    fn doubt_reset(&mut self, own: Option<&Options>) {
        if !self.deeds.contains(&Deed::ResetAll) {
            return;
        }
        self.deeds.retain(|deed| *deed != Deed::ResetAll);
        self.deeds.append(&mut self.before_reset);
        self.unknown |= std::mem::take(&mut self.unseen_before_reset).0;
        let own = own.into_iter().flat_map(Options::names);
        self.deeds.extend(own.map(|name| Deed::Reset(name.to_ascii_lowercase())));
        self.shaken = true;
        if self.deeds.len() > NAMES_MAX {
            self.deeds.truncate(NAMES_MAX);
            self.unknown = true;
        }
    }

    /// Returns what is known of the statement that gave the reason, and forgets it.
    pub fn culprit(&mut self, reason: Reason) -> Box<str> {
        self.culprits[reason as usize].take().unwrap_or_default()
    }

    /// Returns the settings to ask for, by name, and whether each was only reset.
    pub fn take_names(&mut self) -> Vec<(Name, bool)> {
        let mut names: Vec<(Name, bool)> = Vec::new(); // bound: three times NAMES_MAX
        let mut add = |name: Name, reset: bool| match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, only_reset)) => *only_reset &= reset,
            None => names.push((name, reset)),
        };
        let deeds = std::mem::take(&mut self.deeds);
        for deed in deeds.into_iter().filter(|_| self.set) {
            match deed {
                Deed::Set(name) => add(name, false),
                Deed::Reset(name) => add(name, true),
                Deed::ResetAll => {}
            }
        }
        self.set = false;
        std::mem::take(&mut self.calls).into_iter().for_each(|name| add(name, false));
        names
    }
}

impl Session<'_> {
    pub(super) fn shares(&self) -> bool {
        self.limits.mode != PoolMode::Session
    }

    /// Reads from a command's tag what it did to the server beyond its transaction.
    pub(super) fn note_command(&mut self, command: &[u8]) {
        match command {
            b"DEALLOCATE ALL" => {
                self.client.statements.clear();
                self.server.statements.clear();
                self.ask_again(Reason::Prepare);
            }
            b"DISCARD ALL" => self.discarded(),
            b"DEALLOCATE" => {
                if !self.client_deallocated() {
                    self.server.statements.doubt_all();
                }
                self.ask_again(Reason::Prepare);
            }
            // A server of session mode is reset after its client, by what the operator chose; what that has left is the next
            // replay's.
            b"SET" | b"RESET" if !self.shares() => self.server.applied.doubt(),
            b"PREPARE" if !self.shares() => self.server.sql_prepared = true,
            _ if !self.shares() => {}
            b"SET" | b"RESET" => self.set(),
            b"PREPARE" => self.suspect_told(Reason::Prepare),
            b"LISTEN" => self.suspect_told(Reason::Listen),
            b"LOAD" => {
                self.suspect_told(Reason::Load);
                self.suspects.remove(Reason::Load); // nobody need be asked
                self.server.unfit = true;
                self.pin([Reason::Load].into_iter().collect());
            }
            b"CLOSE CURSOR" | b"CLOSE CURSOR ALL" => self.ask_again(Reason::Cursor),
            b"UNLISTEN" => {
                self.ask_again(Reason::Listen);
                self.note_unlisten();
            }
            b"DISCARD TEMP" => self.ask_again(Reason::Temp),
            b"ROLLBACK" => self.note_failure(),
            _ if command.starts_with(b"DROP ") => {
                self.note_change_of_tables(command);
                self.ask_again(Reason::Temp);
            }
            _ => {
                // What it creates may be temporary with no word that says so.
                if self.client.creates_temporary {
                    self.suspects.insert(Reason::Temp);
                }
                if !self.set_by_execute.is_empty() {
                    self.note_execute();
                }
                self.note_change_of_tables(command);
            }
        }
    }

    /// A statement failed or was rolled back: a RESET may not have happened. What is read back from the server is right
    /// either way; what is not read back is left as it was.
    pub(super) fn note_failure(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.doubt_reset(self.client.options.as_deref());
            notes.restore.clear();
            notes.unlistens = Unlistens::default();
        }
    }

    /// Looks at SQL that passes: the body of a Query, or of a Parse, whose text begins at `from`. Returns `None` when more of
    /// it must be seen.
    pub(super) fn note_text(&mut self, header: Header, body: &[u8], from: usize) -> Option<Hints> {
        let whole = body.len() == header.body_len();
        if !whole && header.body_len() <= TEXT_MAX {
            return None;
        }
        let text = body.get(from..).unwrap_or_default();
        let hints = sql::hints(text);
        if !self.shares() {
            if hints.contains(Hints::DATABASE) {
                self.note_wanted_alone(text);
            }
            if !whole || hints.contains(Hints::SET_CONFIG) {
                self.server.applied.doubt();
            }
            return Some(hints);
        }
        if !hints.is_empty() {
            self.note(text, hints);
        }
        if !whole {
            self.server.applied.doubt();
            let unseen = [Reason::Temp, Reason::Cursor, Reason::AdvisoryLock].into_iter().collect();
            self.suspect(unseen, text).shaken = true;
        }
        Some(hints)
    }

    /// A prepared statement is about to run; its text was whole when it was kept, and is looked at once.
    pub(super) fn note_statement(&mut self, statement: &Statement) {
        let text = statement.definition();
        if statement.is_noteworthy(|text| !sql::hints(text).is_empty()) && self.shares() {
            self.note(text, sql::hints(text));
        }
    }

    /// A text is about to run that was parsed before.
    pub(super) fn note_definition(&mut self, text: &[u8]) {
        let hints = sql::hints(text);
        if !hints.is_empty() && self.shares() {
            self.note(text, hints);
        }
    }

    #[cold]
    fn note(&mut self, text: &[u8], hints: Hints) {
        self.frees |= hints.contains(Hints::DEALLOCATE) || hints.contains(Hints::DISCARD);
        let mut reading = sql::read(text, hints);
        if reading.prepares_set {
            self.note_prepared_set(&reading);
        }
        let within = std::mem::take(&mut reading.within);
        self.sets_seen = self.sets_seen.saturating_add(u16::try_from(reading.sets).unwrap_or(u16::MAX));
        let reasons = [
            (reading.temp || within.hidden, Reason::Temp),
            (reading.hold || within.hidden, Reason::Cursor),
            (reading.lock || within.hidden, Reason::AdvisoryLock),
            (within.listens || within.hidden, Reason::Listen),
            (within.prepares || within.hidden, Reason::Prepare),
            (reading.unknown, Reason::Setting),
        ];
        let reasons: Pins = reasons.into_iter().filter_map(|(given, reason)| given.then_some(reason)).collect();
        if !reasons.is_empty() {
            self.suspect(reasons, text);
        }
        let unseen = (reading.unknown, within.hidden);
        self.note_within(within, text);
        if reading.unknown {
            self.server.applied.doubt();
        }
        if hints.contains(Hints::DATABASE) {
            self.note_wanted_alone(text);
        }
        if !reading.listens.is_empty() {
            self.note_listens(std::mem::take(&mut reading.listens));
        }
        if reading.unlock {
            self.ask_again(Reason::AdvisoryLock);
        }
        if hints.contains(Hints::TOLD_BY_TAG) {
            self.notes.get_or_insert_default().told = Some(sql::masked(text).into());
        }
        if !reading.deeds.is_empty() || !reading.calls.is_empty() {
            self.note_settings(reading, text);
        }
        // Behind a RESET ALL of the same text, for all that is known.
        if unseen != (false, false) {
            let notes = self.notes.get_or_insert_default();
            notes.unknown |= unseen.0;
            notes.shaken |= unseen.1;
        }
    }

    /// Sorts what a text names: reported settings follow their client anyway, the others are asked for at the boundary.
    fn note_settings(&mut self, reading: Reading, text: &[u8]) {
        let tracked = &self.client.params;
        let is_tracked = |name: &str| tracked.value(name).is_some();
        let deeds = reading.deeds.into_iter().flat_map(|deed| match &deed {
            Deed::Set(name) if name == sql::CHARACTERISTICS => sql::characteristics().map(Deed::Set).collect(),
            // It ends whatever role there was.
            Deed::Set(name) | Deed::Reset(name) if name == "session_authorization" => {
                vec![deed, Deed::Reset("role".to_owned())]
            }
            _ => vec![deed],
        });
        let (mut asked, mut restore) = (Vec::new(), Vec::new());
        for deed in deeds {
            match deed {
                Deed::Set(name) if is_tracked(&name) => {}
                Deed::Reset(name) if is_tracked(&name) => restore.push(name),
                deed => asked.push(deed),
            }
        }
        let mut calls: Vec<_> = reading.calls.into_iter().filter(|name| !is_tracked(name)).collect();
        if asked.is_empty() && restore.is_empty() && calls.is_empty() {
            return;
        }
        let notes = self.notes.get_or_insert_default();
        let sound = |deed: &Deed| match deed {
            Deed::Set(name) | Deed::Reset(name) => is_setting_name(name),
            Deed::ResetAll => true,
        };
        let fits = |known: usize, new: usize| known + new <= NAMES_MAX;
        if !fits(notes.deeds.len(), asked.len())
            || !fits(notes.calls.len(), calls.len())
            || !fits(notes.restore.len(), restore.len())
        {
            notes.unknown = true;
            notes.blame([Reason::Setting].into_iter().collect(), text);
            (asked, restore) = (Vec::new(), Vec::new());
            calls.clear();
        }
        if let Some(last) = asked.iter().rposition(|deed| *deed == Deed::ResetAll) {
            notes.before_reset.append(&mut notes.deeds);
            notes.before_reset.extend(asked.drain(..last));
            notes.before_reset.retain(|deed| *deed != Deed::ResetAll && sound(deed));
            notes.before_reset.truncate(NAMES_MAX + 1);
            // Who it acts as, RESET ALL leaves.
            let lasts = |deed: &&Deed| matches!(deed, Deed::Set(name) | Deed::Reset(name) if is_identity(name));
            notes.deeds.extend(notes.before_reset.iter().filter(lasts).cloned());
            notes.unseen_before_reset.0 |= std::mem::take(&mut notes.unknown);
            notes.unseen_before_reset.1 |= std::mem::take(&mut notes.shaken);
            notes.restore.clear();
        }
        // What cannot be a name the server refuses itself.
        notes.deeds.extend(asked.into_iter().filter(sound));
        notes.restore.append(&mut restore);
        let before = notes.calls.len();
        notes.calls.extend(calls.into_iter().filter(|name| is_setting_name(name)));
        if notes.calls.len() > before || notes.unknown {
            self.suspects.insert(Reason::Setting);
            self.server.applied.doubt();
        }
    }

    /// A SET or RESET succeeded.
    fn set(&mut self) {
        self.server.touched = true;
        match (self.sets_seen.checked_sub(1), &mut self.notes) {
            (Some(left), notes) => {
                self.sets_seen = left;
                if let Some(notes) = notes
                    && !(notes.deeds.is_empty() && notes.restore.is_empty())
                {
                    notes.set = true;
                    self.suspects.insert(Reason::Setting);
                    self.server.applied.doubt();
                }
            }
            // Nobody saw what it set.
            (None, _) => {
                self.server.applied.doubt();
                self.suspect([Reason::Setting].into_iter().collect(), b"SET").unknown = true;
            }
        }
    }

    /// `DISCARD ALL` ran: nothing is left of the session, but libraries.
    fn discarded(&mut self) {
        self.client.statements.clear();
        self.server.statements.clear();
        self.server.touched = true;
        self.server.applied.set(None);
        self.client.options = self.client.startup_options().cloned();
        self.client.scope = None;
        self.client.look_at_path();
        let more_behind = self.server.owed.len() > 1;
        (self.moving, self.client.listening) = (None, None);
        let load = [Reason::Load].into_iter().collect();
        self.set_pins(self.pins.and(load));
        let restore_all = self.client.baseline.is_some() && self.shares();
        if more_behind {
            // What is noted may be of what runs behind it.
            self.server.applied.doubt();
            if restore_all {
                self.notes.get_or_insert_default().restore_all = true;
            }
            return;
        }
        self.suspects = Pins::none();
        self.set_by_execute.clear();
        self.sets_seen = 0;
        if self.notes.is_some() || restore_all {
            let notes = self.notes.get_or_insert_default();
            **notes = Notes { restore_all, fresh: std::mem::take(&mut notes.fresh), ..Notes::default() };
        }
    }

    /// Notes that something of `reasons` may be on the server.
    pub(super) fn suspect(&mut self, reasons: Pins, text: &[u8]) -> &mut Notes {
        reasons.iter().for_each(|reason| self.suspects.insert(reason));
        let notes = self.notes.get_or_insert_default();
        notes.blame(reasons.without(self.pins), text);
        notes
    }

    fn suspect_told(&mut self, reason: Reason) {
        self.suspects.insert(reason);
        let notes = self.notes.get_or_insert_default();
        if let Some(told) = notes.told.take() {
            notes.culprits[reason as usize].get_or_insert(told);
        }
    }

    /// Something ran that may have taken away what the client is pinned for.
    pub(super) fn ask_again(&mut self, reason: Reason) {
        if self.pins.contains(reason) {
            self.suspects.insert(reason);
        }
    }
}
