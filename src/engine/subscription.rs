//! A gateway's hold on its id, and how a newer one takes it.

use super::subscriber::{Resume, Start};
use super::sync::{AtomicU64, Ordering};
use super::waiters::Seat;
use crate::cursor::{Cursor, Epoch, Seq};

/// What the subscription map knows of a subscriber.
#[derive(Debug)]
pub(super) struct Subscription {
    id: Box<str>,
    seat: Seat,
    start: StartWords,
    /// Counts the subscriber's reads, in steps of [`READ`]; the bits below say that the
    /// subscription has ended, and how.
    ///
    /// A read takes effect when its exchange moves the count. Ending sets the bit,
    /// which makes that exchange fail: every read is either wholly before the end
    /// or has not happened. Neither side waits for the other.
    turns: AtomicU64,
    /// What its reader has handed on.
    delivered: Delivered,
}

/// What a subscriber's owner has delivered, as that says. The engine goes by none of it.
///
/// Beside `turns`, which the same thread has just written: so to count costs no cache line.
#[derive(Debug)]
struct Delivered {
    position: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

/// A [`Start`] that is written once it is known, when the id is its own already.
#[derive(Debug)]
struct StartWords {
    /// The number of the variant in the lowest bits, and above them how many events were
    /// missed, which are fewer than there are sequences.
    resume: AtomicU64,
    seq: AtomicU64,
}

impl StartWords {
    const BITS: u32 = 3;

    fn new() -> Self {
        StartWords {
            resume: AtomicU64::new(0),
            seq: AtomicU64::new(0),
        }
    }

    fn set(&self, resume: Resume, seq: u64) {
        let (variant, missed) = match resume {
            Resume::NoCursor => (0, 0),
            Resume::Resumed => (1, 0),
            Resume::Expired { missed } => (2, missed),
            Resume::Ahead => (3, 0),
            Resume::OtherEpoch { is_later: false } => (4, 0),
            Resume::OtherEpoch { is_later: true } => (5, 0),
            Resume::Malformed => (6, 0),
        };
        // Relaxed, here and in `get`: whoever asks has been given the subscription by the
        // thread that has set this, and so after it.
        self.resume
            .store(missed << Self::BITS | variant, Ordering::Relaxed);
        self.seq.store(seq, Ordering::Relaxed);
    }

    fn get(&self) -> (Resume, u64) {
        let word = self.resume.load(Ordering::Relaxed);
        let resume = match word & ((1 << Self::BITS) - 1) {
            0 => Resume::NoCursor,
            1 => Resume::Resumed,
            2 => Resume::Expired {
                missed: word >> Self::BITS,
            },
            3 => Resume::Ahead,
            4 => Resume::OtherEpoch { is_later: false },
            5 => Resume::OtherEpoch { is_later: true },
            _ => Resume::Malformed,
        };
        (resume, self.seq.load(Ordering::Relaxed))
    }
}

/// It has ended.
const TAKEN: u64 = 1;
/// By its [`Ender`](super::Ender), and not because a newer one has its id.
const FROM_OUTSIDE: u64 = 2;
const READ: u64 = 4;

/// A read that has begun.
#[derive(Debug)]
pub(super) struct Turn(u64);

impl Subscription {
    pub(super) fn new(id: &str, seat: Seat) -> Self {
        Subscription {
            id: Box::from(id),
            seat,
            start: StartWords::new(),
            turns: AtomicU64::new(0),
            delivered: Delivered {
                position: AtomicU64::new(0),
                events: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            },
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
                turn.0.wrapping_add(READ),
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

    /// The same, for another reason than a newer subscription.
    pub(super) fn mark_ended(&self) -> bool {
        let end = |turns: u64| (turns & TAKEN == 0).then_some(turns | TAKEN | FROM_OUTSIDE);
        // As above.
        (self.turns)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, end)
            .is_ok()
    }

    /// Whether it was [ended](Self::mark_ended) so.
    pub(super) fn was_ended(&self) -> bool {
        self.turns.load(Ordering::Acquire) & FROM_OUTSIDE != 0
    }

    /// Its subscriber starts here. Called once, before anybody else asks.
    pub(super) fn start_at(&self, start: &Start) {
        let seq = start.cursor.seq().number();
        // Relaxed, here and below: figures for others to look at, each on its own.
        self.delivered.position.store(seq, Ordering::Relaxed);
        self.start.set(start.resume, seq);
    }

    /// Where its subscriber starts, of an engine of this epoch.
    pub(super) fn start(&self, epoch: Epoch) -> Start {
        let (resume, seq) = self.start.get();
        Start {
            resume,
            cursor: Cursor::new(epoch, Seq::issued(seq)),
        }
    }

    /// Counts what was delivered. Only its subscriber does, so no read-modify-write is
    /// needed.
    #[inline]
    pub(super) fn delivered(&self, last: u64, events: u64, bytes: u64) {
        let add = |count: &AtomicU64, n: u64| {
            count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        };
        self.delivered.position.store(last, Ordering::Relaxed);
        add(&self.delivered.events, events);
        add(&self.delivered.bytes, bytes);
    }

    /// The sequence up to which it was delivered, how many events those were, and how many
    /// bytes.
    pub(super) fn deliveries(&self) -> (u64, u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let delivered = &self.delivered;
        (
            of(&delivered.position),
            of(&delivered.events),
            of(&delivered.bytes),
        )
    }

    /// Whether it has ended.
    pub(super) fn is_taken(&self) -> bool {
        self.turns.load(Ordering::Acquire) & TAKEN != 0
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_kept_as_it_was() {
        let words = StartWords::new();
        let most = Seq::MAX.number();
        for resume in [
            Resume::Resumed,
            Resume::NoCursor,
            Resume::Expired { missed: 0 },
            Resume::Expired { missed: most },
            Resume::Ahead,
            Resume::OtherEpoch { is_later: false },
            Resume::OtherEpoch { is_later: true },
            Resume::Malformed,
        ] {
            words.set(resume, most);
            assert_eq!(words.get(), (resume, most));
        }
    }
}
