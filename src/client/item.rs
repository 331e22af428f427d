//! What a [`Gateway`](super::Gateway) tells its caller: [`Item`]s, and at the
//! end [`Stopped`].

use std::time::Duration;

use tonic::Status;

use super::channel::ConnectError;
use super::start::Start;
use super::status::status_line;
use super::violation::Violation;
use crate::contract::push::PushEvent;
use crate::contract::start::Reason;
use crate::cursor::Cursor;

/// One thing that happened to a subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// Events were missed and will not come. Precedes the
    /// [`Connected`](Item::Connected) that made it known.
    Gap(Gap),
    /// The server accepted the subscription. Persist the start's cursor before
    /// asking for the next item; not if the start has [`revocations`](Start::revocations).
    Connected(Start),
    /// The invalidations that were missed have all come, as events. From here on it is an
    /// ordinary stream, which begins after this cursor. When they are processed, tell the
    /// gateway so with this one.
    Replayed {
        /// The start's.
        cursor: Cursor,
    },
    /// An event. When it is processed, tell the gateway so. Between a [`Connected`](Item::Connected)
    /// with [`revocations`](Start::revocations) and [`Replayed`](Item::Replayed) it is an
    /// invalidation that was missed, with the cursor that it was published with.
    Event {
        /// Its place in the stream.
        cursor: Cursor,
        /// The event as its publisher made it, and its cursor as text.
        event: PushEvent,
    },
    /// The subscription ended, or an attempt failed. The next one follows after
    /// the wait; asking for the next item waits for it.
    Disconnected {
        /// What ended it.
        cause: Disconnect,
        /// How long until the next attempt: the next wait of the
        /// [`Backoff`](super::Backoff), or longer where the server asks for it.
        retry_in: Duration,
    },
}

/// Events that a gateway will never see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many, from the last processed event to the new start, or `None`
    /// where nobody can know (the server forgot the stream that they were in).
    pub missed: Option<u64>,
    /// Why the server could not go on where the gateway stopped.
    pub reason: Reason,
}

/// What ended a subscription that will be tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// There was no connection.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The server did not respond to the subscription in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// Nothing came for so long, not even a
    /// [heartbeat](super::Builder::heartbeat): the stream is dead, whatever the connection is.
    #[error("nothing came for {0:?}, not even a heartbeat")]
    Silent(Duration),
    /// `OUT_OF_RANGE`: this gateway was too slow for the ring.
    #[error(
        "too slow, the server has dropped unread events: {}",
        status_line(status)
    )]
    Lagged {
        /// How many were dropped unread by then. The [`Gap`] of the next
        /// subscription contains them; it may be larger.
        missed: Option<u64>,
        /// The whole status.
        status: Box<Status>,
    },
    /// `ABORTED`: a newer subscription has this id. Only with
    /// [`OnTakeover::Retry`](super::OnTakeover::Retry), or where that was a
    /// [renewal](super::Gateway::renew) of this gateway's own whose response was lost.
    #[error("another gateway has taken over the id: {}", status_line(.0))]
    TakenOver(Box<Status>),
    /// The server, or the transport, ended it with this status.
    /// [`error_info`](super::error_info) has the server's reason. `UNAUTHENTICATED` and
    /// `PERMISSION_DENIED` are here as well: the credential may be renewed, and the right
    /// granted.
    #[error("{}", status_line(.0))]
    Status(Box<Status>),
    /// The stream ended as if all were said, with status `OK`. Something
    /// between here and the server did that: the server always gives a reason.
    #[error("the stream ended without a reason")]
    Ended,
    /// The stream broke its promise, and this side dropped it.
    #[error("dropped the stream: {0}")]
    Violation(Violation),
}

impl Disconnect {
    /// Whether it may be otherwise at another server. A gateway that was too slow, or is taken
    /// over, is so everywhere.
    pub(super) fn is_of_one_server(&self) -> bool {
        !matches!(self, Disconnect::Lagged { .. } | Disconnect::TakenOver(_))
    }

    /// The status that ended it, if one did.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Disconnect::Lagged { status, .. }
            | Disconnect::TakenOver(status)
            | Disconnect::Status(status) => Some(status),
            Disconnect::Unreachable(_)
            | Disconnect::Timeout(_)
            | Disconnect::Silent(_)
            | Disconnect::Ended
            | Disconnect::Violation(_) => None,
        }
    }
}

/// Why a gateway will not try again. It stays stopped: asking again gives the
/// same result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// `ABORTED`: a newer subscription has this id. Whoever it is, two that
    /// insist on one id only throw each other out.
    #[error("another gateway has taken over the id: {}", status_line(.0))]
    TakenOver(Box<Status>),
    /// `INVALID_ARGUMENT` or `UNIMPLEMENTED`: the server will never accept this
    /// subscription.
    #[error("the server refuses the subscription: {}", status_line(.0))]
    Refused(Box<Status>),
    /// An event is larger than this gateway accepts. Each new subscription would bring it
    /// again.
    #[error("the event after {after} is larger than the {limit} bytes that this gateway accepts")]
    EventTooLarge {
        /// The event before it.
        after: Cursor,
        /// [`Builder::max_event_bytes`](super::Builder::max_event_bytes).
        limit: usize,
    },
    /// The response is not of a server of this contract.
    #[error(transparent)]
    Violation(#[from] Violation),
}
