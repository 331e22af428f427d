//! [`Backoff`]: how long to wait before the next attempt.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Exponential back-off with jitter.
///
/// The n-th wait in a row is drawn uniformly from the upper half of a ceiling
/// that starts at `first` and doubles up to `max`. The jitter spreads gateways
/// that lost the same server at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Default for Backoff {
    /// From 200 milliseconds to 10 seconds.
    fn default() -> Self {
        Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
    }
}

impl Backoff {
    /// Waits between `first / 2` and `max`. Limits without sense are moved:
    /// `first` is at least one millisecond, `max` at least `first`, and neither
    /// is more than a day.
    ///
    /// A lower `first` brings a gateway back sooner after a blip, and a storm
    /// of them back harder after a restart. A higher `max` spares a server that
    /// is down for long, and finds it later when it is back.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.clamp(SHORTEST, LONGEST);
        Backoff {
            first,
            max: max.clamp(first, LONGEST),
            ceiling: first,
        }
    }

    /// The longest wait.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The next wait; the one after it may be up to twice as long.
    pub fn wait(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.max);
        rand::random_range(ceiling / 2..=ceiling)
    }

    /// Starts over with short waits.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }

    /// What a stream that stayed up for `lasted` means for the next wait: one
    /// that lasted as long as the longest wait was healthy, and waits start
    /// over. One that broke earlier counts as another failure, else a server
    /// that accepts and drops would be hammered.
    pub fn stream_lasted(&mut self, lasted: Duration) {
        if lasted >= self.max {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for _ in 0..100 {
            let mut backoff = Backoff::new(ms(100), ms(350));
            for ceiling in [ms(100), ms(200), ms(350), ms(350)] {
                let wait = backoff.wait();
                assert!(ceiling / 2 <= wait && wait <= ceiling, "{wait:?}");
            }
        }
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::HashSet<_> = (0..100)
            .map(|_| Backoff::new(ms(1000), ms(1000)).wait())
            .collect();
        assert!(waits.len() > 50, "{} different waits", waits.len());
    }

    #[test]
    fn only_a_stream_that_lasted_starts_over() {
        let mut backoff = Backoff::new(ms(100), ms(1000));
        while backoff.ceiling < backoff.max {
            backoff.wait();
        }
        backoff.stream_lasted(ms(999));
        assert!(backoff.wait() >= ms(500));
        backoff.stream_lasted(ms(1000));
        assert!(backoff.wait() <= ms(100));
    }

    #[test]
    fn limits_without_sense_are_moved() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(backoff.max(), ms(1));
        assert!(!backoff.wait().is_zero());
        let mut backoff = Backoff::new(Duration::MAX, Duration::ZERO);
        for _ in 0..2 {
            let wait = backoff.wait();
            assert!(LONGEST / 2 <= wait && wait <= LONGEST, "{wait:?}");
        }
    }
}
