//! Drives a connection: one task for its socket, its HTTP/2 and all its calls.
//!
//! Between a call and the socket there is no queue and no channel. A poll reads once,
//! lets calls take what has arrived from where it was read, and writes what they have, data
//! in place, by one system call. Most often a gateway's driver is woken for an event, and
//! nothing else: then it touches neither the socket's readiness nor the clock.
//!
//! [`http2`](crate::http2) decides what the peer may do; a [`Service`] says what calls
//! mean; [`Writer`] writes.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;
use tokio::io::ReadBuf;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

use super::call::{Memory, Served};
use super::handle::{Handle, Phase};
use super::send_queue;
use super::socket::Socket;
use super::watchdog::Watchdog;
use super::writer::{Writer, Written};
use crate::http2;
use crate::http2::request::RequestHead;
use crate::http2::server::{Blocked, Connection, Event};
use crate::prefetch;
use crate::service::{Abandoned, EndCause, Progress, Service, Stall, Turn};

/// How much may wait to be written that is not data, before no more is read, or answered.
const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// What is read at once. A request that lies whole in it is published from there; one that
/// is cut by its end has to be put together first. So it is many times a request of a
/// hundred events.
const READ_BYTES: usize = 256 << 10;
/// After half of what was read, and at least so much, its responses are written: a peer that
/// waits for them before it sends more does so while the other half is taken.
const PART_BYTES: usize = 32 << 10;
/// A peer that sends so much at once keeps us busy: others' writes should not wait for that,
/// nor it for its responses.
const LONG_READ_BYTES: usize = 4 << 10;
/// Pieces of a body up to this length are gathered: to give them to a call together costs
/// less than to give it each from where it was read.
const GATHERED_BYTES: usize = 1 << 10;
/// What is read from one peer, or written to it, before others have a turn.
const TURN_BYTES: usize = 1 << 20;
/// How often one peer is written to before others have a turn, however little it is.
const TURN_WRITES: usize = 128;
/// Requests up to this length, prefix included, need no memory of their own: parts of them
/// on 256 streams fill a quarter of a window of 4 MiB.
const SHORT_REQUEST_BYTES: usize = (4 << 10) + 16;
/// How many calls of a connection may have memory for longer ones, or stand in the queue for
/// it: others' calls have their turn too.
const LONG_REQUESTS: usize = 8;
/// Those that wait for memory may hold this share of the connection's window: four calls
/// their whole windows. The peer is told of less than a quarter only when it is as much, so
/// that a quarter at least is for what does not wait.
const WAITING_SHARE: usize = 2;

thread_local! {
    /// What sockets are read into: what is whole in it is not kept for longer.
    static INPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    watchdog: Watchdog,
    /// Bytes that are still to come of long requests that have begun to, for all of which
    /// there has to be memory.
    arriving: Arc<Semaphore>,
    shutting_down: AtomicBool,
}

impl Shared {
    /// With memory for so many bytes of requests that have not arrived in full.
    pub(super) fn new(watchdog: Watchdog, arriving_bytes: usize) -> Arc<Self> {
        Arc::new(Shared {
            watchdog,
            arriving: Arc::new(Semaphore::new(arriving_bytes)),
            shutting_down: AtomicBool::new(false),
        })
    }

    /// Has every connection end after its last stream.
    pub(super) fn shut_down(&self) {
        // Release: pairs with the Acquire in `is_shutting_down`; a driver that registers
        // its waker after the wake-up sees it.
        self.shutting_down.store(true, Ordering::Release);
        self.watchdog.wake_all();
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is read; what is left is written.
    Flushing,
    /// All was written to the socket; the peer has yet to close.
    Closing,
}

/// The task that serves a connection.
// What is looked at first comes first: whoever wakes the task has touched that cache line.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Driver<S: Service> {
    state: State,
    /// There may be something to read.
    readable: bool,
    /// The peer has completed HTTP/2's handshake.
    is_serving: bool,
    /// A call has begun to await a request: the alarm has to be looked at.
    alarm_is_due: bool,
    handle: Arc<Handle>,
    /// What the handle wakes.
    waker: Waker,
    /// When something may be late. It may come for nothing: what it was set for is not
    /// taken back.
    alarm: Option<Pin<Box<Sleep>>>,
    http: Connection<Option<Served<S>>>,
    writer: Writer<S::Data>,
    socket: Socket,
    service: S,
    shared: Arc<Shared>,
    /// The index of the stream that comes first next time.
    turn: usize,
    /// While a frame or a header block has arrived in part: since when, by
    /// [`incomplete_frame`](Connection::incomplete_frame).
    incomplete: Option<(u64, Instant)>,
    /// Since when the peer is not read, while it is not.
    unread_since: Option<Instant>,
}

impl<S: Service> Driver<S> {
    pub(super) fn new(shared: Arc<Shared>, service: S, socket: Socket) -> Self {
        Driver {
            state: State::Open,
            readable: true,
            is_serving: false,
            alarm_is_due: false,
            handle: Arc::clone(socket.handle()),
            waker: Waker::noop().clone(),
            alarm: None,
            http: Connection::new(S::LIMITS),
            writer: Writer::default(),
            socket,
            service,
            shared,
            turn: 0,
            incomplete: None,
            unread_since: None,
        }
    }

    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut turn_bytes, mut turn_writes) = (0, 0);
        loop {
            if self.state == State::Closing {
                return self.socket.poll_shutdown(cx);
            }
            let woken = self.take_wakeup(cx.waker());
            let read_bytes = self.read(cx)?;
            turn_bytes += self.socket.take_read_cost(read_bytes);
            if self.state == State::Open && (woken || read_bytes > 0 || self.alarm.is_some()) {
                self.look_around(cx);
            }
            loop {
                let has_data = self.state == State::Open && self.serve(cx);
                let http = &mut self.http;
                let has_output = !self.writer.is_empty() || !http.output().is_empty();
                if !has_data && !has_output && !self.socket.has_left() {
                    self.socket.has_nothing_to_write();
                    break;
                }
                match self
                    .writer
                    .poll_write(&mut self.socket, http, has_data, cx)?
                {
                    Written::All { bytes: 0 } => break,
                    Written::Some { bytes } | Written::All { bytes } => turn_bytes += bytes,
                    // Reading may go on.
                    Written::Blocked if self.readable && self.reads() => break,
                    Written::Blocked => {
                        if self.readable && self.state == State::Open {
                            // It is full: nothing more is read until the peer reads.
                            self.note_reading(false);
                        }
                        return Poll::Pending;
                    }
                }
                turn_writes += 1;
                if turn_bytes >= TURN_BYTES || turn_writes >= TURN_WRITES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if self.readable && self.reads() {
                    // A call that is far ahead leaves a turn to those that were not read.
                    break;
                }
            }
            let is_written = self.writer.is_empty() && self.http.output().is_empty();
            if is_written
                && (self.state == State::Flushing
                    || (self.state == State::Open && self.http.is_drained()))
            {
                self.state = State::Closing;
            } else if !(self.readable && self.reads()) {
                return Poll::Pending;
            } else if turn_bytes >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Whether something was done to the connection from outside, or it became readable.
    fn take_wakeup(&mut self, waker: &Waker) -> bool {
        if !self.waker.will_wake(waker) {
            self.waker.clone_from(waker);
            self.handle.register(waker);
        }
        let woken = self.handle.take_wakeup();
        self.readable |= woken;
        woken
    }

    /// Whether the peer is read: not at its end, and not while it does not read itself.
    fn reads(&mut self) -> bool {
        self.state == State::Open && !self.is_full()
    }

    /// Whether the socket has to take some of the output before there may be more.
    fn is_full(&mut self) -> bool {
        self.http.output().len() - self.writer.output_written() >= MAX_OUTPUT_BYTES
    }

    /// Reads once, if it is time to. Returns how many bytes that were.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        if !self.readable {
            return Ok(0);
        }
        let reads = self.reads();
        self.note_reading(reads);
        if !reads {
            return Ok(0);
        }
        INPUT.with_borrow_mut(|memory| {
            let mut buf = ReadBuf::new(memory);
            if self.socket.poll_read(&mut buf)?.is_pending() {
                self.readable = false;
                return Ok(0);
            }
            let bytes = buf.filled();
            if bytes.is_empty() {
                // The peer has gone. Nobody reads what we still have.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let is_long = bytes.len() >= LONG_READ_BYTES;
            self.socket.set_queues(!is_long);
            if is_long {
                send_queue::submit();
            }
            let mut input = bytes;
            let part_bytes = (bytes.len() / 2).max(PART_BYTES);
            while self.receive(&mut input, part_bytes, cx) {
                self.serve(cx);
                self.writer
                    .poll_write(&mut self.socket, &mut self.http, false, cx)?;
            }
            Ok(bytes.len())
        })
    }

    /// Takes what was read, or so much of it. Returns whether there is more.
    fn receive(&mut self, input: &mut &[u8], part_bytes: usize, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let max_left_bytes = input.len().saturating_sub(part_bytes);
        let mut has_more = false;
        loop {
            match self.http.receive(input, now.into_std()) {
                Ok(Some(Event::Request { at, head, .. })) => self.open(at, &head),
                Ok(Some(Event::Data { at, data, ends })) => self.take_data(at, data, ends, cx),
                Ok(None) => break,
                Err(error) => {
                    self.log_end(&error);
                    self.state = State::Flushing;
                    break;
                }
            }
            if input.len() < max_left_bytes {
                has_more = true;
                break;
            }
        }
        self.incomplete = self
            .http
            .incomplete_frame()
            .map(|frame| match self.incomplete {
                Some((since, at)) if since == frame => (since, at),
                _ => (frame, now),
            });
        if !self.is_serving && self.http.is_open() {
            self.is_serving = true;
            self.handle.enter(Phase::Serving);
        }
        self.alarm_is_due |= self.incomplete.is_some();
        self.let_go();
        has_more
    }

    /// Begins a call, or refuses it.
    fn open(&mut self, at: usize, head: &RequestHead) {
        let Some(mut parts) = self.http.parts(at) else {
            return;
        };
        match self.service.open(head, self.handle.caller()) {
            Ok(call) => {
                self.handle.stream_opened();
                *parts.state = Some(Served::new(call));
            }
            Err(refusal) => parts.response.whole(refusal.code, &refusal.fields),
        }
    }

    /// Lets a call take data from where it was read; what it leaves is kept for it. Small
    /// pieces of a body that goes on are gathered first.
    fn take_data(&mut self, at: usize, data: &[u8], ends: bool, cx: &mut Context<'_>) {
        let is_alone = data.len() >= GATHERED_BYTES || ends;
        let is_next = self.http.stream(at).is_some_and(|of| of.body().is_empty());
        let polls = is_alone && !self.is_full();
        let lent = Some(data).filter(|_| polls && is_next);
        if lent.is_none() {
            self.http.buffer(at, data);
        }
        if polls {
            self.poll_call(at, lent, true, cx);
        }
    }

    /// Lets every call go on that has nothing to write. Returns whether any has something
    /// now.
    fn serve(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_data = false;
        let count = self.http.stream_count();
        if count == 1 {
            has_data = !self.is_full() && self.go_on(0, cx);
        } else {
            let first = if self.turn < count { self.turn } else { 0 };
            for at in (first..count).chain(0..first) {
                if self.is_full() {
                    self.turn = at;
                    break;
                }
                has_data |= self.go_on(at, cx);
            }
            self.refuse_waiting();
        }
        self.let_go();
        if self.alarm_is_due && self.unread_since.is_none() {
            self.set_alarm(cx);
        }
        has_data
    }

    /// Lets a call go on. Returns whether it has data to write.
    #[inline]
    fn go_on(&mut self, at: usize, cx: &mut Context<'_>) -> bool {
        loop {
            let stream = self.http.stream_mut(at);
            let Some(served) = stream.and_then(|stream| stream.state.as_mut()) else {
                return false;
            };
            if !served.outgoing.is_empty() {
                return true;
            }
            match self.service.poll_data(&mut served.call, cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(data)) => {
                    served.outgoing.set(data);
                    return true;
                }
                Poll::Ready(None) if self.poll_call(at, None, false, cx) => {}
                Poll::Ready(None) => return false,
            }
        }
    }

    /// Lets a call go on that is not all [data](Service::poll_data), with what has arrived of
    /// its body: lent, or kept for it. Returns whether it is now.
    #[inline(never)]
    fn poll_call(
        &mut self,
        at: usize,
        lent: Option<&[u8]>,
        may_defer: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut lent = lent;
        let mut may_queue = None;
        loop {
            let Some(parts) = self.http.parts(at) else {
                return false;
            };
            let Some(served) = parts.state else {
                return false;
            };
            if !served.outgoing.is_empty() {
                if let Some(data) = lent {
                    self.http.buffer(at, data);
                }
                return true;
            }
            let turn = Turn {
                body: lent.unwrap_or(parts.body.bytes()),
                is_complete: parts.body.is_complete(),
                may_defer,
                response: parts.response,
            };
            let left_bytes = turn.body.len();
            let progress = self.service.poll(&mut served.call, turn, cx);
            let left_bytes = left_bytes - progress.consumed_bytes;
            let in_flight = &mut served.outgoing.in_flight;
            in_flight.queue(progress.queued_bytes as u64);
            in_flight.written(progress.sent_bytes as u64);
            if !progress.awaits_request || progress.requests > 0 {
                served.awaiting_since = None;
            }
            if progress.awaits_request && served.awaiting_since.is_none() {
                served.awaiting_since = Some(Instant::now());
                self.alarm_is_due = true;
            }
            let wants_memory = served.wants_memory(&progress, left_bytes);
            let Progress {
                consumed_bytes,
                requests,
                is_held,
                missing_bytes,
                sent_bytes,
                has_data,
                ..
            } = progress;
            match lent.take() {
                Some(data) => {
                    self.http.consumed(at, consumed_bytes);
                    if left_bytes > 0 {
                        self.http.buffer(at, &data[consumed_bytes..]);
                    }
                }
                None if consumed_bytes > 0 => self.http.take_body(at, consumed_bytes),
                None => {}
            }
            if requests > 0 {
                self.http.answered(requests);
            }
            if wants_memory {
                let may_queue =
                    *may_queue.get_or_insert_with(|| self.long_requests() < LONG_REQUESTS);
                if let Some(Some(served)) = self.http.stream_mut(at).map(|of| &mut of.state)
                    && served
                        .memory
                        .poll(&self.shared.arriving, missing_bytes, may_queue, cx)
                {
                    self.http.release_body(at);
                }
            }
            // What holds it up may be the peer's window.
            if has_data || !is_held || sent_bytes == 0 || self.is_full() {
                return has_data;
            }
        }
    }

    /// How many calls have memory for a long request, or a place in the queue.
    fn long_requests(&self) -> usize {
        let calls = self.http.streams().filter_map(|(_, of)| of.state.as_ref());
        calls.filter(|served| served.memory.is_queued()).count()
    }

    /// Ends the newest of the calls that wait for memory while all of them hold too much of
    /// the connection's window: what others have memory for could not arrive any more.
    fn refuse_waiting(&mut self) {
        let streams = self.http.streams();
        let waiting = streams.filter(|(_, stream)| {
            let served = stream.state.as_ref();
            served.is_some_and(|served| served.memory.is_waiting())
        });
        let mut waiting: SmallVec<[(usize, usize); 8]> = waiting
            .map(|(at, stream)| (at, stream.body().len()))
            .collect();
        let max_bytes = S::LIMITS.connection_window as usize / WAITING_SHARE;
        let mut bytes: usize = waiting.iter().map(|(_, bytes)| bytes).sum();
        while bytes > max_bytes
            && let Some((at, own_bytes)) = waiting.pop()
        {
            bytes -= own_bytes;
            self.end_call(at, EndCause::TooManyLongRequests);
            // It asks in good faith, however often.
            self.http.answered(1);
        }
    }

    fn end_call(&mut self, at: usize, cause: EndCause) {
        if let Some(parts) = self.http.parts(at)
            && let Some(served) = parts.state
        {
            let sent_bytes = self.service.end(&mut served.call, cause, parts.response);
            served.outgoing.in_flight.written(sent_bytes as u64);
            served.awaiting_since = None;
            served.memory = Memory::None;
        }
    }

    /// Lets go of the streams that have ended.
    fn let_go(&mut self) {
        if self.http.has_ended() {
            self.let_go_of_ended();
        }
    }

    #[cold]
    fn let_go_of_ended(&mut self) {
        for ended in self.http.take_ended() {
            if let Some(mut served) = ended.state {
                let why = match ended.cause {
                    http2::server::EndCause::Finished => None,
                    http2::server::EndCause::ResetByPeer(code) => {
                        Some(Abandoned::ResetByPeer(code))
                    }
                    http2::server::EndCause::Reset(_) => Some(Abandoned::Reset),
                    http2::server::EndCause::ConnectionFailed => Some(Abandoned::Disconnected),
                };
                if let Some(why) = why {
                    let written = served.outgoing.half_written();
                    self.service.abandoned(&mut served.call, why, written);
                }
                self.handle.stream_ended();
                let (watchdog, handle) = (&self.shared.watchdog, &self.handle);
                let track = || watchdog.track(handle);
                self.writer.stream_ended(ended.id, served, track);
            }
        }
    }

    fn log_end(&self, error: &http2::Error) {
        tracing::info!(peer = %self.handle.peer(), "connection ended: {error}");
    }

    /// Looks at what others want: a ping, a shutdown, the end of a stream that stalls; and
    /// at the clock.
    fn look_around(&mut self, cx: &mut Context<'_>) {
        if self.handle.take_ping_request() {
            self.http.send_ping();
        }
        if self.shared.is_shutting_down() {
            self.http.shut_down();
        }
        self.end_stalled();
        while self.state == State::Open
            && let Some(alarm) = &mut self.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            self.alarm = None;
            if self.unread_since.is_some() {
                // Nobody is late while nothing is read. It is set anew when that goes on.
                self.alarm_is_due = true;
                break;
            }
            self.end_late(cx);
            self.set_alarm(cx);
        }
        self.let_go();
    }

    /// Ends the streams that the watchdog has found to stall.
    ///
    /// A stream whose own window is shut has a reader that takes nothing. Where the
    /// connection's window is shut, one reader may hold up all others: the stream ends of
    /// which the peer has acknowledged the least. Where neither is, the socket is full, and
    /// the watchdog watches that.
    fn end_stalled(&mut self) {
        self.writer.ignore_stall();
        let sendable = self.http.sendable();
        let mut stalled: SmallVec<[(usize, Stall); 4]> = SmallVec::new();
        let mut by_connection = None;
        for (at, stream) in self.http.streams() {
            let Some(served) = &stream.state else {
                continue;
            };
            if let Some(stall) = served.outgoing.in_flight.take_stall() {
                match sendable.blocked(stream) {
                    Some(Blocked::Stream) => stalled.push((at, stall)),
                    Some(Blocked::Connection) => by_connection = Some(stall),
                    None => {}
                }
            }
        }
        if let Some(stall) = by_connection
            && stalled.is_empty()
        {
            let streams = self.http.streams();
            let held = streams.filter(|(_, stream)| stream.state.is_some());
            // Of several, the oldest.
            let most =
                held.max_by_key(|(at, stream)| (stream.unacknowledged_bytes(), Reverse(*at)));
            stalled.extend(most.map(|(at, _)| (at, stall)));
        }
        for (at, stall) in stalled {
            if let Some(served) = self.http.stream(at).and_then(|of| of.state.as_ref()) {
                tracing::warn!(
                    peer = %self.handle.peer(),
                    pinned_bytes = stall.pinned_bytes,
                    "stream ended: {} took nothing for {:.1?}",
                    self.service.describe(&served.call),
                    stall.lasted,
                );
            }
            self.end_call(at, EndCause::Stalled(stall));
        }
    }

    /// Ends what is late: calls whose requests did not arrive, and the connection if a frame
    /// did not.
    fn end_late(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        if self
            .incomplete
            .is_some_and(|(_, since)| now >= since + S::REQUEST_TIMEOUT)
        {
            // Nothing else can arrive before the rest of it.
            let error = http2::Error::FRAME_TIMEOUT;
            self.log_end(&error);
            self.http.fail(error);
            self.incomplete = None;
            self.state = State::Flushing;
            return;
        }
        for at in self.late(now) {
            // What is left of its request may have arrived just now.
            self.poll_call(at, None, false, cx);
        }
        for at in self.late(now) {
            let served = self.http.stream(at).and_then(|of| of.state.as_ref());
            let cause = if served.is_some_and(|served| served.memory.is_waiting()) {
                EndCause::TooManyLongRequests
            } else {
                EndCause::RequestTimeout
            };
            self.end_call(at, cause);
        }
    }

    /// The indices of the streams whose requests are late.
    fn late(&self, now: Instant) -> SmallVec<[usize; 4]> {
        let late = self.http.streams().filter(|(_, stream)| {
            let deadline = stream.state.as_ref().and_then(Served::deadline);
            deadline.is_some_and(|deadline| deadline <= now)
        });
        late.map(|(at, _)| at).collect()
    }

    /// Sets the alarm, if there is none, for what will be late first.
    fn set_alarm(&mut self, cx: &mut Context<'_>) {
        self.alarm_is_due = false;
        if self.alarm.is_some() {
            return;
        }
        let frame = self.incomplete.map(|(_, since)| since + S::REQUEST_TIMEOUT);
        let streams = self.http.streams();
        let calls = streams.filter_map(|(_, stream)| stream.state.as_ref()?.deadline());
        let Some(first) = calls.chain(frame).min() else {
            return;
        };
        let mut alarm = Box::pin(sleep_until(first));
        if alarm.as_mut().poll(cx).is_ready() {
            // It is looked at the next time.
            cx.waker().wake_by_ref();
        }
        self.alarm = Some(alarm);
    }

    /// From here on the peer is read, or is not. What was not read meanwhile is not late by
    /// the peer's fault.
    fn note_reading(&mut self, reads: bool) {
        if reads && self.unread_since.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.unread_since.take() {
            let time = now - since;
            let forgive = |since: &mut Instant| *since = now.min(*since + time);
            if let Some((_, since)) = &mut self.incomplete {
                forgive(since);
            }
            for (_, stream) in self.http.streams_mut() {
                let served = stream.state.as_mut();
                if let Some(since) = served.and_then(|served| served.awaiting_since.as_mut()) {
                    forgive(since);
                }
            }
        }
        self.unread_since = (!reads).then_some(now);
    }

    /// The connection has ended, and with it every call that is left.
    fn abandon(&mut self) {
        let cut = self.handle.cut_why();
        let why = cut.map_or(Abandoned::Disconnected, Abandoned::Cut);
        for (_, stream) in self.http.streams_mut() {
            if let Some(served) = &mut stream.state {
                let written = served.outgoing.half_written();
                self.service.abandoned(&mut served.call, why, written);
            }
        }
    }

    /// The task goes to sleep, or leaves its turn to others: what is not written by now is
    /// watched. (So is a frame whose stream has ended: since it did.)
    fn watch_unwritten(&mut self) {
        let (handle, watchdog) = (&self.handle, &self.shared.watchdog);
        for (_, stream) in self.http.streams_mut() {
            if let Some(served) = &mut stream.state {
                served.outgoing.in_flight.blocked(|| watchdog.track(handle));
            }
        }
    }
}

impl<S: Service> Served<S> {
    /// Whether memory is needed for what is to come of a long request. What it has is kept
    /// until that is taken: also while it is held up.
    fn wants_memory(&mut self, progress: &Progress, arrived_bytes: usize) -> bool {
        let missing_bytes = progress.missing_bytes;
        let wants = missing_bytes > 0 && arrived_bytes + missing_bytes > SHORT_REQUEST_BYTES;
        if !matches!(self.memory, Memory::None) {
            if progress.requests > 0 || !(progress.awaits_request || progress.is_held) {
                self.memory = Memory::None;
            }
            if !wants {
                self.memory.stop_waiting();
            }
        }
        wants
    }
}

impl<S: Service + Unpin> Future for Driver<S>
where
    S::Data: Unpin,
    S::Call: Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // With many connections, they have left the caches since the last event.
        prefetch::value(&*self);
        prefetch::value(&*self.handle);
        prefetch::value(self.socket.wire());
        let Poll::Ready(ended) = self.poll_drive(cx) else {
            self.watch_unwritten();
            send_queue::turn_ended();
            return Poll::Pending;
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.handle.peer(), "connection ended: {error}");
        }
        self.abandon();
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
