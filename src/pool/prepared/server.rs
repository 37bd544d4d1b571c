//! What one server connection has prepared, and what it must forget to make room.

use std::{collections::HashMap, sync::Arc};

use super::{Batch, Statement, Ticket, statement::Key};

/// The statements of one server connection, by use.
#[derive(Debug, Default)]
pub struct ServerStatements {
    by_id: HashMap<u64, Entry, ahash::RandomState>,
    /// Ids by [`Statement::hash`]: a text is found without asking the interner. Two of one hash: the younger.
    by_hash: HashMap<u64, u64, ahash::RandomState>,
    /// Entries that are not being closed.
    count: usize,
    uses: u64,
    schema: u64,
    /// [`ServerStatements::uses`] when the lease began.
    began: u64,
}

#[derive(Debug)]
struct Entry {
    statement: Arc<Statement>,
    last_use: u64,
    state: State,
    /// [`ServerStatements::uses`] when its last Parse was sent: tells that Parse from others.
    made: u64,
    /// [`Statement::renewals`] then.
    renewals: u64,
    /// The columns of its result; 0 when the server has not told.
    columns: u64,
}

/// A statement on a server, once what it needs is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Have {
    pub need: Need,
    /// Which Parse of it: other than that of any other on this server.
    pub made: u64,
    /// The columns of its result, as [`super::Interner::columns`] says; 0 when the server has not told.
    pub columns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Present,
    /// Its Parse was sent and is not answered.
    Parsing(Ticket),
    /// Its Close was sent and is not answered.
    Closing(Ticket),
    /// It may be there or not. Closing what is not there is no error, so a Close before its Parse is right either way.
    Unknown,
}

impl Entry {
    fn parsing(&mut self, ticket: Ticket, made: u64) {
        self.state = State::Parsing(ticket);
        (self.made, self.renewals, self.columns) = (made, self.statement.renewals(), 0);
    }

    /// Returns whether what its last Parse made is known not to hold.
    fn is_outdated(&self) -> bool {
        self.renewals != self.statement.renewals()
    }
}

/// What must be sent before a statement can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// `fresh`: nothing of that name can be there, so a failed Parse leaves nothing.
    Parse {
        fresh: bool,
    },
    CloseAndParse,
}

impl ServerStatements {
    /// Returns whether the statement is there, proven by an answer, and notes its use.
    pub fn touch(&mut self, id: u64) -> bool {
        self.uses += 1;
        match self.by_id.get_mut(&id) {
            Some(entry) => {
                entry.last_use = self.uses;
                entry.state == State::Present && !entry.is_outdated()
            }
            None => false,
        }
    }

    /// Returns whether a Parse sent in this very batch will have made the statement.
    pub fn is_parsing(&self, id: u64, batch: Batch) -> bool {
        self.by_id.get(&id).is_some_and(|entry| matches!(entry.state, State::Parsing(of) if of.batch == batch))
    }

    /// Returns what must be sent for `statement` to be there in the ticket's batch, and notes it as sent.
    pub fn prepare(&mut self, statement: &Arc<Statement>, ticket: Ticket) -> Have {
        self.uses += 1;
        let uses = self.uses;
        let Some(entry) = self.by_id.get_mut(&statement.id) else {
            let mut entry = Entry {
                statement: statement.clone(),
                last_use: uses,
                state: State::Unknown,
                made: 0,
                renewals: 0,
                columns: 0,
            };
            entry.parsing(ticket, uses);
            self.by_id.insert(statement.id, entry);
            self.by_hash.insert(statement.hash(), statement.id);
            self.count += 1;
            return Have { need: Need::Parse { fresh: true }, made: uses, columns: 0 };
        };
        entry.last_use = uses;
        let need = match entry.state {
            State::Present if !entry.is_outdated() => Need::Nothing,
            State::Parsing(of) if of.batch == ticket.batch => Need::Nothing,
            State::Closing(of) => {
                self.count += 1;
                if of.batch == ticket.batch { Need::Parse { fresh: false } } else { Need::CloseAndParse }
            }
            State::Present | State::Parsing(_) | State::Unknown => Need::CloseAndParse,
        };
        if need != Need::Nothing {
            entry.parsing(ticket, uses);
        }
        Have { need, made: entry.made, columns: entry.columns }
    }

    /// Notes that `statement` is closed and parsed again, whatever is there.
    pub fn prepare_again(&mut self, statement: &Arc<Statement>, ticket: Ticket) {
        self.prepare(statement, ticket);
        if let Some(entry) = self.by_id.get_mut(&statement.id) {
            entry.parsing(ticket, self.uses);
        }
    }

    /// Notes the columns that the Parse `made` has given its statement.
    pub fn described(&mut self, id: u64, made: u64, columns: u64) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && entry.made == made
        {
            entry.columns = columns;
        }
    }

    /// Notes that what the server has made of a statement holds, whatever was noted of it elsewhere.
    pub fn holds(&mut self, id: u64) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.renewals = entry.statement.renewals();
        }
    }

    /// Notes that another client's requests begin.
    pub fn begin_lease(&mut self) {
        self.began = self.uses;
    }

    /// Notes that what the server had of a statement before this lease may not hold, on any server. Returns false when it
    /// was made in this lease.
    pub fn outdate(&mut self, id: u64) -> bool {
        let Some(entry) = self.by_id.get(&id).filter(|entry| entry.made <= self.began) else { return false };
        entry.statement.renew(entry.renewals);
        true
    }

    /// Doubts what was there before this lease and was used in it.
    pub fn doubt_older(&mut self) {
        let began = self.began;
        for entry in self.by_id.values_mut() {
            if entry.state == State::Present && entry.made <= began && entry.last_use > began {
                entry.state = State::Unknown;
            }
        }
    }

    /// Returns the statement to close, least recently used first, while there are more than `max`. Those still to be
    /// answered are left: a long pipeline may exceed the limit until it is.
    pub fn evict(&mut self, max: usize, ticket: Ticket) -> Option<Arc<Statement>> {
        if self.count <= max {
            return None;
        }
        let settled = |entry: &&mut Entry| matches!(entry.state, State::Present | State::Unknown);
        let entry = self.by_id.values_mut().filter(settled).min_by_key(|entry| entry.last_use)?;
        entry.state = State::Closing(ticket);
        self.count -= 1;
        Some(entry.statement.clone())
    }

    /// Notes that the Parse of `ticket` was answered.
    pub fn parsed(&mut self, id: u64, ticket: Ticket) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && entry.state == State::Parsing(ticket)
        {
            entry.state = State::Present;
        }
    }

    /// Takes back a Parse that failed or was discarded.
    pub fn undo_parse(&mut self, id: u64, ticket: Ticket, fresh: bool) {
        let Some(entry) = self.by_id.get_mut(&id) else { return };
        if entry.state != State::Parsing(ticket) {
            return;
        }
        if fresh {
            self.remove(id);
            self.count -= 1;
        } else {
            entry.state = State::Unknown;
        }
    }

    /// Notes that the Close of `ticket` was answered.
    pub fn closed(&mut self, id: u64, ticket: Ticket) {
        if self.by_id.get(&id).is_some_and(|entry| entry.state == State::Closing(ticket)) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        let hash = entry.statement.hash();
        if self.by_hash.get(&hash) == Some(&id) {
            self.by_hash.remove(&hash);
        }
    }

    /// Returns the statement of this key if the server has it, or had it when its tables were others.
    pub fn find(&self, key: Key<'_>) -> Option<&Arc<Statement>> {
        let entry = self.by_id.get(self.by_hash.get(&key.hash())?)?;
        entry.statement.is(key).then_some(&entry.statement)
    }

    /// Takes back a Close that was discarded.
    pub fn undo_close(&mut self, id: u64, ticket: Ticket) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && entry.state == State::Closing(ticket)
        {
            entry.state = State::Unknown;
            self.count += 1;
        }
    }

    /// Notes that nothing is known of a statement any more: the server said otherwise than we thought.
    pub fn doubt(&mut self, id: u64) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && entry.state == State::Present
        {
            entry.state = State::Unknown;
        }
    }

    /// Notes that nothing is known of any statement.
    pub fn doubt_all(&mut self) {
        for entry in self.by_id.values_mut().filter(|entry| entry.state == State::Present) {
            entry.state = State::Unknown;
        }
    }

    /// Returns the schema that [`ServerStatements::refresh`] was last told.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// Doubts everything when tables have changed since the last call.
    pub fn refresh(&mut self, schema: u64) {
        if self.schema != schema {
            self.schema = schema;
            self.doubt_all();
        }
    }

    /// Forgets all that was there when `DEALLOCATE ALL` ran; what is still to be answered came after it.
    pub fn clear(&mut self) {
        self.by_id.retain(|_, entry| matches!(entry.state, State::Parsing(_) | State::Closing(_)));
        self.by_hash.retain(|_, id| self.by_id.contains_key(id));
        self.count = self.by_id.values().filter(|entry| matches!(entry.state, State::Parsing(_))).count();
    }

    /// Returns how many statements the server is thought to have.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
