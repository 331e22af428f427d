//! Spans of what a server does, exported by OTLP: publish requests, their events,
//! deliveries, subscriptions. What they mean to an operator is in `docs/tracing.md`.
//!
//! | file | what is in it |
//! |---|---|
//! | `environment` | the variables of OpenTelemetry, checked |
//! | `export` | the exporter, the thread that it has, what is lost on the way |
//! | `recorder` | which spans there are, and what they say |
//! | `budget` | how many there may be |
//! | `followed` | events whose deliveries are recorded |
//! | `correlation` | which trace a request or an event belongs to |
//! | `off` | the same interface without the feature `otlp`: it does nothing |
//!
//! Without the feature every type here has no size and every function no code. With it, and
//! no collector named, each costs a look at an `Option`. With a collector, a request costs a
//! look at a counter while this moment's spans are used up; nothing here ever waits for the
//! collector.
//!
//! No span says what a payload contains, or for which user it is.

#![forbid(unsafe_code)]

#[cfg(feature = "otlp")]
mod budget;
#[cfg(feature = "otlp")]
mod correlation;
#[cfg(feature = "otlp")]
mod environment;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod followed;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod recorder;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[cfg(not(feature = "otlp"))]
pub(crate) use self::off::{Began, Draft, Parent, Spans, Subscribed};
#[cfg(feature = "otlp")]
pub(crate) use self::recorder::{Began, Draft, Parent, Spans, Subscribed};

use crate::cursor::Cursor;

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "nothing fails there")
)]
pub(crate) enum StartError {
    /// A variable of OpenTelemetry has a value that is of no use.
    #[error("{variable}: {reason}")]
    Environment {
        variable: &'static str,
        reason: String,
    },
    /// The system gives no thread.
    #[error("cannot start the thread that exports spans: {0}")]
    Thread(#[from] std::io::Error),
}

/// A gateway's subscription that has begun.
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "nobody reads it"))]
#[derive(Debug)]
pub(crate) struct Subscription<'a> {
    pub(crate) gateway: &'a str,
    pub(crate) principal: Option<&'a str>,
    /// How its stream starts, and why, as the contract says it.
    pub(crate) resume: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) start: Cursor,
}

/// One that has ended.
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "nobody reads it"))]
#[derive(Debug)]
pub(crate) struct SubscriptionEnd<'a> {
    pub(crate) gateway: &'a str,
    pub(crate) cause: &'static str,
    /// Whether the gateway has lost events, or may have.
    pub(crate) is_failure: bool,
    pub(crate) lasted: Duration,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) missed: u64,
}

/// A gateway to which events were delivered.
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "nobody reads it"))]
#[derive(Debug)]
pub(crate) struct Recipient<'a> {
    pub(crate) gateway: &'a str,
    pub(crate) since: SystemTime,
}

/// Who calls: asked for only where it is recorded.
pub(crate) type Principal = Option<Arc<str>>;
