//! [`Violation`]: a guarantee of the contract that a stream did not keep.

use crate::cursor::Cursor;

/// A guarantee that the server, or a proxy before it, did not keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The response's initial metadata lacks this key, or its value is malformed.
    #[error("the response has no valid {key:?} in its metadata: this is no galaxy-push server")]
    Metadata {
        /// The key.
        key: &'static str,
    },
    /// The server says that it resumes, and starts somewhere else.
    #[error("the server resumes at {start}, which is not the requested cursor")]
    ResumedElsewhere {
        /// The cursor of the request.
        requested: Option<Cursor>,
        /// The start cursor of the response.
        start: Cursor,
    },
    /// A message is no `PushEvent`.
    #[error("the message after {after} is no event: {problem}")]
    Event {
        /// The event before it.
        after: Cursor,
        /// What is wrong with it.
        problem: String,
    },
    /// The event with this cursor is one that cannot be decoded.
    #[error("the event {cursor} cannot be decoded: {problem}")]
    Undecodable {
        /// The event.
        cursor: Cursor,
        /// What is wrong with it.
        problem: String,
    },
    /// An event's cursor is malformed.
    #[error("the event after {after} has no valid cursor: {text:?}")]
    Cursor {
        /// The event before it.
        after: Cursor,
        /// The event's cursor.
        text: String,
    },
    /// What comes before a stream's start is not what was announced.
    #[error("the replay of revocations is not what was announced: {what}")]
    Replay {
        /// In which way.
        what: &'static str,
    },
    /// An event is not the next one.
    #[error("the event {cursor} came after {after}")]
    Order {
        /// The event before it.
        after: Cursor,
        /// The event that came.
        cursor: Cursor,
    },
}
