//! Segments: the pieces of memory that the ring is made of.
//!
//! A segment is an append-only run of frames. It is entered once, filled from
//! the front, and sealed when the first frame that did not fit goes to the next
//! one. Bytes are written once, before they are published, and never change
//! afterwards; whoever holds an [`Arc<Segment>`](Segment) keeps them alive.
//!
//! When a segment leaves the ring and nobody holds it, it goes back to the [`Pool`],
//! so that a ring in steady state allocates nothing and touches no fresh pages. When
//! somebody does, it is *retired*: it no longer counts as the ring's, and is freed by
//! the last that lets go.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::{self, NonNull};

use super::sync::{Arc, AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, Watch};

/// How much of a segment was used when it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// The sequence of its last event.
    pub(super) last: u64,
    /// The position where its last frame ends.
    pub(super) end: u64,
}

/// One piece of the ring.
pub(super) struct Segment {
    /// Its place in the endless row of segments that the ring slides over.
    number: u64,
    /// Over the number, which is written again when the segment is used again.
    number_watch: Watch,
    memory: Memory,
    /// The seal, written by the one publisher that enters the next segment,
    /// before it commits. Whoever has seen (Acquire) a head beyond this segment
    /// therefore sees the seal.
    seal_last: AtomicU64,
    seal_end: AtomicU64,
    /// Whether it has left the ring while it was held.
    retired: AtomicBool,
    account: Arc<Account>,
}

impl Segment {
    pub(super) fn number(&self) -> u64 {
        self.number_watch.read(0..1);
        self.number
    }

    /// Copies `parts`, one after another, to `offset`.
    ///
    /// # Safety
    ///
    /// The bytes that this covers lie inside the segment, belong to a claim of
    /// the caller, and are not published: nobody else reads or writes them.
    pub(super) unsafe fn write<const N: usize>(&self, offset: usize, parts: [&[u8]; N]) {
        let mut to = offset;
        for part in parts {
            let end = to + part.len();
            self.memory.watch.write(to..end);
            let target = self.memory.base.as_ptr().wrapping_add(to);
            // SAFETY: the caller vouches for the target; `part` is borrowed and
            // so cannot overlap memory that only this claim may touch.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), target, part.len()) };
            to = end;
        }
    }

    /// The bytes from `offset`, `length` of them.
    ///
    /// # Safety
    ///
    /// They lie inside the segment and are published: the caller has read
    /// (Acquire) a head at or beyond the last of their events.
    pub(super) unsafe fn published(&self, offset: usize, length: usize) -> &[u8] {
        self.memory.watch.read(offset..offset + length);
        let first = self.memory.base.as_ptr().wrapping_add(offset);
        // SAFETY: published bytes are initialised and never written again while
        // somebody holds the segment. The view covers no byte beyond them, where
        // publishers may be at work.
        unsafe { std::slice::from_raw_parts(first, length) }
    }

    pub(super) fn seal(&self, seal: Seal) {
        // Relaxed: published by the sealing publisher's commit, which follows.
        self.seal_last.store(seal.last, Ordering::Relaxed);
        self.seal_end.store(seal.end, Ordering::Relaxed);
    }

    /// The seal; meaningful to whoever has read (Acquire) a head beyond it.
    pub(super) fn sealed(&self) -> Seal {
        // Relaxed: the head's Acquire came first and covers both.
        Seal {
            last: self.seal_last.load(Ordering::Relaxed),
            end: self.seal_end.load(Ordering::Relaxed),
        }
    }

    /// Hands the memory from the ring's account to those that still hold the
    /// segment.
    fn retire(&self) {
        // Relaxed: counts for the memory bound; no data depends on them.
        if !self.retired.swap(true, Ordering::Relaxed) {
            self.account.retired.fetch_add(1, Ordering::Relaxed);
            self.account.live.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Relaxed: as in `retire`; dropping is exclusive.
        let count = if self.retired.load(Ordering::Relaxed) {
            &self.account.retired
        } else {
            &self.account.live
        };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// How many segments there are, and on whose account.
#[derive(Debug)]
struct Account {
    /// The ring's: those in it, the spares, and those about to be one of both.
    live: AtomicUsize,
    /// Those that left the ring but are still held.
    retired: AtomicUsize,
}

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
        assert_ne!(layout.size(), 0, "the builder makes no empty segments");
        Pool {
            layout,
            budget: segments + SPARES,
            spares: Default::default(),
            account: Arc::new(Account {
                live: AtomicUsize::new(0),
                retired: AtomicUsize::new(0),
            }),
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
                segment.number_watch.write(0..1);
                segment.number = number;
                return Some(spare);
            }
        }
        // Relaxed: the count guards nothing but itself.
        let room = |live| (live < self.budget).then_some(live + 1);
        self.account
            .live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .ok()?;
        Some(Arc::new(Segment {
            number,
            number_watch: Watch::over(1),
            memory: Memory::new(self.layout),
            seal_last: AtomicU64::new(0),
            seal_end: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            account: Arc::clone(&self.account),
        }))
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
        self.account.live.load(Ordering::Relaxed) as u64 * self.layout.size() as u64
    }

    /// Bytes that left the ring but are still held.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.account.retired.load(Ordering::Relaxed) as u64 * self.layout.size() as u64
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for spare in &self.spares {
            drop(Self::withdraw(spare));
        }
    }
}

/// One raw allocation. It is never viewed as a whole: references are made over
/// published ranges only.
#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    watch: Watch,
}

/// Frames are packed, so this is for the copies' sake alone.
const ALIGN_BYTES: usize = 64;

impl Memory {
    fn new(layout: Layout) -> Self {
        // SAFETY: the layout is not empty: `Pool::new` checked it.
        let Some(base) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let watch = Watch::over(layout.size());
        Memory {
            base,
            layout,
            watch,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed here only.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: `Memory` owns its allocation, like a `Box<[u8]>`.
unsafe impl Send for Memory {}
// SAFETY: through `&Memory` one gets a pointer only; each use of it is an unsafe
// method of `Segment` that states who may touch which bytes.
unsafe impl Sync for Memory {}

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
