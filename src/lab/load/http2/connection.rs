//! One connection with one call on it.

use super::Offer;
use crate::http2::frame::{self, FrameHeader, flag, kind, setting};
use crate::http2::hpack::{FieldsWriter, index};
use crate::lab::load::protocol::ProtocolError;

/// The one stream, which carries the call.
const STREAM: u32 = 1;
/// What a window is before anybody has said anything.
const DEFAULT_WINDOW: u32 = 65_535;
/// No window gets larger.
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// The largest frame to send before the peer allows more.
const DEFAULT_FRAME_BYTES: usize = 16 << 10;
/// The longest frame that is not DATA, and the longest header block in several. A
/// server of the contract sends some hundred bytes.
const MAX_OTHER_BYTES: usize = 64 << 10;

/// What the call is told.
pub(super) trait Call {
    /// Bytes of the response's body: how many are done with, which must be all when
    /// the frame `is_complete`. The others come again, with more behind them.
    fn data(&mut self, bytes: &[u8], is_complete: bool) -> Result<usize, ProtocolError>;

    /// A header block: the response's head, or its trailers if it ends with them.
    fn headers(&mut self, block: &[u8], ends: bool) -> Result<(), ProtocolError>;

    /// The body has ended without trailers.
    fn body_ended(&mut self) -> Result<(), ProtocolError>;

    /// The server has reset the stream, with this code.
    fn reset(&mut self, code: u32) -> Result<(), ProtocolError>;
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    offer: Offer,
    /// Of the DATA frame that is being received: what is to come of its content, and
    /// of its padding.
    data_left: usize,
    padding_left: usize,
    /// Whether the body ends with it.
    ends_with_data: bool,
    /// What the server may still send. The stream's and the connection's are one: no
    /// other stream is there.
    allowance: i64,
    /// A header block of which more is to come, and whether the stream ends with it.
    block: Option<(Vec<u8>, bool)>,
    stream_window: i64,
    connection_window: i64,
    /// What the server's settings make of a stream's first window.
    initial_window: u32,
    peer_frame_bytes: usize,
}

impl Connection {
    pub(super) fn new(offer: Offer) -> Self {
        Connection {
            offer,
            data_left: 0,
            padding_left: 0,
            ends_with_data: false,
            allowance: i64::from(offer.window_bytes),
            block: None,
            stream_window: i64::from(DEFAULT_WINDOW),
            connection_window: i64::from(DEFAULT_WINDOW),
            initial_window: DEFAULT_WINDOW,
            peer_frame_bytes: DEFAULT_FRAME_BYTES,
        }
    }

    /// Begins anew: the preface, the settings, and the call's head.
    pub(super) fn open(&mut self, authority: &str, path: &str, out: &mut Vec<u8>) {
        *self = Connection::new(self.offer);
        out.extend_from_slice(frame::PREFACE);
        let settings = [
            (setting::HEADER_TABLE_SIZE, 0),
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, self.offer.window_bytes),
            (setting::MAX_FRAME_SIZE, self.offer.frame_bytes),
        ];
        frame::write_settings(out, &settings);
        let more = self.offer.window_bytes.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            frame::write_window_update(out, 0, more);
        }
        let mut block = Vec::with_capacity(128);
        let mut fields = FieldsWriter::new(&mut block);
        fields.indexed(index::METHOD_POST);
        fields.indexed(index::SCHEME_HTTP);
        fields.with_indexed_name(index::PATH, path.as_bytes());
        fields.with_indexed_name(index::AUTHORITY, authority.as_bytes());
        fields.literal(b"te", b"trailers");
        fields.with_indexed_name(index::CONTENT_TYPE, b"application/grpc");
        frame::write(out, kind::HEADERS, flag::END_HEADERS, STREAM, &block);
    }

    /// How many bytes of a request's body may be sent now, in one frame.
    pub(super) fn sendable_bytes(&self) -> usize {
        let window = self.stream_window.min(self.connection_window).max(0);
        self.peer_frame_bytes
            .min(usize::try_from(window).unwrap_or(usize::MAX))
    }

    /// Sends bytes of the request's body, no more than [`sendable_bytes`]. No bytes
    /// are always allowed.
    ///
    /// [`sendable_bytes`]: Self::sendable_bytes
    pub(super) fn send(&mut self, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) {
        let length = bytes.len() as i64;
        self.stream_window -= length;
        self.connection_window -= length;
        let flags = if is_last { flag::END_STREAM } else { 0 };
        frame::write(out, kind::DATA, flags, STREAM, bytes);
    }

    /// Takes what the server sends, and answers how many bytes are done with.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        call: &mut impl Call,
    ) -> Result<usize, ProtocolError> {
        let mut at = 0;
        loop {
            if self.data_left > 0 {
                let there = &bytes[at..];
                let there = &there[..there.len().min(self.data_left)];
                if there.is_empty() {
                    return Ok(at);
                }
                let is_complete = there.len() == self.data_left;
                let done = call.data(there, is_complete)?;
                self.data_left -= done;
                at += done;
                if self.data_left > 0 {
                    return Ok(at);
                }
                self.end_data(call)?;
            }
            if self.padding_left > 0 {
                let skipped = self.padding_left.min(bytes.len() - at);
                self.padding_left -= skipped;
                at += skipped;
                if self.padding_left > 0 {
                    return Ok(at);
                }
                self.end_data(call)?;
            }
            let Some(header) = FrameHeader::read(&bytes[at..]) else {
                return Ok(at);
            };
            let content = &bytes[at + frame::HEADER_BYTES..];
            let taken = if header.kind == kind::DATA {
                self.begin_data(header, content, out, call)?
            } else {
                self.other(header, content, out, call)?
            };
            match taken {
                Some(taken) => at += frame::HEADER_BYTES + taken,
                None => return Ok(at),
            }
        }
    }

    /// The header of a DATA frame. `None`: too little of it is there.
    fn begin_data(
        &mut self,
        header: FrameHeader,
        content: &[u8],
        out: &mut Vec<u8>,
        call: &mut impl Call,
    ) -> Result<Option<usize>, ProtocolError> {
        if header.payload_bytes as usize > self.offer.frame_bytes as usize {
            return Err(ProtocolError::new(format!(
                "a DATA frame of {} bytes, where at most {} were offered",
                header.payload_bytes as usize, self.offer.frame_bytes
            )));
        }
        self.check_order(header)?;
        check_stream(header)?;
        let mut padding = 0;
        let mut taken = 0;
        if header.has(flag::PADDED) {
            let Some(&length) = content.first() else {
                return Ok(None);
            };
            (padding, taken) = (usize::from(length), 1);
        }
        let around = taken + padding;
        let Some(data) = (header.payload_bytes as usize).checked_sub(around) else {
            return Err(ProtocolError::new(
                "a DATA frame is shorter than its padding",
            ));
        };
        self.allowance -= header.payload_bytes as usize as i64;
        if self.allowance < 0 {
            return Err(ProtocolError::new("the server sends beyond the window"));
        }
        let window = self.offer.window_bytes;
        let owed = i64::from(window) - self.allowance;
        if owed > i64::from(window / 2) {
            // At most the window, which has 31 bits.
            frame::write_window_update(out, 0, owed as u32);
            frame::write_window_update(out, STREAM, owed as u32);
            self.allowance = i64::from(window);
        }
        self.data_left = data;
        self.padding_left = padding;
        self.ends_with_data = header.has(flag::END_STREAM);
        self.end_data(call)?;
        Ok(Some(taken))
    }

    /// Ends the body, if the DATA frame that ends it is there as a whole.
    fn end_data(&mut self, call: &mut impl Call) -> Result<(), ProtocolError> {
        if self.ends_with_data && self.data_left == 0 && self.padding_left == 0 {
            self.ends_with_data = false;
            return call.body_ended();
        }
        Ok(())
    }

    /// Any frame but DATA. `None`: it is not there as a whole.
    fn other(
        &mut self,
        header: FrameHeader,
        content: &[u8],
        out: &mut Vec<u8>,
        call: &mut impl Call,
    ) -> Result<Option<usize>, ProtocolError> {
        if header.payload_bytes as usize > MAX_OTHER_BYTES {
            return Err(ProtocolError::new(format!(
                "a frame of kind {} and {} bytes",
                header.kind, header.payload_bytes as usize
            )));
        }
        let Some(content) = content.get(..header.payload_bytes as usize) else {
            return Ok(None);
        };
        self.check_order(header)?;
        match header.kind {
            kind::HEADERS => {
                check_stream(header)?;
                let block = without_padding(header, content)?;
                self.begin_block(header, block, call)?;
            }
            kind::CONTINUATION => self.continue_block(header, content, call)?,
            kind::RST_STREAM => {
                check_stream(header)?;
                call.reset(number(content, "RST_STREAM")?)?;
            }
            kind::SETTINGS => self.settings(header, content, out)?,
            kind::PUSH_PROMISE => {
                return Err(ProtocolError::new(
                    "the server promises a push, which was not offered",
                ));
            }
            kind::PING => {
                if content.len() != 8 {
                    return Err(ProtocolError::new("a PING frame has not 8 bytes"));
                }
                if !header.has(flag::ACK) {
                    frame::write(out, kind::PING, flag::ACK, 0, content);
                }
            }
            kind::GOAWAY => go_away(content)?,
            kind::WINDOW_UPDATE => self.window_update(header, content)?,
            kind::PRIORITY => {}
            // Extensions may be ignored.
            _ => {}
        }
        Ok(Some(header.payload_bytes as usize))
    }

    /// Nothing may come between the parts of a header block.
    fn check_order(&self, header: FrameHeader) -> Result<(), ProtocolError> {
        match (&self.block, header.kind) {
            (None, kind::CONTINUATION) => Err(ProtocolError::new(
                "a CONTINUATION frame without a header block before it",
            )),
            (Some(_), kind) if kind != kind::CONTINUATION => Err(ProtocolError::new(
                "a header block is interrupted by another frame",
            )),
            _ => Ok(()),
        }
    }

    fn begin_block(
        &mut self,
        header: FrameHeader,
        block: &[u8],
        call: &mut impl Call,
    ) -> Result<(), ProtocolError> {
        let ends = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return call.headers(block, ends);
        }
        self.block = Some((block.to_vec(), ends));
        Ok(())
    }

    fn continue_block(
        &mut self,
        header: FrameHeader,
        content: &[u8],
        call: &mut impl Call,
    ) -> Result<(), ProtocolError> {
        check_stream(header)?;
        let Some((mut block, ends)) = self.block.take() else {
            // `check_order` has refused it already.
            return Ok(());
        };
        block.extend_from_slice(content);
        if block.len() > MAX_OTHER_BYTES {
            return Err(ProtocolError::new("a header block has no end"));
        }
        if header.has(flag::END_HEADERS) {
            return call.headers(&block, ends);
        }
        self.block = Some((block, ends));
        Ok(())
    }

    fn settings(
        &mut self,
        header: FrameHeader,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        if header.has(flag::ACK) {
            return Ok(());
        }
        let (settings, rest) = content.as_chunks::<6>();
        if !rest.is_empty() || header.stream != 0 {
            return Err(ProtocolError::new("a malformed SETTINGS frame"));
        }
        for [a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                setting::INITIAL_WINDOW_SIZE => {
                    if i64::from(value) > MAX_WINDOW {
                        return Err(ProtocolError::new("a window above 2^31 - 1 bytes"));
                    }
                    let change = i64::from(value) - i64::from(self.initial_window);
                    self.stream_window += change;
                    self.initial_window = value;
                }
                setting::MAX_FRAME_SIZE => {
                    let (least, most) = Offer::FRAME_BYTES;
                    if !(least..=most).contains(&value) {
                        return Err(ProtocolError::new(format!(
                            "a largest frame of {value} bytes"
                        )));
                    }
                    self.peer_frame_bytes = value as usize;
                }
                _ => {}
            }
        }
        frame::write(out, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn window_update(&mut self, header: FrameHeader, content: &[u8]) -> Result<(), ProtocolError> {
        let more = i64::from(number(content, "WINDOW_UPDATE")? & (u32::MAX >> 1));
        let window = match header.stream {
            0 => &mut self.connection_window,
            STREAM => &mut self.stream_window,
            _ => return check_stream(header),
        };
        *window += more;
        if more == 0 || *window > MAX_WINDOW {
            return Err(ProtocolError::new(format!(
                "a WINDOW_UPDATE of {more} bytes, to {window}"
            )));
        }
        Ok(())
    }
}

fn check_stream(header: FrameHeader) -> Result<(), ProtocolError> {
    if header.stream == STREAM {
        return Ok(());
    }
    Err(ProtocolError::new(format!(
        "a frame of kind {} for stream {}, which was never opened",
        header.kind, header.stream
    )))
}

/// A HEADERS frame's block: what is left without padding and priority.
fn without_padding(header: FrameHeader, content: &[u8]) -> Result<&[u8], ProtocolError> {
    let too_short = || ProtocolError::new("a HEADERS frame is shorter than its padding");
    let mut block = content;
    if header.has(flag::PADDED) {
        let (&padding, rest) = block.split_first().ok_or_else(too_short)?;
        let length = rest.len().checked_sub(padding.into());
        block = &rest[..length.ok_or_else(too_short)?];
    }
    if header.has(flag::PRIORITY) {
        block = block.get(5..).ok_or_else(too_short)?;
    }
    Ok(block)
}

/// The one number that a frame of this kind has.
fn number(content: &[u8], kind: &str) -> Result<u32, ProtocolError> {
    match content.try_into() {
        Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
        Err(_) => Err(ProtocolError::new(format!(
            "a {kind} frame of {} bytes",
            content.len()
        ))),
    }
}

/// A server that stops says so, and lets the stream go on. With an error, it does not.
fn go_away(content: &[u8]) -> Result<(), ProtocolError> {
    let code = content.get(4..8);
    let code = code.ok_or_else(|| ProtocolError::new("a GOAWAY frame is too short"))?;
    match number(code, "GOAWAY")? {
        0 => Ok(()),
        code => Err(ProtocolError::new(format!(
            "the server ends the connection with the error {code}: {}",
            String::from_utf8_lossy(&content[8..])
        ))),
    }
}
