//! Writes frames: headers that are made here, data from where it lies.
//!
//! One system call writes up to [`FRAMES`] frames of data, their headers, and the rest of
//! the connection's output.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::SmallVec;

use super::call::Served;
use super::in_flight::{InFlight, Tracked};
use super::socket::Socket;
use crate::http2::frame::{FrameHeader, HEADER_BYTES};
use crate::http2::server::Connection;
use crate::service::Service;

/// Frames of data in one system call: a batch of the usual size in frames of the size that
/// everybody takes.
const FRAMES: usize = 16;
/// Each has a header; and before them may come the rest of a frame, and other output.
const SLICES: usize = 2 * FRAMES + 3;
/// Written output is dropped when it is this much, though some behind it is left.
const DROPPED_BYTES: usize = 16 << 10;

/// What a write did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// There is nothing left that may be written now.
    All { bytes: usize },
    /// Some of it is left.
    Some { bytes: usize },
    /// The socket takes nothing.
    Blocked,
}

/// What is half written.
#[derive(Debug)]
pub(super) struct Writer<D> {
    frame: Option<HalfFrame<D>>,
    /// How much of the connection's output is written.
    output_written: usize,
    /// The index of the stream that comes first next time.
    turn: usize,
}

/// A frame of data of which a part is written.
#[derive(Debug)]
struct HalfFrame<D> {
    stream: u32,
    header: [u8; HEADER_BYTES],
    /// Where its payload is in the stream's data.
    start: usize,
    end: usize,
    /// Of header and payload together.
    written: usize,
    /// The stream's data, once that has ended: the peer waits for the rest of the frame all
    /// the same. It is watched until it is written.
    orphan: Option<(D, InFlight)>,
}

impl<D> HalfFrame<D> {
    /// So many more bytes are written; returns how many of them were payload.
    fn advance(&mut self, bytes: usize) -> u64 {
        let payload = |written: usize| written.saturating_sub(HEADER_BYTES);
        let before = payload(self.written);
        self.written += bytes;
        (payload(self.written) - before) as u64
    }

    fn left(&self) -> usize {
        HEADER_BYTES + (self.end - self.start) - self.written
    }

    /// What is left of its header and its payload, out of the stream's data.
    fn rest<'a>(&'a self, data: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let payload_written = self.written.saturating_sub(HEADER_BYTES);
        let header = &self.header[self.written.min(HEADER_BYTES)..];
        (header, &data[self.start + payload_written..self.end])
    }
}

/// A frame that is to be written.
#[derive(Clone, Copy, Debug)]
struct Planned {
    /// The index of its stream.
    at: usize,
    /// Where its payload starts in the stream's data.
    start: usize,
    bytes: u32,
}

/// What one system call is to write: frames, and their headers.
#[derive(Debug)]
struct Plan {
    frames: SmallVec<[Planned; FRAMES]>,
    headers: SmallVec<[[u8; HEADER_BYTES]; FRAMES]>,
}

impl Plan {
    fn of<S: Service>(http: &Connection<Option<Served<S>>>, turn: usize) -> Self {
        let mut plan = Plan {
            frames: SmallVec::new(),
            headers: SmallVec::new(),
        };
        let mut sendable = http.sendable();
        for (at, stream) in http.streams_from(turn) {
            let Some(served) = &stream.state else {
                continue;
            };
            let outgoing = &served.outgoing;
            let mut left = outgoing.unframed_bytes();
            let mut planned = 0;
            while left > 0 && plan.frames.len() < FRAMES {
                let bytes = sendable.plan(stream, planned, left);
                if bytes == 0 {
                    break;
                }
                plan.headers
                    .push(FrameHeader::data(stream.id(), bytes).to_bytes());
                plan.frames.push(Planned {
                    at,
                    start: outgoing.framed_bytes() + planned as usize,
                    bytes,
                });
                planned += bytes;
                left -= bytes as usize;
            }
        }
        plan
    }
}

impl<D> Default for Writer<D> {
    fn default() -> Self {
        Writer {
            frame: None,
            output_written: 0,
            turn: 0,
        }
    }
}

impl<D: AsRef<[u8]>> Writer<D> {
    /// Whether no frame of data is half written.
    pub(super) fn is_empty(&self) -> bool {
        self.frame.is_none()
    }

    /// How much of the connection's output is written.
    pub(super) fn output_written(&self) -> usize {
        self.output_written
    }

    /// Writes what may be written, by one system call. Without data, only the output is.
    pub(super) fn poll_write<S: Service<Data = D>>(
        &mut self,
        socket: &mut Socket,
        http: &mut Connection<Option<Served<S>>>,
        has_data: bool,
        cx: &mut Context<'_>,
    ) -> io::Result<Written> {
        let plan = if has_data {
            Plan::of(http, self.turn)
        } else {
            Plan {
                frames: SmallVec::new(),
                headers: SmallVec::new(),
            }
        };
        // Taken out, to be read beside the streams.
        let output = std::mem::take(http.output());
        let mut slices: SmallVec<[IoSlice<'_>; SLICES]> = SmallVec::new();
        let mut bytes = 0;
        let mut push = |slice| {
            if <[u8]>::len(slice) > 0 {
                slices.push(IoSlice::new(slice));
                bytes += slice.len();
            }
        };
        if let Some(frame) = &self.frame {
            let data = match &frame.orphan {
                Some((data, _)) => data.as_ref(),
                // There always is some: it is dropped when its last frame is written.
                None => data_of(http, frame.stream),
            };
            let (header, payload) = frame.rest(data);
            push(header);
            push(payload);
        }
        push(&output[self.output_written..]);
        for (planned, header) in plan.frames.iter().zip(&plan.headers) {
            let stream = http.stream(planned.at);
            let served = stream.and_then(|stream| stream.state.as_ref());
            let data = served.map_or(&[][..], |served| served.outgoing.bytes());
            push(header);
            push(&data[planned.start..planned.start + planned.bytes as usize]);
        }
        let polled = match slices.len() {
            0 if socket.has_left() => socket.poll_flush(cx).map_ok(|()| 0),
            0 => Poll::Ready(Ok(0)),
            _ => socket.poll_write(cx, &slices),
        };
        drop(slices);
        *http.output() = output;
        match polled {
            Poll::Pending => {
                let output = http.output();
                if self.output_written >= DROPPED_BYTES {
                    output.drain(..self.output_written);
                    self.output_written = 0;
                }
                Ok(Written::Blocked)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(0)) if bytes > 0 => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(written)) => {
                self.note(http, &plan, written);
                Ok(if written == bytes && plan.frames.len() < FRAMES {
                    Written::All { bytes: written }
                } else {
                    Written::Some { bytes: written }
                })
            }
        }
    }

    /// Notes that so many bytes of the plan are written.
    fn note<S: Service<Data = D>>(
        &mut self,
        http: &mut Connection<Option<Served<S>>>,
        plan: &Plan,
        mut written: usize,
    ) {
        if let Some(frame) = &mut self.frame {
            let n = written.min(frame.left());
            written -= n;
            let payload = frame.advance(n);
            let is_whole = frame.left() == 0;
            if let Some((_, in_flight)) = &mut frame.orphan {
                in_flight.written(payload);
            } else if let Some(at) = http.index(frame.stream) {
                payload_written(http, at, payload, is_whole);
            }
            if !is_whole {
                return;
            }
            self.frame = None;
        }
        let output = http.output();
        let n = written.min(output.len() - self.output_written);
        self.output_written += n;
        written -= n;
        if self.output_written < output.len() {
            return;
        }
        self.output_written = 0;
        if S::KEPT_OUTPUT_BYTES == 0 {
            *output = Vec::new();
        } else {
            output.clear();
            output.shrink_to(S::KEPT_OUTPUT_BYTES);
        }
        for (planned, header) in plan.frames.iter().zip(&plan.headers) {
            if written == 0 {
                return;
            }
            let Planned { at, start, bytes } = *planned;
            http.sent(at, bytes);
            let Some(stream) = http.stream_mut(at) else {
                continue;
            };
            let id = stream.id();
            let end = start + bytes as usize;
            if let Some(served) = &mut stream.state {
                served.outgoing.framed(end);
            }
            // Also if its frame is written in part only: else one that always fills the
            // socket by itself would always come first.
            self.turn = at + 1;
            let all = HEADER_BYTES + bytes as usize;
            if written < all {
                let mut frame = HalfFrame {
                    stream: id,
                    header: *header,
                    start,
                    end,
                    written: 0,
                    orphan: None,
                };
                let payload = frame.advance(written);
                self.frame = Some(frame);
                payload_written(http, at, payload, false);
                return;
            }
            written -= all;
            payload_written(http, at, u64::from(bytes), true);
        }
    }

    /// A stream has ended, with what was left of it. A frame that is half written goes on
    /// being watched: `track` makes the watchdog know of it.
    pub(super) fn stream_ended<S: Service<Data = D>>(
        &mut self,
        stream: u32,
        served: Served<S>,
        track: impl FnOnce() -> Arc<Tracked>,
    ) {
        if let Some(frame) = &mut self.frame
            && frame.stream == stream
        {
            frame.orphan = served.outgoing.into_parts();
            if let Some((_, in_flight)) = &mut frame.orphan {
                in_flight.blocked(track);
            }
        }
    }

    /// Forgets that a frame whose stream has ended stalls: its socket is full, and the
    /// watchdog cuts the connection for that.
    pub(super) fn ignore_stall(&self) {
        if let Some((_, in_flight)) = self.frame.as_ref().and_then(|of| of.orphan.as_ref()) {
            in_flight.take_stall();
        }
    }
}

fn data_of<S: Service>(http: &Connection<Option<Served<S>>>, id: u32) -> &[u8] {
    let stream = http.index(id).and_then(|at| http.stream(at));
    let served = stream.and_then(|stream| stream.state.as_ref());
    served.map_or(&[], |served| served.outgoing.bytes())
}

/// So many bytes of the payload of a frame of the stream at index `at` are written, and
/// with them, maybe, the whole of it.
fn payload_written<S: Service>(
    http: &mut Connection<Option<Served<S>>>,
    at: usize,
    bytes: u64,
    is_whole: bool,
) {
    if let Some(served) = http.stream_mut(at).and_then(|stream| stream.state.as_mut()) {
        served.outgoing.written(bytes, is_whole);
    }
}

#[cfg(test)]
mod tests;
