//! What `pool:` says about clients that LISTEN.

use crate::config::section::Section;

/// Keys of `pool:`. They are Bookend's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notifications {
    /// `notifications`: one connection of each pool listens for its clients (`fan_out`, the default), or each keeps its server
    /// to listen (`pin`).
    pub fan_out: bool,
    /// `max_notification_channels`: of one client. With more it keeps its server. Default 1,000.
    pub channels_max: usize,
    /// `notification_queue`: bytes that wait for one client, which is ended with more. Default 1 MiB.
    pub queue: usize,
}

impl Notifications {
    /// Returns the word of `notifications`.
    pub fn word(&self) -> &'static str {
        if self.fan_out { "fan_out" } else { "pin" }
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Self { fan_out: true, channels_max: 1_000, queue: 1 << 20 }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> Notifications {
    let default = Notifications::default();
    Notifications {
        fan_out: section.choice("notifications", default.fan_out, &[("fan_out", true), ("pin", false)]),
        channels_max: section.integer("max_notification_channels", 1_000, 1..=100_000),
        // At least the longest one and a little: 8,000 bytes and a name.
        queue: section.size("notification_queue", default.queue as u64, 16 << 10..=1 << 30) as usize,
    }
}
