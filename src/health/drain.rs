//! How the process leaves: phases everyone can watch, and tasks that are counted until they end.
//!
//! Running -> Leaving (readiness is off, everything still accepted) -> Closed (nothing new; who is here stays) -> Draining
//! (nothing new; finish what is in flight by the deadline) -> Cut (end now). Only forward, and a phase may be left out. A
//! component holds a [`Drain`] and selects on the phase it cares about; what must be waited for is spawned through
//! [`Drain::spawn`], so that leaving ends as soon as all of it has.

use std::future::Future;

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::task::TaskTracker;

/// Where the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    Leaving,
    /// Accept nothing new; who is here stays as long as they like.
    Closed,
    /// Accept nothing new; what is in flight has until the deadline.
    Draining {
        deadline: Instant,
    },
    Cut,
}

/// What an operator who sends the process away wants to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    Nothing,
    /// Requests and transactions that have begun.
    Transactions,
    /// Until the clients of the pool have gone by themselves.
    Clients,
}

/// Announces the phases. Held by `app` alone.
#[derive(Debug)]
pub struct DrainControl {
    phase: watch::Sender<Phase>,
}

/// Watches the phases and tracks tasks. Clones share both.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    tasks: TaskTracker,
}

/// Returns the two ends.
pub fn channel() -> (DrainControl, Drain) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (DrainControl { phase: sender }, Drain { phase: receiver, tasks: TaskTracker::new() })
}

impl DrainControl {
    /// Moves on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = rank(phase) > rank(*current);
            if forward {
                *current = phase;
            }
            forward
        });
    }
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Running => 0,
        Phase::Leaving => 1,
        Phase::Closed => 2,
        Phase::Draining { .. } => 3,
        Phase::Cut => 4,
    }
}

impl Drain {
    /// Returns the phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns whether nothing new is to be accepted.
    pub fn is_closed(&self) -> bool {
        rank(self.phase()) >= rank(Phase::Closed)
    }

    /// Returns whether work in flight is being finished (or already cut).
    pub fn is_draining(&self) -> bool {
        rank(self.phase()) > rank(Phase::Closed)
    }

    /// Waits until nothing new is to be accepted. Cancel safe.
    pub async fn closed(&mut self) {
        loop {
            if rank(*self.phase.borrow_and_update()) >= rank(Phase::Closed) {
                return;
            }
            if self.phase.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until draining begins; returns its deadline (now, when already cut). Cancel safe.
    pub async fn draining(&mut self) -> Instant {
        loop {
            match *self.phase.borrow_and_update() {
                Phase::Draining { deadline } => return deadline,
                Phase::Cut => return Instant::now(),
                Phase::Running | Phase::Leaving | Phase::Closed => {}
            }
            if self.phase.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until everything must end now. Cancel safe.
    pub async fn cut(&mut self) {
        loop {
            if *self.phase.borrow_and_update() == Phase::Cut {
                return;
            }
            if self.phase.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Runs `future` on the current runtime as a task that leaving waits for.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(future)
    }

    /// Counts work that is not a task of its own (a connection handled inside pingora) until the token is dropped.
    pub fn token(&self) -> tokio_util::task::task_tracker::TaskTrackerToken {
        self.tasks.token()
    }

    /// Returns how much tracked work is left.
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until no tracked work is left. Cancel safe.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_only_move_forward() {
        let (control, drain) = channel();
        let deadline = Instant::now() + Duration::from_secs(30);
        control.advance(Phase::Draining { deadline });
        control.advance(Phase::Leaving);
        assert_eq!(drain.phase(), Phase::Draining { deadline });
        control.advance(Phase::Draining { deadline: deadline + Duration::from_secs(30) });
        assert_eq!(drain.phase(), Phase::Draining { deadline }, "the deadline is not put off");
    }

    #[tokio::test(start_paused = true)]
    async fn leaving_does_not_begin_to_drain() {
        let (control, drain) = channel();
        control.advance(Phase::Leaving);
        assert!(!drain.is_draining());
        let mut watch = drain.clone();
        let waited = tokio::time::timeout(Duration::from_secs(60), watch.draining()).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_door_drains_nobody() {
        let (control, mut drain) = channel();
        control.advance(Phase::Leaving);
        assert!(!drain.is_closed());
        control.advance(Phase::Closed);
        drain.closed().await;
        assert!(drain.is_closed() && !drain.is_draining());
        let waited = tokio::time::timeout(Duration::from_secs(60), drain.draining()).await;
        assert!(waited.is_err());
        control.advance(Phase::Draining { deadline: Instant::now() });
        assert!(drain.is_closed() && drain.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ends_with_the_last_work_and_not_before() {
        let (_control, drain) = channel();
        let token = drain.token();
        let begin = Instant::now();
        drain.spawn(tokio::time::sleep(Duration::from_secs(5)));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(7)).await;
            drop(token);
        });
        drain.idle().await;
        assert_eq!(begin.elapsed(), Duration::from_secs(7));
        assert_eq!(drain.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_draining_too() {
        let (control, mut drain) = channel();
        control.advance(Phase::Cut);
        assert_eq!(drain.draining().await, Instant::now());
        drain.cut().await;
        assert!(drain.is_draining());
    }
}
