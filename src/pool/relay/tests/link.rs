//! Clients, the core of the relay and one model server, without sockets: bytes are moved in whatever pieces and order a
//! schedule says.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{ClientState, Control, Fate, Limits, ServerState, pace::Pace, session::Session, sink::Sink},
    model::Model,
    script::{Script, lines},
};
use crate::{
    config::pool::PoolMode,
    pool::{error::PoolError, params::Params, prepared::Interner},
};
use std::time::Duration;

pub fn limits() -> Limits {
    Limits {
        mode: PoolMode::Transaction,
        max_packet_size: i32::MAX as u32,
        max_held_message: 1 << 16,
        max_prepared_statements: 2,
        prepare_unnamed_statements: true,
        query_timeout: None,
        transaction_timeout: None,
        idle_transaction_timeout: None,
        disable_pqexec: false,
        client_idle_timeout: None,
        spill_buffer: 0,
        rollback_timeout: Duration::from_secs(5),
    }
}

/// In what pieces and order bytes move. Small and seeded, so that a failing run can be run again.
pub struct Schedule {
    seed: u64,
    /// The longest piece.
    pub piece: usize,
}

impl Schedule {
    pub fn new(seed: u64, piece: usize) -> Self {
        Self { seed: seed.wrapping_mul(2).wrapping_add(1), piece }
    }

    /// One byte at a time.
    pub fn bytewise() -> Self {
        Self::new(7, 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        // xorshift64*
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn piece(&mut self, available: usize) -> usize {
        let most = self.piece.min(available);
        1 + self.below(most)
    }
}

pub struct Client {
    pub state: ClientState,
    pub unsent: Vec<u8>,
    pub got: Vec<u8>,
}

impl Client {
    pub fn lines(&self) -> Vec<String> {
        lines(&self.got)
    }
}

/// One server and its clients.
pub struct Pool {
    pub model: Model,
    pub server: ServerState,
    pub clients: Vec<Client>,
    pub limits: Limits,
    pub interner: Arc<Interner>,
    pub control: Control,
    pub leases: usize,
    /// Somebody changes the tables, now and then.
    pub altered: bool,
}

impl Pool {
    pub fn new() -> Self {
        let model = Model::new();
        let reports = model.reports();
        let reported = || reports.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        Self {
            server: ServerState::new(reported()),
            model,
            clients: Vec::new(),
            limits: limits(),
            interner: Arc::new(Interner::default()),
            control: Control::default(),
            leases: 0,
            altered: false,
        }
    }

    pub fn client(&mut self, script: Script) -> usize {
        self.client_asking(&[], script)
    }

    pub fn client_asking(&mut self, requested: &[(&str, &str)], script: Script) -> usize {
        let reports = Model::new().reports();
        let welcome = Params::reported(reports.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        let requested = requested.iter().map(|(name, value)| (*name, value.as_bytes()));
        let state = ClientState::new(&welcome, requested, &[], &self.interner).unwrap();
        self.clients.push(Client { state, unsent: script.0, got: Vec::new() });
        self.clients.len() - 1
    }

    /// Serves clients until all have sent everything; whose turn it is, is the schedule's to say.
    pub fn serve_all(&mut self, schedule: &mut Schedule) {
        loop {
            let waiting: Vec<_> =
                (0..self.clients.len()).filter(|&index| !self.clients[index].unsent.is_empty()).collect();
            if waiting.is_empty() {
                return;
            }
            let index = waiting[schedule.below(waiting.len())];
            let fate = self.serve(index, schedule).unwrap_or_else(|error| panic!("client {index}: {error}"));
            assert_eq!(fate, Fate::Reusable);
        }
    }

    /// One lease: until the server is at a boundary, or the client left or has nothing more to send and waits.
    pub fn serve(&mut self, index: usize, schedule: &mut Schedule) -> Result<Fate, PoolError> {
        let client = &mut self.clients[index];
        let pace = Pace::new(Instant::now());
        let session = Session::new(&mut client.state, &mut self.server, &self.limits, &self.control, pace);
        self.leases += 1;
        let mut lease = Lease {
            session,
            model: &mut self.model,
            unsent: &mut client.unsent,
            got: &mut client.got,
            carry: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            stalled: false,
            altered: self.altered,
        };
        lease.run(schedule)
    }

    /// What `script` gets on a connection of its own, with nothing between.
    pub fn alone(script: &Script) -> Vec<String> {
        Self::alone_asking(&[], script)
    }

    pub fn alone_asking(requested: &[(&str, &str)], script: &Script) -> Vec<String> {
        let mut model = Model::asked(requested);
        model.feed(&script.0);
        lines(&model.output)
    }
}

struct Lease<'a> {
    session: Session<'a>,
    model: &'a mut Model,
    unsent: &'a mut Vec<u8>,
    got: &'a mut Vec<u8>,
    carry: Vec<u8>,
    /// On the way between relay and model.
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    stalled: bool,
    altered: bool,
}

impl Lease<'_> {
    fn run(&mut self, schedule: &mut Schedule) -> Result<Fate, PoolError> {
        let mut started = false;
        loop {
            if self.altered && schedule.below(8) == 0 {
                self.model.alter();
            }
            let mut moves = Vec::new();
            if !self.unsent.is_empty() && !self.stalled && !self.session.leaving {
                moves.push(0);
            }
            if !self.to_server.is_empty() {
                moves.push(1);
            }
            if !self.model.output.is_empty() || !self.to_client.is_empty() {
                moves.push(2);
            }
            if self.session.wants_turn() && started {
                self.client_bytes()?;
                continue;
            }
            if moves.is_empty() {
                assert!(!self.stalled || self.session.leaving, "stalled for ever");
                return Ok(self.session.fate());
            }
            match moves[schedule.below(moves.len())] {
                0 => {
                    started = true;
                    let n = schedule.piece(self.unsent.len());
                    self.carry.extend(self.unsent.drain(..n));
                    self.client_bytes()?;
                }
                1 => {
                    let n = schedule.piece(self.to_server.len());
                    let piece: Vec<_> = self.to_server.drain(..n).collect();
                    self.model.feed(&piece);
                }
                _ => self.server_bytes(schedule)?,
            }
            let done = self.session.is_at_boundary()
                && self.carry.is_empty()
                && !self.session.wants_turn()
                && !self.session.is_pinned();
            if started && done && self.to_server.is_empty() {
                assert!(self.model.output.is_empty() && self.to_client.is_empty(), "released with bytes on the way");
                assert_eq!(self.model.tx, self.session.server.tx);
                return Ok(self.session.fate());
            }
        }
    }

    fn client_bytes(&mut self) -> Result<(), PoolError> {
        let (mut staged, mut back) = (Vec::new(), Vec::new());
        let mut out = Sink::new(&self.carry, &mut staged);
        let fed = self.session.client_bytes(&self.carry, &mut out, &mut back);
        let (staged, run) = out.into_parts();
        self.to_server.extend_from_slice(staged);
        self.to_server.extend_from_slice(run);
        self.got.extend(back);
        let fed = fed?;
        self.stalled = fed.waiting;
        self.carry.drain(..fed.taken);
        Ok(())
    }

    fn server_bytes(&mut self, schedule: &mut Schedule) -> Result<(), PoolError> {
        self.to_client.append(&mut self.model.output);
        let n = schedule.piece(self.to_client.len());
        let piece: Vec<_> = self.to_client.drain(..n).collect();
        let mut staged = Vec::new();
        let mut out = Sink::new(&piece, &mut staged);
        let result = self.session.server_bytes(&piece, &mut out);
        let (staged, run) = out.into_parts();
        self.got.extend_from_slice(staged);
        self.got.extend_from_slice(run);
        result?;
        if std::mem::take(&mut self.stalled) || !self.carry.is_empty() {
            self.client_bytes()?;
        }
        Ok(())
    }
}
