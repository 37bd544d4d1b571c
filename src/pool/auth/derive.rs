//! Keys from passwords, computed once and never on a thread that relays queries.
//!
//! PBKDF2 with 4,096 rounds costs milliseconds. A thousand clients that reconnect at once must not cost a thousand of
//! them, so the result is kept per (password, salt, rounds): the first login computes, all others wait for that one. Few
//! computations run at a time, on the blocking threads. The map knows a password only as an HMAC under a key of this
//! process.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::{OnceCell, Semaphore};

use super::scram::{Key, Keys, SALT_LEN, Verifier, hmac};
use crate::config::secret::Secret;

/// Computations at a time.
const PARALLEL: usize = 2;
/// Results kept; one per user towards clients and one per server login. About 250 bytes each.
const KEPT_MAX: usize = 10_000;

/// The computation did not end: its thread died, or the process is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

/// Computes and keeps keys. One per process; it outlives reloads of the configuration.
pub struct Deriver {
    /// Names entries of the map and makes the salts; random, and never leaves the process.
    process_key: Key,
    kept: Mutex<HashMap<Key, Arc<OnceCell<Keys>>, ahash::RandomState>>,
    running: Arc<Semaphore>,
    computed: AtomicU64,
}

impl Deriver {
    /// Makes an empty one. `process_key` must be random.
    pub fn new(process_key: Key) -> Self {
        Self {
            process_key,
            kept: Mutex::default(),
            running: Arc::new(Semaphore::new(PARALLEL)),
            computed: AtomicU64::new(0),
        }
    }

    /// Returns the keys, computing them if nobody has yet.
    pub async fn keys(&self, password: &Secret, salt: &[u8], iterations: u32) -> Result<Keys, Interrupted> {
        let cell = self.cell(self.entry(password, salt, iterations));
        cell.get_or_try_init(|| self.compute(password.clone(), salt.into(), iterations)).await.cloned()
    }

    /// Returns whether `password` is the one of `verifier`. The keys of a wrong one are not kept: anybody can make those.
    pub async fn verify(&self, password: &Secret, verifier: &Verifier) -> Result<bool, Interrupted> {
        let entry = self.entry(password, &verifier.salt, verifier.iterations);
        let kept = self.kept.lock().get(&entry).and_then(|cell| cell.get().cloned());
        let keys = match kept {
            Some(keys) => keys,
            None => self.compute(password.clone(), verifier.salt.clone(), verifier.iterations).await?,
        };
        let right = keys.stored.ct_eq(&verifier.stored).into();
        if right {
            let _ = self.cell(entry).set(keys);
        }
        Ok(right)
    }

    /// Returns a salt for `user` that stays the same as long as the process lives, whether or not there is such a user:
    /// known and unknown look alike, and the keys of a known one can be kept.
    pub fn salt(&self, user: &str) -> [u8; SALT_LEN] {
        let salt = hmac(&self.process_key, &[b"salt\0", user.as_bytes()]);
        std::array::from_fn(|i| salt[i])
    }

    /// Returns keys that no password gives, for the exchange with an unknown user.
    pub fn mock(&self, user: &str) -> (Key, Key) {
        let key = |label: &[u8]| hmac(&self.process_key, &[label, user.as_bytes()]);
        (key(b"mock stored\0"), key(b"mock server\0"))
    }

    /// Returns a verifier that no password fits.
    pub fn mock_verifier(&self, user: &str, iterations: u32) -> Verifier {
        let (stored, server) = self.mock(user);
        Verifier { salt: self.salt(user).into(), iterations, stored, server }
    }

    /// Returns how many computations there were.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    fn entry(&self, password: &Secret, salt: &[u8], iterations: u32) -> Key {
        let (password, salt_len) = (password.expose().as_bytes(), salt.len() as u64);
        hmac(&self.process_key, &[b"entry\0", &iterations.to_be_bytes(), &salt_len.to_be_bytes(), salt, password])
    }

    fn cell(&self, entry: Key) -> Arc<OnceCell<Keys>> {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX && !kept.contains_key(&entry) {
            // Any will do: entries are of configured users only, so this happens after thousands of password changes.
            let any = kept.keys().next().copied();
            any.and_then(|any| kept.remove(&any));
        }
        Arc::clone(kept.entry(entry).or_default())
    }

    async fn compute(&self, password: Secret, salt: Box<[u8]>, iterations: u32) -> Result<Keys, Interrupted> {
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Interrupted)?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        let work = move || {
            let keys = Keys::derive(password.expose(), &salt, iterations);
            drop(permit);
            keys
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_logins_of_one_user_cost_one_computation() {
        let deriver = Arc::new(Deriver::new([7; 32]));
        let logins: Vec<_> = (0..1000)
            .map(|_| {
                let deriver = Arc::clone(&deriver);
                tokio::spawn(async move { deriver.keys(&Secret::new("pencil"), b"salt", 4096).await.unwrap() })
            })
            .collect();
        let expected = Keys::derive("pencil", b"salt", 4096);
        for login in logins {
            assert!(login.await.unwrap() == expected);
        }
        assert_eq!(deriver.computed(), 1);
    }

    #[tokio::test]
    async fn another_password_salt_or_count_is_another_entry() {
        let deriver = Deriver::new([7; 32]);
        for (password, salt, iterations) in [("a", "s", 1), ("b", "s", 1), ("a", "t", 1), ("a", "s", 2), ("as", "", 1)]
        {
            let keys = deriver.keys(&Secret::new(password), salt.as_bytes(), iterations).await.unwrap();
            assert!(keys == Keys::derive(password, salt.as_bytes(), iterations));
        }
        assert_eq!(deriver.computed(), 5);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let deriver = Deriver::new([7; 32]);
        for i in 0..KEPT_MAX as u32 + 10 {
            deriver.cell(deriver.entry(&Secret::new("a"), b"s", i));
        }
        assert_eq!(deriver.kept.lock().len(), KEPT_MAX);
    }

    #[tokio::test]
    async fn few_computations_run_at_a_time_and_the_next_waits() {
        let deriver = Deriver::new([7; 32]);
        let verifier = deriver.mock_verifier("nobody", 1);
        let guess = Secret::new("guess");
        {
            let _others = deriver.running.try_acquire_many(PARALLEL as u32).unwrap();
            let waiting = std::pin::pin!(deriver.verify(&guess, &verifier));
            assert!(futures_util::poll!(waiting).is_pending());
            assert_eq!(deriver.computed(), 0, "nothing has begun");
        }
        let slow = Verifier { iterations: 1_000_000, ..verifier };
        let under_way = std::pin::pin!(deriver.verify(&guess, &slow));
        assert!(futures_util::poll!(under_way).is_pending());
        assert_eq!(deriver.running.available_permits(), PARALLEL - 1, "it counts as one");
    }

    /// One thread, and it is ours: what it computed itself would be there at once.
    #[tokio::test]
    async fn nothing_is_computed_on_the_thread_that_asks() {
        let deriver = Deriver::new([7; 32]);
        let password = Secret::new("secret");
        let verifier = Verifier { salt: (*b"salt").into(), iterations: 1, stored: [0; 32], server: [0; 32] };
        let keys = std::pin::pin!(deriver.keys(&password, b"salt", 1));
        assert!(futures_util::poll!(keys).is_pending());
        let verified = std::pin::pin!(deriver.verify(&password, &verifier));
        assert!(futures_util::poll!(verified).is_pending());
    }
}
