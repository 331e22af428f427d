//! The shapes of methods: what a method's file implements, to be called by a listener.

use std::future::Future;
use std::task::{Context, Poll};

use http::HeaderMap;
use tonic::{Code, Status};

use super::authorization::Authorization;
use super::router::Origin;
use super::streaming::Until;
use crate::access::Peer;
use crate::service::{Abandoned, Stall};
use crate::spans::Parent;

/// What is known of the call that a request belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calling<'a> {
    /// Who calls, where it matters.
    pub(super) authorization: Option<&'a Authorization>,
    /// Whether it has a stream of requests.
    pub(super) is_stream: bool,
    /// The caller's span, where it is traced.
    pub(super) parent: &'a Parent,
}

/// One response for each request: of one request ([unary](super::exchange::Cardinality)),
/// or of a stream of them, in their order.
pub(crate) trait Respond {
    /// A response message, with its prefix.
    type Response: AsRef<[u8]>;
    /// A response that has not come yet.
    type Pending: Future<Output = Result<Self::Response, Status>> + Unpin;

    /// The longest request message.
    fn max_request_bytes(&self) -> usize;

    /// Takes a request message of a call.
    ///
    /// # Errors
    ///
    /// The status that ends the call, after the responses to earlier requests.
    fn respond(
        &mut self,
        request: &[u8],
        call: Calling<'_>,
    ) -> Result<Responded<Self::Response, Self::Pending>, Status>;

    /// A request was accepted: of a stream of them, or the only one.
    fn accepted(&mut self, _is_stream: bool) {}

    /// A call has ended by this status, which is not OK.
    fn refused(&mut self, _is_stream: bool, _code: Code) {}
}

/// What has come of a request.
#[derive(Debug)]
pub(crate) enum Responded<R, P> {
    Now(R),
    Later(P),
}

/// One request message, and a response that is a stream.
pub(crate) trait Stream {
    /// Where the stream comes from, once the request was accepted.
    type Source;
    /// What a call's headers may ask for.
    type Options;
    /// One or more response messages, each with its prefix.
    type Data: AsRef<[u8]>;

    /// The method's name, for statuses.
    const NAME: &str;
    /// The longest request message.
    const MAX_REQUEST_BYTES: usize;

    /// What has to come before this request message can be taken, if something has.
    fn until(&self, request: &[u8]) -> Option<Until>;

    /// Takes the request message; the response begins with these fields.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    fn start(
        &mut self,
        request: &[u8],
        origin: Origin,
        options: &Self::Options,
    ) -> Result<(HeaderMap, Self::Source), Status>;

    /// A call was refused for the lack of a request: what [`start`](Self::start) refuses, it
    /// knows itself.
    fn refused(&self, peer: Peer, status: &Status);

    /// A stream is gone that has not ended. Of its last data so many bytes were written; `None`:
    /// all.
    fn abandoned(source: &mut Self::Source, why: Abandoned, written: Option<(&Self::Data, usize)>);

    /// A stream takes nothing, and is ended for that.
    fn stalled(source: &mut Self::Source, stall: Stall);

    /// What the stream goes on with.
    fn poll_next(
        source: &mut Self::Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Data, Status>>;

    /// Why the stream has ended, where that stands behind data which is not written.
    fn end(source: &mut Self::Source) -> Option<Status>;
}

/// Data of a listener whose methods have none.
#[derive(Debug)]
pub(crate) enum Never {}

impl AsRef<[u8]> for Never {
    fn as_ref(&self) -> &[u8] {
        match *self {}
    }
}
