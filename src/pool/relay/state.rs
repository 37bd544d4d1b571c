//! What outlives a lease: a client between its transactions, a server between its clients.

use std::{pin::Pin, sync::Arc};

use tokio::time::Sleep;

use super::{columns::Columns, heal::Batch, owed::Owed, unnamed::Kept};
use crate::pool::{
    error::PoolError,
    notify::{Listening, Mailbox},
    params::{Applied, Options, Params, Value},
    prepared::{Interner, client::ClientStatements, server::ServerStatements},
    wire::backend::TxStatus,
};

/// A client's settings and names. Small while the client idles: values are shared, empty maps have no heap.
#[derive(Debug)]
pub struct ClientState {
    pub(super) params: Params,
    /// What it has and no server reports: from its startup, and what it has set since.
    pub(super) options: Option<Arc<Options>>,
    /// `None`: it asked for nothing.
    pub(super) baseline: Option<Box<Baseline>>,
    /// [`Self::scope`], once somebody has asked. Forgotten whenever one of its settings changes.
    pub(super) scope: Option<u64>,
    /// It was told to leave, and what it had on a server went with that: it must not go on.
    bereft: bool,
    /// Its `search_path` has the schema of temporary objects: what it creates may be one though no word says so.
    pub(super) creates_temporary: bool,
    /// A server has accepted these settings. Until then its first message waits for the replay's answer, so that nothing
    /// runs under settings that turn out to be refused; afterwards it follows in the same packet.
    pub(super) proven: bool,
    /// Its `application_name`, or that of its server, may be another than the registry was told.
    pub(super) renamed: bool,
    pub(super) statements: ClientStatements,
    /// The statement without a name ([`super::unnamed`]).
    pub(super) unnamed: Kept,
    /// Batches for which a statement without a name is left without: the client sends batch upon batch.
    pub(super) pipelines: u8,
    pub(super) interner: Arc<Interner>,
    /// From its first LISTEN that needed no server on.
    pub(super) listening: Option<Box<Listening>>,
}

/// What a client asked for when it connected: where RESET ALL and DISCARD ALL lead back to.
#[derive(Debug)]
pub(super) struct Baseline {
    /// Of the settings that servers report.
    pub tracked: Box<[(Box<str>, Value)]>,
    pub options: Option<Arc<Options>>,
}

impl ClientState {
    /// Starts a client from what servers of its database report and what it asked for at startup.
    ///
    /// `requested` are the settings of the startup packet and of its `options=-c …`, in order, without `user`, `database`,
    /// `replication`, `options` and what is ignored by configuration.
    ///
    /// # Errors
    /// When a name could not be a setting's.
    pub fn new<'a>(
        welcome: &Params,
        requested: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        track_extra: &[String],
        interner: &Arc<Interner>,
    ) -> Result<Self, PoolError> {
        let mut params = welcome.for_client(track_extra);
        let mut options = Options::default();
        let mut asked = Vec::new(); // bound: the startup packet's 10,000 bytes
        for (name, value) in requested {
            if params.ask(name, value) {
                asked.push(name);
            } else {
                options.add(name, value)?;
            }
        }
        let options = (!options.is_empty()).then(|| Arc::new(options));
        let tracked = asked.iter().filter_map(|&name| Some((name.into(), params.value(name)?.clone()))).collect();
        let baseline = Baseline { tracked, options: options.clone() };
        let baseline = (!asked.is_empty() || options.is_some()).then(|| Box::new(baseline));
        let mut client = Self {
            params,
            options,
            proven: baseline.is_none(),
            baseline,
            scope: None,
            bereft: false,
            creates_temporary: false,
            renamed: true,
            statements: ClientStatements::default(),
            unnamed: Kept::Nothing,
            pipelines: 0,
            interner: interner.clone(),
            listening: None,
        };
        client.look_at_path();
        Ok(client)
    }

    /// Iterates over the settings that are this client's own: what a login must report instead of the server's values.
    pub fn params(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.params.iter()
    }

    /// Returns a setting of this client, such as `application_name`, as far as it is tracked.
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.value(name).map(|value| &**value)
    }

    /// Returns the scope of its statements ([`crate::pool::prepared::statement`]): a hash of its settings.
    pub(super) fn scope(&mut self) -> u64 {
        if let Some(scope) = self.scope {
            return scope;
        }
        let scope = self.interner.scope((self.params.reading(), self.options.as_deref()));
        *self.scope.insert(scope)
    }

    /// Replaces what it has set and no server reports.
    pub(super) fn set_options(&mut self, options: Options) {
        self.options = match self.startup_options() {
            Some(startup) if **startup == options => Some(startup.clone()),
            _ => (!options.is_empty()).then(|| Arc::new(options)),
        };
        self.look_at_path();
    }

    /// Its `search_path` may have changed. PostgreSQL 18 reports it, others do not.
    pub(super) fn look_at_path(&mut self) {
        const SCHEMA: &[u8] = b"pg_temp";
        let kept = self.options.as_ref().and_then(|options| options.value("search_path"));
        let path = kept.or_else(|| self.params.value("search_path")).map_or(&[][..], |path| path);
        self.creates_temporary = path.windows(SCHEMA.len()).any(|part| part.eq_ignore_ascii_case(SCHEMA));
    }

    /// Notes that the server it kept was taken from it.
    pub fn bereave(&mut self) {
        self.bereft = true;
    }

    /// Returns whether the server it kept was taken from it.
    pub fn is_bereft(&self) -> bool {
        self.bereft
    }

    /// Returns what waits for it of what it listens to, if it does without a server.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        Some(self.listening.as_ref()?.mailbox())
    }

    /// Appends notifications that wait for it, `most` bytes or a little more.
    pub fn take_mail(&self, out: &mut Vec<u8>, most: usize) {
        if let Some(listening) = &self.listening {
            listening.take(out, most, self.speaks_utf8());
        }
    }

    /// Returns what it missed, once all that came before is taken.
    pub fn missed(&self) -> Option<PoolError> {
        Some(self.mailbox()?.lost()?.into())
    }

    pub(super) fn speaks_utf8(&self) -> bool {
        self.params.value("client_encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"UTF8"))
    }

    /// Returns the settings of its startup that no server reports.
    pub(super) fn startup_options(&self) -> Option<&Arc<Options>> {
        self.baseline.as_ref()?.options.as_ref()
    }

    /// Returns whether names may have changed since the last call.
    pub fn take_renamed(&mut self) -> bool {
        std::mem::take(&mut self.renamed)
    }

    /// Returns how many statements the client has prepared.
    pub fn prepared(&self) -> usize {
        self.statements.len()
    }
}

/// A server connection's side of things.
#[derive(Debug)]
pub struct ServerState {
    pub(super) params: Params,
    pub(super) applied: Applied,
    pub(super) statements: ServerStatements,
    pub(super) owed: Owed,
    pub(super) tx: TxStatus,
    /// The batch under way, as far as it can be sent again ([`super::heal`]). Here, so that leases share its buffers.
    pub(super) kept: Batch,
    /// What its client may not have been told of columns, of this lease. Here for the same reason.
    pub(super) columns: Columns,
    /// SQL PREPARE left names on it in session mode, and the reset did not take them away.
    pub(super) sql_prepared: bool,
    /// A client has set or reset something since [`super::recover::renew`]: what `connect_query` set may be gone.
    pub(super) touched: bool,
    /// SQL left something on it that nothing undoes: it is closed when its client leaves.
    pub(super) unfit: bool,
    /// For the limits of its leases; made with the first that has any.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
}

impl ServerState {
    /// Starts a connection that has just logged in, from the ParameterStatus messages it sent.
    pub fn new<'a>(reported: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        Self {
            params: Params::reported(reported),
            applied: Applied::default(),
            statements: ServerStatements::default(),
            owed: Owed::default(),
            tx: TxStatus::Idle,
            kept: Batch::default(),
            columns: Columns::default(),
            sql_prepared: false,
            touched: false,
            unfit: false,
            timer: None,
        }
    }

    /// Returns whether a client has changed settings, other than those that follow each client, or may have.
    pub fn is_changed(&self) -> bool {
        self.touched || !self.applied.is(None)
    }

    /// Returns everything the server reports.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Returns the same, to share equal values with others.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Returns the `application_name` in force on it, as far as the server tells.
    pub fn application_name(&self) -> &[u8] {
        self.params.value("application_name").map_or(&[], |name| name)
    }

    /// Returns where its transaction stands, as of the last ReadyForQuery.
    pub fn tx(&self) -> TxStatus {
        self.tx
    }

    /// Returns how many statements are prepared on it.
    pub fn prepared(&self) -> usize {
        self.statements.len()
    }
}
