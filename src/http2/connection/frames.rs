//! What each kind of frame does (RFC 9113, section 6).

use http::HeaderMap;

use super::{Block, Connection, ConnectionError, LEAVING, Leaving, MAX_BLOCK_BYTES, Wrong, wrong};
use crate::http2::frame::{
    self, Head, MAX_MAX_PAYLOAD, MAX_WINDOW, MIN_MAX_PAYLOAD, Reason, flag, kind, setting,
};
use crate::http2::hpack::HpackError;
use crate::http2::patience;
use crate::http2::request::{Fields, Malformed};
use crate::http2::stream::Stream;

/// The peer is told of what it may send again when it is this part of a window.
const RELEASE_PART: u32 = 4;
/// CONTINUATION frames of one block.
const MAX_CONTINUATIONS: u32 = 16;

impl<S: Default> Connection<S> {
    pub(super) fn spend_on_frame(&mut self) -> Result<(), ConnectionError> {
        if self.patience.spend(patience::FRAME) {
            Ok(())
        } else {
            Err(wrong(Reason::EnhanceYourCalm, "too many frames"))
        }
    }

    pub(super) fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        self.known(head.stream)?;
        // Padding counts.
        let Some(left) = self.receive_window.checked_sub(head.payload_bytes) else {
            let what = "more data than the connection's window";
            return Err(wrong(Reason::FlowControlError, what).into());
        };
        self.receive_window = left;
        let data = frame::without_padding(head, payload)
            .ok_or(wrong(Reason::ProtocolError, "more padding than payload"))?;
        let Some(at) = self.place(head.stream) else {
            // One that we have ended, which the peer may not know yet.
            self.release(head.payload_bytes);
            match self.late_bytes.checked_sub(head.payload_bytes) {
                Some(left) if !data.is_empty() => self.late_bytes = left,
                _ => self.spend_on_frame()?,
            }
            return Ok(());
        };
        // What brings data is bounded by the windows.
        if data.is_empty() {
            self.spend_on_frame()?;
        }
        let stream = &mut self.streams[at];
        if stream.ended {
            self.release(head.payload_bytes);
            return Err(Wrong::Stream(head.stream, Reason::StreamClosed));
        }
        let Some(left) = stream.receive_window.checked_sub(head.payload_bytes) else {
            self.release(head.payload_bytes);
            return Err(Wrong::Stream(head.stream, Reason::FlowControlError));
        };
        stream.receive_window = left;
        stream.body.extend_from_slice(data);
        stream.unreleased += data.len() as u32;
        stream.ended = head.has(flag::END_STREAM);
        self.release_on(at, head.payload_bytes - data.len() as u32);
        Ok(())
    }

    /// Gives the peer its window back.
    pub(super) fn release(&mut self, bytes: u32) {
        self.release += bytes;
        if self.release >= self.limits.connection_window / RELEASE_PART {
            frame::write_window_update(&mut self.output, 0, self.release);
            self.receive_window += self.release;
            self.release = 0;
        }
    }

    /// The same, with that of the stream at place `at`.
    pub(super) fn release_on(&mut self, at: usize, bytes: u32) {
        self.release(bytes);
        let stream = &mut self.streams[at];
        stream.release += bytes;
        if !stream.ended && stream.release >= self.limits.stream_window / RELEASE_PART {
            frame::write_window_update(&mut self.output, stream.id, stream.release);
            stream.receive_window += stream.release;
            stream.release = 0;
        }
    }

    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream.is_multiple_of(2) {
            return Err(wrong(Reason::ProtocolError, "HEADERS on no client's stream").into());
        }
        let mut block = frame::without_padding(head, payload)
            .ok_or(wrong(Reason::ProtocolError, "more padding than payload"))?;
        if head.has(flag::PRIORITY) {
            let (_, rest) = block
                .split_at_checked(5)
                .ok_or(wrong(Reason::FrameSizeError, "HEADERS without a priority"))?;
            block = rest;
        }
        self.block = Some(Block {
            stream: head.stream,
            ends_stream: head.has(flag::END_STREAM),
            bytes: block.to_vec(),
            continuations: 0,
        });
        self.end_block(head)
    }

    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        let Some(block) = self.block.as_mut() else {
            return Ok(());
        };
        if block.stream != head.stream {
            let what = "a header block goes on on another stream";
            return Err(wrong(Reason::ProtocolError, what).into());
        }
        block.continuations += 1;
        if block.bytes.len() + payload.len() > MAX_BLOCK_BYTES
            || block.continuations > MAX_CONTINUATIONS
        {
            return Err(wrong(Reason::EnhanceYourCalm, "a header block without end").into());
        }
        block.bytes.extend(payload);
        self.end_block(head)
    }

    fn end_block(&mut self, head: Head) -> Result<(), Wrong> {
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        let mut fields = Fields::new(self.limits.max_field_bytes);
        self.decoder
            .decode(&block.bytes, |name, value| fields.add(name, value))
            .map_err(|error| match error {
                HpackError::TooLong => wrong(
                    Reason::EnhanceYourCalm,
                    "a header block that stands for too much",
                ),
                _ => wrong(Reason::CompressionError, "a header block that is none"),
            })?;
        let id = block.stream;
        if id <= self.newest {
            return self.trailers(id, block.ends_stream);
        }
        self.newest = id;
        if !self.patience.spend(patience::REQUEST) {
            return Err(wrong(Reason::EnhanceYourCalm, "too many requests").into());
        }
        if self.leaving == Leaving::Agreed {
            // The peer knows that this is not processed.
            return Ok(());
        }
        if self.streams.len() >= self.limits.max_streams {
            return Err(Wrong::Stream(id, Reason::RefusedStream));
        }
        let request = match fields.finish() {
            Ok(request) => request,
            Err(Malformed::Request) => return Err(Wrong::Stream(id, Reason::ProtocolError)),
            Err(Malformed::TooLarge) => {
                self.open(id, block.ends_stream);
                self.respond(id, 431, &HeaderMap::new(), true);
                return Ok(());
            }
        };
        self.open(id, block.ends_stream);
        self.requests.push_back((id, Box::new(request)));
        Ok(())
    }

    fn open(&mut self, id: u32, ended: bool) {
        self.streams.push(Stream {
            id,
            window: i64::from(self.initial_window),
            receive_window: self.limits.stream_window,
            release: 0,
            body: Vec::new(),
            unreleased: 0,
            ended,
            state: S::default(),
        });
    }

    /// Fields after the body, of which none mean anything here.
    fn trailers(&mut self, id: u32, ends_stream: bool) -> Result<(), Wrong> {
        match self.stream_mut(id) {
            Some(stream) if stream.ended => Err(Wrong::Stream(id, Reason::StreamClosed)),
            Some(_) if !ends_stream => Err(Wrong::Stream(id, Reason::ProtocolError)),
            Some(stream) => {
                stream.ended = true;
                Ok(())
            }
            // One that we have ended, which the peer may not know yet.
            None => Ok(()),
        }
    }

    pub(super) fn rst_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if payload.len() != 4 {
            return Err(wrong(Reason::FrameSizeError, "RST_STREAM of a wrong length").into());
        }
        self.known(head.stream)?;
        self.remove(head.stream);
        Ok(())
    }

    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(wrong(Reason::ProtocolError, "SETTINGS on a stream").into());
        }
        if head.has(flag::ACK) {
            if payload.is_empty() {
                return Ok(());
            }
            return Err(wrong(Reason::FrameSizeError, "SETTINGS acknowledged with some").into());
        }
        let settings = frame::read_settings(payload)
            .ok_or(wrong(Reason::FrameSizeError, "a part of a setting"))?;
        for (name, value) in settings {
            // A window's size is added to that of every stream.
            if !self.patience.spend(patience::SETTING) {
                return Err(wrong(Reason::EnhanceYourCalm, "too many settings").into());
            }
            match name {
                setting::ENABLE_PUSH if value > 1 => {
                    return Err(wrong(Reason::ProtocolError, "ENABLE_PUSH over 1").into());
                }
                setting::INITIAL_WINDOW_SIZE => self.initial_window_size(value)?,
                setting::MAX_FRAME_SIZE => {
                    if !(MIN_MAX_PAYLOAD..=MAX_MAX_PAYLOAD).contains(&value) {
                        let what = "MAX_FRAME_SIZE out of its range";
                        return Err(wrong(Reason::ProtocolError, what).into());
                    }
                    self.max_payload = value;
                }
                _ => {}
            }
        }
        frame::write(&mut self.output, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn initial_window_size(&mut self, bytes: u32) -> Result<(), ConnectionError> {
        let too_large = wrong(Reason::FlowControlError, "a window over 2^31 - 1");
        if bytes > MAX_WINDOW {
            return Err(too_large);
        }
        let more = i64::from(bytes) - i64::from(self.initial_window);
        self.initial_window = bytes;
        for stream in &mut self.streams {
            stream.window += more;
            if stream.window > i64::from(MAX_WINDOW) {
                return Err(too_large);
            }
        }
        Ok(())
    }

    pub(super) fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(wrong(Reason::ProtocolError, "PING on a stream").into());
        }
        if payload.len() != 8 {
            return Err(wrong(Reason::FrameSizeError, "PING of a wrong length").into());
        }
        if !head.has(flag::ACK) {
            frame::write(&mut self.output, kind::PING, flag::ACK, 0, payload);
        } else if payload == LEAVING && self.leaving == Leaving::Announced {
            self.leaving = Leaving::Agreed;
            self.write_go_away(self.newest, Reason::NoError, "");
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        let Ok(more) = <[u8; 4]>::try_from(payload).map(u32::from_be_bytes) else {
            return Err(wrong(Reason::FrameSizeError, "WINDOW_UPDATE of a wrong length").into());
        };
        let more = i64::from(more & MAX_WINDOW);
        let on_connection = head.stream == 0;
        if !on_connection {
            self.known(head.stream)?;
        }
        let window = if on_connection {
            &mut self.window
        } else if let Some(stream) = self.stream_mut(head.stream) {
            &mut stream.window
        } else {
            return Ok(());
        };
        let reason = if more == 0 {
            Reason::ProtocolError
        } else if *window + more > i64::from(MAX_WINDOW) {
            Reason::FlowControlError
        } else {
            *window += more;
            return Ok(());
        };
        if on_connection {
            return Err(wrong(reason, "a window was opened by nothing, or too far").into());
        }
        Err(Wrong::Stream(head.stream, reason))
    }

    pub(super) fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream == 0 {
            return Err(wrong(Reason::ProtocolError, "PRIORITY on the connection").into());
        }
        if payload.len() != 5 {
            return Err(Wrong::Stream(head.stream, Reason::FrameSizeError));
        }
        Ok(())
    }

    /// Fails for a stream that the peer has not opened.
    fn known(&self, id: u32) -> Result<(), ConnectionError> {
        if id == 0 || id.is_multiple_of(2) || id > self.newest {
            return Err(wrong(
                Reason::ProtocolError,
                "a frame on a stream that was never opened",
            ));
        }
        Ok(())
    }
}
