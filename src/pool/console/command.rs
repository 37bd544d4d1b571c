//! Reading a console command. Pure.
//!
//! PgBouncer's grammar (src/admin.c): words in any case, an optional database name, bare or in double quotes, an optional
//! semicolon.

/// One command of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing but white space or a semicolon.
    Empty,
    Show(Show),
    /// `None`: all databases.
    Pause(Option<String>),
    Resume(Option<String>),
    /// Closes and re-opens server connections at their next boundary.
    Reconnect(Option<String>),
    /// Drops clients and servers at once.
    Kill(Option<String>),
    Reload,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Pools,
    Stats,
    StatsTotals,
    StatsAverages,
    Clients,
    Servers,
    Databases,
    Users,
    Lists,
    Config,
    State,
    Version,
    Help,
}

impl Command {
    /// Returns whether `stats_users` may run it.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Empty | Self::Show(_))
    }

    /// Returns the tag of its CommandComplete.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Empty => "",
            Self::Show(_) => "SHOW",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::Kill(_) => "KILL",
            Self::Reload => "RELOAD",
        }
    }
}

/// Reads one query text.
///
/// # Errors
/// A text for the user, when it is no command of the console.
pub fn parse(text: &str) -> Result<Command, String> {
    let trimmed = text.trim().trim_end_matches(';').trim_end();
    let (word, rest) =
        trimmed.split_once(char::is_whitespace).map_or((trimmed, ""), |(word, rest)| (word, rest.trim()));
    let invalid = || format!("invalid command '{}', use SHOW HELP;", shortened(trimmed));
    match word.to_ascii_uppercase().as_str() {
        "" => Ok(Command::Empty),
        "SHOW" => show(rest).map(Command::Show).ok_or_else(invalid),
        "PAUSE" => database(rest).map(Command::Pause).ok_or_else(invalid),
        "RESUME" => database(rest).map(Command::Resume).ok_or_else(invalid),
        "RECONNECT" => database(rest).map(Command::Reconnect).ok_or_else(invalid),
        "KILL" => database(rest).map(Command::Kill).ok_or_else(invalid),
        "RELOAD" if rest.is_empty() => Ok(Command::Reload),
        _ => Err(invalid()),
    }
}

fn show(what: &str) -> Option<Show> {
    Some(match what.to_ascii_uppercase().as_str() {
        "POOLS" => Show::Pools,
        "STATS" => Show::Stats,
        "STATS_TOTALS" => Show::StatsTotals,
        "STATS_AVERAGES" => Show::StatsAverages,
        "CLIENTS" => Show::Clients,
        "SERVERS" => Show::Servers,
        "DATABASES" => Show::Databases,
        "USERS" => Show::Users,
        "LISTS" => Show::Lists,
        "CONFIG" => Show::Config,
        "STATE" => Show::State,
        "VERSION" => Show::Version,
        "HELP" | "" => Show::Help,
        _ => return None,
    })
}

/// Returns `Some(None)` for no name, `Some(Some(name))` for one, `None` for anything else.
fn database(rest: &str) -> Option<Option<String>> {
    if rest.is_empty() {
        return Some(None);
    }
    if let Some(quoted) = rest.strip_prefix('"') {
        let inner = quoted.strip_suffix('"')?;
        let name = inner.replace("\"\"", "\u{0}");
        return (!name.contains('"') && !name.is_empty()).then(|| Some(name.replace('\u{0}', "\"")));
    }
    (!rest.contains(char::is_whitespace) && !rest.contains('"')).then(|| Some(rest.to_owned()))
}

/// A query may be long; an error text is not.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
