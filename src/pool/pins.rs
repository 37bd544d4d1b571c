//! Why a client keeps its server between transactions, and who is told.
//!
//! In transaction mode a client holds a server past a boundary only while something of its session is on it that cannot be
//! moved: [`Reason`]. The relay finds that out ([`super::relay`]); here is what it is called, in metrics and in the log. The
//! log has one line a minute for each reason of a database at most: an application that does it, does it all day.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// Between two log lines of one database and one reason.
const QUIET: Duration = Duration::from_secs(60);

/// What keeps a server with its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Something in its `pg_temp` schema.
    Temp,
    /// A cursor `WITH HOLD`.
    Cursor,
    /// An advisory lock of the session.
    AdvisoryLock,
    /// It listens on a channel.
    Listen,
    /// A statement made by SQL `PREPARE`.
    Prepare,
    /// A library was loaded, which nothing undoes.
    Load,
    /// A setting whose name is not known, or more settings than are kept.
    Setting,
}

impl Reason {
    pub const COUNT: usize = 7;
    /// All reasons, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Temp, Self::Cursor, Self::AdvisoryLock, Self::Listen, Self::Prepare, Self::Load, Self::Setting];

    /// Returns the name used in metrics, pages and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Temp => "temp",
            Self::Cursor => "cursor",
            Self::AdvisoryLock => "advisory_lock",
            Self::Listen => "listen",
            Self::Prepare => "prepare",
            Self::Load => "load",
            Self::Setting => "setting",
        }
    }
}

/// Some reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pins(u8);

impl Pins {
    pub fn none() -> Self {
        Self(0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    pub fn insert(&mut self, reason: Reason) {
        self.0 |= 1 << reason as u8;
    }

    pub fn remove(&mut self, reason: Reason) {
        self.0 &= !(1 << reason as u8);
    }

    /// Returns what is here and not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns what is in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns what is in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Iterates over the reasons in order.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    /// Returns it as one byte, for an atomic.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns what [`Pins::bits`] gave.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl FromIterator<Reason> for Pins {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        let mut pins = Self::none();
        reasons.into_iter().for_each(|reason| pins.insert(reason));
        pins
    }
}

/// When a database last had a line in the log, by reason.
pub struct Quiet {
    since: Instant,
    /// Milliseconds after `since`, and one more; 0: never.
    last: [AtomicU64; Reason::COUNT],
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quiet")
    }
}

impl Quiet {
    pub fn new(now: Instant) -> Self {
        Self { since: now, last: Default::default() }
    }

    /// Returns whether a line may be written now, and notes that it is.
    pub fn may_speak(&self, reason: Reason, now: Instant) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.since)).saturating_add(1);
        let last = &self.last[reason as usize];
        let before = last.load(Relaxed);
        let due = before == 0 || now.saturating_sub(before) >= millis(QUIET);
        due && last.compare_exchange(before, now, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_kept_apart() {
        let mut pins: Pins = [Reason::Listen, Reason::Setting].into_iter().collect();
        assert!(pins.contains(Reason::Listen) && !pins.contains(Reason::Temp));
        pins.remove(Reason::Listen);
        assert_eq!(pins.iter().collect::<Vec<_>>(), [Reason::Setting]);
        assert_eq!(Pins::from_bits(pins.bits()), pins);
        assert_eq!(pins.without(pins), Pins::none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_hears_of_a_reason_once_a_minute() {
        let quiet = Quiet::new(Instant::now());
        assert!(quiet.may_speak(Reason::Temp, Instant::now()));
        assert!(!quiet.may_speak(Reason::Temp, Instant::now()));
        assert!(quiet.may_speak(Reason::Listen, Instant::now()), "another reason");
        tokio::time::advance(QUIET).await;
        assert!(quiet.may_speak(Reason::Temp, Instant::now()));
    }
}
