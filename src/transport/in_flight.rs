//! Bytes of one stream that are queued and not written, and who watches them.
//!
//! HTTP/2 has a window for each stream, and one that is shut holds up that stream alone:
//! the connection's reads and writes do not show it. So a stream with something left to
//! write when its task goes to sleep is *tracked*: the [watchdog](super::watchdog) sees
//! whether any of it goes, and asks for the end of a stream that stalls.
//!
//! A stream whose bytes are written in the poll that queued them is never tracked: it
//! touches nothing but its own two counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::Handle;
use crate::service::Stall;

/// A stream that the watchdog watches.
#[derive(Debug)]
pub(super) struct Tracked {
    handle: Arc<Handle>,
    queued_bytes: AtomicU64,
    written_bytes: AtomicU64,
    ended: AtomicBool,
    /// Set by the watchdog, taken by the driver.
    stall: Mutex<Option<Stall>>,
}

impl Tracked {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Tracked {
            handle,
            queued_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            stall: Mutex::default(),
        }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// While something is queued: a number that stays the same for as long as nothing of
    /// it is written.
    pub(super) fn progress(&self) -> Option<u64> {
        // Acquire: whatever is seen written is also seen queued, so that there never
        // seems to be less than nothing. Pairs with the Release in `InFlight::written`.
        let written = self.written_bytes.load(Ordering::Acquire);
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        (queued > written).then_some(written)
    }

    /// Whether the stream has ended.
    pub(super) fn has_ended(&self) -> bool {
        // Relaxed: nothing else is read because of it.
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the driver has yet to look at what was reported.
    pub(super) fn is_reported(&self) -> bool {
        let stall = self.stall.lock().unwrap_or_else(PoisonError::into_inner);
        stall.is_some()
    }

    /// Has the driver look at the stream.
    pub(super) fn report(&self, stall: Stall) {
        *self.stall.lock().unwrap_or_else(PoisonError::into_inner) = Some(stall);
        self.handle.wake();
    }
}

/// What one stream has queued, for the task that writes it.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    bytes: u64,
    /// How much of that the watchdog knows of.
    reported_bytes: u64,
    tracked: Option<Arc<Tracked>>,
}

impl InFlight {
    /// More is to be written.
    pub(super) fn queue(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// What is queued and not written.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.bytes
    }

    /// Some of it is written.
    pub(super) fn written(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let reported = bytes.min(self.reported_bytes);
        if reported > 0
            && let Some(tracked) = &self.tracked
        {
            self.reported_bytes -= reported;
            // Release: pairs with the Acquire in `Tracked::progress`.
            tracked.written_bytes.fetch_add(reported, Ordering::Release);
        }
    }

    /// The task goes to sleep: what is queued by now waits for the peer, and is watched
    /// from here on. `track` makes the watchdog know of the stream, the first time.
    pub(super) fn blocked(&mut self, track: impl FnOnce() -> Arc<Tracked>) {
        let unreported = self.bytes - self.reported_bytes;
        if unreported > 0 {
            self.reported_bytes = self.bytes;
            let tracked = self.tracked.get_or_insert_with(track);
            // Relaxed: `progress` needs no more than that it comes before `written`,
            // which the same task calls.
            tracked
                .queued_bytes
                .fetch_add(unreported, Ordering::Relaxed);
        }
    }

    /// What the watchdog has found since the last call.
    pub(super) fn take_stall(&self) -> Option<Stall> {
        let tracked = self.tracked.as_ref()?;
        let mut stall = tracked.stall.lock().unwrap_or_else(PoisonError::into_inner);
        stall.take()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(tracked) = &self.tracked {
            tracked.ended.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transport::test_support::pair;

    #[tokio::test]
    async fn only_what_waits_is_watched() {
        let (socket, _peer) = pair();
        let tracked = Arc::new(Tracked::new(Arc::clone(socket.handle())));
        let mut in_flight = InFlight::default();
        let track = || Arc::clone(&tracked);

        in_flight.queue(5);
        in_flight.written(5);
        in_flight.blocked(|| panic!("nothing waits"));
        in_flight.queue(5);
        in_flight.written(2);
        in_flight.blocked(track);
        assert_eq!(tracked.progress(), Some(0));
        in_flight.written(1);
        in_flight.blocked(|| panic!("it is tracked"));
        assert_eq!(tracked.progress(), Some(1));
        in_flight.written(2);
        assert_eq!(tracked.progress(), None);
        in_flight.queue(3);
        in_flight.blocked(|| panic!("it is tracked"));
        assert!(tracked.progress().is_some() && !tracked.has_ended());
        drop(in_flight);
        assert!(tracked.has_ended());
    }

    #[tokio::test]
    async fn a_stall_is_taken_once_and_wakes_the_driver() {
        let (socket, _peer) = pair();
        let handle = socket.handle();
        assert!(handle.take_wakeup(), "the first time");
        let tracked = Arc::new(Tracked::new(Arc::clone(handle)));
        let mut in_flight = InFlight::default();
        assert_eq!(in_flight.take_stall(), None);
        in_flight.queue(1);
        in_flight.blocked(|| Arc::clone(&tracked));
        let stall = Stall {
            lasted: Duration::from_secs(30),
            pinned_bytes: None,
        };
        tracked.report(stall);
        assert!(handle.take_wakeup());
        assert_eq!(in_flight.take_stall(), Some(stall));
        assert_eq!(in_flight.take_stall(), None);
    }
}
