//! [`Feed`]: brings a router what the backend publishes.

use std::task::Waker;

use bytes::Bytes;

use super::end::{End, Revocation};
use super::entry::{Entry, Pushed};
use super::router::{Builder, SHARDS, Shared, wake};
use super::stats::count;
use super::sync::Arc;
use super::table::Spot;
use crate::cursor::{Cursor, ParseCursorError};
use crate::event::{Invalidation, Received, ReceivedError, ReceivedKind, Recipient};
use crate::prefetch;

/// How many events are routed together. Their sessions are fetched into the cache side by side.
const TOGETHER: usize = 256;
/// How many events before it is read, an event is fetched.
const AHEAD: usize = 8;

/// Brings a [`Router`](super::Router) what the backend publishes, in its order. There is one for
/// each router.
///
/// It is told where streams begin, for that is what decides whether invalidations were missed.
/// With the feature `client`, `Driver` does all this.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    /// In the middle of a replay.
    replay: Option<Replay>,
    woken: Vec<Waker>,
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Right after the last event that the feed has brought: nothing was missed.
    Resumed,
    /// With the invalidations that were missed, up to [`Feed::replayed`]. Until then the router
    /// is stale.
    Replay {
        /// They are all there. Else every session is suspect afterwards.
        is_complete: bool,
    },
    /// Anywhere else: every session is suspect. That is also right for the first stream.
    Lost,
}

#[derive(Debug)]
struct Replay {
    is_complete: bool,
}

/// An event that cannot be what a backend has published. Those before it were brought.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// It is not a `PushEvent`.
    #[error(transparent)]
    Event(#[from] ReceivedError),
    /// It has no valid cursor.
    #[error("the event's cursor: {0}")]
    Cursor(#[from] ParseCursorError),
}

/// A client event, and where its user is.
struct Routed<'a> {
    event: &'a Bytes,
    user: &'a [u8],
    session: &'a [u8],
    spot: Spot,
}

/// What has become of some events.
#[derive(Debug, Default)]
struct Outcome {
    queued: u64,
    unrouted: u64,
    dropped: u64,
    overflowed: u64,
}

impl Feed {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Feed {
            shared,
            replay: None,
            woken: Vec::new(),
        }
    }

    /// A stream begins. What is heard from now on is heard from it.
    pub fn begin(&mut self, beginning: Beginning) {
        // A replay that has not ended leaves it unknown what was missed, unless the next one has
        // it all.
        let is_lost = match (beginning, self.replay.take()) {
            (Beginning::Lost, _) | (Beginning::Resumed, Some(_)) => true,
            (Beginning::Resumed, None) => false,
            (Beginning::Replay { is_complete }, before) => {
                let was_complete = before.is_none_or(|before| before.is_complete);
                self.shared.unheard();
                self.replay = Some(Replay {
                    is_complete: is_complete && was_complete,
                });
                return;
            }
        };
        if is_lost {
            self.lose();
        }
        self.heard();
    }

    /// The replay is over: all invalidations that were missed and are known have been
    /// [delivered](Self::deliver).
    pub fn replayed(&mut self) {
        if let Some(replay) = self.replay.take() {
            if !replay.is_complete {
                self.lose();
            }
            self.heard();
        }
    }

    /// How often invalidations were lost.
    #[cfg(feature = "client")]
    pub(super) fn losses(&self) -> u32 {
        self.shared.generation()
    }

    #[cfg(feature = "client")]
    pub(super) fn router(&self) -> super::Router {
        super::Router(Arc::clone(&self.shared))
    }

    #[cfg(feature = "client")]
    pub(super) fn stale_after(&self) -> std::time::Duration {
        self.shared.settings.stale_after
    }

    fn lose(&self) {
        self.shared.lose();
        count(&self.shared.counters.losses, 1);
    }

    /// The backend was heard: an event, or a heartbeat. [`deliver`](Self::deliver) says it as well.
    pub fn heard(&self) {
        if self.replay.is_none() && self.shared.heard() {
            self.shared.walk(|entry, woken| entry.wake_held(woken));
        }
    }

    /// Brings events to the sessions that they are for, and ends those that are revoked. Each is
    /// a `PushEvent`, as it came over the stream. When this returns, no event is received and no
    /// guard passes for a session that is revoked by one of them.
    ///
    /// Many at a time are faster than one by one.
    ///
    /// # Errors
    ///
    /// [`FeedError`] for the first that is none. Those before it were brought. What to do is to
    /// subscribe anew, from before it.
    pub fn deliver(&mut self, events: &[Bytes]) -> Result<(), FeedError> {
        let mut routed = Vec::with_capacity(events.len().min(TOGETHER));
        let mut delivered = Ok(());
        for (at, event) in events.iter().enumerate() {
            if let Some(ahead) = events.get(at + AHEAD) {
                // Where its fields are that say for whom it is.
                prefetch::bytes(ahead.get(..128).unwrap_or(ahead));
            }
            match self.take(event, &mut routed) {
                Ok(()) => {}
                Err(error) => {
                    delivered = Err(error);
                    break;
                }
            }
        }
        self.route(&mut routed);
        if delivered.is_ok() {
            self.heard();
        }
        delivered
    }

    fn take<'a>(
        &mut self,
        event: &'a Bytes,
        routed: &mut Vec<Routed<'a>>,
    ) -> Result<(), FeedError> {
        if let Some(recipient) = Recipient::quickly(event) {
            self.take_client_event(event, recipient, routed);
            return Ok(());
        }
        let received = Received::parse(event)?;
        match received.kind {
            ReceivedKind::ClientEvent(fields) => {
                let recipient = Recipient {
                    user_id: fields.user_id,
                    device_session_id: fields.device_session_id,
                };
                self.take_client_event(event, recipient, routed);
            }
            ReceivedKind::SessionInvalidation(invalidation) => {
                let cursor = Cursor::parse(received.cursor)?;
                // What came before it is brought before it.
                self.route(routed);
                self.invalidate(&invalidation, cursor);
            }
            ReceivedKind::Position => {}
        }
        Ok(())
    }

    #[inline]
    fn take_client_event<'a>(
        &mut self,
        event: &'a Bytes,
        recipient: Recipient<'a>,
        routed: &mut Vec<Routed<'a>>,
    ) {
        routed.push(Routed {
            event,
            user: recipient.user_id,
            session: recipient.device_session_id,
            spot: self.shared.layout.spot(recipient.user_id),
        });
        if routed.len() >= TOGETHER {
            self.route(routed);
        }
    }

    /// Ends the sessions that an invalidation names, and refuses those that are being
    /// authenticated.
    fn invalidate(&mut self, invalidation: &Invalidation<'_>, cursor: Cursor) {
        let Invalidation {
            user_id,
            device_session_id,
            reason,
        } = *invalidation;
        let is_of_user = device_session_id.is_empty();
        let revocation = Arc::new(Revocation {
            reason: reason.to_owned(),
            cursor,
            is_of_user,
        });
        let end = End::Revoked(Arc::clone(&revocation));
        let now_ms = self.shared.now_ms();
        let spot = self.shared.layout.spot(user_id.as_bytes());
        let mut table = self.shared.shard(spot.shard);
        let number = self.shared.next_number();
        let recent = &mut table.recent;
        recent.note(number, now_ms, user_id, device_session_id, &revocation);
        let mut revoked = 0;
        for entry in table.sessions(spot, user_id.as_bytes()) {
            let is_meant = is_of_user || entry.is_session(device_session_id.as_bytes());
            if is_meant && entry.end(&end, &mut self.woken) {
                revoked += 1;
            }
        }
        drop(table);
        wake(self.woken.drain(..));
        count(&self.shared.counters.invalidations, 1);
        count(&self.shared.counters.revoked, revoked);
        #[cfg(feature = "client")]
        tracing::info!(
            user_id,
            device_session_id,
            reason,
            %cursor,
            sessions = revoked,
            "session invalidation",
        );
    }

    /// Brings client events to their sessions; leaves the list empty.
    fn route(&mut self, routed: &mut Vec<Routed<'_>>) {
        if routed.is_empty() {
            return;
        }
        // By shard, each under its lock once. The order of a user's events stays: they are all
        // in one shard.
        let mut ends = [0_usize; SHARDS];
        for routed in &*routed {
            ends[routed.spot.shard] += 1;
        }
        let mut begins = [0; SHARDS];
        let mut begin = 0;
        for (shard, end) in ends.iter_mut().enumerate() {
            begins[shard] = begin;
            begin += *end;
            *end = begin;
        }
        let mut order = [0_u16; TOGETHER];
        let mut next = begins;
        for (at, routed) in (0..).zip(&*routed) {
            let next = &mut next[routed.spot.shard];
            order[*next] = at;
            *next += 1;
        }
        let mut places = [None; TOGETHER];
        let mut outcome = Outcome::default();
        let mut woken = std::mem::take(&mut self.woken);
        for (shard, (begin, end)) in begins.into_iter().zip(ends).enumerate() {
            if begin == end {
                continue;
            }
            let group = || order[begin..end].iter().map(|at| &routed[usize::from(*at)]);
            let table = self.shared.shard(shard);
            // Each step needs what the one before has had fetched.
            for routed in group() {
                table.prefetch(routed.spot);
            }
            for (place, routed) in places.iter_mut().zip(group()) {
                *place = table.prefetch_session(routed.spot);
            }
            for (place, routed) in places.iter().zip(group()) {
                let sessions = match place {
                    Some(place) => table.sessions_at(*place, routed.spot, routed.user),
                    None => &[],
                };
                routed.bring(sessions, &self.shared.settings, &mut outcome, &mut woken);
            }
            drop(table);
            wake(woken.drain(..));
        }
        self.woken = woken;
        let counters = &self.shared.counters;
        count(&counters.events, routed.len() as u64);
        count(&counters.queued, outcome.queued);
        count(&counters.unrouted, outcome.unrouted);
        count(&counters.dropped, outcome.dropped);
        count(&counters.overflowed, outcome.overflowed);
        routed.clear();
    }
}

impl Routed<'_> {
    #[inline]
    fn bring(
        &self,
        sessions: &[Arc<Entry>],
        settings: &Builder,
        outcome: &mut Outcome,
        woken: &mut Vec<Waker>,
    ) {
        let mut is_unrouted = true;
        for entry in sessions {
            if !self.session.is_empty() && !entry.is_session(self.session) {
                continue;
            }
            match entry.push(self.event, settings.queue_events, settings.overflow, woken) {
                Pushed::Queued => outcome.queued += 1,
                Pushed::Dropped => {
                    outcome.queued += 1;
                    outcome.dropped += 1;
                }
                Pushed::Overflowed => outcome.overflowed += 1,
                Pushed::Deaf => continue,
            }
            is_unrouted = false;
        }
        outcome.unrouted += u64::from(is_unrouted);
    }
}
