//! Statements, each kept once for the whole process.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// Names on servers begin with this.
pub const NAME_PREFIX: &str = "bookend_";

/// The last id given. Of the process, so that no server ever hears one name for two statements.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Entries before dead ones are first looked for.
const SWEEP_MIN: usize = 256;

/// A prepared statement's text and parameter types, and the name servers know it by.
#[derive(Debug)]
pub struct Statement {
    pub id: u64,
    name: Box<[u8]>,
    definition: Box<[u8]>,
    noteworthy: OnceLock<bool>,
}

impl Statement {
    fn new(id: u64, definition: &[u8]) -> Self {
        let name = format!("{NAME_PREFIX}{id}").into_bytes().into();
        Self { id, name, definition: definition.into(), noteworthy: OnceLock::new() }
    }

    /// Returns the name servers know it by.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Returns text and types as in a Parse message.
    pub fn definition(&self) -> &[u8] {
        &self.definition
    }

    /// Returns what `look` says of the definition. It is asked once, and every Bind after that costs nothing.
    pub fn is_noteworthy(&self, look: impl FnOnce(&[u8]) -> bool) -> bool {
        *self.noteworthy.get_or_init(|| look(&self.definition))
    }
}

/// Makes equal statements one. Holds nothing alive: a statement nobody has any more is forgotten.
#[derive(Debug, Default)]
pub struct Interner {
    shelf: Mutex<Shelf>,
    schema: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    /// By hash of the definition. Its size is bounded by twice what clients and servers hold, whose maps are bounded.
    by_hash: HashMap<u64, Weak<Statement>>,
    hasher: ahash::RandomState,
    sweep_at: usize,
}

impl Interner {
    /// Returns the statement of this definition, made if it is new. A short lock; called for named Parse messages only.
    pub fn intern(&self, definition: &[u8]) -> Arc<Statement> {
        let mut shelf = self.shelf.lock();
        let hash = shelf.hasher.hash_one(definition);
        if let Some(known) = shelf.by_hash.get(&hash).and_then(Weak::upgrade)
            && *known.definition == *definition
        {
            return known;
        }
        if shelf.by_hash.len() >= shelf.sweep_at {
            shelf.by_hash.retain(|_, statement| statement.strong_count() > 0);
            shelf.sweep_at = (shelf.by_hash.len() * 2).max(SWEEP_MIN);
        }
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let statement = Arc::new(Statement::new(id, definition));
        // Two definitions of one hash: the younger is found from now on, the older stays right for who has it.
        shelf.by_hash.insert(hash, Arc::downgrade(&statement));
        statement
    }

    /// Returns how often a server refused a statement because tables had changed since it was prepared.
    pub fn schema(&self) -> u64 {
        self.schema.load(Ordering::Relaxed)
    }

    /// Notes that tables changed under prepared statements: every server prepares its own again before their next use.
    pub fn schema_changed(&self) {
        self.schema.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shelf.lock().by_hash.len()
    }
}
