//! The gateways' end of the engine: a subscription, its start and its reads.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::batch::Batch;
use super::error::{RecvError, SubscribeError, TryRecvError};
use super::frame::{self, OVERHEAD_BYTES};
use super::ring::{Read, Reader, Retained};
use super::shared::Shared;
use super::subscription::{Subscription, Turn};
use super::sync::{Arc, Ordering};
use crate::cursor::{Cursor, Seq};

/// Batches are cut to this many bytes unless the subscriber says otherwise.
pub const DEFAULT_MAX_BATCH_BYTES: usize = 256 * 1024;

/// Why a stream starts where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
    /// At the event after the requested cursor.
    Resumed,
    /// After the head: no cursor was given.
    NoCursor,
    /// After the head: the event after the cursor has left the ring or the window.
    Expired {
        /// How many events lie between the cursor and the start.
        missed: u64,
    },
    /// After the head: the cursor is of this epoch but past the head.
    Ahead,
    /// After the head: the cursor is of another epoch.
    OtherEpoch {
        /// Whether that epoch is later than the engine's: the cursor is of another
        /// engine, or the clock went back between two births of this one.
        is_later: bool,
    },
    /// After the head: what was given is not a cursor.
    Malformed,
}

/// Where a stream starts, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Why it starts there.
    pub resume: Resume,
    /// The position just before the first event to come.
    pub cursor: Cursor,
}

/// Reads the ring for one gateway, from its start on, without holes or repeats.
///
/// Works without any runtime ([`try_recv`](Self::try_recv)) and with every one
/// ([`poll_recv`](Self::poll_recv), [`recv`](Self::recv)). Dropping it ends the
/// subscription.
///
/// It is used like the receiver of tokio's `broadcast`, but what it receives are
/// batches, and it can be taken over:
///
/// ```
/// use galaxy_push::engine::{Engine, RecvError, Resume};
/// use galaxy_push::event::Event;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder().build()?;
/// // PushEvent { client_event: { user_id: "u", kind: "k" } }
/// let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
/// let mut processed = engine.publisher().publish(event)?;
/// engine.publisher().publish_batch(&[event; 3])?;
///
/// let mut gateway = engine.subscribe("gateway-1", &processed.to_string())?;
/// assert_eq!(gateway.start().resume, Resume::Resumed);
/// engine.close(); // what was published before is still received
/// loop {
///     match gateway.recv().await {
///         Ok(batch) => {
///             for event in batch.events() {
///                 println!("{event:?}"); // PushEvent::decode(event)
///             }
///             processed = batch.last();
///         }
///         Err(RecvError::Lagged(missed)) => println!("{missed} events are gone"),
///         Err(RecvError::TakenOver) => panic!("somebody else is gateway-1 now"),
///         Err(RecvError::Closed) => break,
///     }
/// }
/// assert_eq!(processed, engine.head());
/// # Ok(())
/// # }
/// ```
///
/// [`poll_recv`](Self::poll_recv) makes a stream of it, where one is wanted:
/// `futures_util::stream::poll_fn(move |cx| subscriber.poll_recv(cx).map(Some))`, to be
/// left at the first final error.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Subscriber {
    shared: Arc<Shared>,
    subscription: Arc<Subscription>,
    reader: Reader,
    max_batch_bytes: usize,
}

impl Subscriber {
    pub(super) fn subscribe<R>(
        shared: &Arc<Shared>,
        id: &str,
        start: impl FnOnce(&Arc<Shared>) -> (Start, R),
    ) -> Result<(Self, R), SubscribeError> {
        if shared.ring.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let full = || SubscribeError::TooManySubscribers {
            limit: shared.registry.max(),
        };
        let seat = shared.waiters.acquire().ok_or_else(full)?;
        let subscription = Arc::new(Subscription::new(id, seat));
        let Ok(older) = shared.registry.insert(&subscription) else {
            shared.waiters.release(subscription.seat());
            return Err(full());
        };
        // From here on it is the subscriber's drop that gives all this back, should
        // the older one's waker or the clock, which are not ours, panic.
        let mut subscriber = Subscriber {
            shared: Arc::clone(shared),
            subscription,
            reader: Reader::after(0),
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
        };
        if let Some(older) = older {
            shared.waiters.wake(older.seat());
        }
        let (start, rest) = start(shared);
        subscriber.reader = Reader::after(start.cursor.seq().number());
        subscriber.subscription.start_at(&start);
        Ok((subscriber, rest))
    }

    /// Whether it was ended by an [`Ender`]: that, and not a newer subscription, is then what
    /// [`RecvError::TakenOver`] means.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.subscription.was_ended()
    }

    /// See [`Subscription::begin_turn`].
    pub(super) fn begin_turn(&self) -> Option<Turn> {
        self.subscription.begin_turn()
    }

    /// See [`Subscription::end_turn`].
    pub(super) fn end_turn(&self, turn: Turn) -> bool {
        self.subscription.end_turn(turn)
    }

    /// Cuts batches to at most this many bytes, but at least one event; the
    /// default is [`DEFAULT_MAX_BATCH_BYTES`]. Larger batches cost less each byte;
    /// smaller ones let go of the ring's memory sooner when their reader is slow.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// What ends this subscription from outside.
    #[must_use]
    pub fn ender(&self) -> Ender {
        Ender {
            shared: Arc::clone(&self.shared),
            subscription: Arc::clone(&self.subscription),
        }
    }

    /// Counts a batch as delivered: so many events and bytes, up to the event `last`. What
    /// that means is the caller's choice; [`Ender::deliveries`] shows it to others.
    #[inline]
    pub fn delivered(&self, last: Seq, events: u64, bytes: u64) {
        self.subscription.delivered(last.number(), events, bytes);
    }

    /// Where this stream started, and why.
    #[must_use]
    pub fn start(&self) -> Start {
        self.subscription.start(self.shared.ring.epoch())
    }

    /// The last event that was received (or dropped unread), or the start.
    #[must_use]
    pub fn position(&self) -> Cursor {
        Cursor::new(self.shared.ring.epoch(), Seq::issued(self.reader.seq()))
    }

    /// A frame without an event, whose cursor is the [position](Self::position): what a
    /// stream shows of itself while there is nothing else.
    #[must_use]
    pub fn position_frame(&self) -> [u8; OVERHEAD_BYTES] {
        frame::of_position(self.position())
    }

    /// How many published events are still to be received.
    #[must_use]
    pub fn lag(&self) -> u64 {
        // The head was at or beyond the position when that was read.
        self.shared.ring.head() - self.reader.seq()
    }

    /// Receives what is there, without waiting.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] when everything was received, else as
    /// [`recv`](Self::recv).
    // Inlined, with the short way of a subscriber that keeps up: a batch has more words
    // than are returned in registers, and to move it out of memory that was written just
    // before costs as much again as all else here.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Batch, TryRecvError> {
        let shared = &*self.shared;
        let turn = self.subscription.begin_turn();
        let turn = turn.ok_or(TryRecvError::TakenOver)?;
        // Acquire: pairs with the Release in `Engine::abort`.
        if shared.aborted.load(Ordering::Acquire) {
            return Err(TryRecvError::Closed);
        }
        match shared.ring.read(&mut self.reader, self.max_batch_bytes) {
            Read::Nothing if shared.ring.ends_at(self.reader.seq()) => Err(TryRecvError::Closed),
            Read::Nothing => Err(TryRecvError::Empty),
            _ if !self.subscription.end_turn(turn) => Err(TryRecvError::TakenOver),
            Read::Span(span) => {
                self.reader.advance(&span);
                Ok(Batch::new(span, shared.ring.epoch()))
            }
            Read::Lagged(missed) => {
                self.reader.skip(missed);
                Err(TryRecvError::Lagged(missed))
            }
        }
    }

    /// Receives what is there, or parks the task until there is something.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Batch, RecvError>> {
        self.poll_recv_inlined(cx)
    }

    /// The same, for the one place where it is called for every write. Inlined for the same
    /// reason.
    #[inline(always)]
    pub(crate) fn poll_recv_inlined(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Batch, RecvError>> {
        loop {
            match self.try_recv() {
                Ok(batch) => return Poll::Ready(Ok(batch)),
                Err(TryRecvError::Lagged(missed)) => {
                    return Poll::Ready(Err(RecvError::Lagged(missed)));
                }
                Err(TryRecvError::TakenOver) => return Poll::Ready(Err(RecvError::TakenOver)),
                Err(TryRecvError::Closed) => return Poll::Ready(Err(RecvError::Closed)),
                Err(TryRecvError::Empty) => {}
            }
            let shared = &*self.shared;
            shared.waiters.park(self.subscription.seat(), cx.waker());
            // What has happened before the bits were to be seen, nobody wakes us for.
            let seq = self.reader.seq();
            let something = shared.ring.head() != seq
                || self.subscription.is_taken()
                || shared.ring.ends_at(seq)
                || shared.aborted.load(Ordering::Acquire);
            if !something {
                return Poll::Pending;
            }
            shared.waiters.unpark(self.subscription.seat());
        }
    }

    /// Receives the next batch, waiting for one if there is none.
    ///
    /// Nothing ends by dropping every [`Publisher`](super::Publisher): a subscriber
    /// waits until [`Engine::close`](super::Engine::close). It takes no part in tokio's
    /// cooperative scheduling: a loop that always finds something should yield by
    /// itself, or be wrapped in `tokio::task::coop::cooperative`.
    ///
    /// # Errors
    ///
    /// [`RecvError::Lagged`] when the ring has dropped events before they were
    /// read; the next call goes on after them. [`RecvError::TakenOver`] and
    /// [`RecvError::Closed`] are final.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a batch is taken from the ring only when it is returned.
    pub async fn recv(&mut self) -> Result<Batch, RecvError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

/// Ends a [`Subscriber`] from outside, wherever that is.
///
/// It does not keep the subscription, which ends with its subscriber all the same.
#[derive(Clone, Debug)]
pub struct Ender {
    shared: Arc<Shared>,
    subscription: Arc<Subscription>,
}

impl Ender {
    /// Ends the subscription as a newer one of its id would: when this returns, the
    /// subscriber has received its last batch, and whatever it receives next is
    /// [`RecvError::TakenOver`]; [`Subscriber::was_ended`] tells it from a newer one. Its id is
    /// free. Returns whether it was this call that
    /// ended it.
    pub fn end(&self) -> bool {
        let ended = self.subscription.mark_ended();
        if ended {
            self.shared.registry.remove(&self.subscription);
            self.shared.waiters.wake(self.subscription.seat());
        }
        ended
    }
}

impl Ender {
    /// The id that is subscribed.
    #[must_use]
    pub fn gateway_id(&self) -> &str {
        self.subscription.id()
    }

    /// Where the stream started, and why.
    #[must_use]
    pub fn start(&self) -> Start {
        self.subscription.start(self.shared.ring.epoch())
    }

    /// Whether the subscription has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.subscription.is_taken()
    }

    /// What the subscriber has [counted](Subscriber::delivered) as delivered by now.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries {
        let (position, events, bytes) = self.subscription.deliveries();
        Deliveries {
            position: Cursor::new(self.shared.ring.epoch(), Seq::issued(position)),
            events,
            bytes,
        }
    }
}

/// What was delivered to one subscriber, as its owner says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deliveries {
    /// The last event, or where the stream started.
    pub position: Cursor,
    /// How many events.
    pub events: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if self.subscription.mark_taken() {
            self.shared.registry.remove(&self.subscription);
        }
        self.shared.waiters.release(self.subscription.seat());
    }
}

impl Shared {
    /// Decides where a stream starts that asks for `cursor`.
    pub(super) fn start(&self, cursor: &str) -> Start {
        let head = self.ring.head();
        let (resume, seq) = self.resume(cursor, head);
        self.start_after(resume, seq)
    }

    fn start_after(&self, resume: Resume, seq: u64) -> Start {
        Start {
            resume,
            cursor: Cursor::new(self.ring.epoch(), Seq::issued(seq)),
        }
    }

    /// Whether to resume, and the sequence to start after.
    fn resume(&self, cursor: &str, head: u64) -> (Resume, u64) {
        if cursor.is_empty() {
            return (Resume::NoCursor, head);
        }
        let Ok(cursor) = cursor.parse::<Cursor>() else {
            return (Resume::Malformed, head);
        };
        if cursor.epoch() != self.ring.epoch() {
            let is_later = cursor.epoch() > self.ring.epoch();
            return (Resume::OtherEpoch { is_later }, head);
        }
        let seq = cursor.seq().number();
        if seq > head {
            return (Resume::Ahead, head);
        }
        if seq == head {
            return (Resume::Resumed, seq);
        }
        match self.ring.retained(seq + 1, head) {
            Retained::Since { published_ms }
                if self.time.now_ms().saturating_sub(published_ms) <= self.window_ms() =>
            {
                (Resume::Resumed, seq)
            }
            _ => {
                // What the decision has seen may be newer than `head`; where the
                // stream starts must not be older.
                let head = self.ring.head();
                let missed = head - seq;
                (Resume::Expired { missed }, head)
            }
        }
    }
}
