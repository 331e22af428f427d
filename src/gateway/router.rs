//! [`Router`]: opens sessions; and what it shares with them and with the feed.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::end::{End, OpenError, Refusal};
use super::entry::{Afterwards, Entry, Overflow};
use super::feed::Feed;
use super::guard::Guard;
use super::recent::{Recent, Refused};
use super::session::Session;
use super::stats::{Counters, Stats};
use super::suspects::Suspects;
use super::sync::{
    Arc, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, fence, lock,
};
use super::table::{Layout, Table};
use super::ticket::Ticket;
use super::wakers::Wakers;
use crate::clock::{BootClock, Clock};

/// How many locks the sessions are under.
pub(super) const SHARDS: usize = if cfg!(galaxy_loom) { 1 } else { 16 };
/// The settings of a [`Router`].
#[derive(Clone)]
pub struct Builder {
    max_sessions: usize,
    max_user_sessions: usize,
    pub(super) queue_events: usize,
    pub(super) overflow: Overflow,
    ticket_timeout: Duration,
    max_recent: usize,
    pub(super) stale_after: Duration,
    clock: Arc<dyn Clock>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            max_sessions: 1_000_000,
            max_user_sessions: 1_000,
            queue_events: 64,
            overflow: Overflow::default(),
            ticket_timeout: Duration::from_secs(30),
            max_recent: 100_000,
            stale_after: Duration::from_secs(45),
            clock: Arc::new(BootClock::new()),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_sessions", &self.max_sessions)
            .field("max_user_sessions", &self.max_user_sessions)
            .field("queue_events", &self.queue_events)
            .field("overflow", &self.overflow)
            .field("ticket_timeout", &self.ticket_timeout)
            .field("max_recent", &self.max_recent)
            .field("stale_after", &self.stale_after)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// How many sessions may be open at once, those included that only have guards; 1,000,000 by
    /// default. More are refused ([`OpenError::TooMany`]).
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// How many sessions of one user may be open at once; 1,000 by default. More are refused
    /// ([`OpenError::TooManyOfUser`]): whoever logs in again and again must not slow the others.
    #[must_use]
    pub fn max_user_sessions(mut self, sessions: usize) -> Self {
        self.max_user_sessions = sessions;
        self
    }

    /// How many events wait for one session at most, at least 1; 64 by default. Memory is taken
    /// for those that wait, and no more.
    #[must_use]
    pub fn queue_events(mut self, events: usize) -> Self {
        self.queue_events = events.max(1);
        self
    }

    /// What is done with an event beyond that; by default the oldest is dropped.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// How long an authentication may take, from its ticket to the opening of the session; 30
    /// seconds by default. For so long invalidations are remembered.
    #[must_use]
    pub fn ticket_timeout(mut self, timeout: Duration) -> Self {
        self.ticket_timeout = timeout;
        self
    }

    /// How many invalidations are remembered at most for authentications that are under way;
    /// 100,000 by default. With more of them within the timeout, older tickets are refused
    /// ([`OpenError::Forgotten`]).
    #[must_use]
    pub fn max_recent(mut self, invalidations: usize) -> Self {
        self.max_recent = invalidations;
        self
    }

    /// How old the last moment may be of which the router knows all that was published, before
    /// everything is refused as [stale](Refusal::Stale); 45 seconds by default. It is the lease with
    /// which the `Driver` reports. A feed of your own that only [hears](Feed::heard) has to hear
    /// something as often.
    #[must_use]
    pub fn stale_after(mut self, limit: Duration) -> Self {
        self.stale_after = limit;
        self
    }

    /// Where the time comes from; [`BootClock`] by default, so that a machine that was suspended does
    /// not believe what was true before. It is asked under locks: it must
    /// be quick, and must not come back to the router.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The time by the router's clock.
    #[cfg(feature = "client")]
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A router without sessions, and the feed that brings it what the backend publishes. Until
    /// the feed has begun, the router is stale.
    #[must_use]
    pub fn build(self) -> (Router, Feed) {
        let layout = Layout::new(self.max_sessions, SHARDS);
        let timeout_ms = millis(self.ticket_timeout);
        let recent = || Recent::new(self.max_recent.div_ceil(SHARDS), timeout_ms);
        let shards = (0..SHARDS).map(|_| Mutex::new(layout.table(recent())));
        static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let shared = Arc::new(Shared {
            // Relaxed: it is only to be another one.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            shards: shards.map(Padded).collect(),
            layout,
            number: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            heard_ms: AtomicU64::new(NEVER),
            is_draining: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            idle: Wakers::default(),
            ready: Wakers::default(),
            counters: Counters::default(),
            stale_after_ms: AtomicU64::new(millis(self.stale_after)),
            settings: self,
        });
        (Router(Arc::clone(&shared)), Feed::new(shared))
    }
}

/// Whole milliseconds; far too many are as good as for ever.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Nothing was heard yet; or what is missed is about to be told.
const NEVER: u64 = 0;

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(Mutex<Table>);

/// All that sessions, guards and the feed have in common.
///
/// # No session slips through
///
/// A session is opened and its user's sessions are invalidated under one lock, that of the user's
/// shard. Either the session is in the table first, and is ended by the invalidation; or the
/// invalidation is noted first, with a number beyond the ticket's, and refuses the ticket.
///
/// What concerns all sessions is changed first, and the tables are walked afterwards. A session
/// that was opened meanwhile has seen the change under the lock, or is found by the walk.
pub(super) struct Shared {
    /// No other router of the process has it.
    id: u64,
    shards: Box<[Padded]>,
    pub(super) layout: Layout,
    /// The last invalidation's number.
    number: AtomicU64,
    /// How often invalidations were lost. A session that is not valid for this is suspect.
    generation: AtomicU32,
    /// When the backend was last heard, by the clock, plus one; or `NEVER`.
    heard_ms: AtomicU64,
    is_draining: AtomicBool,
    /// Entries in the tables.
    open: AtomicUsize,
    /// Those who wait until there are none.
    idle: Wakers,
    /// Those who wait until it is not stale.
    pub(super) ready: Wakers,
    pub(super) counters: Counters,
    stale_after_ms: AtomicU64,
    pub(super) settings: Builder,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .field("open", &self.open.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn shard(&self, shard: usize) -> MutexGuard<'_, Table> {
        lock(&self.shards[shard].0)
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn now_ms(&self) -> u64 {
        millis(self.settings.clock.now())
    }

    /// The number of an invalidation. The caller has the lock of its user's shard.
    pub(super) fn next_number(&self) -> u64 {
        // Release: a ticket that knows the number has begun after the invalidation came. Pairs
        // with the Acquire in `begin_authentication`.
        self.number.fetch_add(1, Ordering::Release) + 1
    }

    pub(super) fn generation(&self) -> u32 {
        // Acquire: pairs with the Release in `lose`.
        self.generation.load(Ordering::Acquire)
    }

    /// Makes every session suspect, and every ticket that has begun void.
    pub(super) fn lose(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// All that was published before then is delivered. Whether it is not stale any more, and somebody
    /// may have found it so before.
    pub(super) fn known(&self, at_ms: u64) -> bool {
        // Release: whoever sees that it is not stale, sees what was revoked before. Pairs with
        // the Acquire in `is_stale`.
        let at_ms = at_ms.saturating_add(1);
        let before_ms = self.heard_ms.fetch_max(at_ms, Ordering::AcqRel);
        // Pairs with the fence of those who have found it stale, and look again: either they see
        // that it is not any more, or the time that they have read is no later than this one.
        fence(Ordering::SeqCst);
        self.was_stale(before_ms) && !self.was_stale(at_ms.max(before_ms))
    }

    /// Nothing is known until `heard`.
    pub(super) fn unheard(&self) {
        self.heard_ms.store(NEVER, Ordering::Release);
    }

    pub(super) fn is_stale(&self) -> bool {
        self.was_stale(self.heard_ms.load(Ordering::Acquire))
    }

    /// How long ago it knew all.
    fn age(&self) -> Option<Duration> {
        match self.heard_ms.load(Ordering::Acquire) {
            NEVER => None,
            heard_ms => Some(Duration::from_millis(
                self.now_ms().saturating_sub(heard_ms - 1),
            )),
        }
    }

    /// Whether it is, if the backend was last heard then.
    fn was_stale(&self, heard_ms: u64) -> bool {
        // Relaxed: it only gets shorter, before the report is sent that goes by it.
        let limit_ms = self.stale_after_ms.load(Ordering::Relaxed);
        heard_ms == NEVER || self.now_ms().saturating_sub(heard_ms - 1) > limit_ms
    }

    #[cfg(feature = "client")]
    pub(super) fn stale_after(&self) -> Duration {
        Duration::from_millis(self.stale_after_ms.load(Ordering::Relaxed))
    }

    #[cfg(feature = "client")]
    pub(super) fn shorten_lease(&self, lease: Duration) {
        self.stale_after_ms
            .fetch_min(millis(lease), Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Whether what is asked for this session may go on.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), Refusal> {
        // Before the others: what is heard now may be that it is revoked, or suspect.
        let is_stale = self.is_stale();
        let is_valid = entry.is_valid_for(self.generation());
        if let Some(end) = entry.ended() {
            return Err(Refusal::Ended(end));
        }
        match (is_stale, is_valid) {
            (true, _) => Err(Refusal::Stale),
            (false, false) => Err(Refusal::Suspect),
            (false, true) => Ok(()),
        }
    }

    /// Whether it is neither stale nor suspect.
    pub(super) fn may_go_on(&self, entry: &Entry) -> bool {
        // In this order, as in `check`.
        !self.is_stale() && entry.is_valid_for(self.generation())
    }

    fn open(
        &self,
        ticket: Ticket,
        user: &str,
        session: &str,
        receives: bool,
    ) -> Result<Arc<Entry>, OpenError> {
        let opened = self.try_open(&ticket, user, session, receives);
        self.counters.opened(&opened);
        opened
    }

    fn try_open(
        &self,
        ticket: &Ticket,
        user: &str,
        session: &str,
        receives: bool,
    ) -> Result<Arc<Entry>, OpenError> {
        if ticket.router != self.id {
            return Err(OpenError::OtherRouter);
        }
        if user.is_empty() {
            return Err(OpenError::NoUser);
        }
        let entry = Entry::new(user, session, ticket.generation, receives);
        let entry = entry.map_err(|bytes| OpenError::IdsTooLong {
            bytes,
            max: Entry::MAX_IDS_BYTES,
        })?;
        let max = self.settings.max_sessions;
        // SeqCst, before it is known whether the router is draining: see `close_one`. Either this is
        // refused, or `drained` waits for it.
        if self.open.fetch_add(1, Ordering::SeqCst) >= max {
            self.close_one();
            return Err(OpenError::TooMany { max });
        }
        let spot = self.layout.spot(user.as_bytes());
        let mut table = self.shard(spot.shard);
        let of_user = table.sessions(spot, user.as_bytes()).len();
        let allowed = match self.settings.max_user_sessions {
            max if of_user >= max => Err(OpenError::TooManyOfUser { max }),
            _ => self.allowed(ticket, &table.recent, user, session),
        };
        if allowed.is_ok() {
            table.insert(spot, Arc::clone(&entry));
        }
        drop(table);
        if allowed.is_err() {
            self.close_one();
        }
        allowed.map(|()| entry)
    }

    /// Whether a session may be opened with the ticket. The caller has the lock.
    fn allowed(
        &self,
        ticket: &Ticket,
        recent: &Recent,
        user: &str,
        session: &str,
    ) -> Result<(), OpenError> {
        if self.is_draining() {
            return Err(OpenError::Draining);
        }
        if self.is_stale() {
            return Err(OpenError::Stale);
        }
        if ticket.generation != self.generation() {
            return Err(OpenError::Gap);
        }
        let limit = self.settings.ticket_timeout;
        if self.now_ms().saturating_sub(ticket.began_ms) > millis(limit) {
            return Err(OpenError::Expired { limit });
        }
        let refused = recent.check(ticket.began, user, session);
        refused.map_err(|refused| match refused {
            Refused::Revoked(revocation) => OpenError::Revoked(revocation),
            Refused::Forgotten => OpenError::Forgotten,
        })
    }

    /// A session or guard goes.
    pub(super) fn release(&self, entry: &Arc<Entry>) {
        if !entry.release() {
            return;
        }
        let spot = self.layout.spot(entry.user().as_bytes());
        self.shard(spot.shard).remove(spot, entry);
        self.close_one();
    }

    fn close_one(&self) {
        // SeqCst, as all that `drained` waits for: the last one that goes sees that the router is
        // draining, or whoever has it drain sees that none is left.
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_draining() {
            self.idle.wake();
        }
    }

    /// Does something with every session, a part of a table at a time.
    pub(super) fn walk(&self, mut with: impl FnMut(&Arc<Entry>, &mut Afterwards)) {
        let mut after = Afterwards::default();
        for shard in 0..self.shards.len() {
            for part in 0..self.layout.parts() {
                for entry in self.shard(shard).part(part) {
                    with(entry, &mut after);
                }
                after.run();
            }
        }
    }

    /// Opens no session any more.
    fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.idle.wake();
    }
}

/// Opens sessions. Its clones are the same router.
///
/// See [the room](super) for how it is used.
#[derive(Clone, Debug)]
pub struct Router(pub(super) Arc<Shared>);

impl Router {
    /// The settings of a router.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An authentication begins: take the ticket before the backend is asked whether the session
    /// is valid.
    pub fn begin_authentication(&self) -> Ticket {
        // In this order: what comes between is later than the ticket.
        let began_ms = self.0.now_ms();
        let generation = self.0.generation();
        Ticket {
            // Acquire: pairs with the Release in `next_number`.
            began: self.0.number.load(Ordering::Acquire),
            began_ms,
            generation,
            router: self.0.id,
        }
    }

    /// Opens a session that the backend has found valid after the ticket was taken. It receives
    /// the events for its user, and those for itself.
    ///
    /// One session may be open several times (in several tabs, say): each has a queue of its own.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: it was revoked meanwhile, or the router cannot know whether it was.
    pub fn open(&self, ticket: Ticket, user: &str, session: &str) -> Result<Session, OpenError> {
        let entry = self.0.open(ticket, user, session, true)?;
        Ok(Session::new(entry, Arc::clone(&self.0)))
    }

    /// Lets a single request in, of a session that receives no events here.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn enter(&self, ticket: Ticket, user: &str, session: &str) -> Result<Guard, OpenError> {
        let entry = self.0.open(ticket, user, session, false)?;
        Ok(Guard::new(entry, Arc::clone(&self.0)))
    }

    /// How many sessions are open, those included that only have guards.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Whether everything is refused, because it is not known what is revoked
    /// ([`Refusal::Stale`]).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.0.is_stale()
    }

    /// Waits until sessions can be opened: the first stream has begun, and nothing that was missed
    /// is left to be told.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&self) {
        poll_fn(|cx| {
            self.0.ready.register(cx.waker());
            // As in `Session::take`.
            fence(Ordering::SeqCst);
            match self.0.is_stale() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// What has happened so far, in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (is_stale, age) = (self.is_stale(), self.0.age());
        self.0.counters.read(self.sessions(), is_stale, age)
    }

    /// The sessions that are [suspect](Refusal::Suspect) now. Each is to be validated, and is
    /// in one hand only, however often this is called.
    #[must_use]
    pub fn suspects(&self) -> Suspects {
        Suspects::new(Arc::clone(&self.0))
    }

    /// Opens no session from now on. Sessions take what is in their queues, then end with
    /// [`End::Draining`]; guards go on. Wait with [`drained`](Self::drained), with a limit, then
    /// [`close`](Self::close).
    pub fn drain(&self) {
        self.0.drain();
        self.0.walk(|entry, after| entry.wake(after));
    }

    /// Waits until the router is draining and no session or guard is left.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn drained(&self) {
        poll_fn(|cx| {
            self.0.idle.register(cx.waker());
            match self.0.is_draining() && self.0.open.load(Ordering::SeqCst) == 0 {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Ends every session that is still open, and every guard, with [`End::Draining`]. Opens no
    /// session from now on.
    pub fn close(&self) {
        self.0.drain();
        self.0.walk(|entry, after| {
            entry.end(&End::Draining, after);
        });
    }
}
