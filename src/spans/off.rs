//! Without the feature `otlp`: nothing is recorded, and nothing is kept.

use http::HeaderMap;
use tonic::Status;

use super::{Principal, Recipient, StartError, Subscription, SubscriptionEnd};
use crate::cursor::Cursor;
use crate::event::Event;

#[derive(Clone, Debug)]
pub(crate) struct Spans;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Began;

#[derive(Debug, Default)]
pub(crate) struct Parent;

#[derive(Debug)]
pub(crate) struct Draft;

#[derive(Debug, Default)]
pub(crate) struct Subscribed;

impl Parent {
    #[inline]
    pub(crate) fn none() -> Self {
        Parent
    }
}

#[allow(clippy::unused_self, reason = "the interface is that of the recorder")]
impl Spans {
    #[cfg(any(test, feature = "tonic-service"))]
    pub(crate) fn off() -> Self {
        Spans
    }

    pub(crate) fn from_environment() -> Result<Self, StartError> {
        Ok(Spans)
    }

    #[inline]
    pub(crate) fn parent(&self, _fields: &HeaderMap) -> Parent {
        Parent
    }

    #[inline]
    pub(crate) fn begin(&self) -> Began {
        Began
    }

    #[inline]
    pub(crate) fn draft(
        &self,
        _began: Began,
        _method: &'static str,
        _parent: &Parent,
        _principal: impl FnOnce() -> Principal,
        _events: &[Event<'_>],
    ) -> Draft {
        Draft
    }

    #[inline]
    pub(crate) fn appended(&self, _draft: Draft, _first: Cursor, _last: Cursor) -> Option<u64> {
        None
    }

    #[inline]
    pub(crate) fn refused(&self, _draft: Draft, _status: &Status) {}

    #[inline]
    pub(crate) fn delivered(&self, _after: u64, _last: u64, _to: &Recipient<'_>) {}

    #[inline]
    pub(crate) fn subscribed(&self, _parent: &Parent, _of: &Subscription<'_>) -> Subscribed {
        Subscribed
    }

    #[inline]
    pub(crate) fn ended(&self, _subscribed: Subscribed, _end: &SubscriptionEnd<'_>) {}

    #[inline]
    pub(crate) fn refill(&self, _times_per_second: u32) {}

    pub(crate) async fn finish(&self) {}
}
