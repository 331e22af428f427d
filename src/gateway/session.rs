//! [`Session`]: an open session, and its events.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use super::end::{End, Refusal};
use super::entry::{Entry, Taken};
use super::event::Event;
use super::guard::Guard;
use super::router::Shared;
use super::sync::{Arc, Ordering, fence};

/// An open session. It receives its events until it ends, or is dropped.
pub struct Session {
    entry: Arc<Entry>,
    shared: Arc<Shared>,
    /// It was told that the gateway is stopping.
    is_drained: bool,
}

/// Why no event was received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The queue was full, and this many of its oldest events were dropped since the last
    /// message. The session goes on with the next event.
    #[error("the session was too slow: {0} events were dropped")]
    Lagged(u64),
    /// It has ended. What was in its queue is gone, unless the gateway is stopping.
    #[error(transparent)]
    Ended(#[from] End),
}

/// Why no event was received at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is none yet; or it is held back, while the router is [stale](Refusal::Stale) or the
    /// session [suspect](Refusal::Suspect).
    #[error("no event for the session yet")]
    Empty,
    /// As [`RecvError::Lagged`].
    #[error("the session was too slow: {0} events were dropped")]
    Lagged(u64),
    /// As [`RecvError::Ended`].
    #[error(transparent)]
    Ended(#[from] End),
}

impl Session {
    pub(super) fn new(entry: Arc<Entry>, shared: Arc<Shared>) -> Self {
        Session {
            entry,
            shared,
            is_drained: false,
        }
    }

    /// The user's id.
    #[must_use]
    pub fn user(&self) -> &str {
        self.entry.user()
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.entry.session()
    }

    /// Waits for the next event. While the router is [stale](Refusal::Stale), or the session
    /// [suspect](Refusal::Suspect), events wait in the queue.
    ///
    /// # Errors
    ///
    /// [`RecvError::Lagged`], after which it goes on, or [`RecvError::Ended`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<Event, RecvError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same for whoever polls.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, RecvError>> {
        match self.take(Some(cx)) {
            Ok(event) => Poll::Ready(Ok(event)),
            Err(TryRecvError::Lagged(events)) => Poll::Ready(Err(RecvError::Lagged(events))),
            Err(TryRecvError::Ended(end)) => Poll::Ready(Err(RecvError::Ended(end))),
            Err(TryRecvError::Empty) => Poll::Pending,
        }
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`].
    pub fn try_recv(&mut self) -> Result<Event, TryRecvError> {
        self.take(None)
    }

    /// Lets a request of this session in.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why not, and whether that may pass.
    pub fn enter(&self) -> Result<Guard, Refusal> {
        self.check()?;
        self.entry.retain();
        Ok(Guard::new(
            Arc::clone(&self.entry),
            Arc::clone(&self.shared),
        ))
    }

    /// Whether something may still be done for it: see [`Guard::check`]. Ask it before an event that
    /// was received is sent on, where that took a while.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why not, and whether that may pass.
    pub fn check(&self) -> Result<(), Refusal> {
        self.shared.check(&self.entry)
    }

    fn take(&mut self, cx: Option<&mut Context<'_>>) -> Result<Event, TryRecvError> {
        let mut state = self.entry.state();
        let taken = if state.end().is_some() || self.shared.may_go_on(&self.entry) {
            state.take()
        } else {
            Taken::Nothing
        };
        match taken {
            Taken::Event(event) => return Ok(Event(event)),
            Taken::Lagged(events) => return Err(TryRecvError::Lagged(events)),
            Taken::Ended(end) => return Err(TryRecvError::Ended(end)),
            Taken::Nothing => {}
        }
        if self.is_drained || (state.is_empty() && self.shared.is_draining()) {
            drop(state);
            // It stays so, whatever still comes.
            self.is_drained = true;
            self.entry.stop_receiving();
            return Err(TryRecvError::Ended(End::Draining));
        }
        let Some(cx) = cx else {
            return Err(TryRecvError::Empty);
        };
        let unneeded = state.park(cx.waker());
        let is_held = !state.is_empty();
        drop(state);
        drop(unneeded);
        // The feed may have been heard just as it was about to be too late: then nobody is woken.
        fence(Ordering::SeqCst);
        if is_held && self.shared.may_go_on(&self.entry) {
            cx.waker().wake_by_ref();
        }
        Err(TryRecvError::Empty)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.entry.stop_receiving();
        self.shared.release(&self.entry);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user())
            .field("id", &self.id())
            .field("refusal", &self.check().err())
            .finish()
    }
}
