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
    /// What the debug text contains: one of these.
    pub texts: &'static [&'static str],
}

const fn goodbye(reason: Reason, texts: &'static [&'static str]) -> Goodbye {
    Goodbye { reason, texts }
}

/// The client preface is none.
pub const NOT_HTTP2: Goodbye = goodbye(
    Reason::ProtocolError,
    &["not HTTP/2", "invalid connection preface"],
);
/// The client preface is not followed by SETTINGS.
pub const NO_SETTINGS_FIRST: Goodbye =
    goodbye(Reason::ProtocolError, &["first frame is not SETTINGS"]);
/// A frame is longer than the largest that was announced.
pub const FRAME_TOO_LONG: Goodbye = goodbye(
    Reason::FrameSizeError,
    &["over 16384 bytes", "SETTINGS_MAX_FRAME_SIZE"],
);
/// A frame on a stream that was never opened.
pub const IDLE_STREAM: Goodbye = goodbye(Reason::ProtocolError, &["never opened", "idle stream"]);
/// A request on a stream that only a server may open.
pub const EVEN_STREAM: Goodbye = goodbye(
    Reason::ProtocolError,
    &["no client's stream", "even stream"],
);
/// A header block that is not HPACK.
pub const HPACK: Goodbye = goodbye(
    Reason::CompressionError,
    &["header block that is none", "HPACK decoding failed"],
);
/// CONTINUATION without a HEADERS frame before it.
pub const CONTINUATION_ALONE: Goodbye = goodbye(
    Reason::ProtocolError,
    &["without a start", "CONTINUATION without"],
);
/// Another frame inside a header block.
pub const HEADERS_INTERRUPTED: Goodbye = goodbye(Reason::ProtocolError, &["interrupted"]);
/// A header block in more, or larger, CONTINUATION frames than any request needs.
pub const ENDLESS_HEADERS: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    &[
        "without end",
        "too many CONTINUATION",
        "header block too large",
    ],
);
/// A header block that stands for far more than its own length.
pub const HEADER_BOMB: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    &["stands for too much", "header list too large"],
);
/// A WINDOW_UPDATE of 0 for the connection.
pub const WINDOW_UPDATE_OF_0: Goodbye = goodbye(
    Reason::ProtocolError,
    &["opened by nothing", "increment of 0"],
);
/// The connection's window, or the initial one of all streams, beyond 2^31-1.
pub const WINDOW_TOO_LARGE: Goodbye = goodbye(
    Reason::FlowControlError,
    &["too far", "over 2^31 - 1", "over 2^31-1"],
);
/// PUSH_PROMISE, which only a server may send.
pub const PUSH_PROMISE: Goodbye = goodbye(Reason::ProtocolError, &["PUSH_PROMISE from a client"]);
/// Frames that cost the server more than they bring anybody.
pub const FRAME_FLOOD: Goodbye = goodbye(Reason::EnhanceYourCalm, &["too many frames"]);
/// The same of settings: of the frames, or of what is in one.
pub const SETTINGS_FLOOD: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    &["too many settings", "too many frames"],
);
/// Requests that are reset, or refused, as fast as they come.
pub const REQUEST_FLOOD: Goodbye = goodbye(
    Reason::EnhanceYourCalm,
    &["too many requests", "too many frames"],
);
/// A frame or a header block whose rest does not come.
pub const LATE: Goodbye = goodbye(Reason::EnhanceYourCalm, &["did not arrive in time"]);
