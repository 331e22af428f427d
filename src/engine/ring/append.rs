//! Appending: events whose sequences are given from outside, and the holes between them.
//!
//! A hole is published like a batch: it is claimed, its sequences are written to the
//! index, and one exchange moves the head over all of them. It has no frames. It takes
//! the first byte of a new segment instead, its *mark*, which nobody reads. So the
//! events of one segment are always dense, a batch never spans a hole, and a reader
//! comes to a hole only where it looks for its next segment (`Ring::seek`).

use std::cmp::{max, min};

use super::Ring;
use crate::cursor::Seq;
use crate::engine::error::{AppendError, PublishError};
use crate::engine::sync::Ordering;
use crate::event::Event;

/// What a hole takes of the segment after it. With none, its end would be that of the
/// segment before, and a reader there would take the hole for frames.
const MARK_BYTES: u64 = 1;

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Put {
    /// It is in the ring, after a hole of so many sequences.
    After { missing: u64 },
    /// All of it was there before.
    Repeated,
}

impl Ring {
    /// Puts `events` into the ring, the first of them as sequence `first`. What lies
    /// between the head and that is missing from now on.
    ///
    /// `claimed` is told the sequence before anybody can read one of them, and not at all if they
    /// are repeated.
    ///
    /// By one thread at a time, in a ring that nobody publishes to: no claim is under
    /// way when this is called.
    pub(in crate::engine) fn append(
        &self,
        first: u64,
        events: &[Event<'_>],
        now_ms: u64,
        claimed: impl FnOnce(u64),
    ) -> Result<Put, AppendError> {
        let total = self.check(events)?;
        let head = self.head();
        // Far below what a sum could overflow with.
        let last = first + (events.len() as u64 - 1);
        if last > Seq::MAX.number() {
            return Err(PublishError::Exhausted.into());
        }
        if first > head {
            let missing = first - head - 1;
            if missing > 0 {
                self.leave_out(head, first - 1, first)?;
            }
            let put = self.put(events, total, now_ms, claimed)?;
            debug_assert_eq!(put, first, "nobody else publishes");
            return Ok(Put::After { missing });
        }
        let is_known = |seq| !self.index.is_missing(seq);
        let mut indexed = max(first, self.oldest(head))..=last;
        if first != 0 && last <= head && indexed.all(is_known) {
            return Ok(Put::Repeated);
        }
        Err(AppendError::OutOfOrder {
            first: Seq::issued(first),
            last: Seq::issued(last),
            head: Seq::issued(head),
        })
    }

    /// Makes a hole of the sequences from the one after `head` to `last`. The next event
    /// is `next`.
    #[cold]
    fn leave_out(&self, head: u64, last: u64, next: u64) -> Result<(), PublishError> {
        let end = self.index.end(head);
        let number = self.positions.segment_before(end) + 1;
        let mark = self.positions.start_of(number) + MARK_BYTES;
        let mut claimed = self.claim.load();
        loop {
            if claimed.is_closed() {
                return Err(PublishError::Closed);
            }
            debug_assert_eq!(claimed.events_beyond(head), 0, "nobody else publishes");
            match self.claim.advance(claimed, last, mark) {
                Ok(()) => break,
                Err(closed) => claimed = closed,
            }
        }
        self.enter(number, head + 1, end);
        if last - head > self.shape.in_flight {
            // The entries to come would overwrite those of events that are retained now,
            // and will not be with the new head. Let them leave the ring before. Never
            // beyond the next event: readers would come to stand beyond the head.
            let retained = (last + 1).saturating_sub(self.shape.max_events);
            self.slots.raise_floor(min(retained, head + 1));
        }
        let entries = self.shape.index_entries as u64;
        for seq in max(head + 1, (last + 1).saturating_sub(entries))..=last {
            self.index.leave_out(seq, mark, next);
        }
        self.known.raise(last, mark);
        // SeqCst, of which Release: as in `advance`. Nobody else moves the head.
        self.head.swap(last, Ordering::SeqCst);
        Ok(())
    }
}
