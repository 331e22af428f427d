//! `SubscribePush`: what a request must be, and how a response begins, goes on and ends.

use std::sync::Once;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::{Code, Status};

use super::authorization::Authorization;
use super::heartbeat::Heartbeat;
use super::method::Stream;
use super::router::Origin;
use super::status;
use crate::access::Peer;
use crate::contract::gateway_id;
use crate::contract::heartbeat;
use crate::contract::metadata::{
    PUSH_HEARTBEAT, PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON, PUSH_START_CURSOR,
};
use crate::contract::push::GatewaySubscribeRequest;
use crate::engine::{
    Batch, FRAME_OVERHEAD_BYTES, RecvError, Resume, Start, Subscriber, TryRecvError,
};
use crate::service::{Abandoned, Cut, Stall};
use crate::spans::Parent;
use crate::telemetry::{self, Cause, Telemetry, describe};

/// Room for the longest id and far more than a cursor.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 10;
/// The method's name, for statuses.
pub(super) const NAME: &str = "SubscribePush";

/// Subscribes gateways to an engine.
#[derive(Debug)]
pub(crate) struct Subscribe {
    telemetry: Telemetry,
}

impl Subscribe {
    /// To the engine of this telemetry.
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Subscribe { telemetry }
    }

    /// The caller's span, of a call with these headers, where it is traced.
    pub(super) fn parent(&self, fields: &HeaderMap) -> Parent {
        self.telemetry.spans().parent(fields)
    }
}

/// What a gateway may ask for beside its request, in the call's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long its stream may be quiet, before it shows that it lives.
    heartbeat: Option<Duration>,
}

impl Options {
    /// # Errors
    ///
    /// The status that refuses the call: a value is none of its key.
    pub(super) fn read(fields: &HeaderMap) -> Result<Self, Status> {
        let mut values = fields.get_all(PUSH_HEARTBEAT).iter();
        let heartbeat = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) => {
                let text = value.to_str().unwrap_or_default();
                let interval = heartbeat::parse(text);
                Some(interval.map_err(|problem| status::bad_metadata(PUSH_HEARTBEAT, &problem))?)
            }
            _ => return Err(status::bad_metadata(PUSH_HEARTBEAT, &"it is there twice")),
        };
        Ok(Options { heartbeat })
    }
}

/// What a stream is to write next.
#[derive(Debug)]
pub(crate) enum Frames {
    /// Events, where they lie in the ring.
    Events(Batch),
    /// No event, but how far the stream has come.
    Heartbeat([u8; FRAME_OVERHEAD_BYTES]),
}

impl AsRef<[u8]> for Frames {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Frames::Events(batch) => batch.as_bytes(),
            Frames::Heartbeat(frame) => frame,
        }
    }
}

/// A gateway's subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    // Dropped first: what it counts against is free after it.
    subscriber: Subscriber,
    stream: telemetry::Stream,
    /// Whose it is, where it matters.
    authorization: Option<Box<Authorization>>,
    /// What few streams have.
    heartbeat: Option<Box<Heartbeat>>,
}

impl Subscription {
    /// What the request's message asks for, if that may be.
    pub(super) fn start(
        telemetry: &Telemetry,
        message: &[u8],
        origin: Origin,
        options: &Options,
    ) -> Result<Self, Status> {
        let peer = origin.peer;
        let principal = origin.authorization.as_ref().map(|of| of.principal());
        let request = GatewaySubscribeRequest::decode(message);
        let id = match &request {
            Ok(request) if gateway_id::check(&request.gateway_client_id).is_ok() => {
                request.gateway_client_id.clone()
            }
            _ => String::new(),
        };
        let started = request
            .map_err(|error| status::not_a_message("GatewaySubscribeRequest", &error))
            .and_then(|request| Self::try_start(telemetry, &request, origin, options));
        started.inspect_err(|status| telemetry.refused(&id, peer, principal, status.message()))
    }

    fn try_start(
        telemetry: &Telemetry,
        request: &GatewaySubscribeRequest,
        origin: Origin,
        options: &Options,
    ) -> Result<Self, Status> {
        let Origin {
            peer,
            mut authorization,
            parent,
        } = origin;
        let (id, cursor) = (&*request.gateway_client_id, &*request.cursor);
        gateway_id::check(id).map_err(status::bad_gateway_id)?;
        let engine = telemetry.engine();
        let subscriber = match &mut authorization {
            Some(authorization) => authorization.subscribe(engine, id, cursor)?,
            None => engine
                .subscribe(id, cursor)
                .map_err(status::not_subscribed)?,
        };
        let principal = authorization.as_ref().map(|of| of.principal());
        let stream = telemetry.subscribed(&subscriber, peer, principal, &parent);
        if let Resume::OtherEpoch { is_later: true } = subscriber.start().resume {
            warn_of_later_epoch(id, cursor);
        }
        let heartbeat = options.heartbeat;
        Ok(Subscription {
            heartbeat: heartbeat.map(|interval| Box::new(Heartbeat::new(interval, &subscriber))),
            subscriber,
            stream,
            authorization,
        })
    }

    #[cfg(all(test, feature = "tonic-service"))]
    pub(super) fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.subscriber = self.subscriber.max_batch_bytes(bytes);
        self
    }

    pub(super) fn gateway_id(&self) -> &str {
        self.stream.gateway().id()
    }

    /// What the response begins with.
    pub(super) fn response_fields(&self) -> HeaderMap {
        let heartbeat = self.heartbeat.as_ref().map(|of| of.interval());
        response_fields(&self.subscriber.start(), heartbeat)
    }

    /// What comes next.
    #[inline]
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frames, Status>> {
        // Nobody asks for more before it is.
        self.stream.written(&self.subscriber);
        match self.subscriber.poll_recv_inlined(cx) {
            Poll::Pending if self.heartbeat.is_some() => self.poll_heartbeat(cx),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(batch)) => {
                self.stream.writing(&batch);
                Poll::Ready(Ok(Frames::Events(batch)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.end(error))),
        }
    }

    /// There is no event.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frames, Status>> {
        let Some(heartbeat) = &mut self.heartbeat else {
            return Poll::Pending;
        };
        let due = heartbeat.poll(self.stream.engine(), &self.subscriber, cx);
        due.map(|()| Ok(Frames::Heartbeat(self.subscriber.position_frame())))
    }

    /// Ends it.
    #[cold]
    fn end(&mut self, error: RecvError) -> Status {
        let (status, cause, missed) = self.end_of_stream(error);
        self.stream.end(cause, status.message(), missed);
        status
    }

    /// How it ends, why, and how many events it has missed.
    fn end_of_stream(&self, error: RecvError) -> (Status, Cause, u64) {
        // A stream whose credential has ended is ended like one that is taken over, and so is
        // one that an operator ends.
        if error == RecvError::TakenOver {
            if let Some(status) = self.authorization.as_ref().and_then(|of| of.ended()) {
                let cause = match status.code() {
                    Code::Unauthenticated => Cause::Expired,
                    _ => Cause::Denied,
                };
                return (status, cause, 0);
            }
            if let Some(by) = self.stream.gateway().disconnected_by() {
                return (status::disconnected(by), Cause::Takeover, 0);
            }
        }
        let lag = self.subscriber.lag();
        let (cause, missed) = match error {
            RecvError::TakenOver => (Cause::Takeover, 0),
            RecvError::Closed => (Cause::Stopping, lag),
            RecvError::Lagged(dropped) => (Cause::Lapped, dropped + lag),
        };
        (status::end_of_stream(error, lag), cause, missed)
    }

    /// It takes nothing, and is ended for that.
    fn stalled(&mut self, stall: &Stall) {
        let status = status::stalled(stall);
        self.stream.end(Cause::Stalled, status.message(), 0);
    }

    /// It is gone, and has not ended.
    fn abandoned(&mut self, why: Abandoned, written: Option<(&Frames, usize)>) {
        match written {
            None => self.stream.written(&self.subscriber),
            Some((Frames::Events(batch), bytes)) => {
                self.stream.written_in_part(&self.subscriber, batch, bytes);
            }
            Some((Frames::Heartbeat(_), _)) => {}
        }
        let (cause, detail) = match why {
            Abandoned::ResetByPeer(code) => {
                let reason = match code {
                    0x8 => "CANCEL".to_owned(),
                    other => format!("error code {other:#x}"),
                };
                (Cause::Cancelled, format!("the gateway reset it ({reason})"))
            }
            Abandoned::Reset => (
                Cause::Disconnected,
                "it was reset: the gateway broke a rule of HTTP/2".to_owned(),
            ),
            Abandoned::Disconnected => (Cause::Disconnected, "the connection has ended".to_owned()),
            Abandoned::Cut(cut) => {
                let cause = match cut {
                    Cut::Stalled => Cause::Stalled,
                    Cut::Stopping => Cause::Stopping,
                    Cut::KeepaliveTimeout | Cut::Late | Cut::Crowded => Cause::Disconnected,
                };
                (cause, format!("the connection was cut: {}", cut.as_str()))
            }
        };
        self.stream.end(cause, &detail, 0);
    }
}

impl Stream for Subscribe {
    type Source = Subscription;
    type Options = Options;
    type Data = Frames;

    const NAME: &str = NAME;
    const MAX_REQUEST_BYTES: usize = MAX_REQUEST_BYTES;

    fn start(
        &mut self,
        request: &[u8],
        origin: Origin,
        options: &Options,
    ) -> Result<(HeaderMap, Subscription), Status> {
        let subscription = Subscription::start(&self.telemetry, request, origin, options)?;
        Ok((subscription.response_fields(), subscription))
    }

    fn refused(&self, peer: Peer, status: &Status) {
        self.telemetry.refused("", peer, None, status.message());
    }

    fn abandoned(
        subscription: &mut Subscription,
        why: Abandoned,
        written: Option<(&Frames, usize)>,
    ) {
        subscription.abandoned(why, written);
    }

    fn stalled(subscription: &mut Subscription, stall: Stall) {
        subscription.stalled(&stall);
    }

    #[inline]
    fn poll_next(source: &mut Subscription, cx: &mut Context<'_>) -> Poll<Result<Frames, Status>> {
        source.poll_next(cx)
    }

    fn end(source: &mut Subscription) -> Option<Status> {
        // Not for a lag: its count would leave out what is not written.
        let cause = match source.subscriber.try_recv() {
            Err(TryRecvError::TakenOver) => RecvError::TakenOver,
            Err(TryRecvError::Closed) => RecvError::Closed,
            _ => return None,
        };
        Some(source.end(cause))
    }
}

/// Harmless for the gateway, which starts fresh and is told so; but whoever runs the
/// server may want to know that a clock is wrong. Once a process: a fleet of gateways
/// that comes from another server would fill the log.
fn warn_of_later_epoch(id: &str, cursor: &str) {
    static WARN: Once = Once::new();
    WARN.call_once(|| {
        tracing::warn!(
            gateway = id,
            cursor,
            "a cursor's epoch is later than this server's: another server issued it, or the \
             clock was set back between two starts (this is logged once)"
        );
    });
}

/// What a response begins with.
fn response_fields(start: &Start, heartbeat: Option<Duration>) -> HeaderMap {
    let (resume, reason, missed) = describe(start.resume);
    let mut fields = status::response_fields();
    let mut insert = |key, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(key, value);
        }
    };
    insert(PUSH_RESUME, resume.as_str());
    insert(PUSH_RESUME_REASON, reason.as_str());
    insert(PUSH_START_CURSOR, start.cursor.to_text().as_str());
    if let Some(interval) = heartbeat {
        insert(PUSH_HEARTBEAT, &heartbeat::value(interval));
    }
    if let Some(missed) = missed {
        fields.insert(PUSH_MISSED, missed.into());
    }
    fields
}
