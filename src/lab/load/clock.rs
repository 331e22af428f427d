//! The machine's monotonic clock, which all processes share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some fixed moment, the same for every process of this machine.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // The kernel counts from boot, upwards: neither is ever negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
