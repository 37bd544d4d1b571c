//! A client that was told the columns of a statement's result never gets rows of others.
//!
//! PostgreSQL fixes the columns when a statement is parsed and refuses a plan with others (`RevalidateCachedQuery` in
//! plancache.c). Here a statement is parsed again on every server it comes to, and there its columns are those of the tables
//! as they are by then. A client that describes what it binds does not mind. One that remembers what it was told (pgjdbc,
//! asyncpg, node-postgres) would read rows as what they are not; it knows the error, and prepares again.
//!
//! So it is remembered what a client was told under a name ([`Told`]), and what a server said of its own Parse. Where both
//! are the same, which costs a comparison, or the client was told nothing, a Bind passes. Otherwise it is held until the
//! next message, which drivers send in the same packet:
//!
//! - a Describe of it: the client is told what comes, and it passes;
//! - anything else: the server is asked, by a Describe of ours, and that message waits for the answer. Columns that are the
//!   same let the Bind pass; of others the client is told what PostgreSQL says.

use super::{
    framer::Verdict,
    owed::{Action, Entry, Kind, Named},
    session::Session,
    sink::Sink,
};
use crate::pool::{
    error::PoolError,
    prepared::{
        client::{NO_COLUMNS, Told},
        server::Have,
    },
    wire::{
        frame::{self, Header, put_cstr},
        read::Target,
        tag::{backend, frontend as tag},
    },
};

/// Longest RowDescription that is read: a result has at most 1,664 columns (`MaxTupleAttributeNumber`), whose names have
/// at most 63 bytes.
const DESCRIPTION_MAX: usize = 1_664 * (64 + 18) + 2;
/// Portals with names of their own that may yet be described, of one lease. Beyond that the oldest is taken to be not.
const PORTALS_MAX: usize = 16;

/// What a lease knows of columns that are not settled yet.
#[derive(Debug, Default)]
pub(super) struct Columns {
    held: Option<Box<Held>>,
    /// What the portal without a name was bound to, and those with one, while it matters who describes them.
    unnamed: Option<Named>,
    portals: Vec<(Box<[u8]>, Named)>,
}

/// A Bind that waits.
#[derive(Debug)]
struct Held {
    portal: Box<[u8]>,
    named: Named,
    /// What follows the names in it. `None`: it is too long to be kept, and waits where it is.
    rest: Option<Vec<u8>>,
    asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
    /// The server has told them.
    Columns(u64),
}

impl Columns {
    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Returns whether a Bind waits for an answer of the server.
    pub(super) fn awaits_answer(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.asked == Asked::Yes)
    }

    /// A lease begins.
    pub(super) fn clear(&mut self) {
        (self.held, self.unnamed) = (None, None);
        self.portals.clear();
    }

    /// The server discards what was to follow.
    pub(super) fn drop_held(&mut self) {
        self.held = None;
    }

    /// Returns whether it matters which portal a Describe is about.
    pub(super) fn has_portals(&self) -> bool {
        self.unnamed.is_some() || !self.portals.is_empty()
    }

    /// A portal is bound, to something that must be remembered or not.
    pub(super) fn rebind(&mut self, portal: &[u8], named: Option<&Named>) {
        if portal.is_empty() {
            self.unnamed = named.cloned();
            return;
        }
        if !self.portals.is_empty() {
            self.portals.retain(|(name, _)| **name != *portal);
        }
        if let Some(named) = named {
            if self.portals.len() >= PORTALS_MAX {
                self.portals.remove(0);
            }
            self.portals.push((portal.into(), named.clone()));
        }
    }

    fn portal(&self, portal: &[u8]) -> Option<&Named> {
        match portal {
            b"" => self.unnamed.as_ref(),
            _ => self.portals.iter().find(|(name, _)| **name == *portal).map(|(_, named)| named),
        }
    }
}

impl Session<'_> {
    /// Holds a Bind whose client may not take what it would get.
    pub(super) fn hold_bind(
        &mut self,
        header: Header,
        body: &[u8],
        (portal_end, name_end): (usize, usize),
        named: Named,
        out: &mut Sink<'_>,
    ) -> Verdict {
        let fits = header.body_len() <= self.limits.max_held_message;
        if fits && body.len() < header.body_len() {
            return Verdict::NeedMore;
        }
        let rest = fits.then(|| body[name_end + 1..].to_vec());
        self.server.columns.held =
            Some(Box::new(Held { portal: body[..portal_end].into(), named, rest, asked: Asked::No }));
        self.batch_open = true;
        self.pace.sent();
        if fits {
            return Verdict::Skip;
        }
        self.ask_columns(out);
        Verdict::Later
    }

    /// Looks at the message behind a Bind that is held, or at that Bind itself. Returns a verdict when that decides it.
    pub(super) fn settle_held(&mut self, header: Header, body: &[u8], out: &mut Sink<'_>) -> Option<Verdict> {
        let held = self.server.columns.held.as_deref()?;
        if self.copy_in {
            self.put_held(out); // it will be refused as it is
            return None;
        }
        if header.tag == tag::DESCRIBE {
            if body.len() < header.body_len() {
                return Some(Verdict::NeedMore);
            }
            let described = match Target::parse(body) {
                Ok(Target::Statement(name)) => held.named.name.as_deref() == Some(name),
                Ok(Target::Portal(portal)) => *held.portal == *portal,
                Err(_) => false,
            };
            if described {
                self.put_held(out);
                return None;
            }
        }
        match held.asked {
            Asked::No => self.ask_columns(out),
            Asked::Yes => {}
            Asked::Columns(columns) => return self.compare_held(columns, out),
        }
        Some(Verdict::Later)
    }

    fn ask_columns(&mut self, out: &mut Sink<'_>) {
        let Some(mut held) = self.server.columns.held.take() else { return };
        held.named.made = self.ensure(&held.named.statement, out).made;
        frame::write(out.writer(), tag::DESCRIBE, |out| {
            out.push(b'S');
            put_cstr(out, held.named.statement.name());
        });
        frame::write(out.writer(), tag::FLUSH, |_| {});
        self.server.owed.push_own(Kind::Describe, held.named.clone());
        held.asked = Asked::Yes;
        self.server.columns.held = Some(held);
    }

    fn compare_held(&mut self, columns: u64, out: &mut Sink<'_>) -> Option<Verdict> {
        let held = self.server.columns.held.as_deref()?;
        let (named, was_kept) = (held.named.clone(), held.rest.is_some());
        let have = self.ensure(&named.statement, out);
        if have.made != named.made {
            self.ask_columns(out); // the answer was about another Parse of it
            return Some(Verdict::Later);
        }
        let name = named.name.as_deref().unwrap_or_default();
        let told = self.client.statements.told(name, &named.statement).map_or(Told::default(), |told| *told);
        if told.allows(have.made, columns) {
            match was_kept {
                true => self.put_held(out),
                false => self.server.columns.held = None, // its turn comes now
            }
            return None;
        }
        self.server.columns.held = None;
        // Other servers may have it as it was, for those who parse it now.
        named.statement.renew(told.renewals);
        self.server.statements.holds(named.statement.id);
        self.client.interner.count_refused(false);
        self.reject(PoolError::ResultTypeChanged, out);
        (!was_kept).then_some(Verdict::Skip)
    }

    /// Lets the Bind go that was held.
    fn put_held(&mut self, out: &mut Sink<'_>) {
        let Some(held) = self.server.columns.held.take() else { return };
        let (mut named, rest) = (held.named, held.rest.unwrap_or_default());
        let have = self.ensure(&named.statement, out);
        named.made = have.made;
        let names = held.portal.len() + named.statement.name().len() + 2;
        // No longer than what came by as much as one name is longer than another; on_bind has looked.
        let len = i32::try_from(4 + names + rest.len()).unwrap_or(i32::MAX);
        self.put_bind(&held.portal, named, false, len, out);
        out.put(&rest);
    }

    /// A Bind of a statement with a name: says whether the columns of its portal are settled.
    pub(super) fn is_settled(told: Told, have: Have) -> bool {
        told.columns != 0 && told.columns == have.columns
    }

    /// A Describe of a portal passes.
    pub(super) fn describe_portal(&mut self, portal: &[u8]) -> Verdict {
        let Some(named) = self.server.columns.portal(portal).cloned() else {
            return self.pass_extended(Kind::Describe);
        };
        self.note_asked(&named);
        self.batch_open = true;
        self.pace.sent();
        self.server.owed.push_named(Kind::Describe, named);
        Verdict::Pass
    }

    /// A Describe goes out: the client will know.
    pub(super) fn note_asked(&mut self, named: &Named) {
        if let Some(name) = &named.name
            && let Some(told) = self.client.statements.told(name, &named.statement)
        {
            told.asked = named.made;
        }
    }

    /// The oldest request, a Describe, is answered. Returns whether all that is needed was there.
    pub(super) fn note_columns(&mut self, header: Header, body: &[u8]) -> Result<bool, PoolError> {
        let Some(Entry { named: Some(named), action, .. }) = self.server.owed.front() else { return Ok(true) };
        let columns = match header.tag {
            // A client that gives no name is told of what it has just parsed.
            _ if named.name.is_none() => return Ok(true),
            backend::ROW_DESCRIPTION if header.body_len() > DESCRIPTION_MAX => 0,
            backend::ROW_DESCRIPTION if body.len() < header.body_len() => return Ok(false),
            backend::ROW_DESCRIPTION => self
                .client
                .interner
                .columns(body)
                .ok_or(PoolError::ServerProtocol { why: "malformed RowDescription" })?,
            _ => NO_COLUMNS,
        };
        self.server.statements.described(named.statement.id, named.made, columns);
        match (action, &named.name) {
            (Action::Forward, Some(name)) => {
                self.client.statements.answered(name, &named.statement, named.made, Some(columns));
            }
            (Action::Skip, _) => {
                if let Some(held) = &mut self.server.columns.held {
                    held.asked = Asked::Columns(columns);
                }
            }
            _ => {}
        }
        Ok(true)
    }
}
