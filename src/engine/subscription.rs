//! A gateway's hold on its id, and how a newer one takes it.

use super::sync::{AtomicU64, Ordering};
use super::waiters::Seat;

/// What the subscription map knows of a subscriber.
#[derive(Debug)]
pub(super) struct Subscription {
    id: Box<str>,
    seat: Seat,
    /// Counts the subscriber's reads, in steps of 2; the lowest bit says that the
    /// subscription has ended.
    ///
    /// A read takes effect when its exchange moves the count. Ending sets the bit,
    /// which makes that exchange fail: every read is either wholly before the end
    /// or has not happened. Neither side waits for the other.
    turns: AtomicU64,
}

const TAKEN: u64 = 1;

/// A read that has begun.
#[derive(Debug)]
pub(super) struct Turn(u64);

impl Subscription {
    pub(super) fn new(id: &str, seat: Seat) -> Self {
        Subscription {
            id: Box::from(id),
            seat,
            turns: AtomicU64::new(0),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Where its subscriber parks.
    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Begins a read, unless the subscription has ended. Only its subscriber reads,
    /// one read at a time.
    pub(super) fn begin_turn(&self) -> Option<Turn> {
        // Acquire: pairs with the exchange in `mark_taken`.
        let turns = self.turns.load(Ordering::Acquire);
        (turns & TAKEN == 0).then_some(Turn(turns))
    }

    /// Ends a read. `false` if the subscription ended first: the read has then not
    /// happened.
    pub(super) fn end_turn(&self, turn: Turn) -> bool {
        // AcqRel: what was read is before an end that has not come yet.
        self.turns
            .compare_exchange(
                turn.0,
                turn.0.wrapping_add(2),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
    }

    /// Ends the subscription. When this returns, the subscriber has taken its last
    /// event from the ring. Says whether it was this call that ended it: who ended
    /// it sees to its place in the map.
    pub(super) fn mark_taken(&self) -> bool {
        // AcqRel: whoever ends it sees what its reads have seen, and the subscriber,
        // when it is woken for it, sees the mark.
        self.turns.fetch_or(TAKEN, Ordering::AcqRel) & TAKEN == 0
    }

    /// Whether it has ended.
    pub(super) fn is_taken(&self) -> bool {
        self.turns.load(Ordering::Acquire) & TAKEN != 0
    }
}
