//! Where each event of the ring ends, and when it was published, by sequence.
//!
//! The index is what makes resuming take constant time: the entry of a sequence
//! is at `sequence % entries`. It is also how publishers commit: an entry carries
//! a *lap bit* that flips each time the index comes around, so that one load
//! tells whether this sequence, not the one a lap before, is committed.
//!
//! An entry is overwritten a lap later. The ring never claims so far ahead of
//! its head that a retained event's entry, or the one before the oldest, could be
//! overwritten. A reader that was slow may still look at an entry that is gone:
//! it must look at the head *afterwards* and check that the entry's sequence is
//! still covered (`Ring::still_indexed`, `Ring::still_retained`). The writer of the newer lap had seen that head
//! before it stored (Release) what the reader loaded (Acquire), so the reader
//! cannot miss it.

use super::sync::{AtomicU64, Ordering};

#[derive(Debug)]
struct Entry {
    /// `end position << 1 | lap bit`.
    end: AtomicU64,
    /// Milliseconds of the engine's clock; or [`MISSING`] and where the stream goes on.
    published_ms: AtomicU64,
}

/// Marks the entry of a sequence that nobody appended. The other bits are the sequence of
/// the first event after the hole.
const MISSING: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Index {
    entries: Box<[Entry]>,
    /// `entries.len() - 1`, which is a power of two less one.
    mask: u64,
    lap_shift: u32,
}

/// The memory of one entry.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

impl Index {
    /// `entries` is a power of two. `head` is the sequence before the first event
    /// to come; it ends at position 0.
    pub(super) fn new(entries: usize, head: u64) -> Self {
        debug_assert!(entries.is_power_of_two());
        let index = Index {
            mask: entries as u64 - 1,
            lap_shift: entries.trailing_zeros(),
            entries: (0..entries)
                .map(|_| Entry {
                    end: AtomicU64::new(0),
                    published_ms: AtomicU64::new(0),
                })
                .collect(),
        };
        // Each slot starts as the lap before its first event would leave it.
        for seq in (0..entries as u64).map(|i| head.wrapping_add(i + 1)) {
            let before = seq.wrapping_sub(entries as u64);
            index
                .entry(seq)
                .end
                .store(index.lap_bit(before), Ordering::Relaxed);
        }
        index
    }

    /// Writes the time and the end of an event. After this (and after the same
    /// for all events before it) the event may be seen.
    pub(super) fn commit(&self, seq: u64, end: u64, published_ms: u64) {
        debug_assert_eq!(published_ms & MISSING, 0, "times have 63 bits");
        self.write(seq, end, published_ms);
    }

    /// Writes that there is no event `seq`, and that the next one is `next`, right after
    /// the position `end`.
    pub(super) fn leave_out(&self, seq: u64, end: u64, next: u64) {
        self.write(seq, end, MISSING | next);
    }

    fn write(&self, seq: u64, end: u64, published_ms: u64) {
        let entry = self.entry(seq);
        // Release, both: see the module's last paragraph. The second publishes the
        // event's bytes to whoever moves the head over it.
        entry.published_ms.store(published_ms, Ordering::Release);
        entry
            .end
            .store(end << 1 | self.lap_bit(seq), Ordering::Release);
    }

    /// Whether this event is committed. SeqCst: a publisher looks here after it has
    /// moved the head, see `Ring::advance`. Acquire is part of it: who sees the
    /// commit sees the frames.
    pub(super) fn is_committed(&self, seq: u64) -> bool {
        self.entry(seq).end.load(Ordering::SeqCst) & 1 == self.lap_bit(seq)
    }

    /// Where the frame of `seq` ends.
    pub(super) fn end(&self, seq: u64) -> u64 {
        self.entry(seq).end.load(Ordering::Acquire) >> 1
    }

    /// Whether nobody appended `seq`.
    pub(super) fn is_missing(&self, seq: u64) -> bool {
        self.published_ms(seq) & MISSING != 0
    }

    /// If `seq` is missing, the first event after the hole that it is in.
    pub(super) fn hole_end(&self, seq: u64) -> Option<u64> {
        let published_ms = self.published_ms(seq);
        (published_ms & MISSING != 0).then_some(published_ms & !MISSING)
    }

    /// When `seq` was published, unless it is missing.
    pub(super) fn published_ms(&self, seq: u64) -> u64 {
        self.entry(seq).published_ms.load(Ordering::Acquire)
    }

    fn entry(&self, seq: u64) -> &Entry {
        &self.entries[(seq & self.mask) as usize]
    }

    fn lap_bit(&self, seq: u64) -> u64 {
        // Inverted, so that the zero of fresh memory means "not committed" in
        // the first lap.
        !(seq >> self.lap_shift) & 1
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_committed_lap_counts() {
        for head in [0, 3, 4, 7, 8, u64::MAX - 20] {
            let index = Index::new(4, head);
            assert_eq!(index.end(head), 0);
            assert!(index.is_committed(head));
            for i in 1..=10 {
                let seq = head + i;
                assert!(!index.is_committed(seq), "{head} + {i}");
                index.commit(seq, 100 * i, i);
                assert!(index.is_committed(seq), "{head} + {i}");
                assert_eq!((index.end(seq), index.published_ms(seq)), (100 * i, i));
            }
        }
    }
}
