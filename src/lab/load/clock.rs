//! The machine's clocks, which all processes share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some fixed moment, the same for every process of this machine.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // The kernel counts from boot, upwards: neither is ever negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The time of a moment by the clock of [`now_ns`], of which the calendar's clock has this.
#[must_use]
pub(super) fn from_calendar_ns(then_ns: u64) -> u64 {
    let calendar = clock_gettime(ClockId::Realtime);
    let ahead_ns = calendar.tv_sec as i128 * 1_000_000_000 + calendar.tv_nsec as i128;
    let ago_ns = ahead_ns - i128::from(then_ns);
    u64::try_from(i128::from(now_ns()) - ago_ns).unwrap_or(0)
}
