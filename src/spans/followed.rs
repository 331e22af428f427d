//! Events whose deliveries are recorded: the newest few, each for the first few gateways.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::SpanContext;

/// So many are remembered.
const EVENTS: usize = 64;

/// The events that are followed.
#[derive(Debug)]
pub(super) struct Followed {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: nobody need look here.
    seq: AtomicU64,
    event: Mutex<Option<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    seq: u64,
    event: FollowedEvent,
    /// How many more deliveries are recorded.
    left: u32,
}

/// An event that was appended.
#[derive(Clone, Debug)]
pub(super) struct FollowedEvent {
    pub(super) span: SpanContext,
    pub(super) appended: SystemTime,
    pub(super) event_id: String,
    pub(super) cursor: String,
}

impl Followed {
    pub(super) fn new() -> Self {
        Followed {
            slots: (0..EVENTS).map(|_| Slot::default()).collect(),
        }
    }

    /// Remembers the event `seq` for the next `gateways` deliveries, instead of an older one.
    pub(super) fn remember(&self, seq: u64, event: FollowedEvent, gateways: u32) {
        let slot = &self.slots[(seq % EVENTS as u64) as usize];
        let mut remembered = slot.event.lock().unwrap_or_else(PoisonError::into_inner);
        *remembered = Some(Remembered {
            seq,
            event,
            left: gateways,
        });
        // Release: pairs with the Acquire in `take`. Under the lock, so that the two are of
        // one event whenever nobody holds it.
        slot.seq.store(seq, Ordering::Release);
    }

    /// Those after `after` up to `last` that are to be recorded for one more gateway, which
    /// has subscribed `since`.
    pub(super) fn take(
        &self,
        after: u64,
        last: u64,
        since: SystemTime,
    ) -> Vec<(u64, FollowedEvent)> {
        let mut taken = Vec::new();
        for slot in &self.slots {
            let seq = slot.seq.load(Ordering::Acquire);
            if seq <= after || seq > last {
                continue;
            }
            let mut event = slot.event.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(remembered) = event.as_mut() else {
                continue;
            };
            // What was published before it came, it has resumed: that is no delay of ours.
            if remembered.seq != seq || remembered.event.appended < since {
                continue;
            }
            taken.push((seq, remembered.event.clone()));
            remembered.left = remembered.left.saturating_sub(1);
            if remembered.left == 0 {
                *event = None;
                slot.seq.store(0, Ordering::Release);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_event_is_taken_by_the_first_few_gateways_that_deliver_it() {
        let followed = Followed::new();
        let since = SystemTime::now();
        let event = FollowedEvent {
            span: SpanContext::empty_context(),
            appended: since,
            event_id: "e".to_owned(),
            cursor: "c".to_owned(),
        };
        followed.remember(7, event.clone(), 2);
        let later = since + Duration::from_secs(1);
        for (after, last, since, count) in [
            (7, 9, since, 0), // it was delivered before
            (0, 6, since, 0), // it is to come
            (0, 7, later, 0), // it was resumed
            (0, 7, since, 1),
            (6, 9, since, 1),
            (0, 7, since, 0), // others have taken it
        ] {
            assert_eq!(
                followed.take(after, last, since).len(),
                count,
                "{after} {last}"
            );
        }
        followed.remember(8, event.clone(), 2);
        followed.remember(8 + EVENTS as u64, event, 2);
        let taken = followed.take(0, 1000, since);
        assert_eq!(taken.len(), 1, "a newer one takes the place");
        assert_eq!(taken[0].0, 8 + EVENTS as u64);
    }
}
