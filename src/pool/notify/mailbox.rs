//! What waits for one client: notifications as they came, up to `notification_queue`, or that some were lost.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::pool::{error::PoolError, registry::ClientEntry};

/// Why a client cannot be told all that it listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// More waited than `notification_queue` allows.
    Queue { limit: usize },
    /// The listening connection is gone.
    Connection,
    /// The operator had the listening connection closed, by this command.
    Command(&'static str),
    /// What came cannot be said in the client's encoding.
    Encoding,
}

impl From<Loss> for PoolError {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Queue { limit } => Self::NotificationQueue { limit },
            Loss::Connection => Self::ListenLost,
            Loss::Command(command) => Self::ListenClosed { command },
            Loss::Encoding => Self::NotificationEncoding,
        }
    }
}

/// One client's notifications, whole messages. Shared with the hub; every method may be called from any thread.
pub struct Mailbox {
    client: Arc<ClientEntry>,
    /// There is something to look at.
    waiting: AtomicBool,
    mail: Mutex<Mail>,
}

#[derive(Default)]
struct Mail {
    /// bound: `notification_queue`
    queue: VecDeque<Arc<[u8]>>,
    bytes: usize,
    lost: Option<Loss>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("client", &self.client.id()).finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(super) fn new(client: Arc<ClientEntry>) -> Self {
        Self { client, waiting: AtomicBool::new(false), mail: Mutex::default() }
    }

    /// Returns the client's number.
    pub(super) fn client(&self) -> u64 {
        self.client.id()
    }

    /// Makes the client look, wherever it is.
    pub(super) fn ring(&self) {
        self.client.ring();
    }

    /// Puts a notification in; with more than `limit` bytes the client is to be ended instead.
    pub(super) fn push(&self, message: &Arc<[u8]>, limit: usize) {
        let mut mail = self.mail.lock();
        if mail.lost.is_some() {
            return;
        }
        if mail.bytes + message.len() > limit {
            drop(mail);
            return self.lose(Loss::Queue { limit });
        }
        mail.bytes += message.len();
        mail.queue.push_back(message.clone());
        let rings = !self.waiting.swap(true, Ordering::AcqRel);
        drop(mail);
        if rings {
            self.ring();
        }
    }

    /// Something is lost to the client. The first loss counts.
    pub(super) fn lose(&self, loss: Loss) {
        let mut mail = self.mail.lock();
        if mail.lost.is_none() {
            mail.lost = Some(loss);
        }
        if matches!(loss, Loss::Queue { .. }) {
            (mail.queue, mail.bytes) = (VecDeque::new(), 0);
        }
        self.waiting.store(true, Ordering::Release);
        drop(mail);
        self.ring();
    }

    /// Returns whether there is something to take, or something was lost. One atomic load.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Returns what was lost, once all that came before it is taken.
    pub fn lost(&self) -> Option<Loss> {
        if !self.is_waiting() {
            return None;
        }
        let mail = self.mail.lock();
        mail.lost.filter(|_| mail.queue.is_empty())
    }

    /// Appends messages until there are `most` bytes or more of them; returns how many. A client that does not speak UTF-8, as
    /// the listening connection does, can only be told what is ASCII.
    pub fn take(&self, out: &mut Vec<u8>, most: usize, speaks_utf8: bool) -> usize {
        let mut mail = self.mail.lock();
        let (from, mut count) = (out.len(), 0);
        while out.len() - from < most
            && let Some(message) = mail.queue.pop_front()
        {
            mail.bytes -= message.len();
            // The first nine bytes are no text.
            if !speaks_utf8 && !message.get(9..).unwrap_or_default().is_ascii() {
                *mail = Mail { lost: Some(Loss::Encoding), ..Mail::default() };
                break;
            }
            out.extend_from_slice(&message);
            count += 1;
        }
        if mail.queue.is_empty() {
            mail.queue.shrink_to(4); // idle clients keep next to nothing
            self.waiting.store(mail.lost.is_some(), Ordering::Release);
        }
        count
    }

    /// Returns the bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.mail.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::pool::{peer::Peer, registry::Registry};

    fn mailbox() -> Mailbox {
        let registry = Registry::new(Instant::now(), std::time::SystemTime::now(), [7; 32]);
        let peer = Peer::Unix { credentials: None, port: 1 };
        let handle = registry.enter_client(peer, 0, Instant::now(), &mut rand::rng());
        Mailbox::new(handle.entry().clone())
    }

    fn message(text: &str) -> Arc<[u8]> {
        [b"A\0\0\0\x20\0\0\0\x07", text.as_bytes()].concat().into()
    }

    #[tokio::test]
    async fn what_came_is_taken_in_order_and_in_portions() {
        let mailbox = mailbox();
        assert!(!mailbox.is_waiting());
        for text in ["a", "b", "c"] {
            mailbox.push(&message(text), 100);
        }
        let mut out = Vec::new();
        assert_eq!(mailbox.take(&mut out, 11, true), 2);
        assert!(mailbox.is_waiting());
        mailbox.lose(Loss::Connection);
        assert_eq!(mailbox.lost(), None, "what came before is the client's");
        assert_eq!(mailbox.take(&mut out, 11, true), 1);
        assert_eq!(out, [message("a"), message("b"), message("c")].concat());
        assert_eq!(mailbox.lost(), Some(Loss::Connection));
        assert!(mailbox.is_waiting());
    }

    #[tokio::test]
    async fn with_too_much_the_client_is_told_and_nothing_is_kept() {
        let mailbox = mailbox();
        mailbox.push(&message("a"), 25);
        mailbox.push(&message("b"), 25);
        mailbox.push(&message("c"), 25);
        assert_eq!(mailbox.lost(), Some(Loss::Queue { limit: 25 }));
        assert_eq!(mailbox.bytes(), 0);
        mailbox.push(&message("d"), 25);
        assert_eq!(mailbox.take(&mut Vec::new(), 100, true), 0);
    }

    #[tokio::test]
    async fn who_does_not_speak_utf8_is_told_no_other_letters() {
        let mailbox = mailbox();
        mailbox.push(&message("a"), 100);
        mailbox.push(&message("ö"), 100);
        let mut out = Vec::new();
        assert_eq!(mailbox.take(&mut out, 100, false), 1);
        assert_eq!(mailbox.lost(), Some(Loss::Encoding));
    }
}
