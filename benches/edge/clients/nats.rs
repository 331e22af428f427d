//! NATS core: one PUB an event, without a response; one SUB a gateway.

use galaxy_push::lab::load::{
    Batch, Begin, Consumer, ProtocolError, Publisher, Responses, Sink, Start,
};

use super::{EVENTS, end};
use crate::wire::nats::{self, Message, Said, said};

/// The one subscription of a connection.
const SUBSCRIPTION: usize = 1;

/// A subscriber. There is no history: it begins with what is published next.
#[derive(Clone, Debug, Default)]
pub(crate) struct NatsConsumer;

impl Consumer for NatsConsumer {
    fn open(&mut self, _begin: Begin, out: &mut Vec<u8>) {
        nats::connect(out);
        nats::subscribe(out, EVENTS, SUBSCRIPTION);
        // Its PONG comes after the subscription is there.
        nats::ping(out);
    }

    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError> {
        let mut read = 0;
        while let Some((what, length)) = said(&bytes[read..])? {
            read += length;
            match what {
                Said::Message(Message { payload, .. }) => sink.event(payload, None),
                Said::Pong => sink.started(&Start::default()),
                Said::Ping => nats::pong(out),
                Said::Error(error) => sink.ended(&end(error)),
                Said::Info(_) | Said::Ok => {}
            }
        }
        Ok(read)
    }
}

/// A publisher.
#[derive(Clone, Debug, Default)]
pub(crate) struct NatsPublisher;

impl Publisher for NatsPublisher {
    const RESPONDS: bool = false;

    fn open(&mut self, out: &mut Vec<u8>) {
        nats::connect(out);
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        for event in batch.events() {
            nats::publish(out, EVENTS.as_bytes(), None, event);
        }
    }

    fn receive<R: Responses>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        responses: &mut R,
    ) -> Result<usize, ProtocolError> {
        let mut read = 0;
        while let Some((what, length)) = said(&bytes[read..])? {
            read += length;
            match what {
                Said::Ping => nats::pong(out),
                Said::Error(error) => responses.ended(&end(error)),
                Said::Message(_) | Said::Pong | Said::Info(_) | Said::Ok => {}
            }
        }
        Ok(read)
    }
}
