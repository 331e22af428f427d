//! A call with one request message and a response that is a stream.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
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
    /// Its request has arrived, and cannot be taken yet.
    Held(Box<Held<O>>),
    /// Its response goes on.
    Response(S),
    /// Its response is to end by this status.
    Ending(Status),
    /// It has ended.
    Ended,
}

/// A request that waits for what it names.
pub(crate) struct Held<O> {
    message: Vec<u8>,
    origin: Origin,
    options: O,
    until: Until,
}

/// What a request waits for.
pub(super) type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<O: fmt::Debug> fmt::Debug for Held<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("origin", &self.origin)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<S, O: Default> StreamCall<S, O> {
    /// See [`Service::poll`](crate::service::Service::poll).
    pub(super) fn poll<M: Stream<Source = S, Options = O>>(
        &mut self,
        method: &mut M,
        mut turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut progress = Progress::default();
        if let StreamCall::Held(held) = self {
            let started = match held.until.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    let origin = take(&mut held.origin);
                    method.start(&held.message, origin, &held.options)
                }
                Poll::Pending if is_stopping => Err(status::stopping()),
                Poll::Pending => return progress,
            };
            progress.has_data = self.begin(started, &mut turn.response);
        } else if let StreamCall::Request(origin, options) = self {
            let peer = origin.peer;
            let only = message::only(turn.body, turn.is_complete, M::MAX_REQUEST_BYTES, M::NAME);
            let mut is_told = false;
            let started = match only {
                Ok(Next::Message(bytes)) => {
                    let message = &turn.body[MESSAGE_PREFIX_BYTES..][..bytes];
                    if let Some(until) = method.until(message) {
                        *self = StreamCall::Held(Box::new(Held {
                            message: message.to_vec(),
                            origin: take(origin),
                            options: std::mem::take(options),
                            until,
                        }));
                        progress.consumed_bytes = turn.body.len();
                        progress.requests = 1;
                        // The next turn polls it, which registers what wakes it.
                        cx.waker().wake_by_ref();
                        return progress;
                    }
                    is_told = true;
                    method.start(message, take(origin), options)
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
            if let (Err(status), false) = (&started, is_told) {
                method.refused(peer, status);
            }
            progress.has_data = self.begin(started, &mut turn.response);
        }
        if let StreamCall::Ending(status) = self {
            status::end(&mut turn.response, status);
            *self = StreamCall::Ended;
        }
        progress
    }

    /// Begins its response, or ends it. Returns whether it has begun.
    fn begin(
        &mut self,
        started: Result<(HeaderMap, S), Status>,
        response: &mut Response<'_>,
    ) -> bool {
        match started {
            Ok((fields, source)) => {
                response.head(200, &fields);
                *self = StreamCall::Response(source);
                true
            }
            Err(status) => {
                status::end(response, &status);
                *self = StreamCall::Ended;
                false
            }
        }
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
        match self {
            StreamCall::Request(origin, _) => method.refused(origin.peer, status),
            StreamCall::Held(held) => method.refused(held.origin.peer, status),
            _ => {}
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
            StreamCall::Request(..) | StreamCall::Held(_) | StreamCall::Ended => None,
        }
    }
}

/// Who calls, of a call that goes on with it.
fn take(origin: &mut Origin) -> Origin {
    Origin {
        peer: origin.peer,
        authorization: origin.authorization.take(),
        parent: std::mem::take(&mut origin.parent),
    }
}
