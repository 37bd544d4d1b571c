//! One client's names for statements, and what it was told of their results.

use std::{collections::HashMap, sync::Arc};

use super::{Batch, Statement, Ticket};

/// Bytes of bookkeeping counted for each name, beside the name and the statement's text.
const ENTRY_LEN: usize = 128;

/// The names one client has given.
#[derive(Debug, Default)]
pub struct ClientStatements {
    by_name: HashMap<Arc<[u8]>, Entry, ahash::RandomState>,
    bytes: usize,
    /// How often everything was forgotten.
    clears: u64,
}

/// What a Close that was sent took away.
#[derive(Debug)]
pub struct Closed {
    pub name: Arc<[u8]>,
    statement: Arc<Statement>,
    told: Told,
    parsed: Parsed,
}

#[derive(Debug)]
struct Entry {
    statement: Arc<Statement>,
    state: State,
    told: Told,
}

/// What a client knows of the columns of a statement's result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Those it was told last. 0: it was never told; see [`NO_COLUMNS`].
    pub columns: u64,
    /// [`Statement::renewals`] then.
    pub renewals: u64,
    /// It has asked, and the answer has not come: which Parse on its server will be described. 0: it has not.
    pub asked: u64,
}

/// A result without columns: no rows will come.
pub const NO_COLUMNS: u64 = 1;

impl Told {
    /// Returns whether a client that knows this may take rows of what `made` is on its server, whose columns are `columns`
    /// as far as they are known.
    pub fn allows(self, made: u64, columns: u64) -> bool {
        match self.asked {
            0 => self.columns <= NO_COLUMNS || self.columns == columns,
            asked => asked == made,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Present,
    /// Its Parse was sent and is not answered.
    Parsing(Ticket),
    /// Its Close was sent and is not answered.
    Closing(Ticket, Parsed),
}

/// How far the Parse had come of a name whose Close was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parsed {
    Sent(Ticket),
    /// It was answered, or the Close sent, when everything had been forgotten so often: [`ClientStatements::clears`].
    Answered(u64),
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Meaning {
    Nothing,
    /// The name itself, shared, its statement, and what the client was told of it.
    Statement(Arc<[u8]>, Arc<Statement>, Told),
    /// Decided by an answer that has not come yet.
    Undecided,
}

impl ClientStatements {
    /// Returns what `name` stands for in a message of `batch`.
    pub fn look_up(&self, name: &[u8], batch: Batch) -> Meaning {
        let Some((name, entry)) = self.by_name.get_key_value(name) else { return Meaning::Nothing };
        let statement = || Meaning::Statement(name.clone(), entry.statement.clone(), entry.told);
        match entry.state {
            State::Present => statement(),
            State::Parsing(of) if of.batch == batch => statement(),
            State::Closing(of, _) if of.batch == batch => Meaning::Nothing,
            State::Parsing(_) | State::Closing(..) => Meaning::Undecided,
        }
    }

    /// Returns whether another name with this statement would be too much.
    pub fn is_full(&self, statement: &Statement, count_max: usize, bytes_max: usize) -> bool {
        self.by_name.len() >= count_max || self.bytes + weight(statement) > bytes_max
    }

    /// Notes a Parse that was sent.
    pub fn parsing(&mut self, name: Arc<[u8]>, statement: Arc<Statement>, ticket: Ticket) {
        self.insert(name, Entry { statement, state: State::Parsing(ticket), told: Told::default() });
    }

    /// Notes that the Parse of `ticket` was answered.
    pub fn parsed(&mut self, name: &[u8], ticket: Ticket) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        match &mut entry.state {
            State::Parsing(of) if *of == ticket => entry.state = State::Present,
            // It was closed before the answer came, and that may yet be skipped.
            State::Closing(_, parsed) if *parsed == Parsed::Sent(ticket) => *parsed = Parsed::Answered(self.clears),
            _ => {}
        }
    }

    /// Takes back a Parse that failed or was discarded.
    pub fn undo_parse(&mut self, name: &[u8], statement: &Statement, ticket: Ticket) {
        if let Some(entry) = self.by_name.get(name)
            && entry.statement.id == statement.id
            && (entry.state == State::Present || entry.state == State::Parsing(ticket))
        {
            self.remove(name);
        }
    }

    /// Makes `name` stand for `statement`, which is the same text read under other settings, unless an answer is still to
    /// decide about the name.
    pub fn replace(&mut self, name: &[u8], statement: &Arc<Statement>) {
        if let Some(entry) = self.by_name.get_mut(name)
            && entry.state == State::Present
        {
            entry.statement = statement.clone(); // as long as the one it had
            entry.told.renewals = statement.renewals();
        }
    }

    /// Returns what the client was told of `statement` under `name`; nothing when the name is gone, or another's.
    pub fn told(&mut self, name: &[u8], statement: &Statement) -> Option<&mut Told> {
        self.by_name.get_mut(name).filter(|entry| entry.statement.id == statement.id).map(|entry| &mut entry.told)
    }

    /// Notes that the client is told the columns of what the Parse `made` has made of `statement`, or that it is not: what
    /// it asked is discarded. The name may stand for the text as read under other settings by now.
    pub fn answered(&mut self, name: &[u8], statement: &Statement, made: u64, columns: Option<u64>) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        let asked = made != 0 && entry.told.asked == made;
        match columns {
            Some(columns) if asked || entry.statement.id == statement.id => {
                entry.told = Told { columns, renewals: entry.statement.renewals(), asked: 0 };
            }
            None if asked => entry.told.asked = 0,
            _ => {}
        }
    }

    /// Notes a Close that was sent; returns what it closes, to take it back.
    pub fn closing(&mut self, name: &[u8], ticket: Ticket) -> Option<Closed> {
        let (key, _) = self.by_name.get_key_value(name)?;
        let name = key.clone();
        let entry = self.by_name.get_mut(&name)?;
        let parsed = match entry.state {
            State::Present => Parsed::Answered(self.clears),
            State::Closing(_, parsed) => parsed,
            State::Parsing(of) => Parsed::Sent(of),
        };
        entry.state = State::Closing(ticket, parsed);
        Some(Closed { name, statement: entry.statement.clone(), told: entry.told, parsed })
    }

    /// Notes that the Close of `ticket` was answered.
    pub fn closed(&mut self, name: &[u8], ticket: Ticket) {
        if self.by_name.get(name).is_some_and(|entry| matches!(entry.state, State::Closing(of, _) if of == ticket)) {
            self.remove(name);
        }
    }

    /// Takes back a Close that was discarded. Changes are taken back last one first, so nothing newer has the name. What
    /// `DEALLOCATE ALL` has dropped since does not come back.
    pub fn undo_close(&mut self, closed: Closed) {
        // While it was on its way the Parse may have been answered, and so may a Describe.
        let (parsed, told) = match self.by_name.get(&closed.name) {
            Some(Entry { state: State::Closing(_, parsed), told, .. }) => (*parsed, *told),
            _ => (closed.parsed, closed.told),
        };
        if matches!(parsed, Parsed::Answered(then) if then != self.clears) {
            self.remove(&closed.name);
        } else {
            self.insert(closed.name, Entry { statement: closed.statement, state: State::Present, told });
        }
    }

    /// Forgets all that was there when `DEALLOCATE ALL` ran; what is still to be answered came after it.
    pub fn clear(&mut self) {
        self.clears += 1;
        let bytes = &mut self.bytes;
        self.by_name.retain(|_, entry| {
            let keep = entry.state != State::Present;
            if !keep {
                *bytes -= weight(&entry.statement);
            }
            keep
        });
    }

    /// Notes that SQL `DEALLOCATE` has dropped a name; one whose Parse or Close is still to be answered came after it.
    pub fn deallocated(&mut self, name: &[u8]) {
        if self.by_name.get(name).is_some_and(|entry| entry.state == State::Present) {
            self.remove(name);
        }
    }

    /// Returns how many names there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    fn insert(&mut self, name: Arc<[u8]>, entry: Entry) {
        self.bytes += weight(&entry.statement);
        if let Some(old) = self.by_name.insert(name, entry) {
            self.bytes -= weight(&old.statement);
        }
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(old) = self.by_name.remove(name) {
            self.bytes -= weight(&old.statement);
        }
    }
}

/// What a name costs: its statement's text, though others may share it, since it lives as long as one of them does.
fn weight(statement: &Statement) -> usize {
    statement.definition().len() + ENTRY_LEN
}
