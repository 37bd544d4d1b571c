use std::{num::NonZeroU32, sync::Arc};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

const SCHEDULE: Schedule = Schedule {
    interval: Duration::from_secs(2),
    down_interval: Duration::from_millis(500),
    timeout: Duration::from_secs(1),
};

/// Plays its answers one after the other, then repeats the last. `None` = never answers.
struct Scripted {
    answers: Vec<Option<Result<u32, &'static str>>>,
    next: usize,
}

impl Probe for Scripted {
    type Seen = u32;
    type Error = &'static str;

    async fn look(&mut self) -> Result<u32, &'static str> {
        let answer = self.answers[self.next.min(self.answers.len() - 1)];
        self.next += 1;
        match answer {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

struct Seen {
    at: Duration,
    look: Look<u32, &'static str>,
}

/// Runs the loop for a while of paused time; returns every look with its time.
async fn play(answers: Vec<Option<Result<u32, &'static str>>>, random: f64, rise: u32, fall: u32) -> Vec<Seen> {
    let begin = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let threshold = Threshold::new(NonZeroU32::new(rise).unwrap(), NonZeroU32::new(fall).unwrap());
    let looks = run(
        Scripted { answers, next: 0 },
        SCHEDULE,
        threshold,
        move || random,
        move |look| {
            log.lock().push(Seen { at: begin.elapsed(), look });
        },
    );
    let _ = time::timeout(Duration::from_secs(10), looks).await;
    std::mem::take(&mut *seen.lock())
}

fn milliseconds(seen: &[Seen]) -> Vec<u128> {
    seen.iter().map(|seen| seen.at.as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_look_is_at_once_and_decides() {
    let seen = play(vec![Some(Ok(7))], 0.5, 3, 3).await;
    assert_eq!(seen[0].at, Duration::ZERO);
    assert_eq!(seen[0].look.changed, Some(Health::Up));
    assert_eq!(seen[0].look.result, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_looked_at_more_often() {
    let seen = play(vec![Some(Err("refused"))], 0.5, 2, 2).await;
    assert_eq!(milliseconds(&seen)[..4], [0, 500, 1000, 1500]);
    let seen = play(vec![Some(Ok(1))], 0.5, 2, 2).await;
    assert_eq!(milliseconds(&seen)[..4], [0, 2000, 4000, 6000]);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_too_long_has_failed() {
    let seen = play(vec![None], 0.5, 1, 1).await;
    assert_eq!(seen[0].look.result, Err(Failure::Timeout(SCHEDULE.timeout)));
    assert_eq!(seen[0].look.took, SCHEDULE.timeout);
    assert_eq!(seen[0].look.changed, Some(Health::Down));
    // The pause (500 ms from start to start) was over before the look was: the next one begins without delay.
    assert_eq!(milliseconds(&seen)[..3], [1000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn each_look_is_told_but_a_change_only_once() {
    let answers = vec![Some(Ok(1)), Some(Err("500")), Some(Err("500")), Some(Err("500")), Some(Ok(1)), Some(Ok(1))];
    let seen = play(answers, 0.5, 2, 3).await;
    let changes: Vec<_> = seen.iter().take(7).map(|seen| seen.look.changed).collect();
    assert_eq!(changes, [Some(Health::Up), None, None, Some(Health::Down), None, Some(Health::Up), None]);
    assert_eq!(seen[2].look.result, Err(Failure::Probe("500")));
    assert_eq!(seen[2].look.health, Health::Up, "two of three failures change nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_already_known_survives_a_new_schedule() {
    let (rise, fall) = (NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let probe = Scripted { answers: vec![Some(Err("500"))], next: 0 };
    let threshold = Threshold::resume(rise, fall, Health::Up);
    let looks = run(probe, SCHEDULE, threshold, || 0.5, move |look| log.lock().push(look.health));
    let _ = time::timeout(Duration::from_millis(4_200), looks).await;
    assert_eq!(*seen.lock(), [Health::Up, Health::Up, Health::Down]);
}

proptest! {
    #[test]
    fn jitter_stays_within_a_tenth(pause in 1u64..10_000_000, random in 0.0f64..1.0) {
        let pause = Duration::from_micros(pause);
        let jittered = jittered(pause, random).as_secs_f64() / pause.as_secs_f64();
        prop_assert!((0.899..=1.101).contains(&jittered), "{jittered}");
    }
}

#[test]
fn jitter_uses_its_whole_range() {
    let pause = Duration::from_secs(10);
    assert_eq!(jittered(pause, 0.0), Duration::from_secs(9));
    assert_eq!(jittered(pause, 0.5), Duration::from_secs(10));
    assert_eq!(jittered(pause, 1.0), Duration::from_secs(11));
}
