//! A gateway's connection: events from the ring into its socket.
//!
//! One task serves a connection with all its streams, and between the ring and the
//! socket there is nothing: a wake-up takes a batch and writes it, with a frame's head
//! before each piece of it, by one system call. A batch stays a view of the ring's
//! memory until its last byte is written. A stream has at most one batch at a time, so
//! that is all that a gateway which takes nothing can hold.
//!
//! [`http2`](crate::http2) decides what the peer may do and what is to be answered;
//! [`request`] reads its one message; [`Outbox`](outbox::Outbox) writes.

mod outbox;
mod request;

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use self::outbox::{Outbox, Written};
use super::connection::{Connection, End, Link, MAX_FIELD_BYTES, MAX_STREAMS};
use super::flow::{Account, Flow, Load};
use super::stall::Watch;
use super::{grpc, status, subscribe};
use crate::engine::{Batch, Engine, Subscriber};
use crate::http2::Error;
use crate::http2::frame::{DEFAULT_FRAME_BYTES, INITIAL_WINDOW};
use crate::http2::request::RequestHead;
use crate::http2::server::{self as http2, Event, Limits};
use crate::prefetch;

/// How long a request may take to arrive in full.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How much may wait to be written that is not data, before the peer is read no more.
const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// What is read at once. Gateways send little.
const READ_BYTES: usize = 4 << 10;
/// What one gateway that is far behind is written before others have a turn.
const TURN_BYTES: usize = 1 << 20;
/// How often one gateway is written to before others have a turn, however little it was.
const TURN_WRITES: usize = 128;

const LIMITS: Limits = Limits {
    max_streams: MAX_STREAMS as usize,
    max_field_bytes: MAX_FIELD_BYTES as usize,
    // Requests are short.
    stream_window: INITIAL_WINDOW,
    connection_window: INITIAL_WINDOW,
    max_frame_bytes: DEFAULT_FRAME_BYTES,
};

/// What all gateways' connections share.
#[derive(Debug)]
pub(super) struct Hub {
    engine: Engine,
    watch: Watch,
    stopping: AtomicBool,
}

impl Hub {
    pub(super) fn new(engine: Engine, watch: Watch) -> Arc<Self> {
        Arc::new(Hub {
            engine,
            watch,
            stopping: AtomicBool::new(false),
        })
    }

    /// Has every connection end after its last stream. Requests that have not arrived
    /// are refused.
    pub(super) fn stop(&self) {
        // Release: pairs with the Acquire in `is_stopping`; whoever registers its waker
        // after the wake-up sees it.
        self.stopping.store(true, Ordering::Release);
        self.watch.wake_all();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// A stream on which a gateway is subscribed.
#[derive(Debug)]
struct Serving {
    subscriber: Subscriber,
    /// What is being written.
    batch: Option<Batch>,
    /// How much of the batch has its frames; at most the last of them is half written.
    framed: usize,
    load: Load,
}

impl Serving {
    /// What is left to be framed.
    fn unframed(&self) -> usize {
        let batch = self.batch.as_ref();
        batch.map_or(0, |batch| batch.as_bytes().len() - self.framed)
    }
}

/// `None` while nobody is subscribed.
type State = Option<Serving>;

/// The task that serves a connection.
// What is looked at first comes first: whoever wakes the task has touched that cache line.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Downlink {
    end: End,
    /// There may be something to read.
    unheard: bool,
    newest: u32,
    link: Arc<Link>,
    /// What the link wakes.
    waker: Waker,
    /// While something has arrived in part: when the rest must have, and of what.
    deadline: Option<(Pin<Box<Sleep>>, Unfinished)>,
    http: http2::Connection<State>,
    outbox: Outbox,
    socket: Connection,
    hub: Arc<Hub>,
}

/// What has arrived in part.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// Requests on streams up to this one.
    newest: u32,
    /// A frame or a header block, by [`incomplete_frame`](http2::Connection::incomplete_frame).
    frame: Option<u64>,
}

impl Downlink {
    pub(super) fn new(hub: Arc<Hub>, socket: Connection) -> Self {
        let link = Arc::clone(socket.link());
        link.watch_silence();
        Downlink {
            hub,
            socket,
            link,
            http: http2::Connection::new(LIMITS),
            outbox: Outbox::default(),
            deadline: None,
            newest: 0,
            unheard: true,
            waker: Waker::noop().clone(),
            end: End::No,
        }
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut turn_bytes, mut turn_writes) = (0, 0);
        loop {
            if self.end == End::Closing {
                return Pin::new(&mut self.socket).poll_shutdown(cx);
            }
            let reads = self.end == End::No && self.http.output().len() < MAX_OUTPUT_BYTES;
            // Most often there is an event, and nothing else.
            let news = self.take_news(cx.waker());
            let listens = reads && self.unheard;
            if listens {
                self.listen(cx)?;
            }
            if self.end == End::No && (news || listens || self.deadline.is_some()) {
                self.look_around(cx);
            }
            loop {
                let has_data = self.take_batches(cx);
                if !has_data && self.outbox.is_empty() && self.http.output().is_empty() {
                    break;
                }
                match self
                    .outbox
                    .poll_write(&mut self.socket, &mut self.http, cx)?
                {
                    Written::All { bytes: 0 } => break,
                    Written::Some { bytes } | Written::All { bytes } => turn_bytes += bytes,
                    Written::Blocked => return Poll::Pending,
                }
                turn_writes += 1;
                if turn_bytes >= TURN_BYTES || turn_writes >= TURN_WRITES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            if self.end == End::LastWords || (self.end == End::No && self.http.is_drained()) {
                self.end = End::Closing;
            } else if reads {
                return Poll::Pending;
            }
            // What kept us from reading has been written.
        }
    }

    /// Whether there is something new of the connection.
    fn take_news(&mut self, waker: &Waker) -> bool {
        if !self.waker.will_wake(waker) {
            self.waker.clone_from(waker);
            self.link.register(waker);
        }
        let news = self.link.take_news();
        self.unheard |= news;
        news
    }

    /// Reads until there is nothing, and answers.
    fn listen(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut memory = [const { MaybeUninit::uninit() }; READ_BYTES];
        while self.end == End::No && self.http.output().len() < MAX_OUTPUT_BYTES {
            let mut buf = ReadBuf::uninit(&mut memory);
            match self.socket.poll_hear(&mut buf)? {
                Poll::Pending => {
                    self.unheard = false;
                    return Ok(());
                }
                Poll::Ready(()) if buf.filled().is_empty() => {
                    // It has gone. Nobody reads what we still have.
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(()) => {}
            }
            let (mut input, now) = (buf.filled(), Instant::now());
            loop {
                match self.http.receive(&mut input, now) {
                    Ok(Some(Event::Request { stream, head, .. })) => self.open(stream, &head),
                    Ok(Some(Event::Data { at, data, .. })) => self.http.buffer(at, data),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::info!(peer = %self.link.peer(), "connection ended: {error}");
                        self.end = End::LastWords;
                        break;
                    }
                }
            }
            self.take_requests();
            self.let_go();
        }
        // There may be more, and nobody will wake us for it.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn open(&mut self, stream: u32, request: &RequestHead) {
        self.newest = stream;
        let otherwise = "there is SubscribePush, and nothing else";
        if let Err(refusal) = grpc::check(request, &[subscribe::PATH], otherwise) {
            self.respond_whole(stream, &refusal);
        } else if self.hub.is_stopping() {
            self.refuse(stream, &status::stopping());
        }
    }

    /// Answers the requests that have arrived in full.
    fn take_requests(&mut self) {
        let mut answers = Vec::new();
        for (at, stream) in self.http.streams() {
            if stream.state.is_none() {
                match request::message(stream.body(), stream.is_complete()) {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        let subscribed = subscribe::subscribe(&self.hub.engine, message);
                        answers.push((at, stream.id(), subscribed));
                    }
                    Err(status) => answers.push((at, stream.id(), Err(status))),
                }
            }
        }
        // From the last on, so that those before it stay at their places.
        for (at, stream, answer) in answers.into_iter().rev() {
            self.http.take_body(at, usize::MAX);
            match answer {
                Ok((subscriber, id)) => self.serve(stream, subscriber, &id),
                Err(status) => self.refuse(stream, &status),
            }
        }
    }

    fn serve(&mut self, stream: u32, subscriber: Subscriber, id: &str) {
        let peer = self.link.peer();
        tracing::debug!(gateway = id, %peer, start = ?subscriber.start(), "subscribed");
        let name = format!("gateway {id:?}").into_boxed_str();
        let (flow, source) = Flow::new(name, self.link.begin_call());
        self.hub.watch.add_flow(flow);
        let fields = subscribe::response_fields(subscriber.start());
        if let Some(mut parts) = self.parts(stream) {
            *parts.state = Some(Serving {
                subscriber,
                batch: None,
                framed: 0,
                load: Load::new(Account::Own(source)),
            });
            parts.response.head(200, &fields);
        }
    }

    fn parts(&mut self, stream: u32) -> Option<http2::Parts<'_, State>> {
        let at = self.http.index(stream)?;
        self.http.parts(at)
    }

    fn respond_whole(&mut self, stream: u32, refusal: &grpc::Refusal) {
        if let Some(mut parts) = self.parts(stream) {
            parts.response.whole(refusal.code, &refusal.fields);
        }
    }

    fn refuse(&mut self, stream: u32, status: &Status) {
        self.respond_whole(stream, &grpc::Refusal::of(status));
        self.let_go();
    }

    /// Lets go of the streams that have ended.
    fn let_go(&mut self) {
        for ended in self.http.take_ended() {
            if let Some(serving) = ended.state {
                self.outbox.stream_ended(ended.id, serving);
            }
        }
    }

    /// Looks at what others want: a stop, a sign of life; and at the clock.
    fn look_around(&mut self, cx: &mut Context<'_>) {
        if self.link.is_asked() {
            self.http.send_ping();
        }
        if self.hub.is_stopping() {
            self.http.shut_down();
            self.refuse_unreceived(u32::MAX, &status::stopping());
        }
        loop {
            let frame = self.http.incomplete_frame();
            let waits =
                frame.is_some() || self.http.streams().any(|(_, stream)| !stream.is_complete());
            if !waits {
                self.deadline = None;
                return;
            }
            let newest = self.newest;
            let (deadline, unfinished) = self.deadline.get_or_insert_with(|| {
                let deadline = Box::pin(sleep(REQUEST_TIMEOUT));
                (deadline, Unfinished { newest, frame })
            });
            if deadline.as_mut().poll(cx).is_pending() {
                return;
            }
            let late = *unfinished;
            self.deadline = None;
            if late.frame.is_some() && late.frame == frame {
                // Nothing else can arrive before the rest of it.
                let error = Error::FRAME_TIMEOUT;
                tracing::info!(peer = %self.link.peer(), "connection ended: {error}");
                self.http.fail(error);
                self.let_go();
                self.end = End::LastWords;
                return;
            }
            let status = Status::deadline_exceeded(format!(
                "the request did not arrive within {REQUEST_TIMEOUT:?}"
            ));
            self.refuse_unreceived(late.newest, &status);
        }
    }

    fn refuse_unreceived(&mut self, up_to: u32, status: &Status) {
        let late: Vec<u32> = self
            .http
            .streams()
            .map(|(_, stream)| stream)
            .filter(|stream| stream.id() <= up_to && !stream.is_complete())
            .map(http2::Stream::id)
            .collect();
        for stream in late {
            self.refuse(stream, status);
        }
    }

    /// Has every stream that has nothing to write take what the ring has for it. Says
    /// whether any has something now.
    fn take_batches(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_data = false;
        let mut ended: Vec<(usize, HeaderMap)> = Vec::new();
        for (at, stream) in self.http.streams_mut() {
            let Some(serving) = &mut stream.state else {
                continue;
            };
            if serving.batch.is_some() {
                has_data = true;
                continue;
            }
            match serving.subscriber.poll_recv(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(batch)) => {
                    has_data = true;
                    serving.load.give(batch.as_bytes().len() as u64);
                    serving.batch = Some(batch);
                    serving.framed = 0;
                }
                Poll::Ready(Err(error)) => {
                    let status = status::end_of_stream(error, serving.subscriber.lag());
                    ended.push((at, grpc::trailers(&status)));
                }
            }
        }
        if ended.is_empty() {
            return has_data;
        }
        for (at, trailers) in ended {
            if let Some(mut parts) = self.http.parts(at) {
                parts.response.trailers(&trailers);
            }
        }
        self.let_go();
        has_data
    }

    /// What is not written by now waits for the peer, and is watched. (So is a frame
    /// whose stream has ended since: it was half written when we last came here.)
    fn wait(&mut self) {
        for (_, stream) in self.http.streams_mut() {
            if let Some(serving) = &mut stream.state {
                serving.load.wait();
            }
        }
    }
}

impl Future for Downlink {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // With many connections, they have left the caches since the last event.
        prefetch::value(&*self);
        prefetch::value(&*self.link);
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
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::edge::rig::{Wakes, pair};

    #[tokio::test]
    async fn whoever_polled_it_last_is_woken() {
        let (socket, mut theirs) = pair();
        let hub = Hub::new(Engine::builder().build().unwrap(), Watch::default());
        let mut downlink = Downlink::new(hub, socket);
        let wakes = [(); 2].map(|()| Arc::new(Wakes::default()));
        for one in &wakes {
            let waker = one.waker();
            let poll = Pin::new(&mut downlink).poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending());
        }
        theirs.write_all(b"P").await.unwrap();
        while wakes[1].count() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(wakes[0].count(), 0);
    }
}
