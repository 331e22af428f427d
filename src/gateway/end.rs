//! Why a session ends, and why something is refused.

use std::sync::Arc;
use std::time::Duration;

use crate::cursor::Cursor;

/// A `SessionInvalidation` that the gateway has processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The backend's code for why; may be empty.
    pub reason: String,
    /// Its place in the stream.
    pub cursor: Cursor,
    /// It names the user, and so every session that the user had.
    pub is_of_user: bool,
}

/// Why a session has ended. It stays ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The backend has revoked it.
    #[error("the session is revoked: {:?} at {}", .0.reason, .0.cursor)]
    Revoked(Arc<Revocation>),
    /// It was suspect, and the backend does not know it any more, for this reason.
    #[error("the session is not valid any more: {0:?}")]
    Invalid(Arc<str>),
    /// It takes its events more slowly than they come, and its queue is full
    /// ([`Overflow::Close`](super::Overflow::Close)).
    #[error("the session takes its events too slowly: its queue is full")]
    Overflow,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Draining,
}

/// Why a request must not go on, now or ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The session has ended.
    #[error(transparent)]
    Ended(#[from] End),
    /// The gateway has not heard from its backend for too long, or is about to be told what it
    /// has missed: it cannot know whether the session is still valid. That may pass.
    #[error("the gateway does not know what is revoked: it has not heard from the backend")]
    Stale,
    /// Invalidations were lost, and the session is not validated since. That may pass.
    #[error("the session waits to be validated anew: invalidations were lost")]
    Suspect,
}

/// Why no session was opened. Where nothing else is said, authenticate again with a new ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The session was revoked after its authentication had begun.
    #[error("revoked while it was authenticated: {:?} at {}", .0.reason, .0.cursor)]
    Revoked(Arc<Revocation>),
    /// Invalidations were lost after the authentication had begun: one may have been meant for
    /// this session.
    #[error("invalidations were lost while it was authenticated")]
    Gap,
    /// The authentication took longer than
    /// [`Builder::ticket_timeout`](super::Builder::ticket_timeout).
    #[error("the authentication took longer than {limit:?}")]
    Expired {
        /// How long one may take.
        limit: Duration,
    },
    /// So many invalidations were processed since the authentication began that the gateway
    /// does not remember them all.
    #[error("more invalidations since the authentication began than are remembered")]
    Forgotten,
    /// See [`Refusal::Stale`]. Send the client to another gateway, or authenticate it once the
    /// router is [ready](super::Router::ready).
    #[error("the gateway does not know what is revoked: it has not heard from the backend")]
    Stale,
    /// The gateway is stopping. Send the client to another one.
    #[error("the gateway is stopping")]
    Draining,
    /// There are as many sessions as [`Builder::max_sessions`](super::Builder::max_sessions).
    #[error("{max} sessions are open, and no more are allowed")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// As many sessions of the user are open as
    /// [`Builder::max_user_sessions`](super::Builder::max_user_sessions).
    #[error("{max} sessions of the user are open, and no more are allowed")]
    TooManyOfUser {
        /// How many there may be.
        max: usize,
    },
    /// The ticket is one of another router.
    #[error("the ticket is one of another router")]
    OtherRouter,
    /// No user is named: events for nobody do not exist.
    #[error("user_id is empty")]
    NoUser,
    /// Events and invalidations could not name it.
    #[error("the ids have {bytes} bytes together, and at most {max} are allowed")]
    IdsTooLong {
        /// How many they have.
        bytes: usize,
        /// How many they may have.
        max: usize,
    },
}
