//! A cell for one task's waker, filled by the task and emptied by whoever wakes.

#![allow(unsafe_code, reason = "a cell behind two bits")]

use std::fmt;
use std::mem;
use std::task::Waker;

use super::sync::{AtomicUsize, Ordering, UnsafeCell, spin_loop};

/// Nobody is at the cell.
const IDLE: usize = 0;
/// The task is putting its waker in.
const REGISTERING: usize = 0b01;
/// Somebody is taking the waker out.
const WAKING: usize = 0b10;

/// One task parks here, anybody wakes it, and neither waits for the other.
///
/// The two bits of `state` are locks that are only ever tried. The task takes
/// `REGISTERING` to put its waker in; a waking thread takes `WAKING` to take it
/// out. Who finds the cell idle has it alone. If they meet, the task learns of the
/// other's bit when it is done and wakes itself, so no wake-up is lost:
///
/// - the waking thread is first: the task finds `WAKING`, and wakes itself at once;
/// - the task is first: the waking thread leaves its bit and goes; the task finds
///   it when it wants to return to `IDLE`, takes its waker out again and wakes.
///
/// (The design is that of `AtomicWaker` in the futures and tokio crates.)
pub(super) struct WakerCell {
    state: AtomicUsize,
    waker: UnsafeCell<Option<Waker>>,
}

impl WakerCell {
    pub(super) fn new() -> Self {
        WakerCell {
            state: AtomicUsize::new(IDLE),
            waker: UnsafeCell::new(None),
        }
    }

    /// Leaves `waker` to be woken by the next [`wake`](Self::wake). For one task
    /// at a time; a second one that registers at the same time is woken at once.
    pub(super) fn register(&self, waker: &Waker) {
        // Acquire: sees the cell as the last holder left it.
        let idle =
            self.state
                .compare_exchange(IDLE, REGISTERING, Ordering::Acquire, Ordering::Acquire);
        if idle.is_err() {
            // What the other wakes for may be what this task waits for.
            waker.wake_by_ref();
            // Until the other is done, the task will come back here.
            spin_loop();
            return;
        }
        let stale = self.waker.with_mut(|own| {
            // SAFETY: the state is REGISTERING, set by us from IDLE: the cell is ours.
            let own = unsafe { &mut *own };
            match own {
                Some(old) if old.will_wake(waker) => None,
                _ => {
                    // Cloning is a stranger's code: if it panics, the cell must not
                    // stay locked for its next user.
                    let unlock = Unlock(&self.state);
                    let clone = waker.clone();
                    mem::forget(unlock);
                    own.replace(clone)
                }
            }
        });
        // AcqRel: gives the waker to the next holder; sees what a waking thread
        // did before it left its bit.
        let met = self
            .state
            .compare_exchange(REGISTERING, IDLE, Ordering::AcqRel, Ordering::Acquire)
            .is_err();
        if met {
            let own = self.waker.with_mut(|own| {
                // SAFETY: the state is REGISTERING | WAKING: the waking thread has
                // left the cell to us.
                unsafe { &mut *own }.take()
            });
            // AcqRel: as above.
            self.state.swap(IDLE, Ordering::AcqRel);
            if let Some(own) = own {
                own.wake();
            }
        }
        drop(stale);
    }

    /// Wakes the task that is registered, if there is one.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    /// Takes the waker out, to be woken or forgotten.
    pub(super) fn take(&self) -> Option<Waker> {
        // AcqRel: sees the registered waker; shows the task what was done before.
        match self.state.fetch_or(WAKING, Ordering::AcqRel) {
            IDLE => {
                let waker = self.waker.with_mut(|waker| {
                    // SAFETY: the state is WAKING, set by us from IDLE: the cell is
                    // ours.
                    unsafe { &mut *waker }.take()
                });
                // Release: gives the empty cell to the next holder.
                self.state.fetch_and(!WAKING, Ordering::Release);
                waker
            }
            // The task finds our bit, or another waking thread has the waker.
            _ => None,
        }
    }
}

struct Unlock<'a>(&'a AtomicUsize);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        // Release: gives the cell to its next holder.
        self.0.store(IDLE, Ordering::Release);
    }
}

impl fmt::Debug for WakerCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakerCell").finish_non_exhaustive()
    }
}

// SAFETY: the waker is touched only by who holds the state, one at a time, and
// wakers are Send and Sync.
unsafe impl Sync for WakerCell {}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_registered_task_is_woken_once() {
        let count = Arc::new(Count::default());
        let cell = WakerCell::new();
        cell.wake();
        cell.register(&Waker::from(Arc::clone(&count)));
        cell.wake();
        cell.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_newest_waker_counts() {
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let cell = WakerCell::new();
        cell.register(&Waker::from(Arc::clone(&old)));
        cell.register(&Waker::from(Arc::clone(&new)));
        cell.wake();
        assert_eq!(old.0.load(Ordering::Relaxed), 0);
        assert_eq!(new.0.load(Ordering::Relaxed), 1);
    }
}
