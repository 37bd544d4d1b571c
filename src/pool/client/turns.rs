//! Logins take turns, so that a thousand at once do not stand before the transactions that run.
//!
//! A thread of the pool serves what is ready in the order in which it became ready. After a deploy or a failover every
//! worker of Django comes back in the same moment: a thousand logins are ready at once, each step of one costs as much as a
//! whole transaction, and whoever is in a transaction would wait behind all of them. So of what logins want to do, only
//! [`STEPS`] are done between two looks at the sockets; the rest waits in the order it came, and costs nothing meanwhile.
//! Transactions meet at most so many steps on each of their ways through the scheduler. When there is nothing else to do
//! the next look follows at once, so a storm is served no slower: there is only one more look for so many steps.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::Mutex;
use tokio::task::yield_now;

/// Steps of logins between two looks at the sockets, and connections that each listener accepts. Fewer would only mean more
/// looks: one costs a tenth of such a step.
pub const STEPS: usize = 4;

/// Whose turn it is, of the connections of a pool that are not clients yet.
#[derive(Debug, Default)]
pub struct Turns {
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// Steps done since the last look.
    done: usize,
    /// Of those who were called, so many have not come yet.
    called: usize,
    waiting: VecDeque<Waker>,
    /// Somebody begins the next turn.
    has_caller: bool,
}

impl Turns {
    /// Runs `work` to its end, each of its steps when it is its turn.
    pub async fn take<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut waits = false;
        poll_fn(|context| {
            if !self.may(&mut waits, context.waker()) {
                return Poll::Pending;
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Says whether a step may be done now. `waits`: it may not, and is called when it may.
    fn may(self: &Arc<Self>, waits: &mut bool, waker: &Waker) -> bool {
        let mut line = self.line.lock();
        let may = line.may(*waits);
        if !may {
            line.waiting.push_back(waker.clone());
        }
        *waits = !may;
        if !std::mem::replace(&mut line.has_caller, true) {
            drop(line);
            tokio::spawn(self.clone().call());
        }
        may
    }

    /// Begins turn after turn until nobody wants one.
    async fn call(self: Arc<Self>) {
        loop {
            // Comes back behind the next look at the sockets, and behind what that has made ready.
            yield_now().await;
            let mut line = self.line.lock();
            if line.done == 0 && line.waiting.is_empty() {
                line.has_caller = false;
                return;
            }
            line.begin();
        }
    }
}

impl Line {
    fn may(&mut self, was_called: bool) -> bool {
        if was_called && self.called > 0 {
            self.called -= 1;
            return true;
        }
        // Who was called in an earlier turn and comes only now waits again: its place went to somebody else.
        let free = self.done < STEPS && self.waiting.is_empty();
        self.done += usize::from(free);
        free
    }

    fn begin(&mut self) {
        let calls = self.waiting.len().min(STEPS);
        (self.done, self.called) = (calls, calls);
        self.waiting.drain(..calls).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc, time::Duration};

    use tokio::task::LocalSet;

    use super::*;

    /// Comes back `steps` times, as one whose peer is always quicker.
    async fn steps(steps: usize) {
        for _ in 0..steps {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_runs_meets_few_logins_between_two_of_its_own_steps() {
        let (turns, steps_done) = (Arc::new(Turns::default()), Rc::new(Cell::new(0)));
        let local = LocalSet::new();
        for _ in 0..1000 {
            let (turns, steps_done) = (turns.clone(), steps_done.clone());
            local.spawn_local(async move {
                let login = async {
                    for _ in 0..5 {
                        steps_done.set(steps_done.get() + 1);
                        yield_now().await;
                    }
                };
                turns.take(login).await;
            });
        }
        local
            .run_until(async {
                let mut most = 0;
                while steps_done.get() < 5000 {
                    let before = steps_done.get();
                    yield_now().await;
                    most = most.max(steps_done.get() - before);
                }
                assert!(most <= 2 * STEPS, "{most} steps");
            })
            .await;
    }

    #[tokio::test]
    async fn all_come_to_their_end_and_whoever_gives_up_while_it_waits_takes_nobodys_turn() {
        let turns = Arc::new(Turns::default());
        let mut all = tokio::task::JoinSet::new();
        for nth in 0..300 {
            let turns = turns.clone();
            all.spawn(async move {
                let patience = if nth % 3 == 0 { Duration::ZERO } else { Duration::from_secs(60) };
                tokio::time::timeout(patience, turns.take(steps(4))).await.is_ok()
            });
        }
        let done = all.join_all().await.into_iter().filter(|done| *done).count();
        assert!(done >= 200, "{done}");
        let line = turns.line.lock();
        assert!(line.waiting.is_empty(), "nobody is left");
    }

    #[tokio::test]
    async fn they_begin_in_the_order_in_which_they_came() {
        let (turns, order) = (Arc::new(Turns::default()), Arc::new(Mutex::new(Vec::new())));
        let mut all = tokio::task::JoinSet::new();
        for nth in 0..50 {
            let (turns, order) = (turns.clone(), order.clone());
            all.spawn(async move { turns.take(async { order.lock().push(nth) }).await });
        }
        all.join_all().await;
        assert_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_turn_that_nobody_takes_is_nobodys() {
        let mut line = Line::default();
        assert!((0..STEPS).all(|_| line.may(false)) && !line.may(false));
        line.waiting.extend((0..STEPS + 1).map(|_| Waker::noop().clone()));
        line.begin();
        assert!(!line.may(false), "somebody waits");
        line.begin();
        assert_eq!(line.called, 1, "what was not taken is not added");
        assert!((0..STEPS).all(|_| line.may(true)) && !line.may(true));
    }
}
