//! The server's end of a connection.
//!
//! Bytes from the peer go into [`receive`](Connection::receive), which returns at each
//! [`Event`]: a request, or data of one. Data is lent out of the caller's memory. What the
//! caller does not use at once it [keeps](Connection::buffer) with the stream. A stream is
//! taken [apart](Connection::parts) to read its body and to write its response.
//!
//! What is to be written is in [`output`](Connection::output). The data of a response can be
//! [sent](Response::send) as a part of that. A caller that has much of it asks how much it may
//! send ([`Sendable`]), writes frames itself, and [reports](Connection::sent) them.
//!
//! # Indices
//!
//! A stream has an index, by which it is found at once. An index is valid until the next call
//! of [`take_ended`](Connection::take_ended): a stream that ends stays at its index until
//! then, where it is invisible to all other calls.
//!
//! # What a peer may hold
//!
//! | what | at most |
//! |---|---|
//! | the start of a frame | some bytes: payloads are not kept |
//! | a header block | [`Limits::max_field_bytes`], and one field; what is beyond is skipped |
//! | its HPACK table | 4 KiB, as the RFC counts |
//! | bodies that were [buffered](Connection::buffer) and neither [taken](Connection::take_body) nor [released](Connection::release_body) | [`Limits::stream_window`]; of all streams together [`Limits::connection_window`] |
//! | open streams | [`Limits::max_streams`] |
//! | output | what each call makes of what it is given: [`receive`](Connection::receive) not more than twice as much |

mod budget;
mod closed;
mod receive;
mod requests;
mod response;
mod shutdown;
mod stream;

use smallvec::SmallVec;

pub use self::receive::Event;
pub use self::response::{Body, Parts, Response};
pub use self::stream::{Blocked, EndCause, Ended, Sendable, Stream};

use self::budget::{Budget, Cause};
use self::closed::ClosedStreams;
use self::receive::DataFrame;
use self::response::Output;
use self::shutdown::GracefulShutdown;
use super::error::Error;
use super::flow_control::FlowControl;
use super::frame::{
    self, DEFAULT_FRAME_BYTES, INITIAL_WINDOW, MAX_FRAME_BYTES, MAX_WINDOW, PREFACE, Reason, kind,
    setting,
};
use super::header_block::HeaderBlock;
use super::hpack;
use super::reader::FrameReader;
use super::request::Fields;

/// As much memory of its body a stream keeps for what is to come.
const KEPT_BYTES: usize = 16 << 10;
/// What our keepalive PING carries.
const KEEPALIVE: [u8; 8] = *b"alive?\0\0";

/// What peers may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open streams at a time; further ones are refused one by one.
    pub max_streams: usize,
    /// A request's fields, as RFC 9113 counts them (section 6.5.2).
    pub max_field_bytes: usize,
    /// Bytes of one body that may be in flight or unreleased. At least
    /// [`INITIAL_WINDOW`], which peers use before they know better.
    pub stream_window: u32,
    /// The same for all bodies of a connection together.
    pub connection_window: u32,
    /// A frame's payload. At least [`DEFAULT_FRAME_BYTES`]. It costs no memory.
    pub max_frame_bytes: u32,
}

/// The server's end of a connection, with an `S` for each stream.
#[derive(Debug)]
pub struct Connection<S> {
    limits: Limits,
    /// How much of the client's preface has arrived.
    preface_bytes: usize,
    /// Whether its first SETTINGS have.
    is_open: bool,
    reader: FrameReader,
    /// The DATA frame that is arriving.
    data: DataFrame,
    block: HeaderBlock<Fields>,
    /// In the order of their identifiers.
    /// Most connections have one: it lies where the connection lies.
    streams: SmallVec<[Stream<S>; 1]>,
    /// How many of them have ended.
    ended: usize,
    /// The newest stream that the peer has opened.
    newest: u32,
    flow: FlowControl,
    output: Output,
    shutdown: GracefulShutdown,
    budget: Budget,
    /// Octets of header fields that were not counted yet.
    header_octets: usize,
    closed: ClosedStreams,
    failed: Option<Error>,
}

impl<S: Default> Connection<S> {
    /// A connection that was just accepted. [`output`](Self::output) has our settings.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let window = |bytes: u32| bytes.clamp(INITIAL_WINDOW, MAX_WINDOW);
        let limits = Limits {
            stream_window: window(limits.stream_window),
            connection_window: window(limits.connection_window),
            max_frame_bytes: limits
                .max_frame_bytes
                .clamp(DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES),
            ..limits
        };
        let number = |setting: usize| u32::try_from(setting).unwrap_or(u32::MAX);
        let mut settings: SmallVec<[(u16, u32); 4]> = SmallVec::new();
        settings.push((setting::MAX_CONCURRENT_STREAMS, number(limits.max_streams)));
        settings.push((
            setting::MAX_HEADER_LIST_SIZE,
            number(limits.max_field_bytes),
        ));
        // What holds unless it is announced need not be.
        if limits.stream_window > INITIAL_WINDOW {
            settings.push((setting::INITIAL_WINDOW_SIZE, limits.stream_window));
        }
        if limits.max_frame_bytes > DEFAULT_FRAME_BYTES {
            settings.push((setting::MAX_FRAME_SIZE, limits.max_frame_bytes));
        }
        let mut output = Output::default();
        output.bytes.reserve(64);
        frame::write_settings(&mut output.bytes, &settings);
        let more = limits.connection_window - INITIAL_WINDOW;
        if more > 0 {
            frame::write_window_update(&mut output.bytes, 0, more);
        }
        Connection {
            limits,
            preface_bytes: 0,
            is_open: false,
            reader: FrameReader::new(limits.max_frame_bytes),
            data: DataFrame::default(),
            block: HeaderBlock::new(hpack::TABLE_OCTETS, limits.max_field_bytes),
            streams: SmallVec::new(),
            ended: 0,
            newest: 0,
            flow: FlowControl::new(limits.connection_window),
            output,
            shutdown: GracefulShutdown::default(),
            budget: Budget::new(),
            header_octets: 0,
            closed: ClosedStreams::default(),
            failed: None,
        }
    }
}

impl<S> Connection<S> {
    /// Whether the peer has completed its preface and its first SETTINGS.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// While a frame or a header block has arrived in part: a number that changes when the rest
    /// of it has, or 16 KiB more of a longer frame.
    #[must_use]
    pub fn incomplete_frame(&self) -> Option<u64> {
        let has_preface = self.preface_bytes == PREFACE.len();
        self.reader.incomplete().filter(|_| has_preface)
    }

    /// The frames that are to be written as soon as none is half written. The caller
    /// removes what it has written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output.bytes
    }

    /// One more than the largest index of a stream.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// The open streams with their indices, in the order of their identifiers.
    pub fn streams(&self) -> impl DoubleEndedIterator<Item = (usize, &Stream<S>)> {
        let streams = self.streams.iter().enumerate();
        streams.filter(|(_, stream)| stream.is_open())
    }

    /// The open streams with their indices, in the order of their identifiers.
    pub fn streams_mut(&mut self) -> impl DoubleEndedIterator<Item = (usize, &mut Stream<S>)> {
        let streams = self.streams.iter_mut().enumerate();
        streams.filter(|(_, stream)| stream.is_open())
    }

    /// The open streams with their indices: from the index `first` on, and then those
    /// before it.
    pub fn streams_from(&self, first: usize) -> impl Iterator<Item = (usize, &Stream<S>)> {
        let all = self.streams.len();
        let first = if first < all { first } else { 0 };
        let indices = (first..all).chain(0..first);
        indices.filter_map(|at| Some((at, self.stream(at)?)))
    }

    /// The index of the stream with this identifier, while it is open.
    #[must_use]
    pub fn index(&self, id: u32) -> Option<usize> {
        let found = self.streams.binary_search_by_key(&id, |stream| stream.id);
        found.ok().filter(|&at| self.streams[at].is_open())
    }

    /// The stream at this index, while it is open.
    #[must_use]
    pub fn stream(&self, at: usize) -> Option<&Stream<S>> {
        self.streams.get(at).filter(|stream| stream.is_open())
    }

    /// The stream at this index, while it is open.
    pub fn stream_mut(&mut self, at: usize) -> Option<&mut Stream<S>> {
        self.streams.get_mut(at).filter(|stream| stream.is_open())
    }

    /// The stream at this index, while it is open, in parts that can be used together.
    pub fn parts(&mut self, at: usize) -> Option<Parts<'_, S>> {
        let stream = self.streams.get_mut(at).filter(|stream| stream.is_open())?;
        Some(Parts::new(
            stream,
            &mut self.flow,
            &mut self.output,
            &mut self.budget,
            &mut self.closed,
            &mut self.ended,
        ))
    }

    /// Whether streams have ended that were not [taken](Self::take_ended).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended > 0
    }

    /// The streams that have ended since the last call, which changes indices.
    pub fn take_ended(&mut self) -> impl Iterator<Item = Ended<S>> + use<S> {
        let mut taken: SmallVec<[Ended<S>; 1]> = SmallVec::new();
        let mut at = self.streams.len();
        // From the last on: what is before it stays at its index.
        while taken.len() < self.ended && at > 0 {
            at -= 1;
            if let response::Phase::Ended(cause) = self.streams[at].phase {
                let Stream { id, state, .. } = self.streams.remove(at);
                taken.push(Ended { id, state, cause });
            }
        }
        self.ended = 0;
        taken.into_iter()
    }

    /// Keeps data of an [event](Event::Data) in the body of its stream.
    pub fn buffer(&mut self, at: usize, data: &[u8]) {
        if let Some(stream) = self.stream_mut(at) {
            stream.body.extend_from_slice(data);
        }
    }

    /// So many bytes of an [event's data](Event::Data) are done with and were not buffered:
    /// the peer may send as many again.
    pub fn consumed(&mut self, at: usize, bytes: usize) {
        self.credit(at, bytes);
    }

    /// Drops the first `bytes` of the stream's body, or all of it. They are done with: the
    /// peer may send as many again.
    pub fn take_body(&mut self, at: usize, bytes: usize) {
        let Some(stream) = self.stream_mut(at) else {
            return;
        };
        stream.body.drain(..bytes.min(stream.body.len()));
        let kept = if stream.is_complete { 0 } else { KEPT_BYTES };
        if stream.body.len() <= stream.body.capacity() / 2 {
            stream.body.shrink_to(kept);
        }
        // What is left was credited last, if at all.
        let released = (stream.uncredited as usize).saturating_sub(stream.body.len());
        self.credit(at, released);
    }

    /// Lets the peer send as much again as the stream's body has, though it is kept.
    pub fn release_body(&mut self, at: usize) {
        self.credit(at, usize::MAX);
    }

    /// Gives at most so many bytes of a stream back to both windows.
    fn credit(&mut self, at: usize, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(at).filter(|stream| stream.is_open()) {
            let bytes =
                u32::try_from(bytes).map_or(stream.uncredited, |b| b.min(stream.uncredited));
            stream.uncredited -= bytes;
            self.release_on(at, bytes);
        }
    }

    /// Lets the peer send so many bytes again on the stream at this index.
    fn release_on(&mut self, at: usize, bytes: u32) {
        let output = &mut self.output.bytes;
        self.flow.release(bytes, output);
        let stream = &mut self.streams[at];
        if !stream.is_complete
            && let Some(increment) = stream.receive.release(bytes)
        {
            frame::write_window_update(output, stream.id, increment);
        }
    }

    /// How much may be sent by now.
    #[must_use]
    pub fn sendable(&self) -> Sendable {
        Sendable::new(&self.flow)
    }

    /// A DATA frame with so many bytes, which [`Sendable::plan`] has allowed, goes out on the
    /// stream at this index.
    pub fn sent(&mut self, at: usize, bytes: u32) {
        if let Some(mut parts) = self.parts(at) {
            parts.response.sent(bytes);
        }
    }

    /// So many requests have arrived in full and were answered: their sender is not one
    /// that asks for much and takes nothing.
    pub fn answered(&mut self, requests: u32) {
        self.budget.answered(requests);
    }

    /// Spends what something costs that the peer has us do.
    fn spend(&mut self, cause: Cause, cost: u32) -> Result<(), Error> {
        if self.budget.spend(cause, cost) {
            return Ok(());
        }
        self.refill_budget();
        if self.budget.spend(cause, cost) {
            return Ok(());
        }
        Err(self.budget.exhausted(cause, cost))
    }

    fn refill_budget(&mut self) {
        let live = self.streams().filter(|(_, stream)| stream.is_begun());
        let live = live.count();
        self.budget.refill(live);
    }

    /// Resets the stream with this identifier, if it is open.
    pub fn reset(&mut self, id: u32, reason: Reason) {
        if let Some(at) = self.index(id)
            && let Some(mut parts) = self.parts(at)
        {
            parts.response.reset(reason);
        }
    }

    /// Ends the stream with this identifier without a word.
    fn end(&mut self, id: u32, cause: EndCause) {
        if let Some(at) = self.index(id)
            && let Some(mut parts) = self.parts(at)
        {
            parts.response.end(cause);
        }
    }

    /// Sends a PING: an answer shows that the peer is alive.
    pub fn send_ping(&mut self) {
        frame::write(&mut self.output.bytes, kind::PING, 0, 0, &KEEPALIVE);
    }

    /// Begins a graceful shutdown: the peer is to open no more streams. Those that are there,
    /// and those that cross with this, go on.
    pub fn shut_down(&mut self) {
        if self.shutdown.begin() {
            self.output.go_away(MAX_WINDOW, Reason::NoError, "");
            frame::write(&mut self.output.bytes, kind::PING, 0, 0, &shutdown::PING);
        }
    }

    /// Whether a graceful shutdown is complete but for what is in the output.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.shutdown.is_acknowledged() && self.streams.len() == self.ended
    }

    /// Ends the connection and all its streams, and tells the peer why.
    pub fn fail(&mut self, error: Error) {
        if self.failed.replace(error).is_none() {
            for at in 0..self.streams.len() {
                if let Some(mut parts) = self.parts(at) {
                    parts.response.end(EndCause::ConnectionFailed);
                }
            }
            self.output.go_away(self.newest, error.reason, error.text);
        }
    }
}

#[cfg(test)]
mod tests;
