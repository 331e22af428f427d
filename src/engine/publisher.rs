//! The publishers' end of the engine.

use super::error::PublishError;
use super::revocations::{self, Due};
use super::shared::Shared;
use super::sync::Arc;
use crate::cursor::{Cursor, Seq};
use crate::event::Event;

/// Puts events into the ring. Cheap to clone; any number of threads may publish
/// at once, through clones or through one.
///
/// Publishing is no `async` function and needs none: it copies the events, wakes
/// whoever waits for them, and returns. Nobody needs to be subscribed; whoever
/// resumes later finds the events in the ring.
///
/// ```
/// use galaxy_push::engine::{Engine, PublishError};
/// use galaxy_push::event::Event;
///
/// let engine = Engine::builder().build()?;
/// let publisher = engine.publisher();
///
/// // PushEvent { client_event: { user_id: "u", kind: "k" } }
/// let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
/// let first = publisher.publish(event)?;
/// let batch = publisher.publish_batch(&[event, event])?;
/// assert!(first < batch.first && batch.first < batch.last);
/// assert_eq!(batch.last, engine.head());
///
/// engine.close();
/// assert_eq!(publisher.publish(event), Err(PublishError::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// Where a batch stands in the stream: its events have the cursors from `first`
/// to `last`, without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The first event's cursor.
    pub first: Cursor,
    /// The last event's cursor.
    pub last: Cursor,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Publisher { shared }
    }

    /// Publishes one event and returns its cursor.
    ///
    /// What it returns is the event's place in the stream, for good. It can be read as
    /// soon as every event before it is published, too: while another publisher is in
    /// the middle of an earlier one, [`Engine::head`](super::Engine::head) may still be
    /// below this cursor.
    ///
    /// Never waits for subscribers. It waits for other publishers in three cases: one
    /// of them stopped between its claim and its commit for so long that the others
    /// have come around the whole ring; this batch is so large that it needs the room
    /// which one of them has claimed (at
    /// [`Limits::max_batch_events`](super::Limits::max_batch_events), any claim that
    /// is not committed); or two of them stopped in the middle of installing the
    /// segment that this event goes to.
    ///
    /// # Errors
    ///
    /// As [`publish_batch`](Self::publish_batch).
    pub fn publish(&self, event: Event<'_>) -> Result<Cursor, PublishError> {
        Ok(self.cursor(self.put(&[event])?))
    }

    /// Publishes a batch: its events stand side by side in the stream, and become
    /// visible together.
    ///
    /// # Errors
    ///
    /// After an error nothing of the batch was published. The engine is closed, or
    /// the batch is empty, too large, or has an event that is too large.
    pub fn publish_batch(&self, events: &[Event<'_>]) -> Result<Published, PublishError> {
        let first = self.put(events)?;
        Ok(Published {
            first: self.cursor(first),
            last: self.cursor(first + (events.len() as u64 - 1)),
        })
    }

    /// Returns the first event's sequence. Inlined, so that there is one for a single
    /// event: that takes a quarter less than a batch of one.
    #[inline(always)]
    fn put(&self, events: &[Event<'_>]) -> Result<u64, PublishError> {
        let shared = &self.shared;
        let now_ms = shared.time.now_ms();
        let first = match shared.ring.check_client_events(events) {
            Some(total) => shared.ring.put(events, total, now_ms, |_| ())?,
            None => self.put_others(events, now_ms)?,
        };
        shared.waiters.notify();
        Ok(first)
    }

    /// The same, for a batch with invalidations, or one that is refused.
    #[cold]
    #[inline(never)]
    fn put_others(&self, events: &[Event<'_>], now_ms: u64) -> Result<u64, PublishError> {
        let shared = &self.shared;
        let total = shared.ring.check(events)?;
        let Some((revocations, note)) = shared.note(events, now_ms) else {
            return shared.ring.put(events, total, now_ms, |_| ());
        };
        let mut due = Due::Later;
        let first = shared.ring.put(events, total, now_ms, |first| {
            due = revocations.note(note, first);
        })?;
        // Before any work on the table: nobody is to wait for that.
        shared.waiters.notify();
        revocations::keep(shared, revocations, due);
        Ok(first)
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor::new(self.shared.ring.epoch(), Seq::issued(seq))
    }
}
