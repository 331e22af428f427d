//! Reading: where a reader stands, what it finds, and whether it can resume.

#![allow(unsafe_code, reason = "vouches for what it found")]

use super::Ring;
use crate::engine::batch::Span;
use crate::engine::segment::Lease;
use crate::engine::sync::Arc;

/// Where a subscriber stands.
#[derive(Debug)]
pub(in crate::engine) struct Reader {
    /// The last event that it has read, or chose not to.
    seq: u64,
    /// Where that is in the ring, once that is known.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    /// Where the event's frame ends; or, if it is the last of its segment, where the
    /// next one starts.
    position: u64,
    /// On the segment that was looked at last.
    lease: Arc<Lease>,
}

impl Reader {
    pub(in crate::engine) fn after(seq: u64) -> Self {
        Reader { seq, place: None }
    }

    /// The last event that it has read, or chose not to.
    pub(in crate::engine) fn seq(&self) -> u64 {
        self.seq
    }

    /// Moves on over what `span` covers.
    pub(in crate::engine) fn advance(&mut self, span: &Span) {
        self.seq = span.last();
        if let Some(place) = &mut self.place {
            place.position += span.bytes() as u64;
        }
    }

    /// Moves on over `missed` events that have left the ring.
    pub(in crate::engine) fn skip(&mut self, missed: u64) {
        *self = Reader::after(self.seq + missed);
    }
}

/// What a reader finds.
#[derive(Debug)]
pub(in crate::engine) enum Read {
    /// Frames, back to back.
    Span(Span),
    /// So many of the events that it should have read have left the ring.
    Lagged(u64),
    /// It has read everything.
    Nothing,
}

/// How far a reader can read at once, from its place.
struct Reach {
    last: u64,
    /// The position where the last event's frame ends.
    end: u64,
}

/// Whether an old event can still be read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Retained {
    /// Yes; it was published at this time.
    Since { published_ms: u64 },
    /// It has left the ring, or was never in it.
    Gone,
}

impl Ring {
    /// The frames after `reader`: all that are committed in one segment, up to `limit`
    /// bytes but at least one. The reader does not move.
    #[inline(always)]
    pub(in crate::engine) fn read(&self, reader: &mut Reader, limit: usize) -> Read {
        let head = self.head();
        if head == reader.seq {
            return Read::Nothing;
        }
        let reach = match self.at_hand(reader, head, limit as u64) {
            Some(reach) => reach,
            None => match self.seek(reader, head, limit as u64) {
                Ok(reach) => reach,
                Err(missed) => return Read::Lagged(missed),
            },
        };
        let Some(Place { position, lease }) = &reader.place else {
            unreachable!("a reach is from a place")
        };
        let events = (reader.seq + 1, reach.last);
        let offset = self.positions.offset(*position) as usize;
        let bytes = (reach.end - position) as usize;
        // SAFETY: a reach is in the segment of its place, and up to a head that was
        // loaded for it.
        Read::Span(unsafe { Span::new(Arc::clone(lease), events, offset, bytes) })
    }

    /// How far a reader can read, if it takes no search: one that keeps up finds all
    /// that is new in the segment that it has a lease on.
    #[inline(always)]
    fn at_hand(&self, reader: &Reader, head: u64, limit: u64) -> Option<Reach> {
        let Place { position, lease } = reader.place.as_ref()?;
        let number = self.positions.segment(*position);
        let end = self.index.end(head);
        let at_hand = lease.segment().number() == number
            && self.positions.segment_before(end) == number
            && end - position <= limit
            && reader.seq + 1 >= self.oldest(head)
            && self.still_indexed(head);
        at_hand.then_some(Reach { last: head, end })
    }

    /// How far a reader can read, of which the place is found first; or else how many
    /// events it has missed.
    #[inline(never)]
    fn seek(&self, reader: &mut Reader, mut head: u64, limit: u64) -> Result<Reach, u64> {
        loop {
            let next = reader.seq + 1;
            let oldest = self.oldest(head);
            if next < oldest {
                // A floor beyond this head is of a newer one, which we do not know.
                if oldest > head {
                    return Err(oldest - next);
                }
                if let Some(first) = self.first_from(oldest) {
                    return Err(first - next);
                }
            } else if let Some(reach) = self.try_seek(reader, head, limit) {
                return Ok(reach);
            } else if let Some(first) = self.first_from(next)
                && first > next
            {
                return Err(first - next);
            }
            // Something left the ring while we looked: look again.
            head = self.head();
        }
    }

    /// One try at [`seek`](Self::seek); `None` at a hole, and when the ring moved on under
    /// it.
    fn try_seek(&self, reader: &mut Reader, head: u64, limit: u64) -> Option<Reach> {
        let (mut start, mut spent) = match reader.place.take() {
            Some(Place { position, lease }) => (position, Some(lease)),
            None => (self.index.end(reader.seq), None),
        };
        let head_end = self.index.end(head);
        // Both entries were those of these events; and the next one is there.
        let is_next_there = if self.may_have_holes {
            !self.index.is_missing(reader.seq + 1) && self.still_retained(reader.seq + 1)
        } else {
            self.still_indexed(reader.seq)
        };
        if !is_next_there {
            return None;
        }
        loop {
            let number = self.positions.segment(start);
            let next_segment = self.positions.start_of(number + 1);
            let lease = match spent.take() {
                Some(lease) if lease.segment().number() == number => lease,
                other => match self.slots.lease(number, other) {
                    Some(lease) => lease,
                    None if reader.seq + 1 < self.oldest(head) => return None,
                    None => {
                        // It has left the ring, and the next event has not: that
                        // is then the first of the next segment.
                        start = next_segment;
                        continue;
                    }
                },
            };
            let (last, end) = if number == self.positions.segment_before(head_end) {
                (head, head_end)
            } else {
                let seal = lease.segment().sealed();
                (seal.last, seal.end)
            };
            if last == reader.seq {
                // Nothing more in this one; the next event starts the next.
                (start, spent) = (next_segment, Some(lease));
                continue;
            }
            reader.place = Some(Place {
                position: start,
                lease,
            });
            return if end - start > limit {
                self.cut(reader.seq, last, start + limit)
            } else {
                Some(Reach { last, end })
            };
        }
    }

    /// The first event from `seq` on: `seq` itself, or the one after the hole that it is
    /// in. `None` if `seq`, which is at most the head, has left the ring.
    fn first_from(&self, seq: u64) -> Option<u64> {
        let first = self.index.hole_end(seq).unwrap_or(seq);
        self.still_retained(seq).then_some(first)
    }

    /// Up to the last event of `(after, last]` whose frame ends at or before `bound`,
    /// or else to the first of them.
    fn cut(&self, after: u64, last: u64, bound: u64) -> Option<Reach> {
        let (mut fits, mut beyond) = (after, last);
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            if self.index.end(middle) <= bound {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
        let last = fits.max(after + 1);
        let end = self.index.end(last);
        // The oldest of the entries that were looked at.
        self.still_retained(after + 1)
            .then_some(Reach { last, end })
    }

    /// Whether the index entry of `seq`, loaded before this call, was still that
    /// of `seq`: entries are kept for the retained events and the one before.
    pub(super) fn still_indexed(&self, seq: u64) -> bool {
        seq >= self.head().saturating_sub(self.shape.max_events)
    }

    /// Whether `seq` has not left the ring: then its index entry, loaded before this call,
    /// was that of `seq`, and so was the one before it, where a reader stands.
    ///
    /// A large hole overwrites entries that [`still_indexed`](Self::still_indexed) would
    /// trust, but raises the floor over them first.
    fn still_retained(&self, seq: u64) -> bool {
        seq > self.head().saturating_sub(self.shape.max_events) && seq >= self.slots.floor()
    }

    /// Whether `seq`, at most `head`, can still be read, and how old it is.
    pub(in crate::engine) fn retained(&self, seq: u64, head: u64) -> Retained {
        if seq < self.oldest(head) {
            return Retained::Gone;
        }
        let is_missing = self.index.is_missing(seq);
        let published_ms = self.index.published_ms(seq);
        if is_missing || !self.still_retained(seq) {
            return Retained::Gone;
        }
        Retained::Since { published_ms }
    }
}
