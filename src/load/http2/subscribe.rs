//! `SubscribePush`: a gateway.

use prost::Message as _;

use super::Offer;
use super::connection::{Call, Connection};
use super::grpc::{self, Fields, Messages, PREFIX_BYTES};
use crate::cursor::Cursor;
use crate::load::protocol::{Begin, Consumer, ProtocolError, Sink, Start};
use crate::proto::push::GatewaySubscribeRequest;

const PATH: &str = "/galaxy.backend.push.v1.Push/SubscribePush";
/// The cursor is a message's last field: its key, its length, its text.
const CURSOR_FIELD_BYTES: usize = 2 + Cursor::TEXT_BYTES;
const CURSOR_KEY: [u8; 2] = [3 << 3 | 2, Cursor::TEXT_BYTES as u8];

/// One gateway: it subscribes under its own id.
#[derive(Clone, Debug)]
pub struct Subscribe {
    id: String,
    authority: String,
    /// Where [`Begin::Oldest`] is, which only a cursor can say.
    oldest: Option<Cursor>,
    connection: Connection,
    messages: Messages,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asked,
    Started,
    Ended,
}

impl Subscribe {
    /// A gateway of this id, for a server that is called so.
    #[must_use]
    pub fn new(id: impl Into<String>, authority: impl Into<String>, offer: Offer) -> Self {
        Subscribe {
            id: id.into(),
            authority: authority.into(),
            oldest: None,
            connection: Connection::new(offer),
            messages: Messages::default(),
            phase: Phase::Ended,
        }
    }

    /// The same, which takes the position after this cursor for the oldest one.
    #[must_use]
    pub fn oldest_after(mut self, cursor: Cursor) -> Self {
        self.oldest = Some(cursor);
        self
    }
}

impl Consumer for Subscribe {
    fn open(&mut self, begin: Begin, out: &mut Vec<u8>) {
        self.messages.clear();
        self.phase = Phase::Asked;
        let after = match begin {
            Begin::Head => None,
            Begin::Oldest => self.oldest,
            Begin::After(cursor) => Some(cursor),
        };
        let request = GatewaySubscribeRequest {
            gateway_client_id: self.id.clone(),
            cursor: after.map(|cursor| cursor.to_string()).unwrap_or_default(),
        };
        let mut message = vec![0; PREFIX_BYTES];
        message[1..].copy_from_slice(&(request.encoded_len() as u32).to_be_bytes());
        message.extend_from_slice(&request.encode_to_vec());
        self.connection.open(&self.authority, PATH, out);
        // An id and a cursor fit into any frame.
        self.connection.send(&message, true, out);
    }

    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError> {
        let mut stream = Stream {
            messages: &mut self.messages,
            phase: &mut self.phase,
            sink,
        };
        self.connection.receive(bytes, out, &mut stream)
    }
}

struct Stream<'a, S> {
    messages: &'a mut Messages,
    phase: &'a mut Phase,
    sink: &'a mut S,
}

impl<S: Sink> Stream<'_, S> {
    fn end(&mut self, end: &crate::load::protocol::End) {
        if *self.phase != Phase::Ended {
            *self.phase = Phase::Ended;
            self.sink.ended(end);
        }
    }
}

impl<S: Sink> Call for Stream<'_, S> {
    fn data(&mut self, bytes: &[u8], is_complete: bool) -> Result<usize, ProtocolError> {
        if *self.phase != Phase::Started {
            return Err(ProtocolError::new("data before the response's head"));
        }
        let sink = &mut *self.sink;
        self.messages.read(bytes, is_complete, |message| {
            let (event, cursor) = split_cursor(message)?;
            sink.event(event, Some(cursor));
            Ok(())
        })
    }

    fn headers(&mut self, block: &[u8], ends: bool) -> Result<(), ProtocolError> {
        let fields = Fields::read(block)?;
        if ends {
            if *self.phase == Phase::Asked {
                fields.check_head()?;
            }
            if !self.messages.is_between() {
                return Err(ProtocolError::new("the stream ends inside a message"));
            }
            let end = fields.end()?;
            self.end(&end);
            return Ok(());
        }
        if *self.phase != Phase::Asked {
            return Err(ProtocolError::new("a second head of one response"));
        }
        fields.check_head()?;
        *self.phase = Phase::Started;
        let cursor = match fields.start_cursor.as_str() {
            // A server of the contract alone does not say it.
            "" => None,
            text => Some(text.parse().map_err(|error| {
                ProtocolError::new(format!("push-start-cursor: {text:?}: {error}"))
            })?),
        };
        self.sink.started(&Start {
            cursor,
            reason: fields.resume_reason,
            missed: fields.missed,
        });
        Ok(())
    }

    fn body_ended(&mut self) -> Result<(), ProtocolError> {
        Err(ProtocolError::new("the stream ends without a gRPC status"))
    }

    fn reset(&mut self, code: u32) -> Result<(), ProtocolError> {
        self.end(&grpc::reset(code));
        Ok(())
    }
}

/// A message as its producer made it, and the cursor behind it.
#[inline]
fn split_cursor(message: &[u8]) -> Result<(&[u8], Cursor), ProtocolError> {
    let event_bytes = message.len().checked_sub(CURSOR_FIELD_BYTES);
    if let Some((event, field)) = event_bytes.and_then(|at| message.split_at_checked(at))
        && let Some(text) = field.strip_prefix(&CURSOR_KEY)
    {
        return match Cursor::parse(text) {
            Ok(cursor) => Ok((event, cursor)),
            Err(error) => Err(ProtocolError::new(format!("an event's cursor: {error}"))),
        };
    }
    Err(ProtocolError::new("an event has no cursor at its end"))
}
