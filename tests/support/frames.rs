//! HTTP/2 frames by their names, as a client writes them (RFC 9113, section 6).

use galaxy_push::http2::frame;
pub use galaxy_push::http2::frame::{MAX_WINDOW, Reason, flag, kind, setting};

use super::header_block::HeaderBlock;

/// What a client says first (section 3.4).
pub const PREFACE: &[u8] = frame::PREFACE;

/// Any frame.
pub fn any(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind, flags, stream, payload);
    bytes
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_settings(&mut bytes, settings);
    bytes
}

pub fn ping(payload: &[u8; 8]) -> Vec<u8> {
    any(kind::PING, 0, 0, payload)
}

pub fn ping_ack(payload: &[u8; 8]) -> Vec<u8> {
    any(kind::PING, flag::ACK, 0, payload)
}

/// `stream` 0 is the connection.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    any(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn rst_stream(stream: u32, reason: Reason) -> Vec<u8> {
    any(kind::RST_STREAM, 0, stream, &(reason as u32).to_be_bytes())
}

/// A request's head, whose body is to follow.
pub fn headers(stream: u32, block: &HeaderBlock) -> Vec<u8> {
    any(kind::HEADERS, flag::END_HEADERS, stream, block.bytes())
}

/// A request without a body.
pub fn headers_end(stream: u32, block: &HeaderBlock) -> Vec<u8> {
    let flags = flag::END_HEADERS | flag::END_STREAM;
    any(kind::HEADERS, flags, stream, block.bytes())
}

/// A part of a body.
pub fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    any(kind::DATA, 0, stream, bytes)
}

/// The rest of a body.
pub fn data_end(stream: u32, bytes: &[u8]) -> Vec<u8> {
    any(kind::DATA, flag::END_STREAM, stream, bytes)
}

/// Opens a call, and leaves the request's body open.
pub fn open_call(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, &HeaderBlock::call(path))
}

/// A whole call.
pub fn call(stream: u32, path: &str, body: &[u8]) -> Vec<u8> {
    [open_call(stream, path), data_end(stream, body)].concat()
}
