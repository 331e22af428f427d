//! `PublishStream`: a publisher.

use http::HeaderValue;
use prost::Message as _;

use super::Offer;
use super::grpc::{self, Fields, Messages};
use crate::contract::publisher::PublishResponse;
use crate::contract::{MESSAGE_PREFIX_BYTES, path};
use crate::cursor::Cursor;
use crate::http2::client::{Connection, Event};
use crate::lab::load::event::Batch;
use crate::lab::load::protocol::{ProtocolError, Publisher, Responses};

/// `events`, the one field of a request.
const EVENTS_KEY: u8 = 1 << 3 | 2;

/// One publisher, which pipelines its requests on one stream.
#[derive(Debug)]
pub struct Publish {
    authority: String,
    authorization: Option<HeaderValue>,
    offer: Offer,
    /// The one that was opened last.
    connection: Option<Connection>,
    messages: Messages,
    /// What the server's windows have not let out, from `sent` on.
    queue: Vec<u8>,
    sent: usize,
    has_ended: bool,
}

impl Publish {
    /// A publisher for a server that is called so.
    #[must_use]
    pub fn new(authority: impl Into<String>, offer: Offer) -> Self {
        Publish {
            authority: authority.into(),
            authorization: None,
            offer,
            connection: None,
            messages: Messages::default(),
            queue: Vec::new(),
            sent: 0,
            has_ended: true,
        }
    }

    /// The same, with this `authorization` field in its call.
    #[must_use]
    pub fn authorization(mut self, value: Option<HeaderValue>) -> Self {
        self.authorization = value;
        self
    }

    /// Sends of the queue what the windows let out.
    fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some(connection) = &mut self.connection {
            self.sent += connection.send(&self.queue[self.sent..], false, out);
        }
        if self.sent < self.queue.len() {
            return;
        }
        self.queue.clear();
        self.sent = 0;
    }
}

impl Publisher for Publish {
    fn open(&mut self, out: &mut Vec<u8>) {
        self.messages.clear();
        self.queue.clear();
        self.sent = 0;
        self.has_ended = false;
        self.connection = Some(grpc::open(
            self.offer,
            &self.authority,
            path::PUBLISH_STREAM,
            self.authorization.as_ref(),
            out,
        ));
    }

    fn has_room(&self) -> bool {
        self.queue.is_empty() && !self.has_ended
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let field_bytes = |event: &[u8]| 1 + prost::length_delimiter_len(event.len()) + event.len();
        let message_bytes: usize = batch.events().map(field_bytes).sum();
        self.queue.reserve(MESSAGE_PREFIX_BYTES + message_bytes);
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

    fn receive<R: Responses>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        responses: &mut R,
    ) -> Result<usize, ProtocolError> {
        let Some(connection) = &mut self.connection else {
            return Ok(bytes.len());
        };
        let mut input = bytes;
        while let Some(event) = connection.receive(&mut input, out)? {
            let end = match event {
                Event::Data { data, ends } => {
                    self.messages.read(data, |message| {
                        responses.accepted(Some(places(message)?));
                        Ok(())
                    })?;
                    if ends {
                        return Err(grpc::no_status());
                    }
                    continue;
                }
                Event::Head {
                    status,
                    fields,
                    ends,
                } => {
                    grpc::check_status(status)?;
                    if !ends {
                        continue;
                    }
                    Fields::read(&fields).end()?
                }
                Event::Trailers(fields) => Fields::read(&fields).end()?,
                Event::Reset(code) => grpc::reset(code),
            };
            self.has_ended = true;
            responses.ended(&end);
        }
        self.flush(out);
        Ok(bytes.len())
    }
}

/// The cursors of a response.
fn places(message: &[u8]) -> Result<(Cursor, Cursor), ProtocolError> {
    let response = PublishResponse::decode(message)
        .map_err(|error| ProtocolError::new(format!("not a PublishResponse: {error}")))?;
    let cursor = |text: &str| {
        text.parse::<Cursor>()
            .map_err(|error| ProtocolError::new(format!("a response's cursor: {text:?}: {error}")))
    };
    Ok((
        cursor(&response.first_cursor)?,
        cursor(&response.last_cursor)?,
    ))
}
