//! What SQL leaves on a server that its next client must not find.
//!
//! | left by | seen by | what is done |
//! |---|---|---|
//! | `SET`, `RESET`, `SET ROLE`, … | the command's tag | the next lease's replay begins with RESET ALL |
//! | `set_config(…)` of what is not tracked | its name in the text | the same |
//! | `PREPARE` | the command's tag | the next replay begins with DEALLOCATE ALL |
//! | `DISCARD ALL`, `DEALLOCATE` | the command's tag | the statements are forgotten |
//! | `LISTEN` | the command's tag | the server is closed at the boundary |
//!
//! The replay is part of the next request's first packet, so a `SET` costs no round trip (some 30 µs of the server's time),
//! and what is not tracked holds to the end of its transaction and no longer, every time rather than on some servers. The text is looked at where
//! it passes; one that is long and came in pieces counts as if it had set something. What cannot be seen
//! without reading SQL is left to the application, as in PgBouncer: temporary tables, cursors `WITH HOLD`, session advisory
//! locks, and a function of the database's own that calls `set_config`.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::session::Session;
use crate::{
    config::pool::PoolMode,
    pool::{params::Params, prepared::Statement, wire::frame::Header},
};

/// A text no longer than this is looked at whole, in however many pieces it comes.
pub(super) const TEXT_MAX: usize = 8 * 1024;

static LOWER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("set_config"));
static UPPER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("SET_CONFIG"));

impl Session<'_> {
    /// Reads from a command's tag what it did to the server beyond its transaction.
    pub(super) fn note_command(&mut self, command: &[u8]) {
        match command {
            b"DEALLOCATE ALL" | b"DISCARD ALL" => {
                self.client.statements.clear();
                self.server.statements.clear();
                if command == b"DISCARD ALL" {
                    self.server.applied.doubt();
                    self.server.unfit = false; // it implies UNLISTEN *
                }
            }
            b"DEALLOCATE" => self.server.statements.doubt_all(),
            b"SET" | b"RESET" => self.server.applied.doubt(),
            b"PREPARE" => self.server.sql_prepared = true,
            b"LISTEN" => self.server.unfit = self.limits.mode != PoolMode::Session,
            _ => {}
        }
    }

    /// Looks at SQL that passes: the body of a Query, or of a Parse. Returns false when more of it must be seen.
    pub(super) fn note_text(&mut self, header: Header, body: &[u8]) -> bool {
        let whole = body.len() == header.body_len();
        if !whole && header.body_len() <= TEXT_MAX {
            return false;
        }
        if !whole || sets_untracked(body, &self.client.params) {
            self.server.applied.doubt();
        }
        true
    }

    /// A prepared statement is about to run; its text was whole when it was kept.
    pub(super) fn note_statement(&mut self, statement: &Statement) {
        if statement.is_noteworthy(|definition| calls(definition).next().is_some())
            && sets_untracked(statement.definition(), &self.client.params)
        {
            self.server.applied.doubt();
        }
    }
}

/// Iterates over the places where `text` has `set_config`.
fn calls(text: &[u8]) -> impl Iterator<Item = usize> {
    LOWER.find_iter(text).chain(UPPER.find_iter(text))
}

/// Returns whether `text` has `set_config` with anything but the literal name of a parameter that follows its client.
fn sets_untracked(text: &[u8], tracked: &Params) -> bool {
    let mut after = calls(text).map(|at| &text[at + b"set_config".len()..]);
    after.any(|call| first_argument(call).is_none_or(|name| tracked.value(name).is_none()))
}

/// Reads `('name'`, as people and drivers write it.
fn first_argument(call: &[u8]) -> Option<&str> {
    let rest = call.trim_ascii_start().strip_prefix(b"(")?.trim_ascii_start().strip_prefix(b"'")?;
    let end = memchr::memchr(b'\'', rest)?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_config_is_seen_unless_what_it_sets_is_tracked() {
        let tracked = Params::reported([("TimeZone", &b"UTC"[..])]);
        for (text, seen) in [
            ("SELECT set_config('TimeZone', $1, false)", false),
            ("SELECT pg_catalog.SET_CONFIG( 'timezone','UTC',false)", false),
            ("SELECT pg_catalog.set_config('search_path', '', false)", true),
            ("SELECT set_config('TimeZone','UTC',false), set_config('role','x',false)", true),
            ("SELECT set_config($1, $2, false)", true),
            ("SELECT set_config", true),
            ("SELECT set_config('TimeZone", true),
            ("SELECT setting FROM settings", false),
        ] {
            assert_eq!(sets_untracked(text.as_bytes(), &tracked), seen, "{text}");
        }
    }
}
