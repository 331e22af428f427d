//! Why a server ends a connection: what its GOAWAY frame says, in one table.
//!
//! The code is the specification's, the text is ours: when that is put in other words,
//! this is the place to change.

use super::frames::Reason;

/// What a GOAWAY frame must say.
#[derive(Clone, Copy, Debug)]
pub struct Goodbye {
    /// The error code.
    pub reason: Reason,
    /// What the debug text contains.
    pub text: &'static str,
}

const fn goodbye(reason: Reason, text: &'static str) -> Goodbye {
    Goodbye { reason, text }
}

/// The client preface is none.
pub const NOT_HTTP2: Goodbye = goodbye(Reason::ProtocolError, "invalid connection preface");
/// It is TLS's.
pub const TLS: Goodbye = goodbye(
    Reason::ProtocolError,
    "a TLS handshake, where no TLS is spoken",
);
/// The client preface is not followed by SETTINGS.
pub const NO_SETTINGS_FIRST: Goodbye =
    goodbye(Reason::ProtocolError, "the first frame is not SETTINGS");
/// A frame is longer than the largest that was announced.
pub const FRAME_TOO_LONG: Goodbye = goodbye(
    Reason::FrameSizeError,
    "frame longer than SETTINGS_MAX_FRAME_SIZE",
);
/// A frame on a stream that was never opened.
pub const IDLE_STREAM: Goodbye = goodbye(Reason::ProtocolError, "frame on an idle stream");
/// A request on a stream that only a server may open.
pub const EVEN_STREAM: Goodbye = goodbye(
    Reason::ProtocolError,
    "HEADERS on an even stream identifier",
);
/// A header block that is not HPACK.
pub const HPACK: Goodbye = goodbye(Reason::CompressionError, "HPACK decoding failed");
/// CONTINUATION without a HEADERS frame before it.
pub const CONTINUATION_ALONE: Goodbye =
    goodbye(Reason::ProtocolError, "CONTINUATION without a header block");
/// Another frame inside a header block.
pub const HEADERS_INTERRUPTED: Goodbye = goodbye(
    Reason::ProtocolError,
    "a header block is interrupted by another frame",
);
/// A header block in more CONTINUATION frames than any request needs.
pub const CONTINUATION_FLOOD: Goodbye =
    goodbye(Reason::EnhanceYourCalm, "too many CONTINUATION frames");
/// More header fields than any peer has, in one block or in many.
pub const HEADER_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many header fields");
/// A WINDOW_UPDATE of 0 for the connection.
pub const WINDOW_UPDATE_OF_0: Goodbye =
    goodbye(Reason::ProtocolError, "WINDOW_UPDATE increment of 0");
/// The connection's window, or the initial one of all streams, beyond 2^31-1.
pub const WINDOW_TOO_LARGE: Goodbye = goodbye(Reason::FlowControlError, "over 2^31-1");
/// PUSH_PROMISE, which only a server may send.
pub const PUSH_PROMISE: Goodbye = goodbye(Reason::ProtocolError, "PUSH_PROMISE from a client");
/// Pings, or their acknowledgements.
pub const PING_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many PING frames");
/// DATA that is empty, or that nobody wants.
pub const DATA_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many DATA frames");
/// Windows that are opened by a byte.
pub const WINDOW_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many WINDOW_UPDATE frames");
/// SETTINGS frames, or what is in them.
pub const SETTINGS_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many SETTINGS");
/// Frames of any other kind.
pub const FRAME_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many frames");
/// Streams that are reset as they are opened.
pub const RESET_FLOOD: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    "too many streams reset by the peer",
);
/// Streams that the server is made to reset.
pub const STREAM_ERROR_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, "too many stream errors");
/// A frame or a header block whose rest does not come.
pub const LATE: Goodbye = goodbye(Reason::EnhanceYourCalm, "did not arrive in time");
/// As many connections are open as the listener takes.
pub const TOO_MANY_CONNECTIONS: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    "too many connections: the limit is",
);
/// The process has as many files open as the system lets it.
pub const NO_FILES: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    "the server has no file descriptor left",
);
