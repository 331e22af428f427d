//! The contract between backend and gateways: what both ends of a stream have to agree on.
//!
//! The messages come from the `.proto` files; the words that no `.proto` file can hold
//! stand here once: method paths, metadata keys, why a stream starts where it does, why a
//! call is refused, and what a gateway's id may be.
//!
//! | file | what is in it |
//! |---|---|
//! | [`push`], [`publisher`], [`gateway`] | generated messages and services |
//! | [`path`] | the methods' paths |
//! | [`metadata`] | the keys that a request or a response carries |
//! | [`start`] | where a stream starts, and why: `push-resume`, `push-resume-reason` |
//! | [`heartbeat`] | how often a quiet stream shows that it lives: `push-heartbeat` |
//! | [`revocations`] | whether a stream begins with the invalidations missed before it: `push-revocations` |
//! | [`instance`] | which of several processes a gateway is: `push-instance` |
//! | [`lease`] | how long a gateway serves on that is not heard |
//! | [`gateway_id`] | what a `gateway_client_id` may be |
//! | [`details`] | what a status says to machines: reasons, figures, when to try again |
//!
//! Nothing here knows of sockets, of the engine, or of one side only.

#![forbid(unsafe_code)]

#[cfg(feature = "messages")]
pub mod details;
pub mod gateway_id;
#[cfg(feature = "messages")]
mod generated;
pub mod heartbeat;
pub mod instance;
pub mod lease;
pub mod revocations;
pub mod start;

#[cfg(feature = "messages")]
pub use generated::{gateway, publisher, push};

/// gRPC's prefix of a message: one byte that says whether it is compressed, and the
/// message's length in four, big-endian (gRPC over HTTP/2, *Length-Prefixed-Message*).
pub const MESSAGE_PREFIX_BYTES: usize = 5;

/// The largest message that gRPC clients accept unless they are told otherwise.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The methods' paths, as HTTP/2's `:path` has them.
pub mod path {
    /// Gateways subscribe.
    pub const SUBSCRIBE_PUSH: &str = "/galaxy.backend.push.v1.Push/SubscribePush";
    /// One request, one response.
    pub const PUBLISH: &str = "/galaxy.push.publisher.v1.Publisher/Publish";
    /// A response for each request, in their order.
    pub const PUBLISH_STREAM: &str = "/galaxy.push.publisher.v1.Publisher/PublishStream";
    /// Publishers wait until an invalidation is enforced.
    pub const WAIT_ENFORCED: &str = "/galaxy.push.publisher.v1.Publisher/WaitEnforced";
    /// Gateways report what they have enforced.
    pub const REPORT: &str = "/galaxy.push.gateway.v1.Gateway/Report";
}

/// Keys of metadata.
pub mod metadata {
    /// Of a request: how long a stream may be quiet, before it shows that it lives; a
    /// [`heartbeat`](super::heartbeat) interval. Of its response: that it will.
    pub const PUSH_HEARTBEAT: &str = "push-heartbeat";
    /// Of a request: which instance of the gateway this is, in words of its own, for whoever is
    /// taken over by it: an [`instance`](super::instance).
    pub const PUSH_INSTANCE: &str = "push-instance";
    /// `resumed` or `fresh`: [`Resume`](super::start::Resume).
    pub const PUSH_RESUME: &str = "push-resume";
    /// Why: [`Reason`](super::start::Reason).
    pub const PUSH_RESUME_REASON: &str = "push-resume-reason";
    /// The position just before the first event to come.
    pub const PUSH_START_CURSOR: &str = "push-start-cursor";
    /// How many events were missed, decimal; also a trailer.
    pub const PUSH_MISSED: &str = "push-missed";
    /// Of a request: that a stream which does not resume is to begin with the invalidations that
    /// were missed, [`REPLAY`](super::revocations::REPLAY). Of its response: whether they are all
    /// there, [`Completeness`](super::revocations::Completeness).
    pub const PUSH_REVOCATIONS: &str = "push-revocations";
    /// How many they are, decimal.
    pub const PUSH_REVOCATIONS_COUNT: &str = "push-revocations-count";
    /// Where the newest event was when a stream resumed whose request had
    /// [`PUSH_REVOCATIONS`]: who has come to it has caught up.
    pub const PUSH_HEAD_CURSOR: &str = "push-head-cursor";
}
