//! Segments: the pieces of memory that the ring is made of.
//!
//! A segment is an append-only run of frames. It is entered once, filled from
//! the front, and sealed when the first frame that did not fit goes to the next
//! one. Bytes are written once, before they are published, and never change
//! afterwards; whoever holds an [`Arc<Segment>`](Segment) keeps them alive.
//!
//! When a segment leaves the ring and nobody holds it, its memory goes back to the
//! [`Pool`], so that a ring in steady state touches no fresh pages. When somebody
//! does, it is *retired*: its memory no longer counts as the ring's, and is freed
//! by the last that lets go.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use super::sync::{Arc, AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

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
    /// `Some` until drop gives it back.
    memory: Option<Memory>,
    /// The seal, written by the one publisher that enters the next segment,
    /// before it commits. Whoever has seen (Acquire) a head beyond this segment
    /// therefore sees the seal.
    seal_last: AtomicU64,
    seal_end: AtomicU64,
    /// Whether it has left the ring while it was held.
    retired: AtomicBool,
    pool: Arc<Pool>,
}

impl Segment {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Copies `parts`, one after another, to `offset`.
    ///
    /// # Safety
    ///
    /// The bytes that this covers lie inside the segment, belong to a claim of
    /// the caller, and are not published: nobody else reads or writes them.
    pub(super) unsafe fn write<const N: usize>(&self, offset: usize, parts: [&[u8]; N]) {
        let mut to = self.base().wrapping_add(offset);
        for part in parts {
            // SAFETY: the caller vouches for the target; `part` is borrowed and
            // so cannot overlap memory that only this claim may touch.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len()) };
            to = to.wrapping_add(part.len());
        }
    }

    /// The bytes from `offset`, `length` of them.
    ///
    /// # Safety
    ///
    /// They lie inside the segment and are published: the caller has read
    /// (Acquire) a head at or beyond the last of their events.
    pub(super) unsafe fn published(&self, offset: usize, length: usize) -> &[u8] {
        // SAFETY: published bytes are initialised and never written again. The
        // view covers no byte beyond them, where publishers may be at work.
        unsafe { std::slice::from_raw_parts(self.base().wrapping_add(offset), length) }
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
    pub(super) fn retire(&self) {
        // Relaxed: counts for the memory bound; no data depends on them.
        if !self.retired.swap(true, Ordering::Relaxed) {
            self.pool.retired.fetch_add(1, Ordering::Relaxed);
            self.pool.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn base(&self) -> *mut u8 {
        match &self.memory {
            Some(memory) => memory.base.as_ptr(),
            // Only drop takes the memory, and nobody can call this after drop.
            None => unreachable!("a live segment has memory"),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let memory = self.memory.take();
        if *self.retired.get_mut() {
            // Whoever drops the last lease is no publisher: it frees the memory,
            // and has nothing to do with the spares.
            drop(memory);
            self.pool.retired.fetch_sub(1, Ordering::Relaxed);
        } else if let Some(memory) = memory {
            self.pool.give(memory);
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Where segments get their memory from and give it back to. Only publishers come
/// here, and none waits for another.
#[derive(Debug)]
pub(super) struct Pool {
    /// One segment's memory.
    layout: Layout,
    /// How many pieces of memory the ring may own: its segments and the spares.
    budget: usize,
    /// Memory that waits for its next segment; null where there is none.
    spares: [AtomicPtr<u8>; SPARES],
    /// Pieces of memory that the ring owns: in its segments, spare, or about to be
    /// one of both.
    live: AtomicUsize,
    /// Segments that left the ring but are still held.
    retired: AtomicUsize,
}

/// How many pieces of memory a ring keeps beside its segments: one to install
/// next, one for a second publisher that installs at the same time.
pub(super) const SPARES: usize = 2;

impl Pool {
    /// For a ring of `segments` segments of `segment_bytes` each.
    pub(super) fn new(segments: usize, segment_bytes: usize) -> Arc<Self> {
        let Ok(layout) = Layout::from_size_align(segment_bytes, ALIGN_BYTES) else {
            unreachable!("the builder limits segments to far less than isize::MAX")
        };
        assert_ne!(layout.size(), 0, "the builder makes no empty segments");
        Arc::new(Pool {
            layout,
            budget: segments + SPARES,
            spares: Default::default(),
            live: AtomicUsize::new(0),
            retired: AtomicUsize::new(0),
        })
    }

    /// An empty segment, or `None` while other publishers hold all the memory
    /// that there may be: they are about to install it, or to give it back.
    pub(super) fn segment(self: &Arc<Self>, number: u64) -> Option<Arc<Segment>> {
        Some(Arc::new(Segment {
            number,
            memory: Some(self.take()?),
            seal_last: AtomicU64::new(0),
            seal_end: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            pool: Arc::clone(self),
        }))
    }

    /// Bytes that the ring owns.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live.load(Ordering::Relaxed) as u64 * self.layout.size() as u64
    }

    /// Bytes that left the ring but are still held.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.retired.load(Ordering::Relaxed) as u64 * self.layout.size() as u64
    }

    fn take(&self) -> Option<Memory> {
        for spare in &self.spares {
            // Acquire: pairs with the Release in `give`.
            if let Some(base) = NonNull::new(spare.swap(ptr::null_mut(), Ordering::Acquire)) {
                let layout = self.layout;
                return Some(Memory { base, layout });
            }
        }
        // Relaxed: the count guards nothing but itself.
        let room = |live| (live < self.budget).then_some(live + 1);
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .ok()?;
        Some(Memory::new(self.layout))
    }

    fn give(&self, memory: Memory) {
        let memory = ManuallyDrop::new(memory);
        for spare in &self.spares {
            // Release: the next segment's frames come after the last one's readers.
            let given = spare.compare_exchange(
                ptr::null_mut(),
                memory.base.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            if given.is_ok() {
                return;
            }
        }
        drop(ManuallyDrop::into_inner(memory));
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let layout = self.layout;
        for spare in &mut self.spares {
            drop(NonNull::new(*spare.get_mut()).map(|base| Memory { base, layout }));
        }
    }
}

/// One raw allocation. It is never viewed as a whole: references are made over
/// published ranges only.
#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

/// Frames are packed, so this is for the copies' sake alone.
const ALIGN_BYTES: usize = 64;

impl Memory {
    fn new(layout: Layout) -> Self {
        // SAFETY: the layout is not empty: `Pool::new` checked it.
        let Some(base) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        Memory { base, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; a pointer among the spares
        // belongs to no `Memory`, so this is the one place that frees it.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: `Memory` owns its allocation, like a `Box<[u8]>`.
unsafe impl Send for Memory {}
// SAFETY: through `&Memory` one gets a pointer only; each use of it is an unsafe
// method of `Segment` that states who may touch which bytes.
unsafe impl Sync for Memory {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_recycled_and_never_more_than_the_budget() {
        let pool = Pool::new(2, 64);
        let mut held: Vec<_> = (0..4).map(|n| pool.segment(n).unwrap()).collect();
        assert!(pool.segment(4).is_none(), "two segments and two spares");
        held.pop();
        assert_eq!(pool.live_bytes(), 4 * 64, "the memory waits as a spare");
        assert!(pool.segment(4).is_some());
    }

    #[test]
    fn what_leases_hold_is_counted_beside_the_budget() {
        let pool = Pool::new(1, 64);
        let held: Vec<_> = (0..3).map(|n| pool.segment(n).unwrap()).collect();
        held[0].retire();
        held[0].retire();
        assert_eq!(pool.pinned_bytes(), 64, "retiring twice counts once");
        assert_eq!(pool.live_bytes(), 2 * 64);
        let fourth = pool.segment(3).expect("a retired segment makes room");
        assert!(pool.segment(4).is_none());
        drop(held);
        assert_eq!(pool.pinned_bytes(), 0);
        assert_eq!(pool.live_bytes(), 3 * 64, "one in use, two spare");
        drop(fourth);
        assert_eq!(pool.live_bytes(), 2 * 64, "beyond the spares it is freed");
    }

    #[test]
    fn a_lease_that_ends_while_spares_are_taken_adds_nothing_to_the_ring() {
        let pool = Pool::new(1, 64);
        let held = pool.segment(0).unwrap();
        held.retire();
        let owned: Vec<_> = (1..4).map(|n| pool.segment(n).unwrap()).collect();
        drop(held);
        assert_eq!(pool.live_bytes(), 3 * 64);
        assert!(pool.segment(4).is_none());
        drop(owned);
    }
}
