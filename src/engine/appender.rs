//! The end of an engine that follows a log: sequences and epoch come from outside.

use std::time::Duration;

use super::error::AppendError;
use super::publisher::Published;
use super::revocations::{self, Due};
use super::ring::Put;
use super::shared::Shared;
use super::sync::Arc;
use super::time::millis;
use crate::cursor::{Cursor, Seq};
use crate::event::Event;

/// Puts events into the ring that an ordered log elsewhere has numbered.
///
/// [`Builder::build_appended`](super::Builder::build_appended) makes an engine with the
/// one appender that feeds it; such an engine has no [`Publisher`](super::Publisher). The
/// appender does not clone, and appending takes it mutably: the log has one reader.
///
/// # Holes
///
/// A batch may begin beyond the event after the head: the log no longer has what lies
/// between. These sequences are then *missing*, for good:
///
/// - A subscriber before the hole receives what the ring has before it, and then learns of
///   the gap by [`RecvError::Lagged`](super::RecvError::Lagged), with the exact count.
/// - A cursor whose next event is missing does not resume: the stream starts after the
///   head, as [`Resume::Expired`](super::Resume::Expired). `missed` counts the sequences
///   between the two, missing ones included. The cursor of the last missing event does
///   resume: nothing is missing after it.
/// - Missing sequences count for `max_events`, as their events would have. So a hole of
///   `max_events` leaves nothing of what was before it.
///
/// A hole costs one entry of the index for each missing sequence, and at most the whole
/// index. Beyond [`Limits::max_batch_events`](super::Limits::max_batch_events) missing
/// sequences, a subscriber that reads at that very moment may learn of the gap in two
/// parts. Their sum is exact.
///
/// ```
/// use galaxy_push::cursor::{Epoch, Seq};
/// use galaxy_push::engine::{Appended, Engine, TryRecvError};
/// use galaxy_push::event::Event;
///
/// let epoch = Epoch::new(1_700_000_000_000, 7).expect("it fits");
/// let (engine, mut appender) = Engine::builder().build_appended(epoch)?;
/// // PushEvent { client_event: { user_id: "u", kind: "k" } }
/// let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
///
/// appender.append(Seq::new(1), &[event; 2])?;
/// let mut gateway = engine.subscribe("gateway-1", "")?;
/// // The log has lost 3, 4 and 5.
/// let appended = appender.append(Seq::new(6), &[event])?;
/// assert!(matches!(appended, Appended::After { missing: 3, .. }));
/// assert_eq!(gateway.try_recv().unwrap_err(), TryRecvError::Lagged(3));
/// assert_eq!(gateway.try_recv()?.first().seq(), Seq::new(6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Appender {
    shared: Arc<Shared>,
}

/// What became of a batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// It is in the ring, right after the head, or after a hole.
    After {
        /// How many sequences are missing before it; 0 if it followed the head.
        missing: u64,
        /// Where its events are.
        published: Published,
    },
    /// Its sequences were appended before. Nothing has changed.
    Repeated,
}

impl Appender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Appender { shared }
    }

    /// Appends a batch: its events have the sequences from `first` on, without holes, and
    /// become visible together. Returns when they can be read.
    ///
    /// A batch that ends at or before the head is a repetition, and is ignored. That is
    /// decided by its sequences alone: the events are not compared. It is an error if the
    /// ring remembers one of the sequences as missing, since subscribers were told so.
    ///
    /// Never waits for subscribers.
    ///
    /// # Errors
    ///
    /// After an error nothing of the batch was published. The sequences are not after the
    /// head; or the batch cannot be published, as by a
    /// [`Publisher`](super::Publisher::publish_batch). No hole is made then, unless the
    /// engine is closed by another thread between the hole and the batch.
    pub fn append(&mut self, first: Seq, events: &[Event<'_>]) -> Result<Appended, AppendError> {
        self.append_aged(first, events, Duration::ZERO)
    }

    /// The same, of events that were published so long ago, as the log tells: for the window
    /// in which gateways resume at them, and for how long their invalidations are kept.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn append_aged(
        &mut self,
        first: Seq,
        events: &[Event<'_>],
        age: Duration,
    ) -> Result<Appended, AppendError> {
        let shared = &self.shared;
        let published_ms = shared.time.now_ms().saturating_sub(millis(age));
        let put = Self::put(shared, first.number(), events, published_ms);
        // Also after an error: there may be a hole to learn of.
        shared.waiters.notify();
        Ok(match put? {
            Put::Repeated => Appended::Repeated,
            Put::After { missing } => Appended::After {
                missing,
                published: Published {
                    first: self.cursor(first.number()),
                    last: self.cursor(first.number() + (events.len() as u64 - 1)),
                },
            },
        })
    }

    fn put(
        shared: &Arc<Shared>,
        first: u64,
        events: &[Event<'_>],
        published_ms: u64,
    ) -> Result<Put, AppendError> {
        let Some(revocations) = &shared.revocations else {
            return shared.ring.append(first, events, published_ms, |_| ());
        };
        let note = shared.note(events, published_ms);
        // There may be invalidations in a hole: no replay begins before that is known.
        let has_hole = first > shared.ring.head() + 1;
        let mut kept = has_hole.then(|| revocations.write());
        let mut due = Due::Later;
        let put = shared.ring.append(first, events, published_ms, |first| {
            if let Some((revocations, note)) = note {
                due = revocations.note(note, first);
            }
        });
        if let Some(kept) = &mut kept
            && shared.ring.head() >= first - 1
        {
            kept.table.lose(first - 1);
        }
        drop(kept);
        // Before any work on the table: nobody is to wait for that.
        shared.waiters.notify();
        revocations::keep(shared, revocations, due);
        put
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor::new(self.shared.ring.epoch(), Seq::issued(seq))
    }
}
