//! One stream of a connection, and how much may be sent on it.

use super::response::Phase;
use crate::http2::flow_control::{FlowControl, ReceiveWindow, SendWindow};
use crate::http2::frame::Reason;

/// One stream, and what its server keeps with it.
#[derive(Debug)]
pub struct Stream<S> {
    pub(super) id: u32,
    pub(super) phase: Phase,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    pub(super) body: Vec<u8>,
    /// Bytes that have arrived and were not given back to the peer's windows.
    pub(super) uncredited: u32,
    /// What is to come of the body, if its length was announced.
    pub(super) content_left: Option<u64>,
    /// Whether the request has arrived in full.
    pub(super) is_complete: bool,
    /// Whatever its server needs. [`Connection::take_ended`] returns it when the stream
    /// has ended.
    ///
    /// [`Connection::take_ended`]: super::Connection::take_ended
    pub state: S,
}

/// A stream that has ended.
#[derive(Debug)]
pub struct Ended<S> {
    /// Its identifier.
    pub id: u32,
    /// What its server kept with it.
    pub state: S,
    /// How it ended.
    pub cause: EndCause,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Its response is complete.
    Finished,
    /// We reset it.
    Reset(Reason),
    /// The peer reset it, with this error code.
    ResetByPeer(u32),
    /// The connection failed.
    ConnectionFailed,
}

impl<S> Stream<S> {
    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What was [buffered](super::Connection::buffer) of the request's body and not
    /// [taken](super::Connection::take_body).
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the request has arrived in full.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the response's head was sent.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.phase == Phase::Begun
    }

    /// So many bytes of content arrive. Returns what is wrong with that: the sum of all is
    /// to be what `content-length` has announced (RFC 9113, section 8.1.1).
    pub(super) fn has_content(&mut self, bytes: u32, ends: bool) -> Option<Reason> {
        let left = self.content_left?;
        let left_now = left.checked_sub(u64::from(bytes));
        self.content_left = left_now;
        match left_now {
            Some(left) if left == 0 || !ends => None,
            _ => Some(Reason::ProtocolError),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Ended(_))
    }

    /// What was sent on it and the peer has not acknowledged by a WINDOW_UPDATE. (Small
    /// pieces need not be acknowledged one by one.)
    #[must_use]
    pub fn unacknowledged_bytes(&self) -> u64 {
        self.send.unacknowledged_bytes()
    }
}

/// Which flow-control window lets nothing be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The stream's: the reader of this stream takes nothing.
    Stream,
    /// The connection's: it may be others that take nothing.
    Connection,
}

/// How much may be sent: a copy of the connection's window, to plan with.
#[derive(Clone, Copy, Debug)]
pub struct Sendable {
    connection: i64,
    max_frame_bytes: u32,
}

impl Sendable {
    pub(super) fn new(flow: &FlowControl) -> Self {
        Sendable {
            connection: flow.send.bytes(),
            max_frame_bytes: flow.max_frame_bytes,
        }
    }

    /// The payload of the next DATA frame on a stream that has `left` bytes to send, of
    /// which `planned` bytes are planned already. Zero if a window allows none.
    pub fn plan<S>(&mut self, stream: &Stream<S>, planned: u32, left: usize) -> u32 {
        self.plan_on(&stream.send, planned, left)
    }

    pub(super) fn plan_on(&mut self, stream: &SendWindow, planned: u32, left: usize) -> u32 {
        let windows = self.connection.min(stream.bytes() - i64::from(planned));
        let most = windows.clamp(0, i64::from(self.max_frame_bytes)) as u32;
        let bytes = u32::try_from(left).unwrap_or(u32::MAX).min(most);
        self.connection -= i64::from(bytes);
        bytes
    }

    /// Which window lets nothing be sent on the stream, if one does.
    #[must_use]
    pub fn blocked<S>(&self, stream: &Stream<S>) -> Option<Blocked> {
        if stream.send.bytes() <= 0 {
            Some(Blocked::Stream)
        } else if self.connection <= 0 {
            Some(Blocked::Connection)
        } else {
            None
        }
    }
}
