//! SQL as words, literals and marks (PostgreSQL's scan.l), and a statement with its literals taken out.

/// A piece of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an identifier without quotes.
    Word(&'a [u8]),
    /// What stands between `"` and `"`, doubled ones still double.
    Quoted(&'a [u8]),
    /// What stands between the quotes of a string of any kind, as it is written.
    Text(&'a [u8]),
    /// A number or a parameter (`$1`).
    Number,
    Mark(u8),
}

impl Token<'_> {
    /// Returns whether it is this keyword.
    pub(super) fn is(self, keyword: &[u8]) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// Returns whether a byte can stand inside a word.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Skips white space and comments; nested ones end where PostgreSQL ends them. One that does not end takes all.
pub(super) fn skip_blank(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        if text.starts_with(b"--") {
            let end = memchr::memchr2(b'\n', b'\r', text).unwrap_or(text.len());
            text = &text[end..];
        } else if text.starts_with(b"/*") {
            text = skip_comment(text);
        } else {
            return text;
        }
    }
}

fn skip_comment(text: &[u8]) -> &[u8] {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let Some(next) = memchr::memchr2(b'*', b'/', &text[at..]) else { return &[] };
        at += next;
        match &text[at..] {
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            _ => at += 1,
        }
    }
    &text[at..]
}

/// Takes SQL apart from the front.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Returns the next token without taking it.
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.clone().next()
    }

    /// Takes the next token if it is this keyword.
    pub(super) fn accept(&mut self, keyword: &[u8]) -> bool {
        let mut ahead = self.clone();
        let found = ahead.next().is_some_and(|token| token.is(keyword));
        if found {
            *self = ahead;
        }
        found
    }

    fn cut(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Takes a string or identifier whose opening quote is next.
    fn quoted(&mut self, quote: u8, backslashes: bool) -> &'a [u8] {
        let text = &self.rest[1..];
        let mut at = 0;
        loop {
            match &text[at..] {
                [] => break,
                [b'\\', _, ..] if backslashes => at += 2,
                [first, second, ..] if *first == quote && *second == quote => at += 2,
                [first, ..] if *first == quote => break,
                _ => at += 1,
            }
        }
        self.cut(at + 2);
        &text[..at.min(text.len())]
    }

    /// Takes `$tag$…$tag$` if that is next.
    fn dollar_quoted(&mut self) -> Option<&'a [u8]> {
        let end = self.rest[1..].iter().position(|&byte| byte == b'$')? + 1;
        let tag = &self.rest[..=end];
        let name = &tag[1..end];
        if name.first().is_some_and(u8::is_ascii_digit) || !name.iter().all(|&byte| is_word(byte) && byte != b'$') {
            return None;
        }
        let body = &self.rest[tag.len()..];
        let len = memchr::memmem::find(body, tag).unwrap_or(body.len());
        let tag_len = tag.len();
        self.cut(tag_len + len + tag_len);
        Some(&body[..len])
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = skip_blank(self.rest);
        let first = *self.rest.first()?;
        Some(match first {
            b'\'' => Token::Text(self.quoted(b'\'', false)),
            b'"' => Token::Quoted(self.quoted(b'"', false)),
            b'$' => match self.dollar_quoted() {
                Some(body) => Token::Text(body),
                None => {
                    let len = 1 + self.rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    self.cut(len);
                    Token::Number
                }
            },
            b'0'..=b'9' => {
                let len = self.rest.iter().take_while(|&&byte| is_word(byte) || byte == b'.').count();
                self.cut(len);
                Token::Number
            }
            _ if is_word(first) => {
                let len = self.rest.iter().take_while(|&&byte| is_word(byte)).count();
                match self.rest[..len].to_ascii_lowercase().as_slice() {
                    b"e" | b"b" | b"x" | b"n" if self.rest.get(len) == Some(&b'\'') => {
                        self.cut(len);
                        Token::Text(self.quoted(b'\'', first.eq_ignore_ascii_case(&b'e')))
                    }
                    b"u" if self.rest.get(len..len + 2) == Some(b"&'") => {
                        self.cut(len + 1);
                        Token::Text(self.quoted(b'\'', false))
                    }
                    _ => Token::Word(self.cut(len)),
                }
            }
            _ => {
                self.cut(1);
                Token::Mark(first)
            }
        })
    }
}

/// Longest form of a statement in the log.
const MASKED_MAX: usize = 100;

/// Returns the beginning of a statement for the log: a literal, a number, what a setting is set to and all comments may be
/// secrets, so they are left out.
pub(in super::super) fn masked(text: &[u8]) -> String {
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    let mut out = String::new();
    let mut sets = false; // in a SET, before what it is set to
    let mut hidden = false;
    let mut start = true;
    for token in Tokens::new(text) {
        if token == Token::Mark(b';') {
            (sets, hidden, start) = (false, false, true);
        } else if start {
            (sets, start) = (token.is(b"set"), false);
        }
        let assigns = sets && (token == Token::Mark(b'=') || token.is(b"to"));
        let piece: &[u8] = match token {
            _ if hidden => continue,
            Token::Word(word) => word,
            Token::Quoted(name) => name,
            Token::Text(_) | Token::Number => b"?",
            Token::Mark(ref mark) => std::slice::from_ref(mark),
        };
        let tight = matches!(token, Token::Mark(b'.' | b',' | b')' | b';' | b'(')) || out.ends_with(['.', '(']);
        if !out.is_empty() && !tight {
            out.push(' ');
        }
        out.extend(String::from_utf8_lossy(piece).chars().map(|c| if c.is_control() { ' ' } else { c }));
        if assigns {
            out.push_str(" ?");
            hidden = true;
        }
        if out.len() > MASKED_MAX {
            let end = (0..=MASKED_MAX - "…".len()).rev().find(|&at| out.is_char_boundary(at)).unwrap_or(0);
            out.truncate(end);
            out.push('…');
            break;
        }
    }
    out
}
