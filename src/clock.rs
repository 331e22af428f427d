//! Where the engine's time comes from: [`SystemClock`], or a [`ManualClock`] that
//! tests and simulations set; and [`BootClock`], for leases.
//!
//! The engine stamps every event, to know later whether it is still inside the
//! resume window. That window is seconds to hours, so a coarse reading will do,
//! and on Linux it is taken from `CLOCK_MONOTONIC_COARSE`: a few nanoseconds,
//! whatever clock source the machine has, where `Instant::now` costs several times
//! that, and a system call on virtual machines without a usable TSC. `rustix` is
//! the safe way to it; on Linux it is a dependency of the engine itself (its `time`
//! module only), not of the `server` feature, because a backend that embeds the
//! engine publishes through the same stamp.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source of time. Never asked for the time of day, only for time passed.
pub trait Clock: Send + Sync {
    /// The time since some fixed moment of this clock's choice. Each reading
    /// should be no earlier than the one before. It is taken for every published
    /// event, so it should be cheap; being some milliseconds late does no harm.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The machine's monotonic clock: on Linux its coarse reading, 1 to 10 ms behind.
#[derive(Clone, Copy)]
pub struct SystemClock {
    /// Everything before it is of no interest: it keeps the readings small.
    #[cfg(not(target_os = "linux"))]
    start: std::time::Instant,
}

impl SystemClock {
    /// The machine's clock.
    #[must_use]
    pub fn new() -> Self {
        SystemClock {
            #[cfg(not(target_os = "linux"))]
            start: std::time::Instant::now(),
        }
    }
}

impl SystemClock {
    /// The same as [`now`](Clock::now), in whole milliseconds: the way there that costs
    /// a publish least.
    pub(crate) fn now_ms(self) -> u64 {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
            // The kernel counts from boot, upwards: neither is ever negative.
            time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
        }
        #[cfg(not(target_os = "linux"))]
        {
            self.start.elapsed().as_millis() as u64
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemClock")
            .field("now", &self.now())
            .finish()
    }
}

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        // The kernel counts from boot, upwards: the conversion fails for negative
        // times only.
        Duration::try_from(time).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The machine's clock, which also counts the time for which the machine is suspended: on Linux
/// `CLOCK_BOOTTIME`, elsewhere [`Instant`](std::time::Instant).
///
/// For what must not seem fresh after a sleep, such as a lease. A reading takes some 20 ns, four
/// times as long as that of [`SystemClock`].
#[derive(Clone, Copy)]
pub struct BootClock {
    #[cfg(any(not(target_os = "linux"), miri))]
    start: std::time::Instant,
}

impl BootClock {
    /// The machine's clock.
    #[must_use]
    pub fn new() -> Self {
        BootClock {
            #[cfg(any(not(target_os = "linux"), miri))]
            start: std::time::Instant::now(),
        }
    }
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BootClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootClock")
            .field("now", &self.now())
            .finish()
    }
}

impl Clock for BootClock {
    #[cfg(all(target_os = "linux", not(miri)))]
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Never negative, as above.
        Duration::try_from(time).unwrap_or_default()
    }

    #[cfg(any(not(target_os = "linux"), miri))]
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is told the time. Its clones are the same
/// clock: keep one and give the other to the engine.
///
/// ```
/// use galaxy_push::clock::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let same = clock.clone();
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(same.now(), Duration::from_secs(2));
/// ```
#[derive(Clone, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time, also to an earlier one: what a broken clock does can be
    /// tried out. Times beyond 584 years are cut off there.
    pub fn set(&self, now: Duration) {
        // Relaxed, here and below: the number is all there is to see, nothing else
        // is published through it.
        self.nanos.store(to_nanos(now), Ordering::Relaxed);
    }

    /// Moves the time forward by `by`; it stops at 584 years.
    pub fn advance(&self, by: Duration) {
        let by = to_nanos(by);
        self.nanos
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_add(by))
            })
            .ok();
    }
}

fn to_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("now", &self.now())
            .finish()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_behind_the_machine_and_catches_up() {
        let clock = SystemClock::new();
        // On Linux both count from boot.
        #[cfg(target_os = "linux")]
        let machine = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            Duration::try_from(time).unwrap()
        };
        #[cfg(not(target_os = "linux"))]
        let machine = || clock.start.elapsed();

        // It steps by ticks, of which a busy machine takes some late.
        let begun = machine();
        while clock.now() < begun + Duration::from_millis(20) {
            assert!(
                machine() < begun + Duration::from_secs(60),
                "it stands still"
            );
            std::thread::yield_now();
        }
        let coarse = clock.now();
        let coarse_ms = u128::from(clock.now_ms());
        let later = clock.now();
        assert!(later <= machine(), "it is ahead");
        assert!((coarse.as_millis()..=later.as_millis()).contains(&coarse_ms));
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn a_manual_clock_tells_what_it_was_told() {
        let clock = ManualClock::new();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.set(Duration::from_millis(1500));
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.now(), Duration::from_millis(1501));
        clock.set(Duration::from_millis(3));
        assert_eq!(clock.now(), Duration::from_millis(3));
    }

    #[test]
    fn a_manual_clock_stops_where_it_ends() {
        let clock = ManualClock::new();
        clock.set(Duration::MAX);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn handles_share_one_clock() {
        let clock = Arc::new(ManualClock::new());
        let behind_a_trait: Arc<dyn Clock> = clock.clone();
        ManualClock::clone(&clock).set(Duration::from_secs(7));
        assert_eq!(behind_a_trait.now(), Duration::from_secs(7));
    }

    #[test]
    fn both_show_their_time() {
        let clock = ManualClock::new();
        clock.set(Duration::from_secs(3));
        assert_eq!(format!("{clock:?}"), "ManualClock { now: 3s }");
        assert!(format!("{:?}", SystemClock::new()).starts_with("SystemClock { now: "));
    }
}
