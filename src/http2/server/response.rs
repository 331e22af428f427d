//! One stream in parts that can be used at the same time: its state, the request's body,
//! the response.

use http::HeaderMap;

use super::budget::Budget;
use super::closed::{Closed, ClosedStreams};
use super::stream::{EndCause, Sendable, Stream};
use crate::http2::flow_control::{FlowControl, SendWindow};
use crate::http2::frame::{self, Reason, kind};
use crate::http2::hpack::{FieldsWriter, index};

/// How far a stream's response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its head was not sent.
    None,
    /// Its head was sent.
    Begun,
    /// The stream has ended, whoever ended it.
    Ended(EndCause),
}

/// What is to be written, and what the peer's HPACK decoder knows.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// Whether the peer knows that we use no table.
    no_table: bool,
}

/// A stream's parts.
#[derive(Debug)]
pub struct Parts<'a, S> {
    /// What the server keeps with the stream.
    pub state: &'a mut S,
    /// What was kept of the request's body.
    pub body: Body<'a>,
    /// The response.
    pub response: Response<'a>,
}

impl<'a, S> Parts<'a, S> {
    pub(super) fn new(
        stream: &'a mut Stream<S>,
        flow: &'a mut FlowControl,
        output: &'a mut Output,
        budget: &'a mut Budget,
        closed: &'a mut ClosedStreams,
        ended: &'a mut usize,
    ) -> Self {
        Parts {
            state: &mut stream.state,
            body: Body {
                bytes: &stream.body,
                is_complete: stream.is_complete,
            },
            response: Response {
                id: stream.id,
                is_complete: stream.is_complete,
                receive_left: stream.receive.left(),
                uncredited: stream.uncredited,
                phase: &mut stream.phase,
                send: &mut stream.send,
                flow,
                output,
                budget,
                closed,
                ended,
            },
        }
    }
}

/// A request's body, as far as it was [buffered](super::Connection::buffer).
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    bytes: &'a [u8],
    is_complete: bool,
}

impl<'a> Body<'a> {
    /// What was buffered and not [taken](super::Connection::take_body).
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the request has arrived in full.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// A response. Once it has ended, nothing more can be sent.
#[derive(Debug)]
pub struct Response<'a> {
    id: u32,
    /// Of the request: whether it is complete, what the peer may still send of it, and
    /// what has arrived and is not given back.
    is_complete: bool,
    receive_left: u32,
    uncredited: u32,
    phase: &'a mut Phase,
    send: &'a mut SendWindow,
    flow: &'a mut FlowControl,
    output: &'a mut Output,
    budget: &'a mut Budget,
    closed: &'a mut ClosedStreams,
    ended: &'a mut usize,
}

impl Response<'_> {
    /// Whether its head was sent.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        *self.phase == Phase::Begun
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Begins the response.
    pub fn head(&mut self, code: u16, fields: &HeaderMap) {
        if *self.phase == Phase::None {
            *self.phase = Phase::Begun;
            self.output.head(self.id, code, fields, false);
        }
    }

    /// Sends a response that is all head.
    pub fn whole(&mut self, code: u16, fields: &HeaderMap) {
        if *self.phase == Phase::None {
            self.output.head(self.id, code, fields, true);
            self.finish();
        }
    }

    /// Sends as much of `data` as both windows allow, and returns how much that is. None
    /// before the head.
    pub fn send(&mut self, data: &[u8]) -> usize {
        let mut rest = data;
        while self.is_begun() && !rest.is_empty() {
            let bytes = Sendable::new(self.flow).plan_on(self.send, 0, rest.len());
            if bytes == 0 {
                break;
            }
            let (piece, after) = rest.split_at(bytes as usize);
            frame::write(&mut self.output.bytes, kind::DATA, 0, self.id, piece);
            self.sent(bytes);
            rest = after;
        }
        data.len() - rest.len()
    }

    /// A DATA frame of so many bytes goes out.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.send.sent(bytes);
        self.flow.send.sent(bytes);
        self.budget.data_frame(bytes);
    }

    /// Ends the response after its data, all of which must have been sent.
    pub fn trailers(&mut self, fields: &HeaderMap) {
        if *self.phase == Phase::Begun {
            self.output.trailers(self.id, fields);
            self.finish();
        }
    }

    fn finish(&mut self) {
        if !self.is_complete {
            // What is left of the request is not wanted (RFC 9113, section 8.1).
            self.output.reset(self.id, Reason::NoError);
        }
        self.end(EndCause::Finished);
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        if !self.is_ended() {
            self.output.reset(self.id, reason);
            self.end(EndCause::Reset(reason));
        }
    }

    /// Nothing more comes of the stream.
    pub(super) fn end(&mut self, cause: EndCause) {
        if self.is_ended() {
            return;
        }
        *self.phase = Phase::Ended(cause);
        *self.ended += 1;
        if cause != EndCause::ConnectionFailed {
            self.flow.release(self.uncredited, &mut self.output.bytes);
        }
        let closed = match cause {
            EndCause::Finished | EndCause::Reset(_) => Closed::by_us(self.is_complete),
            EndCause::ResetByPeer(_) => Closed::Reset,
            EndCause::ConnectionFailed => return,
        };
        self.closed.remember(self.id, closed);
        if closed == Closed::Early {
            self.flow.expect_late(self.receive_left);
        }
    }
}

impl Output {
    /// Appends a response's head.
    pub(super) fn head(&mut self, stream: u32, code: u16, fields: &HeaderMap, ends: bool) {
        let mut block = Vec::with_capacity(256);
        let mut writer = self.block_writer(&mut block);
        match code {
            200 => writer.indexed(index::STATUS_200),
            _ => writer.with_indexed_name(index::STATUS, code.to_string().as_bytes()),
        }
        writer.fields(fields);
        frame::write_block(&mut self.bytes, stream, &block, ends);
    }

    fn trailers(&mut self, stream: u32, fields: &HeaderMap) {
        let mut block = Vec::with_capacity(256);
        let mut writer = self.block_writer(&mut block);
        writer.fields(fields);
        frame::write_block(&mut self.bytes, stream, &block, true);
    }

    /// Appends RST_STREAM.
    pub(super) fn reset(&mut self, stream: u32, reason: Reason) {
        let reason = (reason as u32).to_be_bytes();
        frame::write(&mut self.bytes, kind::RST_STREAM, 0, stream, &reason);
    }

    /// Appends GOAWAY: streams up to `last` may have been processed.
    pub(super) fn go_away(&mut self, last: u32, reason: Reason, text: &str) {
        frame::write_go_away(&mut self.bytes, last, reason, text);
    }

    fn block_writer<'a>(&mut self, block: &'a mut Vec<u8>) -> FieldsWriter<'a> {
        let mut writer = FieldsWriter::new(block);
        if !std::mem::replace(&mut self.no_table, true) {
            writer.no_table();
        }
        writer
    }
}
