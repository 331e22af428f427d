//! What the ends of an engine share.

use std::fmt;
use std::time::Duration;

use super::registry::Registry;
use super::revocations::Revocations;
use super::ring::Ring;
use super::sync::{AtomicBool, AtomicU64, Ordering};
use super::time::{Time, millis};
use super::waiters::Waiters;

/// What all ends of an engine share.
pub(super) struct Shared {
    pub(super) ring: Ring,
    pub(super) registry: Registry,
    pub(super) waiters: std::sync::Arc<Waiters>,
    pub(super) time: Time,
    /// What is kept of invalidations, if they are.
    pub(super) revocations: Option<Revocations>,
    pub(super) window_ms: AtomicU64,
    pub(super) aborted: AtomicBool,
}

impl Shared {
    pub(super) fn window_ms(&self) -> u64 {
        // Relaxed: nothing else is read because of it.
        self.window_ms.load(Ordering::Relaxed)
    }

    pub(super) fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms())
    }

    pub(super) fn set_window(&self, window: Duration) {
        self.window_ms.store(millis(window), Ordering::Relaxed);
    }
}

/// Short: with all of its ring it would be megabytes.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("epoch", &self.ring.epoch())
            .field("head", &self.ring.head())
            .field("closed", &self.ring.is_closed())
            .field("subscribers", &self.registry.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.waiters.stop();
        self.stop_keeper();
    }
}
