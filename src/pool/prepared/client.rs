//! One client's names for statements.

use std::{collections::HashMap, sync::Arc};

use super::{Batch, Statement};

/// Bytes of bookkeeping counted for each name, beside the name and the statement's text.
const ENTRY_LEN: usize = 128;

/// The names one client has given.
#[derive(Debug, Default)]
pub struct ClientStatements {
    by_name: HashMap<Arc<[u8]>, Entry, ahash::RandomState>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    statement: Arc<Statement>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Present,
    /// Its Parse was sent and is not answered.
    Parsing(Batch),
    /// Its Close was sent and is not answered.
    Closing(Batch),
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Meaning {
    Nothing,
    Statement(Arc<Statement>),
    /// Decided by an answer that has not come yet.
    Undecided,
}

impl ClientStatements {
    /// Returns what `name` stands for in a message of `batch`.
    pub fn look_up(&self, name: &[u8], batch: Batch) -> Meaning {
        let Some(entry) = self.by_name.get(name) else { return Meaning::Nothing };
        match entry.state {
            State::Present => Meaning::Statement(entry.statement.clone()),
            State::Parsing(of) if of == batch => Meaning::Statement(entry.statement.clone()),
            State::Closing(of) if of == batch => Meaning::Nothing,
            State::Parsing(_) | State::Closing(_) => Meaning::Undecided,
        }
    }

    /// Returns whether another name with this statement would be too much.
    pub fn is_full(&self, statement: &Statement, count_max: usize, bytes_max: usize) -> bool {
        self.by_name.len() >= count_max || self.bytes + weight(statement) > bytes_max
    }

    /// Notes a Parse that was sent.
    pub fn parsing(&mut self, name: Arc<[u8]>, statement: Arc<Statement>, batch: Batch) {
        self.insert(name, statement, State::Parsing(batch));
    }

    /// Notes that the Parse of `batch` was answered.
    pub fn parsed(&mut self, name: &[u8], batch: Batch) {
        if let Some(entry) = self.by_name.get_mut(name)
            && entry.state == State::Parsing(batch)
        {
            entry.state = State::Present;
        }
    }

    /// Takes back a Parse that failed or was discarded.
    pub fn undo_parse(&mut self, name: &[u8], statement: &Statement, batch: Batch) {
        if let Some(entry) = self.by_name.get(name)
            && entry.statement.id == statement.id
            && matches!(entry.state, State::Present | State::Parsing(_))
            && !matches!(entry.state, State::Parsing(of) if of != batch)
        {
            self.remove(name);
        }
    }

    /// Notes a Close that was sent; returns what it closes, to take it back.
    pub fn closing(&mut self, name: &[u8], batch: Batch) -> Option<(Arc<[u8]>, Arc<Statement>)> {
        let (key, _) = self.by_name.get_key_value(name)?;
        let key = key.clone();
        let entry = self.by_name.get_mut(name)?;
        entry.state = State::Closing(batch);
        Some((key, entry.statement.clone()))
    }

    /// Notes that the Close of `batch` was answered.
    pub fn closed(&mut self, name: &[u8], batch: Batch) {
        if self.by_name.get(name).is_some_and(|entry| entry.state == State::Closing(batch)) {
            self.remove(name);
        }
    }

    /// Takes back a Close that was discarded. Changes are taken back last one first, so nothing newer has the name.
    pub fn undo_close(&mut self, name: Arc<[u8]>, statement: Arc<Statement>) {
        self.insert(name, statement, State::Present);
    }

    /// Forgets all that was there when `DEALLOCATE ALL` ran; what is still to be answered came after it.
    pub fn clear(&mut self) {
        let bytes = &mut self.bytes;
        self.by_name.retain(|_, entry| {
            let keep = entry.state != State::Present;
            if !keep {
                *bytes -= weight(&entry.statement);
            }
            keep
        });
    }

    /// Returns a name that stands for the statement of this id. Walks them all: for error texts.
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        self.by_name.iter().find(|(_, entry)| entry.statement.id == id).map(|(name, _)| &**name)
    }

    /// Returns how many names there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    fn insert(&mut self, name: Arc<[u8]>, statement: Arc<Statement>, state: State) {
        self.bytes += weight(&statement);
        if let Some(old) = self.by_name.insert(name, Entry { statement, state }) {
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
