//! `SubscribePush`: what a request must be, and how a response begins, goes on and ends.

use std::sync::Once;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::Status;

use super::authorization::Authorization;
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
    // Dropped first: what it counts against is free after it.
    subscriber: Subscriber,
    gateway_id: Box<str>,
    /// Whose it is, where it matters.
    authorization: Option<Box<Authorization>>,
}

impl Subscription {
    /// What the request's message asks for, if that may be.
    pub(super) fn start(
        engine: &Engine,
        message: &[u8],
        mut authorization: Option<Box<Authorization>>,
    ) -> Result<Self, Status> {
        let request = GatewaySubscribeRequest::decode(message)
            .map_err(|error| status::not_a_message("GatewaySubscribeRequest", &error))?;
        let id = request.gateway_client_id;
        gateway_id::check(&id).map_err(status::bad_gateway_id)?;
        let subscriber = match &mut authorization {
            Some(authorization) => authorization.subscribe(engine, &id, &request.cursor)?,
            None => engine
                .subscribe(&id, &request.cursor)
                .map_err(status::not_subscribed)?,
        };
        tracing::debug!(gateway = id, start = ?subscriber.start(), "subscribed");
        if let Resume::OtherEpoch { is_later: true } = subscriber.start().resume {
            warn_of_later_epoch(&id, &request.cursor);
        }
        Ok(Subscription {
            subscriber,
            gateway_id: id.into_boxed_str(),
            authorization,
        })
    }

    #[cfg(all(test, feature = "tonic-service"))]
    pub(super) fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.subscriber = self.subscriber.max_batch_bytes(bytes);
        self
    }

    pub(super) fn gateway_id(&self) -> &str {
        &self.gateway_id
    }

    /// What the response begins with.
    pub(super) fn response_fields(&self) -> HeaderMap {
        response_fields(self.subscriber.start())
    }

    /// What comes next.
    #[inline]
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Batch, Status>> {
        let received = self.subscriber.poll_recv(cx);
        received.map(|received| received.map_err(|error| self.end_of_stream(error)))
    }

    /// How it ends.
    fn end_of_stream(&self, error: RecvError) -> Status {
        // A stream whose credential has ended is ended like one that is taken over.
        if error == RecvError::TakenOver
            && let Some(status) = self.authorization.as_ref().and_then(|of| of.ended())
        {
            return status;
        }
        status::end_of_stream(error, self.subscriber.lag())
    }
}

impl Stream for Subscribe {
    type Source = Subscription;
    type Data = Batch;

    const NAME: &str = NAME;
    const MAX_REQUEST_BYTES: usize = MAX_REQUEST_BYTES;

    fn start(
        &mut self,
        request: &[u8],
        authorization: Option<Box<Authorization>>,
    ) -> Result<(HeaderMap, Subscription), Status> {
        let subscription = Subscription::start(&self.engine, request, authorization)?;
        Ok((subscription.response_fields(), subscription))
    }

    #[inline]
    fn poll_next(source: &mut Subscription, cx: &mut Context<'_>) -> Poll<Result<Batch, Status>> {
        source.poll_next(cx)
    }

    fn end(source: &mut Subscription) -> Option<Status> {
        // Not for a lag: its count would leave out what is not written.
        let cause = match source.subscriber.try_recv() {
            Err(TryRecvError::TakenOver) => RecvError::TakenOver,
            Err(TryRecvError::Closed) => RecvError::Closed,
            _ => return None,
        };
        Some(source.end_of_stream(cause))
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
fn response_fields(start: &Start) -> HeaderMap {
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
