//! A gate that those who publish go through, and that can be shut.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_shut: AtomicBool,
    inside: AtomicUsize,
}

/// Somebody who went in. Dropping it is leaving.
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    /// Goes in, as soon as the gate is open.
    pub(crate) fn enter(&self) -> Inside<'_> {
        loop {
            // SeqCst, here and below: either this sees that the gate is shut, or who
            // shut it sees somebody inside.
            self.inside.fetch_add(1, Ordering::SeqCst);
            let inside = Inside(self);
            if !self.is_shut.load(Ordering::SeqCst) {
                return inside;
            }
            drop(inside);
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Lets nobody in any more, until [`open`](Self::open).
    pub(crate) fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.is_shut.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inside.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}
