//! Why a connection ends.

use super::frame::Reason;

/// Why a connection cannot go on: what the peer's GOAWAY says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({reason:?})")]
pub struct Error {
    /// The error code.
    pub reason: Reason,
    /// What the peer did, in the words of the specification.
    pub text: &'static str,
}

impl Error {
    /// The rest of an [incomplete frame](super::server::Connection::incomplete_frame) did
    /// not arrive in time. Nothing else can arrive before it.
    pub const FRAME_TIMEOUT: Self = Error {
        reason: Reason::EnhanceYourCalm,
        text: "a frame or a header block did not arrive in time",
    };

    pub(super) const fn protocol(text: &'static str) -> Self {
        let reason = Reason::ProtocolError;
        Error { reason, text }
    }

    pub(super) const fn frame_size(text: &'static str) -> Self {
        let reason = Reason::FrameSizeError;
        Error { reason, text }
    }

    pub(super) const fn flow_control(text: &'static str) -> Self {
        let reason = Reason::FlowControlError;
        Error { reason, text }
    }

    pub(super) const fn compression(text: &'static str) -> Self {
        let reason = Reason::CompressionError;
        Error { reason, text }
    }

    pub(super) const fn stream_closed(text: &'static str) -> Self {
        let reason = Reason::StreamClosed;
        Error { reason, text }
    }

    pub(super) const fn calm(text: &'static str) -> Self {
        let reason = Reason::EnhanceYourCalm;
        Error { reason, text }
    }
}
