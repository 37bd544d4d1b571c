//! How many connections to open now, and when to look again. Pure: counts and times in, numbers out.

use std::time::Duration;

use tokio::time::Instant;

/// Logins at a time per pool. One at a time is a slow ramp when a login takes 30 ms (PgBouncer #1070), all at once a storm
/// on a server that just came back (#478).
pub(super) const LOGINS_AT_A_TIME: u32 = 4;

/// The sizes of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// `pool_size`; at least 1, `u32::MAX` for no limit.
    pub pool: u32,
    /// `min_pool_size`: kept open while the pool has clients, or its user is forced.
    pub min: u32,
    /// `reserve_pool_size`: how many more there may be once somebody has waited `reserve_after`.
    pub reserve: u32,
    /// `reserve_pool_timeout`; `None`: never.
    pub reserve_after: Option<Duration>,
}

impl Sizes {
    /// Returns the most connections there may ever be.
    pub fn most(&self) -> u32 {
        self.pool.saturating_add(if self.reserve_after.is_some() { self.reserve } else { 0 })
    }
}

/// A pool at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    /// Clients waiting for a server.
    pub waiting: u32,
    /// Since when the first of them waits.
    pub front_since: Option<Instant>,
    /// Connections open: lent, idle, or parked for a cancel request.
    pub open: u32,
    /// Connections being opened.
    pub dialing: u32,
    /// Open connections that are being checked for somebody who waits, and not for long yet.
    pub checking: u32,
    /// When the first of these checks has taken so long that another connection is opened beside it.
    pub check_late: Option<Instant>,
    /// Whether `min_pool_size` is to be kept.
    pub keep_min: bool,
    /// No hand-outs and no new connections.
    pub paused: bool,
    /// Failed logins in a row.
    pub failures: u32,
    /// No login before this moment.
    pub not_before: Option<Instant>,
}

/// What to open now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dials {
    /// For clients that wait: another pool's idle connection may be closed to make room.
    pub wanted: u32,
    /// Only to reach `min_pool_size`: nobody is to suffer for these (a minimum above `max_db_connections` would otherwise
    /// close and open for ever).
    pub spare: u32,
}

/// Decides how many connections to open at `now`.
pub(super) fn dials(tally: &Tally, sizes: &Sizes, now: Instant) -> Dials {
    if tally.paused || tally.not_before.is_some_and(|moment| now < moment) {
        return Dials::default();
    }
    // After a failure one login tries alone; the others follow when it has worked.
    let at_a_time = if tally.failures > 0 { 1 } else { LOGINS_AT_A_TIME };
    let hands = at_a_time.saturating_sub(tally.dialing);
    let coming = tally.open.saturating_add(tally.dialing);

    let uncovered = tally.waiting.saturating_sub(tally.dialing.saturating_add(tally.checking));
    let wanted = uncovered.min(size_now(tally, sizes, now).saturating_sub(coming)).min(hands);
    let min = if tally.keep_min { sizes.min.min(sizes.pool) } else { 0 };
    let spare = min.saturating_sub(coming.saturating_add(wanted)).min(hands - wanted);
    Dials { wanted, spare }
}

/// The pool's size, with the reserve once the first in the queue has waited long enough.
fn size_now(tally: &Tally, sizes: &Sizes, now: Instant) -> u32 {
    let reserve_open = reserve_opens(tally, sizes).is_some_and(|moment| now >= moment);
    if reserve_open { sizes.most() } else { sizes.pool }
}

fn reserve_opens(tally: &Tally, sizes: &Sizes) -> Option<Instant> {
    Some(tally.front_since? + sizes.reserve_after?)
}

/// Returns when time alone changes something: a wait is over, the reserve opens, a login may be tried again.
pub(super) fn next_look(
    tally: &Tally,
    sizes: &Sizes,
    query_wait_timeout: Option<Duration>,
    now: Instant,
) -> Option<Instant> {
    let wait_over = tally.front_since.zip(query_wait_timeout).map(|(since, limit)| since + limit);
    let reserve = reserve_opens(tally, sizes).filter(|moment| sizes.reserve > 0 && *moment > now);
    let login = tally.not_before.filter(|moment| *moment > now);
    [wait_over, reserve, login, tally.check_late].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZES: Sizes = Sizes { pool: 5, min: 0, reserve: 3, reserve_after: Some(Duration::from_secs(5)) };

    fn tally(now: Instant) -> Tally {
        Tally {
            waiting: 0,
            front_since: Some(now),
            open: 0,
            dialing: 0,
            checking: 0,
            check_late: None,
            keep_min: true,
            paused: false,
            failures: 0,
            not_before: None,
        }
    }

    #[tokio::test]
    async fn a_few_logins_at_a_time_and_only_as_many_as_are_waited_for() {
        let now = Instant::now();
        let dials_for =
            |waiting, open, dialing| dials(&Tally { waiting, open, dialing, ..tally(now) }, &SIZES, now).wanted;
        assert_eq!(dials_for(100, 0, 0), 4);
        assert_eq!(dials_for(100, 0, 3), 1);
        assert_eq!(dials_for(100, 4, 0), 1, "the pool's size");
        assert_eq!(dials_for(2, 0, 2), 0, "both are on their way");
        assert_eq!(dials_for(100, 5, 0), 0);
    }

    #[tokio::test]
    async fn no_connection_is_opened_for_those_for_whom_one_is_being_checked() {
        let now = Instant::now();
        let late = now + Duration::from_millis(500);
        let checked = Tally { waiting: 2, open: 1, checking: 1, check_late: Some(late), ..tally(now) };
        assert_eq!(dials(&checked, &SIZES, now).wanted, 1);
        assert_eq!(dials(&Tally { waiting: 1, ..checked }, &SIZES, now).wanted, 0);
        assert_eq!(next_look(&checked, &SIZES, None, now), Some(late));
    }

    #[tokio::test]
    async fn after_a_failure_one_login_tries_alone_and_not_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_millis(100);
        let failed = Tally { waiting: 9, failures: 1, not_before: Some(later), ..tally(now) };
        assert_eq!(dials(&failed, &SIZES, now), Dials::default());
        assert_eq!(next_look(&failed, &SIZES, None, now), Some(later));
        assert_eq!(dials(&failed, &SIZES, later).wanted, 1);
    }

    #[tokio::test]
    async fn the_reserve_opens_after_its_timeout() {
        let now = Instant::now();
        let full = Tally { waiting: 9, open: 5, ..tally(now) };
        assert_eq!(dials(&full, &SIZES, now).wanted, 0);
        let opens = now + Duration::from_secs(5);
        assert_eq!(next_look(&full, &SIZES, Some(Duration::from_secs(30)), now), Some(opens));
        assert_eq!(dials(&full, &SIZES, opens).wanted, 3);
        let never = Sizes { reserve_after: None, ..SIZES };
        assert_eq!(dials(&full, &never, opens).wanted, 0);
    }

    #[tokio::test]
    async fn the_minimum_is_kept_open_but_never_counts_as_wanted() {
        let now = Instant::now();
        let sizes = Sizes { min: 3, ..SIZES };
        assert_eq!(dials(&tally(now), &sizes, now), Dials { wanted: 0, spare: 3 });
        assert_eq!(dials(&Tally { waiting: 1, ..tally(now) }, &sizes, now), Dials { wanted: 1, spare: 2 });
        assert_eq!(dials(&Tally { keep_min: false, ..tally(now) }, &sizes, now), Dials::default());
        assert_eq!(dials(&Tally { paused: true, ..tally(now) }, &sizes, now), Dials::default());
    }

    proptest! {
        #[test]
        fn never_more_than_the_pool_may_have(
            waiting in 0u32..50, open in 0u32..20, dialing in 0u32..5, failures in 0u32..3,
            pool in 1u32..12, min in 0u32..15, reserve in 0u32..5, waited in 0u64..10,
        ) {
            let since = Instant::now();
            let now = since + Duration::from_secs(waited);
            let sizes = Sizes { pool, min, reserve, reserve_after: Some(Duration::from_secs(5)) };
            let tally = Tally { waiting, open, dialing, failures, ..tally(since) };
            let dials = dials(&tally, &sizes, now);
            let opened = dials.wanted + dials.spare;
            prop_assert!(opened == 0 || open + dialing + opened <= sizes.most());
            prop_assert!(opened == 0 || dialing + opened <= LOGINS_AT_A_TIME);
            // Somebody waits, there is room, and nothing is on its way: one is opened.
            prop_assert!(waiting == 0 || open >= pool || dialing > 0 || dials.wanted > 0);
        }
    }
}
