//! Threads that start together, each on a processor of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Where some threads wait for each other. They do not sleep, so that none has to be
/// woken when the clock runs.
pub(super) struct StartLine {
    threads: usize,
    arrived: AtomicUsize,
}

impl StartLine {
    pub(super) fn new(threads: usize) -> Self {
        StartLine {
            threads,
            arrived: AtomicUsize::new(0),
        }
    }

    /// Puts the calling thread on the `number`th processor, or on one that it shares
    /// where there are more threads than processors, and waits for the others. Left
    /// to the system, two threads that spin can end up on one processor.
    pub(super) fn wait(&self, number: usize) {
        let processors = core_affinity::get_core_ids().unwrap_or_default();
        if !processors.is_empty() {
            core_affinity::set_for_current(processors[number % processors.len()]);
        }
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < self.threads {
            // Whoever is still to come may need this processor.
            thread::yield_now();
        }
    }
}
