//! Why an operation of the engine failed, and what holds afterwards.

use crate::cursor::Seq;

/// Why a batch was refused. Nothing of it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// There is nothing in the batch.
    #[error("a batch holds at least one event")]
    NoEvents,
    /// One event is larger than the engine takes.
    #[error("events[{index}] has {bytes} bytes, the limit is {limit}")]
    EventTooLarge {
        /// Which one, from 0.
        index: usize,
        /// The publisher's bytes.
        bytes: usize,
        /// The engine's `max_event_bytes`.
        limit: usize,
    },
    /// The batch has more events than may be claimed at once.
    #[error("the batch has {events} events, the limit is {limit}")]
    TooManyEvents {
        /// How many it has.
        events: usize,
        /// The engine's `max_batch_events`.
        limit: usize,
    },
    /// The batch needs more of the ring than one batch may have.
    #[error("the batch needs {bytes} bytes of the ring, the limit is {limit}")]
    BatchTooLarge {
        /// Its frames, in bytes.
        bytes: u64,
        /// The engine's `max_batch_bytes`.
        limit: u64,
    },
    /// The engine takes no more events.
    #[error("the engine is closed")]
    Closed,
    /// Not as many sequences are left in this epoch as the batch has events: the last
    /// is [`Seq::MAX`].
    #[error("no sequence is left in this epoch")]
    Exhausted,
}

/// Why a batch was not appended. Nothing of it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch cannot be published, whatever its sequences are.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The batch neither follows the head nor repeats what was appended: it begins at or
    /// before the head and ends beyond it, it has the sequence 0, or it has sequences that
    /// are missing.
    #[error("events {first} to {last} neither follow {head}, the newest, nor repeat earlier ones")]
    OutOfOrder {
        /// Its first sequence.
        first: Seq,
        /// Its last sequence.
        last: Seq,
        /// The newest event's.
        head: Seq,
    },
}

/// Why there is no subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// As many gateways as allowed are subscribed.
    #[error("{limit} gateways are subscribed, which is the limit")]
    TooManySubscribers {
        /// The engine's `max_subscribers`.
        limit: usize,
    },
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// The subscriber has lagged: so many events were dropped before it read
    /// them. It goes on with the oldest event that the ring still has.
    #[error("lagged: {0} events were dropped unread")]
    Lagged(u64),
    /// A newer subscription has the id. Final.
    #[error("a newer subscription took over")]
    TakenOver,
    /// The engine is closed and everything was received, or it was aborted. Final.
    #[error("the engine is closed")]
    Closed,
}

/// Why nothing was received at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// Nothing new is published.
    #[error("nothing new is published")]
    Empty,
    /// As [`RecvError::Lagged`].
    #[error("lagged: {0} events were dropped unread")]
    Lagged(u64),
    /// As [`RecvError::TakenOver`].
    #[error("a newer subscription took over")]
    TakenOver,
    /// As [`RecvError::Closed`].
    #[error("the engine is closed")]
    Closed,
}

/// Why a replay has ended early. Its subscriber has ended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The gateway reads so slowly that the table had to go on without it.
    #[error("{left} invalidations were replaced or evicted unread")]
    TooSlow {
        /// How many it had yet to read.
        left: u64,
    },
    /// As [`RecvError::TakenOver`].
    #[error("a newer subscription took over")]
    TakenOver,
    /// As [`RecvError::Closed`].
    #[error("the engine is closed")]
    Closed,
}
