//! What each frame does (RFC 9113, section 6), and what comes of it.

use std::time::Instant;

use super::Connection;
use super::budget::{self, Cause};
use super::closed::Closed;
use super::stream::EndCause;
use crate::http2::error::Error;
use crate::http2::flow_control::{FlowControl, Overflow};
use crate::http2::frame::{self, INITIAL_WINDOW, MAX_WINDOW, PREFACE, Reason, flag, kind};
use crate::http2::reader::Frame;
use crate::http2::request::RequestHead;

/// How TLS begins: a handshake's record, of version 3.x (RFC 8446, 5.1).
const TLS_HANDSHAKE: &[u8] = &[22, 3];

/// What has arrived.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request's head. Its stream is open, at the index `at`.
    Request {
        /// The stream's index.
        at: usize,
        /// The stream's identifier.
        stream: u32,
        /// What is asked for.
        head: Box<RequestHead>,
        /// Whether nothing follows: the request has no body.
        ends: bool,
    },
    /// Data of a request's body, not kept anywhere: the caller says what it has
    /// [consumed](Connection::consumed) and what it wants to be
    /// [buffered](Connection::buffer).
    Data {
        /// The stream's index.
        at: usize,
        /// A piece of the body as it arrived: frames and reads cut it anywhere. Empty only
        /// where it `ends`.
        data: &'a [u8],
        /// Whether the request has arrived in full.
        ends: bool,
    },
}

/// The DATA frame whose pieces arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DataFrame {
    /// `None`: its data is ignored, and has been given back to the windows.
    stream: Option<u32>,
    ends_stream: bool,
}

/// How a peer breaks a rule.
pub(super) enum Violation {
    /// It ends the connection.
    Connection(Error),
    /// It ends the stream.
    Stream(u32, Reason),
}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Violation::Connection(error)
    }
}

pub(super) type Handled<'a> = Result<Option<Event<'a>>, Violation>;

impl<S: Default> Connection<S> {
    /// Takes bytes from the front of `input` until there is an event. `None` when all of
    /// them are used.
    ///
    /// # Errors
    ///
    /// [`Error`] ends the connection: write the rest of [`output`](Self::output), and close
    /// it.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a [u8],
        now: Instant,
    ) -> Result<Option<Event<'a>>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.budget.tick(now);
        let received = self.next_event(input);
        if let Err(error) = received {
            self.fail(error);
        }
        received
    }

    fn next_event<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        if self.preface_bytes < PREFACE.len() {
            self.preface(input)?;
        }
        loop {
            let handled = if let Some((stream, data, ends)) = self.reader.whole_data(input) {
                self.whole_data(stream, data, ends)
            } else if let Some(frame) = self.reader.next(input)? {
                self.frame(frame)
            } else {
                return Ok(None);
            };
            match handled {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(Violation::Connection(error)) => return Err(error),
                Err(Violation::Stream(stream, reason)) => {
                    self.stream_error(stream, reason)?;
                }
            }
        }
    }

    /// A DATA frame with its only piece.
    fn whole_data<'a>(&mut self, stream: u32, data: &'a [u8], ends_stream: bool) -> Handled<'a> {
        // No more than a frame may have.
        let bytes = data.len() as u32;
        let at = self.data(stream, bytes, bytes, ends_stream)?;
        Ok(at.and_then(|at| self.take_piece(at, data, ends_stream)))
    }

    fn preface(&mut self, input: &mut &[u8]) -> Result<(), Error> {
        let expected = &PREFACE[self.preface_bytes..];
        let (preface, rest) = input.split_at(input.len().min(expected.len()));
        if !expected.starts_with(preface) {
            let is_tls = self.preface_bytes == 0 && preface.starts_with(TLS_HANDSHAKE);
            return Err(Error::protocol(if is_tls {
                "a TLS handshake, where no TLS is spoken"
            } else {
                "invalid connection preface"
            }));
        }
        self.preface_bytes += preface.len();
        *input = rest;
        Ok(())
    }

    fn frame<'a>(&mut self, frame: Frame<'a>) -> Handled<'a> {
        let is_part = matches!(
            frame,
            Frame::DataPiece { .. }
                | Frame::BlockPiece { .. }
                | Frame::GoAwayText { .. }
                | Frame::Setting { .. }
                | Frame::SettingsEnd
        );
        // What brings data is bounded by the windows.
        if !is_part && !matches!(frame, Frame::Data { .. }) {
            self.spend(cause(&frame), budget::FRAME)?;
        }
        match frame {
            Frame::Data {
                stream,
                payload_bytes,
                data_bytes,
                ends_stream,
            } => {
                let at = self.data(stream, payload_bytes, data_bytes, ends_stream);
                self.data = DataFrame {
                    stream: matches!(at, Ok(Some(_))).then_some(stream),
                    ends_stream,
                };
                at.map(|_| None)
            }
            Frame::DataPiece { bytes, is_last } => Ok(self.data_piece(bytes, is_last)),
            Frame::Headers {
                stream,
                ends_stream,
                depends_on,
            } => {
                if stream.is_multiple_of(2) {
                    return Err(Error::protocol("HEADERS on an even stream identifier").into());
                }
                self.block.begin(stream, ends_stream, depends_on);
                Ok(None)
            }
            Frame::BlockPiece { bytes, ends_block } => self.block_piece(bytes, ends_block),
            Frame::RstStream { stream, code } => {
                self.known(stream)?;
                if self.index(stream).is_some() {
                    self.budget.blame_request_on(Cause::Resets);
                    self.end(stream, EndCause::ResetByPeer(code));
                } else {
                    self.closed.update(stream, Closed::Reset);
                }
                Ok(None)
            }
            Frame::Settings { count } => {
                // A window's size is added to that of every stream.
                let streams = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
                let each = budget::SETTING + streams / budget::STREAMS_OF_SETTING;
                self.spend(Cause::Settings, each.saturating_mul(count))?;
                Ok(None)
            }
            Frame::Setting { name, value } => Ok(self.setting(name, value).map(|()| None)?),
            Frame::SettingsEnd => {
                self.is_open = true;
                frame::write(&mut self.output.bytes, kind::SETTINGS, flag::ACK, 0, &[]);
                Ok(None)
            }
            Frame::Ping { is_ack, payload } => {
                self.ping(is_ack, payload);
                Ok(None)
            }
            Frame::WindowUpdate { stream, increment } => self.window_update(stream, increment),
            Frame::PushPromise => Err(Error::protocol("PUSH_PROMISE from a client").into()),
            // RFC 9113 has no use for priorities; RFC 7540 says what is wrong with one. A
            // stream that was not opened cannot be reset: then it is the connection's.
            Frame::BadSize { stream } => {
                if !self.was_opened(stream) {
                    return Err(Error::frame_size("PRIORITY length is not 5").into());
                }
                Err(Violation::Stream(stream, Reason::FrameSizeError))
            }
            Frame::Priority { stream, depends_on } if stream == depends_on => {
                if !self.was_opened(stream) {
                    return Err(Error::protocol("a stream depends on itself").into());
                }
                Err(Violation::Stream(stream, Reason::ProtocolError))
            }
            // The peer opens no more streams, or says what we need not know.
            Frame::Priority { .. }
            | Frame::Continuation
            | Frame::SettingsAck
            | Frame::GoAway { .. }
            | Frame::GoAwayText { .. }
            | Frame::Unknown => Ok(None),
        }
    }

    /// Resets a stream that is open, or has ended, or was to be opened.
    fn stream_error(&mut self, id: u32, reason: Reason) -> Result<(), Error> {
        self.output.reset(id, reason);
        if self.index(id).is_some() {
            self.budget.blame_request_on(Cause::StreamErrors);
            self.end(id, EndCause::Reset(reason));
        } else if self.closed.find(id) == Closed::NeverOpened {
            self.never_open(id, self.block.ends_stream());
        }
        self.spend(Cause::StreamErrors, budget::STREAM_ERROR)
    }

    /// A DATA frame begins. The index of its stream, if anybody wants what is in it. Else it
    /// is given back to the windows already.
    fn data(
        &mut self,
        stream: u32,
        payload_bytes: u32,
        data_bytes: u32,
        ends: bool,
    ) -> Result<Option<usize>, Violation> {
        self.known(stream)?;
        if !self.flow.receive.receive(payload_bytes) {
            let text = "DATA exceeds the connection's flow-control window";
            return Err(Error::flow_control(text).into());
        }
        let Some(at) = self.index(stream) else {
            self.flow.release(payload_bytes, &mut self.output.bytes);
            match self.closed.find(stream) {
                Closed::NeverOpened => return Err(NEVER_OPENED.into()),
                Closed::Complete | Closed::Reset => {
                    return Err(Violation::Stream(stream, Reason::StreamClosed));
                }
                Closed::Early | Closed::Forgotten => {}
            }
            if data_bytes == 0 || !self.flow.is_late(payload_bytes) {
                self.spend(Cause::UselessData, budget::FRAME)?;
            }
            if ends {
                self.closed.update(stream, Closed::Complete);
            }
            return Ok(None);
        };
        if data_bytes == 0 {
            self.spend(Cause::UselessData, budget::FRAME)?;
        }
        let of = &mut self.streams[at];
        let violation = if of.is_complete {
            Some(Reason::StreamClosed)
        } else if !of.receive.receive(payload_bytes) {
            Some(Reason::FlowControlError)
        } else {
            of.has_content(data_bytes, ends)
        };
        if let Some(reason) = violation {
            self.flow.release(payload_bytes, &mut self.output.bytes);
            return Err(Violation::Stream(stream, reason));
        }
        let padding_bytes = payload_bytes - data_bytes;
        if padding_bytes > 0 {
            // It counts.
            self.release_on(at, padding_bytes);
        }
        Ok(Some(at))
    }

    fn data_piece<'a>(&mut self, data: &'a [u8], is_last: bool) -> Option<Event<'a>> {
        // No more than a window.
        let bytes = data.len() as u32;
        let Some(at) = self.index(self.data.stream?) else {
            // It has ended in the middle of the frame.
            self.flow.release(bytes, &mut self.output.bytes);
            return None;
        };
        let ends = is_last && self.data.ends_stream;
        self.take_piece(at, data, ends)
    }

    /// A piece of a body, for the stream at this index.
    fn take_piece<'a>(&mut self, at: usize, data: &'a [u8], ends: bool) -> Option<Event<'a>> {
        let stream = &mut self.streams[at];
        stream.uncredited += data.len() as u32;
        stream.is_complete = ends;
        (ends || !data.is_empty()).then_some(Event::Data { at, data, ends })
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Error> {
        let change = self.flow.setting(name, value)?;
        if change != 0 {
            for stream in &mut self.streams {
                let shifted = stream.send.shift(change);
                shifted.map_err(|Overflow| FlowControl::SETTINGS_OVERFLOW)?;
            }
        }
        Ok(())
    }

    fn ping(&mut self, is_ack: bool, payload: [u8; 8]) {
        if !is_ack {
            let output = &mut self.output.bytes;
            frame::write(output, kind::PING, flag::ACK, 0, &payload);
        } else if self.shutdown.ping_acknowledged(payload) {
            self.output.go_away(self.newest, Reason::NoError, "");
        }
    }

    fn window_update<'a>(&mut self, stream: u32, increment: u32) -> Handled<'a> {
        if stream == 0 {
            if increment == 0 {
                return Err(Error::protocol("WINDOW_UPDATE increment of 0").into());
            }
            self.flow.send.widen(increment).map_err(|Overflow| {
                Error::flow_control("WINDOW_UPDATE lifts the connection's window over 2^31-1")
            })?;
            return Ok(None);
        }
        self.known(stream)?;
        if increment == 0 && self.was_opened(stream) {
            return Err(Violation::Stream(stream, Reason::ProtocolError));
        }
        let Some(at) = self.index(stream) else {
            // An answer to what was sent before it ended, which is never as much as this.
            let is_too_far = increment > MAX_WINDOW - INITIAL_WINDOW;
            if is_too_far && self.was_opened(stream) {
                return Err(Violation::Stream(stream, Reason::FlowControlError));
            }
            return Ok(None);
        };
        match self.streams[at].send.widen(increment) {
            Ok(()) => Ok(None),
            Err(Overflow) => Err(Violation::Stream(stream, Reason::FlowControlError)),
        }
    }

    /// Whether the stream is open, or surely was.
    fn was_opened(&self, id: u32) -> bool {
        let has_ended = || {
            let closed = self.closed.find(id);
            !matches!(closed, Closed::NeverOpened | Closed::Forgotten)
        };
        self.index(id).is_some() || (id <= self.newest && has_ended())
    }

    /// Fails for a stream that the peer has not opened.
    fn known(&self, id: u32) -> Result<(), Error> {
        if id.is_multiple_of(2) || id > self.newest {
            return Err(Error::protocol("frame on an idle stream"));
        }
        Ok(())
    }
}

/// RFC 9113, section 5.1.1.
pub(super) const NEVER_OPENED: Error =
    Error::protocol("a stream identifier that is lower than an earlier one, and was never opened");

/// What a frame is counted as.
fn cause(frame: &Frame<'_>) -> Cause {
    match frame {
        Frame::Headers { .. } => Cause::Requests,
        Frame::Continuation => Cause::Continuations,
        Frame::RstStream { .. } => Cause::Resets,
        Frame::Settings { .. } | Frame::SettingsAck => Cause::Settings,
        Frame::Ping { .. } => Cause::Pings,
        Frame::WindowUpdate { .. } => Cause::WindowUpdates,
        _ => Cause::Others,
    }
}
