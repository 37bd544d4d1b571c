//! The pool's listening service. Pingora runs it, with its threads and its moment to stop; accepting is done here.
//!
//! Pingora's own accept loop ends in a `Stream` that cannot be taken apart: the socket had to be duplicated out of it, which
//! were seven system calls more for every login (who is it, duplicate, look, register twice, deregister, close), beside a
//! task, a timer and 800 bytes of buffers' frames, addresses and timings.

use std::{
    io, net,
    os::fd::{FromRawFd, RawFd},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    server::{ListenFds, ShutdownWatch},
    services::Service,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
};

use super::{client::arrival, pooler::Pooler};

/// Pause when nothing can be accepted though somebody knocks: out of file descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// The pool as a pingora service; starts the pool's own tasks in the service's runtime.
pub struct PoolService {
    pooler: Arc<Pooler>,
    /// As the table of sockets spells it.
    address: String,
    threads: usize,
}

impl PoolService {
    /// Returns the service that listens as pool.yaml says, on the socket that it is given under that address.
    pub fn new(pooler: Arc<Pooler>) -> Self {
        let pool = pooler.config();
        let (address, threads) = (pool.listen.to_string(), pool.threads);
        Self { pooler, address, threads }
    }
}

#[async_trait]
impl Service for PoolService {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let socket = fds.and_then(|fds| fds.lock().get(&self.address).copied());
        let Some(socket) = socket else {
            tracing::error!(address = self.address, "the pool has no socket to listen on");
            return;
        };
        let service = serve(self.pooler.clone(), self.address.clone(), socket, shutdown);
        if self.threads > 1 {
            return service.await;
        }
        match alone(service) {
            // It errs only if the thread died, and then nothing is left to be said.
            Ok(over) => over.await.unwrap_or_default(),
            Err(error) => tracing::error!(%error, "the pool has no thread to run on"),
        }
    }

    fn name(&self) -> &str {
        "pool"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(vec![self.address.clone()])
    }
}

/// Starts the pool's own tasks and accepts until it is told to stop.
async fn serve(pooler: Arc<Pooler>, address: String, socket: RawFd, shutdown: ShutdownWatch) {
    pooler.start();
    match listener(socket) {
        Ok(listener) => accept(&pooler, listener, shutdown).await,
        Err(error) => tracing::error!(address, %error, "the pool cannot listen on its socket"),
    }
}

/// Runs `service` on a thread and a reactor of its own, and tells when it is over; what it has spawned goes on there until
/// the process ends. With one thread there is nobody to steal work from: tokio's scheduler for one thread has a plain queue
/// and parks without telling others (13,986 to 12,919 instructions for a simple query).
fn alone(service: impl Future<Output = ()> + Send + 'static) -> io::Result<oneshot::Receiver<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, over) = oneshot::channel();
    thread::Builder::new().name("pool".into()).spawn(move || {
        runtime.block_on(async {
            service.await;
            let _ = ended.send(());
            std::future::pending::<()>().await;
        });
    })?;
    Ok(over)
}

/// Takes over a socket of the table, which listens already.
fn listener(fd: RawFd) -> io::Result<TcpListener> {
    // SAFETY: the table holds open descriptors that belong to the service that listens on their address, and this one is
    // started once. An upgrade copies them out of the table, and pingora takes them in the same way.
    let socket = unsafe { net::TcpListener::from_raw_fd(fd) };
    // One that was inherited in an upgrade shares its flags with the process it came from, which says the same.
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Accepts until it is told to stop; the socket is closed then.
async fn accept(pooler: &Arc<Pooler>, listener: TcpListener, mut shutdown: ShutdownWatch) {
    let stopped = async move {
        // The one who would tell is gone: the same.
        let _ = shutdown.wait_for(|down| *down).await;
    };
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => begin(pooler, stream, peer),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "accepting failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn begin(pooler: &Arc<Pooler>, stream: TcpStream, peer: net::SocketAddr) {
    // A relay writes whole answers, and the next one never waits for the acknowledgement of the last.
    match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
        Ok(local) => {
            pooler.drain().spawn(arrival::serve(pooler.clone(), stream, peer, local));
        }
        // It was gone before it began.
        Err(error) => tracing::debug!(%error, "accepted connection lost"),
    }
}
