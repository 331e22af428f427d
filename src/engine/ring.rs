//! The ring: claim, copy, commit on one side; read and resume on the other.
//!
//! # Positions
//!
//! The ring slides over an endless row of segments, numbered from 0. A *position*
//! is a byte in that row: `segment number << segment_shift | offset`. A frame
//! never crosses the end of its segment: where it does not fit, it starts the
//! next one, and the segment before is sealed. Slot `number % slots` holds the
//! segment, until the segment `slots` later takes its place.
//!
//! # The words that everybody shares
//!
//! | word | written by | read by |
//! |---|---|---|
//! | `claim` | publishers (compare-exchange), the closer | publishers, subscribers about to park |
//! | `index` entries | the publisher that claimed the sequence | publishers that advance the head, subscribers |
//! | `head` | publishers (compare-exchange) | everybody |
//! | `floor` | publishers that install a segment (max) | subscribers |
//! | `slots` | publishers that install a segment (compare-and-swap) | everybody |

use std::hint;
use std::thread;

use arc_swap::{ArcSwapOption, Guard};
use crossbeam::utils::CachePadded;

use super::batch::{Lease, Span};
use super::claim::{ClaimWord, MAX_IN_FLIGHT_EVENTS};
use super::frame;
use super::index::Index;
use super::publisher::PublishError;
use super::segment::{Pool, Seal, Segment};
use super::sync::{Arc, AtomicU64, Ordering};
use crate::cursor::Epoch;
use crate::event::Event;

/// The ring's proportions, worked out once by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Log2 of a segment's size in bytes.
    pub(super) segment_shift: u32,
    /// Segments in the ring.
    pub(super) slots: usize,
    /// Entries of the index, a power of two, at least `max_events + in_flight + 1`.
    pub(super) index_entries: usize,
    /// How many events are retained, at most.
    pub(super) max_events: u64,
    /// How many events may be claimed beyond the head.
    pub(super) in_flight: u64,
    pub(super) max_event_bytes: usize,
    /// The largest batch, in bytes of frames.
    pub(super) max_batch_bytes: u64,
}

impl Shape {
    pub(super) fn segment_bytes(&self) -> u64 {
        1 << self.segment_shift
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    /// How far publishers have claimed.
    claim: CachePadded<ClaimWord>,
    /// The last event that may be read: it and all before it are committed.
    head: CachePadded<AtomicU64>,
    /// The first event whose segment has not left the ring.
    floor: CachePadded<AtomicU64>,
    index: Index,
    slots: Box<[ArcSwapOption<Segment>]>,
    pool: Arc<Pool>,
    shape: Shape,
    epoch: Epoch,
}

/// Sequences and space that belong to one publisher alone.
#[derive(Debug)]
struct Claim {
    /// The first sequence.
    first: u64,
    /// The position where the event before it ends.
    from: u64,
}

/// Where a subscriber stands.
#[derive(Debug)]
pub(super) struct Reader {
    /// The last event that it has read, or chose not to.
    pub(super) seq: u64,
    /// Where that event's frame ends, once that is known.
    position: Option<u64>,
    lease: Option<Arc<Lease>>,
}

impl Reader {
    pub(super) fn after(seq: u64) -> Self {
        Reader {
            seq,
            position: None,
            lease: None,
        }
    }

    /// Moves on over what `span` covers.
    pub(super) fn advance(&mut self, span: &Span) {
        self.seq = span.last;
        self.position = Some(span.end);
        self.lease = Some(Arc::clone(&span.lease));
    }
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Read {
    /// Frames, back to back.
    Span(Span),
    /// So many of the events that it should have read have left the ring.
    Lagged(u64),
}

/// Whether an old event can still be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retained {
    /// Yes; it was published at this time.
    Since { published_ms: u64 },
    /// It has left the ring.
    Gone,
}

impl Ring {
    /// An empty ring whose first event will be the one after `origin`.
    pub(super) fn new(shape: Shape, epoch: Epoch, origin: u64) -> Self {
        let ring = Ring {
            claim: CachePadded::new(ClaimWord::new(origin)),
            head: CachePadded::new(AtomicU64::new(origin)),
            floor: CachePadded::new(AtomicU64::new(origin.saturating_add(1))),
            index: Index::new(shape.index_entries, origin),
            slots: (0..shape.slots).map(|_| ArcSwapOption::empty()).collect(),
            pool: Pool::new(shape.slots, shape.segment_bytes() as usize),
            shape,
            epoch,
        };
        ring.install(0);
        ring
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn head(&self) -> u64 {
        // Acquire: whoever knows the head may read everything up to it; pairs
        // with the exchange in `advance`.
        self.head.load(Ordering::Acquire)
    }

    /// The head, for a subscriber that has just set its parked bit: see
    /// [`Waiters`](super::wake::Waiters).
    pub(super) fn head_before_parking(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn index_bytes(&self) -> u64 {
        (self.shape.index_entries * super::index::ENTRY_BYTES) as u64
    }

    /// The oldest event that can be read when the head is `head`.
    pub(super) fn oldest(&self, head: u64) -> u64 {
        let by_events = head.saturating_sub(self.shape.max_events);
        // Acquire: pairs with the Release in `install`; a reader that finds a
        // segment replaced sees a floor beyond it.
        (by_events.saturating_add(1)).max(self.floor.load(Ordering::Acquire))
    }

    // --- closing ---

    pub(super) fn close(&self) {
        self.claim.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.claim.load().is_closed()
    }

    /// Whether the ring is closed and `seq` is the last event that it will ever
    /// hold. `seq` is at most the head.
    pub(super) fn ends_at(&self, seq: u64) -> bool {
        let claimed = self.claim.load_before_parking();
        claimed.is_closed() && claimed.events_beyond(seq) == 0 && self.head() == seq
    }

    // --- publishing ---

    /// Puts `events` into the ring, side by side. Returns the first's sequence.
    pub(super) fn publish(&self, events: &[Event<'_>], now_ms: u64) -> Result<u64, PublishError> {
        let total = self.check(events)?;
        let claim = self.claim(events, total)?;
        // From here to the commit nothing can fail: an event that is claimed and
        // never committed would hide every later one.
        let mut seq = claim.first;
        let mut end = claim.from;
        let mut first_end = end;
        let mut segment: Option<Guard<Option<Arc<Segment>>>> = None;
        for event in events {
            let bytes = event.as_bytes();
            let start = self.place(end, frame::frame_bytes(bytes.len()) as u64);
            let number = start >> self.shape.segment_shift;
            let offset = self.offset(start);
            if offset == 0 {
                self.enter(number, seq, end);
                segment = None;
            }
            let guard = segment.get_or_insert_with(|| self.installed(number));
            if let Some(segment) = guard.as_ref() {
                let header = frame::header(bytes.len());
                let cursor = frame::cursor_field(self.epoch, seq);
                // SAFETY: `place` keeps the frame inside its segment; the range
                // comes from this publisher's claim, and its events are not
                // committed, so no reader has been given it.
                unsafe { segment.write(offset as usize, [&header, bytes, &cursor]) };
            }
            end = start + frame::frame_bytes(bytes.len()) as u64;
            if seq == claim.first {
                // The first event is committed last, so that nobody walks into a
                // batch that is still being copied.
                first_end = end;
            } else {
                self.index.commit(seq, end, now_ms, Ordering::Release);
            }
            // May wrap after the very last sequence; it is not used then.
            seq = seq.wrapping_add(1);
        }
        self.index
            .commit(claim.first, first_end, now_ms, Ordering::SeqCst);
        self.advance(claim.first, seq.wrapping_sub(1));
        Ok(claim.first)
    }

    /// The batch's size in bytes of frames, if it may be published.
    fn check(&self, events: &[Event<'_>]) -> Result<u64, PublishError> {
        let mut total = 0;
        for (index, event) in events.iter().enumerate() {
            let bytes = event.as_bytes().len();
            if bytes > self.shape.max_event_bytes {
                return Err(PublishError::EventTooLarge {
                    index,
                    bytes,
                    limit: self.shape.max_event_bytes,
                });
            }
            total += frame::frame_bytes(bytes) as u64;
        }
        if events.is_empty() {
            return Err(PublishError::NoEvents);
        }
        if events.len() as u64 > self.shape.in_flight {
            return Err(PublishError::TooManyEvents {
                events: events.len(),
                limit: self.shape.in_flight as usize,
            });
        }
        if total > self.shape.max_batch_bytes {
            return Err(PublishError::BatchTooLarge {
                bytes: total,
                limit: self.shape.max_batch_bytes,
            });
        }
        Ok(total)
    }

    /// Takes sequences and space for `events`, in one atomic step.
    fn claim(&self, events: &[Event<'_>], total: u64) -> Result<Claim, PublishError> {
        let count = events.len() as u64;
        let mut waiting = Waiting::default();
        let mut claimed = self.claim.load();
        loop {
            if claimed.is_closed() {
                return Err(PublishError::Closed);
            }
            // Loaded after the claim word: if the exchange below succeeds, the
            // word has not changed since, so this head is not beyond it.
            let head = self.head();
            let ahead = claimed.events_beyond(head);
            if ahead > MAX_IN_FLIGHT_EVENTS {
                // The head has passed this value of the word.
                claimed = self.claim.load();
                continue;
            }
            let last = head
                .checked_add(ahead)
                .and_then(|claimed| claimed.checked_add(count))
                .ok_or(PublishError::Exhausted)?;
            // If the head has moved meanwhile, this may be the entry of another
            // lap, and nonsense; then the exchange fails.
            let head_end = self.index.end(head);
            let from = claimed.end(head_end);
            let end = self.end_of(events, total, from);
            // A claim that stays in its segment needs no look at the slots: who
            // entered the segment has taken it.
            let segment = |end: u64| end.saturating_sub(1) >> self.shape.segment_shift;
            let fits = ahead + count <= self.shape.in_flight
                && (segment(end) == segment(from)
                    || segment(end).wrapping_sub(segment(head_end)) <= self.shape.slots as u64 - 2);
            if !fits {
                // Some publisher is a whole ring behind, between its claim and its
                // commit. Overwriting what it has yet to publish would lose it.
                waiting.pause();
                claimed = self.claim.load();
                continue;
            }
            match self.claim.advance(claimed, last, end) {
                Ok(()) => {
                    return Ok(Claim {
                        first: last - count + 1,
                        from,
                    });
                }
                Err(newer) => claimed = newer,
            }
        }
    }

    /// Where a run of frames ends that starts after `from`.
    fn end_of(&self, events: &[Event<'_>], total: u64, from: u64) -> u64 {
        if self.offset(from) + total <= self.shape.segment_bytes() {
            return from + total;
        }
        events.iter().fold(from, |end, event| {
            let bytes = frame::frame_bytes(event.as_bytes().len()) as u64;
            self.place(end, bytes) + bytes
        })
    }

    /// Where a frame of `bytes` starts, if the one before ends at `end`.
    fn place(&self, end: u64, bytes: u64) -> u64 {
        if self.offset(end) + bytes <= self.shape.segment_bytes() {
            end
        } else {
            // Only reached with an offset above 0: every frame fits in a segment.
            ((end >> self.shape.segment_shift) + 1) << self.shape.segment_shift
        }
    }

    fn offset(&self, position: u64) -> u64 {
        position & (self.shape.segment_bytes() - 1)
    }

    /// The first frame of segment `number`, with sequence `seq`, is ours: seal the
    /// segment before, and have the next one ready before it is needed.
    fn enter(&self, number: u64, seq: u64, end: u64) {
        if let Some(before) = number.checked_sub(1)
            && let Some(before) = self.installed(before).as_ref()
        {
            before.seal(Seal { last: seq - 1, end });
        }
        self.install(number);
        // Claims keep so far from the head that even this one replaces nothing
        // that is not wholly published.
        self.install(number + 1);
    }

    /// Segment `number`, which the caller's claim lies in (or just before): it
    /// cannot leave the ring until that claim is committed.
    fn installed(&self, number: u64) -> Guard<Option<Arc<Segment>>> {
        let slot = &self.slots[(number % self.shape.slots as u64) as usize];
        loop {
            let guard = slot.load();
            if guard.as_ref().is_some_and(|s| s.number() == number) {
                return guard;
            }
            // Whoever entered it has not come to installing it: do it here.
            self.install(number);
        }
    }

    /// Puts an empty segment `number` into its slot, unless it (or a later one)
    /// is there. What it replaces leaves the ring: every event in it is
    /// published, because claims keep that distance from the head.
    fn install(&self, number: u64) {
        let slot = &self.slots[(number % self.shape.slots as u64) as usize];
        let mut waiting = Waiting::default();
        loop {
            let current = slot.load();
            if current.as_ref().is_some_and(|s| s.number() >= number) {
                return;
            }
            let Some(segment) = self.pool.segment(number) else {
                waiting.pause();
                continue;
            };
            if let Some(old) = current.as_ref() {
                // Before the swap: who finds the segment gone finds the floor
                // raised. Release: pairs with the Acquire in `oldest`.
                let floor = old.sealed().last.saturating_add(1);
                self.floor.fetch_max(floor, Ordering::Release);
            }
            let previous = slot.compare_and_swap(&current, Some(segment));
            let same = |a: &Option<Arc<Segment>>, b: &Option<Arc<Segment>>| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            if same(&previous, &current) {
                drop(current);
                if let Some(Err(held)) = Guard::into_inner(previous).map(Arc::try_unwrap) {
                    held.retire();
                }
                return;
            }
        }
    }

    /// Moves the head over all that is committed.
    ///
    /// Every publisher comes here after its commit, so whoever commits last of a
    /// run moves the head over the whole run, and nobody waits. That none is
    /// forgotten: take two neighbours, A's batch before B's. Each stores its first
    /// entry (SeqCst) and then loads the other's first entry (SeqCst), A because
    /// its walk comes to it, B because its walk starts at or before A's. In the
    /// single order of SeqCst operations one of the stores is first, so at least
    /// one of the two sees both.
    fn advance(&self, first: u64, last: u64) {
        let mut head = self.head.load(Ordering::SeqCst);
        loop {
            // Own entries need no second look.
            let mut reach = if head == first - 1 { last } else { head };
            while reach != u64::MAX && self.index.is_committed(reach + 1) {
                reach += 1;
            }
            if reach != head {
                // SeqCst, of which Release: publishes the frames and entries up to
                // `reach`, pairs with the Acquire in `head`. The single order: a
                // subscriber that parks sets its bit and then loads the head; we
                // move the head and then load the bits (`Waiters::notify`).
                match self
                    .head
                    .compare_exchange(head, reach, Ordering::SeqCst, Ordering::SeqCst)
                {
                    Ok(_) => return,
                    Err(newer) => head = newer,
                }
            } else {
                // If the head moved meanwhile, the entry that we looked at may
                // have been of another lap.
                let newer = self.head.load(Ordering::SeqCst);
                if newer == head {
                    return;
                }
                head = newer;
            }
        }
    }

    // --- reading ---

    /// The frames after `reader`, when the head is `head` and beyond it: all that
    /// are committed in one segment, up to `limit` bytes but at least one.
    pub(super) fn read(&self, reader: &mut Reader, mut head: u64, limit: usize) -> Read {
        loop {
            let next = reader.seq + 1;
            let oldest = self.oldest(head);
            if next < oldest {
                *reader = Reader::after(oldest - 1);
                return Read::Lagged(oldest - next);
            }
            match self.span(reader, head, limit as u64) {
                Some(span) => return Read::Span(span),
                // Something left the ring while we looked: look again.
                None => head = self.head(),
            }
        }
    }

    /// One try at [`read`](Self::read); `None` when the ring moved on under it.
    fn span(&self, reader: &mut Reader, head: u64, limit: u64) -> Option<Span> {
        let mut start = match reader.position {
            Some(position) => position,
            None => {
                let position = self.index.end(reader.seq);
                self.still_indexed(reader.seq).then_some(position)?
            }
        };
        let head_end = self.index.end(head);
        if !self.still_indexed(head) {
            return None;
        }
        let head_number = (head_end - 1) >> self.shape.segment_shift;
        loop {
            let number = start >> self.shape.segment_shift;
            let lease = match &reader.lease {
                Some(lease) if lease.segment().number() == number => Arc::clone(lease),
                _ => match self.lease(number) {
                    Some(lease) => {
                        reader.lease = Some(Arc::clone(&lease));
                        lease
                    }
                    None if reader.seq + 1 < self.oldest(head) => return None,
                    None => {
                        // It has left the ring, and the next event has not: that
                        // is then the first of the next segment.
                        start = (number + 1) << self.shape.segment_shift;
                        continue;
                    }
                },
            };
            let (mut last, mut end) = if number == head_number {
                (head, head_end)
            } else {
                let seal = lease.segment().sealed();
                (seal.last, seal.end)
            };
            if last == reader.seq {
                // Nothing more in this one; the next event starts the next.
                start = (number + 1) << self.shape.segment_shift;
                continue;
            }
            if end - start > limit {
                (last, end) = self.cut(reader.seq, last, start + limit)?;
            }
            return Some(Span {
                lease,
                first: reader.seq + 1,
                last,
                offset: self.offset(start) as usize,
                bytes: (end - start) as usize,
                end,
            });
        }
    }

    /// The last event of `(after, last]` whose frame ends at or before `bound`,
    /// or else the first of them, and where it ends.
    fn cut(&self, after: u64, last: u64, bound: u64) -> Option<(u64, u64)> {
        let (mut fits, mut beyond) = (after, last);
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            if self.index.end(middle) <= bound {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
        let cut = fits.max(after + 1);
        let end = self.index.end(cut);
        // The oldest of the entries that were looked at.
        self.still_indexed(after + 1).then_some((cut, end))
    }

    fn lease(&self, number: u64) -> Option<Arc<Lease>> {
        let slot = &self.slots[(number % self.shape.slots as u64) as usize];
        let segment = slot.load_full()?;
        (segment.number() == number).then(|| Arc::new(Lease::new(segment)))
    }

    /// Whether the index entry of `seq`, loaded before this call, was still that
    /// of `seq`: entries are kept for the retained events and the one before.
    fn still_indexed(&self, seq: u64) -> bool {
        seq >= self.head().saturating_sub(self.shape.max_events)
    }

    /// Whether `seq`, at most `head`, can still be read, and how old it is.
    pub(super) fn retained(&self, seq: u64, head: u64) -> Retained {
        if seq < self.oldest(head) {
            return Retained::Gone;
        }
        let published_ms = self.index.published_ms(seq);
        if !self.still_indexed(seq) {
            return Retained::Gone;
        }
        Retained::Since { published_ms }
    }
}

/// Waits for another publisher: a moment of spinning, then giving up the core.
#[derive(Debug, Default)]
struct Waiting {
    rounds: u32,
}

impl Waiting {
    fn pause(&mut self) {
        if self.rounds < 64 {
            self.rounds += 1;
            hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}
