//! Statements, each kept once for the whole process.
//!
//! Two texts are one statement when everything is equal that PostgreSQL reads them by: the text, the parameter types that
//! came with it, and its *scope*, a hash of the settings its client lives under. The scope is there because the first Parse
//! decides more than the text says: a literal is turned into a value under the `DateStyle` and `TimeZone` of that moment, a
//! parameter without a type gets one from the table that `search_path` finds, and later plans keep both.
//!
//! All texts together are bounded by `max_statement_memory`. Half of it is for statements that clients have named; those
//! without a name are only given one for speed, or kept ([`Long`]) for the client that binds one in another batch.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::client::NO_COLUMNS;
use crate::pool::wire::read::Reader;

/// Names on servers begin with this.
pub const NAME_PREFIX: &str = "bookend_";

/// The last scope that is one client's alone.
static LAST_SCOPE: AtomicU64 = AtomicU64::new(0);

/// The last id given. Of the process, so that no server ever hears one name for two statements.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Entries before dead ones are first looked for.
const SWEEP_MIN: usize = 256;
/// Bytes of bookkeeping counted for each statement, beside its text.
const STATEMENT_LEN: usize = 192;
/// Texts without a name that are remembered as seen once, each in the one slot its hash falls into: 32 KiB.
const SEEN_LEN: usize = 4096;

/// A prepared statement's text and parameter types, and the name servers know it by.
#[derive(Debug)]
pub struct Statement {
    pub id: u64,
    name: Box<[u8]>,
    definition: Box<[u8]>,
    scope: u64,
    hash: u64,
    noteworthy: OnceLock<bool>,
    renewals: AtomicU64,
    /// What all statements weigh together.
    bytes: Arc<AtomicUsize>,
}

impl Statement {
    fn new(id: u64, key: Key<'_>, bytes: &Arc<AtomicUsize>) -> Self {
        let name = format!("{NAME_PREFIX}{id}").into_bytes().into();
        bytes.fetch_add(weight(key.definition), Ordering::Relaxed);
        Self {
            id,
            name,
            definition: key.definition.into(),
            scope: key.scope,
            hash: key.hash,
            noteworthy: OnceLock::new(),
            renewals: AtomicU64::new(0),
            bytes: bytes.clone(),
        }
    }

    /// Returns the name servers know it by.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Returns text and types as in a Parse message.
    pub fn definition(&self) -> &[u8] {
        &self.definition
    }

    /// Returns the scope it was made in.
    pub fn scope(&self) -> u64 {
        self.scope
    }

    /// Returns what [`Key::hash`] is of its own key.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns whether this is the statement of `key`.
    pub fn is(&self, key: Key<'_>) -> bool {
        self.hash == key.hash && self.scope == key.scope && *self.definition == *key.definition
    }

    /// Returns how often it turned out that what a server had made of it no longer holds.
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::Relaxed)
    }

    /// Notes that what was made of it while [`Statement::renewals`] was `then` no longer holds: every server prepares it
    /// again before its next use. When somebody has noted it meanwhile, it is not noted again.
    pub fn renew(&self, then: u64) {
        let _ = self.renewals.compare_exchange(then, then + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns what `look` says of the definition. It is asked once, and every Bind after that costs nothing.
    pub fn is_noteworthy(&self, look: impl FnOnce(&[u8]) -> bool) -> bool {
        *self.noteworthy.get_or_init(|| look(&self.definition))
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.bytes.fetch_sub(weight(&self.definition), Ordering::Relaxed);
    }
}

/// A text that is kept for one client and given no name: too long for one, but it counts as the others do.
#[derive(Debug)]
pub struct Long {
    definition: Box<[u8]>,
    bytes: Arc<AtomicUsize>,
}

impl Long {
    /// Returns text and types as in a Parse message.
    pub fn definition(&self) -> &[u8] {
        &self.definition
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.bytes.fetch_sub(weight(&self.definition), Ordering::Relaxed);
    }
}

fn weight(definition: &[u8]) -> usize {
    definition.len() + STATEMENT_LEN
}

/// What makes a statement: made by [`Interner::key`].
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub scope: u64,
    pub definition: &'a [u8],
    hash: u64,
}

impl Key<'_> {
    /// Returns a hash that no client can foresee.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// All statements together would be longer than `max_statement_memory`, this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full(pub usize);

/// Makes equal statements one. Holds nothing alive: a statement nobody has any more is forgotten.
#[derive(Debug)]
pub struct Interner {
    shelf: Mutex<Shelf>,
    hasher: ahash::RandomState,
    /// Hashes of texts without a name that came once.
    seen: OnceLock<Box<[AtomicU64]>>,
    schema: AtomicU64,
    bytes: Arc<AtomicUsize>,
    bytes_max: AtomicUsize,
    /// Batches sent again after a server refused a plan, and refusals that clients were told.
    healed: AtomicU64,
    told: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    /// By hash of the key. Its size is bounded by twice what clients and servers hold, whose maps are bounded.
    by_hash: HashMap<u64, Weak<Statement>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Interner {
    /// Starts empty; `bytes_max` bounds all statements together.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            shelf: Mutex::default(),
            hasher: ahash::RandomState::new(),
            seen: OnceLock::new(),
            schema: AtomicU64::new(0),
            bytes: Arc::default(),
            bytes_max: AtomicUsize::new(bytes_max),
            healed: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Changes the bound. What there is stays.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Returns a number that stands for `settings`: equal ones have the same, others have another.
    pub fn scope(&self, settings: impl Hash) -> u64 {
        self.hasher.hash_one(settings)
    }

    /// Returns a scope that nobody has, had or will have.
    pub fn scope_of_its_own(&self) -> u64 {
        let number = LAST_SCOPE.fetch_add(1, Ordering::Relaxed);
        self.hasher.hash_one(("alone", number)) | 1 // 0 stands for none
    }

    /// Makes the key of a definition.
    pub fn key<'a>(&self, scope: u64, definition: &'a [u8]) -> Key<'a> {
        Key { scope, definition, hash: self.hasher.hash_one((scope, definition)) }
    }

    /// Returns the statement of this key, made if it is new. A short lock: called when a client names a statement, and when
    /// a server is to have one without a name that it has not.
    ///
    /// # Errors
    /// When it is new and there is no room for it.
    pub fn intern(&self, key: Key<'_>) -> Result<Arc<Statement>, Full> {
        self.intern_up_to(key, self.bytes_max.load(Ordering::Relaxed))
    }

    /// As [`Interner::intern`], for a text that its client did not name: only half of the room is for those.
    pub fn intern_unnamed(&self, key: Key<'_>) -> Result<Arc<Statement>, Full> {
        self.intern_up_to(key, self.bytes_max.load(Ordering::Relaxed) / 2)
    }

    /// Keeps a text that is given no name, while half of the room is not taken; `None` beyond that.
    pub fn hold(&self, definition: &[u8]) -> Option<Arc<Long>> {
        let half = self.bytes_max.load(Ordering::Relaxed) / 2;
        let more = |bytes: usize| bytes.checked_add(weight(definition)).filter(|all| *all <= half);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Arc::new(Long { definition: definition.into(), bytes: self.bytes.clone() }))
    }

    /// Makes a new statement of this key, whether there is one or not: from now on it is the one that is found.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn intern_anew(&self, key: Key<'_>) -> Result<Arc<Statement>, Full> {
        self.make(&mut self.shelf.lock(), key, self.bytes_max.load(Ordering::Relaxed))
    }

    fn intern_up_to(&self, key: Key<'_>, bytes_max: usize) -> Result<Arc<Statement>, Full> {
        let mut shelf = self.shelf.lock();
        match shelf.by_hash.get(&key.hash).and_then(Weak::upgrade) {
            Some(known) if known.is(key) => Ok(known),
            _ => self.make(&mut shelf, key, bytes_max),
        }
    }

    fn make(&self, shelf: &mut Shelf, key: Key<'_>, bytes_max: usize) -> Result<Arc<Statement>, Full> {
        if self.bytes().saturating_add(weight(key.definition)) > bytes_max {
            return Err(Full(self.bytes_max.load(Ordering::Relaxed)));
        }
        if shelf.by_hash.len() >= shelf.sweep_at {
            shelf.by_hash.retain(|_, statement| statement.strong_count() > 0);
            shelf.sweep_at = (shelf.by_hash.len() * 2).max(SWEEP_MIN);
        }
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let statement = Arc::new(Statement::new(id, key, &self.bytes));
        // Two definitions of one hash: the younger is found from now on, the older stays right for who has it.
        shelf.by_hash.insert(key.hash, Arc::downgrade(&statement));
        Ok(statement)
    }

    /// Returns a number that stands for the columns in a RowDescription, other than 0 and
    /// [`super::client::NO_COLUMNS`]; nothing when it cannot be read. Of each column count what a plan must not change
    /// (`equalRowTypes` in PostgreSQL's tupdesc.c): name, type and modifier. The table behind it may be another, and its
    /// format is the Bind's to say.
    pub fn columns(&self, description: &[u8]) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        let mut reader = Reader::new(description);
        let count = reader.i16().ok()?;
        for _ in 0..count {
            hasher.write(reader.cstr().ok()?);
            reader.bytes(6).ok()?; // table and number of the column
            hasher.write_i32(reader.i32().ok()?);
            reader.bytes(2).ok()?; // the type's length
            hasher.write_i32(reader.i32().ok()?);
            reader.bytes(2).ok()?; // the format
        }
        reader.end().ok()?;
        hasher.write_i16(count);
        Some(hasher.finish().max(NO_COLUMNS + 1))
    }

    /// Returns whether a text without a name came before, and remembers that it came. A text that comes once, with its
    /// values written into it, is thus never prepared under a name. No lock; a slot that two texts share forgets one.
    pub fn seen(&self, key: Key<'_>) -> bool {
        let seen = self.seen.get_or_init(|| (0..SEEN_LEN).map(|_| AtomicU64::new(0)).collect());
        let slot = &seen[key.hash as usize % SEEN_LEN];
        slot.load(Ordering::Relaxed) == key.hash || {
            slot.store(key.hash, Ordering::Relaxed);
            false
        }
    }

    /// Returns how often a server refused a statement because tables had changed since it was prepared.
    pub fn schema(&self) -> u64 {
        self.schema.load(Ordering::Relaxed)
    }

    /// Notes that tables changed under statements that were prepared while [`Interner::schema`] was `then`: every server
    /// prepares its own again before their next use. When somebody has noted it meanwhile, it is not noted again.
    pub fn schema_changed(&self, then: u64) {
        let _ = self.schema.compare_exchange(then, then + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Counts a plan that a server refused; `healed` when its client did not see it.
    pub fn count_refused(&self, healed: bool) {
        let counter = if healed { &self.healed } else { &self.told };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many refused plans clients did not see, and how many they did.
    pub fn refused(&self) -> (u64, u64) {
        (self.healed.load(Ordering::Relaxed), self.told.load(Ordering::Relaxed))
    }

    /// Returns what all statements weigh: their texts and what is kept beside each.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shelf.lock().by_hash.len()
    }
}
