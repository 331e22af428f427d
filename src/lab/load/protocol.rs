//! A protocol without its sockets: bytes in, bytes out, and what they mean.
//!
//! What is measured differs between systems in nothing but this. A [`Consumer`]
//! receives events, a [`Publisher`] publishes them; a thread with sockets drives as
//! many of either as it has connections.

use std::borrow::Cow;
use std::fmt;

use super::event::Batch;
use crate::cursor::Cursor;

/// Where a consumer wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With whatever is published next.
    Head,
    /// With the oldest event that the server has.
    Oldest,
    /// With the event after this one.
    After(Cursor),
}

/// Receives events on one connection.
pub trait Consumer {
    /// A connection was opened, the first one or another: writes what the peer is to
    /// be sent at once. Nothing of an earlier connection counts any more.
    fn open(&mut self, begin: Begin, out: &mut Vec<u8>);

    /// Takes bytes from the peer, tells the sink what they mean, and writes the reply,
    /// if there is one. Returns how many of the bytes are done with; the others come
    /// again, with more behind them.
    ///
    /// # Errors
    ///
    /// What the peer did that the protocol does not allow. The connection is of no
    /// use any more.
    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError>;
}

/// What happens to a consumer.
pub trait Sink {
    /// It is subscribed: what is published from now on, it gets.
    fn started(&mut self, start: &Start);

    /// It got an event: the bytes as their publisher made them, and their place in the
    /// stream, where the protocol has such a thing.
    fn event(&mut self, event: &[u8], cursor: Option<Cursor>);

    /// Its stream has ended, and the peer has said why.
    fn ended(&mut self, end: &End);
}

/// Publishes events on one connection.
pub trait Publisher {
    /// Whether the peer responds to each request. Where it does not, a request counts
    /// as accepted once it is written.
    const RESPONDS: bool = true;

    /// A connection was opened: writes what the peer is to be sent at once.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Whether a request may be written. If not, there will be room after bytes have
    /// been received.
    fn has_room(&self) -> bool {
        true
    }

    /// Writes a request with all of the batch. Called only when there is room.
    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>);

    /// As [`Consumer::receive`].
    ///
    /// # Errors
    ///
    /// What the peer did that the protocol does not allow.
    fn receive<R: Responses>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        responses: &mut R,
    ) -> Result<usize, ProtocolError>;
}

/// The responses that a publisher gets.
pub trait Responses {
    /// The oldest request without a response was accepted. `places` are those of its
    /// first and its last event, where the protocol has places.
    fn accepted(&mut self, places: Option<(Cursor, Cursor)>);

    /// The peer accepts nothing more, and has said why.
    fn ended(&mut self, end: &End);
}

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The position before the first event.
    pub cursor: Option<Cursor>,
    /// Why it begins there, in the server's word, such as `requested`.
    pub reason: String,
    /// How many events lie between the place that was asked for and this one.
    pub missed: Option<u64>,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The status, as gRPC numbers them; 2 (unknown) where the protocol has none.
    pub code: u32,
    /// What the peer says.
    pub message: String,
    /// How many events it says were missed.
    pub missed: Option<u64>,
}

impl End {
    /// `DEADLINE_EXCEEDED`: it took nothing for the stall timeout.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// `ABORTED`: somebody else has the id.
    pub const ABORTED: u32 = 10;
    /// `OUT_OF_RANGE`: too slow for the ring.
    pub const OUT_OF_RANGE: u32 = 11;
    /// `UNAVAILABLE`: the server is stopping.
    pub const UNAVAILABLE: u32 = 14;
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The table is tonic's.
        let code = tonic::Code::from(i32::try_from(self.code).unwrap_or(2));
        write!(f, "{code:?}: {}", self.message)?;
        match self.missed {
            Some(missed) => write!(f, " ({missed} events missed)"),
            None => Ok(()),
        }
    }
}

/// What a peer did that its protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolError(Cow<'static, str>);

impl ProtocolError {
    /// What it did.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        ProtocolError(what.into())
    }
}
