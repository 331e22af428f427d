//! How much a principal may use: streams at once, events and bytes a second.
//!
//! Rates are token buckets that hold one second's worth. The arithmetic is that of the generic
//! cell rate algorithm: a bucket is the moment at which it will be full again, one word that is
//! changed by compare-and-swap. It is written here because a rate of bytes needs what general
//! rate limiters do not have: fractions of a nanosecond a byte (64 MiB/s is 14.9 ns; in whole
//! nanoseconds the rate is 6 % too high), batches that are larger than the bucket, and giving
//! back.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{AccessError, Identity};

/// When to try again with one more stream. Streams end when others decide it, so no figure of
/// ours would be better.
const RETRY_STREAM: Duration = Duration::from_secs(1);

/// The limits of a principal. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Calls that stay open, at once: subscriptions and streams of publishers.
    pub max_streams: Option<u32>,
    /// Published events a second, at least 1.
    pub events_per_second: Option<u64>,
    /// Published bytes a second, at least 1.
    pub bytes_per_second: Option<u64>,
}

impl Limits {
    /// At most this many calls that stay open, at once. Default: no limit.
    #[must_use]
    pub fn max_streams(self, streams: u32) -> Self {
        Limits {
            max_streams: Some(streams),
            ..self
        }
    }

    /// At most this many published events a second. Default: no limit.
    ///
    /// A second's worth may come at once. A batch of more than that is taken when nothing was
    /// published for a second, and the next one waits until it is made up for.
    #[must_use]
    pub fn events_per_second(self, events: u64) -> Self {
        Limits {
            events_per_second: Some(events),
            ..self
        }
    }

    /// At most this many published bytes a second, counted like
    /// [`events_per_second`](Self::events_per_second). Default: no limit.
    #[must_use]
    pub fn bytes_per_second(self, bytes: u64) -> Self {
        Limits {
            bytes_per_second: Some(bytes),
            ..self
        }
    }

    fn are_none(self) -> bool {
        self == Limits::default()
    }
}

/// A bucket that is filled with so many tokens a second, and holds a second's worth.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    since: Instant,
    /// The moment at which it is full if nothing more is taken, in nanoseconds from `since`.
    full_at: AtomicU64,
}

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    fn new(per_second: u64) -> Self {
        Bucket {
            per_second: per_second.max(1),
            since: Instant::now(),
            full_at: AtomicU64::new(0),
        }
    }

    /// The time in which so many tokens come in, rounded up.
    fn cost(&self, tokens: u64) -> u64 {
        let nanos = u128::from(tokens) * u128::from(SECOND);
        let nanos = nanos.div_ceil(u128::from(self.per_second));
        // Half of all time that there is: sums do not overflow.
        u64::try_from(nanos).unwrap_or(u64::MAX).min(u64::MAX / 2)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX / 4)
    }

    /// Takes so many tokens. Where they are more than the bucket holds, it must be full, and
    /// is in debt afterwards.
    ///
    /// # Errors
    ///
    /// How long to wait. Nothing was taken.
    fn take(&self, tokens: u64, now: u64) -> Result<(), Duration> {
        let cost = self.cost(tokens);
        let needed = cost.min(SECOND);
        // Relaxed: the number protects nothing but itself.
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let full_at = full_at.max(now);
                let lacks = full_at - now;
                (lacks.saturating_add(needed) <= SECOND).then(|| full_at.saturating_add(cost))
            });
        taken.map(drop).map_err(|full_at| {
            let lacks = full_at.saturating_sub(now).saturating_add(needed);
            Duration::from_nanos(lacks.saturating_sub(SECOND).max(1))
        })
    }

    /// Gives back what was taken for nothing.
    fn give_back(&self, tokens: u64) {
        let cost = self.cost(tokens);
        // Relaxed: as above. It always succeeds.
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.saturating_sub(cost))
            });
    }

    /// Whether it is as good as new.
    fn is_full(&self) -> bool {
        // Relaxed: as above.
        self.full_at.load(Ordering::Relaxed) <= self.now()
    }
}

/// What one caller has used of its limits. Its calls share it.
#[derive(Debug)]
pub(super) struct Quota {
    limits: Limits,
    open: Arc<AtomicU32>,
    events: Option<Arc<Bucket>>,
    bytes: Option<Arc<Bucket>>,
}

impl Quota {
    /// `None` where there is nothing to count.
    pub(super) fn new(limits: Limits) -> Option<Arc<Self>> {
        let bucket = |rate: Option<u64>| rate.map(|rate| Arc::new(Bucket::new(rate)));
        (!limits.are_none()).then(|| {
            Arc::new(Quota {
                limits,
                open: Arc::default(),
                events: bucket(limits.events_per_second),
                bytes: bucket(limits.bytes_per_second),
            })
        })
    }

    /// The same with other limits: streams stay counted, and so does a rate that stays.
    fn with_limits(&self, limits: Limits) -> Arc<Self> {
        let bucket = |old: &Option<Arc<Bucket>>, rate: Option<u64>| {
            let rate = rate?;
            let kept = old.as_ref().filter(|old| old.per_second == rate);
            Some(kept.map_or_else(|| Arc::new(Bucket::new(rate)), Arc::clone))
        };
        Arc::new(Quota {
            limits,
            open: Arc::clone(&self.open),
            events: bucket(&self.events, limits.events_per_second),
            bytes: bucket(&self.bytes, limits.bytes_per_second),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// What its streams are counted in.
    pub(super) fn streams(&self) -> &Arc<AtomicU32> {
        &self.open
    }

    pub(super) fn open_stream(&self, principal: &str) -> Result<StreamPermit, AccessError> {
        let most = self.limits.max_streams.unwrap_or(u32::MAX);
        // Relaxed: the count protects nothing but itself.
        let counted = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < most).then_some(open.saturating_add(1))
            });
        match counted {
            Ok(_) => Ok(StreamPermit(Some(Arc::clone(&self.open)))),
            Err(_) => Err(AccessError::TooManyStreams {
                principal: principal.to_owned(),
                limit: most,
                retry_after: RETRY_STREAM,
            }),
        }
    }

    pub(super) fn take(&self, principal: &str, events: u32, bytes: u64) -> Result<(), AccessError> {
        let too_fast = |setting, retry_after| AccessError::TooFast {
            principal: principal.to_owned(),
            setting,
            retry_after,
        };
        let events = u64::from(events);
        if let Some(bucket) = &self.events {
            bucket
                .take(events, bucket.now())
                .map_err(|wait| too_fast("events_per_second", wait))?;
        }
        if let Some(bucket) = &self.bytes
            && let Err(wait) = bucket.take(bytes, bucket.now())
        {
            if let Some(bucket) = &self.events {
                bucket.give_back(events);
            }
            return Err(too_fast("bytes_per_second", wait));
        }
        Ok(())
    }

    /// Whether nothing would be lost with it.
    fn is_unused(&self) -> bool {
        let full = |bucket: &Option<Arc<Bucket>>| bucket.as_ref().is_none_or(|b| b.is_full());
        // Relaxed: the count protects nothing but itself.
        self.open.load(Ordering::Relaxed) == 0 && full(&self.events) && full(&self.bytes)
    }
}

/// The right to have a stream open. It counts until it is dropped.
#[must_use = "the stream counts until the permit is dropped"]
pub struct StreamPermit(Option<Arc<AtomicU32>>);

impl StreamPermit {
    /// That of a caller without limits.
    pub(super) fn unlimited() -> Self {
        StreamPermit(None)
    }
}

impl StreamPermit {
    /// Whether it counts among this caller's streams, or neither is counted.
    pub(crate) fn counts_for(&self, identity: &Identity) -> bool {
        match (&self.0, identity.streams()) {
            (Some(counted), Some(open)) => Arc::ptr_eq(counted, open),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            // Relaxed: the count protects nothing but itself.
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamPermit").finish_non_exhaustive()
    }
}

/// The quotas of a principal: one for each name that its credentials have.
#[derive(Debug)]
pub(super) struct Quotas {
    limits: Limits,
    callers: Mutex<Callers>,
}

#[derive(Debug, Default)]
struct Callers {
    by_name: HashMap<Box<str>, Arc<Quota>>,
    /// At how many of them to look for unused ones.
    look_at: usize,
}

/// Fewer are kept, used or not.
const FEW_CALLERS: usize = 64;

impl Quotas {
    pub(super) fn new(limits: Limits) -> Self {
        Quotas {
            limits,
            callers: Mutex::default(),
        }
    }

    /// Those of the same principal, with the limits that it has now.
    pub(super) fn with_limits(&self, limits: Limits) -> Self {
        let mut callers = Callers::default();
        if !limits.are_none() {
            let old = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = old.by_name.iter().filter(|(_, quota)| !quota.is_unused());
            callers.by_name = kept
                .map(|(name, quota)| (name.clone(), quota.with_limits(limits)))
                .collect();
        }
        Quotas {
            limits,
            callers: Mutex::new(callers),
        }
    }

    /// The quota of who has a credential with this name.
    pub(super) fn of(&self, name: &str) -> Option<Arc<Quota>> {
        if self.limits.are_none() {
            return None;
        }
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = callers.by_name.get(name) {
            return Some(Arc::clone(quota));
        }
        if callers.by_name.len() >= callers.look_at.max(FEW_CALLERS) {
            // Whoever holds one may be about to use it.
            callers
                .by_name
                .retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.is_unused());
            callers.look_at = 2 * callers.by_name.len();
        }
        let quota = Quota::new(self.limits)?;
        callers.by_name.insert(name.into(), Arc::clone(&quota));
        Some(quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_bucket_gives_a_seconds_worth_and_then_its_rate() {
        let bucket = Bucket::new(1000);
        assert_eq!(bucket.take(1000, 0), Ok(()));
        assert_eq!(bucket.take(1, 0), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(1, MILLISECOND), Ok(()));
        assert_eq!(
            bucket.take(500, MILLISECOND),
            Err(Duration::from_millis(500))
        );
        assert_eq!(bucket.take(500, 501 * MILLISECOND), Ok(()));
    }

    #[test]
    fn a_batch_beyond_a_seconds_worth_needs_a_full_bucket_and_is_made_up_for() {
        let bucket = Bucket::new(1000);
        assert_eq!(bucket.take(1, 0), Ok(()));
        assert_eq!(bucket.take(5000, 0), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(5000, MILLISECOND), Ok(()));
        assert_eq!(
            bucket.take(1, MILLISECOND),
            Err(Duration::from_millis(4001))
        );
        assert_eq!(bucket.take(1, 4002 * MILLISECOND), Ok(()));
    }

    #[test]
    fn a_rate_of_bytes_is_exact_over_many_batches() {
        let bucket = Bucket::new(64 << 20);
        let mut taken = 0;
        for now in (0..10 * SECOND).step_by(MILLISECOND as usize) {
            while bucket.take(64 << 10, now).is_ok() {
                taken += 64 << 10;
            }
        }
        // Ten seconds, and the full bucket at the start.
        let most = 11 * (64u64 << 20);
        assert!((most - (1 << 20)..=most).contains(&taken), "{taken}");
    }

    #[test]
    fn the_largest_numbers_neither_overflow_nor_panic() {
        for rate in [0, 1, u64::MAX] {
            let bucket = Bucket::new(rate);
            let first = bucket.take(u64::MAX, 0);
            assert_eq!(first, Ok(()));
            let _ = bucket.take(u64::MAX, u64::MAX / 4);
            let _ = bucket.take(u64::MAX, u64::MAX);
            bucket.give_back(u64::MAX);
        }
    }

    #[test]
    fn events_of_a_batch_that_has_too_many_bytes_are_given_back() {
        let limits = Limits::default().events_per_second(10).bytes_per_second(1);
        let quota = Quota::new(limits).expect("it has limits");
        assert_eq!(quota.take("p", 1, 1 << 20), Ok(()));
        for _ in 0..100 {
            let refused = quota.take("p", 9, 1);
            let is_bytes = matches!(
                refused,
                Err(AccessError::TooFast {
                    setting: "bytes_per_second",
                    ..
                })
            );
            assert!(is_bytes, "{refused:?}");
        }
    }

    #[test]
    fn a_permit_counts_until_it_is_dropped_and_through_a_change_of_limits() {
        let quotas = Quotas::new(Limits::default().max_streams(2));
        let quota = quotas.of("").expect("it has limits");
        let first = quota.open_stream("p").expect("the first");
        let second = quota.open_stream("p").expect("the second");
        let refused = AccessError::TooManyStreams {
            principal: "p".to_owned(),
            limit: 2,
            retry_after: RETRY_STREAM,
        };
        assert_eq!(quota.open_stream("p").map(drop), Err(refused));
        drop(first);
        let third = quota.open_stream("p").expect("a place is free");

        let later = quotas.with_limits(Limits::default().max_streams(3));
        let later = later.of("").expect("it has limits");
        let fourth = later.open_stream("p").expect("the third place");
        assert!(later.open_stream("p").is_err());
        drop((second, third));
        let _fifth = later.open_stream("p").expect("a place is free");
        drop(fourth);
    }

    #[test]
    fn a_rate_that_stays_goes_on_after_a_reload() {
        let limits = Limits::default().events_per_second(1);
        let quotas = Quotas::new(limits);
        let quota = quotas.of("a").expect("it has limits");
        assert!(quota.take("p", 1000, 0).is_ok());
        let later = quotas.with_limits(limits.max_streams(1));
        let again = later.of("a").expect("it has limits");
        assert!(again.take("p", 1, 0).is_err());
        let other = quotas.with_limits(limits.events_per_second(2));
        let other = other.of("a").expect("it has limits");
        assert!(other.take("p", 1, 0).is_ok());
    }

    #[test]
    fn callers_that_use_nothing_are_forgotten() {
        let quotas = Quotas::new(Limits::default().max_streams(1));
        let held = quotas.of("held").expect("it has limits");
        let permit = quotas.of("open").map(|quota| quota.open_stream("p"));
        for caller in 0..10_000 {
            drop(quotas.of(&caller.to_string()));
        }
        let callers = quotas.callers.lock().expect("nothing has panicked");
        assert!(
            callers.by_name.len() <= FEW_CALLERS + 2,
            "{}",
            callers.by_name.len()
        );
        let kept = callers.by_name.get("held").expect("it is held");
        assert!(Arc::ptr_eq(kept, &held));
        assert!(callers.by_name.contains_key("open"));
        drop(permit);
    }
}
