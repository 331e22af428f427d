//! NATS JetStream, a stream in memory: each event is acknowledged, and gateways are
//! pushed what they ask for, from the start or from now on.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galaxy_push::lab::load::{
    Batch, Begin, Consumer, ProtocolError, Publisher, Responses, Sink, Start,
};

use super::owed::Owed;
use super::{EVENTS, end, unexpected};
use crate::peers::KEPT_EVENTS;
use crate::wire::jetstream::{OrderedConsumer, StreamConfig, granted, is_flow_control};
use crate::wire::nats::{self, Message, Said, said};

const STREAM: &str = "EVENTS";
/// For a response of a server on the same machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The subscriptions of a connection: to events, and to responses.
const DELIVERED: usize = 1;
const RESPONSES: usize = 2;

/// A subject that nobody else listens to.
fn inbox() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: nothing but different numbers is asked for.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("_INBOX.{}.{number}", std::process::id())
}

/// Creates the stream, once a server.
pub(crate) fn create_stream(at: SocketAddr) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&at, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let (subject, request) = StreamConfig::in_memory(STREAM, EVENTS, KEPT_EVENTS).request()?;
    let reply = inbox();
    let mut out = Vec::new();
    nats::connect(&mut out);
    nats::subscribe(&mut out, &reply, RESPONSES);
    nats::publish(&mut out, subject.as_bytes(), Some(&reply), &request);
    socket.write_all(&out)?;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut read = 0;
        while let Some((what, length)) = said(&received[read..]).map_err(io::Error::other)? {
            read += length;
            match what {
                Said::Message(message) => {
                    return granted(message.payload).map_err(io::Error::other);
                }
                Said::Error(error) => return Err(io::Error::other(end(error).message)),
                _ => {}
            }
        }
        received.drain(..read);
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&buffer[..length]),
        }
    }
}

/// An ordered consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct JetStreamConsumer;

impl Consumer for JetStreamConsumer {
    fn open(&mut self, begin: Begin, out: &mut Vec<u8>) {
        let (deliver, reply) = (inbox(), inbox());
        nats::connect(out);
        nats::subscribe(out, &deliver, DELIVERED);
        nats::subscribe(out, &reply, RESPONSES);
        let request = OrderedConsumer::new(&deliver, begin == Begin::Oldest).request(STREAM);
        // Texts and numbers always have a form in JSON.
        if let Ok((subject, request)) = request {
            nats::publish(out, subject.as_bytes(), Some(&reply), &request);
        }
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
                Said::Message(Message {
                    subscription: DELIVERED,
                    headers,
                    reply,
                    payload,
                    ..
                }) => match (headers, reply) {
                    ([], _) => sink.event(payload, None),
                    (headers, Some(reply)) if is_flow_control(headers) => {
                        nats::publish(out, reply, None, b"");
                    }
                    // A heartbeat.
                    _ => {}
                },
                Said::Message(message) => match granted(message.payload) {
                    Ok(()) => sink.started(&Start::default()),
                    Err(refusal) => sink.ended(&end(refusal.as_bytes())),
                },
                Said::Ping => nats::pong(out),
                Said::Error(error) => sink.ended(&end(error)),
                Said::Info(_) | Said::Ok | Said::Pong => {}
            }
        }
        Ok(read)
    }
}

/// A publisher, which is acknowledged each event.
#[derive(Clone, Debug, Default)]
pub(crate) struct JetStreamPublisher {
    reply: String,
    owed: Owed,
}

impl Publisher for JetStreamPublisher {
    fn open(&mut self, out: &mut Vec<u8>) {
        self.reply = inbox();
        self.owed.clear();
        nats::connect(out);
        nats::subscribe(out, &self.reply, RESPONSES);
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        for event in batch.events() {
            nats::publish(out, EVENTS.as_bytes(), Some(&self.reply), event);
        }
        self.owed.add(batch.len());
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
                Said::Message(message) => match granted(message.payload) {
                    Ok(()) if self.owed.received(responses) => {}
                    Ok(()) => return Err(unexpected("an acknowledgement of nothing")),
                    Err(refusal) => responses.ended(&end(refusal.as_bytes())),
                },
                Said::Ping => nats::pong(out),
                Said::Error(error) => responses.ended(&end(error)),
                Said::Info(_) | Said::Ok | Said::Pong => {}
            }
        }
        Ok(read)
    }
}
