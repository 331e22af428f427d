//! `Publish` and `PublishStream`: a request's events go into the log, and their cursors
//! into the response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use tonic::{Code, Status};

use super::method::{Calling, Respond, Responded};
use super::status;
use crate::backbone::{AppendError, Appended, Log};
use crate::contract::MESSAGE_PREFIX_BYTES as PREFIX_BYTES;
use crate::cursor::{Cursor, Seq};
use crate::engine::{Limits, Published};
use crate::event::{Event, KindCounts, parse_publish_request};
use crate::spans::{Draft, Parent};
use crate::telemetry::{Begun, Method, Publishing};

/// A request may be as large as gRPC allows by default, or hold one event of the largest
/// size. More would let one request take as much memory as the ring, for nothing:
/// `PublishStream` pipelines.
const MIN_REQUEST_BYTES: usize = crate::contract::DEFAULT_MAX_MESSAGE_BYTES;
/// What precedes an event in a request: a tag of one byte, a length of up to ten.
const EVENT_PREFIX_BYTES: usize = 11;
/// Memory for so many events of a request is kept for the next.
const KEPT_EVENTS: usize = 4096;

/// A `PublishResponse` on the wire: its prefix, and two string fields of a known length.
const RESPONSE_BYTES: usize = PREFIX_BYTES + 2 * FIELD_BYTES;
const FIELD_BYTES: usize = 2 + Cursor::TEXT_BYTES;
/// Field 1 and field 2, both length-delimited.
const FIRST_CURSOR: u8 = 1 << 3 | 2;
const LAST_CURSOR: u8 = 2 << 3 | 2;

/// Publishes into a log, for one connection.
#[derive(Debug)]
pub(crate) struct Publish<L> {
    log: L,
    max_event_bytes: usize,
    max_request_bytes: usize,
    telemetry: Arc<Publishing>,
    /// Kept for its allocation; empty between requests.
    events: Vec<Event<'static>>,
}

impl<L: Log> Publish<L> {
    /// Publishes into `log` what an engine with these limits takes.
    pub(super) fn new(log: L, limits: &Limits, telemetry: Publishing) -> Self {
        Publish {
            log,
            max_event_bytes: limits.max_event_bytes,
            max_request_bytes: max_request_bytes(limits),
            telemetry: Arc::new(telemetry),
            events: Vec::new(),
        }
    }

    /// The caller's span, of a call with these headers, where it is traced.
    pub(super) fn parent(&self, fields: &HeaderMap) -> Parent {
        self.telemetry.parent(fields)
    }
}

/// The longest request, in bytes.
pub(super) fn max_request_bytes(limits: &Limits) -> usize {
    let largest_event = limits.max_event_bytes + EVENT_PREFIX_BYTES;
    largest_event.max(MIN_REQUEST_BYTES)
}

impl<L: Log> Respond for Publish<L> {
    type Response = [u8; RESPONSE_BYTES];
    type Pending = Pending<L::Pending>;

    fn max_request_bytes(&self) -> usize {
        self.max_request_bytes
    }

    /// Publishes a `PublishRequest`: all of its events, or none. The bytes are checked in
    /// place, and copied once, into the ring.
    fn respond(
        &mut self,
        request: &[u8],
        call: Calling<'_>,
    ) -> Result<Responded<Self::Response, Self::Pending>, Status> {
        let mut events = recycle(std::mem::take(&mut self.events));
        let begun = self.telemetry.begin_request();
        let parsed = parse_publish_request(request, self.max_event_bytes, &mut events);
        let allowed = parsed
            .map_err(|error| status::bad_request(&error))
            .and_then(|counts| match call.authorization {
                None => Ok(counts),
                Some(authorization) => authorization
                    .publish(counts, request.len())
                    .map(|()| counts),
            });
        let principal = || call.authorization.map(|of| of.principal());
        let method = method(call.is_stream);
        let draft = self
            .telemetry
            .draft(begun, method, call.parent, principal, &events);
        let responded = match allowed {
            Ok(counts) => match self.log.append(&events) {
                Appended::Done(Ok(published)) => {
                    let bytes = total_bytes(&events);
                    let Published { first, last } = published;
                    self.telemetry
                        .published(begun, draft, counts, bytes, first, last);
                    if counts.session_invalidations > 0 {
                        for (at, event) in invalidations(&events) {
                            log_invalidation(&self.telemetry, published, at, event);
                        }
                    }
                    Ok(Responded::Now(encode_response(published)))
                }
                Appended::Done(Err(error)) => {
                    let status = status::not_appended(&error);
                    self.telemetry.draft_refused(draft, &status);
                    Err(status)
                }
                Appended::Pending(pending) => Ok(Responded::Later(Pending {
                    appended: pending,
                    telemetry: Arc::clone(&self.telemetry),
                    begun,
                    draft: Some(draft),
                    counts,
                    bytes: total_bytes(&events),
                    invalidations: match counts.session_invalidations {
                        0 => Vec::new(),
                        _ => invalidations(&events)
                            .map(|(at, event)| (at, event.into()))
                            .collect(),
                    },
                })),
            },
            Err(status) => {
                self.telemetry.draft_refused(draft, &status);
                Err(status)
            }
        };
        if events.capacity() <= KEPT_EVENTS {
            self.events = recycle(events);
        }
        responded
    }

    fn accepted(&mut self, is_stream: bool) {
        self.telemetry.accepted(method(is_stream));
    }

    fn refused(&mut self, is_stream: bool, code: Code) {
        self.telemetry.refused(method(is_stream), code);
    }
}

fn method(is_stream: bool) -> Method {
    match is_stream {
        true => Method::PublishStream,
        false => Method::Publish,
    }
}

fn total_bytes(events: &[Event<'_>]) -> u64 {
    events
        .iter()
        .map(|event| event.as_bytes().len() as u64)
        .sum()
}

/// The session invalidations among them, each with its place.
fn invalidations<'a>(events: &'a [Event<'a>]) -> impl Iterator<Item = (u64, &'a [u8])> {
    let numbered = (0..).zip(events);
    numbered
        .filter(|(_, event)| event.is_session_invalidation())
        .map(|(at, event)| (at, event.as_bytes()))
}

fn log_invalidation(telemetry: &Publishing, published: Published, at: u64, event: &[u8]) {
    let seq = Seq::issued(published.first.seq().number() + at);
    telemetry.invalidated(Cursor::new(published.first.epoch(), seq), event);
}

/// A response that the log has yet to decide, and what is counted then.
#[derive(Debug)]
pub(crate) struct Pending<P> {
    appended: P,
    telemetry: Arc<Publishing>,
    begun: Begun,
    /// Until it is decided.
    draft: Option<Draft>,
    counts: KindCounts,
    bytes: u64,
    invalidations: Vec<(u64, Box<[u8]>)>,
}

impl<P> Future for Pending<P>
where
    P: Future<Output = Result<Published, AppendError>> + Unpin,
{
    type Output = Result<[u8; RESPONSE_BYTES], Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let appended = ready!(Pin::new(&mut self.appended).poll(cx));
        let draft = self.draft.take();
        let published = match appended {
            Ok(published) => published,
            Err(error) => {
                let status = status::not_appended(&error);
                if let Some(draft) = draft {
                    self.telemetry.draft_refused(draft, &status);
                }
                return Poll::Ready(Err(status));
            }
        };
        let Published { first, last } = published;
        if let Some(draft) = draft {
            let (begun, counts, bytes) = (self.begun, self.counts, self.bytes);
            self.telemetry
                .published(begun, draft, counts, bytes, first, last);
        }
        for (at, event) in &self.invalidations {
            log_invalidation(&self.telemetry, published, *at, event);
        }
        Poll::Ready(Ok(encode_response(published)))
    }
}

/// The same allocation, for events of another request.
fn recycle<'a>(mut events: Vec<Event<'_>>) -> Vec<Event<'a>> {
    events.clear();
    events
        .into_iter()
        .map(|_| unreachable!("it was cleared"))
        .collect()
}

/// A `galaxy.push.publisher.v1.PublishResponse`, with what precedes it as a message.
fn encode_response(published: Published) -> [u8; RESPONSE_BYTES] {
    let mut bytes = [0; RESPONSE_BYTES];
    let (prefix, response) = bytes.split_at_mut(PREFIX_BYTES);
    prefix[PREFIX_BYTES - 1] = (2 * FIELD_BYTES) as u8;
    let (first, last) = response.split_at_mut(FIELD_BYTES);
    for (field, tag, cursor) in [
        (first, FIRST_CURSOR, published.first),
        (last, LAST_CURSOR, published.last),
    ] {
        field[0] = tag;
        field[1] = Cursor::TEXT_BYTES as u8;
        field[2..].copy_from_slice(cursor.to_text().as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::publisher::PublishResponse;
    use crate::cursor::{Epoch, Seq};
    use prost::Message;

    #[test]
    fn a_response_is_what_prost_would_write_after_its_prefix() {
        let epoch = Epoch::new(1_700_000_000_000, 0).unwrap();
        let published = Published {
            first: Cursor::new(epoch, Seq::new(7)),
            last: Cursor::new(epoch, Seq::new(9)),
        };
        let by_prost = PublishResponse {
            first_cursor: published.first.to_string(),
            last_cursor: published.last.to_string(),
        }
        .encode_to_vec();
        let response = encode_response(published);
        let length = (by_prost.len() as u32).to_be_bytes();
        assert_eq!(response[..PREFIX_BYTES], [&[0], &length[..]].concat());
        assert_eq!(response[PREFIX_BYTES..], by_prost);
    }
}
