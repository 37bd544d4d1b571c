//! Reading a console command. Pure.
//!
//! PgBouncer's grammar (src/admin.c): words in any case, an optional database name, bare or in double quotes, an optional
//! semicolon.

use crate::health::drain::WaitFor;

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
    /// Drops the client with this number.
    KillClient(u64),
    /// Refuses new clients.
    Disable(String),
    Enable(String),
    /// Waits for what RECONNECT or RELOAD has outdated to be gone.
    WaitClose(Option<String>),
    Reload,
    Shutdown(WaitFor),
    Suspend,
    /// The name of a setting, in lower case, and its value.
    Set(String, String),
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Pools,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Clients,
    Servers,
    Sockets,
    ActiveSockets,
    Databases,
    Users,
    Peers,
    PeerPools,
    Lists,
    Mem,
    DnsHosts,
    DnsZones,
    Fds,
    Config,
    State,
    Version,
    Help,
    /// One of [`PARAMETERS`].
    Parameter(&'static str, &'static str),
}

/// Settings of a session that some drivers ask for, or insist on setting, without looking at what they are. The console
/// answers with what it is.
pub const PARAMETERS: [(&str, &str); 6] = [
    ("client_encoding", "UTF8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "UTC"),
    ("extra_float_digits", "2"),
];

impl Command {
    /// Returns whether `stats_users` may not run it. Every command is named, so that a new one is thought of (CVE-2026-6667
    /// was a KILL_CLIENT that was not).
    pub fn needs_admin(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Show(show) => *show == Show::Fds,
            // Sets nothing then.
            Self::Set(name, _) => parameter(name).is_none(),
            Self::Pause(_)
            | Self::Resume(_)
            | Self::Reconnect(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::WaitClose(_)
            | Self::Reload
            | Self::Shutdown(_)
            | Self::Suspend => true,
        }
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
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Reload => "RELOAD",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::Suspend => "SUSPEND",
            Self::Set(..) => "SET",
        }
    }

    /// Returns the database it names.
    pub fn database(&self) -> Option<&str> {
        match self {
            Self::Pause(name)
            | Self::Resume(name)
            | Self::Reconnect(name)
            | Self::Kill(name)
            | Self::WaitClose(name) => name.as_deref(),
            Self::Disable(name) | Self::Enable(name) => Some(name),
            Self::Empty
            | Self::Show(_)
            | Self::KillClient(_)
            | Self::Reload
            | Self::Shutdown(_)
            | Self::Suspend
            | Self::Set(..) => None,
        }
    }
}

/// Reads one query text.
///
/// # Errors
/// A text for the user, when it is no command of the console.
pub fn parse(text: &str) -> Result<Command, String> {
    let trimmed = text.trim_start().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    let (word, rest) =
        trimmed.split_once(char::is_whitespace).map_or((trimmed, ""), |(word, rest)| (word, rest.trim()));
    let invalid = || format!("invalid command '{}', use SHOW HELP;", shortened(trimmed));
    let one = |make: fn(String) -> Command| match database(rest) {
        Some(Some(name)) => Ok(make(name)),
        Some(None) => Err("a database is required".to_owned()),
        None => Err(invalid()),
    };
    let any = |make: fn(Option<String>) -> Command| database(rest).map(make).ok_or_else(invalid);
    match word.to_ascii_uppercase().as_str() {
        "" => Ok(Command::Empty),
        "SHOW" => show(rest).map(Command::Show).ok_or_else(invalid),
        // PgBouncer's other word for it.
        "SELECT" if !rest.is_empty() => show(rest).map(Command::Show).ok_or_else(invalid),
        "PAUSE" => any(Command::Pause),
        "RESUME" => any(Command::Resume),
        "RECONNECT" => any(Command::Reconnect),
        "KILL" => any(Command::Kill),
        "KILL_CLIENT" => {
            rest.parse().map(Command::KillClient).map_err(|_| "invalid client pointer supplied".to_owned())
        }
        "DISABLE" => one(Command::Disable),
        "ENABLE" => one(Command::Enable),
        "WAIT_CLOSE" => any(Command::WaitClose),
        "RELOAD" if rest.is_empty() => Ok(Command::Reload),
        "SHUTDOWN" => shutdown(rest).map(Command::Shutdown).ok_or_else(invalid),
        "SUSPEND" if rest.is_empty() => Ok(Command::Suspend),
        "SET" => setting(rest).map(|(key, value)| Command::Set(key, value)).ok_or_else(invalid),
        _ => Err(invalid()),
    }
}

/// Returns the parameter of a name in any case.
pub fn parameter(name: &str) -> Option<(&'static str, &'static str)> {
    PARAMETERS.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name))
}

fn show(what: &str) -> Option<Show> {
    Some(match what.to_ascii_uppercase().as_str() {
        "POOLS" => Show::Pools,
        "STATS" => Show::Stats,
        "STATS_TOTALS" => Show::StatsTotals,
        "STATS_AVERAGES" => Show::StatsAverages,
        "TOTALS" => Show::Totals,
        "CLIENTS" => Show::Clients,
        "SERVERS" => Show::Servers,
        "SOCKETS" => Show::Sockets,
        "ACTIVE_SOCKETS" => Show::ActiveSockets,
        "DATABASES" => Show::Databases,
        "USERS" => Show::Users,
        "PEERS" => Show::Peers,
        "PEER_POOLS" => Show::PeerPools,
        "LISTS" => Show::Lists,
        "MEM" => Show::Mem,
        "DNS_HOSTS" => Show::DnsHosts,
        "DNS_ZONES" => Show::DnsZones,
        "FDS" => Show::Fds,
        "CONFIG" => Show::Config,
        "STATE" => Show::State,
        "VERSION" => Show::Version,
        "HELP" | "" => Show::Help,
        name => parameter(name).map(|(name, value)| Show::Parameter(name, value))?,
    })
}

fn shutdown(how: &str) -> Option<WaitFor> {
    match how.to_ascii_uppercase().as_str() {
        "" => Some(WaitFor::Nothing),
        "WAIT_FOR_SERVERS" => Some(WaitFor::Transactions),
        "WAIT_FOR_CLIENTS" => Some(WaitFor::Clients),
        _ => None,
    }
}

/// Reads `key = value` or `key TO value`; the value may stand in quotes, which are doubled inside.
fn setting(rest: &str) -> Option<(String, String)> {
    let end = rest.find(|char: char| !matches!(char, '_' | '.') && !char.is_ascii_alphanumeric())?;
    let (name, rest) = rest.split_at(end);
    let rest = rest.trim_start();
    let to = || rest.get(..2).filter(|word| word.eq_ignore_ascii_case("to")).and_then(|_| rest.get(2..));
    let value = rest.strip_prefix('=').or_else(|| to().filter(|value| value.starts_with(char::is_whitespace)))?.trim();
    let value = match value.strip_prefix('\'') {
        Some(quoted) => {
            let inner = quoted.strip_suffix('\'')?.replace("\'\'", "\u{0}");
            (!inner.contains('\'')).then(|| inner.replace('\u{0}', "\'"))?
        }
        // A second command after a semicolon is not to be lost without a word.
        None => Some(value).filter(|value| !value.is_empty() && !value.contains(';'))?.to_owned(),
    };
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), value))
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
