//! Where a stream starts: what was asked for, what was decided, and whether the
//! one follows from the other.

use std::fmt;
use std::sync::Arc;

use super::violation::{StreamId, Violation};
use crate::cursor::Cursor;

/// What a subscription asked for: the text that it sent, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// No cursor.
    Nothing,
    /// To go on after this cursor.
    Cursor(Cursor),
    /// Something that is not a cursor.
    Malformed(Arc<str>),
}

impl From<&str> for Requested {
    fn from(text: &str) -> Self {
        match text.parse() {
            _ if text.is_empty() => Requested::Nothing,
            Ok(cursor) => Requested::Cursor(cursor),
            Err(_) => Requested::Malformed(text.into()),
        }
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requested::Nothing => f.write_str("no cursor"),
            Requested::Cursor(cursor) => cursor.fmt(f),
            Requested::Malformed(text) => write!(f, "{text:?}"),
        }
    }
}

/// What was decided about the requested cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The stream goes on after it.
    Resumed,
    /// There was none: the stream starts after the head, as in all cases below.
    NoCursor,
    /// The event after it has left the ring or the window.
    Expired {
        /// How many events lie between it and the start.
        missed: u64,
    },
    /// It is past the head.
    Ahead,
    /// It is of another epoch.
    OtherEpoch,
    /// It is not a cursor.
    Malformed,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Resumed => f.write_str("resumed"),
            Decision::NoCursor => f.write_str("fresh, no cursor"),
            Decision::Expired { missed } => write!(f, "fresh, expired, {missed} missed"),
            Decision::Ahead => f.write_str("fresh, ahead"),
            Decision::OtherEpoch => f.write_str("fresh, other epoch"),
            Decision::Malformed => f.write_str("fresh, malformed"),
        }
    }
}

/// What was known when a subscription was begun, and what it got.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) stream: &'a StreamId,
    pub(super) requested: &'a Requested,
    pub(super) decision: Decision,
    /// The position before the first event.
    pub(super) cursor: Cursor,
    /// The newest cursor that anybody had seen published.
    pub(super) seen: Option<Cursor>,
    /// How many of the newest events can be resumed at for certain.
    pub(super) retained_events: u64,
}

impl Start<'_> {
    /// The promise that this start breaks.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.of_decision().or_else(|| self.of_place())
    }

    /// Whether the decision follows from what was asked for.
    fn of_decision(&self) -> Option<Violation> {
        let follows = match (self.requested, self.decision) {
            (Requested::Nothing, Decision::NoCursor)
            | (Requested::Malformed(_), Decision::Malformed) => true,
            (Requested::Cursor(requested), Decision::Resumed) if *requested != self.cursor => {
                return Some(Violation::ResumedElsewhere {
                    stream: self.stream.clone(),
                    requested: self.requested.clone(),
                    start: self.cursor,
                });
            }
            (Requested::Cursor(_), Decision::Resumed) => true,
            (Requested::Cursor(requested), Decision::OtherEpoch) => {
                requested.epoch() != self.cursor.epoch()
            }
            (Requested::Cursor(requested), Decision::Ahead) => {
                let was_seen = self.seen.is_some_and(|seen| *requested <= seen);
                requested.epoch() == self.cursor.epoch() && *requested > self.cursor && !was_seen
            }
            (Requested::Cursor(requested), Decision::Expired { missed }) => {
                if requested.epoch() == self.cursor.epoch() && *requested < self.cursor {
                    return self.of_expiry(*requested, missed);
                }
                false
            }
            _ => false,
        };
        (!follows).then(|| Violation::WrongDecision {
            stream: self.stream.clone(),
            requested: self.requested.clone(),
            decision: self.decision,
            start: self.cursor,
        })
    }

    /// Whether the count is right, and the cursor old enough.
    fn of_expiry(&self, requested: Cursor, announced: u64) -> Option<Violation> {
        let missed = self.cursor.seq().number() - requested.seq().number();
        if announced != missed {
            return Some(Violation::Miscounted {
                stream: self.stream.clone(),
                after: requested,
                announced,
                missed,
            });
        }
        (missed <= self.retained_events).then(|| Violation::ExpiredTooSoon {
            stream: self.stream.clone(),
            requested: self.requested.clone(),
            missed,
        })
    }

    /// Whether it is where a stream could start at that time.
    fn of_place(&self) -> Option<Violation> {
        let seen = self.seen?;
        let behind = match self.decision {
            Decision::Resumed => self.cursor.epoch() < seen.epoch(),
            _ => self.cursor < seen,
        };
        behind.then(|| Violation::StartsBehind {
            stream: self.stream.clone(),
            start: self.cursor,
            known: seen,
        })
    }
}
