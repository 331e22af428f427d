//! The server's end of a connection.
//!
//! What the peer sends goes into [`receive`](Connection::receive). What comes of it are
//! [requests](Connection::next_request), whose bodies grow with their
//! [streams](Connection::streams), and frames in [`output`](Connection::output) that are
//! to be written between other frames.
//!
//! A response's data can be [sent](Connection::send) as one of those frames. Whoever has
//! much of it asks how much may go ([`Sendable`]), writes heads and data itself, and
//! [notes](Connection::sent) what went.
//!
//! # What a peer may hold
//!
//! | what | at most |
//! |---|---|
//! | a frame that has not arrived in full | 16 KiB |
//! | a header block | [`MAX_BLOCK_BYTES`] |
//! | its HPACK table | 4 KiB, as the RFC counts |
//! | bodies, as far as nobody has [taken](Connection::take_body) or [released](Connection::release_body) them | [`Limits::stream_window`]; of all streams together [`Limits::connection_window`] |
//! | open streams | [`Limits::max_streams`] |
//! | frames to be written | what each call makes of what it is given: [`receive`](Connection::receive) not more than twice as much |

mod frames;

use std::collections::VecDeque;
use std::time::Instant;

use http::HeaderMap;
use smallvec::SmallVec;

use super::frame::{
    self, Head, INITIAL_WINDOW, MAX_WINDOW, MIN_MAX_PAYLOAD, PREFACE, Reason, flag, kind, setting,
};
use super::hpack::{self, FieldsWriter, index};
use super::patience::Patience;
use super::request::Request;
use super::stream::{Sendable, Stream};

/// The longest header block, compressed as it is. A list of fields that is longer than
/// [`Limits::max_field_bytes`] is answered with 431 if its block is not longer than this.
pub const MAX_BLOCK_BYTES: usize = 32 << 10;
/// As much memory of its body a stream keeps for what is to come.
const KEPT_BYTES: usize = 16 << 10;
/// What our pings carry, to know their answers by.
const ALIVE: [u8; 8] = *b"alive?\0\0";
const LEAVING: [u8; 8] = *b"leaving\0";

/// What peers may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open streams at a time; further ones are refused one by one.
    pub max_streams: usize,
    /// A request's fields, as RFC 9113 counts them (section 6.5.2).
    pub max_field_bytes: usize,
    /// Bytes of one body that may be under way or unreleased. Not less than
    /// [`INITIAL_WINDOW`], which peers use before they know better.
    pub stream_window: u32,
    /// The same for all bodies of a connection together.
    pub connection_window: u32,
}

/// Why a connection cannot go on. The peer is told in [`Connection::output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({reason:?})")]
pub struct ConnectionError {
    /// As the peer is told.
    pub reason: Reason,
    /// What the peer has done.
    pub what: &'static str,
}

impl ConnectionError {
    /// What is [midway](Connection::midway) was waited for too long: nothing else can
    /// arrive before the rest of it.
    pub const LATE: Self = wrong(
        Reason::EnhanceYourCalm,
        "a frame or a header block did not arrive in time",
    );
}

/// How the peer's own frame goes wrong.
enum Wrong {
    Connection(ConnectionError),
    Stream(u32, Reason),
}

impl From<ConnectionError> for Wrong {
    fn from(error: ConnectionError) -> Self {
        Wrong::Connection(error)
    }
}

const fn wrong(reason: Reason, what: &'static str) -> ConnectionError {
    ConnectionError { reason, what }
}

/// How far a graceful end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The peer was told to open no more streams; those that it opened before it read
    /// that are still served.
    Announced,
    /// Since then it has answered.
    Agreed,
}

/// What has arrived of the connection's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Preface { seen: usize },
    Settings,
    Done,
}

/// A header block whose end has not arrived.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends_stream: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

/// What is left to be known of a stream that has ended.
struct Left {
    /// Whether its request had arrived in full.
    ended: bool,
    receive_window: u32,
}

/// The server's end of a connection, with an `S` for each stream.
#[derive(Debug)]
pub struct Connection<S> {
    limits: Limits,
    opening: Opening,
    /// The start of a frame.
    partial: Vec<u8>,
    block: Option<Block>,
    decoder: hpack::Decoder,
    /// In the order of their numbers.
    /// Most connections have one: it lies where the connection lies.
    streams: SmallVec<[Stream<S>; 1]>,
    /// What was kept with streams that have ended, until somebody takes it.
    ended: Vec<(u32, S)>,
    /// The newest stream that the peer has opened.
    newest: u32,
    /// Requests that nobody has looked at.
    requests: VecDeque<(u32, Box<Request>)>,

    /// The peer's settings and window.
    initial_window: u32,
    max_payload: u32,
    window: i64,
    /// What the peer may still send, and what it has to be told that it may again.
    receive_window: u32,
    release: u32,
    /// What it may have sent of requests that we ended, before it knew.
    late_bytes: u32,

    output: Vec<u8>,
    /// Whether the peer knows that we use no table.
    no_table: bool,
    leaving: Leaving,
    patience: Patience,
    /// Frames and header blocks that have arrived in full.
    whole: u64,
    failed: Option<ConnectionError>,
}

impl<S: Default> Connection<S> {
    /// A connection that was just accepted. [`output`](Self::output) has our settings.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let window = |bytes: u32| bytes.clamp(INITIAL_WINDOW, MAX_WINDOW);
        let limits = Limits {
            stream_window: window(limits.stream_window),
            connection_window: window(limits.connection_window),
            ..limits
        };
        let number = |setting: usize| u32::try_from(setting).unwrap_or(u32::MAX);
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, number(limits.max_streams)),
            (
                setting::MAX_HEADER_LIST_SIZE,
                number(limits.max_field_bytes),
            ),
            (setting::INITIAL_WINDOW_SIZE, limits.stream_window),
        ];
        // The last is what everybody begins with.
        let said = if limits.stream_window == INITIAL_WINDOW {
            &settings[..2]
        } else {
            &settings
        };
        let mut output = Vec::with_capacity(64);
        frame::write_settings(&mut output, said);
        let more = limits.connection_window - INITIAL_WINDOW;
        if more > 0 {
            frame::write_window_update(&mut output, 0, more);
        }
        Connection {
            limits,
            opening: Opening::Preface { seen: 0 },
            partial: Vec::new(),
            block: None,
            decoder: hpack::Decoder::default(),
            streams: SmallVec::new(),
            ended: Vec::new(),
            newest: 0,
            requests: VecDeque::new(),
            initial_window: INITIAL_WINDOW,
            max_payload: MIN_MAX_PAYLOAD,
            window: i64::from(INITIAL_WINDOW),
            receive_window: limits.connection_window,
            release: 0,
            late_bytes: 0,
            output,
            no_table: false,
            leaving: Leaving::No,
            patience: Patience::new(),
            whole: 0,
            failed: None,
        }
    }

    /// Takes the next bytes from the peer.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] ends the connection: write the rest of
    /// [`output`](Self::output), and close it.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.patience.wait(now);
        let received = self.follow(bytes);
        if let Err(error) = received {
            self.fail(error);
        }
        received
    }

    /// Ends the connection and all its streams, and tells the peer why.
    pub fn fail(&mut self, error: ConnectionError) {
        self.failed = Some(error);
        let streams = std::mem::take(&mut self.streams);
        self.ended
            .extend(streams.into_iter().map(|s| (s.id, s.state)));
        self.requests.clear();
        self.write_go_away(self.newest, error.reason, error.what);
    }

    /// While a frame or a header block has arrived in part: a number that stays the
    /// same until the rest of it has.
    #[must_use]
    pub fn midway(&self) -> Option<u64> {
        let midway = !self.partial.is_empty() || self.block.is_some();
        midway.then_some(self.whole)
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), ConnectionError> {
        if let Opening::Preface { seen } = self.opening {
            let expected = &PREFACE[seen..];
            let n = expected.len().min(bytes.len());
            if expected[..n] != bytes[..n] {
                return Err(wrong(Reason::ProtocolError, "not HTTP/2"));
            }
            bytes = &bytes[n..];
            self.opening = match seen + n {
                seen if seen == PREFACE.len() => Opening::Settings,
                seen => Opening::Preface { seen },
            };
        }
        // First the frame whose start is here already.
        while !self.partial.is_empty() && !bytes.is_empty() {
            let missing = match Head::read(&self.partial) {
                None => frame::HEAD_BYTES - self.partial.len(),
                Some(head) => frame::HEAD_BYTES + head.payload_bytes as usize - self.partial.len(),
            };
            let n = missing.min(bytes.len());
            self.partial.extend(&bytes[..n]);
            bytes = &bytes[n..];
            self.take_partial()?;
        }
        while let Some((head, rest)) = split_head(bytes) {
            check_length(head)?;
            let Some((payload, rest)) = rest.split_at_checked(head.payload_bytes as usize) else {
                break;
            };
            self.frame(head, payload)?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            if let Some((head, _)) = split_head(bytes) {
                check_length(head)?;
            }
            self.partial.extend(bytes);
        }
        Ok(())
    }

    /// Takes the frame out of `partial`, if it is whole by now.
    fn take_partial(&mut self) -> Result<(), ConnectionError> {
        if let Some((head, payload)) = split_head(&self.partial) {
            check_length(head)?;
            if payload.len() == head.payload_bytes as usize {
                let whole = std::mem::take(&mut self.partial);
                self.frame(head, &whole[frame::HEAD_BYTES..])?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), ConnectionError> {
        if self.opening == Opening::Settings {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(wrong(
                    Reason::ProtocolError,
                    "the first frame is not SETTINGS",
                ));
            }
            self.opening = Opening::Done;
        }
        if head.kind != kind::DATA {
            self.spend_on_frame()?;
        }
        let continues = head.kind == kind::CONTINUATION;
        if self.block.is_some() != continues {
            return Err(wrong(
                Reason::ProtocolError,
                "a header block was interrupted, or goes on without a start",
            ));
        }
        let taken = match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::RST_STREAM => self.rst_stream(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.ping(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::GOAWAY if head.stream != 0 => {
                Err(wrong(Reason::ProtocolError, "GOAWAY on a stream").into())
            }
            kind::PUSH_PROMISE => {
                Err(wrong(Reason::ProtocolError, "PUSH_PROMISE from a client").into())
            }
            // The peer opens no more streams, or says what we need not know.
            _ => Ok(()),
        };
        if self.block.is_none() {
            self.whole += 1;
        }
        match taken {
            Ok(()) => Ok(()),
            Err(Wrong::Stream(stream, reason)) => {
                self.reset(stream, reason);
                Ok(())
            }
            Err(Wrong::Connection(error)) => Err(error),
        }
    }

    /// The next request that has begun, with its stream's number, which may have ended
    /// already. Its body comes with the [stream](Stream::body).
    pub fn next_request(&mut self) -> Option<(u32, Box<Request>)> {
        self.requests.pop_front()
    }

    /// Lets the peer send as much again as has arrived of the body of the stream at
    /// place `at` of [`streams`](Self::streams), though it is still kept.
    pub fn release_body(&mut self, at: usize) {
        if let Some(stream) = self.streams.get_mut(at) {
            let bytes = std::mem::take(&mut stream.unreleased);
            self.release_on(at, bytes);
        }
    }

    /// Drops the first `bytes` of the body of the stream at place `at` of
    /// [`streams`](Self::streams), or all of it: they are done with.
    pub fn take_body(&mut self, at: usize, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(at) {
            stream.body.drain(..bytes.min(stream.body.len()));
            let kept = if stream.ended { 0 } else { KEPT_BYTES };
            if stream.body.len() <= stream.body.capacity() / 2 {
                stream.body.shrink_to(kept);
            }
            // No more than the length of a `Vec` that was never longer than that.
            let kept = u32::try_from(stream.body.len()).unwrap_or(u32::MAX);
            let released = stream.unreleased.saturating_sub(kept);
            stream.unreleased -= released;
            self.release_on(at, released);
        }
    }

    /// The frames that are to be written as soon as none is half written. Whoever
    /// writes them removes them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether the peer has completed its preface and its first SETTINGS.
    pub fn is_open(&self) -> bool {
        self.opening == Opening::Done
    }

    /// All streams, in the order of their numbers.
    pub fn streams(&mut self) -> &mut [Stream<S>] {
        &mut self.streams
    }

    /// The stream with this number, unless it has ended.
    pub fn stream_mut(&mut self, id: u32) -> Option<&mut Stream<S>> {
        let at = self.place(id)?;
        self.streams.get_mut(at)
    }

    /// The place in [`streams`](Self::streams) of the stream with this number, unless it
    /// has ended.
    #[must_use]
    pub fn place(&self, id: u32) -> Option<usize> {
        self.streams
            .binary_search_by_key(&id, |stream| stream.id)
            .ok()
    }

    /// What was kept with the streams that have ended since the last call.
    pub fn take_ended(&mut self) -> impl Iterator<Item = (u32, S)> {
        std::mem::take(&mut self.ended).into_iter()
    }

    /// Forgets a stream, and answers what was left of it.
    fn remove(&mut self, id: u32) -> Option<Left> {
        let stream = self.place(id).map(|at| self.streams.remove(at))?;
        self.release(stream.unreleased);
        self.ended.push((id, stream.state));
        Some(Left {
            ended: stream.ended,
            receive_window: stream.receive_window,
        })
    }

    /// Ends a stream on our side; says whether its request had not arrived in full.
    fn end(&mut self, id: u32) -> bool {
        let cut_short = self.remove(id).filter(|left| !left.ended);
        if let Some(left) = &cut_short {
            // All together, it may have used up the connection's window.
            let late_bytes = self.late_bytes.saturating_add(left.receive_window);
            self.late_bytes = late_bytes.min(self.limits.connection_window);
        }
        cut_short.is_some()
    }

    /// How much may be sent by now.
    #[must_use]
    pub fn sendable(&self) -> Sendable {
        Sendable {
            connection: self.window,
            max_payload: self.max_payload,
        }
    }

    /// A DATA frame with so many bytes, which [`Sendable::plan`] has allowed, goes out
    /// on the stream at place `at` of [`streams`](Self::streams).
    pub fn sent(&mut self, at: usize, bytes: u32) {
        self.window -= i64::from(bytes);
        if let Some(stream) = self.streams.get_mut(at) {
            stream.window -= i64::from(bytes);
        }
        self.patience.data_frame();
    }

    /// Sends as much of `data` as may be sent now on the stream at place `at` of
    /// [`streams`](Self::streams); says how much that is.
    pub fn send(&mut self, at: usize, data: &[u8]) -> usize {
        let mut rest = data;
        while let Some(stream) = self.streams.get(at)
            && !rest.is_empty()
        {
            let bytes = self.sendable().plan(stream, 0, rest.len());
            if bytes == 0 {
                break;
            }
            let (piece, after) = rest.split_at(bytes as usize);
            frame::write(&mut self.output, kind::DATA, 0, stream.id, piece);
            self.sent(at, bytes);
            rest = after;
        }
        data.len() - rest.len()
    }

    /// So many requests have arrived in full and were answered: their sender is not one
    /// that asks for much and takes nothing.
    pub fn answered(&mut self, requests: u32) {
        self.patience.answered(requests);
    }

    /// Begins a response, or makes all of it: a status code and fields.
    pub fn respond(&mut self, stream: u32, code: u16, fields: &HeaderMap, ends: bool) {
        let mut block = Vec::with_capacity(256);
        let mut writer = self.block_writer(&mut block);
        match code {
            200 => writer.indexed(index::STATUS_200),
            _ => writer.with_indexed_name(index::STATUS, code.to_string().as_bytes()),
        }
        write_fields(&mut writer, fields);
        self.write_block(stream, &block, ends);
    }

    /// Ends a response with fields after its data, all of which must have been written.
    pub fn finish(&mut self, stream: u32, trailers: &HeaderMap) {
        let mut block = Vec::with_capacity(256);
        let mut writer = self.block_writer(&mut block);
        write_fields(&mut writer, trailers);
        self.write_block(stream, &block, true);
    }

    fn block_writer<'a>(&mut self, block: &'a mut Vec<u8>) -> FieldsWriter<'a> {
        let mut writer = FieldsWriter::new(block);
        if !std::mem::replace(&mut self.no_table, true) {
            writer.no_table();
        }
        writer
    }

    fn write_block(&mut self, stream: u32, block: &[u8], ends: bool) {
        let mut rest = block;
        let mut of = kind::HEADERS;
        let mut flags = if ends { flag::END_STREAM } else { 0 };
        // No fields are a frame too.
        loop {
            let (piece, after) = rest.split_at(rest.len().min(MIN_MAX_PAYLOAD as usize));
            rest = after;
            if rest.is_empty() {
                flags |= flag::END_HEADERS;
            }
            frame::write(&mut self.output, of, flags, stream, piece);
            if rest.is_empty() {
                break;
            }
            (of, flags) = (kind::CONTINUATION, 0);
        }
        if ends && self.end(stream) {
            // What is left of the request is not wanted (RFC 9113, section 8.1).
            let reason = (Reason::NoError as u32).to_be_bytes();
            frame::write(&mut self.output, kind::RST_STREAM, 0, stream, &reason);
        }
    }

    /// Ends a stream at once.
    pub fn reset(&mut self, stream: u32, reason: Reason) {
        self.end(stream);
        let reason = (reason as u32).to_be_bytes();
        frame::write(&mut self.output, kind::RST_STREAM, 0, stream, &reason);
    }

    /// Asks the peer for a sign of life.
    pub fn ask_alive(&mut self) {
        frame::write(&mut self.output, kind::PING, 0, 0, &ALIVE);
    }

    /// Begins a graceful end: the peer is to open no more streams. Those that are there,
    /// and those that cross with this, go on.
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced;
            self.write_go_away(MAX_WINDOW, Reason::NoError, "");
            frame::write(&mut self.output, kind::PING, 0, 0, &LEAVING);
        }
    }

    /// Whether a graceful end is complete but for what is in the output.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.leaving == Leaving::Agreed && self.streams.is_empty()
    }

    fn write_go_away(&mut self, last: u32, reason: Reason, what: &str) {
        let payload = [
            &last.to_be_bytes()[..],
            &(reason as u32).to_be_bytes(),
            what.as_bytes(),
        ];
        frame::write(&mut self.output, kind::GOAWAY, 0, 0, &payload.concat());
    }
}

fn write_fields(writer: &mut FieldsWriter<'_>, fields: &HeaderMap) {
    for (name, value) in fields {
        if name == http::header::CONTENT_TYPE {
            writer.with_indexed_name(index::CONTENT_TYPE, value.as_bytes());
        } else {
            writer.literal(name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

fn split_head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    Some((Head::read(bytes)?, bytes.get(frame::HEAD_BYTES..)?))
}

/// We announce no larger frames than everybody takes.
fn check_length(head: Head) -> Result<(), ConnectionError> {
    if head.payload_bytes > MIN_MAX_PAYLOAD {
        return Err(wrong(Reason::FrameSizeError, "a frame over 16384 bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
