//! Which spans there are, and what they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use http::HeaderMap;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status as SpanStatus,
    TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tonic::{Code, Status};

use super::budget::Budget;
use super::correlation::{Correlation, in_trace, of_headers};
use super::environment::Environment;
use super::export::Export;
use super::followed::{Followed, FollowedEvent};
use super::{Principal, Recipient, StartError, Subscription, SubscriptionEnd};
use crate::contract::details::code_name;
use crate::cursor::{Cursor, Seq};
use crate::event::Event;

/// So many publish requests are recorded a second, at most.
const REQUESTS_PER_SECOND: u32 = 50;
/// So many events of each.
const EVENTS_PER_REQUEST: usize = 4;
/// The events of so many requests are followed to gateways, a second.
const FOLLOWED_PER_SECOND: u32 = 10;
/// So many deliveries of each of those.
const GATEWAYS_PER_EVENT: u32 = 4;
/// So many starts and ends of subscriptions are recorded a second, at most.
const SUBSCRIPTIONS_PER_SECOND: u32 = 50;
/// Texts of publishers are cut to so many bytes.
const MAX_TEXT_BYTES: usize = 256;

const SUBSCRIBE: &str = "galaxy.backend.push.v1.Push/SubscribePush";
const SUBSCRIBE_ENDED: &str = "galaxy.backend.push.v1.Push/SubscribePush ended";

/// The names of attributes: of OpenTelemetry's conventions where it has one.
mod key {
    pub(super) const RPC_SYSTEM: &str = "rpc.system.name";
    pub(super) const RPC_METHOD: &str = "rpc.method";
    pub(super) const RPC_STATUS: &str = "rpc.response.status_code";
    pub(super) const ERROR_TYPE: &str = "error.type";
    pub(super) const SYSTEM: &str = "messaging.system";
    pub(super) const OPERATION: &str = "messaging.operation.name";
    pub(super) const OPERATION_TYPE: &str = "messaging.operation.type";
    pub(super) const BATCH: &str = "messaging.batch.message_count";
    pub(super) const MESSAGE_ID: &str = "messaging.message.id";
    pub(super) const MESSAGE_BYTES: &str = "messaging.message.envelope.size";
    pub(super) const BYTES: &str = "galaxy_push.bytes";
    pub(super) const FIRST_CURSOR: &str = "galaxy_push.first_cursor";
    pub(super) const LAST_CURSOR: &str = "galaxy_push.last_cursor";
    pub(super) const CURSOR: &str = "galaxy_push.cursor";
    pub(super) const KIND: &str = "galaxy_push.kind";
    pub(super) const TRACE_ID: &str = "galaxy_push.trace_id";
    pub(super) const PRINCIPAL: &str = "galaxy_push.principal";
    pub(super) const GATEWAY: &str = "galaxy_push.gateway";
    pub(super) const RESUME: &str = "galaxy_push.resume";
    pub(super) const REASON: &str = "galaxy_push.resume_reason";
    pub(super) const CAUSE: &str = "galaxy_push.cause";
    pub(super) const LASTED: &str = "galaxy_push.lasted_seconds";
    pub(super) const EVENTS: &str = "galaxy_push.events";
    pub(super) const MISSED: &str = "galaxy_push.missed";
}

/// What is recorded of a server. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Spans(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    tracer: SdkTracer,
    export: Arc<Export>,
    is_finished: AtomicBool,
    requests: Budget,
    to_follow: Budget,
    subscriptions: Budget,
    followed: Followed,
}

/// When a request has begun that may be recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(Option<SystemTime>);

/// The caller's span, if it named one.
#[derive(Debug, Default)]
pub(crate) struct Parent(Option<Box<SpanContext>>);

/// A publish request that is recorded, if it is, and not decided.
#[derive(Debug)]
pub(crate) struct Draft(Option<Box<Drafted>>);

#[derive(Debug)]
struct Drafted {
    span: Span,
    appending: SystemTime,
    /// The first of its events.
    events: Vec<Described>,
}

/// An event, as far as its span says it.
#[derive(Debug)]
struct Described {
    correlation: Correlation,
    kind: String,
    event_id: String,
    trace_id: String,
    bytes: usize,
}

/// The span of a subscription's start, if it was recorded.
#[derive(Debug, Default)]
pub(crate) struct Subscribed(Option<Box<SpanContext>>);

impl Parent {
    /// It named none, or nobody asks.
    pub(crate) fn none() -> Self {
        Parent(None)
    }
}

impl Spans {
    /// Nothing is recorded.
    #[cfg(any(test, feature = "tonic-service"))]
    pub(crate) fn off() -> Self {
        Spans(None)
    }

    /// Exports to the collector that they name, if they name one.
    pub(crate) fn from_environment() -> Result<Self, StartError> {
        let Some(environment) = Environment::read()? else {
            return Ok(Spans(None));
        };
        let export = Export::start(&environment)?;
        tracing::info!("exporting spans to {}", environment.endpoint);
        let scope = InstrumentationScope::builder("galaxy-push")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Spans(Some(Arc::new(Recorder {
            tracer: export.provider.tracer_with_scope(scope),
            export: Arc::new(export),
            is_finished: AtomicBool::new(false),
            requests: Budget::new(REQUESTS_PER_SECOND),
            to_follow: Budget::new(FOLLOWED_PER_SECOND),
            subscriptions: Budget::new(SUBSCRIPTIONS_PER_SECOND),
            followed: Followed::new(),
        }))))
    }

    /// The span that the headers of a call name.
    pub(crate) fn parent(&self, fields: &HeaderMap) -> Parent {
        let recorder = self.0.as_ref();
        Parent(recorder.and_then(|_| of_headers(fields)).map(Box::new))
    }

    /// A publish request has arrived.
    #[inline]
    pub(crate) fn begin(&self) -> Began {
        let recorder = self.0.as_ref();
        let may_record = recorder.is_some_and(|recorder| recorder.requests.is_left());
        Began(may_record.then(SystemTime::now))
    }

    /// It is to be appended now, or refused: of the method at this path, with these events.
    #[inline]
    pub(crate) fn draft(
        &self,
        began: Began,
        method: &'static str,
        parent: &Parent,
        principal: impl FnOnce() -> Principal,
        events: &[Event<'_>],
    ) -> Draft {
        Draft(match (&self.0, began.0) {
            (Some(recorder), Some(began)) => {
                recorder.draft(began, method, parent.0.as_deref(), principal, events)
            }
            _ => None,
        })
    }

    /// Its events have these cursors. Returns the last of them that is followed.
    #[inline]
    pub(crate) fn appended(&self, draft: Draft, first: Cursor, last: Cursor) -> Option<u64> {
        match (&self.0, draft.0) {
            (Some(recorder), Some(drafted)) => recorder.appended(*drafted, first, last),
            _ => None,
        }
    }

    /// It was refused.
    #[inline]
    pub(crate) fn refused(&self, draft: Draft, status: &Status) {
        if let Some(mut drafted) = draft.0 {
            let code = code_name(status.code() as i32);
            let span = &mut drafted.span;
            span.set_attribute(KeyValue::new(key::RPC_STATUS, code));
            span.set_attribute(KeyValue::new(key::ERROR_TYPE, code));
            // Of the others the caller is to blame: to a server they are no errors.
            if matches!(
                status.code(),
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ) {
                span.set_status(SpanStatus::error(status.message().to_owned()));
            }
            span.end();
        }
    }

    /// Events after `after` up to `last` were delivered just now.
    #[cold]
    pub(crate) fn delivered(&self, after: u64, last: u64, to: &Recipient<'_>) {
        if let Some(recorder) = &self.0 {
            recorder.delivered(after, last, to);
        }
    }

    /// A gateway has subscribed.
    pub(crate) fn subscribed(&self, parent: &Parent, of: &Subscription<'_>) -> Subscribed {
        let recorder = self.0.as_ref();
        let span = recorder.and_then(|recorder| recorder.subscribed(parent.0.as_deref(), of));
        Subscribed(span.map(Box::new))
    }

    /// Its stream has ended.
    pub(crate) fn ended(&self, subscribed: Subscribed, end: &SubscriptionEnd<'_>) {
        if let (Some(recorder), Some(start)) = (&self.0, subscribed.0) {
            recorder.ended(*start, end);
        }
    }

    /// A part of a second has begun, one of so many.
    pub(crate) fn refill(&self, times_per_second: u32) {
        if let Some(recorder) = &self.0 {
            for budget in [
                &recorder.requests,
                &recorder.to_follow,
                &recorder.subscriptions,
            ] {
                budget.refill(times_per_second);
            }
        }
    }

    /// Exports what is left, for a while. Nothing is recorded any more.
    pub(crate) async fn finish(&self) {
        if let Some(recorder) = &self.0
            && !recorder.is_finished.swap(true, Ordering::Relaxed)
        {
            let export = Arc::clone(&recorder.export);
            // An error is a panic, of which the log tells.
            let _ = tokio::task::spawn_blocking(move || export.finish()).await;
        }
    }
}

impl Recorder {
    #[cold]
    fn draft(
        &self,
        began: SystemTime,
        method: &'static str,
        parent: Option<&SpanContext>,
        principal: impl FnOnce() -> Principal,
        events: &[Event<'_>],
    ) -> Option<Box<Drafted>> {
        if !self.requests.take() {
            return None;
        }
        // Its first event says more than a trace of its own would.
        let first = events.first().map(|event| event.names().trace_id);
        let correlation = match parent {
            Some(parent) => Correlation::Span(parent.clone()),
            None => first.map_or(Correlation::None, Correlation::of),
        };
        let attributes = vec![
            KeyValue::new(key::RPC_SYSTEM, "grpc"),
            KeyValue::new(key::RPC_METHOD, method),
        ];
        let builder = SpanBuilder::from_name(method)
            .with_kind(SpanKind::Server)
            .with_start_time(began)
            .with_attributes(attributes);
        let mut span = self.start(builder, &correlation);
        if !span.span_context().is_sampled() {
            self.requests.give_back();
            return None;
        }
        let bytes: usize = events.iter().map(|event| event.as_bytes().len()).sum();
        span.set_attribute(KeyValue::new(key::BATCH, count(events.len())));
        span.set_attribute(KeyValue::new(key::BYTES, count(bytes)));
        if let Some(principal) = principal() {
            span.set_attribute(KeyValue::new(key::PRINCIPAL, principal));
        }
        Some(Box::new(Drafted {
            span,
            events: events
                .iter()
                .take(EVENTS_PER_REQUEST)
                .map(Described::of)
                .collect(),
            appending: SystemTime::now(),
        }))
    }

    #[cold]
    fn appended(&self, drafted: Drafted, first: Cursor, last: Cursor) -> Option<u64> {
        let appended = SystemTime::now();
        let Drafted {
            mut span,
            appending,
            events,
        } = drafted;
        let request = span.span_context().clone();
        let is_followed = self.to_follow.take();
        let mut followed = None;
        for (event, seq) in events.into_iter().zip(first.seq().number()..) {
            let cursor = Cursor::new(first.epoch(), Seq::issued(seq)).to_string();
            let mut span = self.event(&event, &request, appending, cursor.clone());
            if is_followed && span.span_context().is_sampled() {
                let event = FollowedEvent {
                    span: span.span_context().clone(),
                    appended,
                    event_id: event.event_id,
                    cursor,
                };
                // At once: gateways are delivering it.
                self.followed.remember(seq, event, GATEWAYS_PER_EVENT);
                followed = Some(seq);
            }
            span.end_with_timestamp(appended);
        }
        if is_followed && followed.is_none() {
            self.to_follow.give_back();
        }
        span.set_attribute(KeyValue::new(key::FIRST_CURSOR, first.to_string()));
        span.set_attribute(KeyValue::new(key::LAST_CURSOR, last.to_string()));
        span.set_attribute(KeyValue::new(key::RPC_STATUS, code_name(Code::Ok as i32)));
        span.end();
        followed
    }

    /// The span of an event, in its own trace if it names one, else in that of its request.
    fn event(
        &self,
        event: &Described,
        request: &SpanContext,
        appending: SystemTime,
        cursor: String,
    ) -> Span {
        let mut attributes = vec![
            KeyValue::new(key::SYSTEM, "galaxy_push"),
            KeyValue::new(key::OPERATION, "append"),
            KeyValue::new(key::KIND, event.kind.clone()),
            KeyValue::new(key::CURSOR, cursor),
            KeyValue::new(key::MESSAGE_BYTES, count(event.bytes)),
        ];
        for (key, text) in [
            (key::MESSAGE_ID, &event.event_id),
            (key::TRACE_ID, &event.trace_id),
        ] {
            if !text.is_empty() {
                attributes.push(KeyValue::new(key, text.clone()));
            }
        }
        let mut builder = SpanBuilder::from_name("append")
            .with_kind(SpanKind::Internal)
            .with_start_time(appending)
            .with_attributes(attributes);
        let own_trace = event.correlation.trace_id();
        if own_trace.is_none_or(|id| id == request.trace_id()) {
            return self.start(builder, &Correlation::Span(request.clone()));
        }
        builder = builder.with_links(vec![Link::with_context(request.clone())]);
        self.start(builder, &event.correlation)
    }

    fn delivered(&self, after: u64, last: u64, to: &Recipient<'_>) {
        let taken = self.followed.take(after, last, to.since);
        if taken.is_empty() {
            return;
        }
        let now = SystemTime::now();
        for (_, event) in taken {
            let mut attributes = vec![
                KeyValue::new(key::SYSTEM, "galaxy_push"),
                KeyValue::new(key::OPERATION, "deliver"),
                KeyValue::new(key::OPERATION_TYPE, "send"),
                KeyValue::new(key::GATEWAY, to.gateway.to_owned()),
                KeyValue::new(key::CURSOR, event.cursor),
            ];
            if !event.event_id.is_empty() {
                attributes.push(KeyValue::new(key::MESSAGE_ID, event.event_id));
            }
            let builder = SpanBuilder::from_name("deliver")
                .with_kind(SpanKind::Producer)
                .with_start_time(event.appended)
                .with_attributes(attributes);
            self.start(builder, &Correlation::Span(event.span))
                .end_with_timestamp(now);
        }
    }

    fn subscribed(
        &self,
        parent: Option<&SpanContext>,
        of: &Subscription<'_>,
    ) -> Option<SpanContext> {
        if !self.subscriptions.take() {
            return None;
        }
        let mut attributes = vec![
            KeyValue::new(key::RPC_SYSTEM, "grpc"),
            KeyValue::new(key::RPC_METHOD, SUBSCRIBE),
            KeyValue::new(key::GATEWAY, of.gateway.to_owned()),
            KeyValue::new(key::RESUME, of.resume.to_owned()),
            KeyValue::new(key::REASON, of.reason.to_owned()),
            KeyValue::new(key::CURSOR, of.start.to_string()),
        ];
        if let Some(principal) = of.principal {
            attributes.push(KeyValue::new(key::PRINCIPAL, principal.to_owned()));
        }
        let builder = SpanBuilder::from_name(SUBSCRIBE)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let correlation = parent.cloned().map_or(Correlation::None, Correlation::Span);
        let mut span = self.start(builder, &correlation);
        let context = span.span_context().clone();
        span.end();
        if !context.is_sampled() {
            self.subscriptions.give_back();
            return None;
        }
        Some(context)
    }

    fn ended(&self, start: SpanContext, end: &SubscriptionEnd<'_>) {
        if !self.subscriptions.take() {
            return;
        }
        let attributes = vec![
            KeyValue::new(key::GATEWAY, end.gateway.to_owned()),
            KeyValue::new(key::CAUSE, end.cause),
            KeyValue::new(key::LASTED, end.lasted.as_secs_f64()),
            KeyValue::new(key::EVENTS, saturating(end.events)),
            KeyValue::new(key::BYTES, saturating(end.bytes)),
            KeyValue::new(key::MISSED, saturating(end.missed)),
        ];
        let builder = SpanBuilder::from_name(SUBSCRIBE_ENDED)
            .with_kind(SpanKind::Internal)
            .with_attributes(attributes);
        let mut span = self.start(builder, &Correlation::Span(start));
        if end.is_failure {
            span.set_attribute(KeyValue::new(key::ERROR_TYPE, end.cause));
            span.set_status(SpanStatus::error(end.cause));
        }
        span.end();
    }

    /// Starts a span where this says, if the sampler wants it.
    fn start(&self, builder: SpanBuilder, at: &Correlation) -> Span {
        let root = Context::new();
        match at {
            Correlation::None => self.tracer.build_with_context(builder, &root),
            Correlation::Trace(id) => {
                in_trace(*id, || self.tracer.build_with_context(builder, &root))
            }
            Correlation::Span(span) => {
                let parent = root.with_remote_span_context(span.clone());
                self.tracer.build_with_context(builder, &parent)
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.is_finished.load(Ordering::Relaxed) {
            let export = Arc::clone(&self.export);
            // It waits, and this may be a task. Without a thread what is left is lost.
            let _ = std::thread::Builder::new().spawn(move || export.finish());
        }
    }
}

impl Described {
    fn of(event: &Event<'_>) -> Self {
        let names = event.names();
        Described {
            correlation: Correlation::of(names.trace_id),
            kind: match names.is_session_invalidation {
                true => "session_invalidation".to_owned(),
                false => cut(names.kind),
            },
            event_id: cut(names.event_id),
            trace_id: cut(names.trace_id),
            bytes: event.as_bytes().len(),
        }
    }
}

/// The text, or the beginning of one that is long.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn saturating(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = format!("{}\u{e9}", "x".repeat(MAX_TEXT_BYTES - 1));
        assert_eq!(cut(&long).len(), MAX_TEXT_BYTES - 1);
        assert_eq!(cut(&"x".repeat(1000)).len(), MAX_TEXT_BYTES);
    }

    #[test]
    fn without_a_collector_nothing_is_recorded() {
        let spans = Spans::off();
        let began = spans.begin();
        assert!(began.0.is_none());
        let principal = || -> Principal { panic!("nobody asks") };
        let draft = spans.draft(began, "a.B/C", &Parent::none(), principal, &[]);
        assert!(draft.0.is_none());
    }
}
