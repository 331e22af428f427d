//! Segments: the pieces of memory that the ring is made of.
//!
//! A segment is an append-only run of frames. It is entered once, filled from
//! the front, and sealed when the first frame that did not fit goes to the next
//! one. Bytes are written once, before they are published, and never change
//! afterwards; whoever holds an [`Arc<Segment>`](Segment) keeps them alive.
//!
//! When a segment leaves the ring and nobody holds it, it goes back to the
//! [`Pool`](super::pool::Pool). When somebody does, it is *retired*: it no longer counts
//! as the ring's, and is freed by the last that lets go.

#![allow(unsafe_code, reason = "raw memory, written before it is published")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::{self, NonNull};

use super::account::Account;
use super::sync::{Arc, AtomicBool, AtomicU64, Ordering, Watch};
use crate::prefetch;

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
    /// An empty one.
    pub(super) fn new(number: u64, layout: Layout, account: Arc<Account>) -> Self {
        Segment {
            number,
            number_watch: Watch::over(1),
            memory: Memory::new(layout),
            seal_last: AtomicU64::new(0),
            seal_end: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            account,
        }
    }

    /// Makes an empty one of it.
    pub(super) fn use_again(&mut self, number: u64) {
        self.number_watch.write(0..1);
        self.number = number;
    }

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
            debug_assert!(end <= self.memory.layout.size());
            self.memory.watch.write(to..end);
            let target = self.memory.base.as_ptr().wrapping_add(to);
            // SAFETY: the caller vouches for the target; `part` is borrowed and
            // so cannot overlap memory that only this claim may touch.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), target, part.len()) };
            to = end;
        }
        self.memory.fetch(to);
    }

    /// The bytes from `offset`, `length` of them.
    ///
    /// # Safety
    ///
    /// They lie inside the segment and are published: the caller has read
    /// (Acquire) a head at or beyond the last of their events.
    pub(super) unsafe fn published(&self, offset: usize, length: usize) -> &[u8] {
        let end = offset.checked_add(length);
        // Once a batch: whatever else goes wrong, nobody is sent foreign memory.
        assert!(
            end.is_some_and(|end| end <= self.memory.layout.size()),
            "a batch is inside its segment"
        );
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
    pub(super) fn retire(&self) {
        // Relaxed: as the account's counts.
        if !self.retired.swap(true, Ordering::Relaxed) {
            self.account.retire();
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Relaxed: dropping is exclusive.
        self.account.close(self.retired.load(Ordering::Relaxed));
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// One subscriber's hold on a segment. Batches count on the lease, not on the
/// segment, so that subscribers do not share a counter's cache line.
#[derive(Debug)]
pub(super) struct Lease {
    segment: Arc<Segment>,
}

impl Lease {
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        Lease { segment }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
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
pub(super) const ALIGN_BYTES: usize = 64;

impl Memory {
    fn new(layout: Layout) -> Self {
        assert_ne!(layout.size(), 0, "the builder makes no empty segments");
        // SAFETY: the layout is not empty.
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

impl Memory {
    /// Has the processor fetch the next few cache lines at `offset`: where the next
    /// frame goes, or its start.
    fn fetch(&self, offset: usize) {
        const LINES: usize = 4;
        for line in 0..LINES {
            prefetch::line_to_write(self.base.as_ptr().wrapping_add(offset + line * 64));
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
