//! The servers one request is sent to, one after the other.
//!
//! Both ways a request reaches a server (through pingora, or as a WebSocket handshake of our own) keep their record here:
//! which server is asked now, which were, what went wrong and whether another may be asked. The decision itself is
//! [`retry`]'s; this applies it, reports to the cluster and counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;

use super::{
    error::Failure,
    metrics::RouteMetrics,
    retry::{self, Attempt, Decision, Sent},
    upstream::{Ask, Cluster, NoServer, Picked, Tried},
};

/// A request's way through its upstream.
#[derive(Debug)]
pub(super) struct Attempts {
    cluster: Arc<Cluster>,
    ask: Ask,
    tried: Tried,
    /// Counts the request as being at that server until it is replaced or dropped.
    current: Option<Picked>,
    count: u32,
    queued: Duration,
    reused_failed: bool,
    last_failure: Option<Failure>,
    began: Instant,
    reused: bool,
    connect: Option<Duration>,
    sent: Option<Instant>,
    answered: Option<Instant>,
}

/// How a try failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) failure: Failure,
    pub(super) idempotent: bool,
    pub(super) has_body: bool,
    pub(super) sent: Sent,
}

impl Attempts {
    /// Returns a request nobody was asked about yet.
    pub(super) fn new(cluster: Arc<Cluster>, ask: Ask) -> Self {
        Self {
            cluster,
            ask,
            tried: Tried::default(),
            current: None,
            count: 0,
            queued: Duration::ZERO,
            reused_failed: false,
            last_failure: None,
            began: Instant::now(),
            reused: false,
            connect: None,
            sent: None,
            answered: None,
        }
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Returns the server that is asked, or was last.
    pub(super) fn current(&self) -> Option<&Picked> {
        self.current.as_ref()
    }

    /// Returns how often the request was sent somewhere.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Returns how long the connection took, unless it was there already.
    pub(super) fn connect(&self) -> Option<Duration> {
        self.connect
    }

    /// Returns when a server began its answer.
    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.answered
    }

    /// Returns whether a server began to answer.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Chooses a server, unless one is chosen; returns false if it is to be waited for.
    pub(super) fn choose(&mut self) -> Result<bool, Failure> {
        if self.current.is_none() {
            match self.cluster.pick(&self.ask, &self.tried, Instant::now()) {
                Ok(picked) => self.current = Some(picked),
                Err(NoServer::Full) => return Ok(false),
                Err(none) => return Err(self.failure(none)),
            }
        }
        Ok(true)
    }

    /// Waits for a server with room. Cancel safe.
    pub(super) async fn wait(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let waited = self.cluster.wait(&self.ask, &self.tried).await;
        self.queued += began.elapsed();
        self.current = Some(waited.map_err(|none| self.failure(none))?);
        Ok(())
    }

    fn failure(&self, none: NoServer) -> Failure {
        match none {
            NoServer::DatabaseDown => Failure::DatabaseDown,
            NoServer::NoneUp => Failure::NoServer,
            // What happened at the last one says more than that there is no other.
            NoServer::AllTried => self.last_failure.unwrap_or(Failure::NoServer),
            NoServer::Full | NoServer::QueueFull => Failure::QueueFull,
            NoServer::QueueTimeout => Failure::QueueTimeout,
        }
    }

    /// Begins a try at the server that has been chosen.
    pub(super) fn begin(&mut self) -> Result<&Picked, Failure> {
        self.count += 1;
        self.began = Instant::now();
        self.current.as_ref().ok_or(Failure::Internal)
    }

    /// Returns the cookie that goes with the answer of the server that is asked.
    pub(super) fn new_cookie(&self) -> Option<&HeaderValue> {
        self.cluster.new_cookie(self.ask.sticky, self.current.as_ref()?.index)
    }

    /// Returns how long the request has waited in line.
    pub(super) fn queued(&self) -> Duration {
        self.queued
    }

    /// Notes that the connection stands.
    pub(super) fn connected(&mut self, reused: bool, metrics: &RouteMetrics) {
        let now = Instant::now();
        self.sent = Some(now);
        self.reused = reused;
        if !reused {
            let took = now - self.began;
            self.connect = Some(took);
            if let Some(picked) = &self.current {
                metrics.connected(picked.index, took.as_secs_f64());
            }
        }
    }

    /// Notes that the server began its (final) answer.
    pub(super) fn answered(&mut self, metrics: &RouteMetrics) {
        if let (None, Some(sent), Some(picked)) = (self.answered, self.sent, &self.current) {
            let now = Instant::now();
            self.answered = Some(now);
            self.cluster.answered(picked.index, now - sent, now);
            metrics.first_byte(picked.index, (now - sent).as_secs_f64());
        }
    }

    /// Takes note of a try that failed; returns whether there is another.
    pub(super) fn failed(&mut self, fault: Fault, metrics: &RouteMetrics) -> bool {
        let Some(picked) = &self.current else { return false };
        let tries_left = self.cluster.settings().tries.saturating_sub(self.tried.len() as u32 + 1);
        let decision = retry::decide(&Attempt {
            failure: fault.failure,
            idempotent: fault.idempotent,
            has_body: fault.has_body,
            sent: fault.sent,
            answer_seen: self.is_answered(),
            reused: self.reused,
            reused_failed_before: self.reused_failed,
            tries_left,
        });
        self.last_failure = Some(fault.failure);
        self.reused_failed |= self.reused;
        if decision != Decision::SameServer && fault.failure.blames_server() {
            self.cluster.failed(picked.index, Instant::now());
        }
        if decision == Decision::OtherServer {
            self.tried.insert(picked.index);
            // Who else there is must be known now: without another server the failure is this one.
            match self.cluster.pick(&self.ask, &self.tried, Instant::now()) {
                Ok(next) => self.current = Some(next),
                Err(NoServer::Full) => self.current = None, // it waits for one
                Err(_) => return false,
            }
        }
        if decision == Decision::GiveUp {
            return false;
        }
        metrics.retried(fault.failure);
        true
    }

    /// Notes how the request ended.
    pub(super) fn settle(&self, failure: Option<Failure>) {
        if let (None, Some(picked)) = (failure, &self.current) {
            self.cluster.succeeded(picked.index, Instant::now());
        }
    }
}
