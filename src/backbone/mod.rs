//! Where publishers' batches go: the [`Log`] that gives them their places in the stream.
//!
//! [`Local`] is the ring of this process, and decides at once. A log that several replicas
//! share, as [`jetstream`] is, decides when it has stored a batch. So an outcome may be pending,
//! and the caller of [`append`](Log::append) keeps the order of its own outcomes.
//!
//! Nothing here knows of gRPC or of connections.

#![forbid(unsafe_code)]

#[cfg(feature = "nats")]
pub mod jetstream;
mod local;

use std::fmt;
use std::future::Future;

pub use self::local::Local;

use crate::engine::{PublishError, Published};
use crate::event::Event;

/// An ordered log of events.
pub trait Log: fmt::Debug {
    /// An outcome that is not decided yet. Dropping it takes nothing back.
    type Pending: Future<Output = Result<Published, AppendError>> + Unpin + fmt::Debug;

    /// Appends a batch: all of its events side by side, or none.
    ///
    /// Batches of one caller are in the log in the order in which they were appended,
    /// whether or not it waited for the outcomes between them.
    fn append(&mut self, events: &[Event<'_>]) -> Appended<Self::Pending>;
}

/// What an append has come to.
#[derive(Debug)]
pub enum Appended<P> {
    /// It is decided: the batch is in the log, or left no trace.
    Done(Result<Published, AppendError>),
    /// It will be.
    Pending(P),
}

/// Why a batch is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The engine does not take it.
    #[error(transparent)]
    Engine(#[from] PublishError),
    /// The log takes no batch that long.
    #[error("the batch has {bytes} bytes, the log takes {limit} at once")]
    TooLarge {
        /// As it would be stored.
        bytes: usize,
        /// What a message of the log may have.
        limit: usize,
    },
    /// The log cannot be written to at present. The batch is not in it, and never will be.
    #[error("the log cannot be written to: {reason}")]
    Unavailable {
        /// What is the matter.
        reason: String,
    },
    /// The log has not answered. The batch may be in it, or come into it later.
    #[error("the log did not say whether the batch is stored")]
    Undecided,
}
