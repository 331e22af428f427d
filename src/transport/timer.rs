//! A timer of microseconds. The runtime's own counts milliseconds, and rounds them up.

use std::time::Duration;

use tokio::time::sleep;

/// What one task waits for, again and again.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Late by what the system adds, some 50 µs.
    #[cfg(target_os = "linux")]
    Precise(linux::PreciseTimer),
    /// Late by up to a millisecond.
    Coarse,
}

impl Timer {
    /// The best that the current runtime and the system have.
    pub(crate) fn new() -> Self {
        #[cfg(target_os = "linux")]
        match linux::PreciseTimer::new() {
            Ok(timer) => return Timer::Precise(timer),
            Err(error) => tracing::warn!("cannot have a precise timer: {error}"),
        }
        Timer::Coarse
    }

    /// Returns after this time.
    pub(crate) async fn sleep(&mut self, time: Duration) {
        #[cfg(target_os = "linux")]
        if let Timer::Precise(timer) = self {
            match timer.sleep(time).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!("the precise timer failed: {error}");
                    *self = Timer::Coarse;
                }
            }
        }
        sleep(time).await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code, reason = "tokio cannot see that a descriptor stays open")]

    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::io::{Errno, read};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A `timerfd` that the runtime watches.
    #[derive(Debug)]
    pub(crate) struct PreciseTimer {
        timer: AsyncFd<OwnedFd>,
    }

    impl PreciseTimer {
        /// Fails when there is no file descriptor left.
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // SAFETY: the `OwnedFd` moves into the `AsyncFd`, which never lets go of it, so
            // the descriptor stays open and the timer's until both are dropped.
            let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
            Ok(PreciseTimer { timer })
        }

        pub(super) async fn sleep(&mut self, time: Duration) -> io::Result<()> {
            let timespec = |time: Duration| Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            };
            let once = Itimerspec {
                it_interval: timespec(Duration::ZERO),
                // Zero would disarm it.
                it_value: timespec(time.max(Duration::from_nanos(1))),
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut ready = self.timer.readable().await?;
                match read(self.timer.get_ref(), &mut [0; 8]) {
                    Ok(_) => return Ok(()),
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_is_never_early_and_can_be_used_again() {
        let mut timer = Timer::new();
        #[cfg(target_os = "linux")]
        assert!(matches!(timer, Timer::Precise(_)));
        for micros in [0, 1, 300, 1500] {
            let (began, time) = (Instant::now(), Duration::from_micros(micros));
            timer.sleep(time).await;
            assert!(began.elapsed() >= time);
        }
    }

    #[tokio::test]
    async fn a_sleep_that_was_given_up_does_not_cut_the_next_one_short() {
        let mut timer = Timer::new();
        tokio::select! {
            biased;
            () = timer.sleep(Duration::from_millis(5)) => panic!("it was early"),
            () = std::future::ready(()) => {}
        }
        std::thread::sleep(Duration::from_millis(10));
        let (began, time) = (Instant::now(), Duration::from_millis(20));
        timer.sleep(time).await;
        assert!(began.elapsed() >= time);
    }
}
