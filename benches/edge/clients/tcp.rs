//! The plain TCP server's clients.

use std::collections::VecDeque;

use galaxy_push::cursor::Cursor;

use galaxy_push::lab::load::{
    Batch, Begin, Consumer, ProtocolError, Publisher, Responses, Sink, Start,
};

use super::unexpected;
use crate::peers::tcp::{CURSOR_BYTES, LIVE, NUMBER_BYTES, split_frame};

/// A gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct TcpConsumer {
    started: bool,
}

impl Consumer for TcpConsumer {
    fn open(&mut self, begin: Begin, out: &mut Vec<u8>) {
        self.started = false;
        let after = match begin {
            Begin::Head => LIVE,
            Begin::Oldest => 0,
            Begin::After(cursor) => cursor.seq().number(),
        };
        out.extend_from_slice(&after.to_be_bytes());
    }

    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError> {
        let mut rest = bytes;
        if !self.started {
            let Some((text, behind)) = rest.split_at_checked(Cursor::TEXT_BYTES) else {
                return Ok(0);
            };
            rest = behind;
            self.started = true;
            sink.started(&Start {
                cursor: Some(cursor(text)?),
                ..Start::default()
            });
        }
        while let Some((content, behind)) =
            split_frame(rest).map_err(|error| unexpected(error.to_string()))?
        {
            rest = behind;
            let split = content.len().checked_sub(CURSOR_BYTES);
            let split = split.ok_or_else(|| unexpected("a frame without a cursor"))?;
            let (event, field) = content.split_at(split);
            let text = &field[CURSOR_BYTES - Cursor::TEXT_BYTES..];
            sink.event(event, Some(cursor(text)?));
        }
        Ok(bytes.len() - rest.len())
    }
}

fn cursor(text: &[u8]) -> Result<Cursor, ProtocolError> {
    Cursor::parse(text).map_err(|error| unexpected(error.to_string()))
}

/// A publisher, which is told how many events have arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct TcpPublisher {
    sent: u64,
    /// How many events have been sent with the end of each batch.
    ends: VecDeque<u64>,
}

impl Publisher for TcpPublisher {
    fn open(&mut self, _out: &mut Vec<u8>) {
        *self = TcpPublisher::default();
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        for event in batch.events() {
            out.push(0);
            // Our own events are a few kilobytes at most.
            out.extend_from_slice(&(event.len() as u32).to_be_bytes());
            out.extend_from_slice(event);
        }
        self.sent += batch.len() as u64;
        self.ends.push_back(self.sent);
    }

    fn receive<R: Responses>(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        responses: &mut R,
    ) -> Result<usize, ProtocolError> {
        let counts = bytes.chunks_exact(NUMBER_BYTES);
        let read = bytes.len() - counts.remainder().len();
        // Only the newest count matters.
        if let Some(count) = counts.last().and_then(|count| count.first_chunk()) {
            let count = u64::from_be_bytes(*count);
            while self.ends.front().is_some_and(|end| *end <= count) {
                self.ends.pop_front();
                responses.accepted(None);
            }
        }
        Ok(read)
    }
}
