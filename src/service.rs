//! What a connection's driver serves: the trait between bytes and their meaning.
//!
//! `transport` drives a [`Service`], `grpc` is one, and neither knows the other.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;

use crate::access::{ClientCertificate, Peer};
use crate::http2::request::RequestHead;
use crate::http2::server::{Limits, Response};

/// What a connection's streams are for. Each connection has a service of its own.
pub(crate) trait Service {
    /// One request with its response.
    type Call: fmt::Debug;
    /// Response data that is written from where it lies.
    type Data: AsRef<[u8]> + fmt::Debug;

    /// What peers may do.
    const LIMITS: Limits;
    /// How long a request may take to arrive in full.
    const REQUEST_TIMEOUT: Duration;
    /// How much memory of its output a connection keeps for the next.
    const KEPT_OUTPUT_BYTES: usize;

    /// Begins a call, whose request's head has arrived.
    ///
    /// # Errors
    ///
    /// The whole response to a request that is refused.
    fn open(&mut self, request: &RequestHead, caller: &Caller) -> Result<Self::Call, Refusal>;

    /// Lets a call go on: it takes what it can of the body, and sends what the windows
    /// allow. It is polled whenever its connection is: when more has arrived, when something
    /// was written, and when anybody has woken the task of `cx`; never while its last
    /// [data](Self::poll_data) is still being written.
    fn poll(&mut self, call: &mut Self::Call, turn: Turn<'_>, cx: &mut Context<'_>) -> Progress;

    /// The next of a response's data, where a call has come so far that nothing else is left
    /// of it: then it is not polled otherwise. `None` where there is something else.
    fn poll_data(
        &mut self,
        call: &mut Self::Call,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Data>>;

    /// Ends a call. Where it stalls, at once; else after the responses to requests that were
    /// taken, for which it goes on being polled. Returns how many bytes of those were sent.
    fn end(&mut self, call: &mut Self::Call, cause: EndCause, response: Response<'_>) -> usize;

    /// A call that the service has not ended is gone, and nothing more can be sent on it. Of
    /// its last [data](Self::poll_data) so many bytes were written; `None`: all.
    fn abandoned(
        &mut self,
        call: &mut Self::Call,
        why: Abandoned,
        written: Option<(&Self::Data, usize)>,
    );

    /// How the log calls a call.
    fn describe(&self, call: &Self::Call) -> String;
}

/// Why a call is gone that its service has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// The peer reset its stream, with this error code of HTTP/2.
    ResetByPeer(u32),
    /// Its stream was reset for the peer's error.
    Reset,
    /// Its connection has ended.
    Disconnected,
    /// Its connection was cut.
    Cut(Cut),
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    /// Its socket was full for too long.
    Stalled = 1,
    /// Its peer answered no ping.
    KeepaliveTimeout,
    /// It did not complete its handshake, or did not close, in time.
    Late,
    /// It had no open stream, and others need its place.
    Crowded,
    /// The server stops, and did not wait for it any longer.
    Stopping,
}

impl Cut {
    /// Why, in words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Cut::Stalled => "its socket was full: the peer reads nothing",
            Cut::KeepaliveTimeout => "keepalive timeout",
            Cut::Late => "the peer was late",
            Cut::Crowded => "others needed its place",
            Cut::Stopping => "the server stopped before the peer had taken everything",
        }
    }
}

/// A response that is all head.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP's status code.
    pub(crate) code: u16,
    pub(crate) fields: HeaderMap,
}

/// What a call is given when it is polled.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// What has arrived of the request's body and was not consumed.
    pub(crate) body: &'a [u8],
    /// Whether nothing will follow it.
    pub(crate) is_complete: bool,
    /// Whether more that was read is at hand: the call is polled again after it, and small
    /// responses can wait for that, to go out together.
    pub(crate) may_defer: bool,
    pub(crate) response: Response<'a>,
}

/// What a call has come to.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How many bytes of the body are done with.
    pub(crate) consumed_bytes: usize,
    /// How many requests were answered: their sender is no flood.
    pub(crate) requests: u32,
    /// Whether a request has begun, or is due, and has not arrived in full.
    pub(crate) awaits_request: bool,
    /// How much of it is to come, as far as that is known.
    pub(crate) missing_bytes: usize,
    /// Whether there are further requests, which wait until responses have been sent. It is
    /// polled again at once if [some were](Self::sent_bytes).
    pub(crate) is_held: bool,
    /// How many bytes of responses were made.
    pub(crate) queued_bytes: usize,
    /// How many bytes of responses were sent.
    pub(crate) sent_bytes: usize,
    /// Whether the rest of it is [data](Service::poll_data).
    pub(crate) has_data: bool,
}

/// Why the transport ends a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndCause {
    /// Its request did not arrive in time.
    RequestTimeout,
    /// The peer takes nothing of its response.
    Stalled(Stall),
    /// Too many long requests are arriving on its connection.
    TooManyLongRequests,
}

/// Why a stream is to end: it took nothing for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    /// For how long it has taken nothing.
    pub(crate) lasted: Duration,
    /// How many bytes are pinned, where that is why it is not waited for any longer.
    pub(crate) pinned_bytes: Option<u64>,
}

/// Who is at the other end of a connection, as far as the connection says.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: Peer,
    /// Of a client that has shown one, which a trusted CA has signed.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

impl From<Peer> for Caller {
    fn from(peer: Peer) -> Self {
        Caller {
            peer,
            certificate: None,
        }
    }
}
