//! [`Guard`]: a request that is in flight.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use super::end::{End, Refusal};
use super::entry::Entry;
use super::router::Shared;
use super::sync::{Arc, Ordering, fence};

/// Guards a request of a session while it is in flight: an invalidation of the session refuses
/// whatever the request has yet to do.
///
/// ```
/// # use galaxy_push::gateway::{Guard, Refusal};
/// # async fn read() -> String { String::new() }
/// # async fn write(_: String) {}
/// async fn handle(mut guard: Guard) -> Result<(), Refusal> {
///     // Given up at once when the session is revoked.
///     let text = guard.run(read()).await?;
///     // Before each effect.
///     guard.check()?;
///     guard.run(write(text)).await
/// }
/// ```
pub struct Guard {
    entry: Arc<Entry>,
    shared: Arc<Shared>,
    /// Under which it waits.
    key: Option<u32>,
}

impl Guard {
    pub(super) fn new(entry: Arc<Entry>, shared: Arc<Shared>) -> Self {
        Guard {
            entry,
            shared,
            key: None,
        }
    }

    /// The user's id.
    #[must_use]
    pub fn user(&self) -> &str {
        self.entry.user()
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> &str {
        self.entry.session()
    }

    /// Whether the request may go on. Once an invalidation of the session was processed, none
    /// may. Ask before each effect.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why not, and whether that may pass.
    pub fn check(&self) -> Result<(), Refusal> {
        self.shared.check(&self.entry)
    }

    /// Waits until the session ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ended(&mut self) -> End {
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Waits while the router is [stale](Refusal::Stale) or the session
    /// [suspect](Refusal::Suspect): once this returns, the request may go on.
    ///
    /// # Errors
    ///
    /// [`End`], if the session ends first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn allowed(&mut self) -> Result<(), End> {
        poll_fn(|cx| self.poll_allowed(cx)).await
    }

    /// Runs a part of the request, and gives it up when the session ends. It does nothing while the
    /// router is [stale](Refusal::Stale) or the session [suspect](Refusal::Suspect): when it would go
    /// on then, it is given up too. Where that may pass, run shorter parts, and wait for
    /// [`allowed`](Self::allowed) between them.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: why it was given up. If it ends just as it must not go on any more, its result is
    /// given up too.
    ///
    /// # Cancel safety
    ///
    /// As that of the future.
    pub async fn run<F: Future>(&mut self, part: F) -> Result<F::Output, Refusal> {
        let mut part = pin!(part);
        poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll_ended(cx) {
                return Poll::Ready(Err(Refusal::Ended(end)));
            }
            if let Err(refusal) = self.check() {
                return Poll::Ready(Err(refusal));
            }
            let done = part.as_mut().poll(cx);
            done.map(|done| self.check().map(|()| done))
        })
        .await
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut state = self.entry.state();
        if let Some(end) = state.end() {
            return Poll::Ready(end.clone());
        }
        let unneeded = state.watch(&mut self.key, cx.waker());
        drop(state);
        drop(unneeded);
        Poll::Pending
    }

    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Poll::Ready(end) = self.poll_ended(cx) {
            return Poll::Ready(Err(end));
        }
        // After it is known whom to wake.
        match self.check() {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Refusal::Ended(end)) => Poll::Ready(Err(end)),
            Err(Refusal::Stale | Refusal::Suspect) => {
                // As in `Session::take`.
                fence(Ordering::SeqCst);
                if self.shared.may_go_on(&self.entry) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl Clone for Guard {
    /// For another task of the same request.
    fn clone(&self) -> Self {
        self.entry.retain();
        Guard::new(Arc::clone(&self.entry), Arc::clone(&self.shared))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut state = self.entry.state();
            let unneeded = state.unwatch(key);
            drop(state);
            drop(unneeded);
        }
        self.shared.release(&self.entry);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("user", &self.user())
            .field("session", &self.session())
            .field("refusal", &self.check().err())
            .finish()
    }
}
