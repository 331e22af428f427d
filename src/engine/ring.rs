//! The ring: claim, copy, commit on one side; read and resume on the other.
//!
//! # Positions
//!
//! The ring slides over an endless row of segments, numbered from 0. A *position*
//! is a byte in that row: `segment number << segment_shift | offset`. A frame
//! never crosses the end of its segment: where it does not fit, it starts the
//! next one, and the segment before is sealed.
//!
//! # The words that everybody shares
//!
//! | word | written by | read by |
//! |---|---|---|
//! | `claim` | publishers (compare-exchange), the closer | publishers; subscribers, once it is closed |
//! | `closed` | the closer | subscribers that have read everything |
//! | `index` entries | the publisher that claimed the sequence | publishers that advance the head, subscribers |
//! | `head` | publishers (compare-exchange) | everybody |
//! | `known` | publishers that enter a segment (max) | publishers |
//! | `slots` | publishers that install a segment (exchange) | everybody |
//! | the floor, in `slots` | publishers that install a segment (max) | subscribers |

use crossbeam::utils::CachePadded;

use super::batch::{Lease, Span};
use super::claim::{ClaimWord, MAX_IN_FLIGHT_EVENTS};
use super::frame::{self, CursorFields};
use super::index::Index;
use super::publisher::PublishError;
use super::segment::{Pool, Seal, Segment};
use super::slots::Slots;
use super::sync::{Arc, AtomicBool, AtomicU64, Backoff, Ordering, fence, spin_loop};
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
    /// A head of the past, for publishers to count from.
    known: CachePadded<Known>,
    /// That the claim word is closed, for those that wait for events: who looks at that
    /// word takes it away from the publishers.
    closed: AtomicBool,
    index: Index,
    slots: Slots,
    cursor_fields: CursorFields,
    shape: Shape,
    epoch: Epoch,
}

/// Some head of the past, and where its frame ended: each is no more than that, they
/// may be of different heads. Publishers count from here what the claim word leaves
/// out, and leave the head itself, which moves all the time, to those that move it.
/// Brought up to date once a segment.
#[derive(Debug)]
struct Known {
    seq: AtomicU64,
    end: AtomicU64,
}

impl Known {
    // Relaxed, all of it: who loads this has loaded (Acquire) the claim word before, and
    // so finds what the word's writer found, or newer.

    fn seq(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    fn raise(&self, seq: u64, end: u64) {
        self.seq.fetch_max(seq, Ordering::Relaxed);
        self.end.fetch_max(end, Ordering::Relaxed);
    }
}

/// How long a publisher stands back whose claim another one has overtaken: some
/// microseconds, in which the other one publishes some dozens of events.
const CONTENDED_SPINS: u32 = if cfg!(any(galaxy_loom, miri)) { 1 } else { 128 };

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
    /// On the segment that it looked at last.
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
            known: CachePadded::new(Known {
                seq: AtomicU64::new(origin),
                end: AtomicU64::new(0),
            }),
            closed: AtomicBool::new(false),
            index: Index::new(shape.index_entries, origin),
            slots: Slots::new(
                shape.slots,
                shape.segment_bytes() as usize,
                origin.saturating_add(1),
            ),
            cursor_fields: CursorFields::new(epoch),
            shape,
            epoch,
        };
        ring.slots.install(0);
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

    pub(super) fn pool(&self) -> &Pool {
        self.slots.pool()
    }

    pub(super) fn index_bytes(&self) -> u64 {
        (self.shape.index_entries * super::index::ENTRY_BYTES) as u64
    }

    /// The oldest event that can be read when the head is `head`.
    pub(super) fn oldest(&self, head: u64) -> u64 {
        let by_events = head.saturating_sub(self.shape.max_events);
        (by_events.saturating_add(1)).max(self.slots.floor())
    }

    // --- closing ---

    pub(super) fn close(&self) {
        self.claim.close();
        // SeqCst: the closer looks at the parked bits after this, see `Waiters`.
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        // Acquire: whoever knows that it is closed finds that in the claim word too.
        self.closed.load(Ordering::Acquire)
    }

    /// Whether the ring is closed and `seq` is the last event that it will ever
    /// hold. `seq` is at most the head.
    pub(super) fn ends_at(&self, seq: u64) -> bool {
        self.is_closed() && self.claim.load().events_beyond(seq) == 0 && self.head() == seq
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
        let mut segment: Option<&Segment> = None;
        for event in events {
            let bytes = event.as_bytes();
            let start = self.place(end, frame::frame_bytes(bytes.len()) as u64);
            let number = start >> self.shape.segment_shift;
            let offset = self.offset(start);
            if offset == 0 {
                self.enter(number, seq, end);
                segment = None;
            }
            let segment = *segment.get_or_insert_with(|| {
                // SAFETY: this publisher has claimed a frame in this segment, and
                // the claim is not committed before the loop is over.
                unsafe { self.slots.claimed(number) }
            });
            let header = frame::header(bytes.len());
            let cursor = self.cursor_fields.of(seq);
            // SAFETY: `place` keeps the frame inside its segment; the range
            // comes from this publisher's claim, and its events are not
            // committed, so no reader has been given it.
            unsafe { segment.write(offset as usize, [&header, bytes, &cursor]) };
            end = start + frame::frame_bytes(bytes.len()) as u64;
            if seq == claim.first {
                // The first event is committed last, so that nobody walks into a
                // batch that is still being copied.
                first_end = end;
            } else {
                self.index.commit(seq, end, now_ms);
            }
            // May wrap after the very last sequence; it is not used then.
            seq = seq.wrapping_add(1);
        }
        self.index.commit(claim.first, first_end, now_ms);
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
        let backoff = Backoff::new();
        let mut claimed = self.claim.load();
        loop {
            if claimed.is_closed() {
                return Err(PublishError::Closed);
            }
            let known = self.known.seq();
            let ahead = claimed.events_beyond(known);
            if ahead > MAX_IN_FLIGHT_EVENTS {
                // The head has passed this value of the word.
                spin_loop();
                claimed = self.claim.load();
                continue;
            }
            let last = known
                .checked_add(ahead)
                .and_then(|claimed| claimed.checked_add(count))
                .ok_or(PublishError::Exhausted)?;
            // If the word is older than what is known, this is nonsense, and the
            // exchange fails.
            let from = claimed.end(self.known.end());
            let end = self.end_of(events, total, from);
            // A claim that stays in its segment needs no look at the slots: who
            // entered the segment has taken it.
            let at_hand = ahead + count <= self.shape.in_flight
                && self.segment_before(end) == self.segment_before(from);
            if !at_hand && !self.keeps_distance(last, end) {
                // Some publisher is a whole ring behind, between its claim and its
                // commit, and overwriting what it has yet to publish would lose it; or
                // the head moved too far for us to tell.
                backoff.snooze();
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
                Err(_) => {
                    // Another publisher is at it, too. To take turns event by event
                    // would have them wait for each other's cache lines all the time;
                    // so let it go on for some events.
                    (0..CONTENDED_SPINS).for_each(|_| spin_loop());
                    claimed = self.claim.load();
                }
            }
        }
    }

    /// Whether a claim up to `last`, which ends at `end`, leaves alone what is not yet
    /// published, and what a publisher may still be writing to.
    fn keeps_distance(&self, last: u64, end: u64) -> bool {
        let head = self.head();
        let head_end = self.index.end(head);
        if !self.still_indexed(head) {
            return false;
        }
        self.known.raise(head, head_end);
        let segments = (self.segment_before(end)).wrapping_sub(self.segment_before(head_end));
        last.wrapping_sub(head) <= self.shape.in_flight && segments <= self.shape.slots as u64 - 2
    }

    /// The segment of the byte before a position.
    fn segment_before(&self, position: u64) -> u64 {
        position.saturating_sub(1) >> self.shape.segment_shift
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
        if let Some(before) = number.checked_sub(1) {
            // SAFETY: the caller's claim starts a segment right after this one, and
            // is not committed.
            let before = unsafe { self.slots.claimed(before) };
            before.seal(Seal { last: seq - 1, end });
        }
        self.slots.install(number);
        // Claims keep so far from the head that even this one replaces nothing
        // that is not wholly published.
        self.slots.install(number + 1);
    }

    /// Moves the head over all that is committed, of which the caller has just
    /// committed the batch from `first` to `last`.
    ///
    /// Nobody waits: who finds an earlier event missing leaves its own to whoever
    /// commits that one. None is forgotten. Suppose that the head rests before a
    /// committed batch B, and that A moved it there. A looked for B *after* it had
    /// moved the head, and B looked at the head *after* its commit. Between each
    /// one's write and its look stands something of the single order of SeqCst
    /// operations: A's exchange, B's fence. If A's is the first, B finds the head
    /// right before it, and moves it; else A finds B committed, and goes on.
    fn advance(&self, first: u64, last: u64) {
        // Relaxed: a first guess. If it is right, the exchange will tell, and
        // nobody else can have been left anything; if not, it counts for nothing.
        let mut head = self.head.load(Ordering::Relaxed);
        if head != first - 1 {
            // SeqCst: pairs with the exchange below.
            fence(Ordering::SeqCst);
            head = self.head.load(Ordering::Acquire);
        }
        loop {
            // Own entries need no second look.
            let mut reach = if head == first - 1 { last } else { head };
            while reach != u64::MAX && self.index.is_committed(reach + 1) {
                reach += 1;
            }
            if reach != head {
                // SeqCst, of which Release: publishes the frames and entries up to
                // `reach`, pairs with the Acquire in `head`. The single order: with
                // the fence above, and with that of a subscriber that parks: it sets
                // its bit and then loads the head, we move the head and then load the
                // bits (`Waiters::notify`).
                match self
                    .head
                    .compare_exchange(head, reach, Ordering::SeqCst, Ordering::Acquire)
                {
                    // Look again: for who committed meanwhile, and left to us.
                    Ok(_) => head = reach,
                    Err(newer) => head = newer,
                }
            } else {
                // If the head moved meanwhile, the entry that we looked at may
                // have been of another lap.
                let newer = self.head.load(Ordering::Acquire);
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
            let lease = match reader.lease.take() {
                Some(lease) if lease.segment().number() == number => lease,
                spent => match self.slots.lease(number, spent) {
                    Some(lease) => lease,
                    None if reader.seq + 1 < self.oldest(head) => return None,
                    None => {
                        // It has left the ring, and the next event has not: that
                        // is then the first of the next segment.
                        start = (number + 1) << self.shape.segment_shift;
                        continue;
                    }
                },
            };
            let lease = reader.lease.insert(lease);
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
                lease: Arc::clone(lease),
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
