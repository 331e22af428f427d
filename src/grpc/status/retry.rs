//! When a refused caller should try again: the delays of `RetryInfo`, from the server's own
//! load.
//!
//! Callers that were told to come back stand in a queue, as far as the server knows: each gets
//! the next place, and the places are as far apart as the server can well take the callers.
//! A single gateway that is refused waits for little more than [`Queue::first`]. Where many
//! are refused at once, such as by a stop, they come back one after the other. Once a caller's
//! time has passed its place is free again, so a delay shrinks as soon as refusals become few.
//!
//! Each delay is jittered, and none is longer than [`Queue::longest`]: a longer queue is told
//! to come back at any time of the later half of that.
//!
//! A peer that ignores its delays makes those of others longer, up to that bound: it is load as
//! well.
//!
//! The queues belong to the process, not to a listener or an engine: what they ration is the
//! process's time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Streams that ended or were refused for what does not last. A storm of 5,000 gateways is
/// taken in 0.3 s (`docs/benchmarks.md`), publishing beside it: a quarter of that rate leaves
/// room for the events.
static RECONNECTS: Queue = Queue::new(
    Duration::from_millis(200),
    Duration::from_micros(250),
    Duration::from_secs(10),
);
/// A server that stops: it comes back in a second or so, if it does.
static RESTART: Queue = Queue::new(
    Duration::from_secs(1),
    Duration::from_micros(250),
    Duration::from_secs(10),
);
/// A server that is full: only those that leave make room, so the more are refused the longer
/// each of them waits: all of them together ask about a thousand times a second.
static ROOM: Queue = Queue::new(
    Duration::from_secs(1),
    Duration::from_millis(1),
    Duration::from_secs(30),
);

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Soon: what was wrong does not last.
    Soon,
    /// After a restart, or elsewhere.
    AfterRestart,
    /// When somebody else has left.
    WhenThereIsRoom,
    /// After this time, which a limit gives.
    After(Duration),
}

impl Retry {
    /// The delay of this caller.
    pub(super) fn delay(self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let now = START.elapsed();
        match self {
            Retry::Soon => RECONNECTS.delay(now),
            Retry::AfterRestart => RESTART.delay(now),
            Retry::WhenThereIsRoom => ROOM.delay(now),
            // Not before: it would be refused again.
            Retry::After(delay) => delay.saturating_add(between(Duration::ZERO, delay / 4)),
        }
    }
}

/// Callers that were told to come back.
#[derive(Debug)]
struct Queue {
    /// How long the first of them waits, half of that more or less.
    first: Duration,
    /// How far apart their places are.
    apart: Duration,
    /// The longest delay.
    longest: Duration,
    /// The time, in nanoseconds, from which on nobody has a place. Relaxed suffices for it: it
    /// guards no other memory.
    end: AtomicU64,
}

impl Queue {
    const fn new(first: Duration, apart: Duration, longest: Duration) -> Self {
        Queue {
            first,
            apart,
            longest,
            end: AtomicU64::new(0),
        }
    }

    /// Gives a caller the next place, and says how long it is until then.
    fn delay(&self, now: Duration) -> Duration {
        let now = nanos(now);
        let last = now.saturating_add(nanos(self.longest));
        let place = |end: u64| end.max(now);
        let end = self
            .end
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |end| {
                Some(place(end).saturating_add(nanos(self.apart)).min(last))
            })
            // It always updates; what it gives is what was there before.
            .unwrap_or_else(|end| end);
        let wait = Duration::from_nanos(place(end) - now);
        let delay = wait.saturating_add(between(self.first / 2, self.first * 3 / 2));
        if delay <= self.longest {
            delay
        } else {
            between(self.longest / 2, self.longest)
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn between(shortest: Duration, longest: Duration) -> Duration {
    rand::random_range(shortest..=longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn queue() -> Queue {
        Queue::new(ms(100), ms(10), ms(1000))
    }

    #[test]
    fn a_single_caller_waits_for_the_first_delay() {
        let queue = queue();
        for second in 0..100 {
            let delay = queue.delay(Duration::from_secs(second));
            assert!((ms(50)..=ms(150)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn callers_that_are_refused_at_once_come_back_one_after_the_other() {
        let queue = queue();
        for place in 0..50 {
            let delay = queue.delay(ms(7));
            let wait = ms(10) * place;
            assert!(
                (wait + ms(50)..=wait + ms(150)).contains(&delay),
                "{delay:?}"
            );
        }
        // Those have all come: their places are free.
        assert!(queue.delay(ms(600)) <= ms(150));
    }

    #[test]
    fn no_delay_is_longer_than_the_longest_and_a_full_queue_is_spread() {
        let queue = queue();
        let delays: Vec<_> = (0..10_000).map(|_| queue.delay(ms(3))).collect();
        assert!(delays.iter().all(|&delay| delay <= ms(1000)));
        let late = &delays[200..];
        assert!(late.iter().all(|&delay| delay >= ms(500)));
        let halves = late.iter().filter(|&&delay| delay < ms(750)).count();
        assert!((3000..7000).contains(&halves), "{halves} of {}", late.len());
        // However many there were, they are forgotten after the longest delay.
        assert!(queue.delay(ms(1010)) <= ms(150));
    }

    #[test]
    fn a_limits_own_time_is_never_undercut_and_nothing_overflows() {
        for _ in 0..100 {
            let delay = Retry::After(ms(400)).delay();
            assert!((ms(400)..=ms(500)).contains(&delay), "{delay:?}");
        }
        assert_eq!(Retry::After(Duration::ZERO).delay(), Duration::ZERO);
        assert_eq!(Retry::After(Duration::MAX).delay(), Duration::MAX);
        let queue = queue();
        for _ in 0..3 {
            assert!(queue.delay(Duration::MAX) <= ms(1000));
        }
    }
}
