//! Coalescing under load: delayed wake-ups of subscribers, and delayed reads of publishers.
//!
//! A write costs much, and each further event in it little. While a *round* (wake all
//! parked subscribers, and have each write what there is) is shorter than the time between
//! two events, no event waits. When rounds run into one another, starting the next one at
//! once only divides the same events into more writes: so a round that found a *backlog*
//! is followed by a pause ([`PAUSE`]). Threads of publishers see the backlog, and delay
//! their next look at their sockets ([`READ_DELAY`]): what is published meanwhile waits
//! for a round anyway.
//!
//! `docs/design/transport.md` has the measurements.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A round that delivers at least this many events to each subscriber means that events
/// arrive faster than rounds complete.
const MANY_EVENTS: u64 = 4;
/// Minimum duration of a round before the next one is delayed. Shorter rounds are never
/// delayed, so latency grows by a small factor at most.
const LONG_ROUND: Duration = Duration::from_micros(500);
/// The delay: the shortest that the runtime's timer can tell; it may take up to twice as
/// long.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a publisher thread delays its next wait for its sockets while subscribers have
/// a backlog.
///
/// Most of what a publish by itself costs is waking a thread, and its going to sleep again.
/// With a backlog the machine has no time for that, and an event waits for its turn for
/// milliseconds anyway. A response comes later by this at most (and by what the system adds
/// to a sleep, some 50 µs), and by half of it on average.
const READ_DELAY: Duration = Duration::from_micros(300);

/// Whether subscribers have a backlog: what is published meanwhile waits for a pause's end.
/// Shared by the threads of subscribers, which set it, and those of publishers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog(Arc<AtomicBool>);

impl Backlog {
    // Relaxed, here and below: it is a hint.
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, backlog: bool) {
        // Most often it is so already, and others look at it.
        if self.is_set() != backlog {
            self.0.store(backlog, Ordering::Relaxed);
        }
    }

    /// What a publisher thread calls before it waits for its sockets.
    pub(crate) fn delay_read(&self) {
        if self.is_set() {
            std::thread::sleep(READ_DELAY);
        }
    }
}

/// Clears the backlog when nobody sets it any more.
struct ClearOnDrop(Backlog);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Wakes parked subscribers, and says when they have a `backlog`. Runs until it is dropped,
/// or until `poll_round` returns `false`.
///
/// `poll_round` wakes those that are parked when something was published since; `newest` is
/// the number of the newest event.
pub(crate) async fn wake_in_rounds(
    mut poll_round: impl FnMut(&mut Context<'_>) -> Poll<bool>,
    newest: impl Fn() -> u64,
    backlog: Backlog,
) {
    let backlog = ClearOnDrop(backlog);
    let backlog = &backlog.0;
    let mut served = newest();
    while poll_fn(|cx| {
        let round = poll_round(cx);
        if round.is_pending() {
            backlog.set(false);
        }
        round
    })
    .await
    {
        let (began, head) = (Instant::now(), newest());
        let events = head - served;
        served = head;
        back_of_the_queue().await;
        let found_backlog = events >= MANY_EVENTS && began.elapsed() >= LONG_ROUND;
        backlog.set(found_backlog);
        if found_backlog {
            sleep(PAUSE).await;
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
    use crate::engine::Engine;
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
        backlog: Backlog,
        received: UnboundedReceiver<(Cursor, Instant)>,
    }

    impl Fleet {
        async fn new(write: Duration) -> Self {
            let engine = Engine::builder().build().unwrap();
            let mut subscriber = engine.subscribe("g", "").unwrap();
            let (tell, received) = unbounded_channel();
            let backlog = Backlog::default();
            let mut notifier = engine.notifier();
            let head = engine.clone();
            tokio::spawn(wake_in_rounds(
                move |cx| notifier.poll_round(cx),
                move || head.head().seq().number(),
                backlog.clone(),
            ));
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
                backlog,
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
    fn a_round_that_found_a_backlog_is_followed_by_a_pause() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(LONG_ROUND).await;
            for _ in 0..3 {
                assert!(!fleet.backlog.is_set());
                let waited = fleet.publish_again(MANY_EVENTS as usize).await;
                assert!(waited >= PAUSE && waited <= 2 * PAUSE, "{waited:?}");
                // That was one event, which is no backlog.
                back_of_the_queue().await;
                back_of_the_queue().await;
                assert!(!fleet.backlog.is_set());
                // Its pause, if there is one, is over.
                sleep(10 * PAUSE).await;
            }
        });
    }

    #[test]
    fn the_backlog_lasts_until_a_round_finds_nothing_or_little() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(LONG_ROUND).await;
            assert_eq!(fleet.publish(MANY_EVENTS as usize).await, NO_TIME);
            for _ in 0..3 {
                back_of_the_queue().await;
            }
            assert!(fleet.backlog.is_set(), "during the pause");
            sleep(10 * PAUSE).await;
            assert!(!fleet.backlog.is_set(), "nothing was published since");
        });
    }

    #[test]
    fn events_that_arrive_one_by_one_are_not_delayed() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(10 * LONG_ROUND).await;
            for _ in 0..3 {
                assert_eq!(fleet.publish_again(MANY_EVENTS as usize - 1).await, NO_TIME);
            }
        });
    }

    #[test]
    fn short_rounds_are_not_delayed() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(LONG_ROUND / 2).await;
            for _ in 0..3 {
                assert_eq!(fleet.publish_again(100).await, NO_TIME);
            }
        });
    }
}
