//! [`Ticket`]: an authentication that is under way.

/// What the router knew when an authentication began. It is spent by
/// [`Router::open`](super::Router::open) or [`Router::enter`](super::Router::enter).
///
/// Take it *before* the backend is asked whether a session is valid: an invalidation that passes
/// the gateway between the answer and the opening of the session finds no session to close, and
/// it is the ticket that knows of it.
#[derive(Debug)]
#[must_use = "it is for `Router::open`"]
pub struct Ticket {
    /// The last invalidation before it.
    pub(super) began: u64,
    pub(super) began_ms: u64,
    pub(super) generation: u32,
    /// Which router's.
    pub(super) router: u64,
}
