//! The client's end of a connection that carries one call.
//!
//! As at the [server's](super::server) end, bytes from the peer go into
//! [`receive`](Connection::receive), which returns at each [`Event`], and lends data out of
//! the caller's memory. What the peer is to be sent is appended to what the caller sends.
//!
//! The windows are opened again as data arrives: who is slow to take it bounds what it
//! receives by not reading.

use http::HeaderMap;

use super::error::Error;
use super::flow_control::{FlowControl, Overflow, ReceiveWindow, SendWindow};
use super::frame::{
    self, DEFAULT_FRAME_BYTES, INITIAL_WINDOW, MAX_FRAME_BYTES, MAX_WINDOW, PREFACE, flag, kind,
    setting,
};
use super::header_block::HeaderBlock;
use super::hpack::{FieldsWriter, HpackError, index};
use super::reader::{Frame, FrameReader};
use super::response::ResponseFields;

/// The stream of the call.
const STREAM: u32 = 1;
/// What is kept of the text of a GOAWAY.
const MAX_TEXT_BYTES: usize = 256;

/// What the server may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a response that may be under way, on the stream and on the connection.
    pub window_bytes: u32,
    /// A frame's payload.
    pub max_frame_bytes: u32,
    /// The fields of a response's head or trailers, as RFC 9113 counts them (section 6.5.2).
    pub max_field_bytes: usize,
}

/// What has arrived.
#[derive(Debug)]
pub enum Event<'a> {
    /// The response's head.
    Head {
        /// The status, such as 200.
        status: u16,
        /// Its fields, without those that begin with a colon.
        fields: Box<HeaderMap>,
        /// Whether the response is all head.
        ends: bool,
    },
    /// Data of the response's body.
    Data {
        /// A piece of it: frames and reads cut it anywhere. Empty only where it `ends`.
        data: &'a [u8],
        /// Whether the response ends here, without trailers.
        ends: bool,
    },
    /// The fields after the body: the response has ended.
    Trailers(Box<HeaderMap>),
    /// The server has reset the stream, with this error code.
    Reset(u32),
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The server breaks a rule.
    #[error(transparent)]
    Protocol(#[from] Error),
    /// The server says that the client does, or that it has had enough.
    #[error("the server ends the connection with the error {code}: {text}")]
    GoAway {
        /// The error code.
        code: u32,
        /// What it says for people.
        text: String,
    },
}

/// How far the response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Awaited,
    Begun,
    Ended,
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Connection {
    reader: FrameReader,
    block: HeaderBlock<ResponseFields>,
    flow: FlowControl,
    send: SendWindow,
    receive: ReceiveWindow,
    phase: Phase,
    /// Whether the response ends with the DATA frame that is arriving.
    data_ends_stream: bool,
    /// The GOAWAY that is arriving.
    go_away: Option<(u32, Vec<u8>)>,
}

impl Connection {
    /// A connection, and the start of its call: the client's preface with its settings, and
    /// the head of the request, appended to `out`.
    #[must_use]
    pub fn open(
        limits: Limits,
        authority: &str,
        path: &str,
        fields: &HeaderMap,
        out: &mut Vec<u8>,
    ) -> Self {
        let limits = Limits {
            window_bytes: limits.window_bytes.clamp(INITIAL_WINDOW, MAX_WINDOW),
            max_frame_bytes: limits
                .max_frame_bytes
                .clamp(DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES),
            ..limits
        };
        out.extend_from_slice(PREFACE);
        let settings = [
            (setting::HEADER_TABLE_SIZE, 0),
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, limits.window_bytes),
            (setting::MAX_FRAME_SIZE, limits.max_frame_bytes),
        ];
        frame::write_settings(out, &settings);
        let more = limits.window_bytes - INITIAL_WINDOW;
        if more > 0 {
            frame::write_window_update(out, 0, more);
        }
        let mut block = Vec::with_capacity(128);
        let mut writer = FieldsWriter::new(&mut block);
        writer.indexed(index::METHOD_POST);
        writer.indexed(index::SCHEME_HTTP);
        writer.with_indexed_name(index::PATH, path.as_bytes());
        writer.with_indexed_name(index::AUTHORITY, authority.as_bytes());
        writer.fields(fields);
        frame::write_block(out, STREAM, &block, false);
        Connection {
            reader: FrameReader::new(limits.max_frame_bytes),
            block: HeaderBlock::new(0, limits.max_field_bytes),
            flow: FlowControl::new(limits.window_bytes),
            send: SendWindow::new(INITIAL_WINDOW),
            receive: ReceiveWindow::new(limits.window_bytes),
            phase: Phase::Awaited,
            data_ends_stream: false,
            go_away: None,
        }
    }

    /// Sends as much of the request's body as both windows allow, and returns how much
    /// that is. The request `ends` with the last byte of it.
    pub fn send(&mut self, data: &[u8], ends: bool, out: &mut Vec<u8>) -> usize {
        let mut rest = data;
        loop {
            let windows = self.send.bytes().min(self.flow.send.bytes());
            let most = windows.clamp(0, i64::from(self.flow.max_frame_bytes)) as usize;
            let (piece, after) = rest.split_at(rest.len().min(most));
            let is_last = ends && after.is_empty();
            if piece.is_empty() && !is_last {
                return data.len() - rest.len();
            }
            let bytes = piece.len() as u32;
            self.send.sent(bytes);
            self.flow.send.sent(bytes);
            let flags = if is_last { flag::END_STREAM } else { 0 };
            frame::write(out, kind::DATA, flags, STREAM, piece);
            rest = after;
            if is_last {
                return data.len();
            }
        }
    }

    /// Takes bytes from the front of `input` until there is an event. `None` when all of
    /// them are used. What is to be answered is appended to `out`.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]: the connection is of no use any more.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        loop {
            if let Some((stream, data, ends)) = self.reader.whole_data(input) {
                // No more than a frame may have.
                self.data(stream, data.len() as u32, out)?;
                if let Some(event) = self.piece(data, ends) {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(frame) = self.reader.next(input)? else {
                return Ok(None);
            };
            if let Some(event) = self.frame(frame, out)? {
                return Ok(Some(event));
            }
        }
    }

    fn frame<'a>(
        &mut self,
        frame: Frame<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        match frame {
            Frame::Data {
                stream,
                payload_bytes,
                ends_stream,
                ..
            } => {
                self.data(stream, payload_bytes, out)?;
                self.data_ends_stream = ends_stream;
            }
            Frame::DataPiece { bytes, is_last } => {
                return Ok(self.piece(bytes, is_last && self.data_ends_stream));
            }
            Frame::Headers {
                stream,
                ends_stream,
                ..
            } => {
                check_stream(stream)?;
                self.block.begin(stream, ends_stream, None);
            }
            Frame::BlockPiece { bytes, ends_block } => {
                // What is not kept is bounded by what can be read.
                let mut room = usize::MAX;
                let read = self.block.piece(bytes, ends_block, &mut room);
                read.map_err(|error: HpackError| Error::from(error))?;
                if ends_block {
                    return Ok(self.headers()?);
                }
            }
            Frame::RstStream { stream, code } => {
                check_stream(stream)?;
                if self.phase != Phase::Ended {
                    self.phase = Phase::Ended;
                    return Ok(Some(Event::Reset(code)));
                }
            }
            Frame::Setting { name, value } => self.setting(name, value)?,
            Frame::SettingsEnd => frame::write(out, kind::SETTINGS, flag::ACK, 0, &[]),
            Frame::Ping {
                is_ack: false,
                payload,
            } => frame::write(out, kind::PING, flag::ACK, 0, &payload),
            Frame::WindowUpdate { stream, increment } => self.window_update(stream, increment)?,
            Frame::PushPromise => {
                return Err(Error::protocol("PUSH_PROMISE, which was not allowed").into());
            }
            Frame::BadSize { .. } => {
                return Err(Error::frame_size("PRIORITY length is not 5").into());
            }
            // A server that stops says so, and lets the stream go on. With an error, it
            // does not.
            Frame::GoAway { code } => self.go_away = Some((code, Vec::new())),
            Frame::GoAwayText { bytes, is_last } => self.go_away_text(bytes, is_last)?,
            Frame::Continuation
            | Frame::Priority { .. }
            | Frame::Settings { .. }
            | Frame::SettingsAck
            | Frame::Ping { is_ack: true, .. }
            | Frame::Unknown => {}
        }
        Ok(None)
    }

    /// A DATA frame begins.
    fn data(
        &mut self,
        stream: u32,
        payload_bytes: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), ConnectionError> {
        check_stream(stream)?;
        match self.phase {
            Phase::Awaited => return Err(Error::protocol("DATA before a response's head").into()),
            Phase::Ended => {
                return Err(Error::stream_closed("DATA on a stream that has ended").into());
            }
            Phase::Begun => {}
        }
        if !(self.flow.receive.receive(payload_bytes) && self.receive.receive(payload_bytes)) {
            return Err(Error::flow_control("DATA exceeds the flow-control window").into());
        }
        self.flow.release(payload_bytes, out);
        if let Some(increment) = self.receive.release(payload_bytes) {
            frame::write_window_update(out, STREAM, increment);
        }
        Ok(())
    }

    fn piece<'a>(&mut self, data: &'a [u8], ends: bool) -> Option<Event<'a>> {
        if ends {
            self.phase = Phase::Ended;
        }
        (ends || !data.is_empty()).then_some(Event::Data { data, ends })
    }

    /// A header block is complete.
    fn headers<'a>(&mut self) -> Result<Option<Event<'a>>, Error> {
        let ends = self.block.ends_stream();
        let fields = *self.block.take_fields();
        match self.phase {
            Phase::Awaited => {
                let (status, fields) = fields.head()?;
                let is_interim = (100..200).contains(&status);
                if is_interim && !ends {
                    return Ok(None);
                }
                if is_interim {
                    return Err(Error::protocol("a response that ends with an interim head"));
                }
                self.phase = if ends { Phase::Ended } else { Phase::Begun };
                let fields = Box::new(fields);
                Ok(Some(Event::Head {
                    status,
                    fields,
                    ends,
                }))
            }
            Phase::Begun if !ends => Err(Error::protocol("a second head of one response")),
            Phase::Begun => {
                self.phase = Phase::Ended;
                Ok(Some(Event::Trailers(Box::new(fields.trailers()?))))
            }
            Phase::Ended => Err(Error::stream_closed("HEADERS on a stream that has ended")),
        }
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Error> {
        let change = self.flow.setting(name, value)?;
        self.send
            .shift(change)
            .map_err(|Overflow| FlowControl::SETTINGS_OVERFLOW)
    }

    fn window_update(&mut self, stream: u32, increment: u32) -> Result<(), Error> {
        let window = match stream {
            0 => &mut self.flow.send,
            _ => {
                check_stream(stream)?;
                &mut self.send
            }
        };
        if increment == 0 {
            return Err(Error::protocol("WINDOW_UPDATE increment of 0"));
        }
        window.widen(increment).map_err(|Overflow| {
            Error::flow_control("WINDOW_UPDATE lifts a flow-control window over 2^31-1")
        })
    }

    fn go_away_text(&mut self, bytes: &[u8], is_last: bool) -> Result<(), ConnectionError> {
        let Some((code, text)) = &mut self.go_away else {
            return Ok(());
        };
        let room = MAX_TEXT_BYTES - text.len();
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if !is_last || *code == 0 {
            return Ok(());
        }
        Err(ConnectionError::GoAway {
            code: *code,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

fn check_stream(stream: u32) -> Result<(), Error> {
    if stream == STREAM {
        return Ok(());
    }
    Err(Error::protocol("a frame on a stream that was never opened"))
}

#[cfg(test)]
mod tests;
