//! `Watch` of gRPC's health service: how the server is now, and each time that this changes.
//!
//! It is no [stream](crate::grpc::method::Stream) of data: those are written from where they
//! lie, which costs nothing here to do without, and would have every gateway's data be one
//! of two kinds.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::messages::health::health_check_response::ServingStatus;
use super::{MAX_REQUEST_BYTES, Standard, encode, health};
use crate::contract::MESSAGE_PREFIX_BYTES;
use crate::grpc::authorization::Authorization;
use crate::grpc::message::{self, Next};
use crate::grpc::status;
use crate::http2::server::Response;
use crate::service::{Progress, Turn};

/// The method's name, for statuses and the log.
pub(super) const NAME: &str = "Watch";

/// A call of it.
#[derive(Debug)]
pub(crate) struct Watch {
    state: State,
    /// Who calls, where it matters.
    authorization: Option<Box<Authorization>>,
}

/// How far it has come.
#[derive(Debug)]
enum State {
    /// Its request has not arrived in full.
    Request,
    /// Its response goes on.
    Response(Statuses),
    Ended,
}

/// The statuses that are to be sent.
#[derive(Debug)]
struct Statuses {
    /// `None` for a service that is not there, and never will be.
    changes: Option<WatchStream<bool>>,
    newest: ServingStatus,
    sent: Option<ServingStatus>,
    /// What the windows have not taken of a message.
    unsent: Vec<u8>,
}

impl Watch {
    pub(super) fn new(authorization: Option<Box<Authorization>>) -> Self {
        Watch {
            state: State::Request,
            authorization,
        }
    }

    /// See [`Service::poll`](crate::service::Service::poll).
    pub(super) fn poll(
        &mut self,
        standard: &Standard,
        mut turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut progress = Progress::default();
        if let State::Request = self.state {
            let only = message::only(turn.body, turn.is_complete, MAX_REQUEST_BYTES, NAME);
            let service = match only {
                Ok(Next::Message(bytes)) => {
                    health::requested_service(&turn.body[MESSAGE_PREFIX_BYTES..][..bytes])
                }
                Ok(_) if is_stopping => Err(status::stopping()),
                Ok(_) => {
                    progress.awaits_request = true;
                    return progress;
                }
                Err(status) => Err(status),
            };
            progress.consumed_bytes = turn.body.len();
            progress.requests = 1;
            match service {
                Ok(service) => {
                    turn.response.head(200, &status::response_fields());
                    self.state = State::Response(Statuses::of(standard, &service));
                }
                Err(status) => {
                    self.end(status, &mut turn.response);
                    return progress;
                }
            }
        }
        if let State::Response(statuses) = &mut self.state {
            statuses.poll(&mut turn.response, cx, &mut progress);
            let authorization = self.authorization.as_mut();
            let ended = authorization.and_then(|of| of.poll_ended(cx));
            if let Some(status) = ended.or_else(|| is_stopping.then(status::stopping)) {
                // A peer whose windows take no more does not hold up a stop.
                self.end(status, &mut turn.response);
            }
        }
        progress
    }

    /// Ends it by this status. Returns how many bytes were sent before that.
    pub(super) fn end(&mut self, status: Status, response: &mut Response<'_>) -> usize {
        if !matches!(self.state, State::Ended) {
            status::end(response, &status);
            self.state = State::Ended;
        }
        0
    }
}

impl Statuses {
    fn of(standard: &Standard, service: &str) -> Self {
        let changes = standard
            .has(service)
            .then(|| WatchStream::new(standard.health.changes()));
        Statuses {
            changes,
            newest: ServingStatus::ServiceUnknown,
            sent: None,
            unsent: Vec::new(),
        }
    }

    /// Sends the newest status if it is another than the last one that was sent. The task of
    /// `cx` is woken when it changes.
    fn poll(&mut self, response: &mut Response<'_>, cx: &mut Context<'_>, progress: &mut Progress) {
        while let Some(changes) = &mut self.changes
            && let Poll::Ready(change) = Pin::new(changes).poll_next(cx)
        {
            match change {
                Some(is_ready) => self.newest = health::serving_status(is_ready),
                None => self.changes = None,
            }
        }
        loop {
            if self.unsent.is_empty() && self.sent != Some(self.newest) {
                self.unsent = encode(&health::response(self.newest));
                self.sent = Some(self.newest);
                progress.queued_bytes += self.unsent.len();
            }
            if self.unsent.is_empty() {
                return;
            }
            let sent_bytes = response.send(&self.unsent);
            self.unsent.drain(..sent_bytes);
            progress.sent_bytes += sent_bytes;
            if !self.unsent.is_empty() {
                return;
            }
        }
    }
}
