//! What the threads of a run tell one another while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::now_ns;

/// Counters of a run, and the wish to end it. All clones are the same.
///
/// Every access is relaxed: these are numbers to look at; what must be exact is
/// handed over when a thread is joined.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    inner: Arc<Inner>,
    /// Somebody wants all runs to end.
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Inner {
    stage: Mutex<Stage>,
    accepted: AtomicU64,
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    phase: AtomicUsize,
    publishers_end: AtomicBool,
    /// A thread of the run has failed: no other is to wait for it.
    failed: AtomicBool,
}

/// What a run is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage {
    /// In a word, such as `warming up`.
    pub name: &'static str,
    extent: Extent,
}

/// Where a stage begins and ends.
#[derive(Clone, Copy, Debug, Default)]
enum Extent {
    #[default]
    Unknown,
    Nanos(u64, u64),
    Accepted(u64, u64),
    Delivered(u64, u64),
}

impl Gauge {
    /// For another run: of everything but the wish to end.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Gauge {
            inner: Arc::default(),
            stop: Arc::clone(&self.stop),
        }
    }

    /// What the run is about, and how much of that is done, from 0 to 1, if anybody
    /// can know.
    #[must_use]
    pub fn stage(&self) -> (Stage, Option<f64>) {
        let stage = *self.lock_stage();
        let (from, to, now) = match stage.extent {
            Extent::Unknown => return (stage, None),
            Extent::Nanos(from, to) => (from, to, now_ns()),
            Extent::Accepted(from, to) => (from, to, self.accepted()),
            Extent::Delivered(from, to) => (from, to, self.delivered()),
        };
        let all = to.saturating_sub(from).max(1) as f64;
        let done = now.saturating_sub(from) as f64;
        (stage, Some((done / all).min(1.0)))
    }

    fn lock_stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        let stage = self.inner.stage.lock();
        stage.unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &'static str, extent: Extent) {
        *self.lock_stage() = Stage { name, extent };
    }

    /// A stage begins that ends when it ends.
    pub(super) fn begin_stage(&self, name: &'static str) {
        self.begin(name, Extent::Unknown);
    }

    /// A stage begins that ends at this time.
    pub(super) fn begin_until(&self, name: &'static str, ends_ns: u64) {
        self.begin(name, Extent::Nanos(now_ns(), ends_ns));
    }

    /// A stage begins that ends with so many more events accepted.
    pub(super) fn begin_accepting(&self, name: &'static str, events: u64) {
        let from = self.accepted();
        self.begin(name, Extent::Accepted(from, from + events));
    }

    /// A stage begins that ends with so many more events delivered.
    pub(super) fn begin_delivering(&self, name: &'static str, events: u64) {
        let from = self.delivered();
        self.begin(name, Extent::Delivered(from, from + events));
    }

    /// Events that were published and accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.inner.accepted.load(Ordering::Relaxed)
    }

    /// Events that receivers got, all together.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.inner.delivered.load(Ordering::Relaxed)
    }

    /// Bytes that receivers got, all together, framing included.
    #[must_use]
    pub fn delivered_bytes(&self) -> u64 {
        self.inner.delivered_bytes.load(Ordering::Relaxed)
    }

    /// Whether somebody wants the run to end before its time.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.inner.failed.load(Ordering::Relaxed)
    }

    /// Ends the run as soon as may be, and those that were [renewed](Self::renewed).
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends this run, for what it waits for will not come.
    pub(super) fn fail(&self) {
        self.inner.failed.store(true, Ordering::Relaxed);
    }

    /// Whether publishers shall publish nothing more.
    pub(super) fn publishers_end(&self) -> bool {
        self.inner.publishers_end.load(Ordering::Relaxed) || self.is_stopped()
    }

    pub(super) fn end_publishers(&self) {
        self.inner.publishers_end.store(true, Ordering::Relaxed);
    }

    pub(super) fn let_publishers_begin(&self) {
        self.inner.publishers_end.store(false, Ordering::Relaxed);
    }

    /// What part of the run this is: round trips are kept apart by it.
    pub(super) fn phase(&self) -> usize {
        self.inner.phase.load(Ordering::Relaxed)
    }

    pub(super) fn begin_phase(&self, phase: usize) {
        self.inner.phase.store(phase, Ordering::Relaxed);
    }

    pub(super) fn add_accepted(&self, events: u64) {
        self.inner.accepted.fetch_add(events, Ordering::Relaxed);
    }

    /// Only the thread of the receivers calls this.
    pub(super) fn set_delivered(&self, events: u64, bytes: u64) {
        self.inner.delivered.store(events, Ordering::Relaxed);
        self.inner.delivered_bytes.store(bytes, Ordering::Relaxed);
    }
}
