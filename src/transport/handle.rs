//! What others may know of a connection, and ask of it: the watchdog, the listener, a stop.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use tokio::sync::Semaphore;

use crate::access::Peer;
use crate::service::{Caller, Cut};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The peer has yet to complete its preface and its first SETTINGS.
    Handshake,
    Serving,
    /// Our side is shut down; what was written is on its way to the peer.
    Closing,
    Closed,
}

/// A connection, without owning it. Its [driver](super::driver) does what is asked here.
#[derive(Debug)]
pub(crate) struct Handle {
    caller: Caller,
    /// The listener's free connection slots.
    slots: Arc<Semaphore>,
    phase: AtomicU8,
    /// Counts the changes between a socket that takes bytes (even) and one that is full
    /// (odd).
    write_blocks: AtomicU64,
    open_streams: AtomicUsize,
    streams_opened: AtomicU64,
    /// Why it is cut, as a [`Cut`]; 0 while it is not.
    cut: AtomicU8,
    /// How often something was read.
    reads: AtomicU64,
    ping_wanted: AtomicBool,
    /// Set by [`wake`](Self::wake); the driver has not looked why.
    wake_flag: AtomicBool,
    /// The driver's task. Its waker stays here after a wake-up, where an `AtomicWaker`
    /// would be empty: so a driver that saw no wake flag need not register again.
    task: Mutex<Option<Waker>>,
}

impl Handle {
    pub(super) fn new(caller: Caller, slots: Arc<Semaphore>) -> Self {
        Handle {
            caller,
            slots,
            phase: AtomicU8::new(Phase::Handshake as u8),
            write_blocks: AtomicU64::new(0),
            open_streams: AtomicUsize::new(0),
            streams_opened: AtomicU64::new(0),
            cut: AtomicU8::new(0),
            reads: AtomicU64::new(0),
            ping_wanted: AtomicBool::new(false),
            wake_flag: AtomicBool::new(true),
            task: Mutex::default(),
        }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn peer(&self) -> Peer {
        self.caller.peer
    }

    /// Whether the listener has no slot left for a further connection.
    pub(super) fn is_crowded(&self) -> bool {
        self.slots.available_permits() == 0
    }

    pub(super) fn phase(&self) -> Phase {
        // Relaxed, here and below: each of these is looked at on its own, by a watchdog
        // that comes back.
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Handshake,
            1 => Phase::Serving,
            2 => Phase::Closing,
            _ => Phase::Closed,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// While the socket is full: a number that stays the same for as long as it has been
    /// full without a pause.
    pub(super) fn write_block(&self) -> Option<u64> {
        let blocks = self.write_blocks.load(Ordering::Relaxed);
        (blocks % 2 == 1).then_some(blocks)
    }

    /// The socket has become full, or takes bytes again.
    pub(super) fn toggle_write_block(&self) {
        self.write_blocks.fetch_add(1, Ordering::Relaxed);
    }

    /// While no stream is open: a number that stays the same for as long as none is
    /// opened.
    pub(super) fn idle(&self) -> Option<u64> {
        let opened = self.streams_opened.load(Ordering::Relaxed);
        (self.open_streams.load(Ordering::Relaxed) == 0).then_some(opened)
    }

    pub(super) fn stream_opened(&self) {
        self.streams_opened.fetch_add(1, Ordering::Relaxed);
        self.open_streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_ended(&self) {
        self.open_streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// A number that stays the same for as long as nothing is read.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(super) fn has_read(&self) {
        // Relaxed, and no read-modify-write: nobody else writes it.
        let reads = self.reads.load(Ordering::Relaxed);
        self.reads.store(reads + 1, Ordering::Relaxed);
    }

    /// Ends the connection at once, whatever it is doing: its task is woken and finds the
    /// socket broken, and the kernel forgets what it still held.
    pub(super) fn cut(&self, why: Cut) {
        // Release: pairs with the Acquire in `is_cut`. A task that registers after this
        // wake-up sees it; one that registered before is woken. The first reason stays.
        let first = self
            .cut
            .compare_exchange(0, why as u8, Ordering::Release, Ordering::Relaxed);
        if first.is_ok() {
            self.wake();
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire) != 0
    }

    /// Why it is cut, if it is.
    pub(super) fn cut_why(&self) -> Option<Cut> {
        let why = self.cut.load(Ordering::Acquire);
        [
            Cut::Stalled,
            Cut::KeepaliveTimeout,
            Cut::Late,
            Cut::Crowded,
            Cut::Stopping,
        ]
        .into_iter()
        .find(|cut| *cut as u8 == why)
    }

    /// Has the driver send a keepalive ping.
    pub(super) fn request_ping(&self) {
        // Relaxed: the driver sees it by the wake flag.
        self.ping_wanted.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether a ping was requested since the last call.
    pub(super) fn take_ping_request(&self) -> bool {
        self.ping_wanted.load(Ordering::Relaxed) && self.ping_wanted.swap(false, Ordering::Relaxed)
    }

    /// Stores the task's waker, so that [`wake`](Self::wake) reaches the task even when it
    /// is not waiting for the socket.
    pub(super) fn register(&self, waker: &Waker) {
        let mut task = self.task();
        if task.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        let old = task.replace(waker.clone());
        // Dropped without the lock: a waker's drop is code of others.
        drop(task);
        drop(old);
    }

    /// Forgets the task: the handle may be looked at for longer than it lives.
    pub(super) fn forget_task(&self) {
        let task = self.task().take();
        drop(task);
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the driver, once it is registered.
    pub(super) fn wake(&self) {
        // A swap, so that the Release of everybody who set the flag reaches `take_wakeup`,
        // and not only the last one's.
        self.wake_flag.swap(true, Ordering::Release);
        self.wake_task();
    }

    fn wake_task(&self) {
        let task = self.task().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Whether [`wake`](Self::wake) was called since the last call; also true the first
    /// time. Without a wake-up it costs one load.
    ///
    /// Call [`register`](Self::register) first. `wake` sets the flag before it reads the
    /// waker: if it read a stale waker, this call sees the flag; if it sets the flag later,
    /// it sees the new waker.
    pub(super) fn take_wakeup(&self) -> bool {
        // Acquire: pairs with the swap in `wake`, so that what the waker did is visible.
        self.wake_flag.load(Ordering::Acquire) && self.wake_flag.swap(false, Ordering::AcqRel)
    }
}

/// The waker that a driver gives to its socket: readable bytes set the wake flag.
impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        Handle::wake(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Handle::wake(self);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::transport::test_support::Wakes;

    fn handle() -> Handle {
        Handle::new(Peer::Unix { uid: None }.into(), Arc::new(Semaphore::new(0)))
    }

    /// Waits for a wake-up, in a task of its own.
    fn wakeup(handle: &Arc<Handle>) -> JoinHandle<()> {
        let handle = Arc::clone(handle);
        tokio::spawn(poll_fn(move |cx| {
            handle.register(cx.waker());
            if handle.take_wakeup() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
    }

    #[tokio::test]
    async fn each_wakeup_is_taken_once_and_wakes_the_task() {
        let handle = Arc::new(handle());
        wakeup(&handle).await.unwrap(); // the first time
        let cut = |handle: &Handle| handle.cut(Cut::Late);
        for wake in [Handle::wake, Handle::request_ping, cut] {
            let waiting = wakeup(&handle);
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "taken twice");
            wake(&handle);
            waiting.await.unwrap();
        }
    }

    #[test]
    fn a_slow_waker_does_not_lose_the_next_wakeup() {
        let wakes = Arc::new(Wakes::default());
        let handle = handle();
        handle.register(&wakes.waker());
        assert!(handle.take_wakeup(), "the first time");
        // Somebody wakes it, and is slow.
        handle.wake_flag.store(true, Ordering::Release);
        assert!(handle.take_wakeup());
        handle.wake_task();
        assert!(!handle.take_wakeup());
        assert_eq!(wakes.count(), 1);
        handle.wake();
        assert_eq!(wakes.count(), 2);
        assert!(handle.take_wakeup());
    }

    #[test]
    fn a_ping_is_requested_once() {
        let handle = handle();
        assert!(!handle.take_ping_request());
        handle.request_ping();
        assert!(handle.take_ping_request() && !handle.take_ping_request());
    }

    #[test]
    fn it_is_idle_while_no_stream_is_open() {
        let handle = handle();
        assert_eq!(handle.idle(), Some(0));
        handle.stream_opened();
        assert_eq!(handle.idle(), None);
        handle.stream_ended();
        assert_eq!(handle.idle(), Some(1));
    }
}
