//! How many spans there may be: so many for each part of a second, and no more.

use std::sync::atomic::{AtomicU32, Ordering};

/// What is left until the next refill. What is not used is not kept.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u32,
    left: AtomicU32,
}

impl Budget {
    pub(super) fn new(per_second: u32) -> Self {
        Budget {
            per_second,
            left: AtomicU32::new(per_second.min(10)),
        }
    }

    /// Whether anything is left. Who has been told so may still find nothing.
    #[inline]
    pub(super) fn is_left(&self) -> bool {
        // Relaxed, here and below: it counts, and orders nothing.
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Takes one, if there is one.
    pub(super) fn take(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok()
    }

    /// One that was taken was not used.
    pub(super) fn give_back(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Fills it for the next part of a second.
    pub(super) fn refill(&self, times_per_second: u32) {
        let share = self.per_second.div_ceil(times_per_second.max(1));
        self.left.store(share, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_given_than_there_is() {
        let budget = Budget::new(50);
        for times in [10, 4] {
            budget.refill(times);
            budget.refill(times);
            let taken = (0..100).filter(|_| budget.take()).count();
            assert_eq!(taken, 50_usize.div_ceil(times as usize), "nothing adds up");
            assert!(!budget.is_left());
        }
        budget.give_back();
        assert!(budget.is_left() && budget.take() && !budget.take());
    }
}
