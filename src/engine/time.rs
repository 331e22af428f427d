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

/// Whole milliseconds; some 292 million years for anything longer. So the highest bit is
/// never set: the index has another use for it.
pub(super) fn millis(duration: Duration) -> u64 {
    const MAX_SECONDS: u64 = (u64::MAX >> 1) / 1000 - 1;
    duration.as_secs().min(MAX_SECONDS) * 1000 + u64::from(duration.subsec_millis())
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_63_bits() {
        assert_eq!(millis(Duration::new(7, 999_999_999)), 7999);
        assert_eq!(millis(Duration::MAX) >> 63, 0);
        assert!(millis(Duration::MAX) > 1 << 62);
    }
}
