//! The ring: claim, copy, commit on one side; read and resume on the other.
//!
//! | file | noun |
//! |---|---|
//! | `positions` | bytes in the endless row of segments |
//! | `publish` | claim, copy, commit |
//! | `append` | sequences from outside, and holes |
//! | `read` | a reader, what it finds, and whether it can resume |
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

mod append;
mod positions;
mod publish;
mod read;

use crossbeam::utils::CachePadded;

pub(super) use self::append::Put;
pub(super) use self::read::{Read, Reader, Retained};

use self::positions::Positions;
use super::claim::{ClaimWord, Known, MAX_IN_FLIGHT_EVENTS};
use super::frame::{self, CursorFields};
use super::index::Index;
use super::pool::Pool;
use super::slots::Slots;
use super::sync::{AtomicBool, AtomicU64, Ordering};
use crate::cursor::Epoch;

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
    positions: Positions,
    shape: Shape,
    epoch: Epoch,
    /// Whether sequences come from outside. Readers of other rings are spared the look.
    may_have_holes: bool,
}

impl Ring {
    /// An empty ring whose first event will be the one after `origin`, or after a hole
    /// that follows it.
    pub(super) fn new(shape: Shape, epoch: Epoch, origin: u64, may_have_holes: bool) -> Self {
        let ring = Ring {
            claim: CachePadded::new(ClaimWord::new(origin)),
            head: CachePadded::new(AtomicU64::new(origin)),
            known: CachePadded::new(Known::new(origin)),
            closed: AtomicBool::new(false),
            index: Index::new(shape.index_entries, origin),
            slots: Slots::new(shape.slots, shape.segment_bytes() as usize, origin + 1),
            cursor_fields: CursorFields::new(epoch),
            positions: Positions::new(shape.segment_shift),
            shape,
            epoch,
            may_have_holes,
        };
        ring.slots.install(0);
        ring
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether an appender feeds it, and not publishers.
    pub(super) fn may_have_holes(&self) -> bool {
        self.may_have_holes
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn head(&self) -> u64 {
        // Acquire: whoever knows the head may read everything up to it; pairs
        // with the exchange in `advance`.
        self.head.load(Ordering::Acquire)
    }

    /// The head, while publishers have claimed events after it that cannot be read yet.
    pub(super) fn unfinished_after(&self) -> Option<u64> {
        // The claim first: the head may come past it meanwhile, and not the other way round.
        let claimed = self.claim.load();
        let head = self.head();
        let unfinished = 1..=MAX_IN_FLIGHT_EVENTS;
        unfinished
            .contains(&claimed.events_beyond(head))
            .then_some(head)
    }

    /// Appends the frame of event `seq` to `frames`.
    pub(super) fn write_frame(&self, seq: u64, event: &[u8], frames: &mut Vec<u8>) {
        let (cursor, high, low) = self.cursor_fields.of(seq);
        for part in [&frame::header(event.len())[..], event, cursor, &high, &low] {
            frames.extend_from_slice(part);
        }
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

    /// How many sequences there are from the oldest event that can be read to the head.
    pub(super) fn retained_events(&self) -> u64 {
        let head = self.head();
        let oldest = self.oldest(head);
        if oldest > head {
            return 0;
        }
        // A figure, taken while others work: the entry may be gone.
        let first = self.index.hole_end(oldest).unwrap_or(oldest);
        (head + 1).saturating_sub(first)
    }

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
}
