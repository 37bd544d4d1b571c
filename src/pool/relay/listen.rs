//! A client that LISTENs gets its notifications without its server ([`crate::pool::notify`]): how its channels move there, and
//! what becomes of notifications and UNLISTEN afterwards.
//!
//! | the client's channels are | known by | notifications come from |
//! |---|---|---|
//! | on its server | the census | the server; the client is pinned |
//! | joining | the hub listens to them as well | the server, up to the marker |
//! | with the hub | [`ClientState::listening`] | the hub; what a server says of them is dropped |
//!
//! A move is two Queries of our own at a boundary, while the client's messages wait: the server listens to the marker's channel
//! and notifies it, and once that has come back it is told `UNLISTEN *`. If either fails, the client stays pinned.
//!
//! UNLISTEN reaches a server that does not listen, which is harmless there. Here it counts once it is surely committed: its tag
//! came, nothing failed and nothing was rolled back after it, and the server is idle. In doubt (a `ROLLBACK TO SAVEPOINT` behind it)
//! the client goes on listening: a notification too many is no harm, one too few would be.

use super::{
    drive::MAIL_MAX,
    framer::Verdict,
    leftovers::NAMES_MAX,
    owed::{Action, Kind},
    session::Session,
    sink::Sink,
    sql::Listens,
};
use crate::pool::{
    error::PoolError,
    notify::{Channel, Listening, Ticket},
    pins::{Pins, Reason},
    wire::{backend::TxStatus, frame::Header, frontend, read::Notification},
};

/// A move under way.
#[derive(Debug)]
pub(super) struct Move {
    stage: Stage,
    channels: Vec<Channel>,
    /// `None`: the hub has all of them already.
    ticket: Option<Ticket>,
    /// Our Query was refused.
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until the hub listens too.
    Joining,
    /// The marker is on its way.
    Marking,
    /// The marker has come: the server has nothing more to tell.
    Crossed,
    /// `UNLISTEN *` is on its way.
    Leaving,
}

/// What UNLISTEN may have done in the transaction under way.
#[derive(Debug, Default)]
pub(super) struct Unlistens {
    /// What was to be run. One that is parsed and bound is here twice. bound: NAMES_MAX
    deeds: Vec<Listens>,
    /// Tags that came.
    seen: usize,
}

impl Unlistens {
    pub fn is_empty(&self) -> bool {
        self.deeds.is_empty()
    }

    /// Returns whether each UNLISTEN has surely been run.
    fn are_done(&self) -> bool {
        let unlisten = |at: &usize| !matches!(self.deeds[*at], Listens::To(_));
        let first = |at: &usize| !self.deeds[..*at].contains(&self.deeds[*at]);
        self.seen > 0 && self.seen >= (0..self.deeds.len()).filter(unlisten).filter(first).count()
    }
}

impl Session<'_> {
    /// The census found the client's server listening to these channels, and nothing else that keeps it.
    pub(super) fn found_listening(&mut self, mut channels: Vec<Channel>) {
        self.moving = None; // gives up what was under way
        let Some(post) = self.post else { return };
        if self.pins != Pins::from_iter([Reason::Listen]) || !self.client.speaks_utf8() {
            return;
        }
        let known = self.client.listening.as_deref();
        channels.retain(|channel| **channel != *post.hub.marker().as_bytes());
        channels.retain(|channel| !known.is_some_and(|known| known.has(channel)));
        if known.map_or(0, Listening::len) + channels.len() > post.channels_max {
            return;
        }
        let (stage, ticket) = if channels.is_empty() {
            (Stage::Crossed, None)
        } else {
            let listening = self.client.listening.get_or_insert_with(|| Box::new(Listening::new(post)));
            (Stage::Joining, Some(post.hub.join(listening.mailbox(), channels.clone())))
        };
        self.moving = Some(Box::new(Move { stage, channels, ticket, failed: false }));
    }

    /// Returns whether the move's next step can be taken now.
    pub(super) fn needs_move(&self) -> bool {
        let Some(moving) = &self.moving else { return false };
        let due = match moving.stage {
            Stage::Joining => moving.ticket.as_ref().is_some_and(Ticket::is_ready),
            Stage::Crossed => true,
            Stage::Marking | Stage::Leaving => false,
        };
        due && self.suspects.is_empty() && !self.leaving && self.is_at_boundary()
    }

    /// Takes the move's next step, if it can.
    pub(super) fn put_move(&mut self, out: &mut Sink<'_>) {
        if !self.needs_move() {
            return;
        }
        let (Some(moving), Some(post)) = (&mut self.moving, self.post) else { return };
        match (moving.stage, &moving.ticket) {
            (Stage::Joining, Some(ticket)) => {
                if !ticket.begin() {
                    return;
                }
                let (marker, number) = (post.hub.marker(), ticket.number());
                let sql = format!("LISTEN \"{marker}\";NOTIFY \"{marker}\",'{number}'");
                frontend::query(out.writer(), sql.as_bytes());
                moving.stage = Stage::Marking;
            }
            _ => {
                frontend::query(out.writer(), b"UNLISTEN *");
                moving.stage = Stage::Leaving;
            }
        }
        self.server.owed.push(Kind::Move, Action::Skip);
        self.lose_unnamed();
        self.counting = true;
        self.control.set_replaying(true);
    }

    pub(super) fn on_move_error(&mut self) {
        if let Some(moving) = &mut self.moving {
            moving.failed = true;
        }
    }

    /// The server has done what the move asked of it, or has not.
    pub(super) fn on_moved(&mut self, status: TxStatus) -> Result<(), PoolError> {
        if status != TxStatus::Idle {
            return Err(PoolError::ServerProtocol { why: "in a transaction of ours" });
        }
        self.server.owed.pop();
        match &self.moving {
            // The client's messages wait on, for the server to be told to listen no more.
            Some(moving) if moving.stage == Stage::Crossed && !moving.failed => return Ok(()),
            Some(moving) if moving.stage == Stage::Leaving && !moving.failed => {
                let listen = [Reason::Listen].into_iter().collect();
                self.set_pins(self.pins.without(listen));
            }
            _ => {}
        }
        self.moving = None;
        self.counting = false;
        self.control.set_replaying(false);
        Ok(())
    }

    /// A notification of the server's, for a client that has or may get them from the hub.
    pub(super) fn on_notification(&mut self, header: Header, body: &[u8]) -> Result<Verdict, PoolError> {
        if body.len() < header.body_len() {
            return self.hold(header);
        }
        let told = Notification::parse(body);
        let told = told.map_err(|_| PoolError::ServerProtocol { why: "malformed NotificationResponse" })?;
        if self.post.is_some_and(|post| post.hub.marker().as_bytes() == told.channel) {
            self.on_marker(told.payload);
            return Ok(Verdict::Skip);
        }
        let from_hub = self.client.listening.as_ref().is_some_and(|listening| listening.has(told.channel));
        Ok(if from_hub { Verdict::Skip } else { Verdict::Pass })
    }

    fn on_marker(&mut self, payload: &[u8]) {
        let (Some(moving), Some(listening)) = (&mut self.moving, &mut self.client.listening) else { return };
        let Some(ticket) = &mut moving.ticket else { return };
        if moving.stage == Stage::Marking && payload == ticket.number().to_string().as_bytes() {
            ticket.cross();
            moving.stage = Stage::Crossed;
            listening.moved(std::mem::take(&mut moving.channels));
        }
    }

    // --- UNLISTEN ---

    /// A text with LISTEN or UNLISTEN is about to run.
    pub(super) fn note_listens(&mut self, mut deeds: Vec<Listens>) {
        if self.client.listening.is_none() {
            return;
        }
        let unlistens = &mut self.notes.get_or_insert_default().unlistens;
        if unlistens.deeds.len() + deeds.len() > NAMES_MAX {
            return; // that many in one transaction: it goes on listening
        }
        unlistens.deeds.append(&mut deeds);
    }

    /// An UNLISTEN succeeded.
    pub(super) fn note_unlisten(&mut self) {
        if self.client.listening.is_some()
            && let Some(notes) = &mut self.notes
        {
            notes.unlistens.seen += 1;
        }
    }

    /// The server is ready outside a transaction, for a client that has something with the hub: what it wants no more is left,
    /// and what waits for it comes before its ReadyForQuery, as PostgreSQL has it.
    #[cold]
    pub(super) fn tend_listening(&mut self, out: &mut Sink<'_>) {
        let answered = self.server.owed.is_empty();
        if let Some(notes) = &mut self.notes
            && let Some(listening) = &mut self.client.listening
        {
            let unlistens = &mut notes.unlistens;
            if unlistens.are_done() {
                let deeds = std::mem::take(unlistens).deeds;
                listening.retain(|channel| is_wanted(channel, &deeds));
            } else if answered {
                *unlistens = Unlistens::default();
            }
        }
        self.put_mail(out.writer());
    }

    /// Appends what waits for the client, where that is between two messages.
    pub(super) fn put_mail(&mut self, out: &mut Vec<u8>) {
        let Some(listening) = &self.client.listening else { return };
        if listening.mailbox().is_waiting() {
            listening.take(out, MAIL_MAX, self.client.speaks_utf8());
        }
    }

    /// Returns whether the client may be given something now though it has asked for nothing.
    pub(super) fn may_put_mail(&self) -> bool {
        self.client.listening.as_ref().is_some_and(|listening| listening.mailbox().is_waiting())
            && self.may_speak()
            && self.is_at_boundary()
    }

    /// Returns whether the client must not go on, because it has missed notifications.
    pub(super) fn is_cut_off(&self) -> bool {
        self.client.listening.as_ref().is_some_and(|listening| listening.mailbox().lost().is_some())
    }
}

/// Returns whether a channel is still listened to after all of this.
fn is_wanted(channel: &[u8], deeds: &[Listens]) -> bool {
    deeds.iter().fold(true, |wanted, deed| match deed {
        Listens::To(name) => wanted || **name == *channel,
        Listens::NoMoreTo(name) => wanted && **name != *channel,
        Listens::ToNothing => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlisten_counts_when_as_many_were_run_as_are_known() {
        let no_more = |name: &[u8]| Listens::NoMoreTo(name.into());
        let are_done = |deeds: &[Listens], seen| Unlistens { deeds: deeds.to_vec(), seen }.are_done();
        assert!(!are_done(&[no_more(b"a")], 0));
        assert!(are_done(&[no_more(b"a")], 1));
        assert!(are_done(&[no_more(b"a"), no_more(b"a")], 1), "parsed, and bound");
        assert!(!are_done(&[no_more(b"a"), no_more(b"b")], 1), "which one?");
        assert!(are_done(&[no_more(b"a"), Listens::To(b"b".to_vec())], 1));
    }

    #[test]
    fn the_last_word_about_a_channel_counts() {
        let (to, no_more) = (|name: &[u8]| Listens::To(name.into()), |name: &[u8]| Listens::NoMoreTo(name.into()));
        assert!(is_wanted(b"a", &[]));
        assert!(!is_wanted(b"a", &[no_more(b"a")]));
        assert!(is_wanted(b"a", &[no_more(b"b")]));
        assert!(is_wanted(b"a", &[no_more(b"a"), to(b"a")]));
        assert!(is_wanted(b"a", &[Listens::ToNothing, to(b"b"), to(b"a")]));
        assert!(!is_wanted(b"a", &[to(b"a"), Listens::ToNothing]));
    }
}
