//! Buffers that belong to a thread, not to a client: an idle client holds none.
//!
//! A poll takes a buffer from its thread, reads into it, and puts it back when there was nothing to read. Only a client
//! whose request has begun keeps one, until its transaction is over.

use std::{cell::RefCell, ops::Deref};

use tokio::io::ReadBuf;

/// Bytes of one buffer: a whole request of nearly every application.
const LEN: usize = 8 * 1024;
/// Buffers a thread keeps for later; more are given back to the allocator.
const KEPT_MAX: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<Box<[u8; LEN]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer with what was read into it so far. Goes back to the thread when dropped.
#[derive(Debug)]
pub struct Scratch {
    /// Taken only by drop.
    bytes: Option<Box<[u8; LEN]>>,
    filled: usize,
}

impl Scratch {
    /// Takes an empty buffer.
    pub fn take() -> Self {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        Self { bytes: Some(kept.unwrap_or_else(|| Box::new([0; LEN]))), filled: 0 }
    }

    /// Lets `read` fill what is left; the count is what it added. `None` when nothing is left.
    pub fn fill<T>(&mut self, read: impl FnOnce(&mut ReadBuf<'_>) -> T) -> Option<(T, usize)> {
        let bytes = self.bytes.as_mut()?;
        let rest = &mut bytes[self.filled..];
        if rest.is_empty() {
            return None;
        }
        let mut buf = ReadBuf::new(rest);
        let result = read(&mut buf);
        let added = buf.filled().len();
        self.filled += added;
        Some((result, added))
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        if let Some(bytes) = &mut self.bytes {
            bytes.copy_within(count..self.filled, 0);
            self.filled -= count;
        }
    }

    /// Returns whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.filled == LEN
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes[..self.filled])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        // A thread that is ending keeps nothing.
        let _ending = KEPT.try_with(|kept| {
            if let Ok(mut kept) = kept.try_borrow_mut()
                && kept.len() < KEPT_MAX
            {
                kept.push(bytes);
            }
        });
    }
}
