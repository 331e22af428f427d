//! A producer's connection: requests from its socket into the ring.
//!
//! One task serves a connection with all its calls. What one system call has read is
//! published, and the answers to all of it go out by one other: a request is checked
//! where its body was put together, and copied once, into the ring.
//!
//! [`http2`](crate::http2) decides what the peer may do; [`Call`] what comes of a body;
//! [`Door`] leads into the ring. What the calls of all connections may hold of requests
//! that have not arrived in full is bounded here.

mod call;
mod door;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

use self::call::{Call, Method, REQUEST_TIMEOUT};
use self::door::Door;
use super::connection::{Connection, Link};
use super::flow::{Account, Flow, Load};
use super::stall::Watch;
use super::{grpc, status};
use crate::engine::Engine;
use crate::http2::connection::{self as http2, ConnectionError, Limits};
use crate::http2::frame::Reason;
use crate::http2::request::Request;
use crate::http2::stream::Stream;

/// Calls at a time on one connection.
const MAX_STREAMS: usize = 256;
/// All headers of one request together. Ours fit into a few hundred bytes; tokens and
/// tracing headers take the rest.
const MAX_FIELD_BYTES: usize = 16 << 10;
/// What a producer may send ahead of us on one call: enough to keep a fast link busy.
const STREAM_WINDOW: u32 = 256 << 10;
/// All calls of a connection together: the most that may have to be held unread.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// So many of the largest requests may be arriving at once, all connections together.
const REQUESTS_ARRIVING: usize = 16;
/// Requests up to this length may be arriving on all calls of a connection: parts of them
/// fill a quarter of its window at most.
const SHORT_REQUEST_BYTES: usize = CONNECTION_WINDOW as usize / (4 * MAX_STREAMS);
/// Longer ones that wait for memory may fill another quarter. The peer is told of less than
/// a third only when it is as much; the last is for what does not wait.
const MAX_WAITING_BYTES: usize = CONNECTION_WINDOW as usize / 4;
/// How much may wait to be written before no more is read, or answered.
const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// What one producer that is always ahead is read before others have a turn.
const TURN_BYTES: usize = 1 << 20;

const LIMITS: Limits = Limits {
    max_streams: MAX_STREAMS,
    max_field_bytes: MAX_FIELD_BYTES,
    stream_window: STREAM_WINDOW,
    connection_window: CONNECTION_WINDOW,
};

thread_local! {
    /// What sockets are read into: what is whole in it is not kept for longer.
    static INPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What all producers' connections share.
#[derive(Debug)]
pub(super) struct Hub {
    engine: Engine,
    watch: Watch,
    max_request_bytes: usize,
    /// Bytes that are still to come of requests that have begun to, for all of which
    /// there has to be memory.
    arriving: Arc<Semaphore>,
    stopping: AtomicBool,
    leaving: AtomicBool,
}

impl Hub {
    pub(super) fn new(engine: Engine, watch: Watch) -> Arc<Self> {
        let max_request_bytes = Door::max_request_bytes(&engine);
        Arc::new(Hub {
            engine,
            watch,
            max_request_bytes,
            arriving: Arc::new(Semaphore::new(REQUESTS_ARRIVING * max_request_bytes)),
            stopping: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        })
    }

    /// Has every call end that waits for its producer, and every call that comes be told
    /// why.
    pub(super) fn stop(&self) {
        self.tell(&self.stopping);
    }

    /// Has every connection end after its last call.
    pub(super) fn leave(&self) {
        self.tell(&self.leaving);
    }

    fn tell(&self, what: &AtomicBool) {
        // Release: pairs with the Acquire where it is looked at; whoever registers its
        // waker after the wake-up sees it.
        what.store(true, Ordering::Release);
        self.watch.wake_all();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}

/// A call with what belongs to its stream.
#[derive(Debug)]
struct Serving {
    call: Call,
    /// Whether its response has begun.
    has_head: bool,
    load: Load,
    /// The memory for the rest of a request, or the wait for it.
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    None,
    Waiting {
        wait: Box<PollSemaphore>,
        /// As many as it asked for at first: to ask for less would be to queue anew.
        permits: u32,
    },
    /// Held for its drop.
    Held(#[allow(dead_code, reason = "it is dropped")] OwnedSemaphorePermit),
}

/// `None` until its request was looked at.
type State = Option<Serving>;

/// The task that serves a connection.
#[derive(Debug)]
pub(super) struct Uplink {
    hub: Arc<Hub>,
    socket: Connection,
    link: Arc<Link>,
    http: http2::Connection<State>,
    door: Door,
    /// How much of the connection's output is written.
    written: usize,
    /// Which of the streams comes first next time, if it is still there.
    turn: u32,
    /// While a frame or a header block has arrived in part: since when, by
    /// [`midway`](http2::Connection::midway).
    midway: Option<(u64, Instant)>,
    /// When something may be late. It may come for nothing: what it was set for is not
    /// taken back.
    alarm: Option<Pin<Box<Sleep>>>,
    end: End,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    No,
    /// Nothing more is read; what is left is written.
    LastWords,
    /// All was written; the peer has yet to close.
    Closing,
}

/// What reading has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// So many bytes, and there may be more.
    Bytes(usize),
    /// Nothing until the socket wakes us.
    Nothing,
    /// Nothing was asked for.
    Unread,
}

impl Uplink {
    pub(super) fn new(hub: Arc<Hub>, socket: Connection) -> Self {
        let link = Arc::clone(socket.link());
        link.watch_silence();
        let door = Door::new(&hub.engine);
        Uplink {
            hub,
            socket,
            link,
            http: http2::Connection::new(LIMITS),
            door,
            written: 0,
            turn: 0,
            midway: None,
            alarm: None,
            end: End::No,
        }
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut turn_bytes = 0;
        loop {
            if self.end == End::Closing {
                return Pin::new(&mut self.socket).poll_shutdown(cx);
            }
            let input = self.poll_read(cx)?;
            let mut held = false;
            if self.end == End::No {
                self.look_around(cx);
                held = self.serve_calls(cx);
            }
            if self.poll_write(cx)?.is_pending() {
                // Reading may go on for a while.
                if !matches!(input, Input::Bytes(_)) {
                    return Poll::Pending;
                }
            } else if self.end == End::LastWords || (self.end == End::No && self.http.has_left()) {
                self.end = End::Closing;
            } else if input == Input::Nothing && !held {
                return Poll::Pending;
            }
            if let Input::Bytes(bytes) = input {
                turn_bytes += bytes;
                if turn_bytes >= TURN_BYTES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once, if it is time to.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Input> {
        if self.end != End::No || self.is_full() {
            self.pass_over(cx);
            return Ok(Input::Unread);
        }
        INPUT.with_borrow_mut(|memory| {
            let mut buf = ReadBuf::new(memory);
            if Pin::new(&mut self.socket)
                .poll_read(cx, &mut buf)?
                .is_pending()
            {
                return Ok(Input::Nothing);
            }
            let bytes = buf.filled();
            if bytes.is_empty() {
                // It has gone. Nobody reads what we still have.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = Instant::now();
            if let Err(error) = self.http.receive(bytes, now.into_std()) {
                self.log_end(&error);
                self.end = End::LastWords;
            }
            self.midway = self.http.midway().map(|frame| match self.midway {
                Some((since, at)) if since == frame => (since, at),
                _ => (frame, now),
            });
            while let Some((stream, request)) = self.http.next_request() {
                self.open(stream, &request, now);
            }
            self.let_go();
            Ok(Input::Bytes(bytes.len()))
        })
    }

    /// Nothing is read now. That is not the peer's fault.
    fn pass_over(&mut self, cx: &mut Context<'_>) {
        // Before it looks at what it may be woken for.
        self.link.register(cx.waker());
        let now = Instant::now();
        if let Some((_, since)) = &mut self.midway {
            *since = now;
        }
        for stream in self.http.streams() {
            if let Some(serving) = &mut stream.state {
                serving.call.wait(now);
            }
        }
    }

    /// Whether the socket has to take some of the output before there may be more.
    fn is_full(&mut self) -> bool {
        self.http.output().len() - self.written >= MAX_OUTPUT_BYTES
    }

    fn open(&mut self, stream: u32, request: &Request, now: Instant) {
        if self.http.stream_mut(stream).is_none() {
            // It was reset since.
            return;
        }
        let otherwise = "there are Publish and PublishStream, and nothing else";
        let refused = match grpc::check(request, &Method::PATHS, otherwise) {
            Ok(()) if self.hub.is_stopping() => {
                // It asks in good faith, however often.
                self.http.answered(1);
                Some(grpc::Refusal::of(&status::stopping()))
            }
            Ok(()) => None,
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = refused {
            self.http
                .respond(stream, refusal.code, &refusal.fields, true);
            return;
        }
        let method = Method::at(&request.path);
        let call = self.link.begin_call();
        let account = match method {
            Method::Publish => Account::Link(call),
            Method::PublishStream => {
                let (flow, source) = Flow::new("PublishStream".into(), call);
                self.hub.watch.add_flow(flow);
                Account::Own(source)
            }
        };
        if let Some(stream) = self.http.stream_mut(stream) {
            stream.state = Some(Serving {
                call: Call::new(method, now),
                has_head: method == Method::PublishStream,
                load: Load::new(account),
                memory: Memory::None,
            });
        }
        if method == Method::PublishStream {
            self.http
                .respond(stream, 200, &grpc::response_fields(), false);
        }
    }

    /// Lets go of the streams that have ended.
    fn let_go(&mut self) {
        self.http.take_ended().for_each(drop);
    }

    fn log_end(&self, error: &ConnectionError) {
        tracing::info!(peer = %self.link.peer(), "connection ended: {error}");
    }

    /// Looks at what others want: a stop, a sign of life; and at the clock.
    fn look_around(&mut self, cx: &mut Context<'_>) {
        if self.link.is_asked() {
            self.http.ask_alive();
        }
        if self.hub.is_leaving() {
            self.http.leave();
        }
        while let Some(alarm) = &mut self.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            let now = Instant::now();
            self.alarm = None;
            if self
                .midway
                .is_some_and(|(_, since)| now >= since + REQUEST_TIMEOUT)
            {
                // Nothing else can arrive before the rest of it.
                let error = ConnectionError {
                    reason: Reason::EnhanceYourCalm,
                    what: "a frame or a header block did not arrive in time",
                };
                self.log_end(&error);
                self.http.fail(error);
                self.let_go();
                self.end = End::LastWords;
                return;
            }
            for stream in self.http.streams() {
                if let Some(serving) = &mut stream.state {
                    serving.call.look_at_clock(now);
                }
            }
            self.set_alarm();
        }
    }

    /// Sets the alarm, if there is none, for what will be late first.
    fn set_alarm(&mut self) {
        if self.alarm.is_none() {
            let frame = self.midway.map(|(_, since)| since + REQUEST_TIMEOUT);
            let states = self.http.streams().iter().map(|stream| &stream.state);
            let calls = states.flatten().filter_map(|of| of.call.deadline());
            let first = calls.chain(frame).min();
            self.alarm = first.map(|at| Box::pin(sleep_until(at)));
        }
    }

    /// Publishes what has arrived, and answers. Says whether there may be more to do when
    /// the output has been written.
    fn serve_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let streams = self.http.streams();
        let mut turns: SmallVec<[u32; 8]> = streams.iter().map(Stream::id).collect();
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
        while let Some(at) = self.http.place(stream) {
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
        let stream = &mut self.http.streams()[at];
        let is_received = stream.is_received();
        let (body, state) = stream.body_and_state();
        let Some(serving) = state else {
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
        let mut must_wait = false;
        if call.end.is_none() && taken.missing_bytes > 0 && is_long {
            let bytes = taken.missing_bytes;
            has_memory = serving.memory.poll(&self.hub.arriving, bytes, cx);
            must_wait = !has_memory;
        } else {
            serving.memory.wait_no_more();
        }

        if must_wait && self.waiting_bytes() > MAX_WAITING_BYTES {
            // What others have memory for could not arrive any more.
            let status = Status::resource_exhausted(
                "too many long requests are on their way on this connection; nothing of this \
                 one was published",
            );
            if let Some(serving) = &mut self.http.streams()[at].state {
                serving.call.end = Some(status);
                serving.memory = Memory::None;
            }
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

    /// How much of the window is taken by requests that wait for memory.
    fn waiting_bytes(&mut self) -> usize {
        let waits = |serving: &Serving| matches!(serving.memory, Memory::Waiting { .. });
        let streams = self.http.streams().iter();
        streams
            .filter(|stream| stream.state.as_ref().is_some_and(waits))
            .map(|stream| stream.body().len())
            .sum()
    }

    /// Sends what the peer's windows let go of the answers on the stream at place `at`,
    /// and the end after the last one. Says how many bytes of answers were sent.
    fn send_answers(&mut self, at: usize) -> usize {
        let stream = &mut self.http.streams()[at];
        let id = stream.id();
        let Some(serving) = &mut stream.state else {
            return 0;
        };
        let mut answers = std::mem::take(&mut serving.call.answers);
        if !answers.is_empty() && !std::mem::replace(&mut serving.has_head, true) {
            self.http.respond(id, 200, &grpc::response_fields(), false);
        }
        let sent_bytes = self.http.send(at, &answers);
        answers.drain(..sent_bytes);
        let all_sent = answers.is_empty();

        let Some(serving) = &mut self.http.streams()[at].state else {
            return sent_bytes;
        };
        serving.load.go(sent_bytes as u64);
        serving.call.answers = answers;
        if all_sent && let Some(status) = serving.call.end.take() {
            if serving.has_head {
                self.http.finish(id, &grpc::trailers(&status));
            } else {
                let refusal = grpc::Refusal::of(&status);
                self.http.respond(id, refusal.code, &refusal.fields, true);
            }
        }
        sent_bytes
    }

    /// Writes the output.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        loop {
            let output = self.http.output();
            if self.written == output.len() {
                self.written = 0;
                output.clear();
                output.shrink_to(MAX_OUTPUT_BYTES);
                return Ok(Poll::Ready(()));
            }
            let left = &output[self.written..];
            match Pin::new(&mut self.socket).poll_write(cx, left)? {
                Poll::Pending => {
                    // Some of it may always be left.
                    if self.written >= MAX_OUTPUT_BYTES {
                        output.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(Poll::Pending);
                }
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(bytes) => self.written += bytes,
            }
        }
    }

    /// Answers that are not written by now wait for the peer, and are watched.
    fn wait(&mut self) {
        for stream in self.http.streams() {
            if let Some(serving) = &mut stream.state {
                serving.load.wait();
            }
        }
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

impl Future for Uplink {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready(ended) = self.poll_serve(cx) else {
            self.wait();
            return Poll::Pending;
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.link.peer(), "connection ended: {error}");
        }
        Poll::Ready(())
    }
}
