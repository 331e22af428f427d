//! `PublishStream`: a producer.

use prost::Message as _;

use super::Offer;
use super::connection::{Call, Connection};
use super::grpc::{self, Fields, Messages};
use crate::contract::publisher::PublishResponse;
use crate::cursor::Cursor;
use crate::lab::load::event::Batch;
use crate::lab::load::protocol::{Answers, End, Producer, ProtocolError};

const PATH: &str = "/galaxy.push.publisher.v1.Publisher/PublishStream";
/// `events`, the one field of a request.
const EVENTS_KEY: u8 = 1 << 3 | 2;

/// One producer, which pipelines its requests on one stream.
#[derive(Clone, Debug)]
pub struct Publish {
    authority: String,
    connection: Connection,
    messages: Messages,
    /// What the server's windows have not let out, from `sent` on.
    queue: Vec<u8>,
    sent: usize,
    has_ended: bool,
}

impl Publish {
    /// A producer for a server that is called so.
    #[must_use]
    pub fn new(authority: impl Into<String>, offer: Offer) -> Self {
        Publish {
            authority: authority.into(),
            connection: Connection::new(offer),
            messages: Messages::default(),
            queue: Vec::new(),
            sent: 0,
            has_ended: true,
        }
    }

    /// Sends of the queue what the windows let out.
    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.sent < self.queue.len() {
            let rest = &self.queue[self.sent..];
            let sendable = self.connection.sendable_bytes().min(rest.len());
            if sendable == 0 {
                return;
            }
            self.connection.send(&rest[..sendable], false, out);
            self.sent += sendable;
        }
        self.queue.clear();
        self.sent = 0;
    }
}

impl Producer for Publish {
    fn open(&mut self, out: &mut Vec<u8>) {
        self.messages.clear();
        self.queue.clear();
        self.sent = 0;
        self.has_ended = false;
        self.connection.open(&self.authority, PATH, out);
    }

    fn has_room(&self) -> bool {
        self.queue.is_empty() && !self.has_ended
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let field_bytes = |event: &[u8]| 1 + prost::length_delimiter_len(event.len()) + event.len();
        let message_bytes: usize = batch.events().map(field_bytes).sum();
        self.queue.reserve(grpc::PREFIX_BYTES + message_bytes);
        self.queue.push(0);
        self.queue
            .extend_from_slice(&(message_bytes as u32).to_be_bytes());
        for event in batch.events() {
            self.queue.push(EVENTS_KEY);
            prost::encoding::encode_varint(event.len() as u64, &mut self.queue);
            self.queue.extend_from_slice(event);
        }
        self.flush(out);
    }

    fn receive<A: Answers>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        answers: &mut A,
    ) -> Result<usize, ProtocolError> {
        let mut stream = Stream {
            messages: &mut self.messages,
            has_ended: &mut self.has_ended,
            answers,
        };
        let done = self.connection.receive(bytes, out, &mut stream)?;
        self.flush(out);
        Ok(done)
    }
}

struct Stream<'a, A> {
    messages: &'a mut Messages,
    has_ended: &'a mut bool,
    answers: &'a mut A,
}

impl<A: Answers> Stream<'_, A> {
    fn end(&mut self, end: &End) {
        if !std::mem::replace(self.has_ended, true) {
            self.answers.ended(end);
        }
    }
}

impl<A: Answers> Call for Stream<'_, A> {
    fn data(&mut self, bytes: &[u8], is_complete: bool) -> Result<usize, ProtocolError> {
        let answers = &mut *self.answers;
        self.messages.read(bytes, is_complete, |message| {
            answers.accepted(Some(places(message)?));
            Ok(())
        })
    }

    fn headers(&mut self, block: &[u8], ends: bool) -> Result<(), ProtocolError> {
        let fields = Fields::read(block)?;
        if ends {
            let end = fields.end()?;
            self.end(&end);
            return Ok(());
        }
        fields.check_head()
    }

    fn body_ended(&mut self) -> Result<(), ProtocolError> {
        Err(ProtocolError::new("the stream ends without a gRPC status"))
    }

    fn reset(&mut self, code: u32) -> Result<(), ProtocolError> {
        self.end(&grpc::reset(code));
        Ok(())
    }
}

/// The cursors of an answer.
fn places(message: &[u8]) -> Result<(Cursor, Cursor), ProtocolError> {
    let answer = PublishResponse::decode(message)
        .map_err(|error| ProtocolError::new(format!("not a PublishResponse: {error}")))?;
    let cursor = |text: &str| {
        text.parse::<Cursor>()
            .map_err(|error| ProtocolError::new(format!("an answer's cursor: {text:?}: {error}")))
    };
    Ok((cursor(&answer.first_cursor)?, cursor(&answer.last_cursor)?))
}
