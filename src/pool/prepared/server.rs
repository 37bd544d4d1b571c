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
}

#[derive(Debug)]
struct Entry {
    statement: Arc<Statement>,
    last_use: u64,
    state: State,
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
                entry.state == State::Present
            }
            None => false,
        }
    }

    /// Returns whether a Parse sent in this very batch will have made the statement.
    pub fn is_parsing(&self, id: u64, batch: Batch) -> bool {
        self.by_id.get(&id).is_some_and(|entry| matches!(entry.state, State::Parsing(of) if of.batch == batch))
    }

    /// Returns what must be sent for `statement` to be there in the ticket's batch, and notes it as sent.
    pub fn prepare(&mut self, statement: &Arc<Statement>, ticket: Ticket) -> Need {
        self.uses += 1;
        let last_use = self.uses;
        let Some(entry) = self.by_id.get_mut(&statement.id) else {
            let entry = Entry { statement: statement.clone(), last_use, state: State::Parsing(ticket) };
            self.by_id.insert(statement.id, entry);
            self.by_hash.insert(statement.hash(), statement.id);
            self.count += 1;
            return Need::Parse { fresh: true };
        };
        entry.last_use = last_use;
        let need = match entry.state {
            State::Present => return Need::Nothing,
            State::Parsing(of) if of.batch == ticket.batch => return Need::Nothing,
            State::Closing(of) => {
                self.count += 1;
                if of.batch == ticket.batch { Need::Parse { fresh: false } } else { Need::CloseAndParse }
            }
            State::Parsing(_) | State::Unknown => Need::CloseAndParse,
        };
        entry.state = State::Parsing(ticket);
        need
    }

    /// Notes that `statement` is closed and parsed again, whatever is there.
    pub fn prepare_again(&mut self, statement: &Arc<Statement>, ticket: Ticket) {
        self.prepare(statement, ticket);
        if let Some(entry) = self.by_id.get_mut(&statement.id) {
            entry.state = State::Parsing(ticket);
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
