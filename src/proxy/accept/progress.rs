//! Whether a request's body is still coming.
//!
//! On an HTTP/1 connection a read has its deadline. On an HTTP/2 one pingora reads without any, and a body of which nothing
//! comes would hold its request, and a server's connection, for ever. So each such request has a [`Progress`] that the
//! gateway tells of every part, and somebody beside it who looks at the clock.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

tokio::task_local! {
    static CURRENT: Arc<Progress>;
}

/// How far the body of one request is.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    /// When something came last, in milliseconds after `begun`.
    last: AtomicU64,
    whole: AtomicBool,
}

impl Progress {
    pub(super) fn new(whole: bool) -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0), whole: AtomicBool::new(whole) }
    }

    /// Learns that a part of the body has come, or that it is whole.
    pub(crate) fn came(&self, whole: bool) {
        let millis = self.begun.elapsed().as_millis();
        self.last.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
        if whole {
            self.whole.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until nothing has come for `patience`; for ever once the body is whole.
    pub(super) async fn stalls(&self, patience: Duration) {
        loop {
            if self.whole.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let end = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + patience;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// Runs `request` with its progress at hand.
pub(super) fn during<F: Future>(progress: Arc<Progress>, request: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(progress, request)
}

/// Returns the progress of the request that this task serves, if it is watched.
pub(crate) fn current() -> Option<Arc<Progress>> {
    CURRENT.try_with(Arc::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_stalls_when_nothing_came_for_so_long_and_never_when_it_is_whole() {
        let progress = Arc::new(Progress::new(false));
        assert!(current().is_none());
        let begun = Instant::now();
        let fed = during(progress.clone(), async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            current().unwrap().came(false);
            std::future::pending::<()>().await;
        });
        tokio::select! {
            () = fed => {}
            () = progress.stalls(Duration::from_secs(10)) => {}
        }
        assert_eq!(begun.elapsed().as_secs(), 18);
        progress.came(true);
        let stalled = tokio::time::timeout(Duration::from_secs(1000), progress.stalls(Duration::from_secs(10))).await;
        assert!(stalled.is_err());
    }
}
