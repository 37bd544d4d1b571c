//! What a client is doing, and what others want of it: plain values.

/// What a client is doing. Left only through [`transition`](super::ClientEntry::transition).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ClientState {
    /// Has connected and sent nothing whole yet. Left for Authenticating, Cancelling, or Closing.
    Startup = 0,
    /// Proves who it is, or waits for the first server of a cold pool. Left for Idle or Closing.
    Authenticating = 1,
    /// Logged in, between transactions. Left with its next message, for Waiting, Active, or Closing.
    Idle = 2,
    /// Waits for a server. Left for Active when it has one, or Closing.
    Waiting = 3,
    /// Holds a server. Left for Idle at a transaction boundary, or Closing.
    Active = 4,
    /// Not a session: a cancel request on its way to a server. Left for Closing.
    Cancelling = 5,
    /// On its way out; removed when its handle is dropped.
    Closing = 6,
}

impl ClientState {
    pub(in crate::pool::registry) const COUNT: usize = 7;
    /// All states, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Startup, Self::Authenticating, Self::Idle, Self::Waiting, Self::Active, Self::Cancelling, Self::Closing];

    /// Returns the name used in metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Authenticating => "authenticating",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Cancelling => "cancelling",
            Self::Closing => "closing",
        }
    }

    /// Returns whether a client may go from `self` to `to`.
    pub fn may_become(self, to: Self) -> bool {
        use ClientState::{Active, Authenticating, Cancelling, Closing, Idle, Startup, Waiting};
        matches!(
            (self, to),
            (Startup, Authenticating | Cancelling)
                | (Authenticating | Active, Idle)
                | (Idle, Waiting | Active)
                | (Waiting, Active)
                | (Startup | Authenticating | Idle | Waiting | Active | Cancelling, Closing)
        )
    }

    pub(super) fn from_u8(value: u8) -> Self {
        Self::ALL.get(usize::from(value)).copied().unwrap_or(Self::Closing)
    }
}

/// What somebody else wants of a client: to go, and how soon. A later, stronger wish replaces a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Leave {
    /// Nothing: carry on.
    Stay = 0,
    /// The process is leaving: go at the next transaction boundary.
    Draining = 1,
    /// The configuration no longer has this database: go at the next transaction boundary.
    DatabaseRemoved = 2,
    /// An administrator said KILL: go now.
    Killed = 3,
    /// The time for leaving is over: go now.
    Cut = 4,
}

impl Leave {
    /// Returns whether a transaction in flight is not to be waited for.
    pub fn at_once(self) -> bool {
        self >= Self::Killed
    }

    pub(super) fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Stay,
            1 => Self::Draining,
            2 => Self::DatabaseRemoved,
            3 => Self::Killed,
            _ => Self::Cut,
        }
    }
}
