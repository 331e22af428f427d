//! The claim word: one atomic step takes space *and* sequences.
//!
//! The word holds, in 64 bits, how far publishers have claimed: the low 23 bits
//! of the last claimed sequence, the low 40 bits of the position where its frame
//! ends, and a bit that says that the engine is closed. A claim is a
//! compare-exchange of the whole word, so sequences and bytes are handed out
//! together, and nothing can be claimed once the closed bit is set.
//!
//! The low bits are enough, because everybody who reads the word then reads a head
//! that its writer knew, or a later one, and claims run ahead of that by less than 2²³
//! events and 2⁴⁰ bytes ([`MAX_IN_FLIGHT_EVENTS`], [`MAX_IN_FLIGHT_BYTES`]). A stale value could be
//! taken for a new one only after an exact multiple of both were published while one
//! publisher stood between its load and its exchange: a tebibyte, to the byte.

use super::sync::{AtomicU64, Ordering};

const POSITION_BITS: u32 = 40;
/// In models, as few as their rings can do with.
const SEQ_BITS: u32 = if cfg!(galaxy_loom) { 3 } else { 23 };
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;
const CLOSED: u64 = 1 << 63;

/// How many events may be claimed beyond the head: half of what the word tells
/// apart, so that a stale word is recognised.
pub(super) const MAX_IN_FLIGHT_EVENTS: u64 = 1 << (SEQ_BITS - 1);
/// How many bytes of positions may be claimed beyond the head.
pub(super) const MAX_IN_FLIGHT_BYTES: u64 = 1 << (POSITION_BITS - 1);

/// A value of the claim word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed(u64);

impl Claimed {
    fn new(seq: u64, end: u64) -> Self {
        Claimed((seq & SEQ_MASK) << POSITION_BITS | (end & POSITION_MASK))
    }

    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// How many events beyond the one numbered `seq` are claimed. A result above
    /// [`MAX_IN_FLIGHT_EVENTS`] means that this value is older than `seq`.
    pub(super) fn events_beyond(self, seq: u64) -> u64 {
        (self.0 >> POSITION_BITS).wrapping_sub(seq) & SEQ_MASK
    }

    /// The low bits of the last claimed sequence.
    pub(super) fn seq_bits(self) -> u64 {
        (self.0 & !CLOSED) >> POSITION_BITS
    }

    /// The position where the claim ends, given any earlier position that it is
    /// less than 2⁴⁰ bytes ahead of.
    pub(super) fn end(self, earlier: u64) -> u64 {
        earlier + (self.0.wrapping_sub(earlier) & POSITION_MASK)
    }
}

/// The word itself.
#[derive(Debug)]
pub(super) struct ClaimWord(AtomicU64);

impl ClaimWord {
    pub(super) fn new(seq: u64) -> Self {
        ClaimWord(AtomicU64::new(Claimed::new(seq, 0).0))
    }

    pub(super) fn load(&self) -> Claimed {
        // Acquire: what its publisher knew of the head, whoever loads that afterwards
        // knows too. Without, the low bits could be counted from a head that is older
        // than they can tell.
        Claimed(self.0.load(Ordering::Acquire))
    }

    /// Moves the claim from `current` to `seq` and `end`, if nobody was faster.
    pub(super) fn advance(&self, current: Claimed, seq: u64, end: u64) -> Result<(), Claimed> {
        // AcqRel, each pairing with the last: the publisher that enters a segment has
        // seen (Acquire) the head beyond what that segment replaces; a publisher that
        // claims after it in the same segment may have to install the segment in its
        // stead, and must have seen as much. Acquire on failure: as in `load`.
        self.0
            .compare_exchange_weak(
                current.0,
                Claimed::new(seq, end).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .map(|_| ())
            .map_err(Claimed)
    }

    /// Lets nothing be claimed any more.
    pub(super) fn close(&self) {
        // Relaxed: whoever must know that it is closed is told by `Ring::closed`, or
        // fails to exchange the word.
        self.0.fetch_or(CLOSED, Ordering::Relaxed);
    }
}

/// Some head of the past, and where its frame ended: each is no more than that, they
/// may be of different heads. Publishers count from here what the claim word leaves
/// out, and leave the head itself, which moves all the time, to those that move it.
/// Brought up to date once a segment.
#[derive(Debug)]
pub(super) struct Known {
    seq: AtomicU64,
    end: AtomicU64,
}

impl Known {
    /// The head before the first event.
    pub(super) fn new(head: u64) -> Self {
        Known {
            seq: AtomicU64::new(head),
            end: AtomicU64::new(0),
        }
    }

    // Acquire, both: who counts from a head knows of it, and hands that on with the
    // index entries that it writes (see `index`).

    pub(super) fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Takes note of a head that the caller has loaded, and of where it ends.
    pub(super) fn raise(&self, head: u64, end: u64) {
        // Release: pairs with the Acquire above.
        self.seq.fetch_max(head, Ordering::Release);
        self.end.fetch_max(end, Ordering::Release);
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_low_bits_tell_the_whole_numbers() {
        for seq in [0, 1, SEQ_MASK - 1, SEQ_MASK, SEQ_MASK + 1, u64::MAX - 9] {
            for position in [0, POSITION_MASK - 5, POSITION_MASK, 1 << 50] {
                let word = ClaimWord::new(seq);
                word.advance(word.load(), seq + 7, position + 1000)
                    .unwrap_or_else(|_| {
                        // A weak exchange may fail for no reason.
                        while word.advance(word.load(), seq + 7, position + 1000).is_err() {}
                    });
                assert_eq!(word.load().events_beyond(seq), 7);
                assert_eq!(word.load().end(position), position + 1000);
            }
        }
    }

    #[test]
    fn a_stale_word_is_recognised() {
        let word = ClaimWord::new(10);
        assert!(word.load().events_beyond(11) > MAX_IN_FLIGHT_EVENTS);
    }

    #[test]
    fn nothing_is_claimed_after_the_close() {
        let word = ClaimWord::new(3);
        let before = word.load();
        word.close();
        assert!(word.load().is_closed());
        assert_eq!(word.load().events_beyond(3), 0);
        assert!(word.advance(before, 4, 10).is_err());
    }
}
