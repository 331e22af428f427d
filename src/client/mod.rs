//! The gateway's side of the channel: subscribe, stay subscribed, keep the
//! cursor, and know of every gap.
//!
//! A [`Gateway`] owns one subscription and yields what happens to it, one
//! [`Item`] after the other: it connected, an event came, a gap opened, the
//! connection broke and will be tried again. It reconnects by itself, with a
//! jittered exponential [`Backoff`], and resumes from the last event that its
//! caller called *processed*, not from the last that it handed out: what was
//! under way when a connection broke comes again.
//!
//! # What the caller keeps
//!
//! The gateway persists nothing. A caller that must survive its own restart
//! writes down two kinds of cursors, each before it asks for the next item:
//!
//! - that of every [`Item::Event`], after it has done with the event what it
//!   does, and
//! - the start cursor of every [`Item::Connected`], so that it can resume even
//!   if it ends before its first event. Where missed revocations come first
//!   ([`Start::revocations`]), that of [`Item::Replayed`] instead, which has the same.
//!
//! # Gaps
//!
//! A gap is announced once, by [`Item::Gap`], at the moment when its size is
//! final: when the response to a (re)subscription has a fresh start, though a
//! cursor was requested. It counts from the last processed event to the new
//! start, and it comes *before* the [`Item::Connected`] whose cursor, once
//! persisted, would make the gap invisible: a caller that dies between the two
//! is told again. Where [missed revocations](Builder::replay_revocations) come first and the stream ends
//! among them, the gap of the next one contains this one.
//!
//! A stream that ends with `OUT_OF_RANGE` carries a count too: what the ring
//! had dropped at that moment. That is no gap yet, and never one of its own. By
//! the time of the next subscription more events may have been missed, and only
//! then it is known how many; or the cursor may resume after all, if the server
//! still has what comes after it. So that count is reported with the
//! [`Item::Disconnected`], at once, for whoever wants to act early, and is
//! contained in the count of the [`Item::Gap`] that follows: never add them.
//!
//! # Missed revocations
//!
//! After a gap a gateway cannot know which sessions were revoked meanwhile. With
//! [`Builder::replay_revocations`] it is told: a fresh stream begins with the invalidations that
//! were missed, as events with their original cursors, then comes [`Item::Replayed`], and then
//! what is new. Where [`Start::revocations`] is not [`Complete`](Completeness::Complete), or not there,
//! some may still be missing: validate the sessions anew. A gateway that is disconnected among
//! them is told what it had not [processed](Gateway::processed), and possibly as a complete replay:
//! what an earlier response has said to be partial stays to be validated.
//!
//! # Several servers, and streams that are renewed
//!
//! With [`Builder::or_at`] there are several servers. A gateway whose server fails it goes on to the
//! next, with little time between, and waits only when all have failed.
//!
//! [`Gateway::renew`], or [`Builder::renew_every`], has a stream replaced by one on a new
//! connection, with a new look at the files of certificates and tokens. The older stream goes on until
//! the newer one has begun. Nobody else notices: it is no [`Item`].
//!
//! Waits between attempts grow until there is progress: an event that was
//! [processed](Gateway::processed), or a stream that lasted. A server that accepts and drops is not
//! hammered.
//!
//! [`Gateway::stats`] says what has happened so far in numbers. Each decision is an event of `tracing` at
//! the level debug, with the target `galaxy_push::client::gateway`.
//!
//! # Which ends are final
//!
//! The gateway stops ([`Stopped`]) where the same subscription can never succeed:
//! `INVALID_ARGUMENT`, `UNIMPLEMENTED`, and by default `ABORTED` by a takeover. All else is
//! tried again, `UNAUTHENTICATED` and `PERMISSION_DENIED` included: credentials are renewed and
//! grants are changed while gateways run, and one that had given up would stay away until
//! somebody restarts it. Each refusal is told with its reason ([`error_info`]), and the waits
//! between attempts grow to [`Backoff::max`].
//!
//! Where a status says when to try again (`google.rpc.RetryInfo`), the gateway waits at least as
//! long, up to five minutes.
//!
//! # What a stream promises
//!
//! Events arrive without holes, repeats or disorder, from the start cursor on.
//! The gateway checks it. A stream that breaks it is dropped and resumed from
//! the last processed event, which repairs what the connection did wrong
//! without losing an event; the [`Disconnect::Violation`] says what was seen.

//!
//! # Certificates and tokens
//!
//! [`Builder::tls`] and [`Builder::token_file`] (for other calls, those of [`Connector`]) say
//! whom the client trusts, and what it shows. The files are read again with each connection:
//! a renewed certificate or token is used by the next one, without a restart. A file that
//! cannot be read, or a handshake that fails, is a
//! [`Disconnect::Unreachable`] like any other: its text says what to do.

#![forbid(unsafe_code)]

mod backoff;
mod builder;
mod channel;
mod codec;
mod gateway;
mod guard;
mod item;
mod pulse;
mod start;
mod stats;
mod status;
mod stream;
mod targets;
#[cfg(test)]
mod tests;
mod token;
mod violation;
mod wire;

pub use backoff::Backoff;
pub use builder::{BuildError, Builder, OnTakeover};
pub use channel::{ConnectError, Connection, Connector, connect};
pub(crate) use gateway::Encoded;
pub use gateway::Gateway;
pub use item::{Disconnect, Gap, Item, Stopped};
pub use start::{Revocations, Start};
pub use stats::Stats;
pub use status::{error_info, retry_delay, status_line};
pub use token::TokenError;
pub use violation::Violation;

pub use crate::contract::details::{ErrorInfo, ErrorReason};
pub use crate::contract::revocations::Completeness;
pub use crate::contract::start::{Reason, Resume};
