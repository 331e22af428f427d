//! Frames: what HTTP/2 is made of on the wire (RFC 9113, sections 4 and 6).

/// What a client says first (section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's head.
pub const HEAD_BYTES: usize = 9;

/// The longest payload that everybody takes, and the longest that there is.
pub const MIN_MAX_PAYLOAD: u32 = 1 << 14;
/// The longest payload that there can be.
pub const MAX_MAX_PAYLOAD: u32 = (1 << 24) - 1;

/// How far a window can be open.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// How far windows are open before anybody says otherwise.
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

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many bytes follow.
    pub payload_bytes: u32,
    /// One of [`kind`], or one that is not known.
    pub kind: u8,
    /// A sum of [`flag`]s.
    pub flags: u8,
    /// The stream's number; 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// The head of a DATA frame in the middle of a stream.
    #[must_use]
    pub fn data(stream: u32, payload_bytes: u32) -> Self {
        Head {
            payload_bytes,
            kind: kind::DATA,
            flags: 0,
            stream,
        }
    }

    /// Reads the head at the start of `bytes`, if all of it is there. A reserved bit
    /// is ignored, as it must be.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s, t, u, v] = bytes.first_chunk::<HEAD_BYTES>()?;
        Some(Head {
            payload_bytes: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        })
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
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
    let head = Head {
        // Whoever writes a frame has cut it to what the peer takes.
        payload_bytes: payload.len() as u32,
        kind,
        flags,
        stream,
    };
    out.extend(head.to_bytes());
    out.extend(payload);
}

/// Appends a SETTINGS frame.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    write(out, kind::SETTINGS, 0, 0, &payload);
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

/// What a frame of that kind carries, without its padding (sections 6.1 and 6.2);
/// `None` if the padding is longer than the payload.
#[must_use]
pub fn without_padding(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    let data = rest.len().checked_sub(usize::from(padding))?;
    Some(&rest[..data])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head {
            payload_bytes: 0x01_02_03,
            kind: kind::HEADERS,
            flags: flag::END_HEADERS,
            stream: 0x7f_00_00_05,
        };
        let bytes = head.to_bytes();
        assert_eq!(bytes, [1, 2, 3, 1, 4, 0x7f, 0, 0, 5]);
        assert_eq!(Head::read(&bytes), Some(head));
        assert_eq!(Head::read(&bytes[..8]), None);
        let mut reserved = bytes;
        reserved[5] |= 0x80;
        assert_eq!(Head::read(&reserved), Some(head));
    }

    #[test]
    fn padding_is_taken_off_if_there_is_as_much() {
        let head = |flags| Head {
            flags,
            ..Head::data(1, 0)
        };
        let padded = head(flag::PADDED);
        assert_eq!(without_padding(head(0), b"\x05abc"), Some(&b"\x05abc"[..]));
        assert_eq!(without_padding(padded, b"\x01abc"), Some(&b"ab"[..]));
        assert_eq!(without_padding(padded, b"\x03abc"), Some(&b""[..]));
        assert_eq!(without_padding(padded, b"\x04abc"), None);
        assert_eq!(without_padding(padded, b""), None);
    }

    #[test]
    fn settings_are_whole() {
        let mut out = Vec::new();
        write_settings(&mut out, &[(3, 256), (6, 1 << 14)]);
        let payload = &out[HEAD_BYTES..];
        let read: Vec<_> = read_settings(payload).unwrap().collect();
        assert_eq!(read, [(3, 256), (6, 1 << 14)]);
        assert!(read_settings(&payload[1..]).is_none());
    }
}
