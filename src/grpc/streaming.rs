//! A call with one request message and a response that is a stream.

use std::task::{Context, Poll};

use tonic::Status;

use super::message::{self, Next};
use super::method::Stream;
use super::status;
use crate::contract::MESSAGE_PREFIX_BYTES;
use crate::http2::server::Response;
use crate::service::{Progress, Turn};

/// How far a call has come.
#[derive(Debug)]
pub(crate) enum StreamCall<S> {
    /// Its request has not arrived in full.
    Request,
    /// Its response goes on.
    Response(S),
    /// It has ended.
    Ended,
}

impl<S> StreamCall<S> {
    /// See [`Service::poll`](crate::service::Service::poll).
    #[inline]
    pub(super) fn poll<M: Stream<Source = S>>(
        &mut self,
        method: &mut M,
        mut turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress<M::Data> {
        let mut progress = Progress::default();
        if let StreamCall::Request = self {
            let only = message::only(turn.body, turn.is_complete, M::MAX_REQUEST_BYTES, M::NAME);
            let started = match only {
                Ok(Next::Message(bytes)) => {
                    let message = &turn.body[MESSAGE_PREFIX_BYTES..][..bytes];
                    method.start(message)
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
            match started {
                Ok((fields, source)) => {
                    turn.response.head(200, &fields);
                    *self = StreamCall::Response(source);
                }
                Err(status) => {
                    status::end(&mut turn.response, &status);
                    *self = StreamCall::Ended;
                }
            }
        }
        if let StreamCall::Response(source) = self {
            match M::poll_next(source, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(data)) => progress.data = Some(data),
                Poll::Ready(Err(status)) => {
                    status::end(&mut turn.response, &status);
                    *self = StreamCall::Ended;
                }
            }
        }
        progress
    }

    /// Ends it by this status.
    pub(super) fn end(&mut self, status: &Status, response: &mut Response<'_>) {
        status::end(response, status);
        *self = StreamCall::Ended;
    }

    /// Why it has ended, where that stands behind data which is not written.
    pub(super) fn ended<M: Stream<Source = S>>(&mut self) -> Option<Status> {
        match self {
            StreamCall::Response(source) => M::end(source),
            StreamCall::Request | StreamCall::Ended => None,
        }
    }
}
