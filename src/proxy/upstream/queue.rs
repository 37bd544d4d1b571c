//! Requests that wait for a server with room: `max_conns` and `queue`.
//!
//! A synchronous Python worker does one request at a time. Those beyond that are better here, where they are counted, bounded
//! in number and time, ordered, and free to take whichever server is done first, than in a worker's backlog, where nobody
//! sees them and none can move (HAProxy's `maxconn` and `queue`).
//!
//! All upstreams that share servers share the line. The first in the line has the next free place: whoever comes while
//! somebody waits waits too (but for somebody who waits for another server than the one that has failed it). A place that becomes free calls one waiter, who stays in the line until it has taken a server,
//! so that nothing is lost when it leaves instead. Order is by class ([`Class`]), then by arrival. [`Line`] is the order and
//! pure; [`Queue`] is the line with a lock and sleepers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::lb::QueuePriority;

/// Who is served before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It was at a server already, which failed it.
    Again,
    By(QueuePriority),
}

type Ticket = (Class, u64);

/// Who waits, in order.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<Ticket, Waiter>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    /// A place has become free for it, and it has not looked yet.
    called: bool,
    sleeper: Arc<Notify>,
}

impl Class {
    /// Returns whether any server with room will do: one that has failed a server's request waits for another server, and
    /// keeps nobody from those it does not want.
    fn is_easily_pleased(self) -> bool {
        self != Self::Again
    }
}

impl Line {
    fn join(&mut self, class: Class, sleeper: Arc<Notify>) -> Ticket {
        let ticket = (class, self.next);
        self.next += 1;
        self.waiting.insert(ticket, Waiter { called: false, sleeper });
        ticket
    }

    /// Returns whether a free place, if there is one, is its own: nobody before it would take any.
    fn may_look(&self, ticket: Ticket) -> bool {
        !self.waiting.range(..ticket).any(|((class, _), _)| class.is_easily_pleased())
    }

    /// Calls the first that has not been called.
    fn call(&mut self) -> Option<Arc<Notify>> {
        call_one(self.waiting.values_mut())
    }

    /// Takes note that one that was called looks now: a place that becomes free from here on is another call.
    fn looks(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            waiter.called = false;
        }
    }

    /// Takes note that one that was called found no place; calls the next behind it: it may be less particular.
    fn missed(&mut self, ticket: Ticket) -> Option<Arc<Notify>> {
        let behind = (std::ops::Bound::Excluded(ticket), std::ops::Bound::Unbounded);
        call_one(self.waiting.range_mut(behind).map(|(_, waiter)| waiter))
    }

    /// Lets one out; if it was called and has not looked, another is called for the place.
    fn leave(&mut self, ticket: Ticket) -> Option<Arc<Notify>> {
        let waiter = self.waiting.remove(&ticket)?;
        if waiter.called { self.call() } else { None }
    }
}

fn call_one<'a>(mut waiting: impl Iterator<Item = &'a mut Waiter>) -> Option<Arc<Notify>> {
    let waiter = waiting.find(|waiter| !waiter.called)?;
    waiter.called = true;
    Some(waiter.sleeper.clone())
}

/// The line of the servers of one upstream, and of those that share them. It outlives reloads.
#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<Line>,
    /// Copy of the line's length: who finds it 0 needs no lock.
    length: AtomicUsize,
    /// Those of them who wait for just any server.
    easily_pleased: AtomicUsize,
    joined: AtomicU64,
}

impl Queue {
    /// Returns how many wait.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether who comes now must wait behind others.
    pub fn blocks(&self) -> bool {
        self.easily_pleased.load(Ordering::SeqCst) != 0
    }

    /// Returns how many have waited since the upstream exists.
    pub fn joined(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }

    /// Takes a place in the line, unless `limit` are in it.
    pub fn join(self: &Arc<Self>, class: Class, limit: usize) -> Option<Place> {
        let sleeper = Arc::new(Notify::new());
        let mut line = self.line.lock();
        if line.waiting.len() >= limit {
            return None;
        }
        let ticket = line.join(class, sleeper.clone());
        self.joined.fetch_add(1, Ordering::Relaxed);
        // Before it looks for a server again: who frees one from now on sees it.
        self.length.fetch_add(1, Ordering::SeqCst);
        self.easily_pleased.fetch_add(class.is_easily_pleased().into(), Ordering::SeqCst);
        drop(line);
        Some(Place { queue: self.clone(), ticket, sleeper })
    }

    /// Takes note that a server has room for one more.
    pub fn freed(&self) {
        if !self.is_empty() {
            wake(self.line.lock().call());
        }
    }

    /// Lets everybody look: servers have come, gone or changed.
    pub fn changed(&self) {
        if self.is_empty() {
            return;
        }
        let mut line = self.line.lock();
        while let Some(sleeper) = line.call() {
            sleeper.notify_one();
        }
    }
}

fn wake(sleeper: Option<Arc<Notify>>) {
    if let Some(sleeper) = sleeper {
        sleeper.notify_one();
    }
}

/// A place in the line; dropping it leaves.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    ticket: Ticket,
    sleeper: Arc<Notify>,
}

impl Place {
    /// Returns whether a free place, if there is one, is its own before it is called.
    pub fn may_look(&self) -> bool {
        self.queue.line.lock().may_look(self.ticket)
    }

    /// Waits to be called. Whoever was must look for a server before it waits again. Cancel safe.
    pub async fn called(&self) {
        self.sleeper.notified().await;
        self.queue.line.lock().looks(self.ticket);
    }

    /// It was called and found no room.
    pub fn missed(&self) {
        wake(self.queue.line.lock().missed(self.ticket));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock();
        let next = line.leave(self.ticket);
        self.queue.length.fetch_sub(1, Ordering::SeqCst);
        self.queue.easily_pleased.fetch_sub(self.ticket.0.is_easily_pleased().into(), Ordering::SeqCst);
        drop(line);
        wake(next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NORMAL: Class = Class::By(QueuePriority::Normal);

    fn is_called(place: &Place) -> bool {
        place.queue.line.lock().waiting[&place.ticket].called
    }

    fn look(place: &Place) {
        place.queue.line.lock().looks(place.ticket);
    }

    #[test]
    fn the_first_is_called_first_and_a_higher_class_before_it() {
        let queue = Arc::new(Queue::default());
        let classes = [NORMAL, NORMAL, Class::By(QueuePriority::Low), Class::By(QueuePriority::High), Class::Again];
        let places = classes.map(|class| queue.join(class, 10).unwrap());
        let mut order = Vec::new();
        for _ in 0..5 {
            queue.freed();
            let now = (0..5).filter(|&index| is_called(&places[index]) && !order.contains(&index)).collect::<Vec<_>>();
            order.extend(now);
        }
        assert_eq!(order, [4, 3, 0, 1, 2]);
    }

    #[test]
    fn the_line_is_bounded() {
        let queue = Arc::new(Queue::default());
        assert!(queue.join(NORMAL, 0).is_none());
        let places = [queue.join(NORMAL, 2), queue.join(NORMAL, 2)];
        assert!(places.iter().all(Option::is_some) && queue.join(NORMAL, 2).is_none());
        drop(places);
        assert!(queue.is_empty() && queue.join(NORMAL, 2).is_some());
        assert_eq!(queue.joined(), 3);
    }

    #[test]
    fn a_place_that_who_was_called_does_not_take_goes_to_the_next() {
        let queue = Arc::new(Queue::default());
        let [first, second, third] = [(); 3].map(|()| queue.join(NORMAL, 9).unwrap());
        queue.freed();
        drop(first);
        assert!(is_called(&second) && !is_called(&third), "it has left");
        look(&second);
        second.missed();
        assert!(!is_called(&second) && is_called(&third), "it cannot use it");
        look(&third);
        drop(third);
        assert!(!is_called(&second), "it has been served");
        queue.freed();
        assert!(is_called(&second));
    }

    #[test]
    fn a_place_that_becomes_free_while_one_looks_is_not_lost() {
        let queue = Arc::new(Queue::default());
        let [first, second] = [(); 2].map(|()| queue.join(NORMAL, 9).unwrap());
        queue.freed();
        look(&first);
        queue.freed();
        first.missed();
        assert!(is_called(&first), "it looked too early, and looks again");
        look(&first);
        queue.freed();
        drop(first);
        assert!(is_called(&second), "it has had the one and needs no other");
    }

    #[test]
    fn who_wants_another_server_than_the_free_one_keeps_nobody_from_it() {
        let queue = Arc::new(Queue::default());
        let choosy = queue.join(Class::Again, 9).unwrap();
        assert!(!queue.blocks() && queue.len() == 1);
        let easy = queue.join(NORMAL, 9).unwrap();
        let later = queue.join(NORMAL, 9).unwrap();
        assert!(queue.blocks() && choosy.may_look() && easy.may_look() && !later.may_look());
        drop((easy, later));
        assert!(!queue.blocks());
    }

    proptest! {
        /// Whatever happens, as long as there is a free place and somebody who has not been turned away from it, somebody is called.
        #[test]
        fn no_free_place_is_forgotten(steps in prop::collection::vec((0_u8..5, any::<u8>()), 1..80)) {
            let queue = Arc::new(Queue::default());
            let (mut places, mut free): (Vec<Place>, usize) = (Vec::new(), 0);
            for (step, which) in steps {
                let which = |places: &[Place]| (!places.is_empty()).then(|| usize::from(which) % places.len());
                match step {
                    0 => places.extend(queue.join(NORMAL, 100).filter(|_| free == 0)),
                    1 => {
                        queue.freed();
                        // Who comes when nobody waits takes it at once.
                        free += usize::from(!queue.is_empty());
                    }
                    2 => drop(which(&places).map(|index| places.remove(index))),
                    _ => {
                        let called = places.iter().position(is_called);
                        if let Some(index) = called {
                            prop_assert!(free > 0);
                            free -= 1;
                            look(&places[index]);
                            drop(places.remove(index));
                        }
                    }
                }
                if places.is_empty() {
                    free = 0;
                }
                let called = places.iter().filter(|place| is_called(place)).count();
                prop_assert_eq!(called, free.min(places.len()));
                free = called;
            }
        }
    }
}
