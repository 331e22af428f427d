//! Where publishers' batches go: the [`Log`] that gives them their places in the stream.
//!
//! [`Local`] is the ring of this process, and answers at once. A log that is shared by
//! several replicas answers when it has stored a batch: so an answer may be pending, and
//! whoever [appends](Log::append) keeps the order of its own answers.
//!
//! Nothing here knows of gRPC or of connections.

#![forbid(unsafe_code)]

mod local;

use std::fmt;
use std::future::Future;

pub use self::local::Local;

use crate::engine::{PublishError, Published};
use crate::event::Event;

/// An ordered log of events.
pub trait Log: fmt::Debug {
    /// An answer that has not come yet. Dropping it takes nothing back.
    type Pending: Future<Output = Result<Published, AppendError>> + Unpin + fmt::Debug;

    /// Appends a batch: all of its events side by side, or none.
    ///
    /// Batches of one caller are in the log in the order in which they were appended,
    /// whether or not it waited for the answers between them.
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
}
