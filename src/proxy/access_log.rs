//! The access log: a JSON line per request, written by a thread of its own.
//!
//! A request formats its line into a buffer kept per thread and appends it to a shared one under a short lock; the writer
//! takes the whole buffer and leaves an empty one. So a line costs no allocation, and standard output may block without a
//! request noticing. What waits is bounded: when `queue` lines do, further ones are dropped and counted.
//!
//! To wake a thread costs more than to make a line: a system call here, a switch of threads there, a write for every line
//! or two. So only the first line after a rest wakes the writer, which then lets lines gather for 50 ms, or until they
//! are enough; while nothing is logged it sleeps without a timer. (tracing-appender's writer is woken by every line, and
//! wants each as a vector of its own.)

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

/// How long lines gather before they are written: nobody who watches a log sees it, and it makes 20 writes a second of 10,000.
const GATHER: Duration = Duration::from_millis(50);
/// So many bytes are written at once. What a pipe holds: more would not be taken in one go.
const BYTES_ENOUGH: usize = 64 * 1024;
/// A buffer that grew past this in a burst is given back.
const BUFFER_BYTES_KEPT: usize = 4 * BYTES_ENOUGH;
/// How long to wait before a full output that is not made to wait (a pipe somebody set non-blocking) is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

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
    writer: Writer,
    closed: bool,
}

/// What the writer is at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Nothing waits, or it has just begun to; the next line wakes it.
    #[default]
    Rests,
    /// It looks again when it is time, or woken because there is enough.
    Gathers,
    /// It writes, or is about to look: nobody needs to wake it.
    Works,
}

impl Waiting {
    /// Adds a line; returns whether the writer must be woken for it.
    fn add(&mut self, line: &[u8], lines_max: usize) -> bool {
        self.buffer.extend_from_slice(line);
        self.lines += 1;
        let wake = match self.writer {
            Writer::Rests => true,
            Writer::Gathers => self.is_enough(lines_max),
            Writer::Works => false,
        };
        if wake {
            self.writer = Writer::Works;
        }
        wake
    }

    fn is_written(&self) -> bool {
        self.lines == 0 && self.writer == Writer::Rests
    }

    /// Returns whether what waits is to be written without waiting for more. Half of what may wait is: the rest is for
    /// those that come until the writer is there.
    fn is_enough(&self, lines_max: usize) -> bool {
        self.closed || self.buffer.len() >= BYTES_ENOUGH || self.lines >= lines_max.div_ceil(2)
    }
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
            let wake = waiting.add(scratch, self.shared.lines_max);
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
        while !waiting.is_written() {
            if self.shared.idle.wait_until(&mut waiting, deadline).timed_out() {
                return waiting.is_written();
            }
        }
        true
    }
}

impl Shared {
    /// Writes until the log is closed and nothing waits.
    fn run(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        while let Some(lines) = self.next(&mut batch) {
            // Nobody reads any more: the lines are lost, and the program goes on.
            if write_whole(&mut out, &batch).is_err() {
                self.dropped.inc_by(lines as u64);
            }
            batch.clear();
            batch.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// Waits for lines, lets them gather and swaps them with the empty `batch`; returns how many, `None` at the end.
    fn next(&self, batch: &mut Vec<u8>) -> Option<usize> {
        let mut waiting = self.waiting.lock();
        while waiting.lines == 0 {
            waiting.writer = Writer::Rests;
            self.idle.notify_all();
            if waiting.closed {
                return None;
            }
            self.work.wait(&mut waiting);
        }
        let deadline = Instant::now() + GATHER;
        while !waiting.is_enough(self.lines_max) {
            waiting.writer = Writer::Gathers;
            if self.work.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        waiting.writer = Writer::Works;
        mem::swap(&mut waiting.buffer, batch);
        Some(mem::take(&mut waiting.lines))
    }
}

/// Writes all of it and flushes. A full output is waited for even if its descriptor does not wait by itself: only one that
/// fails gets less than whole lines.
fn write_whole(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let done = match bytes {
            [] => out.flush().map(|()| None),
            some => out.write(some).map(Some),
        };
        match done {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Some(written)) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
}
