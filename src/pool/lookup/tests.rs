use std::sync::atomic::AtomicUsize;

use super::*;
use crate::config::secret::Secret;

fn key(user: &str) -> Key {
    Key { database: "d".into(), auth_user: "a".into(), query: "q".into(), user: user.into() }
}

fn known(password: &str) -> Option<Arc<Known>> {
    let secret = UserSecret::Plain(Secret::new(password));
    Some(Arc::new(Known::new(User::new("u", secret))))
}

/// Counts the questions that were asked.
#[derive(Default)]
struct Server(AtomicUsize);

impl Server {
    fn ask(self: &Arc<Self>, answer: Answer, takes: Duration) -> impl FnOnce() -> BoxFuture<'static, Answer> + use<> {
        let me = self.clone();
        move || {
            async move {
                me.0.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(takes).await;
                answer
            }
            .boxed()
        }
    }

    fn asked(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn lookup(ttl: u64, size: usize) -> config::Lookup {
    config::Lookup { cache_ttl: Duration::from_secs(ttl), cache_size: size, ..config::Lookup::default() }
}

fn password(answer: Answer) -> Option<UserSecret> {
    answer.unwrap().map(|known| known.user.secret.clone())
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_storm_of_logins_of_one_user_is_one_question() {
    let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
    let all =
        (0..1000).map(|_| lookups.answer(key("u"), &lookup(0, 9), Instant::now(), server.ask(Ok(known("pw")), SECOND)));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(password(answer), Some(UserSecret::Plain(Secret::new("pw"))));
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_question_is_that_of_all_who_waited_and_is_not_kept() {
    let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
    let all =
        (0..100).map(|_| lookups.answer(key("u"), &lookup(9, 9), Instant::now(), server.ask(Err(Failed), SECOND)));
    assert!(futures_util::future::join_all(all).await.iter().all(|answer| answer.as_ref().err() == Some(&Failed)));
    let again = lookups.answer(key("u"), &lookup(9, 9), Instant::now(), server.ask(Ok(known("pw")), SECOND));
    assert!(password(again.await).is_some());
    assert_eq!(server.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_good_for_its_time_and_so_is_that_there_is_nobody() {
    for answer in [known("pw"), None] {
        let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
        let ask = || lookups.answer(key("u"), &lookup(5, 9), Instant::now(), server.ask(Ok(answer.clone()), SECOND));
        let _ = ask().await;
        tokio::time::advance(4 * SECOND).await;
        let _ = ask().await;
        assert_eq!(server.asked(), 1);
        tokio::time::advance(SECOND).await;
        let _ = ask().await;
        assert_eq!(server.asked(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_does_not_take_the_answer_of_the_others_along() {
    let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
    let ask = || lookups.answer(key("u"), &lookup(0, 9), Instant::now(), server.ask(Ok(known("pw")), SECOND));
    let (first, second) = (ask(), ask());
    assert!(tokio::time::timeout(SECOND / 2, first).await.is_err());
    assert!(password(second.await).is_some());
    assert_eq!(server.asked(), 1);
    let gone = ask();
    assert!(tokio::time::timeout(SECOND / 2, gone).await.is_err());
    assert!(password(ask().await).is_some(), "a question that nobody waits for is asked anew");
    assert_eq!(server.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_makes_an_old_answer_be_asked_again_but_not_each_time() {
    let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
    let ask = || lookups.answer(key("u"), &lookup(60, 9), Instant::now(), server.ask(Ok(known("pw")), SECOND));
    let _ = ask().await;
    lookups.doubt(&key("u"), Instant::now());
    let _ = ask().await;
    assert_eq!(server.asked(), 1);
    tokio::time::advance(DOUBT_AFTER).await;
    lookups.doubt(&key("u"), Instant::now());
    let _ = ask().await;
    assert_eq!(server.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_forgotten_at_a_reload() {
    let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
    for user in 0..50 {
        let user = user.to_string();
        let _ = lookups.answer(key(&user), &lookup(60, 5), Instant::now(), server.ask(Ok(None), SECOND)).await;
        assert!(lookups.entries.lock().len() <= 5);
    }
    lookups.clear();
    assert!(lookups.entries.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_under_way_at_a_reload_is_not_kept() {
    let (lookups, server) = (Arc::new(Lookups::default()), Arc::new(Server::default()));
    let ask = |answer| lookups.answer(key("u"), &lookup(9, 9), Instant::now(), server.ask(answer, SECOND));
    let before = tokio::spawn(ask(Ok(known("old"))));
    tokio::time::sleep(SECOND / 2).await;
    lookups.clear();
    let after = ask(Ok(known("new")));
    assert_eq!(
        password(before.await.unwrap()),
        Some(UserSecret::Plain(Secret::new("old"))),
        "who asked before is answered"
    );
    assert_eq!(password(after.await), Some(UserSecret::Plain(Secret::new("new"))));
    let kept = ask(Ok(known("newer"))).await;
    assert_eq!(password(kept), Some(UserSecret::Plain(Secret::new("new"))));
    assert_eq!(server.asked(), 2);
}
