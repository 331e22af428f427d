//! Times, as a histogram of them.

use hdrhistogram::Histogram;

/// Three digits of every time up to an hour.
const DIGITS: u8 = 3;
const LONGEST_NS: u64 = 3600 * 1_000_000_000;

/// Times in nanoseconds, each to three digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Fails only for bounds in the wrong order and more than five digits.
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Latency(histogram.expect("the bounds are constants"))
    }
}

impl Latency {
    /// Takes a time into account.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// How many times were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that so many percent are not longer than. Zero if there are none.
    #[must_use]
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }

    /// The longest.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.0.max()
    }

    /// The arithmetic mean.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        self.0.mean()
    }

    /// Takes in what another one has.
    pub fn add(&mut self, other: &Latency) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }
}
