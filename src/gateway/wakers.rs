//! [`Wakers`]: those who wait for something that concerns the whole router.

use std::task::Waker;

use super::sync::{Mutex, lock};

/// Register first, then look whether it has come; make it come first, then wake. Either the one who
/// waits sees it, or is woken.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    pub(super) fn register(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        for waker in wakers {
            waker.wake();
        }
    }
}
