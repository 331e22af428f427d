//! Heartbeats: a quiet stream shows now and then that it lives, and how far it has come.
//!
//! A stream that is written to is not quiet. To note the time of every write would cost each of
//! them a look at the clock; the ring has noted when the last event was published, so only the
//! timer looks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::cursor::Seq;
use crate::engine::{Engine, Subscriber};

/// When the next one is due.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    /// Where the stream was when the timer was set.
    position: Seq,
    timer: Pin<Box<Sleep>>,
}

impl Heartbeat {
    /// The first one comes after so long without an event. Called on a tokio runtime.
    pub(super) fn new(interval: Duration, subscriber: &Subscriber) -> Self {
        Heartbeat {
            interval,
            position: subscriber.position().seq(),
            timer: Box::pin(sleep(interval)),
        }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Waits until one is due; to be called while there is nothing else to send.
    pub(super) fn poll(
        &mut self,
        engine: &Engine,
        subscriber: &Subscriber,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let position = subscriber.position().seq();
            let was_quiet = std::mem::replace(&mut self.position, position) == position;
            let age = match was_quiet {
                true => self.interval,
                // Of an event that is gone it is not known: it was sent a while ago.
                false => age(engine, position).unwrap_or(self.interval),
            };
            let left = self.interval.saturating_sub(age);
            if left.is_zero() {
                self.timer.as_mut().reset(Instant::now() + self.interval);
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + left);
        }
    }
}

/// How long ago the event was published.
fn age(engine: &Engine, seq: Seq) -> Option<Duration> {
    let before = seq.number().checked_sub(1)?;
    engine.age_of_next(Seq::issued(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::event::Event;
    use std::future::poll_fn;
    use tokio::time::{advance, timeout};

    /// tokio's, which a test moves.
    #[derive(Debug)]
    struct TokioClock(Instant);

    impl Clock for TokioClock {
        fn now(&self) -> Duration {
            self.0.elapsed()
        }
    }

    const INTERVAL: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    /// How long until the next is due, of a stream that has received everything.
    async fn due(
        heartbeat: &mut Heartbeat,
        engine: &Engine,
        subscriber: &mut Subscriber,
    ) -> Duration {
        while subscriber.try_recv().is_ok() {}
        let since = Instant::now();
        let next = poll_fn(|cx| heartbeat.poll(engine, subscriber, cx));
        timeout(100 * INTERVAL, next).await.unwrap();
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_quiet_stream_shows_that_it_lives() {
        let clock = TokioClock(Instant::now());
        let engine = Engine::builder().clock(clock).build().unwrap();
        let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k").unwrap();
        let mut subscriber = engine.subscribe("g", "").unwrap();
        let heartbeat = &mut Heartbeat::new(INTERVAL, &subscriber);
        assert_eq!(due(heartbeat, &engine, &mut subscriber).await, INTERVAL);
        assert_eq!(due(heartbeat, &engine, &mut subscriber).await, INTERVAL);

        // It comes so long after the last event, to the millisecond.
        for _ in 0..3 {
            advance(7 * SECOND).await;
            engine.publisher().publish(event).unwrap();
        }
        advance(SECOND).await;
        let left = due(heartbeat, &engine, &mut subscriber).await;
        assert!(
            (9 * SECOND).abs_diff(left) <= Duration::from_millis(2),
            "{left:?}"
        );

        // An event that was published long ago was sent late: nobody knows when.
        engine.publisher().publish(event).unwrap();
        advance(15 * SECOND).await;
        assert_eq!(
            due(heartbeat, &engine, &mut subscriber).await,
            Duration::ZERO
        );
        assert_eq!(due(heartbeat, &engine, &mut subscriber).await, INTERVAL);
    }
}
