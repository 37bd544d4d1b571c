//! The words of a line of pg_hba.conf or pg_ident.conf.
//!
//! Fields are separated by blanks; a field is one word, or several with commas between (a comma may have blanks behind it).
//! A word in double quotes is only a name, whatever it would mean without. `#` begins a comment; a backslash at a line's
//! end continues it. Source: `next_token` and `next_field_expand` in PostgreSQL's hba.c.

/// One word of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    /// It began with a quote: no keyword, no file, no group.
    pub quoted: bool,
}

impl Word {
    /// Returns whether this is the keyword.
    pub fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// A field with the column it begins at, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub words: Vec<Word>,
    pub column: usize,
}

/// A line that says something, with its number (of the first, when it is continued).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub number: usize,
    /// Or the column of a quote that is never closed.
    pub fields: Result<Vec<Field>, usize>,
}

/// Splits a text into lines that say something.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut whole = first.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            match lines.next() {
                Some((_, more)) => whole.push_str(more),
                None => break,
            }
        }
        let fields = fields(&whole);
        if fields.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        found.push(Line { number: index + 1, fields });
    }
    found
}

fn fields(line: &str) -> Result<Vec<Field>, usize> {
    let characters: Vec<char> = line.chars().collect();
    let mut fields: Vec<Field> = Vec::new();
    let (mut at, mut continues) = (0, false);
    while at < characters.len() {
        match characters[at] {
            '#' => break,
            ',' => {
                continues = !fields.is_empty();
                at += 1;
            }
            blank if blank.is_whitespace() => at += 1,
            _ => {
                let begin = at;
                let (word, end) = word(&characters, at)?;
                at = end;
                match fields.last_mut().filter(|_| continues) {
                    Some(field) => field.words.push(word),
                    None => fields.push(Field { words: vec![word], column: begin + 1 }),
                }
                continues = false;
            }
        }
    }
    Ok(fields)
}

/// Reads the word that begins at `begin`; returns it with where it ends, or the column of an open quote.
fn word(characters: &[char], begin: usize) -> Result<(Word, usize), usize> {
    let (mut text, mut in_quotes, mut quote_at) = (String::new(), false, begin);
    let mut at = begin;
    while let Some(&character) = characters.get(at) {
        match character {
            '"' if in_quotes && characters.get(at + 1) == Some(&'"') => {
                text.push('"');
                at += 1;
            }
            '"' => {
                in_quotes = !in_quotes;
                quote_at = at;
            }
            _ if in_quotes => text.push(character),
            ',' | '#' => break,
            _ if character.is_whitespace() => break,
            _ => text.push(character),
        }
        at += 1;
    }
    if in_quotes { Err(quote_at + 1) } else { Ok((Word { text, quoted: characters[begin] == '"' }, at)) }
}
