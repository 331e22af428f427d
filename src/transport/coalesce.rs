//! Coalescing under load: rests between rounds of wake-ups.
//!
//! A write costs much, and each further event in it little. While a *round* (wake all
//! parked subscribers, and have each write what there is) is shorter than the time between
//! two events, no event waits. When rounds run into one another, starting the next one at
//! once only divides the same events into more writes. So a round that found several events
//! is followed by a *rest*, which is half as long as the round was: a third of the time of
//! its threads is left, and an event waits for little more than a round. Where a round found
//! many events, which are what its writes cost, the rest is shorter.
//!
//! [Our own runtime](crate::server::runtime) reads no sockets meanwhile: what arrives waits
//! for the next round anyway, and is read all at once.
//!
//! `docs/design/transport.md` has the measurements.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::send_queue;
use super::timer::Timer;
use crate::config::Delivery;

/// A round that delivers at least this many events to each subscriber means that events
/// arrive faster than rounds complete.
const SEVERAL_EVENTS: u64 = 2;
/// A write with more events than this costs mostly what these cost. A rest would make fewer
/// writes of them and save little, and what is late would be later: it gets shorter as they
/// become more.
const MANY_EVENTS: u64 = 16;
/// A rest that is shorter is not worth the timer.
const MIN_REST: Duration = Duration::from_micros(50);
/// After a round that takes much longer, there are many events for the next one as it is.
const MAX_REST: Duration = Duration::from_millis(5);
/// Which part of its round a rest lasts.
const SHORT_REST: f64 = 0.5;
/// The same for the sake of throughput.
const LONG_REST: f64 = 3.0;

thread_local! {
    /// Until when the thread rests.
    static RESTS_UNTIL: Cell<Option<std::time::Instant>> = const { Cell::new(None) };
}

/// What a thread calls before it waits for its sockets: returns at the end of its rest.
pub(crate) fn rest_thread() {
    if let Some(until) = RESTS_UNTIL.take() {
        let rest = until.saturating_duration_since(std::time::Instant::now());
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
    }
}

/// How long the rest is after a round that took so long, and delivered so many events.
fn rest(delivery: Delivery, round: Duration, events: u64) -> Duration {
    let rest = match delivery {
        Delivery::Latency => Duration::ZERO,
        Delivery::Auto if events < SEVERAL_EVENTS => Duration::ZERO,
        Delivery::Auto => {
            let share = MANY_EVENTS as f64 / events.max(MANY_EVENTS) as f64;
            round.mul_f64(SHORT_REST * share)
        }
        Delivery::Throughput => round.mul_f64(LONG_REST),
    };
    match rest.min(MAX_REST) {
        short if short < MIN_REST => Duration::ZERO,
        rest => rest,
    }
}

/// What wakes subscribers.
pub(crate) trait Wake {
    /// Wakes those that are parked when something was published since: `Ready(true)` when all
    /// of them are woken, `Ready(false)` when there will be no more.
    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<bool>;

    /// Whether a round has begun, and `poll_round` goes on with it next time.
    fn is_waking(&self) -> bool;

    /// The number of the newest event.
    fn newest(&self) -> u64;
}

/// Wakes parked subscribers, in rounds with rests. Runs until it is dropped, or until there
/// will be no more rounds.
pub(crate) async fn wake_in_rounds(mut wake: impl Wake, delivery: Delivery, mut timer: Timer) {
    let mut served = wake.newest();
    loop {
        let mut began = None;
        let goes_on = poll_fn(|cx| {
            let now = Instant::now();
            let polled = wake.poll_round(cx);
            // It wakes many of them a part at a time, and they write in between.
            if polled.is_ready() || wake.is_waking() {
                began.get_or_insert(now);
            }
            polled
        })
        .await;
        let Some(began) = began.filter(|_| goes_on) else {
            return;
        };
        let head = wake.newest();
        let events = head - served;
        served = head;
        back_of_the_queue().await;
        send_queue::submit();
        let rest = rest(delivery, began.elapsed(), events);
        if !rest.is_zero() {
            RESTS_UNTIL.set(Some(std::time::Instant::now() + rest));
            timer.sleep(rest).await;
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
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::cursor::Cursor;
    use crate::engine::Engine;
    use crate::event::Event;
    use crate::server::Rounds;

    /// `PushEvent { client_event: { user_id: "u", kind: "k" } }`
    const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";
    /// What a test's clock tells of nothing.
    const NO_TIME: Duration = Duration::ZERO;
    const ROUND: Duration = Duration::from_millis(4);
    const REST: Duration = Duration::from_millis(2);
    /// What the runtime's timer adds.
    const TICK: Duration = Duration::from_millis(1);

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

    /// An engine whose gateways take `write` each to write a batch.
    struct Fleet {
        engine: Engine,
        gateways: usize,
        received: UnboundedReceiver<(Cursor, Instant)>,
    }

    impl Fleet {
        /// With one gateway.
        async fn new(delivery: Delivery, write: Duration) -> Self {
            Fleet::of(1, delivery, write).await
        }

        async fn of(gateways: usize, delivery: Delivery, write: Duration) -> Self {
            let engine = Engine::builder().build().unwrap();
            let (tell, received) = unbounded_channel();
            tokio::spawn(wake_in_rounds(Rounds::of(&engine), delivery, Timer::Coarse));
            for n in 0..gateways {
                let mut subscriber = engine.subscribe(&n.to_string(), "").unwrap();
                let tell = tell.clone();
                tokio::spawn(async move {
                    while let Ok(batch) = poll_fn(|cx| subscriber.poll_recv(cx)).await {
                        tell.send((batch.last(), Instant::now())).unwrap();
                        advance(write).await;
                    }
                });
            }
            // All begin to wait.
            for _ in 0..10 {
                back_of_the_queue().await;
            }
            Fleet {
                engine,
                gateways,
                received,
            }
        }

        /// Publishes so many events at once; says, when all gateways have them, how long
        /// it was until the first had.
        async fn publish(&mut self, events: u64) -> Duration {
            let began = Instant::now();
            let events = vec![Event::parse(EVENT).unwrap(); events as usize];
            let published = self.engine.publisher().publish_batch(&events).unwrap();
            let mut times = Vec::new();
            while times.len() < self.gateways {
                let (cursor, at) = self.received.recv().await.unwrap();
                if cursor == published.last {
                    times.push(at - began);
                }
            }
            times[0]
        }

        /// What gateways are woken to write, and when that is written, one event more;
        /// says how long that one has to wait.
        async fn publish_again(&mut self, events: u64) -> Duration {
            assert_eq!(self.publish(events).await, NO_TIME);
            // What one finds before it waits again, it takes without being woken.
            for _ in 0..3 {
                back_of_the_queue().await;
            }
            self.publish(1).await
        }
    }

    #[test]
    fn a_round_of_several_events_is_followed_by_a_rest() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(Delivery::Auto, ROUND).await;
            for _ in 0..3 {
                let waited = fleet.publish_again(SEVERAL_EVENTS).await;
                assert!(waited >= REST && waited <= REST + TICK, "{waited:?}");
                // That one is written.
                sleep(10 * ROUND).await;
            }
        });
    }

    #[test]
    fn of_many_gateways_a_round_is_all_of_their_writes() {
        // More than are woken at once.
        const GATEWAYS: u32 = 400;
        on_a_still_clock(async {
            let write = ROUND / GATEWAYS;
            let mut fleet = Fleet::of(GATEWAYS as usize, Delivery::Auto, write).await;
            let waited = fleet.publish_again(SEVERAL_EVENTS).await;
            assert!(waited >= REST && waited <= REST + TICK, "{waited:?}");
        });
    }

    #[test]
    fn a_thread_rests_once_for_each_rest() {
        let rest = Duration::from_millis(2);
        let began = std::time::Instant::now();
        RESTS_UNTIL.set(Some(began + rest));
        rest_thread();
        assert!(began.elapsed() >= rest);
        assert_eq!(RESTS_UNTIL.take(), None);
    }

    #[test]
    fn events_that_arrive_one_by_one_are_not_delayed() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(Delivery::Auto, 10 * ROUND).await;
            for _ in 0..3 {
                assert_eq!(fleet.publish_again(SEVERAL_EVENTS - 1).await, NO_TIME);
            }
        });
    }

    #[test]
    fn for_latency_nothing_is_delayed() {
        on_a_still_clock(async {
            let mut fleet = Fleet::new(Delivery::Latency, ROUND).await;
            for _ in 0..3 {
                assert_eq!(fleet.publish_again(100).await, NO_TIME);
            }
        });
    }

    #[test]
    fn rests_follow_the_rounds_within_bounds() {
        let micros = Duration::from_micros;
        for (delivery, round, events, expected) in [
            (Delivery::Auto, 300, 2, 150),
            (Delivery::Auto, 300, 1, 0),
            (Delivery::Auto, 99, 9, 0),
            (Delivery::Auto, 800, MANY_EVENTS, 400),
            (Delivery::Auto, 800, 4 * MANY_EVENTS, 100),
            (Delivery::Auto, 99_000, 9, 5000),
            (Delivery::Latency, 9000, 9, 0),
            (Delivery::Throughput, 300, 1, 900),
            (Delivery::Throughput, 9000, 1, 5000),
            (Delivery::Throughput, 10, 1, 0),
        ] {
            let found = rest(delivery, micros(round), events);
            assert_eq!(found, micros(expected), "{delivery} {round} {events}");
        }
    }
}
