//! What the threads of a run tell one another while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Counters of a run, and the wish to end it. All clones are the same.
///
/// Every access is relaxed: these are numbers to look at; what must be exact is
/// handed over when a thread is joined.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    accepted: AtomicU64,
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    phase: AtomicUsize,
    producers_end: AtomicBool,
    stop: AtomicBool,
}

impl Gauge {
    /// Events that were published and answered.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Events that receivers got, all together.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.0.delivered.load(Ordering::Relaxed)
    }

    /// Bytes that receivers got, all together, framing included.
    #[must_use]
    pub fn delivered_bytes(&self) -> u64 {
        self.0.delivered_bytes.load(Ordering::Relaxed)
    }

    /// Whether somebody wants the run to end before its time.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// Ends the run as soon as may be.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether producers shall publish nothing more.
    pub(super) fn producers_end(&self) -> bool {
        self.0.producers_end.load(Ordering::Relaxed) || self.is_stopped()
    }

    pub(super) fn end_producers(&self) {
        self.0.producers_end.store(true, Ordering::Relaxed);
    }

    pub(super) fn let_producers_begin(&self) {
        self.0.producers_end.store(false, Ordering::Relaxed);
    }

    /// What part of the run this is: round trips are kept apart by it.
    pub(super) fn phase(&self) -> usize {
        self.0.phase.load(Ordering::Relaxed)
    }

    pub(super) fn begin_phase(&self, phase: usize) {
        self.0.phase.store(phase, Ordering::Relaxed);
    }

    pub(super) fn add_accepted(&self, events: u64) {
        self.0.accepted.fetch_add(events, Ordering::Relaxed);
    }

    /// Only the thread of the receivers calls this.
    pub(super) fn set_delivered(&self, events: u64, bytes: u64) {
        self.0.delivered.store(events, Ordering::Relaxed);
        self.0.delivered_bytes.store(bytes, Ordering::Relaxed);
    }
}
