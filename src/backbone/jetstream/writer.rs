//! Messages on their way into the stream, behind the fence that numbers their events.
//!
//! The writer knows that the stream's last message is S, and that T events are numbered up to
//! there. It sends the next message with the number T + 1, to be stored if S still is the last
//! one. So of all replicas that number at the same place one is stored, and the others number
//! anew when they have read what came before them.
//!
//! No answer says nothing. Then the very same message is sent again. At most one of the copies
//! can be stored, because each is fenced by the same S, and the log tells: the message after S
//! either has the nonce of these copies, or they are not in the stream and never will be.
//!
//! One message is under way at a time. A later one could only be sent ahead with the fence
//! S + 1, which another replica's message satisfies as well when it has come in between: it
//! would be stored with a wrong number.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Lost;
use super::message::{Nonce, Position, Stamp};
use super::queue::Queue;
use crate::backbone::AppendError;
use crate::cursor::{Epoch, Seq};
use crate::engine::PublishError;

/// How long publishers wait for a stream that does not answer, or takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it takes at most to read what has refused a message, where nothing is wrong.
const READING: Duration = Duration::from_millis(500);
/// Between two checkpoints.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(200);
/// Between two copies of a message, where the stream refuses them at once.
const PAUSE: Duration = Duration::from_millis(20);

/// What the reader has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) position: Position,
    /// The newest message of this replica: its attempt, and the number of its first event.
    pub(super) own: Option<(u64, u64)>,
    /// Of the messages up to this one not all were read: some are not in the stream any more.
    pub(super) unread: u64,
    /// How many events there were is not known, but only how many there may have been.
    pub(super) is_guess: bool,
    /// When the newest message was stored that has numbers.
    pub(super) newest_at: Option<Instant>,
}

/// A stream, as far as writing goes.
pub(super) trait Store {
    /// Stores the message, if `after` is the stream's last. Returns where it is.
    fn store(
        &self,
        message: &Message,
        stamp: Stamp,
        after: u64,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

/// A message, but for its numbers.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) payload: Bytes,
    pub(super) events: u64,
    pub(super) has_invalidation: bool,
    /// When it is given up.
    pub(super) deadline: Instant,
}

impl Message {
    /// One without events: it only says how many there were.
    pub(super) fn checkpoint() -> Self {
        Message {
            payload: Bytes::new(),
            events: 0,
            has_invalidation: false,
            deadline: Instant::now() + PATIENCE,
        }
    }
}

/// What became of a copy of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreError {
    /// The stream's last message is another one.
    Fenced,
    /// It is not stored, for this reason, which may pass.
    NotStored(String),
    /// It never will be, for this reason.
    Never(String),
    /// Nobody knows.
    Unanswered,
}

#[derive(Debug)]
pub(super) struct Writer<S> {
    pub(super) store: S,
    pub(super) queue: Arc<Queue>,
    pub(super) tail: watch::Receiver<Tail>,
    pub(super) epoch: Epoch,
    /// Where the next message goes, as far as this replica's own tell.
    pub(super) position: Position,
    /// The next attempt's.
    pub(super) nonce: Nonce,
    /// How old the newest message may be. The stream must never be empty, because the numbers are
    /// in its messages: before the last one expires there is a checkpoint.
    pub(super) keep: Option<Duration>,
}

enum Failed {
    Append(AppendError),
    Lost(Lost),
}

/// What the log tells of a message that may be in it.
enum Told {
    /// It is; its first event has this number.
    Stored(u64),
    /// Another one is in its place.
    Elsewhere,
    /// What was in its place is not in the stream any more.
    Unreadable,
    /// Nothing is in its place, as far as was read.
    NotYet,
}

impl<S: Store> Writer<S> {
    /// Writes what comes into the queue, one message after another.
    pub(super) async fn run(mut self) -> Lost {
        loop {
            let queue = Arc::clone(&self.queue);
            let next = tokio::select! {
                biased;
                joined = queue.next() => Some(joined),
                () = checkpoint_due(self.tail.clone(), self.keep) => None,
            };
            let Some(mut joined) = next else {
                if let Err(Failed::Lost(lost)) = self.checkpoint().await {
                    return lost;
                }
                continue;
            };
            let message = Message {
                payload: std::mem::take(&mut joined.payload).into(),
                events: joined.events,
                has_invalidation: joined.has_invalidation,
                deadline: joined.since + PATIENCE,
            };
            match self.put(&message).await {
                Ok(first) => joined.stored(self.epoch, first),
                Err(Failed::Append(error)) => self.queue.fail(joined, &error),
                Err(Failed::Lost(lost)) => {
                    self.queue.refuse(AppendError::Unavailable {
                        reason: lost.to_string(),
                    });
                    self.queue.fail(joined, &AppendError::Undecided);
                    return lost;
                }
            }
        }
    }

    /// Brings a message into the stream. Returns the number of its first event.
    async fn put(&mut self, message: &Message) -> Result<u64, Failed> {
        loop {
            if let Some(first) = self.put_next(message).await? {
                return Ok(first);
            }
            if Instant::now() >= message.deadline {
                return Err(Failed::Append(AppendError::Unavailable {
                    reason: "other replicas were first, again and again".to_owned(),
                }));
            }
        }
    }

    /// Says in the stream how many events there were, if no other message comes to say so.
    async fn checkpoint(&mut self) -> Result<(), Failed> {
        let stored = self.put_next(&Message::checkpoint()).await;
        // Until it is read, or anything else.
        sleep(CHECKPOINT_PAUSE).await;
        stored.map(|_| ())
    }

    /// Tries to bring a message into the next place. `None`: another one is there.
    async fn put_next(&mut self, message: &Message) -> Result<Option<u64>, Failed> {
        let at = self.position.max(self.tail.borrow_and_update().position);
        let stamp = Stamp {
            first: at.events + 1,
            count: message.events,
            nonce: self.nonce,
        };
        self.nonce.attempt += 1;
        if stamp.last() > Seq::MAX.number() {
            return Err(Failed::Append(PublishError::Exhausted.into()));
        }
        self.put_at(message, at, stamp).await
    }

    /// Sends copies of the message for one place, until it is known what is there. `None`:
    /// another message.
    async fn put_at(
        &mut self,
        message: &Message,
        at: Position,
        stamp: Stamp,
    ) -> Result<Option<u64>, Failed> {
        let deadline = message.deadline;
        let place = at.message + 1;
        // Whether a copy may be stored, or become so.
        let mut is_loose = false;
        loop {
            let outcome = self.store.store(message, stamp, at.message).await;
            let refusal = match outcome {
                Ok(stored) if stored == place => {
                    self.position = Position {
                        message: place,
                        events: stamp.last(),
                    };
                    return Ok(Some(stamp.first));
                }
                Ok(stored) => {
                    let expected = place;
                    return Err(Failed::Lost(Lost::Misplaced { stored, expected }));
                }
                Err(error) => error,
            };
            let (reason, look_until) = match refusal {
                StoreError::Never(reason) if !is_loose => {
                    return Err(Failed::Append(AppendError::Unavailable { reason }));
                }
                StoreError::Fenced => (None, Instant::now() + READING),
                StoreError::NotStored(reason) | StoreError::Never(reason) => {
                    (Some(reason), Instant::now() + PAUSE)
                }
                StoreError::Unanswered => {
                    is_loose = true;
                    (None, Instant::now() + PAUSE)
                }
            };
            match self.look(place, stamp, look_until.min(deadline)).await {
                Told::Stored(first) => return Ok(Some(first)),
                Told::Elsewhere => return Ok(None),
                Told::Unreadable if is_loose => return Err(Failed::Append(AppendError::Undecided)),
                Told::Unreadable => return Ok(None),
                Told::NotYet if Instant::now() < deadline => {
                    if reason.is_some() {
                        sleep(PAUSE).await;
                    }
                }
                Told::NotYet if is_loose => return Err(Failed::Append(AppendError::Undecided)),
                Told::NotYet => {
                    let reason = reason.unwrap_or_else(|| {
                        format!("message {place}, which another replica has stored, is not read")
                    });
                    return Err(Failed::Append(AppendError::Unavailable { reason }));
                }
            }
        }
    }

    /// Looks until then what the log has at a place.
    async fn look(&mut self, place: u64, stamp: Stamp, until: Instant) -> Told {
        let come = self.tail.wait_for(|tail| tail.position.message >= place);
        let tail = match timeout_at(until, come).await {
            Ok(Ok(tail)) => Some(*tail),
            // Nobody reads any more.
            Ok(Err(_)) => None,
            Err(_) => return Told::NotYet,
        };
        let Some(tail) = tail else {
            sleep_until(until).await;
            return Told::NotYet;
        };
        match tail.own {
            Some((attempt, first)) if attempt == stamp.nonce.attempt => Told::Stored(first),
            _ if place <= tail.unread => Told::Unreadable,
            _ => Told::Elsewhere,
        }
    }
}

/// Returns when the stream needs a message that says how many events there were.
async fn checkpoint_due(mut tail: watch::Receiver<Tail>, keep: Option<Duration>) {
    loop {
        let Tail {
            is_guess,
            newest_at,
            ..
        } = *tail.borrow_and_update();
        let due = keep.zip(newest_at).map(|(keep, at)| at + keep);
        if is_guess || due.is_some_and(|due| due <= Instant::now()) {
            return;
        }
        let never = Instant::now() + Duration::from_secs(24 * 60 * 60);
        tokio::select! {
            changed = tail.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = sleep_until(due.unwrap_or(never)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
