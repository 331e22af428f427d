//! Counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A counter that one thread at a time adds to, and any may read: no read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Only its owner may call it.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        // Relaxed, here and below: a figure to look at, by which nothing else is read.
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter that anybody may add to: for what happens seldom.
#[derive(Debug, Default)]
pub(crate) struct SharedCount(AtomicU64);

impl SharedCount {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by labels, of which there are few: never text that a peer can choose.
#[derive(Debug)]
pub(crate) struct Labelled<L>(Mutex<BTreeMap<L, u64>>);

impl<L> Default for Labelled<L> {
    fn default() -> Self {
        Labelled(Mutex::default())
    }
}

impl<L: Ord + Copy> Labelled<L> {
    pub(crate) fn add(&self, label: L, n: u64) {
        *lock(&self.0).entry(label).or_default() += n;
    }

    /// All of them, by label.
    pub(crate) fn all(&self) -> BTreeMap<L, u64> {
        lock(&self.0).clone()
    }
}

/// Nothing in this room is half done where it could panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
