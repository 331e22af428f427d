//! A call on its stream: what a driver keeps with it.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

use super::outgoing::Outgoing;
use crate::service::Service;

/// A service's call, and what belongs to its stream.
#[derive(Debug)]
pub(super) struct Served<S: Service> {
    pub(super) outgoing: Outgoing<S::Data>,
    pub(super) call: S::Call,
    /// Since when a request has begun, or is due, that has not arrived in full.
    pub(super) awaiting_since: Option<Instant>,
    pub(super) memory: Memory,
}

impl<S: Service> Served<S> {
    pub(super) fn new(call: S::Call) -> Self {
        Served {
            outgoing: Outgoing::default(),
            call,
            awaiting_since: None,
            memory: Memory::None,
        }
    }

    /// When its request is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.awaiting_since.map(|since| since + S::REQUEST_TIMEOUT)
    }
}

/// Whether there is memory for the rest of a long request.
#[derive(Debug)]
pub(super) enum Memory {
    None,
    /// It has to wait, and is not in the queue: its connection has enough there.
    Wanted,
    Waiting {
        wait: Box<PollSemaphore>,
        /// As many as it asked for at first: to ask for less would be to queue anew.
        permits: u32,
    },
    /// Held for its drop.
    Held(#[allow(dead_code, reason = "it is dropped")] OwnedSemaphorePermit),
}

impl Memory {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Memory::Wanted | Memory::Waiting { .. })
    }

    /// Whether it has memory, or a place in the queue.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self, Memory::Waiting { .. } | Memory::Held(_))
    }

    /// Gives up its place in the queue, if it has one.
    pub(super) fn stop_waiting(&mut self) {
        if self.is_waiting() {
            *self = Memory::None;
        }
    }

    /// Whether there is memory for `bytes` that are to come. `may_queue` says whether its
    /// connection may have one more in the queue.
    pub(super) fn poll(
        &mut self,
        budget: &Arc<Semaphore>,
        bytes: usize,
        may_queue: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        loop {
            match self {
                Memory::Held(_) => return true,
                Memory::None | Memory::Wanted if !may_queue => {
                    *self = Memory::Wanted;
                    return false;
                }
                Memory::None | Memory::Wanted => {
                    *self = Memory::Waiting {
                        wait: Box::new(PollSemaphore::new(Arc::clone(budget))),
                        // A request's length is 32 bits long.
                        permits: u32::try_from(bytes).unwrap_or(u32::MAX),
                    };
                }
                Memory::Waiting { wait, permits } => match wait.poll_acquire_many(cx, *permits) {
                    Poll::Pending => return false,
                    Poll::Ready(Some(permit)) => *self = Memory::Held(permit),
                    // Nobody closes it.
                    Poll::Ready(None) => return false,
                },
            }
        }
    }
}
