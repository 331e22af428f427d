//! [`Driver`]: a subscription that feeds a router.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};

use super::end::Revocation;
use super::feed::{Beginning, Feed, Missed, Observer};
use super::reporter::{Meaning, Reporter, Turn};
use super::router::Router;
use super::suspects::Suspect;
use crate::client::{
    self, BuildError, Completeness, Encoded, Item, Reason, Resume, Start, Stopped,
};
use crate::contract::lease;
use crate::cursor::Cursor;

/// How many events are delivered together, if so many have come.
const TOGETHER: usize = 256;
/// A third of what makes a router stale, and no more than this, is how often a quiet stream has
/// to show that it lives.
const MAX_HEARTBEAT: Duration = Duration::from_secs(15);
/// What a server accepts.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);
/// The longest pause before suspect sessions are asked for again.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A round in which so many times as many validations as go on at once had no answer, and none
/// had one, is over.
const VAIN_ROUNDS: usize = 8;

/// How long a gateway that stops tries to say so.
const MAX_FAREWELL: Duration = Duration::from_secs(1);

/// What a gateway's own code has to do.
pub trait Application: Send + Sync + 'static {
    /// Asks the backend whether a session is still valid. It is called for each open session after
    /// invalidations were lost.
    fn validate(&self, user: &str, session: &str) -> impl Future<Output = Verdict> + Send;

    /// An invalidation has come: of this session, or of all of the user's if it is empty. Be it one
    /// that was missed and has come late, or one of nobody who is here. What the gateway has beside its
    /// sessions goes now, such as answers of the backend that it has kept: the sessions end as soon as
    /// this returns, so it must be quick. Whoever takes a ticket afterwards must not find them any more;
    /// an answer that a ticket was taken for before may be kept only if the ticket still opens a
    /// session. The position is past the invalidation only when [`processed`](Self::processed) says so.
    fn invalidated(&self, user: &str, session: &str, revocation: &Revocation) {
        let _ = (user, session, revocation);
    }

    /// Everything up to here is processed. A gateway that is to resume after a restart of its own
    /// writes it down, where it survives, and gives it to
    /// [`client::Builder::cursor`](crate::client::Builder::cursor). It is called for each
    /// batch of events: what takes long here holds up the events behind it.
    fn processed(&self, cursor: Cursor) {
        let _ = cursor;
    }

    /// Something has happened to the subscription. Events are not among it. What a stream's beginning
    /// means for what the gateway has beside its sessions is to be done here: the sessions themselves
    /// are looked at when this returns, and the position is written down later.
    fn happened(&self, item: &Item) {
        let _ = item;
    }
}

/// What the backend says of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes on.
    Valid,
    /// It ends, for this reason.
    Invalid(String),
    /// The backend has not answered. The session stays suspect, and is asked for again.
    Unknown,
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The settings of the subscription are not valid.
    #[error(transparent)]
    Subscription(#[from] BuildError),
    /// A quiet stream would make the router stale.
    #[error(
        "heartbeats every {interval:?} cannot keep a router fresh that is stale after \
         {stale_after:?}: it has to be twice as long at least"
    )]
    Heartbeat {
        /// How often the server is asked to show that it lives.
        interval: Duration,
        /// [`Builder::stale_after`](super::Builder::stale_after).
        stale_after: Duration,
    },
    /// No server waits for so long until a gateway refuses everything.
    #[error(
        "a router that is stale after {stale_after:?} only: it can be {:?} at most",
        lease::MAX
    )]
    Lease {
        /// [`Builder::stale_after`](super::Builder::stale_after).
        stale_after: Duration,
    },
}

/// Subscribes for a router, and brings it what comes: until somebody takes the gateway's id over, or the
/// server refuses it.
pub struct Driver<A> {
    subscription: client::Gateway,
    feed: Feed,
    reporter: Reporter,
    /// Whether the server shows that a quiet stream lives.
    sends_heartbeats: bool,
    application: Arc<A>,
    validations: Validations,
    /// A task that validates all suspects, while there are any.
    validating: JoinSet<()>,
    /// Invalidations were lost after it had begun.
    is_again: bool,
}

/// How sessions are validated.
#[derive(Clone, Copy, Debug)]
struct Validations {
    at_once: usize,
    timeout: Duration,
    pause: Duration,
}

impl<A: Application> Driver<A> {
    /// Of a router's feed, and the settings of its subscription. A replay of revocations is asked
    /// for, and heartbeats, if the settings do not say how often.
    ///
    /// # Errors
    ///
    /// [`DriverError`], if the settings are not valid, or do not fit the router.
    pub fn new(
        subscription: client::Builder,
        mut feed: Feed,
        application: A,
    ) -> Result<Self, DriverError> {
        let stale_after = feed.stale_after();
        let heartbeat = (stale_after / 3).clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        let (subscription, interval) = subscription.heartbeat_or(heartbeat);
        if interval.saturating_mul(2) > stale_after {
            return Err(DriverError::Heartbeat {
                interval,
                stale_after,
            });
        }
        if stale_after > lease::MAX {
            return Err(DriverError::Lease { stale_after });
        }
        feed.use_leases(true);
        let application = Arc::new(application);
        let told = Arc::clone(&application);
        feed.observe(Observer(Box::new(move |user, session, revocation| {
            told.invalidated(user, session, revocation);
        })));
        let subscription = subscription.unique_instance().replay_revocations(true);
        Ok(Driver {
            subscription: subscription.build()?,
            reporter: Reporter::new(stale_after),
            feed,
            sends_heartbeats: false,
            application,
            validations: Validations {
                at_once: 32,
                timeout: Duration::from_secs(10),
                pause: Duration::from_secs(1),
            },
            validating: JoinSet::new(),
            is_again: false,
        })
    }

    /// How many sessions are validated at once at most, at least 1; 32 by default.
    #[must_use]
    pub fn validations(mut self, at_once: usize) -> Self {
        self.validations.at_once = at_once.max(1);
        self
    }

    /// How long the validation of one session may take before it is tried again; 10 seconds by
    /// default.
    #[must_use]
    pub fn validation_timeout(mut self, timeout: Duration) -> Self {
        self.validations.timeout = timeout;
        self
    }

    /// Whether a router whose server takes no reports refuses everything. By default it goes by what is
    /// heard instead: then a publisher cannot wait for it (`Publisher.WaitEnforced`), and a gateway
    /// that is behind serves on as long as something comes.
    #[must_use]
    pub fn require_reports(mut self, is_required: bool) -> Self {
        self.reporter.require(is_required);
        self
    }

    /// Runs the subscription.
    ///
    /// When it returns, or is dropped, the router hears nothing any more: it is stale.
    pub async fn run(self) -> Stopped {
        match self.run_until(pending()).await {
            Some(stopped) => stopped,
            // Nobody shuts it down.
            None => pending().await,
        }
    }

    /// The same, until `shutdown` is ready. Then the server is told that this gateway serves nobody
    /// any more, and nobody waits for it. `None` if that is how it has ended.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Option<Stopped> {
        let stopped = tokio::select! {
            stopped = self.drive() => Some(stopped),
            () = shutdown => None,
        };
        let Driver {
            feed,
            subscription,
            reporter,
            ..
        } = self;
        // In this order: the router refuses before that is told.
        drop(feed);
        if let Some(enforced) = reporter.report()
            && reporter.has_reported()
            && let Some(told) = subscription.report(enforced, Duration::ZERO)
        {
            // If it is not told, the lease ends by itself.
            let _ = tokio::time::timeout(MAX_FAREWELL, told).await;
        }
        stopped
    }

    async fn drive(&mut self) -> Stopped {
        let mut come = None;
        loop {
            let next = match come.take() {
                Some(next) => {
                    if self.validating.try_join_next().is_some() {
                        self.validate_again();
                    }
                    if !self.reporter.is_waiting()
                        && let Some(turn) = now(self.reporter.turn()).await
                    {
                        self.report(turn);
                    }
                    next
                }
                None => tokio::select! {
                    next = self.subscription.next_encoded() => next,
                    Some(_) = self.validating.join_next() => {
                        self.validate_again();
                        continue;
                    }
                    turn = self.reporter.turn() => {
                        self.report(turn);
                        continue;
                    }
                },
            };
            match next {
                Ok(Encoded::Event { cursor, event }) => come = self.deliver(cursor, event).await,
                Ok(Encoded::Heartbeat) => come = self.now().await,
                Ok(Encoded::Item(item)) => {
                    self.take(&item);
                    continue;
                }
                Err(stopped) => return stopped,
            }
            // What has come while this process was busy, or stopped, says what was true then. A router that
            // is stale stays so until it has all of it.
            if come.is_none() || !self.feed.is_stale() {
                self.feed.heard();
            }
        }
    }

    /// Reports, or takes the answer.
    fn report(&mut self, turn: Turn) {
        let answer = match turn {
            Turn::Answered(answer) => answer,
            Turn::Due => {
                let enforced = self.reporter.report();
                // Before it is sent.
                let sent = self.feed.now();
                let report = enforced.and_then(|enforced| {
                    let answer = self
                        .subscription
                        .report(enforced, self.feed.stale_after())?;
                    Some((enforced, answer))
                });
                match report {
                    Some((enforced, answer)) => self.reporter.sent(enforced, sent, answer),
                    None => self.reporter.not_sent(),
                }
                return;
            }
        };
        match self.reporter.answered(answer) {
            Meaning::Known(moment) => self.feed.known(moment),
            Meaning::Shorter(lease) => {
                tracing::warn!(
                    ?lease,
                    "the server takes no longer leases: the router is stale after as long"
                );
                self.feed.shorten_lease(lease);
                self.reporter.shorten(lease);
            }
            // A server that has taken a report counts on this process to keep to its lease.
            Meaning::NoReports if self.feed.is_stale() && !self.reporter.is_required() => {
                tracing::warn!(
                    address = %self.subscription.address(),
                    sends_heartbeats = self.sends_heartbeats,
                    "the server takes no reports of what is enforced: the router goes by what it hears, and \
                     is stale while a stream without heartbeats is quiet"
                );
                self.reporter.give_up();
                self.feed.use_leases(false);
            }
            Meaning::NoReports | Meaning::Nothing => {}
        }
    }

    /// All up to here is enforced, `invalidations` of which had come before.
    fn enforced(&mut self, cursor: Cursor, invalidations: u64) {
        let is_urgent = self.feed.invalidations() != invalidations;
        if let Some(moment) = self.reporter.enforced(cursor, is_urgent) {
            self.feed.known(moment);
        }
    }

    /// What has come by now. It does not count how much that is, as tokio would have it.
    async fn now(&mut self) -> Option<Result<Encoded, Stopped>> {
        now(tokio::task::unconstrained(self.subscription.next_encoded())).await
    }

    /// Delivers an event, and those that have come by now. Returns what has come after them, if
    /// there is something.
    async fn deliver(
        &mut self,
        mut last: Cursor,
        first: Bytes,
    ) -> Option<Result<Encoded, Stopped>> {
        let mut events = vec![first];
        let come = loop {
            match self.now().await {
                Some(Ok(Encoded::Event { cursor, event })) if events.len() < TOGETHER => {
                    events.push(event);
                    last = cursor;
                }
                other => break other,
            }
        };
        let invalidations = self.feed.invalidations();
        match self.feed.deliver(&events) {
            Ok(()) => {
                self.processed(last);
                if !self.feed.is_replay() {
                    self.enforced(last, invalidations);
                }
            }
            Err(error) => self.subscription.undecodable(last, &error),
        }
        if come.is_some() {
            // More may have come than one thread can take: others are to have their turn.
            tokio::task::yield_now().await;
        }
        come
    }

    fn processed(&mut self, cursor: Cursor) {
        self.subscription.processed(cursor);
        if let Some(cursor) = self.subscription.cursor() {
            self.application.processed(cursor);
        }
    }

    fn take(&mut self, item: &Item) {
        match item {
            Item::Connected(start) => {
                let beginning = beginning(start);
                self.sends_heartbeats = start.sends_heartbeats;
                self.reporter.begin();
                self.feed.use_leases(true);
                // First: a ticket that is taken after the loss must not find what was known before it.
                self.application.happened(item);
                self.begin(|feed| feed.begin(beginning));
                if let Some(cursor) = self.subscription.cursor() {
                    self.application.processed(cursor);
                    if !self.feed.is_replay() {
                        self.enforced(cursor, self.feed.invalidations());
                    }
                }
            }
            Item::Replayed { cursor } => {
                self.application.happened(item);
                self.begin(Feed::replayed);
                self.processed(*cursor);
                self.enforced(*cursor, self.feed.invalidations());
            }
            _ => self.application.happened(item),
        }
    }

    /// Has sessions validated, if this makes them suspect.
    fn begin(&mut self, begin: impl FnOnce(&mut Feed)) {
        let before = self.feed.losses();
        begin(&mut self.feed);
        if self.feed.losses() != before {
            self.is_again = true;
            if self.validating.is_empty() {
                self.validate_again();
            }
        }
    }

    /// Begins to validate, if sessions have become suspect since the last time.
    fn validate_again(&mut self) {
        if std::mem::take(&mut self.is_again) {
            let application = Arc::clone(&self.application);
            let validations = self.validations;
            self.validating
                .spawn(validations.run(self.feed.router(), application));
        }
    }
}

/// What it means for sessions that a stream starts there.
fn beginning(start: &Start) -> Beginning {
    match (start.resume, start.revocations) {
        (Resume::Resumed, _) => Beginning::Resumed {
            head: start.head.filter(|head| *head > start.cursor),
        },
        (Resume::Fresh, None) => Beginning::Lost,
        // They begin right after the gateway's cursor.
        (Resume::Fresh, Some(revocations)) if start.reason == Reason::Expired => {
            Beginning::Replay(match revocations.completeness {
                Completeness::Complete => Missed::Complete,
                Completeness::Partial => Missed::Partial,
            })
        }
        // They are all that the server has, and older than sessions that are open.
        (Resume::Fresh, Some(_)) => Beginning::Replay(Missed::Unrelated),
    }
}

/// How many validations have had an answer, and how many not.
#[derive(Default)]
struct Answers {
    known: usize,
    unknown: usize,
}

impl Answers {
    fn count(&mut self, has_answer: Result<bool, JoinError>) {
        match has_answer {
            Ok(true) => self.known += 1,
            // Or it has panicked.
            Ok(false) | Err(_) => self.unknown += 1,
        }
    }
}

impl Validations {
    /// Validates the sessions that are suspect, until none is.
    async fn run<A: Application>(self, router: Router, application: Arc<A>) {
        let mut pause = self.pause;
        loop {
            let mut under_way = JoinSet::new();
            let mut answers = Answers::default();
            for suspect in router.suspects() {
                if under_way.len() >= self.at_once
                    && let Some(has_answer) = under_way.join_next().await
                {
                    answers.count(has_answer);
                }
                under_way.spawn(validate(Arc::clone(&application), suspect, self.timeout));
                if answers.known == 0 && answers.unknown >= VAIN_ROUNDS * self.at_once {
                    break;
                }
            }
            while let Some(has_answer) = under_way.join_next().await {
                answers.count(has_answer);
            }
            let Answers { known, unknown } = answers;
            if unknown == 0 {
                return;
            }
            pause = match known {
                0 => (pause * 2).min(MAX_PAUSE),
                _ => self.pause,
            };
            tracing::debug!(
                sessions = unknown,
                ?pause,
                "not validated: the backend has no answer"
            );
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether there was an answer.
async fn validate<A: Application>(
    application: Arc<A>,
    suspect: Suspect,
    timeout: Duration,
) -> bool {
    let asked = application.validate(suspect.user(), suspect.session());
    match tokio::time::timeout(timeout, asked).await {
        Ok(Verdict::Valid) => suspect.valid(),
        Ok(Verdict::Invalid(reason)) => {
            tracing::info!(
                user_id = suspect.user(),
                device_session_id = suspect.session(),
                reason,
                "session is not valid any more"
            );
            suspect.invalid(&reason);
        }
        Ok(Verdict::Unknown) | Err(_) => return false,
    }
    true
}

/// Its output, if it is there by now. The future must be cancel safe.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

impl<A> fmt::Debug for Driver<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("subscription", &self.subscription)
            .field("feed", &self.feed)
            .finish_non_exhaustive()
    }
}
