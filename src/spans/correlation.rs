//! Which trace a request or an event belongs to.

use std::cell::Cell;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// W3C's header: version, trace, span, flags.
const TRACEPARENT: &str = "traceparent";
/// A longer `tracestate` is not passed on: so much W3C's specification asks for at least.
const MAX_STATE_BYTES: usize = 512;
/// The digits of a trace's id.
const TRACE_ID_DIGITS: usize = 32;

/// What the headers of a call name as the caller's span.
pub(super) fn of_headers(fields: &HeaderMap) -> Option<SpanContext> {
    // Most callers do not trace.
    if !fields.contains_key(TRACEPARENT) {
        return None;
    }
    extract(&Headers(fields))
}

/// What an event says of its trace.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Correlation {
    /// Nothing that could be a trace.
    None,
    /// The trace's id alone.
    Trace(TraceId),
    /// A span of it.
    Span(SpanContext),
}

impl Correlation {
    /// Of the text of an event's `trace_id`.
    pub(super) fn of(trace_id: &str) -> Self {
        let is_id = trace_id.len() == TRACE_ID_DIGITS
            && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id {
            return match TraceId::from_hex(trace_id) {
                Ok(id) if id != TraceId::INVALID => Correlation::Trace(id),
                _ => Correlation::None,
            };
        }
        extract(&Text(trace_id)).map_or(Correlation::None, Correlation::Span)
    }

    pub(super) fn trace_id(&self) -> Option<TraceId> {
        match self {
            Correlation::None => None,
            Correlation::Trace(id) => Some(*id),
            Correlation::Span(span) => Some(span.trace_id()),
        }
    }
}

fn extract(from: &dyn Extractor) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), from);
    let span = context.span().span_context().clone();
    // What else vendors say may be long: it would go into every span below.
    let is_long = span.trace_state().header().len() > MAX_STATE_BYTES;
    let span = match is_long {
        false => span,
        true => SpanContext::new(
            span.trace_id(),
            span.span_id(),
            span.trace_flags(),
            span.is_remote(),
            TraceState::NONE,
        ),
    };
    span.is_valid().then_some(span)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// A whole `traceparent`, and nothing beside it.
struct Text<'a>(&'a str);

impl Extractor for Text<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

thread_local! {
    /// The trace of the next span that has no parent.
    static NEXT_TRACE: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Does something that starts a span without a parent in this trace.
pub(super) fn in_trace<T>(id: TraceId, start: impl FnOnce() -> T) -> T {
    NEXT_TRACE.set(Some(id));
    let started = start();
    NEXT_TRACE.set(None);
    started
}

/// Random ids, except for the trace of a span that is to be in a given one: the SDK has no
/// other way to start a span in a trace of which no span is known.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_TRACE.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_is_named_by_its_id_or_by_a_traceparent() {
        let id = TraceId::from_hex(TRACE).unwrap();
        assert_eq!(Correlation::of(TRACE), Correlation::Trace(id));
        let upper = TRACE.to_uppercase();
        assert_eq!(Correlation::of(&upper), Correlation::Trace(id));
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let Correlation::Span(span) = Correlation::of(&parent) else {
            panic!("it is a whole traceparent");
        };
        assert_eq!(span.trace_id(), id);
        assert!(span.is_sampled() && span.is_remote());
        for other in [
            "",
            "req-17",
            "00000000000000000000000000000000",
            "+bf92f3577b34da6a3ce929d0e0e4736",
            &TRACE[1..],
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{TRACE}"),
        ] {
            assert_eq!(Correlation::of(other), Correlation::None, "{other:?}");
        }
    }

    #[test]
    fn headers_name_the_callers_span() {
        let mut fields = HeaderMap::new();
        assert_eq!(of_headers(&fields), None);
        for (value, is_some) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
            ("nonsense".to_owned(), false),
        ] {
            fields.insert(TRACEPARENT, value.parse().unwrap());
            assert_eq!(of_headers(&fields).is_some(), is_some, "{value}");
        }
    }

    #[test]
    fn ids_are_random_outside_a_given_trace() {
        let (ids, id) = (Ids::default(), TraceId::from_hex(TRACE).unwrap());
        assert_eq!(in_trace(id, || ids.new_trace_id()), id);
        assert_ne!(ids.new_trace_id(), id);
        in_trace(id, || ());
        assert_ne!(ids.new_trace_id(), id);
    }
}
