//! The access log: a JSON line per request, written by a thread of its own.
//!
//! A request formats its line into a buffer kept per thread and appends it to a shared one under a short lock; the writer
//! takes the whole buffer and leaves an empty one. So a line costs no allocation, lines are written many at a time when
//! there are many, and standard output may block without a request noticing. What waits is bounded: when `queue` lines do,
//! further ones are dropped and counted.

mod line;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io::{self, Write},
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

pub use self::line::Line;

/// A buffer that grew past this in a burst is given back.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

/// The log. Clones write to the same one.
#[derive(Debug, Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write, or it is time to end.
    work: Condvar,
    /// Everything was written.
    idle: Condvar,
    lines_max: usize,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Waiting {
    buffer: Vec<u8>,
    lines: usize,
    writing: bool,
    closed: bool,
}

impl AccessLog {
    /// Begins a log to `out`. At most `lines_max` lines wait; those beyond are counted by `dropped`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(out: impl Write + Send + 'static, lines_max: usize, dropped: IntCounter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            lines_max,
            dropped,
        });
        let writer = shared.clone();
        thread::Builder::new().name("access-log".into()).spawn(move || writer.run(out))?;
        Ok(Self { shared })
    }

    /// Takes a line. Never waits for the output.
    pub fn write(&self, line: &Line<'_>) {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            line.write(scratch);
            let mut waiting = self.shared.waiting.lock();
            if waiting.lines >= self.shared.lines_max || waiting.closed {
                drop(waiting);
                self.shared.dropped.inc();
                return;
            }
            waiting.buffer.extend_from_slice(scratch);
            waiting.lines += 1;
            let wake = !waiting.writing && waiting.lines == 1;
            drop(waiting);
            if wake {
                self.shared.work.notify_one();
            }
        });
    }

    /// Ends the log once all lines are written, or `patience` is over; returns whether all were. Blocks: for the process's end.
    pub fn close(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut waiting = self.shared.waiting.lock();
        waiting.closed = true;
        self.shared.work.notify_one();
        while waiting.writing || waiting.lines != 0 {
            if self.shared.idle.wait_until(&mut waiting, deadline).timed_out() {
                return !waiting.writing && waiting.lines == 0;
            }
        }
        true
    }
}

impl Shared {
    /// Writes until the log is closed and nothing waits.
    fn run(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            let lines = {
                let mut waiting = self.waiting.lock();
                waiting.writing = false;
                while waiting.lines == 0 {
                    self.idle.notify_all();
                    if waiting.closed {
                        return;
                    }
                    self.work.wait(&mut waiting);
                }
                mem::swap(&mut waiting.buffer, &mut batch);
                waiting.writing = true;
                mem::take(&mut waiting.lines)
            };
            // Nobody reads any more: the lines are lost, and the program goes on.
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                self.dropped.inc_by(lines as u64);
            }
            batch.clear();
            batch.shrink_to(BUFFER_BYTES_KEPT);
        }
    }
}
