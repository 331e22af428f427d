//! Until when a server knows what was published. With a backbone that it does not hear, gateways
//! must not take its silence for quiet: what was revoked elsewhere has not come to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Cheap to clone: all clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    /// `None`: everything is published here.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    stale_after: Duration,
    begun: Instant,
    /// In milliseconds since then.
    known_ms: AtomicU64,
}

impl Freshness {
    /// Of a server that has to be told, and knows everything at this moment.
    #[cfg(any(test, feature = "nats"))]
    pub(crate) fn until_told(stale_after: Duration) -> Self {
        Freshness {
            shared: Some(Arc::new(Shared {
                stale_after,
                begun: Instant::now(),
                known_ms: AtomicU64::new(0),
            })),
        }
    }

    /// All that was published until so long ago is known.
    #[cfg(any(test, feature = "nats"))]
    pub(crate) fn known_until(&self, ago: Duration) {
        let Some(shared) = &self.shared else {
            return;
        };
        let now = shared.begun.elapsed();
        let known = now.saturating_sub(ago).as_millis();
        // Relaxed: a time alone.
        let known = u64::try_from(known).unwrap_or(u64::MAX);
        shared.known_ms.fetch_max(known, Ordering::Relaxed);
    }

    /// How long ago that is; `None` where everything is published here.
    pub(crate) fn age(&self) -> Option<Duration> {
        let shared = self.shared.as_ref()?;
        let known = Duration::from_millis(shared.known_ms.load(Ordering::Relaxed));
        Some(shared.begun.elapsed().saturating_sub(known))
    }

    /// The same, if it is longer than it may be.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        let stale_after = self.shared.as_ref()?.stale_after;
        self.age().filter(|age| *age > stale_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_here_is_always_known() {
        let freshness = Freshness::default();
        freshness.known_until(Duration::from_secs(100));
        assert_eq!((freshness.age(), freshness.stale_for()), (None, None));
    }

    #[test]
    fn a_server_is_stale_that_has_not_been_told_for_longer_than_it_may() {
        let freshness = Freshness::until_told(Duration::from_secs(3600));
        assert!(freshness.age().is_some() && freshness.stale_for().is_none());
        let freshness = Freshness::until_told(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        let stale = freshness.stale_for().unwrap();
        assert!(stale >= Duration::from_millis(2));
        // What was known is not forgotten.
        freshness.known_until(Duration::from_secs(60));
        assert!(freshness.age().unwrap() < Duration::from_secs(60));
    }
}
