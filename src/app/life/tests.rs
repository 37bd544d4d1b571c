use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use super::*;
use crate::health::control::{DrainError, ReloadSummary};

#[derive(Default)]
struct Counting {
    reloads: AtomicUsize,
    paused: AtomicBool,
}

impl Control for Counting {
    fn reload(&self) -> Result<ReloadSummary, Vec<String>> {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(ReloadSummary::default())
    }

    fn drain(&self, _name: &str) -> Result<usize, DrainError> {
        Err(DrainError::NoFront)
    }

    fn undrain(&self, _name: &str) -> Result<(), DrainError> {
        Err(DrainError::NoFront)
    }

    fn pause(&self, paused: bool) -> bool {
        self.paused.store(paused, Ordering::Relaxed);
        true
    }
}

struct World {
    signals: mpsc::Sender<Signal>,
    shutdowns: mpsc::Sender<WaitFor>,
    front: Drain,
    pool: Drain,
    ready: Ready,
    control: Arc<Counting>,
    life: tokio::task::JoinHandle<()>,
}

fn world(pre_stop_delay: u64, grace_period: u64) -> World {
    let (signals, receiver) = mpsc::channel(4);
    let (shutdowns, asked) = mpsc::channel(4);
    let (front, pool) = (Leaving::new(), Leaving::new());
    let (front_drain, pool_drain) = (front.drain.clone(), pool.drain.clone());
    let (ready, control) = (Ready::default(), Arc::new(Counting::default()));
    let shutdown = Shutdown {
        pre_stop_delay: Duration::from_secs(pre_stop_delay),
        grace_period: Duration::from_secs(grace_period),
    };
    let life = Life {
        signals: receiver,
        shutdowns: asked,
        front,
        pool,
        ready: ready.clone(),
        control: control.clone(),
        shutdown: Arc::new(move || shutdown),
        pool_alone: false,
    };
    let life = tokio::spawn(life.run());
    World { signals, shutdowns, front: front_drain, pool: pool_drain, ready, control, life }
}

#[tokio::test(start_paused = true)]
async fn an_idle_process_leaves_at_once() {
    let world = world(0, 30);
    let begin = Instant::now();
    world.signals.send(Signal::Stop).await.unwrap();
    world.life.await.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(!world.ready.is_ready());
}

#[tokio::test(start_paused = true)]
async fn readiness_goes_first_and_accepting_after_the_delay() {
    let world = world(5, 30);
    let begin = Instant::now();
    world.signals.send(Signal::Stop).await.unwrap();
    time::sleep(Duration::from_secs(1)).await;
    assert!(!world.ready.is_ready());
    assert_eq!(world.front.phase(), Phase::Leaving);
    let _token = world.front.token();
    time::sleep_until(begin + Duration::from_secs(6)).await;
    assert!(world.front.is_draining());
}

#[tokio::test(start_paused = true)]
async fn the_process_leaves_with_its_last_work_not_at_the_deadline() {
    let world = world(0, 30);
    let begin = Instant::now();
    world.front.spawn(time::sleep(Duration::from_secs(3)));
    world.signals.send(Signal::Stop).await.unwrap();
    world.life.await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn the_pool_serves_until_the_front_has_finished() {
    let world = world(0, 30);
    let begin = Instant::now();
    world.front.spawn(time::sleep(Duration::from_secs(3)));
    let session = world.pool.token();
    let mut pool = world.pool.clone();
    let told = tokio::spawn(async move {
        pool.draining().await;
        drop(session);
        Instant::now()
    });
    world.signals.send(Signal::Stop).await.unwrap();
    assert_eq!(told.await.unwrap() - begin, Duration::from_secs(3));
    world.life.await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_end_is_cut_at_the_deadline() {
    let world = world(0, 30);
    let begin = Instant::now();
    let mut watch = world.front.clone();
    let cut_at = tokio::spawn(async move {
        watch.cut().await;
        Instant::now()
    });
    let _token = world.front.token();
    world.signals.send(Signal::Stop).await.unwrap();
    world.life.await.unwrap();
    assert_eq!(cut_at.await.unwrap() - begin, Duration::from_secs(30));
    assert_eq!(begin.elapsed(), Duration::from_millis(30_500));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_cuts_at_once() {
    let world = world(60, 60);
    let begin = Instant::now();
    let _token = world.front.token();
    world.signals.send(Signal::Stop).await.unwrap();
    world.signals.send(Signal::Stop).await.unwrap();
    world.life.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_reload_is_asked_for_and_nothing_else_changes() {
    let world = world(0, 30);
    world.signals.send(Signal::Reload).await.unwrap();
    let begin = std::time::Instant::now();
    while world.control.reloads.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "no reload");
        tokio::task::yield_now().await;
    }
    assert_eq!(world.front.phase(), Phase::Running);
    assert!(world.ready.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_leaves_does_not_reload() {
    let world = world(0, 5);
    let _token = world.front.token();
    world.signals.send(Signal::Stop).await.unwrap();
    world.signals.send(Signal::Reload).await.unwrap();
    world.life.await.unwrap();
    assert_eq!(world.control.reloads.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_waits_for_clients_lasts_as_long_as_they_stay() {
    let world = world(0, 30);
    let begin = Instant::now();
    world.pool.spawn(time::sleep(Duration::from_secs(300)));
    world.shutdowns.send(WaitFor::Clients).await.unwrap();
    time::sleep(Duration::from_secs(100)).await;
    assert!(!world.ready.is_ready());
    assert!(world.pool.is_closed() && !world.pool.is_draining());
    world.life.await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_waits_for_nothing_takes_readiness_off_and_cuts() {
    let world = world(60, 60);
    let begin = Instant::now();
    let _token = world.pool.token();
    world.shutdowns.send(WaitFor::Nothing).await.unwrap();
    world.life.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert!(!world.ready.is_ready());
    assert_eq!(world.pool.phase(), Phase::Cut);
}

#[tokio::test(start_paused = true)]
async fn a_signal_holds_the_databases_and_another_lets_them_go() {
    let world = world(0, 30);
    for (signal, paused) in [(Signal::Pause, true), (Signal::Resume, false)] {
        world.signals.send(signal).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(world.control.paused.load(Ordering::Relaxed), paused);
        assert!(!world.life.is_finished());
    }
}
