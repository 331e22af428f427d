//! A producer's connection: requests from its socket into the ring.
//!
//! One task serves a connection with all its calls. What one system call has read is
//! published, and the answers to all of it go out by one other: a request is checked
//! where its body was put together, and copied once, into the ring.
//!
//! [`http2`](crate::http2) decides what the peer may do. [`serving`] lets each call take
//! what has arrived, and send what it may; [`Call`] says what comes of a body, and
//! [`Door`] leads into the ring.

mod call;
mod door;
mod serving;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

use self::call::{Call, Method, REQUEST_TIMEOUT};
use self::door::Door;
use self::serving::{Memory, Serving};
use super::connection::{Connection, End, Link, MAX_FIELD_BYTES, MAX_STREAMS};
use super::flow::{Account, Flow, Load};
use super::stall::Watch;
use super::{grpc, status};
use crate::engine::Engine;
use crate::http2::Error;
use crate::http2::frame::DEFAULT_FRAME_BYTES;
use crate::http2::request::RequestHead;
use crate::http2::server::{self as http2, Event, Limits};

/// What a producer may send ahead of us on one call: enough to keep a fast link busy.
const STREAM_WINDOW: u32 = 256 << 10;
/// All calls of a connection together: the most that may have to be held unread.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// So many of the largest requests may be arriving at once, all connections together.
const REQUESTS_ARRIVING: usize = 16;
/// How much may wait to be written before no more is read, or answered.
const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// What one producer that is always ahead is read before others have a turn.
const TURN_BYTES: usize = 1 << 20;

const LIMITS: Limits = Limits {
    max_streams: MAX_STREAMS as usize,
    max_field_bytes: MAX_FIELD_BYTES as usize,
    stream_window: STREAM_WINDOW,
    connection_window: CONNECTION_WINDOW,
    max_frame_bytes: DEFAULT_FRAME_BYTES,
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
    /// [`incomplete_frame`](http2::Connection::incomplete_frame).
    midway: Option<(u64, Instant)>,
    /// Since when the peer is not read, while it is not.
    unread_since: Option<Instant>,
    /// When something may be late. It may come for nothing: what it was set for is not
    /// taken back.
    alarm: Option<Pin<Box<Sleep>>>,
    end: End,
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
            unread_since: None,
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
                // Reading may go on, or begin again.
                let reads = match input {
                    Input::Bytes(_) => true,
                    Input::Nothing => false,
                    Input::Unread => self.end == End::No && !self.is_full(),
                };
                if !reads {
                    return Poll::Pending;
                }
            } else if self.end == End::LastWords || (self.end == End::No && self.http.is_drained())
            {
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
            // Before it looks at what it may be woken for.
            self.link.register(cx.waker());
            self.pass_over(true);
            return Ok(Input::Unread);
        }
        self.pass_over(false);
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
            let mut input = bytes;
            loop {
                match self.http.receive(&mut input, now.into_std()) {
                    Ok(Some(Event::Request { stream, head, .. })) => self.open(stream, &head, now),
                    Ok(Some(Event::Data { at, data, .. })) => self.http.buffer(at, data),
                    Ok(None) => break,
                    Err(error) => {
                        self.log_end(&error);
                        self.end = End::LastWords;
                        break;
                    }
                }
            }
            self.midway = self.http.incomplete_frame().map(|frame| match self.midway {
                Some((since, at)) if since == frame => (since, at),
                _ => (frame, now),
            });
            self.let_go();
            Ok(Input::Bytes(bytes.len()))
        })
    }

    /// From here on nothing is read, or something is. What was not read meanwhile is not
    /// late by the peer's fault.
    fn pass_over(&mut self, goes_unread: bool) {
        if !goes_unread && self.unread_since.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.unread_since.take() {
            let time = now - since;
            if let Some((_, begun)) = &mut self.midway {
                *begun = now.min(*begun + time);
            }
            for (_, stream) in self.http.streams_mut() {
                if let Some(serving) = &mut stream.state {
                    serving.call.wait(time, now);
                }
            }
        }
        self.unread_since = goes_unread.then_some(now);
    }

    /// Whether the socket has to take some of the output before there may be more.
    fn is_full(&mut self) -> bool {
        self.http.output().len() - self.written >= MAX_OUTPUT_BYTES
    }

    fn open(&mut self, stream: u32, request: &RequestHead, now: Instant) {
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
        let Some(at) = self.http.index(stream) else {
            return;
        };
        if let Some(refusal) = refused {
            if let Some(mut parts) = self.http.parts(at) {
                parts.response.whole(refusal.code, &refusal.fields);
            }
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
        if let Some(mut parts) = self.http.parts(at) {
            *parts.state = Some(Serving {
                call: Call::new(method, now),
                load: Load::new(account),
                memory: Memory::None,
            });
            if method == Method::PublishStream {
                parts.response.head(200, &grpc::response_fields());
            }
        }
    }

    /// Lets go of the streams that have ended.
    fn let_go(&mut self) {
        self.http.take_ended().for_each(drop);
    }

    fn log_end(&self, error: &Error) {
        tracing::info!(peer = %self.link.peer(), "connection ended: {error}");
    }

    /// Looks at what others want: a stop, a sign of life; and at the clock.
    fn look_around(&mut self, cx: &mut Context<'_>) {
        if self.link.is_asked() {
            self.http.send_ping();
        }
        if self.hub.is_leaving() {
            self.http.shut_down();
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
                let error = Error::FRAME_TIMEOUT;
                self.log_end(&error);
                self.http.fail(error);
                self.let_go();
                self.end = End::LastWords;
                return;
            }
            for (_, stream) in self.http.streams_mut() {
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
            let states = self.http.streams().map(|(_, stream)| &stream.state);
            let calls = states.flatten().filter_map(|of| of.call.deadline());
            let first = calls.chain(frame).min();
            self.alarm = first.map(|at| Box::pin(sleep_until(at)));
        }
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
        for (_, stream) in self.http.streams_mut() {
            if let Some(serving) = &mut stream.state {
                serving.load.wait();
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::door::ANSWER_BYTES;
    use super::*;
    use crate::edge::rig::pair;
    use crate::http2::frame::{self, FrameHeader, HEADER_BYTES, PREFACE, flag, kind, setting};
    use crate::http2::hpack::FieldsWriter;

    /// What a producer says first, on stream 1: windows for all answers, and the head of a
    /// `PublishStream`.
    fn opening() -> Vec<u8> {
        let mut words = PREFACE.to_vec();
        frame::write_settings(&mut words, &[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]);
        frame::write_window_update(&mut words, 0, 1 << 30);
        let mut block = Vec::new();
        let mut fields = FieldsWriter::new(&mut block);
        fields.indexed(3); // POST
        fields.indexed(6); // http
        fields.with_indexed_name(4, b"/galaxy.push.publisher.v1.Publisher/PublishStream");
        fields.literal(b"content-type", b"application/grpc");
        frame::write(&mut words, kind::HEADERS, flag::END_HEADERS, 1, &block);
        words
    }

    /// A request of one event, on that stream.
    fn request() -> Vec<u8> {
        // PublishRequest { events: [{ client_event: { user_id: "u", kind: "k" } }] }
        let message = b"\x00\x00\x00\x00\x0a\x0a\x08\x0a\x06\x0a\x01u\x1a\x01k";
        let mut words = Vec::new();
        frame::write(&mut words, kind::DATA, 0, 1, message);
        words
    }

    /// How many answers are in these frames, which are taken out of the bytes.
    fn take_answers(bytes: &mut Vec<u8>) -> usize {
        let (mut answers, mut at) = (0, 0);
        while let Some(head) = FrameHeader::read(&bytes[at..]) {
            let payload = head.payload_bytes as usize;
            if at + HEADER_BYTES + payload > bytes.len() {
                break;
            }
            assert!(head.kind != kind::GOAWAY && head.kind != kind::RST_STREAM);
            if head.kind == kind::DATA {
                assert_eq!(payload % ANSWER_BYTES, 0);
                answers += payload / ANSWER_BYTES;
            }
            at += HEADER_BYTES + payload;
        }
        bytes.drain(..at);
        answers
    }

    #[tokio::test]
    async fn a_producer_that_is_always_behind_with_its_answers_has_few_kept_for_it() {
        const REQUESTS: usize = 20_000;
        let (socket, theirs) = pair();
        let engine = Engine::builder().build().unwrap();
        let mut uplink = Uplink::new(Hub::new(engine.clone(), Watch::default()), socket);
        let mut cx = Context::from_waker(Waker::noop());

        let (mut to_say, mut heard) = (opening(), Vec::new());
        let (mut asked, mut answered, mut idle) = (0, 0, 0);
        let (mut was_full, mut most_kept) = (false, 0);
        while answered < REQUESTS {
            if to_say.is_empty() && asked < REQUESTS {
                to_say = request();
                asked += 1;
            }
            match theirs.try_write(&to_say) {
                Ok(bytes) if bytes > 0 => {
                    to_say.drain(..bytes);
                    idle = 0;
                }
                _ => idle += 1,
            }
            assert!(Pin::new(&mut uplink).poll(&mut cx).is_pending());
            was_full |= uplink.is_full();
            most_kept = most_kept.max(uplink.http.output().capacity());
            // It takes a little, when nothing else moves any more.
            if idle > 200 {
                let mut piece = [0; 4 << 10];
                if let Ok(bytes) = theirs.try_read(&mut piece) {
                    heard.extend_from_slice(&piece[..bytes]);
                }
                answered += take_answers(&mut heard);
            }
            tokio::task::yield_now().await;
        }
        assert!(was_full);
        assert!(most_kept <= 4 * MAX_OUTPUT_BYTES, "{most_kept}");
        assert_eq!((asked, answered), (REQUESTS, REQUESTS));
        assert_eq!(engine.head().seq().number(), REQUESTS as u64);
    }
}
