//! `SubscribePush`: what a request must be, and how a response begins, goes on and ends.

use std::sync::Once;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::Status;

use super::method::Stream;
use super::status;
use crate::contract::metadata::{PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON, PUSH_START_CURSOR};
use crate::contract::push::GatewaySubscribeRequest;
use crate::contract::start::Reason;
use crate::contract::{self, gateway_id};
use crate::engine::{Batch, Engine, RecvError, Resume, Start, Subscriber, TryRecvError};

/// Room for the longest id and far more than a cursor.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 10;
/// The method's name, for statuses.
pub(super) const NAME: &str = "SubscribePush";

/// Subscribes gateways to an engine.
#[derive(Debug)]
pub(crate) struct Subscribe {
    engine: Engine,
}

impl Subscribe {
    pub(super) fn new(engine: Engine) -> Self {
        Subscribe { engine }
    }
}

/// A gateway's subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    subscriber: Subscriber,
    gateway_id: Box<str>,
}

impl Subscription {
    pub(super) fn gateway_id(&self) -> &str {
        &self.gateway_id
    }
}

impl Stream for Subscribe {
    type Source = Subscription;
    type Data = Batch;

    const NAME: &str = NAME;
    const MAX_REQUEST_BYTES: usize = MAX_REQUEST_BYTES;

    fn start(&mut self, request: &[u8]) -> Result<(HeaderMap, Subscription), Status> {
        let (subscriber, gateway_id) = subscribe(&self.engine, request)?;
        let fields = response_fields(subscriber.start());
        let subscription = Subscription {
            subscriber,
            gateway_id: gateway_id.into_boxed_str(),
        };
        Ok((fields, subscription))
    }

    #[inline]
    fn poll_next(source: &mut Subscription, cx: &mut Context<'_>) -> Poll<Result<Batch, Status>> {
        let subscriber = &mut source.subscriber;
        subscriber.poll_recv(cx).map(|received| {
            received.map_err(|error| status::end_of_stream(error, subscriber.lag()))
        })
    }

    fn end(source: &mut Subscription) -> Option<Status> {
        // Not for a lag: its count would leave out what is not written.
        let cause = match source.subscriber.try_recv() {
            Err(TryRecvError::TakenOver) => RecvError::TakenOver,
            Err(TryRecvError::Closed) => RecvError::Closed,
            _ => return None,
        };
        Some(status::end_of_stream(cause, 0))
    }
}

/// A subscription for what the request's message asks for, and its gateway's id.
pub(super) fn subscribe(engine: &Engine, message: &[u8]) -> Result<(Subscriber, String), Status> {
    let request = GatewaySubscribeRequest::decode(message)
        .map_err(|error| status::not_a_message("GatewaySubscribeRequest", &error))?;
    let id = request.gateway_client_id;
    gateway_id::check(&id).map_err(status::bad_gateway_id)?;
    let subscriber = engine
        .subscribe(&id, &request.cursor)
        .map_err(status::not_subscribed)?;
    tracing::debug!(gateway = id, start = ?subscriber.start(), "subscribed");
    if let Resume::OtherEpoch { is_later: true } = subscriber.start().resume {
        warn_of_later_epoch(&id, &request.cursor);
    }
    Ok((subscriber, id))
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
pub(super) fn response_fields(start: &Start) -> HeaderMap {
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
    if let Some(missed) = missed {
        fields.insert(PUSH_MISSED, missed.into());
    }
    fields
}

/// `push-resume`, `push-resume-reason` and `push-missed`.
fn describe(resume: Resume) -> (contract::start::Resume, Reason, Option<u64>) {
    use contract::start::Resume::{Fresh, Resumed};
    match resume {
        Resume::Resumed => (Resumed, Reason::Requested, None),
        Resume::NoCursor => (Fresh, Reason::NoCursor, None),
        Resume::Expired { missed } => (Fresh, Reason::Expired, Some(missed)),
        Resume::Ahead => (Fresh, Reason::Ahead, None),
        Resume::OtherEpoch { .. } => (Fresh, Reason::OtherEpoch, None),
        Resume::Malformed => (Fresh, Reason::Malformed, None),
    }
}
