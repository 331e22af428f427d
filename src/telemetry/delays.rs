//! How long things take, from a sample.
//!
//! To note the time of every event and of every delivery would cost as much as the delivery.
//! So an event is sampled a few times a second: its publisher notes when it was published,
//! and each gateway that delivers it notes how long that took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many sampled events are remembered, for gateways that deliver them late.
const SAMPLES: usize = 64;
/// Eight buckets for each power of two: percentiles are exact to a twelfth.
const STEPS: u32 = 3;
/// Up to 2^37 ns, which is 137 s; what is longer counts as that.
const MAX_EXPONENT: u32 = 37;
const FINE_BUCKETS: usize = ((MAX_EXPONENT - STEPS + 1) << STEPS) as usize;

/// The sampled events, and how long their deliveries took.
#[derive(Debug)]
pub(crate) struct Delays {
    started: Instant,
    /// The next event that is published is to be sampled.
    wanted: AtomicBool,
    /// The sequence of the newest sampled event.
    newest: AtomicU64,
    samples: Box<[Sample]>,
    histogram: Histogram,
}

#[derive(Debug, Default)]
struct Sample {
    /// 0: there is none, or it is being replaced.
    seq: AtomicU64,
    published_ns: AtomicU64,
}

/// When an event was published that is sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// Before everything.
    pub(super) const fn earliest() -> Self {
        Stamp(0)
    }
}

impl Delays {
    pub(super) fn new(bounds: &[Duration]) -> Self {
        Delays {
            started: Instant::now(),
            wanted: AtomicBool::new(true),
            newest: AtomicU64::new(0),
            samples: (0..SAMPLES).map(|_| Sample::default()).collect(),
            histogram: Histogram::new(bounds),
        }
    }

    pub(crate) fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The next event is to be sampled.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// What to do before events are published: notes the time if one of them is to be
    /// sampled.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Stamp> {
        // Relaxed: whoever finds it first takes it.
        (self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed))
            .then(|| Stamp(self.now_ns()))
    }

    /// The event `seq` was published, after the stamp was made. A gateway that has delivered
    /// it already is not sampled.
    #[cold]
    pub(crate) fn published(&self, seq: u64, stamp: Stamp) {
        let sample = &self.samples[(seq % SAMPLES as u64) as usize];
        // Release, all of them: they pair with the Acquires in `delivered`. A reader that finds
        // this time there finds the 0 before it, or a later sequence, when it looks again: so
        // one that finds the same sequence twice has its time.
        sample.seq.store(0, Ordering::Release);
        sample.published_ns.store(stamp.0, Ordering::Release);
        sample.seq.store(seq, Ordering::Release);
        self.newest.fetch_max(seq, Ordering::Release);
    }

    /// Gateways are to look at what they know of the event `seq`, though it is not sampled.
    #[cold]
    pub(super) fn notice(&self, seq: u64) {
        // Release: what is known of it is found by whoever finds it.
        self.newest.fetch_max(seq, Ordering::Release);
    }

    /// The newest sampled event.
    #[inline]
    pub(super) fn newest(&self) -> u64 {
        // Relaxed: `delivered` looks again.
        self.newest.load(Ordering::Relaxed)
    }

    /// Notes what was sampled of the events after `after` up to `last`, which were delivered
    /// just now to a gateway that has subscribed `since`.
    #[cold]
    pub(super) fn delivered(&self, after: u64, last: u64, since: Stamp) {
        let now_ns = self.now_ns();
        for sample in &self.samples {
            let seq = sample.seq.load(Ordering::Acquire);
            if seq <= after || seq > last {
                continue;
            }
            let published_ns = sample.published_ns.load(Ordering::Acquire);
            // What was published before it came, it has resumed: that is no delay of ours.
            if sample.seq.load(Ordering::Acquire) == seq && published_ns >= since.0 {
                self.histogram.record(now_ns.saturating_sub(published_ns));
            }
        }
    }

    /// The time now.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.now_ns())
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Durations, counted in buckets.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds_ns: Box<[u64]>,
    /// One for each bound, and one for what is longer.
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    /// Narrow ones, for percentiles.
    fine: Box<[AtomicU64]>,
}

/// A histogram at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    fine: Vec<u64>,
}

impl Histogram {
    pub(super) fn new(bounds: &[Duration]) -> Self {
        let zeros = |n| (0..n).map(|_| AtomicU64::new(0)).collect();
        Histogram {
            bounds_ns: bounds
                .iter()
                .map(|bound| u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX))
                .collect(),
            buckets: zeros(bounds.len() + 1),
            sum_ns: AtomicU64::new(0),
            fine: zeros(FINE_BUCKETS),
        }
    }

    /// Counts one.
    pub(crate) fn record(&self, ns: u64) {
        let at = self.bounds_ns.partition_point(|bound| *bound < ns);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.fine[fine_bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }

    /// Each bound in seconds with the number of those that were at most as long, and the sum
    /// of all in seconds. The last bound is infinite.
    pub(crate) fn cumulative(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = self.bounds_ns.iter().map(|ns| *ns as f64 / 1e9);
        let mut count = 0;
        let buckets = bounds.chain([f64::INFINITY]).zip(&self.buckets);
        let buckets = buckets.map(|(bound, bucket)| {
            count += bucket.load(Ordering::Relaxed);
            (bound, count)
        });
        let sum = self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        (buckets.collect(), sum)
    }

    /// What was counted by now.
    pub(super) fn counted(&self) -> Counted {
        let fine = self.fine.iter().map(|n| n.load(Ordering::Relaxed));
        Counted {
            fine: fine.collect(),
        }
    }
}

impl Counted {
    /// What was counted since.
    pub(super) fn since(&self, earlier: &Counted) -> Counted {
        let before = |at| earlier.fine.get(at).copied().unwrap_or(0);
        let fine = self.fine.iter().enumerate();
        Counted {
            fine: fine.map(|(at, n)| n.saturating_sub(before(at))).collect(),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.fine.iter().sum()
    }

    /// The duration that this share of all does not exceed, in seconds.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut before = 0;
        let at = self.fine.iter().position(|n| {
            before += n;
            before >= rank
        });
        at.map(|at| upper_bound_ns(at) as f64 / 1e9)
    }
}

fn fine_bucket(ns: u64) -> usize {
    let ns = ns.min((1 << MAX_EXPONENT) - 1);
    let exponent = ns.checked_ilog2().unwrap_or(0);
    if exponent < STEPS {
        return ns as usize;
    }
    let step = (ns >> (exponent - STEPS)) as usize - (1 << STEPS);
    (((exponent - STEPS + 1) as usize) << STEPS) + step
}

/// The longest duration that is counted there.
fn upper_bound_ns(bucket: usize) -> u64 {
    let (row, step) = (bucket >> STEPS, (bucket % (1 << STEPS)) as u64);
    match row {
        0 => step,
        _ => (((1 << STEPS) + step + 1) << (row - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_what_its_bounds_say() {
        for ns in (0..5000).chain((13..MAX_EXPONENT).flat_map(|e| [(1 << e) - 1, 1 << e])) {
            let bucket = fine_bucket(ns);
            assert!(ns <= upper_bound_ns(bucket), "{ns}");
            assert!(bucket == 0 || ns > upper_bound_ns(bucket - 1), "{ns}");
        }
        assert_eq!(fine_bucket(u64::MAX), FINE_BUCKETS - 1);
    }

    #[test]
    fn buckets_are_cumulative_and_percentiles_near() {
        let histogram = Histogram::new(&[Duration::from_millis(1), Duration::from_millis(10)]);
        let before = histogram.counted();
        assert_eq!(before.percentile(0.5), None);
        for ms in 1..=100 {
            histogram.record(ms * 1_000_000);
        }
        let (buckets, sum) = histogram.cumulative();
        assert_eq!(buckets, [(0.001, 1), (0.01, 10), (f64::INFINITY, 100)]);
        assert!((sum - 5.05).abs() < 1e-9);
        let counted = histogram.counted().since(&before);
        assert_eq!(counted.count(), 100);
        for (share, wanted) in [(0.5, 0.05), (0.99, 0.099), (1.0, 0.1)] {
            let found = counted.percentile(share).unwrap();
            assert!((wanted..wanted * 1.13).contains(&found), "{share}: {found}");
        }
    }

    #[test]
    fn an_event_is_sampled_when_one_is_wanted_and_counts_for_each_delivery() {
        let delays = Delays::new(&[Duration::from_secs(1)]);
        let early = delays.stamp();
        let stamp = delays.begin().expect("the first is wanted");
        assert!(delays.begin().is_none());
        delays.published(7, stamp);
        let late = Stamp(u64::MAX);
        for (after, last, since, counts) in [
            (0, 7, early, 1),
            (6, 100, early, 2),
            (7, 100, early, 2), // it was delivered before
            (0, 6, early, 2),   // it is to come
            (0, 7, late, 2),    // it was resumed
        ] {
            delays.delivered(after, last, since);
            assert_eq!(delays.histogram().counted().count(), counts);
        }
        delays.want();
        assert!(delays.begin().is_some());
    }
}
