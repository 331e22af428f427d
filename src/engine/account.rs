//! The memory bound: how many segments exist, and whose they are.

use super::sync::{AtomicUsize, Ordering};

/// How many segments there are, and on whose account.
#[derive(Debug)]
pub(super) struct Account {
    /// The ring's: those in it, the spares, and those about to be one of both.
    live: AtomicUsize,
    /// Those that left the ring but are still held.
    retired: AtomicUsize,
}

impl Account {
    // Relaxed, all of it: counts for the memory bound; no data depends on them.

    pub(super) fn new() -> Self {
        Account {
            live: AtomicUsize::new(0),
            retired: AtomicUsize::new(0),
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn retired(&self) -> usize {
        self.retired.load(Ordering::Relaxed)
    }

    /// Counts one more of the ring's, if it has fewer than `budget`.
    pub(super) fn open(&self, budget: usize) -> bool {
        let room = |live| (live < budget).then_some(live + 1);
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
    }

    /// Takes a segment from the ring's account to those that hold it.
    pub(super) fn retire(&self) {
        self.retired.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// A segment is freed.
    pub(super) fn close(&self, retired: bool) {
        let count = if retired { &self.retired } else { &self.live };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}
