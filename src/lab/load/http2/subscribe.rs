//! `SubscribePush`: a gateway.

use http::HeaderValue;
use prost::Message as _;

use super::Offer;
use super::grpc::{self, Fields, Messages};
use crate::contract::push::GatewaySubscribeRequest;
use crate::contract::{MESSAGE_PREFIX_BYTES, path};
use crate::cursor::{Cursor, Seq};
use crate::http2::client::{Connection, Event};
use crate::lab::load::protocol::{Begin, Consumer, ProtocolError, Sink, Start};

/// The cursor is a message's last field: its key, its length, its text.
const CURSOR_FIELD_BYTES: usize = Cursor::FIELD_BYTES;
const CURSOR_KEY: [u8; 2] = [3 << 3 | 2, Cursor::TEXT_BYTES as u8];

/// One gateway: it subscribes under its own id.
#[derive(Debug)]
pub struct Subscribe {
    id: String,
    authority: String,
    authorization: Option<HeaderValue>,
    /// Where [`Begin::Oldest`] is, which only a cursor can say.
    oldest: Option<Cursor>,
    offer: Offer,
    /// The one that was opened last.
    connection: Option<Connection>,
    messages: Messages,
    cursors: Cursors,
}

impl Subscribe {
    /// A gateway of this id, for a server that is called so.
    #[must_use]
    pub fn new(id: impl Into<String>, authority: impl Into<String>, offer: Offer) -> Self {
        Subscribe {
            id: id.into(),
            authority: authority.into(),
            authorization: None,
            oldest: None,
            offer,
            connection: None,
            messages: Messages::default(),
            cursors: Cursors::default(),
        }
    }

    /// The same, with this `authorization` field in its call.
    #[must_use]
    pub fn authorization(mut self, value: Option<HeaderValue>) -> Self {
        self.authorization = value;
        self
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
        let after = match begin {
            Begin::Head => None,
            Begin::Oldest => self.oldest,
            Begin::After(cursor) => Some(cursor),
        };
        let request = GatewaySubscribeRequest {
            gateway_client_id: self.id.clone(),
            cursor: after.map(|cursor| cursor.to_string()).unwrap_or_default(),
        };
        let mut message = vec![0; MESSAGE_PREFIX_BYTES];
        message[1..].copy_from_slice(&(request.encoded_len() as u32).to_be_bytes());
        message.extend_from_slice(&request.encode_to_vec());
        let mut connection = grpc::open(
            self.offer,
            &self.authority,
            path::SUBSCRIBE_PUSH,
            self.authorization.as_ref(),
            out,
        );
        // An id and a cursor fit into any window.
        connection.send(&message, true, out);
        self.connection = Some(connection);
    }

    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError> {
        let Some(connection) = &mut self.connection else {
            return Ok(bytes.len());
        };
        let (messages, cursors) = (&mut self.messages, &mut self.cursors);
        let mut input = bytes;
        while let Some(event) = connection.receive(&mut input, out)? {
            match event {
                Event::Data { data, ends } => {
                    messages.read(data, |message| {
                        let (event, cursor) = cursors.split_off(message)?;
                        sink.event(event, Some(cursor));
                        Ok(())
                    })?;
                    if ends {
                        return Err(grpc::no_status());
                    }
                }
                Event::Head {
                    status,
                    fields,
                    ends,
                } => {
                    grpc::check_status(status)?;
                    let fields = Fields::read(&fields);
                    if ends {
                        sink.ended(&fields.end()?);
                    } else {
                        sink.started(&start(fields)?);
                    }
                }
                Event::Trailers(fields) => {
                    let end = Fields::read(&fields).end()?;
                    // A stream that stalls is ended wherever its window was shut.
                    if end.code == 0 && !messages.is_between() {
                        return Err(ProtocolError::new("the stream ends inside a message"));
                    }
                    sink.ended(&end);
                }
                Event::Reset(code) => sink.ended(&grpc::reset(code)),
            }
        }
        Ok(bytes.len())
    }
}

/// Where the head of a response says that its stream begins.
fn start(head: Fields) -> Result<Start, ProtocolError> {
    let cursor = match head.start_cursor.as_str() {
        // A server of the contract alone does not say it.
        "" => None,
        text => Some(text.parse().map_err(|error| {
            ProtocolError::new(format!("push-start-cursor: {text:?}: {error}"))
        })?),
    };
    Ok(Start {
        cursor,
        reason: head.resume_reason,
        missed: head.missed,
    })
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
    /// A message as its publisher made it, and the cursor behind it.
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
