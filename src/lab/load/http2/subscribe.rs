//! `SubscribePush`: a gateway.

use prost::Message as _;

use super::Offer;
use super::connection::{Call, Connection};
use super::grpc::{self, Fields, Messages, PREFIX_BYTES};
use crate::contract::push::GatewaySubscribeRequest;
use crate::cursor::{Cursor, Seq};
use crate::lab::load::protocol::{Begin, Consumer, ProtocolError, Sink, Start};

const PATH: &str = "/galaxy.backend.push.v1.Push/SubscribePush";
/// The cursor is a message's last field: its key, its length, its text.
const CURSOR_FIELD_BYTES: usize = Cursor::FIELD_BYTES;
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
    cursors: Cursors,
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
            cursors: Cursors::default(),
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
            cursors: &mut self.cursors,
            phase: &mut self.phase,
            sink,
        };
        self.connection.receive(bytes, out, &mut stream)
    }
}

struct Stream<'a, S> {
    messages: &'a mut Messages,
    cursors: &'a mut Cursors,
    phase: &'a mut Phase,
    sink: &'a mut S,
}

impl<S: Sink> Stream<'_, S> {
    fn end(&mut self, end: &crate::lab::load::protocol::End) {
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
        let (sink, cursors) = (&mut *self.sink, &mut *self.cursors);
        self.messages.read(bytes, is_complete, |message| {
            let (event, cursor) = cursors.split_off(message)?;
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
            let end = fields.end()?;
            // A stream that stalls is ended wherever its window was shut.
            if end.code == 0 && !self.messages.is_between() {
                return Err(ProtocolError::new("the stream ends inside a message"));
            }
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

/// Reads the cursors of one event after another. Nearly all differ from the one before
/// in their last digit alone, which is seen sooner than all of it is parsed.
#[derive(Clone, Debug, Default)]
struct Cursors {
    last: Option<(Cursor, [u8; Cursor::TEXT_BYTES])>,
}

/// The digits of a cursor.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Cursors {
    /// A message as its producer made it, and the cursor behind it.
    #[inline]
    fn split_off<'a>(&mut self, message: &'a [u8]) -> Result<(&'a [u8], Cursor), ProtocolError> {
        if let Some((event, field)) = message.split_last_chunk::<CURSOR_FIELD_BYTES>()
            && let Some((key, text)) = field.split_first_chunk::<2>()
            && *key == CURSOR_KEY
            && let Some(text) = text.first_chunk::<{ Cursor::TEXT_BYTES }>()
        {
            return Ok((event, self.read(text)?));
        }
        Err(ProtocolError::new("an event has no cursor at its end"))
    }

    #[inline]
    fn read(&mut self, text: &[u8; Cursor::TEXT_BYTES]) -> Result<Cursor, ProtocolError> {
        const LAST: usize = Cursor::TEXT_BYTES - 1;
        if let Some((last, last_text)) = &mut self.last {
            let next = last.seq().number() + 1;
            let digit = (next % 32) as usize;
            let differs_in_last_digit = digit != 0 && text[..LAST] == last_text[..LAST];
            if differs_in_last_digit && text[LAST] == DIGITS[digit] {
                // Not beyond the last sequence: that one ends in the last digit.
                *last = Cursor::new(last.epoch(), Seq::issued(next));
                return Ok(*last);
            }
        }
        let cursor = Cursor::parse(text)
            .map_err(|error| ProtocolError::new(format!("an event's cursor: {error}")))?;
        self.last = Some((cursor, *text));
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Epoch;

    #[test]
    fn cursors_are_what_parsing_makes_of_them() {
        let text = |epoch, seq| {
            let epoch = Epoch::from_number(epoch).unwrap();
            let text = Cursor::new(epoch, Seq::new(seq)).to_text();
            *text.as_str().as_bytes().first_chunk::<24>().unwrap()
        };
        let mut cursors = Cursors::default();
        let last = Seq::MAX.number();
        let numbers = (0..2000).chain([1999, 5, 6, 7, 7, 8, last - 1, last, 0, 1]);
        for (n, seq) in numbers.enumerate() {
            let text = text(7 + n as u64 / 1500, seq);
            assert_eq!(cursors.read(&text).ok(), Cursor::parse(&text).ok());
        }
        let mut bad = text(7, 33);
        bad[23] = b'u';
        assert!(cursors.read(&bad).is_err());
        assert!(cursors.split_off(&bad).is_err());
    }
}
