//! [`Driver`]: a subscription that feeds a router.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::feed::{Beginning, Feed};
use super::router::Router;
use super::suspects::Suspect;
use crate::client::{self, BuildError, Completeness, Encoded, Item, Resume, Stopped};
use crate::cursor::Cursor;

/// How many events are delivered together, if so many have come.
const TOGETHER: usize = 256;
/// A third of what makes a router stale, and no more than this, is how often a quiet stream has
/// to show that it lives.
const MAX_HEARTBEAT: Duration = Duration::from_secs(15);
/// What a server accepts.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

/// What a gateway's own code has to do.
pub trait Application: Send + Sync + 'static {
    /// Asks the backend whether a session is still valid. It is called for each open session after
    /// invalidations were lost.
    fn validate(&self, user: &str, session: &str) -> impl Future<Output = Verdict> + Send;

    /// Everything up to here is processed. A gateway that is to resume after a restart of its own
    /// writes it down, where it survives, and gives it to
    /// [`client::Builder::cursor`](crate::client::Builder::cursor). It is called for each
    /// batch of events: what takes long here holds up the events behind it.
    fn processed(&self, cursor: Cursor) {
        let _ = cursor;
    }

    /// Something has happened to the subscription. Events are not among it.
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

/// Subscribes for a router, and brings it what comes: until somebody takes the gateway's id over, or the
/// server refuses it.
pub struct Driver<A> {
    subscription: client::Gateway,
    feed: Feed,
    application: Arc<A>,
    validations: Validations,
    /// A validation of all suspects, while there is one.
    validating: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
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
    /// [`BuildError`], if the settings are not valid.
    pub fn new(
        subscription: client::Builder,
        feed: Feed,
        application: A,
    ) -> Result<Self, BuildError> {
        let heartbeat = (feed.stale_after() / 3).clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        Ok(Driver {
            subscription: subscription
                .replay_revocations(true)
                .heartbeat_if_none(heartbeat)
                .build()?,
            feed,
            application: Arc::new(application),
            validations: Validations {
                at_once: 32,
                timeout: Duration::from_secs(10),
                pause: Duration::from_secs(1),
            },
            validating: None,
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

    /// Runs the subscription.
    ///
    /// When it returns, or is dropped, the router hears nothing any more: it becomes stale.
    pub async fn run(mut self) -> Stopped {
        loop {
            let next = tokio::select! {
                next = self.subscription.next_encoded() => next,
                () = done(&mut self.validating) => {
                    self.validating = None;
                    if self.is_again {
                        self.validate();
                    }
                    continue;
                }
            };
            let next = match next {
                Ok(Encoded::Event { cursor, event }) => self.deliver(cursor, event).await,
                other => Some(other),
            };
            match next {
                None | Some(Ok(Encoded::Event { .. })) => {}
                Some(Ok(Encoded::Heartbeat)) => self.feed.heard(),
                Some(Ok(Encoded::Item(item))) => self.take(&item),
                Some(Err(stopped)) => return stopped,
            }
        }
    }

    /// Delivers an event, and those that have come by now. Returns what has come after them, if
    /// that is something else.
    async fn deliver(
        &mut self,
        mut last: Cursor,
        first: Bytes,
    ) -> Option<Result<Encoded, Stopped>> {
        let mut events = vec![first];
        let mut other = None;
        while events.len() < TOGETHER && other.is_none() {
            match now(self.subscription.next_encoded()).await {
                None => break,
                Some(Ok(Encoded::Event { cursor, event })) => {
                    events.push(event);
                    last = cursor;
                }
                something => other = something,
            }
        }
        match self.feed.deliver(&events) {
            Ok(()) => self.processed(last),
            Err(error) => self.subscription.undecodable(last, &error),
        }
        other
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
                let beginning = match (start.resume, start.revocations) {
                    (Resume::Resumed, _) => Beginning::Resumed,
                    (Resume::Fresh, Some(revocations)) => Beginning::Replay {
                        is_complete: revocations.completeness == Completeness::Complete,
                    },
                    (Resume::Fresh, None) => Beginning::Lost,
                };
                self.begin(|feed| feed.begin(beginning));
                if let Some(cursor) = self.subscription.cursor() {
                    self.application.processed(cursor);
                }
            }
            Item::Replayed { cursor } => {
                self.begin(Feed::replayed);
                self.processed(*cursor);
            }
            _ => {}
        }
        self.application.happened(item);
    }

    /// Has sessions validated, if this makes them suspect.
    fn begin(&mut self, begin: impl FnOnce(&mut Feed)) {
        let before = self.feed.losses();
        begin(&mut self.feed);
        if self.feed.losses() != before {
            self.is_again = true;
            if self.validating.is_none() {
                self.validate();
            }
        }
    }

    fn validate(&mut self) {
        self.is_again = false;
        let application = Arc::clone(&self.application);
        let validating = self.validations.run(self.feed.router(), application);
        self.validating = Some(Box::pin(validating));
    }
}

impl Validations {
    /// Validates the sessions that are suspect, until none is.
    async fn run<A: Application>(self, router: Router, application: Arc<A>) {
        loop {
            let mut under_way = JoinSet::new();
            let mut unknown = 0_usize;
            // A validation that has panicked has no answer either.
            let mut count = |answered| unknown += usize::from(!matches!(answered, Ok(true)));
            for suspect in router.suspects() {
                if under_way.len() >= self.at_once
                    && let Some(answered) = under_way.join_next().await
                {
                    count(answered);
                }
                under_way.spawn(validate(Arc::clone(&application), suspect, self.timeout));
            }
            while let Some(answered) = under_way.join_next().await {
                count(answered);
            }
            if unknown == 0 {
                return;
            }
            tracing::debug!(
                sessions = unknown,
                "not validated: the backend has no answer"
            );
            tokio::time::sleep(self.pause).await;
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

/// Waits for it, for ever if there is nothing.
async fn done(future: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
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
