//! The segments that are in the ring: segment `number` is in slot
//! `number % slots`, until the segment `slots` later takes its place.
//!
//! Publishers and subscribers come to a segment in different ways. A subscriber
//! takes a [`Lease`]: it may be late, and then keeps what the ring gives up. A
//! publisher needs none: as long as its claim is not committed, the ring keeps the
//! segment for it (see [`claimed`](Slots::claimed)), so a pointer will do.

#![allow(unsafe_code, reason = "claimed segments are reached by pointer")]

use crossbeam::utils::CachePadded;

use super::pool::Pool;
use super::segment::{Lease, Segment};
use super::sync::{Arc, ArcCell, AtomicPtr, AtomicU64, Backoff, Ordering};

#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[ArcCell<Segment>]>,
    /// 2⁶⁴ divided by the number of slots, rounded up: see [`remainder`].
    reciprocal: u64,
    /// Where publishers find segment `number`: at `number & (announced.len() - 1)`,
    /// which takes no division. Their number is a power of two, no less than that of
    /// the slots.
    announced: Box<[Announced]>,
    /// The first event whose segment has not left the ring.
    floor: CachePadded<AtomicU64>,
    pool: Pool,
}

#[derive(Debug)]
struct Announced {
    /// The number of the segment that `pointer` points to, or [`NONE`]. Written
    /// after the pointer, by everybody who has found the segment installed, and
    /// always while a claim keeps it there: so both always tell of the same one.
    number: AtomicU64,
    pointer: AtomicPtr<Segment>,
}

/// Positions have 63 bits, so no segment has this number.
const NONE: u64 = u64::MAX;

impl Slots {
    /// As many empty slots. The first event to come will be `first`.
    pub(super) fn new(slots: usize, segment_bytes: usize, first: u64) -> Self {
        let nothing = || Announced {
            number: AtomicU64::new(NONE),
            pointer: AtomicPtr::default(),
        };
        Slots {
            slots: (0..slots).map(|_| ArcCell::empty()).collect(),
            reciprocal: reciprocal(slots as u64),
            announced: (0..slots.next_power_of_two()).map(|_| nothing()).collect(),
            floor: CachePadded::new(AtomicU64::new(first)),
            pool: Pool::new(slots, segment_bytes),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The first event whose segment has not left the ring.
    pub(super) fn floor(&self) -> u64 {
        // Acquire: who knows of a floor knows of the head that its writer knew, which
        // is no less than the event before the floor. (And who finds a segment replaced
        // finds a floor beyond it: that was raised before the exchange.)
        self.floor.load(Ordering::Acquire)
    }

    /// Lets the events before `first` leave the ring, though their segments are still in
    /// it. The event before it is published.
    pub(super) fn raise_floor(&self, first: u64) {
        // Release: pairs with the Acquire in `floor`.
        self.floor.fetch_max(first, Ordering::Release);
    }

    /// Segment `number`, installed if nobody has done that yet.
    ///
    /// # Safety
    ///
    /// The caller has a claim in segment `number`, or starting at its end, that is
    /// not committed, and uses the reference before it commits. Claims stay so
    /// close to the head that none is handed out in the segment that would take
    /// this one's slot, nor in the one before that, until then.
    pub(super) unsafe fn claimed(&self, number: u64) -> &Segment {
        let announced = self.announced(number);
        // Acquire: pairs with the Release in `announce`.
        while announced.number.load(Ordering::Acquire) != number {
            // Whoever entered it has not come to installing it: do it here.
            self.install(number);
        }
        // Relaxed: the number told that it is there.
        let segment = announced.pointer.load(Ordering::Relaxed);
        // SAFETY: it points to the segment `number`, which is in the ring: the
        // pointer is written while a claim keeps the segment there (or, for the
        // first segments, before there are claims), and so does the caller's.
        unsafe { &*segment }
    }

    /// Puts an empty segment `number` into its slot, unless it (or a later one)
    /// is there. What it replaces leaves the ring: every event in it is
    /// published, because claims keep that distance from the head.
    pub(super) fn install(&self, number: u64) {
        let slot = self.slot(number);
        let backoff = Backoff::new();
        loop {
            let current = slot.load();
            match current.as_ref() {
                Some(segment) if segment.number() == number => {
                    // Whoever put it there has perhaps not come to telling.
                    return self
                        .announced(number)
                        .announce(number, Arc::as_ptr(segment));
                }
                Some(segment) if segment.number() > number => return,
                _ => {}
            }
            let Some(segment) = self.pool.take(number) else {
                backoff.snooze();
                continue;
            };
            if let Some(old) = current.as_ref() {
                // Before the exchange: who finds the segment gone finds the floor
                // raised.
                self.raise_floor(old.sealed().last.saturating_add(1));
            }
            let pointer = Arc::as_ptr(&segment);
            match slot.exchange(current, Arc::clone(&segment)) {
                Ok(previous) => {
                    self.announced(number).announce(number, pointer);
                    if let Some(previous) = previous {
                        self.pool.give(previous);
                    }
                    return;
                }
                Err(()) => self.pool.give(segment),
            }
        }
    }

    /// A hold on segment `number`, if it is in the ring. `spent` is used again for
    /// it, where no batch counts on that any more.
    pub(super) fn lease(&self, number: u64, spent: Option<Arc<Lease>>) -> Option<Arc<Lease>> {
        let current = self.slot(number).load();
        let segment = current.as_ref().filter(|s| s.number() == number)?;
        let lease = Lease::new(Arc::clone(segment));
        Some(match spent {
            Some(mut spent) => match Arc::get_mut(&mut spent) {
                Some(own) => {
                    *own = lease;
                    spent
                }
                None => Arc::new(lease),
            },
            None => Arc::new(lease),
        })
    }

    fn slot(&self, number: u64) -> &ArcCell<Segment> {
        &self.slots[remainder(number, self.slots.len() as u64, self.reciprocal) as usize]
    }

    fn announced(&self, number: u64) -> &Announced {
        &self.announced[number as usize & (self.announced.len() - 1)]
    }
}

/// 2⁶⁴ divided by `divisor`, which is above 1, rounded up.
fn reciprocal(divisor: u64) -> u64 {
    u64::MAX / divisor + 1
}

/// `number % divisor`, by two multiplications where a division would take a good part
/// of a publish. (Lemire, Kaser, Kurz, "Faster remainder by direct computation", 2019:
/// exact where both have 32 bits. Larger numbers, after 2³² segments, are divided.)
fn remainder(number: u64, divisor: u64, reciprocal: u64) -> u64 {
    if number | divisor > u64::from(u32::MAX) {
        return number % divisor;
    }
    let fraction = u128::from(reciprocal.wrapping_mul(number));
    ((fraction * u128::from(divisor)) >> 64) as u64
}

impl Announced {
    /// Tells publishers where segment `number` is.
    fn announce(&self, number: u64, pointer: *const Segment) {
        // Relaxed: the number follows. Should several publishers write it, they
        // write the same.
        self.pointer.store(pointer.cast_mut(), Ordering::Relaxed);
        // Release: pairs with the Acquire in `claimed`.
        self.number.store(number, Ordering::Release);
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "arithmetic only, and much of it")]
        fn the_remainder_is_that_of_a_division(number: u64, shift in 0..64u32, divisor in 2..u64::MAX, less in 0..62u32) {
            let (number, divisor) = (number >> shift, (divisor >> less).max(2));
            prop_assert_eq!(remainder(number, divisor, reciprocal(divisor)), number % divisor);
        }
    }

    #[test]
    fn the_remainder_is_exact_at_the_edges() {
        let largest = u64::from(u32::MAX);
        for divisor in [2, 3, 4, 1023, 1024, largest - 1, largest] {
            for number in [
                0,
                1,
                divisor - 1,
                divisor,
                divisor + 1,
                largest,
                largest + 1,
            ] {
                let found = remainder(number, divisor, reciprocal(divisor));
                assert_eq!(found, number % divisor, "{number} % {divisor}");
            }
        }
    }
}
