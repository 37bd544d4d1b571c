//! What a client is told that has waited for a server for `query_wait_notify` (PgBouncer's notice, in its words).
//!
//! It is told between two messages: a client that waits holds no server and has been given all of the answers before. A
//! socket that takes half of it is given the rest before anything else, by whoever writes to it next.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};

use crate::pool::error;

/// One wait's notice. Lives on the heap with the wait.
pub(super) struct Notice {
    timer: Option<Pin<Box<Sleep>>>,
    bytes: Vec<u8>,
    sent: usize,
}

impl Notice {
    /// `after` is `query_wait_notify`; `None`: the client is not told.
    pub(super) fn new(after: Option<Duration>) -> Self {
        Self { timer: after.map(|after| Box::pin(sleep(after))), bytes: Vec::new(), sent: 0 }
    }

    /// Tells the client when its time has come. A client that takes nothing is not told.
    pub(super) fn poll<IO>(&mut self, cx: &mut Context<'_>, io: &mut IO)
    where
        IO: AsyncWrite + Unpin,
    {
        if let Some(timer) = &mut self.timer {
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.timer = None;
            error::write_queued(&mut self.bytes);
        }
        while self.sent < self.bytes.len() {
            match Pin::new(&mut *io).poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(n)) if n > 0 => self.sent += n,
                Poll::Pending if self.sent > 0 => return,
                // A socket that failed says so again to its reader.
                _ => self.bytes.clear(),
            }
        }
        let _ = Pin::new(io).poll_flush(cx);
    }

    /// Returns what is left of a notice that has begun: to be written before anything else.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.sent.min(self.bytes.len()));
        self.bytes
    }

    /// Returns whether nothing else may be said now.
    pub(super) fn is_half_told(&self) -> bool {
        self.sent < self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::pool::wire::tag::backend as tag;

    const AFTER: Duration = Duration::from_secs(5);

    async fn polled(notice: &mut Notice, io: &mut (impl AsyncWrite + Unpin)) {
        std::future::poll_fn(|cx| {
            notice.poll(cx, io);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_once_when_its_time_has_come() {
        let (mut io, mut user) = duplex(1024);
        let mut notice = Notice::new(Some(AFTER));
        polled(&mut notice, &mut io).await;
        tokio::time::sleep(AFTER + Duration::from_millis(1)).await;
        polled(&mut notice, &mut io).await;
        polled(&mut notice, &mut io).await;
        assert!(notice.into_rest().is_empty());
        drop(io);
        let mut got = Vec::new();
        user.read_to_end(&mut got).await.unwrap();
        assert_eq!((got[0], got.len()), (tag::NOTICE_RESPONSE, 1 + got[4] as usize));
        let text = String::from_utf8_lossy(&got);
        assert!(text.contains("No server connection available in postgres backend, client being queued"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_half_of_it_is_owed_the_rest_and_one_that_takes_nothing_is_not_told() {
        let (mut io, mut user) = duplex(20);
        let mut notice = Notice::new(Some(Duration::ZERO));
        tokio::time::sleep(Duration::from_millis(1)).await;
        polled(&mut notice, &mut io).await;
        assert!(notice.is_half_told());
        let rest = notice.into_rest();
        let mut begun = [0; 20];
        user.read_exact(&mut begun).await.unwrap();
        assert_eq!(1 + begun[4] as usize, begun.len() + rest.len());

        use tokio::io::AsyncWriteExt;
        io.write_all(&[0; 20]).await.unwrap();
        let mut notice = Notice::new(Some(Duration::ZERO));
        tokio::time::sleep(Duration::from_millis(1)).await;
        polled(&mut notice, &mut io).await;
        assert!(!notice.is_half_told());
        assert!(notice.into_rest().is_empty());
    }
}
