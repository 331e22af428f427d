//! Frames: what HTTP/2 is made of on the wire (RFC 9113, sections 4 and 6).

/// What a client says first (section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header.
pub const HEADER_BYTES: usize = 9;

/// SETTINGS_MAX_FRAME_SIZE before it is announced, and its least value: the longest
/// payload that every peer takes.
pub const DEFAULT_FRAME_BYTES: u32 = 1 << 14;
/// The largest SETTINGS_MAX_FRAME_SIZE.
pub const MAX_FRAME_BYTES: u32 = (1 << 24) - 1;

/// The largest flow-control window.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// A flow-control window before SETTINGS or WINDOW_UPDATE change it.
pub const INITIAL_WINDOW: u32 = 65_535;

/// Frame types.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags.
pub mod flag {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings.
pub mod setting {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Why a stream or a connection ends (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
#[repr(u32)]
pub enum Reason {
    NoError = 0,
    ProtocolError = 1,
    InternalError = 2,
    FlowControlError = 3,
    StreamClosed = 5,
    FrameSizeError = 6,
    RefusedStream = 7,
    Cancel = 8,
    CompressionError = 9,
    EnhanceYourCalm = 11,
}

/// A frame's header (section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// How many bytes follow.
    pub payload_bytes: u32,
    /// One of [`kind`], or one that is not known.
    pub kind: u8,
    /// A sum of [`flag`]s.
    pub flags: u8,
    /// The stream's number; 0 is the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// The header of a DATA frame in the middle of a stream.
    #[must_use]
    pub fn data(stream: u32, payload_bytes: u32) -> Self {
        FrameHeader {
            payload_bytes,
            kind: kind::DATA,
            flags: 0,
            stream,
        }
    }

    /// Reads the header at the start of `bytes`, if all of it is there. A reserved bit
    /// is ignored, as it must be.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self::from_bytes)
    }

    pub(super) fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v] = bytes;
        FrameHeader {
            payload_bytes: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        }
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = self.payload_bytes.to_be_bytes();
        let [s, t, u, v] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s, t, u, v]
    }

    /// Whether it has `flag`.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame.
pub fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let header = FrameHeader {
        // Whoever writes a frame has cut it to what the peer takes.
        payload_bytes: payload.len() as u32,
        kind,
        flags,
        stream,
    };
    out.extend(header.to_bytes());
    out.extend(payload);
}

/// Appends a header block: HEADERS, and as many CONTINUATION as it takes for a peer that
/// has announced nothing.
pub(super) fn write_block(out: &mut Vec<u8>, stream: u32, block: &[u8], ends_stream: bool) {
    let mut rest = block;
    let mut of = kind::HEADERS;
    let mut flags = if ends_stream { flag::END_STREAM } else { 0 };
    // No fields are a frame too.
    loop {
        let (piece, after) = rest.split_at(rest.len().min(DEFAULT_FRAME_BYTES as usize));
        rest = after;
        if rest.is_empty() {
            flags |= flag::END_HEADERS;
        }
        write(out, of, flags, stream, piece);
        if rest.is_empty() {
            break;
        }
        (of, flags) = (kind::CONTINUATION, 0);
    }
}

/// Appends a SETTINGS frame.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    write(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends a GOAWAY frame: streams up to `last` may have been processed.
pub fn write_go_away(out: &mut Vec<u8>, last: u32, reason: Reason, text: &str) {
    let payload = [
        &last.to_be_bytes()[..],
        &(reason as u32).to_be_bytes(),
        text.as_bytes(),
    ];
    write(out, kind::GOAWAY, 0, 0, &payload.concat());
}

/// Appends a WINDOW_UPDATE frame.
pub fn write_window_update(out: &mut Vec<u8>, stream: u32, more_bytes: u32) {
    write(
        out,
        kind::WINDOW_UPDATE,
        0,
        stream,
        &more_bytes.to_be_bytes(),
    );
}

/// The settings in a SETTINGS frame; `None` if it has a part of one.
pub fn read_settings(payload: &[u8]) -> Option<impl Iterator<Item = (u16, u32)>> {
    let (settings, []) = payload.as_chunks::<6>() else {
        return None;
    };
    Some(
        settings.iter().map(|&[n, m, a, b, c, d]| {
            (u16::from_be_bytes([n, m]), u32::from_be_bytes([a, b, c, d]))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = FrameHeader {
            payload_bytes: 0x01_02_03,
            kind: kind::HEADERS,
            flags: flag::END_HEADERS,
            stream: 0x7f_00_00_05,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [1, 2, 3, 1, 4, 0x7f, 0, 0, 5]);
        assert_eq!(FrameHeader::read(&bytes), Some(header));
        assert_eq!(FrameHeader::read(&bytes[..8]), None);
        let mut reserved = bytes;
        reserved[5] |= 0x80;
        assert_eq!(FrameHeader::read(&reserved), Some(header));
    }

    #[test]
    fn settings_are_whole() {
        let mut out = Vec::new();
        write_settings(&mut out, &[(3, 256), (6, 1 << 14)]);
        let payload = &out[HEADER_BYTES..];
        let read: Vec<_> = read_settings(payload).unwrap().collect();
        assert_eq!(read, [(3, 256), (6, 1 << 14)]);
        assert!(read_settings(&payload[1..]).is_none());
    }
}
