//! Calls on their streams: memory for what is to come, and answers as far as the peer's
//! windows let them go.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;
use tonic::Status;

use super::call::Call;
use super::{CONNECTION_WINDOW, Uplink};
use crate::edge::connection::MAX_STREAMS;
use crate::edge::flow::Load;
use crate::edge::{grpc, status};
use crate::http2::server as http2;

/// Requests up to this length may be arriving on all calls of a connection: parts of them
/// fill a quarter of its window at most.
const SHORT_REQUEST_BYTES: usize = (CONNECTION_WINDOW / (4 * MAX_STREAMS)) as usize;
/// Longer ones that wait for memory may fill another quarter. The peer is told of less than
/// a third only when it is as much; the last is for what does not wait.
const MAX_WAITING_BYTES: usize = CONNECTION_WINDOW as usize / 4;

/// A call with what belongs to its stream.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) call: Call,
    pub(super) load: Load,
    /// The memory for the rest of a request, or the wait for it.
    pub(super) memory: Memory,
}

/// Whether there is memory for the rest of a long request.
#[derive(Debug)]
pub(super) enum Memory {
    None,
    Waiting {
        wait: Box<PollSemaphore>,
        /// As many as it asked for at first: to ask for less would be to queue anew.
        permits: u32,
    },
    /// Held for its drop.
    Held(#[allow(dead_code, reason = "it is dropped")] OwnedSemaphorePermit),
}

impl Serving {
    /// Whether it waits for memory.
    fn waits(&self) -> bool {
        matches!(self.memory, Memory::Waiting { .. })
    }
}

impl Uplink {
    /// Publishes what has arrived, and answers. Says whether there may be more to do when
    /// the output has been written.
    pub(super) fn serve_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let mut turns: SmallVec<[u32; 8]> = self.http.streams().map(|(_, of)| of.id()).collect();
        let first = turns.partition_point(|&stream| stream < self.turn);
        turns.rotate_left(first);
        let mut held = false;
        for stream in turns {
            if self.is_full() {
                self.turn = stream;
                held = true;
                break;
            }
            held |= self.serve_call(stream, now, cx);
        }
        self.refuse_what_waits();
        self.let_go();
        if self.alarm.is_none() {
            self.set_alarm();
            if let Some(alarm) = &mut self.alarm
                && alarm.as_mut().poll(cx).is_ready()
            {
                // It is looked at the next time.
                cx.waker().wake_by_ref();
            }
        }
        held
    }

    fn serve_call(&mut self, stream: u32, now: Instant, cx: &mut Context<'_>) -> bool {
        while let Some(at) = self.http.index(stream) {
            let held = self.take_requests(at, now, cx);
            let sent_bytes = self.send_answers(at);
            // What holds them up may be the peer's window.
            if !held || sent_bytes == 0 {
                return false;
            }
            if self.is_full() {
                return true;
            }
        }
        false
    }

    /// Publishes what has arrived of the stream at place `at`. Says whether there are
    /// requests that have to wait until answers are sent.
    fn take_requests(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(parts) = self.http.parts(at) else {
            return false;
        };
        let is_received = parts.body.is_complete();
        let body = parts.body.bytes();
        let Some(serving) = parts.state else {
            return false;
        };
        let call = &mut serving.call;
        let before = call.answers.len();
        let max_request_bytes = self.hub.max_request_bytes;
        let taken = call.take(body, is_received, &mut self.door, max_request_bytes, now);
        serving.load.give((call.answers.len() - before) as u64);
        if !taken.held && call.end.is_none() && self.hub.is_stopping() {
            call.end = Some(status::stopping());
        }
        let arrived_bytes = body.len() - taken.bytes;
        let is_long = arrived_bytes + taken.missing_bytes > SHORT_REQUEST_BYTES;
        if taken.requests > 0 || call.end.is_some() {
            serving.memory = Memory::None;
        }
        let mut has_memory = false;
        if call.end.is_none() && taken.missing_bytes > 0 && is_long {
            let bytes = taken.missing_bytes;
            has_memory = serving.memory.poll(&self.hub.arriving, bytes, cx);
        } else {
            serving.memory.wait_no_more();
        }

        if taken.bytes > 0 {
            self.http.take_body(at, taken.bytes);
            self.http.answered(taken.requests);
        }
        if has_memory {
            self.http.release_body(at);
        }
        taken.held
    }

    /// Ends the newest of the calls that wait for memory while all of them take too much of
    /// the connection's window: what others have memory for could not arrive any more.
    fn refuse_what_waits(&mut self) {
        let streams = self.http.streams().map(|(_, stream)| stream);
        let mut waiting: SmallVec<[(u32, usize); 8]> = streams
            .filter(|stream| stream.state.as_ref().is_some_and(Serving::waits))
            .map(|stream| (stream.id(), stream.body().len()))
            .collect();
        let mut bytes: usize = waiting.iter().map(|(_, bytes)| bytes).sum();
        while bytes > MAX_WAITING_BYTES
            && let Some((stream, own_bytes)) = waiting.pop()
        {
            bytes -= own_bytes;
            let Some(at) = self.http.index(stream) else {
                continue;
            };
            if let Some(parts) = self.http.parts(at)
                && let Some(serving) = parts.state
            {
                serving.memory = Memory::None;
                serving.call.end = Some(Status::resource_exhausted(
                    "too many long requests are on their way on this connection; nothing of \
                     this one was published",
                ));
            }
            // It asks in good faith, however often.
            self.http.answered(1);
            self.send_answers(at);
        }
    }

    /// Sends what the peer's windows let go of the answers on the stream at place `at`,
    /// and the end after the last one. Says how many bytes of answers were sent.
    fn send_answers(&mut self, at: usize) -> usize {
        let Some(http2::Parts {
            state: Some(serving),
            mut response,
            ..
        }) = self.http.parts(at)
        else {
            return 0;
        };
        let answers = &mut serving.call.answers;
        if !answers.is_empty() {
            response.head(200, &grpc::response_fields());
        }
        let sent_bytes = response.send(answers);
        answers.drain(..sent_bytes);
        serving.load.go(sent_bytes as u64);
        if answers.is_empty()
            && let Some(status) = serving.call.end.take()
        {
            if response.is_begun() {
                response.trailers(&grpc::trailers(&status));
            } else {
                let refusal = grpc::Refusal::of(&status);
                response.whole(refusal.code, &refusal.fields);
            }
        }
        sent_bytes
    }
}

impl Memory {
    /// Gives up its place in the queue, if it has one.
    fn wait_no_more(&mut self) {
        if let Memory::Waiting { .. } = self {
            *self = Memory::None;
        }
    }

    /// Whether there is memory for `bytes` that are to come.
    fn poll(&mut self, of: &Arc<Semaphore>, bytes: usize, cx: &mut Context<'_>) -> bool {
        loop {
            match self {
                Memory::Held(_) => return true,
                Memory::None => {
                    *self = Memory::Waiting {
                        wait: Box::new(PollSemaphore::new(of.clone())),
                        // A request's length is 32 bits long.
                        permits: u32::try_from(bytes).unwrap_or(u32::MAX),
                    };
                }
                Memory::Waiting { wait, permits } => match wait.poll_acquire_many(cx, *permits) {
                    Poll::Pending => return false,
                    Poll::Ready(Some(permit)) => *self = Memory::Held(permit),
                    // Nobody closes it.
                    Poll::Ready(None) => return false,
                },
            }
        }
    }
}
