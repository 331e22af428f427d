//! Times, as a histogram of them, or as one for each part of a span.

use std::ops::Range;

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

/// Latencies of what was due in a span of time, apart for each of so many windows of it:
/// all of one length, except where that does not divide the span.
#[derive(Clone, Debug)]
pub struct Windows {
    from_ns: u64,
    to_ns: u64,
    each_ns: u64,
    latencies: Vec<Latency>,
}

impl Windows {
    /// For so many windows, but at least one. Each takes 250 KiB.
    #[must_use]
    pub fn of(span_ns: Range<u64>, windows: usize) -> Self {
        let Range { start, end } = span_ns;
        let windows = windows.max(1);
        Windows {
            from_ns: start,
            to_ns: end,
            each_ns: end.saturating_sub(start).div_ceil(windows as u64).max(1),
            latencies: vec![Latency::default(); windows],
        }
    }

    /// Takes into account what was due then, and came so much later. What was due before
    /// the span, or after it, is left out.
    #[inline]
    pub fn record(&mut self, due_ns: u64, late_ns: u64) {
        if due_ns >= self.from_ns && due_ns < self.to_ns {
            let window = (due_ns - self.from_ns) / self.each_ns;
            self.latencies[window as usize].record(late_ns);
        }
    }

    /// Each window, by [`now_ns`](super::now_ns), and what was due in it.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, &Latency)> {
        let begin = |n: u64| {
            let begin_ns = self.from_ns.saturating_add(n.saturating_mul(self.each_ns));
            begin_ns.min(self.to_ns)
        };
        let spans = (0..).map(move |n| begin(n)..begin(n + 1));
        spans.zip(&self.latencies)
    }

    /// All of the span.
    #[must_use]
    pub fn all(&self) -> Latency {
        let mut all = Latency::default();
        for latency in &self.latencies {
            all.add(latency);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_what_was_due_in_it() {
        let mut windows = Windows::of(100..130, 3);
        for due_ns in [99, 100, 109, 110, 129, 130] {
            windows.record(due_ns, due_ns);
        }
        let found: Vec<_> = windows
            .iter()
            .map(|(span, latency)| (span, latency.count(), latency.max_ns()))
            .collect();
        assert_eq!(
            found,
            [(100..110, 2, 109), (110..120, 1, 110), (120..130, 1, 129)]
        );
        assert_eq!(windows.all().count(), 4);
    }

    #[test]
    fn a_span_of_any_length_can_be_divided() {
        for span in [0..u64::MAX, 5..5, 5..6, 0..1_000_003] {
            let mut windows = Windows::of(span.clone(), 7);
            let inside = [span.start, span.end.saturating_sub(1)];
            for due_ns in inside {
                windows.record(due_ns, 1);
            }
            let counted = inside.iter().filter(|&due| span.contains(due)).count();
            assert_eq!(windows.all().count(), counted as u64, "{span:?}");
            let mut next = span.start;
            for (window, latency) in windows.iter() {
                assert_eq!(window.start, next);
                let counted = inside.iter().filter(|&due| window.contains(due)).count();
                assert_eq!(latency.count(), counted as u64, "{window:?} of {span:?}");
                next = window.end;
            }
            assert_eq!(next, span.end);
        }
        assert_eq!(Windows::of(0..10, 0).iter().count(), 1);
    }
}
