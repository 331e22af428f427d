//! A call whose requests are answered one by one, in their order.
//!
//! Nothing here knows of sockets, windows or tasks: a call is given what has arrived of its
//! body, and says what it took.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::{Code, Status};

use super::message::{self, Next};
use super::method::{Never, Respond, Responded};
use super::status;
use crate::contract::MESSAGE_PREFIX_BYTES;
use crate::transport::{Progress, Turn};

/// With so many bytes of responses left to be sent no further request is taken: a peer
/// that does not read its responses can send no more than its window holds.
const MAX_UNSENT_BYTES: usize = 16 << 10;
/// With so many responses pending no further request is taken.
const MAX_PENDING: usize = 256;

/// How many requests a call has; and its method's name, for statuses and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    /// One, which counts when it is complete.
    One(&'static str),
    /// A stream of them.
    Many(&'static str),
}

/// A call, with the responses that have not come yet.
#[derive(Debug)]
pub(super) struct Exchange<M: Respond> {
    cardinality: Cardinality,
    /// Responses that are to be sent.
    unsent: Vec<u8>,
    /// Responses in the order of their requests, from the first that has not come.
    pending: VecDeque<Slot<M>>,
    /// How the response ends, after all of these.
    end: Option<Status>,
}

/// A response's place in the order.
enum Slot<M: Respond> {
    Pending(M::Pending),
    /// It has come, and an earlier one has not.
    Ready(M::Response),
}

impl<M: Respond> std::fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Slot::Pending(_) => "Pending",
            Slot::Ready(_) => "Ready",
        })
    }
}

impl<M: Respond> Exchange<M> {
    pub(super) fn new(cardinality: Cardinality) -> Self {
        Exchange {
            cardinality,
            unsent: Vec::new(),
            pending: VecDeque::new(),
            end: None,
        }
    }

    /// How the log calls it.
    pub(super) fn describe(&self) -> &'static str {
        match self.cardinality {
            Cardinality::One(name) | Cardinality::Many(name) => name,
        }
    }

    /// See [`Service::poll`](crate::transport::Service::poll).
    pub(super) fn poll(
        &mut self,
        method: &mut M,
        mut turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress<Never> {
        if self.is_stream() && !turn.response.is_begun() {
            turn.response.head(200, &status::response_fields());
        }
        let before = self.unsent.len();
        let mut progress = Progress::default();
        self.poll_pending(cx);
        self.take(method, turn.body, turn.is_complete, &mut progress);
        // What was just appended may be decided by now, and wakes us if not.
        self.poll_pending(cx);
        if is_stopping && !progress.is_held && self.end.is_none() {
            self.end = Some(status::stopping());
        }
        if self.end.is_some() {
            progress.awaits_request = false;
            progress.missing_bytes = 0;
        }
        progress.queued_bytes = self.unsent.len() - before;
        progress.sent_bytes = self.send(&mut turn);
        progress
    }

    /// Moves the responses that have come to those that are to be sent.
    fn poll_pending(&mut self, cx: &mut Context<'_>) {
        while let Some(first) = self.pending.front_mut() {
            let response = match first {
                Slot::Pending(pending) => match Pin::new(pending).poll(cx) {
                    Poll::Pending => return,
                    Poll::Ready(response) => response,
                },
                Slot::Ready(_) => match self.pending.pop_front() {
                    Some(Slot::Ready(response)) => {
                        self.unsent.extend_from_slice(response.as_ref());
                        continue;
                    }
                    _ => return,
                },
            };
            self.pending.pop_front();
            match response {
                Ok(response) => {
                    self.unsent.extend_from_slice(response.as_ref());
                    self.end_if_unary();
                }
                Err(status) => {
                    // What came after it is decided elsewhere, and nobody is told.
                    self.pending.clear();
                    self.end = Some(status);
                }
            }
        }
    }

    fn end_if_unary(&mut self) {
        if !self.is_stream() {
            self.end = Some(Status::new(Code::Ok, ""));
        }
    }

    /// Takes the requests of `body`. The rest of it is to be given again, with what arrives
    /// behind it.
    fn take(
        &mut self,
        method: &mut M,
        body: &[u8],
        is_complete: bool,
        progress: &mut Progress<Never>,
    ) {
        let max_bytes = method.max_request_bytes();
        while self.end.is_none() {
            let rest = &body[progress.consumed_bytes..];
            let next = match self.cardinality {
                // Its only request was taken, and its response has not come.
                Cardinality::One(_) if !self.pending.is_empty() => return,
                Cardinality::One(name) => message::only(rest, is_complete, max_bytes, name),
                Cardinality::Many(_) => message::next(rest, is_complete, max_bytes),
            };
            match next {
                Ok(Next::Message(_)) if self.is_full() => {
                    progress.is_held = true;
                    return;
                }
                Ok(Next::Message(bytes)) => {
                    let end = MESSAGE_PREFIX_BYTES + bytes;
                    match method.respond(&rest[MESSAGE_PREFIX_BYTES..end]) {
                        Ok(Responded::Now(response)) if self.pending.is_empty() => {
                            self.unsent.extend_from_slice(response.as_ref());
                            self.end_if_unary();
                        }
                        Ok(Responded::Now(response)) => {
                            self.pending.push_back(Slot::Ready(response));
                        }
                        Ok(Responded::Later(pending)) => {
                            self.pending.push_back(Slot::Pending(pending));
                        }
                        Err(status) => self.end = Some(status),
                    }
                    progress.consumed_bytes += end;
                    progress.requests += 1;
                }
                Ok(Next::Part { missing_bytes }) => {
                    progress.awaits_request = true;
                    progress.missing_bytes = missing_bytes;
                    return;
                }
                Ok(Next::Nothing) => {
                    // Between the requests of a stream there is no hurry.
                    progress.awaits_request =
                        !rest.is_empty() || !self.is_stream();
                    return;
                }
                Ok(Next::End) => self.end = Some(Status::new(Code::Ok, "")),
                Err(status) => self.end = Some(status),
            }
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self.cardinality, Cardinality::Many(_))
    }

    fn is_full(&self) -> bool {
        self.unsent.len() >= MAX_UNSENT_BYTES || self.pending.len() >= MAX_PENDING
    }

    /// Sends what the peer's windows allow, and the end after the last response. Returns how
    /// many bytes of responses were sent.
    fn send(&mut self, turn: &mut Turn<'_>) -> usize {
        let response = &mut turn.response;
        let mut sent_bytes = 0;
        if !self.unsent.is_empty() {
            if !response.is_begun() {
                response.head(200, &status::response_fields());
            }
            sent_bytes = response.send(&self.unsent);
            self.unsent.drain(..sent_bytes);
        }
        if self.unsent.is_empty()
            && self.pending.is_empty()
            && let Some(status) = self.end.take()
        {
            status::end(response, &status);
        }
        sent_bytes
    }
}
