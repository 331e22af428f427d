//! The way into the ring: a request's bytes, and the answer's.

use crate::cursor::Cursor;
use crate::edge::grpc::PREFIX_BYTES;
use crate::edge::status;
use crate::engine::{Engine, Published, Publisher};
use crate::event::{Event, parse_publish_request};
use tonic::Status;

/// A request may be as large as gRPC allows by default, or hold one event of the
/// largest size. More would let one request take as much memory as the ring, for
/// nothing: `PublishStream` pipelines.
const MIN_REQUEST_BYTES: usize = 4 << 20;
/// What precedes an event in a request: a tag of one byte, a length of up to ten.
const EVENT_PREFIX_BYTES: usize = 11;
/// Memory for so many events of a request is kept for the next.
const KEPT_EVENTS: usize = 4096;

/// A `PublishResponse` on the wire: its prefix, and two string fields of a known length.
pub(super) const ANSWER_BYTES: usize = PREFIX_BYTES + 2 * FIELD_BYTES;
const FIELD_BYTES: usize = 2 + Cursor::TEXT_BYTES;
/// Field 1 and field 2, both length-delimited.
const FIRST_CURSOR: u8 = 1 << 3 | 2;
const LAST_CURSOR: u8 = 2 << 3 | 2;

/// Puts requests into an engine, for one connection.
#[derive(Debug)]
pub(super) struct Door {
    publisher: Publisher,
    max_event_bytes: usize,
    /// Kept for its allocation; empty between requests.
    events: Vec<Event<'static>>,
}

impl Door {
    pub(super) fn new(engine: &Engine) -> Self {
        Door {
            publisher: engine.publisher(),
            max_event_bytes: engine.limits().max_event_bytes,
            events: Vec::new(),
        }
    }

    /// The longest request, in bytes.
    pub(super) fn max_request_bytes(engine: &Engine) -> usize {
        let largest_event = engine.limits().max_event_bytes + EVENT_PREFIX_BYTES;
        largest_event.max(MIN_REQUEST_BYTES)
    }

    /// Publishes a `PublishRequest`: all of its events, or none. The bytes are checked in
    /// place, and copied once, into the ring.
    pub(super) fn publish(&mut self, request: &[u8]) -> Result<Published, Status> {
        let mut events = recycle(std::mem::take(&mut self.events));
        let published = parse_publish_request(request, self.max_event_bytes, &mut events)
            .map_err(|error| status::bad_request(&error))
            .and_then(|()| {
                let published = self.publisher.publish_batch(&events);
                published.map_err(|error| status::not_published(&error))
            });
        if events.capacity() <= KEPT_EVENTS {
            self.events = recycle(events);
        }
        published
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
pub(super) fn answer(published: Published) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
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
    use crate::edge::grpc;
    use prost::Message;

    #[test]
    fn an_answer_is_what_prost_would_write_after_its_prefix() {
        let epoch = Epoch::from_millis(1_700_000_000_000).unwrap();
        let published = Published {
            first: Cursor::new(epoch, Seq::new(7)),
            last: Cursor::new(epoch, Seq::new(9)),
        };
        let by_prost = PublishResponse {
            first_cursor: published.first.to_string(),
            last_cursor: published.last.to_string(),
        }
        .encode_to_vec();
        let answer = answer(published);
        assert_eq!(grpc::message_bytes(&answer).unwrap(), Some(by_prost.len()));
        assert_eq!(answer[PREFIX_BYTES..], by_prost);
    }
}
