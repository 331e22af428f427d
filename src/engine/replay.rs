//! What a gateway has missed and must not go without: the invalidations.

use super::error::ReplayError;
use super::frame;
use super::shared::Shared;
use super::subscriber::{Resume, Start, Subscriber};
use super::sync::{Arc, Ordering};
use crate::revocations;

/// The table is locked while so much is copied out of it.
const PIECE_BYTES: usize = 16 << 10;

/// The invalidations between a gateway's cursor and the start of its stream, the newest of each
/// session, as they were published and in their order.
///
/// What it takes is read from the engine's table while that goes on to change; still it is what
/// was newest when the stream started. A gateway that reads too slowly for the memory which the
/// table may have loses its replay, as it would lose its place in the ring.
///
/// ```
/// use galaxy_push::engine::Engine;
/// use galaxy_push::event::Event;
///
/// let engine = Engine::builder().max_events(1).max_revocations(1000).build()?;
/// // PushEvent { session_invalidation { user_id: "u1" } }
/// let revoked = Event::parse(b"\x12\x04\x12\x02u1")?;
/// // PushEvent { client_event: { user_id: "u", kind: "k" } }
/// let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
/// let processed = engine.publisher().publish(event)?;
/// let cursor = engine.publisher().publish(revoked)?;
/// engine.publisher().publish_batch(&[event; 3])?;
///
/// let (gateway, replay) = engine.subscribe_with_replay("gateway-1", &processed.to_string())?;
/// let mut replay = replay.expect("the ring has but one event left");
/// assert!(replay.is_complete());
/// assert_eq!(replay.left(), 1);
/// let frames = replay.try_recv(&gateway)?.expect("there is one");
/// assert!(frames.ends_with(cursor.to_string().as_bytes()));
/// assert!(replay.try_recv(&gateway)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "it holds what it is to read"]
pub struct Replay {
    shared: Arc<Shared>,
    /// `None` where the engine keeps no invalidations.
    inner: Option<revocations::Replay>,
}

impl Replay {
    /// Where a stream starts that asks for `cursor`, and what it has to know of what it has
    /// missed; `None` if it goes on where it stopped.
    pub(super) fn start(shared: &Arc<Shared>, cursor: &str) -> (Start, Option<Self>) {
        let of = |inner| Replay {
            shared: Arc::clone(shared),
            inner,
        };
        let start = shared.start(cursor);
        if start.resume == Resume::Resumed {
            return (start, None);
        }
        let Some(revocations) = &shared.revocations else {
            return (start, Some(of(None)));
        };
        // Before the table is locked for all that is left.
        let now_ms = shared.time.now_ms();
        revocations.catch_up(&shared.ring, now_ms);
        // Once more, and now nothing beyond its start gets into the table.
        let mut kept = revocations.write();
        let start = shared.start(cursor);
        if start.resume == Resume::Resumed {
            return (start, None);
        }
        let head = start.cursor.seq().number();
        revocations.take_up_to(&mut kept, head, now_ms);
        let replay = match start.resume {
            Resume::Expired { missed } => kept.table.begin(head - missed, head),
            Resume::NoCursor => kept.table.begin(0, head),
            // What was published before this epoch, nobody knows here.
            _ => kept.table.begin(0, head).incomplete(),
        };
        (start, Some(of(Some(replay))))
    }

    /// Whether nothing is missing: every invalidation between the cursor and the stream's start
    /// is in it, unless a newer one of the same user and session is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(revocations::Replay::is_complete)
    }

    /// How many are still to be received.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.inner.as_ref().map_or(0, revocations::Replay::left)
    }

    /// The next ones, as whole frames; `None` when all were received. `subscriber` is the one
    /// that this came with.
    ///
    /// # Errors
    ///
    /// All are final for the subscriber, too: it was taken over, or the engine aborted; or the
    /// gateway is too slow, and the table has given the replay up.
    pub fn try_recv(&mut self, subscriber: &Subscriber) -> Result<Option<Vec<u8>>, ReplayError> {
        let shared = &*self.shared;
        let turn = subscriber.begin_turn().ok_or(ReplayError::TakenOver)?;
        // Acquire: pairs with the Release in `Engine::abort`.
        if shared.aborted.load(Ordering::Acquire) {
            return Err(ReplayError::Closed);
        }
        let (Some(replay), Some(revocations)) = (&mut self.inner, &shared.revocations) else {
            return Ok(None);
        };
        if replay.left() == 0 {
            return Ok(None);
        }
        let mut frames = Vec::new();
        let read = revocations.read().table.read(replay, |seq, event| {
            let bytes = frame::frame_bytes(event.len());
            frames.reserve(bytes.max(PIECE_BYTES.saturating_sub(frames.len())));
            shared.ring.write_frame(seq, event, &mut frames);
            frames.len() + bytes <= PIECE_BYTES
        });
        if read.is_err() {
            return Err(ReplayError::TooSlow {
                left: replay.left(),
            });
        }
        if !subscriber.end_turn(turn) {
            return Err(ReplayError::TakenOver);
        }
        Ok(Some(frames))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let (Some(replay), Some(revocations)) = (&self.inner, &self.shared.revocations) {
            revocations.write().table.end(replay);
        }
    }
}
