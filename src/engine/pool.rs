//! Where segments come from and go back to, so that a ring in steady state allocates
//! nothing and touches no fresh pages.

#![allow(unsafe_code, reason = "spares are kept as pointers")]

use std::alloc::Layout;
use std::ptr;

use super::account::Account;
use super::segment::{ALIGN_BYTES, Segment};
use super::sync::{Arc, AtomicPtr, Ordering};

/// Where segments come from and go back to. Only publishers come here, and none
/// waits for another.
#[derive(Debug)]
pub(super) struct Pool {
    /// One segment's memory.
    layout: Layout,
    /// How many segments the ring may own: those in it and the spares.
    budget: usize,
    /// Segments that wait to be used again, held by nobody else; null where there
    /// is none.
    spares: [AtomicPtr<Segment>; SPARES],
    account: Arc<Account>,
}

/// How many segments a ring keeps beside those in it: one to install next, one for
/// a second publisher that installs at the same time.
pub(super) const SPARES: usize = 2;

impl Pool {
    /// For a ring of `segments` segments of `segment_bytes` each.
    pub(super) fn new(segments: usize, segment_bytes: usize) -> Self {
        let Ok(layout) = Layout::from_size_align(segment_bytes, ALIGN_BYTES) else {
            unreachable!("the builder limits segments to far less than isize::MAX")
        };
        Pool {
            layout,
            budget: segments + SPARES,
            spares: Default::default(),
            account: Arc::new(Account::new()),
        }
    }

    /// An empty segment, or `None` while other publishers hold all the memory
    /// that there may be: they are about to install it, or to give it back.
    pub(super) fn take(&self, number: u64) -> Option<Arc<Segment>> {
        for spare in &self.spares {
            let Some(mut spare) = Self::withdraw(spare) else {
                continue;
            };
            // It was given back by its only holder, so this does not fail.
            if let Some(segment) = Arc::get_mut(&mut spare) {
                segment.use_again(number);
                return Some(spare);
            }
        }
        (self.account.open(self.budget))
            .then(|| Arc::new(Segment::new(number, self.layout, Arc::clone(&self.account))))
    }

    /// Takes back a segment that is not in the ring, or leaves it to those that
    /// still hold it.
    pub(super) fn give(&self, mut segment: Arc<Segment>) {
        // Acquire, inside: the next holder writes after the last one has read.
        if Arc::get_mut(&mut segment).is_none() {
            segment.retire();
            return;
        }
        let pointer = Arc::into_raw(segment).cast_mut();
        for spare in &self.spares {
            // Release: pairs with the Acquire in `withdraw`.
            let given = spare.compare_exchange(
                ptr::null_mut(),
                pointer,
                Ordering::Release,
                Ordering::Relaxed,
            );
            if given.is_ok() {
                return;
            }
        }
        // SAFETY: from `into_raw` above, and not among the spares.
        drop(unsafe { Arc::from_raw(pointer) });
    }

    fn withdraw(spare: &AtomicPtr<Segment>) -> Option<Arc<Segment>> {
        // Acquire: pairs with the Release in `give`.
        let pointer = spare.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: what is among the spares came from `into_raw`, and whoever takes
        // it out, as the exchange just did, has its one reference.
        (!pointer.is_null()).then(|| unsafe { Arc::from_raw(pointer) })
    }

    /// Bytes that the ring owns.
    pub(super) fn live_bytes(&self) -> u64 {
        self.account.live() as u64 * self.layout.size() as u64
    }

    /// Bytes that left the ring but are still held.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.account.retired() as u64 * self.layout.size() as u64
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for spare in &self.spares {
            drop(Self::withdraw(spare));
        }
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn segments_are_used_again_and_never_more_than_the_budget() {
        let pool = Pool::new(2, 64);
        let mut taken: Vec<_> = (0..4).map(|n| pool.take(n).unwrap()).collect();
        assert!(pool.take(4).is_none(), "two segments and two spares");
        let last = taken.pop().unwrap();
        let address = Arc::as_ptr(&last);
        pool.give(last);
        assert_eq!(pool.live_bytes(), 4 * 64, "it waits as a spare");
        let again = pool.take(4).unwrap();
        assert_eq!((Arc::as_ptr(&again), again.number()), (address, 4));
    }

    #[test]
    fn what_leases_hold_is_counted_beside_the_budget() {
        let pool = Pool::new(1, 64);
        let taken: Vec<_> = (0..3).map(|n| pool.take(n).unwrap()).collect();
        let held = Arc::clone(&taken[0]);
        for segment in taken {
            pool.give(segment);
        }
        assert_eq!(pool.pinned_bytes(), 64);
        assert_eq!(pool.live_bytes(), 2 * 64, "two spares");
        let owned: Vec<_> = (3..6).map(|n| pool.take(n).unwrap()).collect();
        assert!(
            pool.take(6).is_none(),
            "a retired segment makes room for one"
        );
        drop(held);
        assert_eq!(pool.pinned_bytes(), 0);
        for segment in owned {
            pool.give(segment);
        }
        assert_eq!(pool.live_bytes(), 2 * 64, "beyond the spares it is freed");
    }
}
