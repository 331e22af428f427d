//! Writes frames: heads that are made here, data out of the ring.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::{Serving, State};
use crate::edge::connection::Connection;
use crate::edge::flow::Load;
use crate::engine::Batch;
use crate::http2::frame::{FrameHeader, HEADER_BYTES};
use crate::http2::server as http2;

/// Frames of data in one system call: a batch of the usual size in frames of the size
/// that everybody takes.
const FRAMES: usize = 16;
/// Each has a head; and before them may come the rest of a frame, and other output.
const SLICES: usize = 2 * FRAMES + 3;
/// As little as this is copied into one piece: to hand the system two pieces costs more.
const COPIED_BYTES: usize = 1 << 10;

thread_local! {
    static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frame: Option<HalfFrame>,
    /// How much of the connection's output is written.
    output_written: usize,
    /// Which of the streams comes first next time.
    turn: usize,
}

/// A frame of data of which a part is written.
#[derive(Debug)]
struct HalfFrame {
    stream: u32,
    head: [u8; HEADER_BYTES],
    /// Where its data is in the stream's batch.
    start: usize,
    end: usize,
    /// Of head and data together.
    written: usize,
    /// The stream's, once that has ended: the peer waits for the rest of the frame all
    /// the same. What it pins stays on the stream's account.
    orphan: Option<(Batch, Load)>,
}

impl HalfFrame {
    /// So many more bytes are written; says how many of them were data.
    fn advance(&mut self, bytes: usize) -> u64 {
        let data = |written: usize| written.saturating_sub(HEADER_BYTES);
        let before = data(self.written);
        self.written += bytes;
        (data(self.written) - before) as u64
    }

    fn left(&self) -> usize {
        HEADER_BYTES + (self.end - self.start) - self.written
    }

    /// What is left of its head and its data, out of its batch.
    fn rest<'a>(&'a self, batch: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let data_written = self.written.saturating_sub(HEADER_BYTES);
        let head = &self.head[self.written.min(HEADER_BYTES)..];
        (head, &batch[self.start + data_written..self.end])
    }
}

/// A frame that is to be written.
#[derive(Clone, Copy, Debug)]
struct Planned {
    /// The place of its stream.
    at: usize,
    /// Where its data starts in the stream's batch.
    start: usize,
    bytes: u32,
}

/// What one system call is to write: frames, and their heads.
#[derive(Debug)]
struct Plan {
    frames: SmallVec<[Planned; FRAMES]>,
    heads: SmallVec<[[u8; HEADER_BYTES]; FRAMES]>,
}

impl Plan {
    fn of(http: &http2::Connection<State>, turn: usize) -> Self {
        let mut plan = Plan {
            frames: SmallVec::new(),
            heads: SmallVec::new(),
        };
        let mut sendable = http.sendable();
        for (at, stream) in http.streams_from(turn) {
            let Some(serving) = &stream.state else {
                continue;
            };
            let mut left = serving.unframed();
            let mut planned = 0;
            while left > 0 && plan.frames.len() < FRAMES {
                let bytes = sendable.plan(stream, planned, left);
                if bytes == 0 {
                    break;
                }
                plan.heads
                    .push(FrameHeader::data(stream.id(), bytes).to_bytes());
                plan.frames.push(Planned {
                    at,
                    start: serving.framed + planned as usize,
                    bytes,
                });
                planned += bytes;
                left -= bytes as usize;
            }
        }
        plan
    }
}

impl Outbox {
    /// Whether no frame is half written.
    pub(super) fn is_empty(&self) -> bool {
        self.frame.is_none()
    }

    /// Writes what may be written, by one system call.
    pub(super) fn poll_write(
        &mut self,
        socket: &mut Connection,
        http: &mut http2::Connection<State>,
        cx: &mut Context<'_>,
    ) -> io::Result<Written> {
        let plan = Plan::of(http, self.turn);
        // Taken out, to be read beside the streams.
        let output = std::mem::take(http.output());
        let streams = &*http;
        let mut slices: SmallVec<[IoSlice<'_>; SLICES]> = SmallVec::new();
        let mut bytes = 0;
        let mut push = |slice| {
            if <[u8]>::len(slice) > 0 {
                slices.push(IoSlice::new(slice));
                bytes += slice.len();
            }
        };
        if let Some(frame) = &self.frame {
            let orphan = frame.orphan.as_ref().map(|(batch, _)| batch);
            let batch = orphan.or_else(|| batch_of(streams, frame.stream));
            // There always is one: it is dropped when its last frame is written.
            let (head, data) = frame.rest(batch.map_or(&[], Batch::as_bytes));
            push(head);
            push(data);
        }
        push(&output[self.output_written..]);
        for (planned, head) in plan.frames.iter().zip(&plan.heads) {
            let stream = streams.stream(planned.at);
            let serving = stream.and_then(|stream| stream.state.as_ref());
            let batch = serving.and_then(|serving| serving.batch.as_ref());
            let batch = batch.map_or(&[][..], Batch::as_bytes);
            push(head);
            push(&batch[planned.start..planned.start + planned.bytes as usize]);
        }
        let polled = match slices.len() {
            0 => Poll::Ready(Ok(0)),
            1 => Pin::new(socket).poll_write(cx, &slices[0]),
            _ if bytes <= COPIED_BYTES => COPY.with_borrow_mut(|copy| {
                copy.clear();
                for slice in &slices {
                    copy.extend_from_slice(slice);
                }
                Pin::new(socket).poll_write(cx, copy)
            }),
            _ => Pin::new(socket).poll_write_vectored(cx, &slices),
        };
        drop(slices);
        *http.output() = output;
        match polled {
            Poll::Pending => Ok(Written::Blocked),
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
    fn note(&mut self, http: &mut http2::Connection<State>, plan: &Plan, mut written: usize) {
        if let Some(frame) = &mut self.frame {
            let n = written.min(frame.left());
            written -= n;
            let data = frame.advance(n);
            let whole = frame.left() == 0;
            if let Some((_, load)) = &mut frame.orphan {
                load.go(data);
            } else {
                if let Some(at) = http.index(frame.stream) {
                    data_written(http, at, data, whole);
                }
            }
            if !whole {
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
        // Its memory is given back: most connections never answer again.
        *output = Vec::new();
        for (planned, head) in plan.frames.iter().zip(&plan.heads) {
            if written == 0 {
                return;
            }
            let Planned { at, start, bytes } = *planned;
            http.sent(at, bytes);
            let Some(stream) = http.stream_mut(at) else {
                continue;
            };
            let id = stream.id();
            if let Some(serving) = &mut stream.state {
                serving.framed = start + bytes as usize;
            }
            // Also if its frame is written in part only: else one that always fills the
            // socket by itself would always come first.
            self.turn = at + 1;
            let all = HEADER_BYTES + bytes as usize;
            if written < all {
                let mut frame = HalfFrame {
                    stream: id,
                    head: *head,
                    start,
                    end: start + bytes as usize,
                    written: 0,
                    orphan: None,
                };
                let data = frame.advance(written);
                self.frame = Some(frame);
                data_written(http, at, data, false);
                return;
            }
            written -= all;
            data_written(http, at, u64::from(bytes), true);
        }
    }

    /// A stream has ended, with what was left of it.
    pub(super) fn stream_ended(&mut self, stream: u32, serving: Serving) {
        if let Some(frame) = &mut self.frame
            && frame.stream == stream
        {
            frame.orphan = serving.batch.map(|batch| (batch, serving.load));
        }
    }
}

fn batch_of(http: &http2::Connection<State>, id: u32) -> Option<&Batch> {
    let stream = http.stream(http.index(id)?)?;
    stream.state.as_ref()?.batch.as_ref()
}

/// So many bytes of the batch of the stream at place `at` are written, and with them,
/// maybe, the whole of its frame. With its last frame the batch is let go of.
fn data_written(http: &mut http2::Connection<State>, at: usize, bytes: u64, whole_frame: bool) {
    let Some(serving) = http.stream_mut(at).and_then(|s| s.state.as_mut()) else {
        return;
    };
    serving.load.go(bytes);
    if whole_frame && serving.unframed() == 0 {
        serving.batch = None;
    }
}

#[cfg(test)]
mod tests;
