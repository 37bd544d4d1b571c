//! Reads a text that gave a hint: which settings it names, and what else it may leave.

use super::{
    Hints,
    tokens::{Token, Tokens},
};

/// The name of a setting in lower case, as `current_setting` takes it.
pub(in super::super) type Name = String;

/// What is done to a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Deed {
    Set(Name),
    /// RESET, or SET to DEFAULT.
    Reset(Name),
    ResetAll,
}

/// What is done about a channel, by its name as the server folds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Listens {
    To(Vec<u8>),
    NoMoreTo(Vec<u8>),
    ToNothing,
}

/// What a text may leave behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Reading {
    /// Statements whose tag will be SET or RESET, if they succeed.
    pub sets: u32,
    /// What those do, but for what ends with the transaction.
    pub deeds: Vec<Deed>,
    /// Settings set by function calls, or in a DO, which no tag tells of.
    pub calls: Vec<Name>,
    /// A call sets what is not known before it runs.
    pub unknown: bool,
    pub temp: bool,
    pub hold: bool,
    pub lock: bool,
    pub unlock: bool,
    /// LISTEN and UNLISTEN, in order.
    pub listens: Vec<Listens>,
    /// A PREPARE whose statement sets something: what, each EXECUTE of it says anew.
    pub prepares_set: bool,
    /// What a DO does under a tag that tells nothing of it.
    pub within: Within,
}

/// What the body of a DO may do, that a tag tells of where it stands by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Within {
    pub prepares: bool,
    pub listens: bool,
    pub loads: bool,
    /// DEALLOCATE or DISCARD: names may be gone.
    pub frees: bool,
    /// It executes a text that stands nowhere in it.
    pub hidden: bool,
}

/// Settings that cannot be kept, or need not be: of the transaction, or without a value that could be set again.
const PASSING: [&str; 4] = ["transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed"];

/// Reads a text with these hints: of a Query or a Parse, with or without what follows its NUL.
pub(in super::super) fn read(text: &[u8], hints: Hints) -> Reading {
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    let mut reading = Reading { temp: hints.contains(Hints::TEMP), ..Reading::default() };
    // What a function's body says happens when it is called, which is another statement.
    if !makes_function(text) {
        reading.lock = hints.contains(Hints::LOCK);
        reading.unlock = hints.contains(Hints::UNLOCK);
        if hints.contains(Hints::SET_CONFIG) {
            calls(text, &mut reading);
        }
    }
    let told = [Hints::SET, Hints::DECLARE, Hints::BODY, Hints::TOLD_BY_TAG, Hints::UNLISTEN];
    if told.into_iter().any(|hint| hints.contains(hint)) {
        statements(text, &mut reading);
    }
    reading
}

fn makes_function(text: &[u8]) -> bool {
    let mut tokens = Tokens::new(text);
    if !tokens.accept(b"create") {
        return false;
    }
    if tokens.accept(b"or") {
        tokens.accept(b"replace");
    }
    if !tokens.accept(b"function") && !tokens.accept(b"procedure") {
        return false;
    }
    // What stands behind it is run. `BEGIN ATOMIC` has semicolons of its own: to ask for nothing costs little.
    while let Some(token) = tokens.next() {
        if token == Token::Mark(b';') && tokens.peek().is_some() {
            return false;
        }
    }
    true
}

fn statements(text: &[u8], reading: &mut Reading) {
    let mut tokens = Tokens::new(text);
    let mut starts = true;
    while let Some(token) = tokens.next() {
        match token {
            Token::Mark(b';') => {
                starts = true;
                continue;
            }
            _ if !starts => continue,
            _ if token.is(b"set") || token.is(b"reset") => {
                let (counts, deed) = setting(&mut tokens, token.is(b"set"));
                reading.sets += u32::from(counts);
                reading.deeds.extend(deed.filter(is_kept));
            }
            _ if token.is(b"declare") => reading.hold |= declares_hold(&mut tokens),
            _ if token.is(b"do") => body(&mut tokens, reading),
            _ if token.is(b"prepare") => reading.prepares_set |= !reading.calls.is_empty() || reading.unknown,
            _ if token.is(b"update") => reading.unknown |= sets_by_update(&mut tokens),
            _ if token.is(b"listen") || token.is(b"unlisten") => {
                reading.listens.extend(channel(&mut tokens, token.is(b"listen")));
            }
            _ => {}
        }
        starts = false;
    }
}

/// `UPDATE pg_settings SET setting = …` is a SET of whatever rows it finds.
fn sets_by_update(tokens: &mut Tokens<'_>) -> bool {
    tokens.accept(b"only");
    if tokens.accept(b"pg_catalog") {
        tokens.next(); // the dot
    }
    tokens.accept(b"pg_settings")
}

fn is_kept(deed: &Deed) -> bool {
    match deed {
        Deed::Set(name) | Deed::Reset(name) => !PASSING.contains(&name.as_str()),
        Deed::ResetAll => true,
    }
}

/// Reads what follows SET or RESET. Returns whether the tag will be SET or RESET, and what is done to the session.
fn setting(tokens: &mut Tokens<'_>, set: bool) -> (bool, Option<Deed>) {
    if tokens.accept(b"constraints") {
        return (false, None);
    }
    if tokens.accept(b"local") || tokens.accept(b"transaction") {
        return (true, None);
    }
    if !set && tokens.accept(b"all") {
        return (true, Some(Deed::ResetAll));
    }
    let done = |name: &str, default: bool| {
        let name = name.to_owned();
        (true, Some(if set && !default { Deed::Set(name) } else { Deed::Reset(name) }))
    };
    let session = tokens.accept(b"session");
    if session && tokens.accept(b"characteristics") {
        return (true, modes(tokens));
    }
    if session && tokens.accept(b"authorization") || tokens.accept(b"session") {
        return done("session_authorization", tokens.peek().is_some_and(|next| next.is(b"default")));
    }
    let before = tokens.clone();
    for (words, name) in [
        ([&b"time"[..], b"zone"], "timezone"),
        ([b"xml", b"option"], "xmloption"),
        ([b"names", b""], "client_encoding"),
        ([b"schema", b""], "search_path"),
        ([b"role", b""], "role"),
    ] {
        *tokens = before.clone();
        if words.iter().all(|word| word.is_empty() || tokens.accept(word)) {
            let mut ahead = tokens.clone();
            let value = ahead.next();
            // `SET role = x` and `SET role TO x` are the same thing in another form.
            let value = if value.is_some_and(assigns) { ahead.next() } else { value };
            let default = value.is_some_and(|token| token.is(b"default") || (name == "timezone" && token.is(b"local")));
            return done(name, default);
        }
    }
    *tokens = before;
    let Some(name) = dotted(tokens) else { return (true, None) };
    let mut ahead = tokens.clone();
    let default = ahead.next().is_some_and(assigns) && ahead.next().is_some_and(|token| token.is(b"default"));
    done(&name, default)
}

fn assigns(token: Token<'_>) -> bool {
    token == Token::Mark(b'=') || token.is(b"to")
}

/// `SET SESSION CHARACTERISTICS AS TRANSACTION …`: nearly always one mode; with several, all that it can set is named.
fn modes(tokens: &mut Tokens<'_>) -> Option<Deed> {
    let (mut isolation, mut read_only, mut deferrable) = (false, false, false);
    while let Some(token) = tokens.peek() {
        if token == Token::Mark(b';') {
            break;
        }
        tokens.next();
        isolation |= token.is(b"isolation");
        read_only |= token.is(b"only") || token.is(b"write");
        deferrable |= token.is(b"deferrable");
    }
    match (isolation, read_only, deferrable) {
        (true, false, false) => Some(Deed::Set("default_transaction_isolation".to_owned())),
        (false, true, false) => Some(Deed::Set("default_transaction_read_only".to_owned())),
        (false, false, true) => Some(Deed::Set("default_transaction_deferrable".to_owned())),
        _ => Some(Deed::Set(CHARACTERISTICS.to_owned())),
    }
}

/// Stands for all that SET SESSION CHARACTERISTICS can set.
pub(in super::super) const CHARACTERISTICS: &str = "default_transaction_";

/// Iterates over what [`CHARACTERISTICS`] stands for.
pub(in super::super) fn characteristics() -> impl Iterator<Item = Name> {
    ["isolation", "read_only", "deferrable"].into_iter().map(|mode| format!("{CHARACTERISTICS}{mode}"))
}

/// Reads a name with dots: `statement_timeout`, `app.user_id`, `"app.user_id"`.
fn dotted(tokens: &mut Tokens<'_>) -> Option<Name> {
    let mut name = String::new();
    loop {
        match tokens.next()? {
            Token::Word(part) | Token::Quoted(part) => {
                name.push_str(&std::str::from_utf8(part).ok()?.to_ascii_lowercase())
            }
            _ => return None,
        }
        if tokens.peek() != Some(Token::Mark(b'.')) {
            return Some(name);
        }
        tokens.next();
        name.push('.');
    }
}

/// DECLARE … CURSOR WITH HOLD, before its FOR.
fn declares_hold(tokens: &mut Tokens<'_>) -> bool {
    while let Some(token) = tokens.peek() {
        if token == Token::Mark(b';') || token.is(b"for") {
            return false;
        }
        tokens.next();
        if token.is(b"with") && tokens.accept(b"hold") {
            return true;
        }
    }
    false
}

/// What follows DO: its body, and perhaps the language of it, before or behind, which may be a literal too.
fn body(tokens: &mut Tokens<'_>, reading: &mut Reading) {
    while let Some(token) = tokens.peek().filter(|token| *token != Token::Mark(b';')) {
        tokens.next();
        match token {
            Token::Text(text) => code(text, reading),
            _ if token.is(b"language") => drop(tokens.next()),
            _ => {}
        }
    }
}

/// PL/pgSQL, where a statement follows a semicolon or one of a few words.
fn code(text: &[u8], reading: &mut Reading) {
    let mut inside = Tokens::new(text);
    let (mut starts, mut executes) = (false, false);
    while let Some(token) = inside.next() {
        if token.is(b"execute") {
            executes = true;
            reading.within.hidden |= is_hidden(inside.clone());
        }
        executes &= token != Token::Mark(b';');
        match token {
            Token::Text(sql) if executes => dynamic(sql, reading),
            Token::Word(_) if starts && !token.is(b"declare") => within(token, &mut inside, reading),
            _ => {}
        }
        let openers: [&[u8]; 4] = [b"begin", b"then", b"else", b"loop"];
        starts = token == Token::Mark(b';') || openers.iter().any(|word| token.is(word));
    }
}

/// Returns whether what EXECUTE is followed by is neither a literal, nor a format, nor another EXECUTE than that of PL/pgSQL
/// (`GRANT EXECUTE ON`, `EXECUTE FUNCTION` of a trigger).
fn is_hidden(mut tokens: Tokens<'_>) -> bool {
    let passing: [&[u8]; 3] = [b"on", b"function", b"procedure"];
    let first = tokens.find(|token| *token != Token::Mark(b'('));
    match first {
        Some(Token::Text(_)) => false,
        Some(token) if token.is(b"format") => {
            !matches!(tokens.find(|token| *token != Token::Mark(b'(')), Some(Token::Text(_)))
        }
        Some(token) => !passing.iter().any(|word| token.is(word)),
        None => false,
    }
}

/// What a DO executes: `EXECUTE 'SET …'`, `EXECUTE format('SET %I = …', …)`.
fn dynamic(sql: &[u8], reading: &mut Reading) {
    let mut tokens = Tokens::new(sql);
    match tokens.next() {
        Some(first @ Token::Word(_)) => {
            let alone = tokens.peek().is_none();
            within(first, &mut tokens, reading);
            // Perhaps the beginning of what is put together.
            reading.within.hidden |= alone;
        }
        None | Some(Token::Mark(b'%')) => reading.within.hidden = true,
        _ => {}
    }
}

/// A statement of a DO that begins with this word.
fn within(first: Token<'_>, tokens: &mut Tokens<'_>, reading: &mut Reading) {
    let does = &mut reading.within;
    if first.is(b"set") || first.is(b"reset") {
        let passing: [&[u8]; 3] = [b"local", b"transaction", b"constraints"];
        let passes = tokens.peek().is_some_and(|next| passing.iter().any(|word| next.is(word)));
        return match setting(tokens, first.is(b"set")).1 {
            Some(Deed::Set(name) | Deed::Reset(name)) => reading.calls.push(name),
            Some(Deed::ResetAll) => reading.unknown = true,
            None => reading.unknown |= !passes,
        };
    }
    does.prepares |= first.is(b"prepare");
    does.listens |= first.is(b"listen");
    does.loads |= first.is(b"load") && matches!(tokens.peek(), Some(Token::Text(_)));
    does.frees |= first.is(b"deallocate") || first.is(b"discard");
    reading.hold |= first.is(b"declare") && declares_hold(tokens);
    reading.unknown |= first.is(b"update") && sets_by_update(tokens);
}

/// Calls of `set_config` that are read in one text; more set what is not known. The arguments of each may go on to its end.
const CALLS_MAX: usize = 64;

/// Finds the calls of `set_config`, in DO bodies and the like too, and reads their arguments.
fn calls(text: &[u8], reading: &mut Reading) {
    const NAME: &[u8] = b"set_config";
    let mut found = 0;
    for at in 0..text.len().saturating_sub(NAME.len()) {
        if !text[at..at + NAME.len()].eq_ignore_ascii_case(NAME) {
            continue;
        }
        found += 1;
        if found > CALLS_MAX {
            reading.unknown = true;
            return;
        }
        let mut tokens = Tokens::new(text[at + NAME.len()..].strip_prefix(b"\"").unwrap_or(&text[at + NAME.len()..]));
        if tokens.next() != Some(Token::Mark(b'(')) {
            continue; // its name, and no call
        }
        let arguments = arguments(&mut tokens);
        if let [_, _, Some(Token::Word(local))] = arguments
            && local.eq_ignore_ascii_case(b"true")
        {
            continue;
        }
        match arguments[0] {
            Some(Token::Text(name)) => match std::str::from_utf8(name) {
                Ok(name) if PASSING.iter().any(|passing| name.eq_ignore_ascii_case(passing)) => {}
                Ok(name) => reading.calls.push(name.to_ascii_lowercase()),
                Err(_) => reading.unknown = true,
            },
            _ => reading.unknown = true,
        }
    }
}

/// Returns the first three arguments of a call, as far as each is a single token; casts do not count.
fn arguments<'a>(tokens: &mut Tokens<'a>) -> [Option<Token<'a>>; 3] {
    let mut found = [None; 3];
    let (mut index, mut depth, mut len, mut cast) = (0, 0, 0, false);
    for token in tokens {
        match token {
            Token::Mark(b')') if depth == 0 => break,
            Token::Mark(b',') if depth == 0 => {
                (index, len, cast) = (index + 1, 0, false);
                if index == found.len() {
                    break;
                }
                continue;
            }
            Token::Mark(b'(') => depth += 1,
            Token::Mark(b')') => depth -= 1,
            Token::Mark(b':') if depth == 0 && len > 0 => cast = true,
            _ => {}
        }
        if !cast {
            len += 1;
            found[index] = (len == 1).then_some(token);
        }
    }
    found
}

/// Returns the name of `DEALLOCATE [PREPARE] name`, if that is all there is. As the server folds it: lower case without
/// quotes, and 63 bytes.
pub(in super::super) fn deallocated(text: &[u8]) -> Option<Vec<u8>> {
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    let mut tokens = Tokens::new(text);
    if !tokens.accept(b"deallocate") {
        return None;
    }
    let mut ahead = tokens.clone();
    if ahead.accept(b"prepare") && matches!(ahead.peek(), Some(Token::Word(_) | Token::Quoted(_))) {
        tokens = ahead;
    }
    let name = match tokens.next()? {
        Token::Word(word) if word.eq_ignore_ascii_case(b"all") => return None,
        token => folded(token)?,
    };
    tokens.all(|token| token == Token::Mark(b';')).then_some(name)
}

/// Returns the database that PostgreSQL wants to itself for this statement: of DROP, of ALTER … RENAME or SET TABLESPACE, the
/// template of CREATE.
pub(in super::super) fn wanted_alone(text: &[u8]) -> Option<Vec<u8>> {
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    let mut tokens = Tokens::new(text);
    let verb = tokens.next()?;
    if !tokens.accept(b"database") {
        return None;
    }
    if verb.is(b"drop") && tokens.accept(b"if") {
        tokens.accept(b"exists");
    }
    let name = folded(tokens.next()?)?;
    if verb.is(b"drop") {
        return Some(name);
    }
    let mut rest = tokens.take_while(|token| *token != Token::Mark(b';'));
    if verb.is(b"alter") {
        return rest.any(|token| token.is(b"rename") || token.is(b"tablespace")).then_some(name);
    }
    rest.find(|token| token.is(b"template"))?;
    let template = rest.next()?;
    folded(if template == Token::Mark(b'=') { rest.next()? } else { template })
}

/// Reads what follows LISTEN or UNLISTEN.
fn channel(tokens: &mut Tokens<'_>, listens: bool) -> Option<Listens> {
    let token = tokens.next()?;
    if token == Token::Mark(b'*') && !listens {
        return Some(Listens::ToNothing);
    }
    let name = folded(token)?;
    Some(if listens { Listens::To(name) } else { Listens::NoMoreTo(name) })
}

/// Returns a name as the server keeps it: lower case without quotes, and 63 bytes of it.
fn folded(token: Token<'_>) -> Option<Vec<u8>> {
    let mut name = match token {
        Token::Word(word) => word.to_ascii_lowercase(),
        Token::Quoted(name) => undoubled(name),
        _ => return None,
    };
    name.truncate(63);
    Some(name)
}

fn undoubled(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(byte);
        if byte == b'"' {
            bytes.next();
        }
    }
    out
}
