//! `SubscribePush`: what a request must be, and how a response begins, goes on and ends.

use std::sync::Once;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use super::authorization::Authorization;
use super::heartbeat::Heartbeat;
use super::method::Stream;
use super::router::Origin;
use super::status;
use super::streaming::Until;
use crate::access::Peer;
use crate::contract::gateway_id;
use crate::contract::heartbeat;
use crate::contract::instance;
use crate::contract::metadata::{
    PUSH_HEAD_CURSOR, PUSH_HEARTBEAT, PUSH_INSTANCE, PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON,
    PUSH_REVOCATIONS, PUSH_REVOCATIONS_COUNT, PUSH_START_CURSOR,
};
use crate::contract::push::GatewaySubscribeRequest;
use crate::contract::revocations;
use crate::cursor::Cursor;
use crate::engine::{
    Batch, Engine, FRAME_OVERHEAD_BYTES, RecvError, Replay, ReplayError, Resume, Start, Subscriber,
    TryRecvError,
};
use crate::service::{Abandoned, Cut, Stall};
use crate::spans::Parent;
use crate::telemetry::{self, Cause, Successor, Telemetry, completeness, describe};

/// Room for the longest id and far more than a cursor.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 10;
/// How long a gateway that is ahead of this replica is held, before it starts fresh.
const MAX_BEHIND: Duration = Duration::from_secs(2);
/// How often it is looked whether it still is.
const BEHIND_STEP: Duration = Duration::from_millis(2);
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long its stream may be quiet, before it shows that it lives.
    heartbeat: Option<Duration>,
    /// Whether it wants to know which sessions were revoked while it was away.
    replay: bool,
    /// Which process of its kind it is, for whoever it takes over.
    instance: Option<Box<str>>,
}

impl Options {
    /// # Errors
    ///
    /// The status that refuses the call: a value is none of its key.
    pub(super) fn read(fields: &HeaderMap) -> Result<Self, Status> {
        let heartbeat = value(fields, PUSH_HEARTBEAT)?.map(|text| {
            let interval = heartbeat::parse(text);
            interval.map_err(|problem| status::bad_metadata(PUSH_HEARTBEAT, &problem))
        });
        let replay = match value(fields, PUSH_REVOCATIONS)? {
            None => false,
            Some(revocations::REPLAY) => true,
            Some(_) => {
                let problem = "it can be replay, and nothing else";
                return Err(status::bad_metadata(PUSH_REVOCATIONS, &problem));
            }
        };
        let instance = value(fields, PUSH_INSTANCE)?;
        if let Some(text) = instance {
            let checked = instance::check(text);
            checked.map_err(|problem| status::bad_metadata(PUSH_INSTANCE, &problem))?;
        }
        Ok(Options {
            heartbeat: heartbeat.transpose()?,
            replay,
            instance: instance.map(Box::from),
        })
    }
}

/// The only value of a key; empty where it is no text.
fn value<'a>(fields: &'a HeaderMap, key: &'static str) -> Result<Option<&'a str>, Status> {
    let mut values = fields.get_all(key).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(status::bad_metadata(key, &"it is there twice")),
        (value, None) => Ok(value.map(|value| value.to_str().unwrap_or_default())),
    }
}

/// What a stream is to write next.
#[derive(Debug)]
pub(crate) enum Frames {
    /// Events, where they lie in the ring.
    Events(Batch),
    /// Invalidations from before the stream's start.
    Missed(Vec<u8>),
    /// No event, but how far the stream has come.
    Position([u8; FRAME_OVERHEAD_BYTES]),
}

impl AsRef<[u8]> for Frames {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Frames::Events(batch) => batch.as_bytes(),
            Frames::Missed(frames) => frames,
            Frames::Position(frame) => frame,
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
    extras: Option<Box<Extras>>,
}

/// What a gateway has asked for.
#[derive(Debug)]
struct Extras {
    /// Where the newest event was when it resumed.
    head: Option<Cursor>,
    heartbeat: Option<Heartbeat>,
    replay: Option<Replay>,
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
        let principal = authorization.as_ref().map(|of| of.principal());
        let who = Successor {
            peer,
            principal,
            instance: options.instance.clone(),
        };
        // Once it may, and before it does.
        let subscribe = || {
            let arrival = telemetry.arriving(id, who);
            let (subscriber, replay) = match options.replay {
                true => engine.subscribe_with_replay(id, cursor)?,
                false => (engine.subscribe(id, cursor)?, None),
            };
            Ok((subscriber, (replay, arrival)))
        };
        let (subscriber, (replay, arrival)) = match &mut authorization {
            Some(authorization) => authorization.subscribe(id, subscribe)?,
            None => subscribe().map_err(status::not_subscribed)?,
        };
        let stream = telemetry.subscribed(&subscriber, replay.as_ref(), &arrival, &parent);
        if let Resume::OtherEpoch { is_later: true } = subscriber.start().resume {
            warn_of_later_epoch(id, cursor);
        }
        let heartbeat = options.heartbeat;
        // Read after it has subscribed: what is revoked later than this comes later, too.
        let is_resumed = matches!(subscriber.start().resume, Resume::Resumed);
        let head = (options.replay && is_resumed).then(|| engine.head());
        let extras = (heartbeat.is_some() || replay.is_some() || head.is_some()).then(|| {
            Box::new(Extras {
                head,
                heartbeat: heartbeat.map(|interval| Heartbeat::new(interval, &subscriber)),
                replay,
            })
        });
        Ok(Subscription {
            extras,
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
        response_fields(&self.subscriber.start(), self.extras.as_deref())
    }

    /// What comes next.
    #[inline]
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frames, Status>> {
        // Nobody asks for more before it is.
        self.stream.written(&self.subscriber);
        if self.extras.is_some()
            && let Some(missed) = self.next_missed()
        {
            return Poll::Ready(missed);
        }
        match self.subscriber.poll_recv_inlined(cx) {
            Poll::Pending if self.extras.is_some() => self.poll_heartbeat(cx),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(batch)) => {
                self.stream.writing(&batch);
                Poll::Ready(Ok(Frames::Events(batch)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.end(error))),
        }
    }

    /// What was missed before the stream's start, and then the mark of its end.
    #[cold]
    fn next_missed(&mut self) -> Option<Result<Frames, Status>> {
        let replay = &mut self.extras.as_mut()?.replay;
        Some(match replay.as_mut()?.try_recv(&self.subscriber) {
            Ok(Some(frames)) => Ok(Frames::Missed(frames)),
            Ok(None) => {
                *replay = None;
                Ok(Frames::Position(self.subscriber.position_frame()))
            }
            Err(error) => {
                *replay = None;
                Err(self.end_of_replay(error))
            }
        })
    }

    fn end_of_replay(&mut self, error: ReplayError) -> Status {
        match error {
            ReplayError::TakenOver => self.end(RecvError::TakenOver),
            ReplayError::TooSlow { left } => {
                let missed = self.subscriber.lag();
                let status = status::replay_too_slow(left, missed);
                self.stream.end(Cause::Lapped, status.message(), missed);
                status
            }
            _ => self.end(RecvError::Closed),
        }
    }

    /// There is no event.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frames, Status>> {
        let extras = self.extras.as_mut();
        let Some(heartbeat) = extras.and_then(|of| of.heartbeat.as_mut()) else {
            return Poll::Pending;
        };
        loop {
            ready!(heartbeat.poll(self.stream.engine(), &self.subscriber, cx));
            // A server that does not know what was published must not seem to be quiet.
            if self.stream.freshness().stale_for().is_none() {
                let frame = self.subscriber.position_frame();
                return Poll::Ready(Ok(Frames::Position(frame)));
            }
        }
    }

    /// Ends it.
    #[cold]
    fn end(&mut self, error: RecvError) -> Status {
        let (status, cause, missed) = match error {
            RecvError::TakenOver => {
                let (status, cause, detail) = self.taken();
                self.stream.end(cause, &detail, 0);
                return status;
            }
            RecvError::Closed => (status::stopping(), Cause::Stopping, self.subscriber.lag()),
            RecvError::Lagged(dropped) => {
                let missed = dropped + self.subscriber.lag();
                (status::lagged(missed), Cause::Lapped, missed)
            }
        };
        self.stream.end(cause, status.message(), missed);
        status
    }

    /// Who has ended it, and why; the cause in words.
    fn taken(&self) -> (Status, Cause, String) {
        if self.subscriber.was_ended() {
            if let Some(status) = self.authorization.as_ref().and_then(|of| of.ended()) {
                let cause = match status.code() {
                    Code::Unauthenticated => Cause::Expired,
                    _ => Cause::Denied,
                };
                let detail = status.message().to_owned();
                return (status, cause, detail);
            }
            if let Some(by) = self.stream.gateway().disconnected_by() {
                let detail = format!("disconnected by {by}");
                return (status::disconnected(&by), Cause::Takeover, detail);
            }
        }
        let successor = self.stream.successor();
        let detail = match &successor {
            Some(by) => format!("taken over by {}", by.in_words()),
            None => "taken over".to_owned(),
        };
        (status::taken_over(successor), Cause::Takeover, detail)
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
            Some((Frames::Missed(_) | Frames::Position(_), _)) => {}
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

    fn until(&self, request: &[u8]) -> Option<Until> {
        let engine = self.telemetry.engine();
        let ahead = ahead(engine, request)?;
        Some(Box::pin(catch_up(engine.clone(), ahead)))
    }

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

/// A request's cursor that this engine has yet to come to: of a gateway that comes from another
/// replica, which has read more of their log.
pub(super) fn ahead(engine: &Engine, request: &[u8]) -> Option<Cursor> {
    if !engine.is_appended() {
        return None;
    }
    let request = GatewaySubscribeRequest::decode(request).ok()?;
    let cursor = Cursor::parse(request.cursor.as_bytes()).ok()?;
    is_ahead(engine, cursor).then_some(cursor)
}

fn is_ahead(engine: &Engine, cursor: Cursor) -> bool {
    let head = engine.head();
    cursor.epoch() == head.epoch() && cursor > head
}

/// Waits until the engine has this event, or for as long as a replica may be behind.
pub(super) async fn catch_up(engine: Engine, cursor: Cursor) {
    let end = Instant::now() + MAX_BEHIND;
    while is_ahead(&engine, cursor) && Instant::now() < end {
        sleep(BEHIND_STEP).await;
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
fn response_fields(start: &Start, extras: Option<&Extras>) -> HeaderMap {
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
    if let Some(heartbeat) = extras.and_then(|of| of.heartbeat.as_ref()) {
        insert(PUSH_HEARTBEAT, &heartbeat::value(heartbeat.interval()));
    }
    if let Some(replay) = extras.and_then(|of| of.replay.as_ref()) {
        insert(PUSH_REVOCATIONS, completeness(replay).as_str());
        insert(PUSH_REVOCATIONS_COUNT, &replay.left().to_string());
    }
    if let Some(head) = extras.and_then(|of| of.head) {
        insert(PUSH_HEAD_CURSOR, head.to_text().as_str());
    }
    if let Some(missed) = missed {
        fields.insert(PUSH_MISSED, missed.into());
    }
    fields
}
