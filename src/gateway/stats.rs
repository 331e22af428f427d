//! [`Stats`]: what a router has done, in numbers.

use std::time::Duration;

use super::end::OpenError;
use super::sync::{AtomicU64, Ordering};

/// What a router has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions that are open now, those included that only have guards.
    pub sessions: usize,
    /// Whether everything is refused now, because it is not known what is revoked.
    pub is_stale: bool,
    /// How long ago it was that the router knew all that was published: stale is what is older than
    /// [`Builder::stale_after`](super::Builder::stale_after). `None` if it knows nothing.
    pub age: Option<Duration>,
    /// Sessions that were opened.
    pub opened: u64,
    /// Sessions that were not, for whatever reason.
    pub refused: u64,
    /// Those of them that were revoked while they were authenticated.
    pub refused_as_revoked: u64,
    /// Client events that came over the feed.
    pub events: u64,
    /// Events that were put into the queue of a session, each session counted.
    pub queued: u64,
    /// Client events for which no session was open.
    pub unrouted: u64,
    /// Events that were dropped because a queue was full.
    pub dropped: u64,
    /// Sessions that have ended because a queue was full.
    pub overflowed: u64,
    /// Invalidations that came over the feed.
    pub invalidations: u64,
    /// Sessions that have ended by one.
    pub revoked: u64,
    /// How often invalidations were lost, so that all sessions became suspect.
    pub losses: u64,
    /// Sessions that were suspect, and were found valid.
    pub validated: u64,
    /// Sessions that were suspect, and were found not to be valid any more.
    pub invalid: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn read(
                &self,
                sessions: usize,
                is_stale: bool,
                age: Option<Duration>,
            ) -> Stats {
                Stats {
                    sessions,
                    is_stale,
                    age,
                    // Relaxed: each is right by itself.
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters!(
    opened,
    refused,
    refused_as_revoked,
    events,
    queued,
    unrouted,
    dropped,
    overflowed,
    invalidations,
    revoked,
    losses,
    validated,
    invalid,
);

/// Counts so many more.
pub(super) fn count(counter: &AtomicU64, more: u64) {
    if more > 0 {
        // Relaxed: nothing is read because of it.
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

impl Counters {
    #[cfg(feature = "client")]
    pub(super) fn invalidations(&self) -> u64 {
        self.invalidations.load(Ordering::Relaxed)
    }

    pub(super) fn opened<T>(&self, opened: &Result<T, OpenError>) {
        match opened {
            Ok(_) => count(&self.opened, 1),
            Err(error) => {
                count(&self.refused, 1);
                let is_revoked = matches!(error, OpenError::Revoked(_));
                count(&self.refused_as_revoked, u64::from(is_revoked));
            }
        }
    }
}
