//! What follows from what was noted, at the moment the server is ready: as much of it as needs no question.
//!
//! `RESET ALL` leads a client back to what it asked for at startup, which is not where it leads the server: the client has its
//! own again at its next lease, or after another replay in this one, and is told so before its ReadyForQuery. What cannot be
//! asked for, because nobody knows its name, pins the client.

use super::{session::Session, sink::Sink, sql::Deed};
use crate::pool::{
    pins::{Pins, Reason},
    wire::{backend, backend::TxStatus},
};

impl Session<'_> {
    /// The server is ready and nothing is under way: what needs no question is settled before the client hears of it.
    #[cold]
    pub(super) fn settle_notes(&mut self, out: &mut Sink<'_>) {
        debug_assert!(self.server.tx == TxStatus::Idle && self.server.owed.is_empty());
        self.sets_seen = 0;
        let Some(notes) = &mut self.notes else { return };
        if notes.set && notes.deeds.contains(&Deed::ResetAll) {
            notes.restore_all = true;
            self.reset_all();
        } else {
            let (unknown, shaken) = notes.unseen_before_reset;
            notes.unknown |= unknown;
            notes.shaken |= shaken;
        }
        let Some(notes) = &mut self.notes else { return };
        notes.before_reset.clear();
        notes.unseen_before_reset = (false, false);
        let restore = std::mem::take(&mut notes.restore);
        let restore_all = std::mem::take(&mut notes.restore_all);
        let restore_some = notes.set && !restore.is_empty();
        if (restore_all || restore_some)
            && let Some(baseline) = &self.client.baseline
        {
            self.stale = true;
            self.client.renamed = true;
            self.client.scope = None;
            let asked = |name: &str| restore_all || restore.iter().any(|reset| reset.eq_ignore_ascii_case(name));
            for (name, value) in baseline.tracked.iter().filter(|(name, _)| asked(name)) {
                let differs = self.client.params.value(name).is_some_and(|now| **now != **value);
                if differs && self.client.params.update(name, value) {
                    backend::parameter_status(out.writer(), name, value);
                }
            }
            self.client.look_at_path();
        }
        self.settle_settings();
    }

    /// `RESET ALL` ran: of what is not reported only who the session acts as is left.
    fn reset_all(&mut self) {
        self.server.applied.reset_all();
        let mut options = self.client.startup_options().map(|options| (**options).clone()).unwrap_or_default();
        let own = self.client.options.iter().flat_map(|options| options.identity());
        for (name, value) in own {
            let _ = options.add(name, value); // a name of ours
        }
        self.client.set_options(options);
        self.client.scope = None;
        self.renews_options = true;
        self.set_pins(self.pins.without([Reason::Setting].into_iter().collect()));
    }

    /// Pins what cannot be asked for, and leaves a question only if there is one.
    fn settle_settings(&mut self) {
        if !self.suspects.contains(Reason::Setting) {
            if let Some(notes) = &mut self.notes {
                notes.deeds.clear(); // statements that failed
                notes.set = false;
            }
            return;
        }
        let Some(notes) = &mut self.notes else { return };
        notes.deeds.retain(|deed| *deed != Deed::ResetAll);
        if notes.unknown {
            return self.pin([Reason::Setting].into_iter().collect());
        }
        if notes.calls.is_empty() && (notes.deeds.is_empty() || !notes.set) {
            notes.set = false;
            let shaken = notes.shaken;
            self.suspects.remove(Reason::Setting);
            if !shaken {
                self.server.applied.trust();
            }
        }
    }

    /// The client keeps its server for these reasons too.
    pub(super) fn pin(&mut self, more: Pins) {
        let fresh = more.without(self.pins);
        let notes = self.notes.get_or_insert_default();
        notes.fresh.extend(fresh.iter());
        self.set_pins(self.pins.or(more));
    }

    pub(super) fn set_pins(&mut self, pins: Pins) {
        if self.pins != pins {
            self.pins = pins;
            self.control.set_pins(pins);
        }
    }

    /// Returns the database that a statement on its way wants to itself.
    pub(super) fn take_wanted_alone(&mut self) -> Option<Vec<u8>> {
        self.notes.as_mut()?.wanted_alone.take()
    }

    /// Returns the next reason for which the client was pinned since the last call, and the statement that gave it.
    pub(super) fn take_pinned(&mut self) -> Option<(Reason, Box<str>)> {
        let notes = self.notes.as_mut()?;
        let reason = notes.fresh.pop()?;
        Some((reason, notes.culprit(reason)))
    }
}
