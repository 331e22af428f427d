//! Appends that wait for the writer, joined to messages as they come.
//!
//! While one message is under way, what publishers send is joined for the next one: so a slow
//! way to the stream makes messages longer, and not publishers slower.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::message::{MAX_EVENTS, encode, encoded_bytes};
use crate::backbone::AppendError;
use crate::cursor::{Cursor, Epoch, Seq};
use crate::engine::Published;
use crate::event::Event;

/// Takes the outcome of one append.
type Outcome = oneshot::Receiver<Result<Published, AppendError>>;

/// What is told of those that are refused for another one.
const BEHIND_A_FAILURE: &str = "a batch before this one was not stored";
/// How much may wait: bounds the memory while the stream takes nothing.
const MAX_WAITING_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Queue {
    /// The longest payload of a message.
    max_message_bytes: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Joined>,
    bytes: usize,
    /// Why nothing is taken, while nothing is.
    refusal: Option<AppendError>,
    /// How often something was refused that had been taken.
    failures: u64,
}

/// Appends of one caller, which are stored in its order, or not at all: after one of them has
/// failed none is, until it has seen that.
#[derive(Debug)]
pub(super) struct Caller {
    queue: Arc<Queue>,
    /// How many of its outcomes it has not seen yet.
    unseen: Arc<AtomicUsize>,
    /// How many failures there were when it had seen all.
    failures: u64,
}

/// What will become of a batch. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Pending {
    outcome: oneshot::Receiver<Result<Published, AppendError>>,
    unseen: Arc<AtomicUsize>,
}

impl Future for Pending {
    type Output = Result<Published, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        // The writer is gone, and does not say where it was.
        Poll::Ready(outcome.unwrap_or(Err(AppendError::Undecided)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Relaxed: one task appends and drops.
        self.unseen.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clone for Caller {
    /// Another caller.
    fn clone(&self) -> Self {
        Caller::new(&self.queue)
    }
}

impl Caller {
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        Caller {
            queue: Arc::clone(queue),
            unseen: Arc::default(),
            failures: 0,
        }
    }

    /// Joins a batch to what waits, if it can be appended at all.
    pub(super) fn append(&mut self, events: &[Event<'_>]) -> Result<Pending, AppendError> {
        let has_seen_all = self.unseen.load(Ordering::Relaxed) == 0;
        let seen = (!has_seen_all).then_some(self.failures);
        let (outcome, failures) = self.queue.append(events, seen)?;
        self.failures = failures;
        self.unseen.fetch_add(1, Ordering::Relaxed);
        Ok(Pending {
            outcome,
            unseen: Arc::clone(&self.unseen),
        })
    }
}

/// Appends that go into one message.
#[derive(Debug)]
pub(super) struct Joined {
    /// When the first of them came.
    pub(super) since: Instant,
    pub(super) payload: Vec<u8>,
    /// How many events there are.
    pub(super) events: u64,
    pub(super) has_invalidation: bool,
    appends: Vec<Append>,
}

#[derive(Debug)]
struct Append {
    events: u64,
    outcome: oneshot::Sender<Result<Published, AppendError>>,
}

impl Queue {
    /// For a stream whose messages have at most so long payloads.
    pub(super) fn new(max_message_bytes: usize) -> Self {
        Queue {
            max_message_bytes,
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Joins a batch to what waits, if it can be appended at all. It cannot if there were other
    /// failures than the caller knew of, which still waits for outcomes. Returns how many there
    /// were.
    fn append(
        &self,
        events: &[Event<'_>],
        known: Option<u64>,
    ) -> Result<(Outcome, u64), AppendError> {
        let sizes = events
            .iter()
            .map(|event| encoded_bytes(event.as_bytes().len()));
        let bytes: usize = sizes.sum();
        let count = events.len() as u64;
        if bytes > self.max_message_bytes {
            return Err(AppendError::TooLarge {
                bytes,
                limit: self.max_message_bytes,
            });
        }
        let (outcome, decided) = oneshot::channel();
        let mut waiting = self.lock();
        if let Some(refusal) = &waiting.refusal {
            return Err(refusal.clone());
        }
        if known.is_some_and(|known| known != waiting.failures) {
            return Err(AppendError::Unavailable {
                reason: BEHIND_A_FAILURE.to_owned(),
            });
        }
        if waiting.bytes + bytes > MAX_WAITING_BYTES {
            return Err(AppendError::Unavailable {
                reason: format!("{} bytes wait to be stored", waiting.bytes),
            });
        }
        waiting.bytes += bytes;
        let fits = |last: &Joined| {
            last.payload.len() + bytes <= self.max_message_bytes
                && last.events + count <= MAX_EVENTS
        };
        if !waiting.messages.back().is_some_and(fits) {
            waiting.messages.push_back(Joined::new());
        }
        if let Some(joined) = waiting.messages.back_mut() {
            joined.add(events, outcome);
        }
        let failures = waiting.failures;
        drop(waiting);
        self.arrived.notify_one();
        Ok((decided, failures))
    }

    /// The next message, when there is one.
    pub(super) async fn next(&self) -> Joined {
        loop {
            let next = self.take();
            if let Some(joined) = next {
                return joined;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<Joined> {
        let mut waiting = self.lock();
        let joined = waiting.messages.pop_front()?;
        waiting.bytes -= joined.payload.len();
        Some(joined)
    }

    /// Refuses what waits and what comes, until it is [open](Self::open) again.
    pub(super) fn refuse(&self, why: AppendError) {
        let refused = self.clear(Some(why.clone()));
        for joined in refused {
            joined.failed(&why);
        }
    }

    /// A message is not stored, or nobody knows. What came behind it is not either, so that no
    /// caller's batches are stored without one that came before them.
    pub(super) fn fail(&self, joined: Joined, why: &AppendError) {
        // First of all, so that nothing comes behind it that is told of the failure later.
        let behind = self.clear(None);
        joined.failed(why);
        let why = AppendError::Unavailable {
            reason: BEHIND_A_FAILURE.to_owned(),
        };
        for joined in behind {
            joined.failed(&why);
        }
    }

    fn clear(&self, refusal: Option<AppendError>) -> VecDeque<Joined> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        waiting.failures += 1;
        if refusal.is_some() {
            waiting.refusal = refusal;
        }
        std::mem::take(&mut waiting.messages)
    }

    /// Takes appends again.
    pub(super) fn open(&self) {
        self.lock().refusal = None;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined {
    fn new() -> Self {
        Joined {
            since: Instant::now(),
            payload: Vec::new(),
            events: 0,
            has_invalidation: false,
            appends: Vec::new(),
        }
    }

    fn add(
        &mut self,
        events: &[Event<'_>],
        outcome: oneshot::Sender<Result<Published, AppendError>>,
    ) {
        for event in events {
            encode(event.as_bytes(), &mut self.payload);
            self.has_invalidation |= event.is_session_invalidation();
        }
        let events = events.len() as u64;
        self.events += events;
        self.appends.push(Append { events, outcome });
    }

    /// It is in the stream; its first event has this number.
    pub(super) fn stored(self, epoch: Epoch, first: u64) {
        let mut next = first;
        for append in self.appends {
            let cursor = |seq| Cursor::new(epoch, Seq::new(seq));
            let published = Published {
                first: cursor(next),
                last: cursor(next + append.events - 1),
            };
            next += append.events;
            // Whoever does not wait any more has no use for it.
            let _ = append.outcome.send(Ok(published));
        }
    }

    fn failed(self, why: &AppendError) {
        for append in self.appends {
            let _ = append.outcome.send(Err(why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PushEvent { client_event: { user_id: "u", kind: "k" } }, and one of user "u".
    const CLIENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";
    const INVALIDATION: &[u8] = b"\x12\x03\x12\x01u";

    fn event(bytes: &'static [u8]) -> Event<'static> {
        Event::parse(bytes).unwrap()
    }

    #[test]
    fn appends_are_joined_up_to_the_longest_message() {
        let queue = Arc::new(Queue::new(3 * encoded_bytes(CLIENT.len())));
        let mut caller = Caller::new(&queue);
        let client = event(CLIENT);
        let outcomes = [1, 2, 2, 1].map(|count| caller.append(&vec![client; count]).unwrap());
        let mut other = caller.append(&[event(INVALIDATION)]).unwrap();
        let error = caller.append(&[client; 4]).unwrap_err();
        assert_eq!(
            error,
            AppendError::TooLarge {
                bytes: 40,
                limit: 30
            }
        );
        let messages = [queue.take(), queue.take(), queue.take()].map(Option::unwrap);
        assert!(queue.take().is_none());
        let shapes = messages.each_ref();
        let shapes = shapes.map(|it| (it.events, it.payload.len(), it.has_invalidation));
        assert_eq!(shapes, [(3, 30, false), (3, 30, false), (1, 7, true)]);
        let epoch = Epoch::new(1, 0).unwrap();
        let [one, two, three] = messages;
        two.stored(epoch, 104);
        one.stored(epoch, 101);
        three.failed(&AppendError::Undecided);
        let places = outcomes.map(|mut pending| {
            let published = pending.outcome.try_recv().unwrap().unwrap();
            [published.first, published.last].map(|cursor| cursor.seq().number())
        });
        assert_eq!(places, [[101, 101], [102, 103], [104, 105], [106, 106]]);
        let outcome = other.outcome.try_recv().unwrap();
        assert_eq!(outcome, Err(AppendError::Undecided));
    }

    #[test]
    fn what_waits_is_refused_and_what_comes_until_it_is_open_again() {
        let queue = Arc::new(Queue::new(100));
        let mut caller = Caller::new(&queue);
        let mut pending = caller.append(&[event(CLIENT)]).unwrap();
        let why = AppendError::Unavailable {
            reason: "away".to_owned(),
        };
        queue.refuse(why.clone());
        assert_eq!(pending.outcome.try_recv().unwrap(), Err(why.clone()));
        assert_eq!(caller.append(&[event(CLIENT)]).unwrap_err(), why);
        assert!(queue.take().is_none());
        drop(pending);
        queue.open();
        drop(caller.append(&[event(CLIENT)]).unwrap());
        assert!(queue.take().is_some());
    }

    #[test]
    fn nothing_of_a_caller_is_stored_behind_what_failed_before_it_has_seen_that() {
        let queue = Arc::new(Queue::new(2 * encoded_bytes(CLIENT.len())));
        let [mut caller, mut other] = [Caller::new(&queue), Caller::new(&queue)];
        let mut pending: Vec<_> = (0..5)
            .map(|_| caller.append(&[event(CLIENT)]).unwrap())
            .collect();
        let first = queue.take().unwrap();
        queue.fail(first, &AppendError::Undecided);
        let refused = |error: &AppendError| matches!(error, AppendError::Unavailable { .. });
        assert!(refused(&caller.append(&[event(CLIENT)]).unwrap_err()));
        let outcomes: Vec<_> = pending
            .iter_mut()
            .map(|pending| pending.outcome.try_recv().unwrap().unwrap_err())
            .collect();
        assert_eq!(
            outcomes[..2],
            [AppendError::Undecided, AppendError::Undecided]
        );
        assert!(outcomes[2..].iter().all(refused));
        // It has nothing behind it.
        let theirs = other.append(&[event(CLIENT)]).unwrap();
        assert!(refused(&caller.append(&[event(CLIENT)]).unwrap_err()));
        drop(pending);
        let ours = caller.append(&[event(CLIENT)]).unwrap();
        assert_eq!(queue.take().unwrap().events, 2);
        drop((theirs, ours));
    }

    #[test]
    fn what_waits_is_bounded() {
        let queue = Arc::new(Queue::new(MAX_WAITING_BYTES));
        let mut caller = Caller::new(&queue);
        let payload = "x".repeat(MAX_WAITING_BYTES / 4).leak();
        let bytes = {
            use crate::contract::push::{ClientEvent, PushEvent, push_event::Kind};
            use prost::Message;
            let client = ClientEvent {
                user_id: "u".to_owned(),
                kind: "k".to_owned(),
                payload: payload.as_bytes().to_vec().into(),
                ..Default::default()
            };
            let event = PushEvent {
                kind: Some(Kind::ClientEvent(client)),
                ..Default::default()
            };
            event.encode_to_vec().leak()
        };
        let outcomes: Vec<_> = (0..3).map(|_| caller.append(&[event(bytes)])).collect();
        assert!(outcomes.iter().all(Result::is_ok));
        let refused = caller.append(&[event(bytes)]).unwrap_err();
        assert!(matches!(refused, AppendError::Unavailable { .. }));
        queue.take().unwrap();
        caller.append(&[event(bytes)]).unwrap();
    }
}
