//! A socket's stream, shared between its task and the thread that has queued a write to it.
//!
//! ```text
//!            queued             submitted: all of it
//! IDLE ──────────────▶ QUEUED ─────────────────────▶ IDLE
//!                        │ awaits      ▲ also from AWAITED, and the task is woken
//!                        ▼             │
//!                     AWAITED ─────────┘
//! QUEUED, AWAITED ──▶ LEFT, where less was sent, or nothing; the task is woken
//! LEFT ──────────────▶ IDLE when the task has taken what is left
//! ```

#![cfg_attr(
    not(all(feature = "io-uring", target_os = "linux")),
    allow(dead_code, reason = "without a queue, nothing is queued")
)]

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::Handle;
use super::stream::Stream;

/// Nothing is queued.
const IDLE: u8 = 0;
/// A write is queued.
const QUEUED: u8 = 1;
/// A write is queued, and the task waits for its submission.
const AWAITED: u8 = 2;
/// A write was submitted, and something is left of it.
const LEFT: u8 = 3;

/// A stream, and what has become of the last write that was queued.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    handle: Arc<Handle>,
    state: AtomicU8,
    left: Mutex<io::Result<Vec<u8>>>,
}

impl Wire {
    pub(super) fn new(stream: Stream, handle: Arc<Handle>) -> Self {
        Wire {
            stream,
            handle,
            state: AtomicU8::new(IDLE),
            left: Mutex::new(Ok(Vec::new())),
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether nothing is queued or left.
    pub(super) fn is_idle(&self) -> bool {
        // Acquire: pairs with the Release in `submitted`.
        self.state.load(Ordering::Acquire) == IDLE
    }

    /// Whether a write is queued that was not submitted.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), QUEUED | AWAITED)
    }

    /// Nothing was queued, and now a write is.
    pub(super) fn queued(&self) {
        // Relaxed: the thread that submits is this one, and whoever moves the task to another
        // one makes it see what came before.
        self.state.store(QUEUED, Ordering::Relaxed);
    }

    /// Has the handle wake its task when the queued write is submitted. `false` if it was.
    pub(super) fn awaits(&self) -> bool {
        // Acquire: pairs with the Release in `submitted`. Release: `submitted`, which finds
        // this, finds the task's waker with the handle.
        let changed =
            self.state
                .compare_exchange(QUEUED, AWAITED, Ordering::AcqRel, Ordering::Acquire);
        matches!(changed, Ok(_) | Err(AWAITED))
    }

    /// The queued write of these bytes was submitted.
    pub(super) fn submitted(&self, bytes: &[u8], sent: io::Result<usize>) {
        let left = match sent {
            Ok(sent) if sent == bytes.len() => {
                // Release: pairs with the Acquire in `is_idle`, so that this write comes
                // before the task's next one.
                if self.state.swap(IDLE, Ordering::AcqRel) == AWAITED {
                    self.handle.wake();
                }
                return;
            }
            Ok(sent) => Ok(bytes[sent..].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(bytes.to_vec()),
            Err(error) => Err(error),
        };
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
        // Release: pairs with the Acquire in `take_left`.
        self.state.store(LEFT, Ordering::Release);
        self.handle.wake();
    }

    /// What is left of the last write that was queued.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(super) fn take_left(&self) -> io::Result<Vec<u8>> {
        if self.state.load(Ordering::Acquire) != LEFT {
            return Ok(Vec::new());
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: only this task looks until it has queued another write.
        self.state.store(IDLE, Ordering::Relaxed);
        mem::replace(&mut *left, Ok(Vec::new()))
    }
}
