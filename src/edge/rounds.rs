//! When gateways are woken: at once, and while they are behind, a moment later.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::Engine;

/// So many events for each gateway in one round mean that rounds take longer than events
/// take to come.
const MANY: u64 = 4;
/// As long as this a round takes, at the least, that is followed by a rest: nobody's
/// latency is made many times what it was.
const LONG_ROUND: Duration = Duration::from_micros(500);
/// The shortest that the runtime's timer can tell; it may take up to twice as long.
const REST: Duration = Duration::from_millis(1);

/// Whether gateways are behind. What is published meanwhile waits for the end of a rest:
/// for those who can do with fewer turns then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behind(Arc<AtomicBool>);

impl Behind {
    // Relaxed, here and below: it is a hint.
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, is_so: bool) {
        // Most often it is so already, and others look at it.
        if self.is_so() != is_so {
            self.0.store(is_so, Ordering::Relaxed);
        }
    }
}

/// Nobody is behind once nobody says so.
struct NoLonger(Behind);

impl Drop for NoLonger {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Wakes parked gateways when something is published, and tells when they are `behind`.
/// Runs until it is dropped.
///
/// In the round after a wake-up each gateway writes what there is for it, by one system
/// call. The call costs much, and each further event in it little. As long as rounds keep
/// up with the events there are few of them in one, and no event waits. When rounds are
/// back to back and long, all that would come of starting the next one at once is more
/// calls for the same events, on a machine that has no time for them: so one that found
/// gateways behind is followed by a rest.
pub(crate) async fn wake_gateways(engine: Engine, behind: Behind) {
    let behind = NoLonger(behind);
    let behind = &behind.0;
    let newest = || engine.head().seq().number();
    let mut notifier = engine.notifier();
    let mut served = newest();
    while poll_fn(|cx| {
        let round = notifier.poll_round(cx);
        if round.is_pending() {
            behind.set(false);
        }
        round
    })
    .await
    {
        let (began, head) = (Instant::now(), newest());
        let events = head - served;
        served = head;
        back_of_the_queue().await;
        let were_behind = events >= MANY && began.elapsed() >= LONG_ROUND;
        behind.set(were_behind);
        if were_behind {
            sleep(REST).await;
        }
    }
}

/// Returns when the runtime has run those tasks that had been woken before, as far as one
/// of its threads can tell. (`yield_now` of tokio's returns earlier: whenever the runtime
/// looks at its sockets.)
async fn back_of_the_queue() {
    let mut queued = false;
    poll_fn(|cx| {
        if queued {
            return Poll::Ready(());
        }
        queued = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::time::advance;

    use super::*;
    use crate::cursor::Cursor;
    use crate::event::Event;

    /// `PushEvent { client_event: { user_id: "u", kind: "k" } }`
    const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";
    /// What a test's clock tells of nothing.
    const NO_TIME: Duration = Duration::ZERO;

    /// On a clock that stands still while anybody runs, and when nobody does, jumps to
    /// what is waited for.
    fn on_a_still_clock(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test);
    }

    /// An engine whose only gateway takes `write` to write a batch.
    struct Fleet {
        engine: Engine,
        behind: Behind,
        received: UnboundedReceiver<(Cursor, Instant)>,
    }

    impl Fleet {
        async fn new(write: Duration) -> Self {
            let engine = Engine::builder().build().unwrap();
            let mut subscriber = engine.subscribe("g", "").unwrap();
            let (tell, received) = unbounded_channel();
            let behind = Behind::default();
            tokio::spawn(wake_gateways(engine.clone(), behind.clone()));
            tokio::spawn(async move {
                while let Ok(batch) = poll_fn(|cx| subscriber.poll_recv(cx)).await {
                    tell.send((batch.last(), Instant::now())).unwrap();
                    advance(write).await;
                }
            });
            // Both begin to wait.
            back_of_the_queue().await;
            Fleet {
                engine,
                behind,
                received,
            }
        }

        /// Publishes so many events at once; says how long it is until the gateway has
        /// them.
        async fn publish(&mut self, events: usize) -> Duration {
            let began = Instant::now();
            let events = vec![Event::parse(EVENT).unwrap(); events];
            let published = self.engine.publisher().publish_batch(&events).unwrap();
            loop {
                let (cursor, at) = self.received.recv().await.unwrap();
                if cursor == published.last {
                    return at - began;
                }
            }
        }

        /// What the gateway is woken to write, and when that is written, one event more;
        /// says how long that one has to wait.
        async fn publish_again(&mut self, events: usize) -> Duration {
            assert_eq!(self.publish(events).await, NO_TIME);
            // What it finds before it waits again, it takes without being woken.
            for _ in 0..3 {
                back_of_the_queue().await;
            }
            self.publish(1).await
        }
    }

    #[test]
    fn a_round_in_which_gateways_were_behind_is_followed_by_a_rest() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(LONG_ROUND).await;
            for _ in 0..3 {
                assert!(!fleet.behind.is_so());
                let waited = fleet.publish_again(MANY as usize).await;
                assert!(waited >= REST && waited <= 2 * REST, "{waited:?}");
                // That was one event, which nobody was behind for.
                back_of_the_queue().await;
                back_of_the_queue().await;
                assert!(!fleet.behind.is_so());
                // Its rest, if there is one, is over.
                sleep(10 * REST).await;
            }
        });
    }

    #[test]
    fn they_are_behind_until_a_round_finds_nothing_or_little() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(LONG_ROUND).await;
            assert_eq!(fleet.publish(MANY as usize).await, NO_TIME);
            for _ in 0..3 {
                back_of_the_queue().await;
            }
            assert!(fleet.behind.is_so(), "while they rest");
            sleep(10 * REST).await;
            assert!(!fleet.behind.is_so(), "nothing was published since");
        });
    }

    #[test]
    fn events_that_come_one_by_one_wait_for_nothing() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(10 * LONG_ROUND).await;
            for _ in 0..3 {
                assert_eq!(fleet.publish_again(MANY as usize - 1).await, NO_TIME);
            }
        });
    }

    #[test]
    fn gateways_that_are_served_soon_wait_for_nothing() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(LONG_ROUND / 2).await;
            for _ in 0..3 {
                assert_eq!(fleet.publish_again(100).await, NO_TIME);
            }
        });
    }
}
