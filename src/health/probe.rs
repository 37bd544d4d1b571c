//! The probe loop: look at one target again and again, and say when the mind changes.
//!
//! One loop per target, so that a slow one never delays the look at another (pingora's own health service checks a set
//! serially, and its round lasts as long as its slowest member). The first look is at once; then one per interval,
//! counted from start to start as HAProxy's `inter` is, faster while the target is not up. Every pause is jittered, so
//! that a hundred loops that began together do not knock together. A look that takes longer than the timeout has failed.
//!
//! The loop never ends by itself: run it in a task that is dropped or aborted with the target. Randomness is an argument
//! and the clock is tokio's, so that tests neither wait nor guess.

use std::{future::Future, time::Duration};

use tokio::time::{self, Instant};

use crate::health::threshold::{Health, Threshold};

/// Each pause is up to this share longer or shorter.
pub const JITTER: f64 = 0.10;

/// When to look, and how long a look may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the start of one look to the start of the next while the target is up.
    pub interval: Duration,
    /// The same while it is down or not proven yet.
    pub down_interval: Duration,
    /// For one whole look.
    pub timeout: Duration,
}

/// Something that can be looked at.
pub trait Probe: Send {
    /// What a successful look brings home.
    type Seen: Send;
    type Error: Send;

    /// Looks once. Dropped when it takes too long, so it must be cancel safe.
    fn look(&mut self) -> impl Future<Output = Result<Self::Seen, Self::Error>> + Send;
}

/// Why a look failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<E> {
    /// The probe said so.
    Probe(E),
    /// It took longer than this.
    Timeout(Duration),
}

/// One look: for the metrics, each; for the state, where `changed` is some.
#[derive(Debug)]
pub struct Look<S, E> {
    pub result: Result<S, Failure<E>>,
    pub took: Duration,
    /// What the target is held to be after this look.
    pub health: Health,
    /// The same, if this look changed it.
    pub changed: Option<Health>,
}

/// Looks forever. `random` gives numbers in `0.0..1.0`.
///
/// Cancel safe: nothing is owed to anyone between two looks, and a look in flight is dropped.
pub async fn run<P: Probe>(
    mut probe: P,
    schedule: Schedule,
    mut threshold: Threshold,
    mut random: impl FnMut() -> f64 + Send,
    mut on_look: impl FnMut(Look<P::Seen, P::Error>) + Send,
) {
    loop {
        let started = Instant::now();
        let result = match time::timeout(schedule.timeout, probe.look()).await {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(error)) => Err(Failure::Probe(error)),
            Err(_) => Err(Failure::Timeout(schedule.timeout)),
        };
        let changed = threshold.record(result.is_ok());
        let health = threshold.health();
        on_look(Look { result, took: started.elapsed(), health, changed });
        let pause = if health == Health::Up { schedule.interval } else { schedule.down_interval };
        time::sleep_until(started + jittered(pause, random())).await;
    }
}

/// Returns `pause` made up to [`JITTER`] longer or shorter by `random`, a number in `0.0..1.0`.
pub fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
