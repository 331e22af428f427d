//! A call with one request message and a response that is a stream.

use std::task::{Context, Poll};

use tonic::Status;

use super::message::{self, Next};
use super::method::Stream;
use super::router::Origin;
use super::status;
use crate::contract::MESSAGE_PREFIX_BYTES;
use crate::http2::server::Response;
use crate::service::{Abandoned, Progress, Stall, Turn};

/// How far a call has come.
#[derive(Debug)]
pub(crate) enum StreamCall<S, O> {
    /// Its request has not arrived in full. Its headers ask for these options.
    Request(Origin, O),
    /// Its response goes on.
    Response(S),
    /// Its response is to end by this status.
    Ending(Status),
    /// It has ended.
    Ended,
}

impl<S, O> StreamCall<S, O> {
    /// See [`Service::poll`](crate::service::Service::poll).
    pub(super) fn poll<M: Stream<Source = S, Options = O>>(
        &mut self,
        method: &mut M,
        mut turn: Turn<'_>,
        is_stopping: bool,
    ) -> Progress {
        let mut progress = Progress::default();
        if let StreamCall::Request(origin, options) = self {
            let peer = origin.peer;
            let only = message::only(turn.body, turn.is_complete, M::MAX_REQUEST_BYTES, M::NAME);
            let mut is_told = false;
            let started = match only {
                Ok(Next::Message(bytes)) => {
                    let message = &turn.body[MESSAGE_PREFIX_BYTES..][..bytes];
                    let origin = Origin {
                        peer,
                        authorization: origin.authorization.take(),
                        parent: std::mem::take(&mut origin.parent),
                    };
                    is_told = true;
                    method.start(message, origin, options)
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
                    progress.has_data = true;
                }
                Err(status) => {
                    if !is_told {
                        method.refused(peer, &status);
                    }
                    status::end(&mut turn.response, &status);
                    *self = StreamCall::Ended;
                }
            }
        }
        if let StreamCall::Ending(status) = self {
            status::end(&mut turn.response, status);
            *self = StreamCall::Ended;
        }
        progress
    }

    /// See [`Service::poll_data`](crate::service::Service::poll_data).
    #[inline]
    pub(super) fn poll_data<M: Stream<Source = S, Options = O>>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<M::Data>> {
        let StreamCall::Response(source) = self else {
            return Poll::Ready(None);
        };
        M::poll_next(source, cx).map(|next| {
            next.map_err(|status| *self = StreamCall::Ending(status))
                .ok()
        })
    }

    /// Ends it by this status.
    pub(super) fn end<M: Stream<Source = S, Options = O>>(
        &mut self,
        method: &mut M,
        status: &Status,
        response: &mut Response<'_>,
    ) {
        if let StreamCall::Request(origin, _) = self {
            method.refused(origin.peer, status);
        }
        status::end(response, status);
        *self = StreamCall::Ended;
    }

    /// See [`Service::abandoned`](crate::service::Service::abandoned).
    pub(super) fn abandoned<M: Stream<Source = S, Options = O>>(
        &mut self,
        why: Abandoned,
        written: Option<(&M::Data, usize)>,
    ) {
        if let StreamCall::Response(source) = self {
            M::abandoned(source, why, written);
        }
    }

    /// It takes nothing, and is ended for that.
    pub(super) fn stalled<M: Stream<Source = S, Options = O>>(&mut self, stall: Stall) {
        if let StreamCall::Response(source) = self {
            M::stalled(source, stall);
        }
    }

    /// Why it has ended, where that stands behind data which is not written.
    pub(super) fn ended<M: Stream<Source = S, Options = O>>(&mut self) -> Option<Status> {
        match self {
            StreamCall::Response(source) => M::end(source),
            StreamCall::Ending(status) => Some(status.clone()),
            StreamCall::Request(..) | StreamCall::Ended => None,
        }
    }
}
