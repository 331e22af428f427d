//! What publishers publish: counted by connection, added up by whoever looks.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tonic::{Code, Status};

use super::Telemetry;
use super::count::{Count, Labelled, lock};
use super::delays::{Histogram, Stamp};
use crate::cursor::Cursor;
use crate::event::{Event, KindCounts};
use crate::spans::{Began, Draft, Parent, Principal};

/// Every so many requests of a connection, one is timed.
const TIMED: u64 = 16;

/// The methods of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Publish,
    PublishStream,
}

impl Method {
    pub(crate) const ALL: [Method; 2] = [Method::Publish, Method::PublishStream];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Method::Publish => "Publish",
            Method::PublishStream => "PublishStream",
        }
    }

    /// With the name of its service.
    fn full_name(self) -> &'static str {
        match self {
            Method::Publish => "galaxy.push.publisher.v1.Publisher/Publish",
            Method::PublishStream => "galaxy.push.publisher.v1.Publisher/PublishStream",
        }
    }
}

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) client_events: u64,
    pub(crate) session_invalidations: u64,
    /// Of events, as they were sent.
    pub(crate) bytes: u64,
    /// Requests that were accepted, by [`Method`].
    pub(crate) accepted: [u64; 2],
}

impl Published {
    fn add(&mut self, counts: &Counts) {
        self.client_events += counts.client_events.get();
        self.session_invalidations += counts.session_invalidations.get();
        self.bytes += counts.bytes.get();
        for (sum, count) in self.accepted.iter_mut().zip(&counts.accepted) {
            *sum += count.get();
        }
    }
}

/// Of one connection.
#[derive(Debug, Default)]
struct Counts {
    client_events: Count,
    session_invalidations: Count,
    bytes: Count,
    accepted: [Count; 2],
}

/// Of all connections.
#[derive(Debug)]
pub(super) struct Publishers {
    connections: Mutex<Connections>,
    /// Requests that were refused.
    refused: Labelled<(Method, i32)>,
    durations: Histogram,
}

#[derive(Debug, Default)]
struct Connections {
    open: Vec<Arc<Counts>>,
    ended: Published,
}

impl Publishers {
    pub(super) fn new(bounds: &[std::time::Duration]) -> Self {
        Publishers {
            connections: Mutex::default(),
            refused: Labelled::default(),
            durations: Histogram::new(bounds),
        }
    }

    /// What was published since the start: it never goes back.
    pub(super) fn published(&self) -> Published {
        let connections = lock(&self.connections);
        let mut sum = connections.ended;
        connections.open.iter().for_each(|counts| sum.add(counts));
        sum
    }

    /// Refused requests, by method and status code.
    pub(super) fn refused(&self) -> Vec<(Method, Code, u64)> {
        let all = self.refused.all().into_iter();
        all.map(|((method, code), n)| (method, Code::from(code), n))
            .collect()
    }

    pub(super) fn durations(&self) -> &Histogram {
        &self.durations
    }
}

/// A publishers' connection, for as long as it lasts.
pub(crate) struct Publishing {
    telemetry: Telemetry,
    counts: Arc<Counts>,
    /// Requests so far, to time some of them.
    requests: Count,
}

/// What has begun to be published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    timed: Option<Instant>,
    stamp: Option<Stamp>,
    span: Began,
}

impl Publishing {
    pub(super) fn begin(telemetry: &Telemetry) -> Self {
        let counts = Arc::new(Counts::default());
        let publishers = &telemetry.shared.publishers;
        lock(&publishers.connections).open.push(Arc::clone(&counts));
        Publishing {
            telemetry: telemetry.clone(),
            counts,
            requests: Count::default(),
        }
    }

    /// A request has arrived.
    #[inline]
    pub(crate) fn begin_request(&self) -> Begun {
        let is_timed = self.requests.get().is_multiple_of(TIMED);
        self.requests.add(1);
        Begun {
            timed: is_timed.then(Instant::now),
            stamp: self.telemetry.shared.delays.begin(),
            span: self.telemetry.shared.spans.begin(),
        }
    }

    /// Its events are to be appended now, or it is refused. Returns what is traced of it.
    #[inline]
    pub(crate) fn draft(
        &self,
        begun: Begun,
        method: Method,
        parent: &Parent,
        principal: impl FnOnce() -> Principal,
        events: &[Event<'_>],
    ) -> Draft {
        let spans = &self.telemetry.shared.spans;
        spans.draft(begun.span, method.full_name(), parent, principal, events)
    }

    /// What is traced of a request of this connection whose headers are these.
    pub(crate) fn parent(&self, fields: &http::HeaderMap) -> Parent {
        self.telemetry.shared.spans.parent(fields)
    }

    /// It was refused; nothing of it is in the log.
    #[inline]
    pub(crate) fn draft_refused(&self, draft: Draft, status: &Status) {
        self.telemetry.shared.spans.refused(draft, status);
    }

    /// Its events are in the log: so many, of so many bytes, from `first` up to `last`.
    #[inline]
    pub(crate) fn published(
        &self,
        begun: Begun,
        draft: Draft,
        counts: KindCounts,
        bytes: u64,
        first: Cursor,
        last: Cursor,
    ) {
        // At once: gateways are delivering them.
        let shared = &self.telemetry.shared;
        if let Some(seq) = shared.spans.appended(draft, first, last) {
            shared.delays.notice(seq);
        }
        self.counts.client_events.add(counts.client_events as u64);
        if counts.session_invalidations > 0 {
            let n = counts.session_invalidations as u64;
            self.counts.session_invalidations.add(n);
        }
        self.counts.bytes.add(bytes);
        if let Some(stamp) = begun.stamp {
            self.telemetry
                .shared
                .delays
                .published(last.seq().number(), stamp);
        }
        if let Some(since) = begun.timed {
            let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.telemetry.shared.publishers.durations.record(ns);
        }
    }

    /// A session invalidation is in the log: the event as its publisher encoded it.
    pub(crate) fn invalidated(&self, cursor: Cursor, event: &[u8]) {
        let shared = &self.telemetry.shared;
        shared.enforcements.published(cursor.seq());
        shared.invalidations.published(cursor, event);
    }

    /// A request was accepted.
    #[inline]
    pub(crate) fn accepted(&self, method: Method) {
        self.counts.accepted[method as usize].add(1);
    }

    /// A request, or a call before any request, was refused.
    pub(crate) fn refused(&self, method: Method, code: Code) {
        let publishers = &self.telemetry.shared.publishers;
        publishers.refused.add((method, code as i32), 1);
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        let publishers = &self.telemetry.shared.publishers;
        let mut connections = lock(&publishers.connections);
        connections
            .open
            .retain(|other| !Arc::ptr_eq(other, &self.counts));
        connections.ended.add(&self.counts);
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
