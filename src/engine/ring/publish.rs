//! Publishing: claim, copy, commit.

#![allow(unsafe_code, reason = "writes to what it has claimed")]

use super::Ring;
use crate::cursor::Seq;
use crate::engine::claim::MAX_IN_FLIGHT_EVENTS;
use crate::engine::error::PublishError;
use crate::engine::frame;
use crate::engine::segment::Seal;
use crate::engine::sync::{Backoff, Ordering, fence, spin_loop};
use crate::event::Event;

/// A publisher whose claim another one has overtaken looks again after this pause, half a
/// microsecond: the other one's event is published by then.
const SHORT_PAUSE: Pause = Pause(32);
/// If a run of events was claimed meanwhile, the others are at it without a break, and it
/// stands back for so long: some ten microseconds, and some hundred of their events. To
/// take turns event by event would have all wait for each other's cache lines.
const LONG_PAUSE: Pause = Pause(1024);
/// How many events are such a run.
const RUN: u64 = 2;

/// So many [`spin_loop`]s; one under a tool for which time does not pass.
struct Pause(u32);

impl Pause {
    fn wait(&self) {
        let spins = if cfg!(any(galaxy_loom, miri)) {
            1
        } else {
            self.0
        };
        (0..spins).for_each(|_| spin_loop());
    }
}

/// Sequences and space that belong to one publisher alone.
#[derive(Debug)]
struct Claim {
    /// The first sequence.
    first: u64,
    /// The position where the event before it ends.
    from: u64,
}

impl Ring {
    /// Puts `events`, which were checked and take `total` bytes, into the ring, side by
    /// side. Returns the first's sequence.
    ///
    /// `claimed` is told that before anybody can read one of them.
    #[inline(always)]
    pub(in crate::engine) fn put(
        &self,
        events: &[Event<'_>],
        total: u64,
        now_ms: u64,
        claimed: impl FnOnce(u64),
    ) -> Result<u64, PublishError> {
        let Claim { first, from } = self.claim(events, total)?;
        // From here to the commit nothing can fail: an event that is claimed and
        // never committed would hide every later one.
        claimed(first);
        let mut seq = first;
        let mut end = from;
        let mut first_end = end;
        let mut left = events;
        // Each turn writes the events that go to one segment.
        while let [next, ..] = left {
            let start = self.positions.place(end, frame_bytes(next));
            if self.positions.offset(start) == 0 {
                self.enter(self.positions.segment(start), seq, end);
            }
            // SAFETY: this publisher has claimed a frame in this segment, and the
            // claim is not committed before the loop is over.
            let segment = unsafe { self.slots.claimed(self.positions.segment(start)) };
            let segment_end = start + self.positions.room(start);
            end = start;
            while let [event, after @ ..] = left {
                let bytes = event.as_bytes();
                let frame_end = end + frame::frame_bytes(bytes.len()) as u64;
                if frame_end > segment_end {
                    break;
                }
                let header = frame::header(bytes.len());
                let (cursor, high, low) = self.cursor_fields.of(seq);
                let offset = self.positions.offset(end) as usize;
                // SAFETY: the frame ends inside its segment; the range comes from
                // this publisher's claim, and its events are not committed, so no
                // reader has been given it.
                unsafe { segment.write(offset, [&header, bytes, cursor, &high, &low]) };
                end = frame_end;
                if seq == first {
                    // The first event is committed last, so that nobody walks into a
                    // batch that is still being copied.
                    first_end = end;
                } else {
                    self.index.commit(seq, end, now_ms);
                }
                seq += 1;
                left = after;
            }
        }
        self.index.commit(first, first_end, now_ms);
        self.advance(first, seq - 1);
        Ok(first)
    }

    /// What a publisher does that stops in the middle, for good.
    #[cfg(all(test, not(galaxy_loom)))]
    pub(in crate::engine) fn claim_and_stop(&self, events: &[Event<'_>]) {
        let claim = self
            .check(events)
            .and_then(|total| self.claim(events, total));
        claim.expect("claimed");
    }

    /// The size in bytes of frames of a batch of client events that may be published. `None`
    /// for any other batch, of which [`check`](Self::check) says more.
    #[inline(always)]
    pub(in crate::engine) fn check_client_events(&self, events: &[Event<'_>]) -> Option<u64> {
        let mut total = 0;
        for event in events {
            let bytes = event.marked_size();
            if bytes > self.shape.max_event_bytes as u64 {
                return None;
            }
            total += bytes + frame::OVERHEAD_BYTES as u64;
        }
        let may_be = !events.is_empty()
            && events.len() as u64 <= self.shape.in_flight
            && total <= self.shape.max_batch_bytes;
        may_be.then_some(total)
    }

    /// The batch's size in bytes of frames, if it may be published.
    pub(in crate::engine) fn check(&self, events: &[Event<'_>]) -> Result<u64, PublishError> {
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
            total += frame_bytes(event);
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
    #[inline(always)]
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
            // All three are far below what a sum could overflow with.
            let last = known + ahead + count;
            if last > Seq::MAX.number() {
                return Err(PublishError::Exhausted);
            }
            // If the word is older than what is known, this is nonsense, and the
            // exchange fails.
            let from = claimed.end(self.known.end());
            let end = self.end_of(events, total, from);
            // A claim that stays in its segment needs no look at the slots: who
            // entered the segment has taken it.
            let at_hand = ahead + count <= self.shape.in_flight
                && self.positions.segment_before(end) == self.positions.segment_before(from);
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
                Err(overtaken_by) => {
                    SHORT_PAUSE.wait();
                    claimed = self.claim.load();
                    if claimed.events_beyond(overtaken_by.seq_bits()) >= RUN {
                        LONG_PAUSE.wait();
                        claimed = self.claim.load();
                    }
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
        let segments = self
            .positions
            .segment_before(end)
            .wrapping_sub(self.positions.segment_before(head_end));
        last.wrapping_sub(head) <= self.shape.in_flight && segments <= self.shape.slots as u64 - 2
    }

    /// Where a run of frames ends that starts after `from`.
    fn end_of(&self, events: &[Event<'_>], total: u64, from: u64) -> u64 {
        if total <= self.positions.room(from) {
            return from + total;
        }
        events.iter().fold(from, |end, event| {
            let bytes = frame_bytes(event);
            self.positions.place(end, bytes) + bytes
        })
    }

    /// The first frame of segment `number`, with sequence `seq`, is ours: seal the
    /// segment before, and have the next one ready before it is needed.
    #[cold]
    pub(super) fn enter(&self, number: u64, seq: u64, end: u64) {
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
            // Own entries need no look.
            let reach = if head == first - 1 {
                last
            } else {
                self.committed(head)
            };
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

    /// The last event after `seq` that is committed with all between them, or `seq`.
    fn committed(&self, seq: u64) -> u64 {
        let mut reach = seq;
        while self.index.is_committed(reach + 1) {
            reach += 1;
        }
        reach
    }
}

fn frame_bytes(event: &Event<'_>) -> u64 {
    frame::frame_bytes(event.as_bytes().len()) as u64
}
