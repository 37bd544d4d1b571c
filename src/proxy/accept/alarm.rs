//! A deadline that moves on with every request, for one timer of the runtime.
//!
//! Entering a timer takes a lock that all workers share, and when it is the earliest of all, a system call that ends the
//! driver's sleep: on a quiet server that is every request. So an alarm leaves its timer where it was entered, and looks
//! only when it goes off whether the deadline has moved on: once a minute rather than with every request.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer, once there is one. May wake its task for nothing.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Waits until `deadline`. Cancel safe.
    pub(super) async fn until(&mut self, deadline: Instant) {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            timer.as_mut().await;
            if timer.deadline() == deadline {
                return;
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_may_move_either_way_and_is_kept() {
        let mut alarm = Alarm::default();
        for seconds in [10, 75, 20, 75, 3] {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            // The next request comes before it.
            assert!(timeout(Duration::from_secs(2), alarm.until(deadline)).await.is_err());
        }
        for seconds in [75, 3, 75] {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            alarm.until(deadline).await;
            let late = Instant::now().duration_since(deadline);
            assert!(late <= Duration::from_millis(2), "{seconds} s: {late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_needs_no_waiting() {
        let mut alarm = Alarm::default();
        let deadline = Instant::now() + Duration::from_secs(1);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let began = Instant::now();
        alarm.until(deadline).await;
        alarm.until(deadline).await;
        assert!(began.elapsed() <= Duration::from_millis(2));
    }
}
