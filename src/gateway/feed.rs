//! [`Feed`]: brings a router what the backend publishes.

use bytes::Bytes;

use super::end::{End, Revocation};
use super::entry::{Afterwards, Entry, Pushed};
use super::router::{SHARDS, Shared};
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
///
/// When it is dropped, nothing can come any more: the router is stale.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    progress: Progress,
    after: Afterwards,
    /// What is heard does not count, but what is [known](Feed::known).
    has_leases: bool,
    #[cfg(feature = "client")]
    observer: Option<Observer>,
}

/// What is told of each invalidation before it is enforced: its user, its session and the rest.
#[cfg(feature = "client")]
type Observe = dyn Fn(&str, &str, &Revocation) + Send + Sync;

#[cfg(feature = "client")]
pub(super) struct Observer(pub(super) Box<Observe>);

#[cfg(feature = "client")]
impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// None has begun.
    Nowhere,
    /// In the middle of a replay.
    Replay(Missed),
    /// It has resumed, and is not at this cursor yet, which was the newest then.
    CatchingUp(Cursor),
    /// What comes is new.
    Live,
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Right after the last event that the feed has brought: nothing was missed.
    Resumed {
        /// Where the newest event was, if the feed is not there yet and the server tells. Until it
        /// is, the router stays stale if it is.
        head: Option<Cursor>,
    },
    /// With the invalidations that were missed, up to [`Feed::replayed`]. Until then the router
    /// is stale.
    Replay(Missed),
    /// Anywhere else: every session is suspect. That is also right for the first stream.
    Lost,
}

/// What the invalidations of a replay are of those that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missed {
    /// All: the sessions that they name have ended afterwards, and all others go on.
    Complete,
    /// Some may be missing: those that are named end, and all others are suspect afterwards.
    Partial,
    /// They are of a stream that this feed has not followed, and may be older than the sessions
    /// that they name. They end none, and every session is suspect afterwards.
    Unrelated,
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
            progress: Progress::Nowhere,
            after: Afterwards::default(),
            has_leases: false,
            #[cfg(feature = "client")]
            observer: None,
        }
    }

    /// A stream begins. What is heard from now on is heard from it.
    pub fn begin(&mut self, beginning: Beginning) {
        // A replay that has not ended was in order, and the next stream goes on where it was. But
        // what it had lost stays lost.
        let before = match self.progress {
            Progress::Replay(missed) => missed,
            _ => Missed::Complete,
        };
        let is_lost = match beginning {
            Beginning::Replay(missed) => {
                self.shared.unheard();
                self.progress = Progress::Replay(missed.max(before));
                return;
            }
            Beginning::Resumed { head } => {
                self.progress = head.map_or(Progress::Live, Progress::CatchingUp);
                before != Missed::Complete
            }
            Beginning::Lost => {
                self.progress = Progress::Live;
                if self.has_leases {
                    // What another server has answered says nothing of this one.
                    self.shared.unheard();
                }
                true
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
        if let Progress::Replay(missed) = self.progress {
            self.progress = Progress::Live;
            if missed != Missed::Complete {
                self.lose();
            }
            self.heard();
        }
    }

    /// The backend was heard, by an event or a heartbeat, and everything that has come is
    /// [delivered](Self::deliver). Call it at least every
    /// [`Builder::stale_after`](super::Builder::stale_after). It does nothing before the first stream, in
    /// a replay, and while a stream that has resumed is catching up.
    pub fn heard(&self) {
        if self.progress == Progress::Live && !self.has_leases {
            self.known_at(self.shared.now_ms());
        }
    }

    /// All that was published before then, by the router's clock, is delivered.
    fn known_at(&self, at_ms: u64) {
        if self.shared.known(at_ms) {
            self.shared.walk(|entry, after| entry.wake_held(after));
            self.shared.ready.wake();
        }
    }

    #[cfg(feature = "client")]
    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Has the router go by what is [known](Self::known) from now on, or by what is heard.
    #[cfg(feature = "client")]
    pub(super) fn use_leases(&mut self, has_leases: bool) {
        if has_leases && !self.has_leases {
            // A server that takes reports counts on it that nobody is served before they are answered.
            self.shared.unheard();
        }
        self.has_leases = has_leases;
        self.heard();
    }

    /// The router is stale sooner from now on.
    #[cfg(feature = "client")]
    pub(super) fn shorten_lease(&self, lease: std::time::Duration) {
        self.shared.shorten_lease(lease);
    }

    /// All that was published before this moment, by the router's clock, is
    /// [delivered](Self::deliver).
    #[cfg(feature = "client")]
    pub(super) fn known(&self, moment: std::time::Duration) {
        // In a replay something is left to be told, of whatever was before.
        if !matches!(self.progress, Progress::Nowhere | Progress::Replay(_)) {
            self.known_at(super::router::millis(moment));
        }
    }

    /// The moment by the router's clock.
    #[cfg(feature = "client")]
    pub(super) fn now(&self) -> std::time::Duration {
        self.shared.settings.now()
    }

    /// Whether what comes was missed before the stream began.
    #[cfg(feature = "client")]
    pub(super) fn is_replay(&self) -> bool {
        matches!(self.progress, Progress::Replay(_))
    }

    /// How many invalidations have come.
    #[cfg(feature = "client")]
    pub(super) fn invalidations(&self) -> u64 {
        self.shared.counters.invalidations()
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
    pub(super) fn is_stale(&self) -> bool {
        self.shared.is_stale()
    }

    #[cfg(feature = "client")]
    pub(super) fn stale_after(&self) -> std::time::Duration {
        self.shared.stale_after()
    }

    fn lose(&self) {
        self.shared.lose();
        count(&self.shared.counters.losses, 1);
    }

    /// Brings events to the sessions that they are for, and ends those that are revoked. Each is
    /// a `PushEvent`, as it came over the stream. When this returns, no event is received and no
    /// guard passes for a session that is revoked by one of them.
    ///
    /// Many at a time are faster than one by one. When nothing more has come, say
    /// [`heard`](Self::heard).
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
            self.catch_up(events);
        }
        delivered
    }

    /// These were delivered: whether the stream is where it was newest at its beginning.
    fn catch_up(&mut self, events: &[Bytes]) {
        if let (Progress::CatchingUp(head), Some(last)) = (self.progress, events.last())
            && let Ok(received) = Received::parse(last)
            && Cursor::parse(received.cursor).is_ok_and(|cursor| cursor >= head)
        {
            self.progress = Progress::Live;
            self.heard();
        }
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
        // Before the number is given: whoever takes a ticket later asks an application that knows of
        // it, and every ticket from before is refused.
        #[cfg(feature = "client")]
        if let Some(Observer(observer)) = &self.observer {
            observer(user_id, device_session_id, &revocation);
        }
        let end = End::Revoked(Arc::clone(&revocation));
        let is_unrelated = self.progress == Progress::Replay(Missed::Unrelated);
        let spot = self.shared.layout.spot(user_id.as_bytes());
        let mut table = self.shared.shard(spot.shard);
        let number = self.shared.next_number();
        let now_ms = self.shared.now_ms();
        let recent = &mut table.recent;
        recent.note(number, now_ms, user_id, device_session_id, &revocation);
        let mut revoked = 0;
        for entry in table.sessions(spot, user_id.as_bytes()) {
            let is_meant = is_of_user || entry.is_session(device_session_id.as_bytes());
            if is_meant && !is_unrelated && entry.end(&end, &mut self.after) {
                revoked += 1;
            }
        }
        drop(table);
        self.after.run();
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
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        // What nobody may have yet is held back.
        let is_stale = self.shared.is_stale();
        let generation = self.shared.generation();
        let is_held = |entry: &Entry| is_stale || !entry.is_valid_for(generation);
        for (shard, (begin, end)) in begins.into_iter().zip(ends).enumerate() {
            if begin == end {
                continue;
            }
            let group = || order[begin..end].iter().map(|at| &routed[usize::from(*at)]);
            let table = shared.shard(shard);
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
                let (limit, overflow) = (settings.queue_events, settings.overflow);
                routed.bring(sessions, &mut outcome, |entry| {
                    entry.push(routed.event, limit, overflow, is_held, &mut self.after)
                });
            }
            drop(table);
            self.after.run();
        }
        let counters = &self.shared.counters;
        count(&counters.events, routed.len() as u64);
        count(&counters.queued, outcome.queued);
        count(&counters.unrouted, outcome.unrouted);
        count(&counters.dropped, outcome.dropped);
        count(&counters.overflowed, outcome.overflowed);
        routed.clear();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.unheard();
    }
}

impl Routed<'_> {
    #[inline]
    fn bring(
        &self,
        sessions: &[Arc<Entry>],
        outcome: &mut Outcome,
        mut push: impl FnMut(&Entry) -> Pushed,
    ) {
        let mut is_unrouted = true;
        for entry in sessions {
            if !self.session.is_empty() && !entry.is_session(self.session) {
                continue;
            }
            match push(entry) {
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
