//! The state of one lease, and when it is over. Sans-IO: told about bytes, it says what becomes of them.

use super::{
    ClientState, Control, Fate, Limits, ServerState,
    framer::{Fed, Framer},
    heal::Heal,
    leftovers::Notes,
    listen::Move,
    owed::{Action, Change, Kind, Named, Sent, Whose},
    pace::{Pace, Rest},
    sink::Sink,
    sql::Name,
    unnamed::Unnamed,
};
use crate::{
    config::pool::PoolMode,
    pool::{
        error::PoolError,
        notify::Post,
        params::{self, Applied},
        pins::{Pins, Reason},
        prepared::{Batch, Ticket, client::ClientStatements, server::ServerStatements},
        wire::{backend, backend::TxStatus, frame, frontend, tag},
    },
};

/// A client and a server while they are linked.
pub(super) struct Session<'a> {
    pub client: &'a mut ClientState,
    pub server: &'a mut ServerState,
    pub limits: &'a Limits,
    pub control: &'a Control,
    pub pace: Pace,
    pub counts: Counts,
    up: Framer,
    down: Framer,
    /// Syncs the client has sent.
    pub(super) batch: Batch,
    /// Tickets handed out.
    tickets: u64,
    /// Extended-protocol messages were sent since the last Sync: portals and the unnamed statement live on this server.
    pub(super) batch_open: bool,
    /// Some were, and a simple Query behind them: it has no Sync to wait for, but is skipped like them when one fails.
    pub(super) behind_batch: bool,
    /// The server discards everything up to a Sync that the client has not sent yet; so do we.
    pub(super) discarding: bool,
    pub(super) unnamed: Unnamed,
    /// The scope that is the client's alone while texts mean something else to it; 0: none yet.
    own_scope: u64,
    /// A text was bound that frees names when it is executed: DEALLOCATE, or DISCARD ALL.
    pub(super) frees: bool,
    /// The server was asked for the answers to all that was executed.
    pub(super) flushed: bool,
    /// A transaction that is not over has changed tables or types.
    pub(super) reshapes: bool,
    /// The batch under way, should it have to be sent again.
    pub(super) heal: Heal,
    /// The server takes CopyData.
    pub(super) copy_in: bool,
    /// An empty Query is to be sent, to tell whether a doubtful Sync was answered.
    pub(super) probe: bool,
    pub(super) replay: Replay,
    /// What the client may have left on the server beyond its transaction, by what was seen. Asked about at the boundary.
    pub(super) suspects: Pins,
    /// What it has left there, by the server's own word: the lease goes on past boundaries.
    pub(super) pins: Pins,
    /// Statements that passed and whose tag will be SET or RESET.
    pub(super) sets_seen: u16,
    /// What statements that were prepared by SQL set, to what their EXECUTE says. bound: NAMES_MAX
    pub(super) set_by_execute: Vec<Name>,
    pub(super) notes: Option<Box<Notes>>,
    /// How the client can listen without this server, if it may.
    pub(super) post: Option<&'a Post<'a>>,
    /// Its channels are on their way there.
    pub(super) moving: Option<Box<Move>>,
    /// The server is being asked what is left.
    pub(super) counting: bool,
    /// A RESET has led the client's settings back to those of its startup, and the server's to its own: a lease that goes on
    /// needs another replay.
    pub(super) stale: bool,
    /// It was RESET ALL: what no server reports is to be given again too.
    pub(super) renews_options: bool,
    /// The server said FATAL; what follows is the end of its stream.
    pub(super) dying: bool,
    /// The client said Terminate.
    pub(super) leaving: bool,
}

/// How far giving the server its client's settings has come. While the answer is awaited the client's messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    Due,
    /// Sent; the client's messages follow it at once.
    Sent,
    /// Sent for the first time, or who the client acts as depends on it; the client's messages wait for its answer.
    Awaited,
    Done,
}

/// What a wake-up adds to the statistics, beside times.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: &'a mut ClientState,
        server: &'a mut ServerState,
        limits: &'a Limits,
        control: &'a Control,
        pace: Pace,
    ) -> Self {
        debug_assert!(server.owed.is_empty() && server.tx == TxStatus::Idle);
        server.statements.refresh(client.interner.schema());
        server.statements.begin_lease();
        server.columns.clear();
        Self {
            client,
            server,
            limits,
            control,
            pace,
            counts: Counts::default(),
            up: Framer::default(),
            down: Framer::default(),
            batch: 0,
            tickets: 0,
            batch_open: false,
            behind_batch: false,
            discarding: false,
            unnamed: Unnamed::default(),
            own_scope: 0,
            frees: false,
            flushed: false,
            reshapes: false,
            heal: Heal::default(),
            copy_in: false,
            probe: false,
            replay: Replay::Due,
            suspects: Pins::none(),
            pins: Pins::none(),
            sets_seen: 0,
            set_by_execute: Vec::new(),
            renews_options: false,
            notes: None,
            post: None,
            moving: None,
            counting: false,
            stale: false,
            dying: false,
            leaving: false,
        }
    }

    /// Takes bytes of the client. `out` goes to the server; what we answer ourselves goes `back`.
    pub(super) fn client_bytes(
        &mut self,
        input: &[u8],
        out: &mut Sink<'_>,
        back: &mut Vec<u8>,
    ) -> Result<Fed, PoolError> {
        if self.needs_renewal() {
            (self.stale, self.replay) = (false, Replay::Due);
            self.lose_unnamed();
        }
        self.link(out);
        if self.heal_wants_turn() {
            self.put_batch_again(out)?;
        }
        let mut up = std::mem::take(&mut self.up);
        if up.is_at_start() {
            self.put_probe(out);
            self.put_census(out);
            self.put_move(out);
        }
        let max_len = self.limits.max_packet_size;
        let fed = up.feed(input, out, max_len, |header, body, out| self.on_client(header, body, out));
        self.up = up;
        // With something behind them that the server answers they go in that answer's packet. `back` is behind the bytes
        // that came from the server so far, which may end inside a message.
        if self.down.output_is_at_start() && (fed.is_err() || self.server.owed.is_all_fakes()) {
            debug_assert!(
                fed.as_ref().map_or(true, |fed| !fed.waiting),
                "what waits, waits for an answer of the server"
            );
            self.answer_fakes(back);
        }
        fed
    }

    /// Takes bytes of the server. `out` goes to the client.
    pub(super) fn server_bytes(&mut self, input: &[u8], out: &mut Sink<'_>) -> Result<(), PoolError> {
        let mut down = std::mem::take(&mut self.down);
        let fed = down.feed(input, out, i32::MAX as u32, |header, body, out| self.on_server(header, body, out));
        self.down = down;
        fed.map_err(|error| match error {
            // Said by the framer, which does not know whose bytes it reads.
            PoolError::Protocol { why } => PoolError::ServerProtocol { why },
            PoolError::PacketTooLarge { .. } => PoolError::ServerProtocol { why: "message too long" },
            other => other,
        })?;
        if self.down.output_is_at_start() {
            self.put_fakes(out);
        }
        Ok(())
    }

    /// Writes the replay, once, before anything else.
    fn link(&mut self, out: &mut Sink<'_>) {
        if self.replay != Replay::Due {
            return;
        }
        let keeps = self.is_pinned_for_good();
        let renews = std::mem::take(&mut self.renews_options);
        let (client, server) = (&*self.client, &*self.server);
        let applied = if keeps { !renews } else { server.applied.is(client.options.as_ref()) };
        let same = applied && client.params.agrees(&server.params);
        if same && !server.sql_prepared {
            self.replay = Replay::Done;
            return;
        }
        let out = out.writer();
        let from = out.len();
        let mut needed = false;
        frame::write(out, tag::frontend::QUERY, |out| {
            let (client, server) = (&*self.client, &mut *self.server);
            let deallocate = std::mem::take(&mut server.sql_prepared);
            if deallocate {
                out.extend_from_slice(b"DEALLOCATE ALL;");
                server.statements.clear();
            }
            // What it has set since is not known here, and stays.
            let (options, applied) = match keeps {
                true => (client.options.as_ref().filter(|_| renews), &Applied::default()),
                false => (client.options.as_ref(), &server.applied),
            };
            needed = params::put_replay(out, &client.params, &server.params, options, applied);
            needed |= deallocate;
            out.push(0);
        });
        if !needed {
            out.truncate(from);
            self.replay = Replay::Done;
            return;
        }
        self.server.owed.push(Kind::Replay, Action::Skip);
        self.pace.asked();
        // From here on: what passes behind it may give reason for new doubt. An answer that is none ends the server.
        if !keeps {
            self.server.applied.set(self.client.options.as_ref());
        }
        let acts = self.client.options.as_ref().is_some_and(|options| options.acts_as_another());
        self.replay = if self.client.proven && !acts { Replay::Sent } else { Replay::Awaited };
        self.control.set_replaying(true);
    }

    /// Asks the server something whose answer is unlike any other, an empty Query, when a doubtful Sync is all it may owe.
    pub(super) fn put_probe(&mut self, out: &mut Sink<'_>) {
        if self.may_probe() {
            self.probe = false;
            frontend::query(out.writer(), b"");
            self.lose_unnamed();
            self.server.owed.push(Kind::Query, Action::Skip);
        }
    }

    /// With another request behind the doubtful Syncs, that one's answer will tell.
    fn may_probe(&self) -> bool {
        self.probe && !self.discarding && self.server.owed.is_all_doubtful()
    }

    /// Writes the answers whose turn has come and that we give ourselves.
    #[inline]
    pub(super) fn put_fakes(&mut self, out: &mut Sink<'_>) {
        if self.server.owed.is_fake_next() {
            self.answer_fakes(out.writer());
        }
    }

    fn answer_fakes(&mut self, out: &mut Vec<u8>) {
        while self.server.owed.is_fake_next() {
            let Some(entry) = self.server.owed.pop() else { return };
            write_fake(entry.kind, out);
            self.heal.answered(entry.kind);
            self.confirm(entry.change);
            self.pop_copy_ends();
        }
    }

    /// Returns a ticket for a change in the batch under way.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket { batch: self.batch, number: self.tickets }
    }

    /// An answer came: what the request changed holds.
    pub(super) fn confirm(&mut self, change: Option<Box<Change>>) {
        let Some(change) = change else { return };
        let (names, on_server) = (&mut self.client.statements, &mut self.server.statements);
        match *change {
            Change::Parsed { ticket, statement, whose, sent } => {
                if let Whose::Client(name) = whose {
                    names.parsed(&name, ticket);
                }
                if let Sent::Yes { .. } = sent {
                    on_server.parsed(statement.id, ticket);
                }
            }
            Change::ClientClosed { ticket, closed } => names.closed(&closed.name, ticket),
            Change::ServerClosed { ticket, id } => on_server.closed(id, ticket),
            Change::UnnamedWas(_) | Change::Nothing | Change::Reject(_) => {}
        }
    }

    /// The server failed the oldest request and discards the rest of its batch.
    pub(super) fn discard_batch(&mut self) {
        let ServerState { owed, statements, .. } = &mut *self.server;
        let names = &mut self.client.statements;
        let (unnamed, kept) = (&mut self.unnamed, &mut self.client.unnamed);
        // Syncs that are not answered are of later batches.
        let unnamed_is_lost = unnamed.is_of(self.batch - owed.syncs());
        self.discarding = !owed.discard_batch(|mut entry, failed| {
            if unnamed_is_lost {
                unnamed.undo(kept, &mut entry, failed);
            }
            if let (Kind::Describe, Some(named)) = (entry.kind, &entry.named) {
                unask(named, names);
            }
            if let Some(change) = entry.change {
                undo(*change, names, statements);
            }
        });
        if self.discarding {
            self.server.columns.drop_held();
        }
    }

    /// Returns whether `client_bytes` has something to do without new bytes.
    pub(super) fn wants_turn(&self) -> bool {
        self.replay == Replay::Due
            || self.heal_wants_turn()
            || (self.may_probe() && self.up.is_at_start())
            || self.needs_census()
            || self.needs_move()
            || self.needs_renewal()
    }

    fn needs_renewal(&self) -> bool {
        // What it has set is asked for first: a replay gives what is known.
        let asks = self.needs_census() || self.counting;
        self.stale && self.is_pinned() && !asks && !self.leaving && self.is_at_boundary()
    }

    /// Returns the scope of the client's statements as its settings are now. Who [`Session::reads_alone`] has one that nobody
    /// else ever has, and has it until the lease is over: PostgreSQL keeps a plan for the table that a name meant when it
    /// was made, so that a plan that is shared would miss the owner's temporary table, and be left at it for others.
    pub(super) fn scope(&mut self) -> u64 {
        if !self.reads_alone() {
            return self.client.scope();
        }
        if self.own_scope == 0 {
            self.own_scope = self.client.interner.scope_of_its_own();
        }
        self.own_scope
    }

    /// Returns whether texts may mean something else on this server than on others: there are temporary objects, or may be
    /// since a text of this transaction; a setting that nobody can name; a library.
    pub(super) fn reads_alone(&self) -> bool {
        let pins = self.pins.or(self.suspects.and([Reason::Temp].into_iter().collect()));
        [Reason::Temp, Reason::Setting, Reason::Load].into_iter().any(|reason| pins.contains(reason))
    }

    /// Returns whether nothing is under way on the server.
    fn is_at_rest(&self) -> bool {
        self.server.owed.is_empty()
            && !self.batch_open
            && !self.discarding
            && !self.copy_in
            && !self.probe
            && !self.dying
            && !self.heal.is_under_way()
            && self.up.is_at_start()
            && self.down.is_at_start()
    }

    /// Returns whether the server could serve another client now, as far as messages tell.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.is_at_rest() && self.server.tx == TxStatus::Idle
    }

    /// Returns whether all that the client has sent is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.server.owed.is_empty() && !self.heal.is_under_way()
    }

    /// Returns whether the client keeps its server beyond its transaction.
    pub(super) fn is_pinned(&self) -> bool {
        !self.pins.is_empty()
    }

    /// Returns whether it is the client's turn, and a limit is on that.
    pub(super) fn rest(&self) -> Rest {
        match self.is_answered() {
            false => Rest::No,
            true if !self.is_at_boundary() => Rest::InTransaction,
            true if self.is_pinned() => Rest::Pinned,
            true => Rest::No,
        }
    }

    /// Returns what the server is fit for once the client has gone, or has let go of it.
    pub(super) fn fate(&self) -> Fate {
        match self.server.tx {
            _ if self.server.unfit || !self.is_at_rest() => Fate::Close,
            _ if self.leaves_something() => Fate::Discard,
            TxStatus::Idle => Fate::Reusable,
            TxStatus::InTransaction | TxStatus::Failed => Fate::Rollback,
        }
    }

    /// Returns whether the client may leave more than settings, which the next client's replay puts back.
    fn leaves_something(&self) -> bool {
        let unasked = self.suspects.without([Reason::Setting].into_iter().collect());
        self.is_pinned() || !unasked.is_empty()
    }

    /// Returns whether an ErrorResponse of ours would stand between two messages to the client.
    pub(super) fn may_speak(&self) -> bool {
        self.down.output_is_at_start()
    }

    /// Returns whether names of statements are mapped.
    pub(super) fn maps_names(&self) -> bool {
        self.limits.max_prepared_statements > 0 && self.limits.mode != PoolMode::Session
    }
}

fn write_fake(kind: Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Parse => backend::parse_complete(out),
        Kind::Close => backend::close_complete(out),
        _ => debug_assert!(false, "only Parse and Close are answered by us"),
    }
}

/// The client is not told what it asked.
fn unask(named: &Named, names: &mut ClientStatements) {
    if let Some(name) = &named.name {
        names.answered(name, &named.statement, named.made, None);
    }
}

fn undo(change: Change, names: &mut ClientStatements, on_server: &mut ServerStatements) {
    match change {
        Change::Parsed { ticket, statement, whose, sent } => {
            if let Whose::Client(name) = whose {
                names.undo_parse(&name, &statement, ticket);
            }
            if let Sent::Yes { fresh } = sent {
                on_server.undo_parse(statement.id, ticket, fresh);
            }
        }
        Change::ClientClosed { closed, .. } => names.undo_close(closed),
        Change::ServerClosed { ticket, id } => on_server.undo_close(id, ticket),
        Change::UnnamedWas(_) | Change::Nothing | Change::Reject(_) => {}
    }
}
