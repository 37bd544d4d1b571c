//! What can be told from SQL by looking at it: only whether it may leave something on a server, and under what names.
//!
//! Nothing here is believed. A hint makes the relay look closer, and what looks as if it left something makes it ask the
//! server ([`super::census`]). So reading may be rough where it errs towards asking: a `SET` inside a string costs a question,
//! a `CREATE TEMP` that fails another. It must not miss what people and drivers write.
//!
//! [`hints`] is run over every text that passes, once for a named statement, so it is a look at the first word, and one pass
//! that says whether there is a second statement or one of the few words that can stand anywhere. Only then is it looked
//! where they are, and only a text with hints is read token by token ([`read`]).

mod read;
mod tokens;

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

pub(super) use self::{
    read::{CHARACTERISTICS, Deed, Listens, Name, Reading, Within, characteristics, deallocated, read, wanted_alone},
    tokens::masked,
};

/// What a text may do, as far as a glance tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hints(u16);

impl Hints {
    /// A statement begins with SET or RESET.
    pub const SET: Self = Self(1);
    /// `set_config` is called.
    pub const SET_CONFIG: Self = Self(1 << 1);
    /// Something temporary is made or named.
    pub const TEMP: Self = Self(1 << 2);
    /// `pg_advisory_lock` and the like, but for those that end with the transaction.
    pub const LOCK: Self = Self(1 << 3);
    pub const UNLOCK: Self = Self(1 << 4);
    /// A statement begins with DECLARE.
    pub const DECLARE: Self = Self(1 << 5);
    /// A statement begins with DEALLOCATE.
    pub const DEALLOCATE: Self = Self(1 << 6);
    /// A statement begins with LISTEN, LOAD or PREPARE: the tag tells the rest, the text is for the log.
    pub const TOLD_BY_TAG: Self = Self(1 << 7);
    /// A statement begins with DO: its body may hold any of the above.
    pub const BODY: Self = Self(1 << 8);
    pub const ALL: Self = Self((1 << 9) - 1);

    /// A statement begins with UNLISTEN.
    pub const UNLISTEN: Self = Self(1 << 9);
    /// A statement begins with LISTEN.
    pub const LISTEN: Self = Self(1 << 10);
    /// A statement begins with DISCARD.
    pub const DISCARD: Self = Self(1 << 11);
    /// A statement begins with CREATE, ALTER or DROP DATABASE.
    pub const DATABASE: Self = Self(1 << 12);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Finds the words that count wherever they stand. Their first four letters in every case, so that the search is one for
/// exact strings, for which there are vector instructions.
static ANYWHERE: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let patterns = ["set_", "advi", "temp"].into_iter().flat_map(cases);
    let builder = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(patterns);
    builder.expect("a few short patterns")
});

/// No shorter text can call or make any of that. The vectors are 16 bytes long, so for shorter texts the search is a slow one.
const ANYWHERE_MIN: usize = 16;

/// Returns `word` in every mixture of cases.
fn cases(word: &str) -> Vec<Vec<u8>> {
    word.bytes().fold(vec![Vec::new()], |words, byte| {
        let both = |word: Vec<u8>| {
            let mut other = word.clone();
            let mut this = word;
            this.push(byte.to_ascii_lowercase());
            other.push(byte.to_ascii_uppercase());
            if this == other { vec![this] } else { vec![this, other] }
        };
        words.into_iter().flat_map(both).collect()
    })
}

/// Looks at a text: of a Query or a Parse, with or without what follows its NUL.
pub(super) fn hints(text: &[u8]) -> Hints {
    let (mut hints, blank) = first_word(text);
    if is_suspect(text) {
        hints.insert(behind(text, blank));
    }
    hints
}

/// Returns what a text says behind its first word, before which so much stood.
fn behind(text: &[u8], mut blank: usize) -> Hints {
    let mut hints = Hints::default();
    for at in memchr::memchr_iter(b';', text) {
        let (more, skipped) = first_word(&text[at + 1..]);
        hints.insert(more);
        blank += skipped;
        // Semicolons inside comments that are read again from each of them: whoever writes that is read token by token.
        if blank > 2 * text.len() + ANYWHERE_MIN {
            hints.insert(Hints::ALL);
            break;
        }
    }
    if text.len() >= ANYWHERE_MIN {
        for found in ANYWHERE.find_iter(text) {
            hints.insert(anywhere(text, found.start()));
        }
    }
    hints
}

/// Bytes that are looked at together: a vector's.
const LANES: usize = 16;
/// A word's beginning.
const WORD_LEN: usize = 4;

/// Returns whether a text holds one of the words of [`ANYWHERE`], or a second statement. Most do not, and this is all that
/// is done about them: one pass, a vector at a time, that only says yes or no.
fn is_suspect(text: &[u8]) -> bool {
    let blank = |byte: &u8| matches!(byte, b';' | 0) || byte.is_ascii_whitespace();
    let text = &text[..text.iter().rposition(|byte| !blank(byte)).map_or(0, |last| last + 1)];
    let mut from = 0;
    while let Some(block) = text.get(from..).and_then(<[u8]>::first_chunk) {
        if is_block_suspect(block) {
            return true;
        }
        from += LANES;
    }
    // What is left, with the end of what was looked at before it.
    match text.last_chunk() {
        Some(block) => is_block_suspect(block),
        None => {
            let mut block = [0; LANES + WORD_LEN - 1];
            block[..text.len()].copy_from_slice(text);
            is_block_suspect(&block)
        }
    }
}

/// Looks at the words that begin in the first [`LANES`] bytes. Written without a branch, so that it becomes vectors.
fn is_block_suspect(block: &[u8; LANES + WORD_LEN - 1]) -> bool {
    const CASE: u8 = 0x20;
    let mut hits = 0;
    for at in 0..LANES {
        let (a, b, c, d) = (block[at], block[at + 1], block[at + 2], block[at + 3]);
        let (w, x, y, z) = (a | CASE, b | CASE, c | CASE, d | CASE);
        let set = (w == b's') & (x == b'e') & (y == b't') & (d == b'_');
        let advi = (w == b'a') & (x == b'd') & (y == b'v') & (z == b'i');
        let temp = (w == b't') & (x == b'e') & (y == b'm') & (z == b'p');
        hits |= u8::from((a == b';') | set | advi | temp);
    }
    // A semicolon may also be among those in which no word can begin.
    hits |= block[LANES..].iter().fold(0, |hits, byte| hits | u8::from(*byte == b';'));
    hits != 0
}

/// Returns what a statement's first word says, and how much stands before it.
fn first_word(text: &[u8]) -> (Hints, usize) {
    let rest = match text.first() {
        Some(first) if first.is_ascii_alphabetic() => text,
        _ => tokens::skip_blank(text),
    };
    let is = |word: &[u8]| {
        let (Some(start), next) = (rest.get(..word.len()), rest.get(word.len())) else { return false };
        start.eq_ignore_ascii_case(word) && !next.is_some_and(|&byte| tokens::is_word(byte))
    };
    let hints = match rest.first().map(u8::to_ascii_lowercase) {
        Some(b's') if is(b"set") => Hints::SET,
        Some(b'r') if is(b"reset") => Hints::SET,
        Some(b'd') if is(b"declare") => Hints::DECLARE,
        Some(b'd') if is(b"deallocate") => Hints::DEALLOCATE,
        Some(b'd') if is(b"discard") => Hints::DISCARD,
        Some(b'd') if is(b"do") => Hints::BODY,
        Some(b'd') if is(b"drop") && is_of_database(&rest[b"drop".len()..]) => Hints::DATABASE,
        Some(b'a') if is(b"alter") && is_of_database(&rest[b"alter".len()..]) => Hints::DATABASE,
        Some(b'c') if is(b"create") && is_of_database(&rest[b"create".len()..]) => Hints::DATABASE,
        Some(b'l') if is(b"listen") => Hints(Hints::TOLD_BY_TAG.0 | Hints::LISTEN.0),
        Some(b'l') if is(b"load") => Hints::TOLD_BY_TAG,
        Some(b'u') if is(b"unlisten") => Hints::UNLISTEN,
        Some(b'u') if is(b"update") && is_of_catalog(&rest[b"update".len()..]) => {
            Hints(Hints::SET_CONFIG.0 | Hints::BODY.0)
        }
        Some(b'p') if is(b"prepare") => Hints::TOLD_BY_TAG,
        _ => Hints::default(),
    };
    (hints, text.len() - rest.len())
}

fn is_of_database(rest: &[u8]) -> bool {
    const WORD: &[u8] = b"database";
    tokens::skip_blank(rest).get(..WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(WORD))
}

/// Returns whether what an UPDATE changes may be `pg_settings`, which is to SET (its rule `pg_settings_u`).
fn is_of_catalog(rest: &[u8]) -> bool {
    let starts =
        |text: &[u8], word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let name = tokens::skip_blank(rest);
    let name = if starts(name, b"only") { tokens::skip_blank(&name[b"only".len()..]) } else { name };
    starts(name, b"pg_") || starts(name, b"\"pg_")
}

/// Returns what the word says whose first letters were found.
fn anywhere(text: &[u8], at: usize) -> Hints {
    let rest = &text[at..];
    let starts = |word: &[u8]| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    match rest.first().map(u8::to_ascii_lowercase) {
        Some(b's') if starts(b"set_config") => Hints::SET_CONFIG,
        Some(b'a') if starts(b"advisory_lock") => Hints::LOCK,
        Some(b'a') if starts(b"advisory_unlock") => Hints::UNLOCK,
        Some(b't') if makes_temporary(text, at) => Hints::TEMP,
        _ => Hints::default(),
    }
}

/// How much of a line is looked at for the beginning of a comment that ends with it.
const COMMENT_LOOK: usize = 256;

/// Returns whether the word around `at` begins with `pg_temp`, or is TEMP or TEMPORARY behind a word that makes it a keyword.
/// Looks no further than such a word is long: a text may be nothing but these letters.
fn makes_temporary(text: &[u8], at: usize) -> bool {
    let starts_word = |start: usize| start == 0 || !tokens::is_word(text[start - 1]);
    let start = if at >= 3 && text[at - 3..at].eq_ignore_ascii_case(b"pg_") { at - 3 } else { at };
    if start < at && starts_word(start) {
        return true;
    }
    let is = |word: &[u8]| {
        let rest = &text[at..];
        rest.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word))
            && !rest.get(word.len()).is_some_and(|&byte| tokens::is_word(byte))
    };
    if !starts_word(at) || !(is(b"temp") || is(b"temporary")) {
        return false;
    }
    let start = at;
    let before = text[..start].trim_ascii_end();
    let from = before.iter().rposition(|&byte| !tokens::is_word(byte)).map_or(0, |at| at + 1);
    let makers: [&[u8]; 5] = [b"create", b"replace", b"global", b"local", b"into"];
    // Behind a comment it may be anything.
    let next_line = memchr::memchr2(b'\n', b'\r', &text[before.len()..start]).is_some();
    let line = &before[before.len().saturating_sub(COMMENT_LOOK)..];
    let line = &line[memchr::memrchr2(b'\n', b'\r', line).map_or(0, |end| end + 1)..];
    let commented = before.ends_with(b"*/") || (next_line && memchr::memmem::find(line, b"--").is_some());
    commented || makers.iter().any(|maker| before[from..].eq_ignore_ascii_case(maker))
}

#[cfg(test)]
mod tests;
