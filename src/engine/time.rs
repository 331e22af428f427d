//! The engine's time: milliseconds that never go back.

use std::fmt;
use std::time::Duration;

use super::sync::{AtomicU64, Ordering};
use crate::clock::{Clock, SystemClock};

/// The engine's clock, held to go forward only.
pub(super) struct Time {
    source: Source,
    /// The latest time that the clock has shown.
    latest_ms: AtomicU64,
}

enum Source {
    System(SystemClock),
    Given(Box<dyn Clock>),
}

impl Time {
    /// By the machine's clock.
    pub(super) fn system() -> Self {
        Self::by(Source::System(SystemClock::new()))
    }

    /// By a clock that the engine was given.
    pub(super) fn given(clock: Box<dyn Clock>) -> Self {
        Self::by(Source::Given(clock))
    }

    fn by(source: Source) -> Self {
        Time {
            source,
            latest_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        let now = match &self.source {
            Source::System(clock) => clock.now_ms(),
            Source::Given(clock) => millis(clock.now()),
        };
        // Relaxed: times order nothing.
        let latest = self.latest_ms.load(Ordering::Relaxed);
        if now > latest {
            self.latest_ms.fetch_max(now, Ordering::Relaxed);
        }
        now.max(latest)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Time")
            .field("latest_ms", &self.latest_ms)
            .finish_non_exhaustive()
    }
}

/// Whole milliseconds; 2⁶³ - 1 for what does not fit in 63 bits. The index has another
/// use for the last one.
pub(super) fn millis(duration: Duration) -> u64 {
    (duration.as_secs())
        .saturating_mul(1000)
        .saturating_add(u64::from(duration.subsec_millis()))
        .min(u64::MAX >> 1)
}
