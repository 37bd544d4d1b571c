//! TLS handshakes, on threads of their own.
//!
//! A handshake signs with our key: most of a millisecond with RSA. A thousand clients that reconnect at once would hold up
//! every transaction behind a thousand of those on the threads that relay. So handshakes run aside, on as many threads, and the
//! operating system shares the processors out; the socket stays with its reactor, and comes back to be served where it was
//! accepted. Started with the first handshake.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::pool::error::PoolError;

/// The threads.
#[derive(Default)]
pub struct Handshakes {
    runtime: OnceLock<Option<Aside>>,
}

impl Handshakes {
    /// Runs `work` on one of `threads` threads. Cancel safe: who goes away takes it along.
    ///
    /// # Errors
    /// It did not end.
    pub async fn run<T: Send + 'static>(
        &self,
        threads: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, PoolError> {
        let aside = self.runtime.get_or_init(|| Aside::start(threads));
        // Without threads of their own they are as good as ever where we are.
        let task = match aside {
            Some(Aside(Some(runtime))) => runtime.spawn(work),
            _ => tokio::spawn(work),
        };
        AbortOnDropHandle::new(task).await.map_err(|_| PoolError::Internal)
    }
}

/// Ends without waiting, also from within another runtime.
struct Aside(Option<Runtime>);

impl Aside {
    fn start(threads: usize) -> Option<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name("pool-tls").enable_all().build();
        match runtime {
            Ok(runtime) => Some(Self(Some(runtime))),
            Err(error) => {
                tracing::warn!(%error, "no threads for TLS handshakes: they share those of the relays");
                None
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
