//! What a history can show to be broken.

use std::fmt;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::start::{Decision, Requested};
use crate::cursor::Cursor;

/// One stream of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamId {
    /// The gateway's id.
    pub gateway: Arc<str>,
    /// Its number among the subscriptions of this id, from 1, in the order in
    /// which they were begun.
    pub number: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (stream {})", self.gateway, self.number)
    }
}

/// A promise that was not kept: to whom, where, and what there was instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// An event came that stands before the last one, or is the last one again.
    #[error("{stream}: {found} came after {after}: out of order, or a second time")]
    WentBack {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was.
        after: Cursor,
        /// What came.
        found: Cursor,
    },
    /// Events are missing and nobody said so.
    #[error("{stream}: {found} came after {after}: a gap that was not announced")]
    Skipped {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was.
        after: Cursor,
        /// What came.
        found: Cursor,
    },
    /// A gap was announced, and it has another size.
    #[error("{stream}: told that it missed {announced} events after {after}, and missed {missed}")]
    Miscounted {
        /// Whose stream.
        stream: StreamId,
        /// The last event before the gap, or the start.
        after: Cursor,
        /// How many were announced.
        announced: u64,
        /// How many there were.
        missed: u64,
    },
    /// A gap of no events was announced.
    #[error("{stream}: told after {after} that it missed 0 events")]
    EmptyGap {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was.
        after: Cursor,
    },
    /// An event has the epoch of another engine than the stream.
    #[error("{stream}: {found} came after {after}: another epoch in the same stream")]
    EpochChanged {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was.
        after: Cursor,
        /// What came.
        found: Cursor,
    },
    /// An event is not what its publisher published.
    #[error("{stream}: {cursor} has the contents {found}, its publisher published {expected}")]
    Contents {
        /// Whose stream.
        stream: StreamId,
        /// Where it stands.
        cursor: Cursor,
        /// What was published there, or, where no response names it, what
        /// another stream delivered.
        expected: Fingerprint,
        /// What came.
        found: Fingerprint,
    },
    /// An event came that no response names, and no batch without a response has.
    #[error("{stream}: {cursor} has the contents {found}, which nobody published")]
    Unpublished {
        /// Whose stream.
        stream: StreamId,
        /// Where it stands.
        cursor: Cursor,
        /// What came.
        found: Fingerprint,
    },
    /// An event came although its batch was refused.
    #[error("{stream}: {cursor} is an event that {publisher} published and was refused")]
    Refused {
        /// Whose stream.
        stream: StreamId,
        /// Where it stands.
        cursor: Cursor,
        /// Whose event it is.
        publisher: Arc<str>,
    },
    /// A batch whose response was lost is in the stream, but not as a whole, or not
    /// after what was known when it was published.
    #[error("{stream}: {cursor} is of a batch of {publisher} that is not there as a whole")]
    Torn {
        /// Whose stream.
        stream: StreamId,
        /// Where its event stands.
        cursor: Cursor,
        /// Whose batch it is.
        publisher: Arc<str>,
    },

    /// A stream was resumed, and not at the requested cursor.
    #[error("{stream}: asked for {requested}, and was resumed at {start}")]
    ResumedElsewhere {
        /// Whose stream.
        stream: StreamId,
        /// What was asked for.
        requested: Requested,
        /// The position before its first event.
        start: Cursor,
    },
    /// What was said about the requested cursor cannot be.
    #[error("{stream}: asked for {requested}, and was told \"{decision}\" at {start}")]
    WrongDecision {
        /// Whose stream.
        stream: StreamId,
        /// What was asked for.
        requested: Requested,
        /// The decision in the response.
        decision: Decision,
        /// The position before its first event.
        start: Cursor,
    },
    /// The requested cursor was said to have left the ring, and the ring must still
    /// have had it.
    #[error("{stream}: {requested} was said to have expired, only {missed} events behind the head")]
    ExpiredTooSoon {
        /// Whose stream.
        stream: StreamId,
        /// What was asked for.
        requested: Requested,
        /// How far it was behind.
        missed: u64,
    },
    /// A stream started before an event that somebody had received already, or in an
    /// epoch that had ended.
    #[error("{stream}: starts at {start}, when {known} was known")]
    StartsBehind {
        /// Whose stream.
        stream: StreamId,
        /// The position before its first event.
        start: Cursor,
        /// What had been seen when the subscription was begun.
        known: Cursor,
    },
    /// A fresh start lies inside a batch, which became visible in parts.
    #[error("{stream}: starts at {start}, inside of a batch")]
    StartsInsideBatch {
        /// Whose stream.
        stream: StreamId,
        /// The position before its first event.
        start: Cursor,
    },

    /// In a replay of revocations is one that is not the newest of its session at the start, that
    /// the gateway has processed before, or that is out of order.
    #[error("{stream}: of those from before {start} it was told {found}, which is not due there")]
    WrongRevocation {
        /// Whose stream.
        stream: StreamId,
        /// The position before its first event.
        start: Cursor,
        /// What it was told.
        found: Cursor,
    },
    /// A replay of revocations was said to be complete, and was not.
    #[error("{stream}: was told all from before {start}, and not {missing}")]
    MissingRevocation {
        /// Whose stream.
        stream: StreamId,
        /// The position before its first event.
        start: Cursor,
        /// What it was not told.
        missing: Cursor,
    },

    /// A stream has come to a position where no event ever was.
    #[error("{stream}: has come to {position}, the head is {head}")]
    PastTheHead {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was in the end, announced gaps included.
        position: Cursor,
        /// The newest event of that epoch.
        head: Cursor,
    },
    /// A stream was closed as complete, and was not.
    #[error("{stream}: closed at {position}, the head is {head}")]
    ClosedEarly {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was in the end, announced gaps included.
        position: Cursor,
        /// The newest event of that epoch.
        head: Cursor,
    },
    /// A stream was ended because of a newer subscription, and there is none.
    #[error("{stream}: taken over at {position}, by nobody")]
    TakenOverByNobody {
        /// Whose stream.
        stream: StreamId,
        /// Where the stream was in the end.
        position: Cursor,
    },
    /// A stream received what was published after a newer subscription of its id had
    /// been granted.
    #[error("{stream}: received {last}, but was taken over before {after} was published")]
    OutlivedTakeover {
        /// Whose stream.
        stream: StreamId,
        /// The last event that it received.
        last: Cursor,
        /// The first event that is known to be published after the takeover.
        after: Cursor,
    },

    /// A response names more or fewer places than the batch has events.
    #[error("{publisher}: published {events} events, and the response names {first} to {last}")]
    ResponseSize {
        /// Whose batch.
        publisher: Arc<str>,
        /// The first event's place in the response.
        first: Cursor,
        /// The last event's.
        last: Cursor,
        /// How many events the batch has.
        events: usize,
    },
    /// A response names a place that is not after one that was known before the
    /// publish began.
    #[error("{publisher}: the response names {first}, and {known} was known before it published")]
    ResponseBehind {
        /// Whose batch.
        publisher: Arc<str>,
        /// The first event's place.
        first: Cursor,
        /// The newest that a response, an event or a start had named before.
        known: Cursor,
    },
    /// Two events were given the same place.
    #[error("{publisher}: the response names {cursor}, which has another event already")]
    GivenTwice {
        /// Whose event came second.
        publisher: Arc<str>,
        /// The place.
        cursor: Cursor,
    },
    /// Sequences were left out: no response names them.
    #[error("no response names {first} to {last}")]
    Hole {
        /// The first of them.
        first: Cursor,
        /// The last of them.
        last: Cursor,
    },
}
