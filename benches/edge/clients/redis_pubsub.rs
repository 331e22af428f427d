//! Redis pub/sub: one PUBLISH an event, pipelined; one SUBSCRIBE a gateway.

use galaxy_push::lab::load::{
    Batch, Begin, Consumer, ProtocolError, Publisher, Responses, Sink, Start,
};

use super::owed::Owed;
use super::{EVENTS, end, unexpected};
use crate::wire::resp::{Piece, Pieces, command};

/// A subscriber. There is no history: it begins with what is published next.
#[derive(Clone, Debug, Default)]
pub(crate) struct PubSubConsumer;

impl Consumer for PubSubConsumer {
    fn open(&mut self, _begin: Begin, out: &mut Vec<u8>) {
        command(out, &[b"SUBSCRIBE", EVENTS.as_bytes()]);
    }

    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError> {
        let mut pieces = Pieces::new(bytes);
        let mut read = 0;
        while let Some(head) = pieces.next()? {
            if let Piece::Error(error) = head {
                sink.ended(&end(error));
                return Ok(bytes.len());
            }
            let (Some(kind), Some(_channel), Some(content)) =
                (pieces.next()?, pieces.next()?, pieces.next()?)
            else {
                break;
            };
            match (head, kind, content) {
                (
                    Piece::Array(Some(3)),
                    Piece::Bulk(Some(b"message")),
                    Piece::Bulk(Some(event)),
                ) => {
                    sink.event(event, None);
                }
                (Piece::Array(Some(3)), Piece::Bulk(Some(b"subscribe")), Piece::Integer(_)) => {
                    sink.started(&Start::default());
                }
                _ => return Err(unexpected("neither a message nor a subscription")),
            }
            read = pieces.read();
        }
        Ok(read)
    }
}

/// A publisher, which is told how many subscribers got each event.
#[derive(Clone, Debug, Default)]
pub(crate) struct PubSubPublisher {
    owed: Owed,
}

impl Publisher for PubSubPublisher {
    fn open(&mut self, _out: &mut Vec<u8>) {
        self.owed.clear();
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        for event in batch.events() {
            command(out, &[b"PUBLISH", EVENTS.as_bytes(), event]);
        }
        self.owed.add(batch.len());
    }

    fn receive<R: Responses>(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        responses: &mut R,
    ) -> Result<usize, ProtocolError> {
        let mut pieces = Pieces::new(bytes);
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Integer(_) if self.owed.received(responses) => {}
                Piece::Error(error) => responses.ended(&end(error)),
                _ => return Err(unexpected("no response to PUBLISH")),
            }
        }
        Ok(pieces.read())
    }
}
