//! Drivers of both listeners' services, over sockets.

mod late;
mod unwritten;

use std::time::Duration;

use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::advance;

use super::*;
use crate::backbone::Local;
use crate::contract::path;
use crate::contract::push::GatewaySubscribeRequest;
use crate::engine::Engine;
use crate::event::Event as Published;
use crate::freshness::Freshness;
use crate::grpc::{Gateways, Publishers, Stopping};
use crate::health::Health;
use crate::http2::frame::{self, FrameHeader, HEADER_BYTES, PREFACE, flag, kind, setting};
use crate::http2::hpack::FieldsWriter;
use crate::telemetry::Telemetry;
use crate::transport::test_support::{Wakes, pair};

/// `PublishRequest { events: [{ client_event: { user_id: "u", kind: "k" } }] }`, with its
/// prefix.
const PUBLISH: &[u8] = b"\x00\x00\x00\x00\x0a\x0a\x08\x0a\x06\x0a\x01u\x1a\x01k";

/// A `PublishResponse` with its prefix.
const RESPONSE_BYTES: usize = 57;

fn engine() -> Engine {
    Engine::builder().build().unwrap()
}

/// An event with a payload of so many bytes, below 16384.
fn large_event(payload: usize) -> Vec<u8> {
    let varint = |n: usize| [n as u8 | 0x80, (n >> 7) as u8];
    let payload = [&b"\x22"[..], &varint(payload), &vec![2; payload]].concat();
    let fields = [&b"\x0a\x01u\x1a\x01k"[..], &payload].concat();
    [&b"\x0a"[..], &varint(fields.len()), &fields].concat()
}

/// A peer that speaks frames, and the driver that it speaks to.
struct Harness<S: Service> {
    driver: Driver<S>,
    peer: UnixStream,
    to_send: Vec<u8>,
    received: Vec<u8>,
    ended: bool,
}

/// A frame that was received.
#[derive(Debug)]
struct Received {
    header: FrameHeader,
    payload: Vec<u8>,
}

impl<S> Harness<S>
where
    S: Service + Unpin,
    S::Call: Unpin,
    S::Data: Unpin,
{
    fn new(service: S, settings: &[(u16, u32)]) -> Self {
        let (socket, peer) = pair();
        let shared = Shared::new(Watchdog::default(), 1 << 20);
        let mut to_send = PREFACE.to_vec();
        frame::write_settings(&mut to_send, settings);
        Harness {
            driver: Driver::new(shared, service, socket),
            peer,
            to_send,
            received: Vec::new(),
            ended: false,
        }
    }

    fn request(&mut self, stream: u32, path: &str) {
        let mut block = Vec::new();
        let mut fields = FieldsWriter::new(&mut block);
        fields.indexed(3); // POST
        fields.indexed(6); // http
        fields.with_indexed_name(4, path.as_bytes());
        fields.literal(b"content-type", b"application/grpc");
        frame::write(
            &mut self.to_send,
            kind::HEADERS,
            flag::END_HEADERS,
            stream,
            &block,
        );
    }

    fn data(&mut self, stream: u32, flags: u8, bytes: &[u8]) {
        frame::write(&mut self.to_send, kind::DATA, flags, stream, bytes);
    }

    /// Sends what the driver reads, and takes what it writes, until nothing moves.
    async fn exchange(&mut self) {
        let mut still = 0;
        while still < 20 {
            still += 1;
            if self.send() > 0 {
                still = 0;
            }
            self.poll();
            if let Ok(1..) = self.peer.try_read_buf(&mut self.received) {
                still = 0;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sends what the socket takes at once; returns how much that was.
    fn send(&mut self) -> usize {
        let sent_bytes = self.peer.try_write(&self.to_send).unwrap_or(0);
        self.to_send.drain(..sent_bytes);
        sent_bytes
    }

    fn poll(&mut self) {
        self.poll_by(Waker::noop());
    }

    /// Polls the driver; it wakes `waker`.
    fn poll_by(&mut self, waker: &Waker) {
        let mut cx = Context::from_waker(waker);
        if !self.ended {
            self.ended = Pin::new(&mut self.driver).poll(&mut cx).is_ready();
        }
    }

    /// The whole frames that were received since the last call.
    fn frames(&mut self) -> Vec<Received> {
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(header) = FrameHeader::read(&self.received[at..]) {
            let start = at + HEADER_BYTES;
            let end = start + header.payload_bytes as usize;
            let Some(payload) = self.received.get(start..end) else {
                break;
            };
            frames.push(Received {
                header,
                payload: payload.to_vec(),
            });
            at = end;
        }
        self.received.drain(..at);
        frames
    }
}

fn gateways(engine: &Engine) -> impl Service<Data: Unpin, Call: Unpin> + Unpin + use<> {
    let health = Health::new(engine, Freshness::default()).unwrap();
    Gateways::router(Telemetry::of(engine), health, Stopping::default(), None)
}

fn publishers(engine: &Engine) -> impl Service<Call: Unpin, Data: Unpin> + Unpin + use<> {
    Publishers::router(
        Local::new(engine),
        &engine.limits(),
        &Telemetry::of(engine),
        Health::new(engine, Freshness::default()).unwrap(),
        Stopping::default(),
        None,
    )
}

fn subscribe(id: &str) -> Vec<u8> {
    let request = GatewaySubscribeRequest {
        gateway_client_id: id.to_owned(),
        cursor: String::new(),
    }
    .encode_to_vec();
    let length = (request.len() as u32).to_be_bytes();
    [&[0], &length[..], &request].concat()
}

/// How many bytes of data came on a stream, and whether it has ended.
fn data_on(stream: u32, frames: &[Received]) -> (usize, bool) {
    let on = frames.iter().filter(|of| of.header.stream == stream);
    on.fold((0, false), |(bytes, ended), of| {
        assert_ne!(of.header.kind, kind::RST_STREAM, "{of:?}");
        let ends = of.header.has(flag::END_STREAM) && of.header.kind <= kind::HEADERS;
        let data = match of.header.kind {
            kind::DATA => of.payload.len(),
            _ => 0,
        };
        (bytes + data, ended || ends)
    })
}

fn text_on(stream: u32, frames: &[Received]) -> String {
    let on = frames.iter().filter(|of| of.header.stream == stream);
    let heads = on.filter(|of| of.header.kind == kind::HEADERS);
    let texts = heads.map(|of| String::from_utf8_lossy(&of.payload).into_owned());
    texts.collect::<String>().replace("%20", " ")
}

/// With what tokio adds it is 1280 bytes, a size that allocators have; the next is 1536.
#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_gateways_connection_is_no_larger_than_the_allocators_size() {
    let driver = Harness::new(gateways(&engine()), &[]).driver;
    assert!(size_of_val(&driver) <= 1168, "{}", size_of_val(&driver));
}

#[tokio::test]
async fn the_task_that_polled_it_last_is_woken() {
    let (socket, mut theirs) = pair();
    let shared = Shared::new(Watchdog::default(), 0);
    let mut driver = Driver::new(shared, gateways(&engine()), socket);
    let wakes = [(); 2].map(|()| Arc::new(Wakes::default()));
    for one in &wakes {
        let waker = one.waker();
        let poll = Pin::new(&mut driver).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
    }
    theirs.write_all(b"P").await.unwrap();
    while wakes[1].count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(wakes[0].count(), 0);
}

#[tokio::test]
async fn a_publisher_that_never_catches_up_with_its_responses_has_few_kept_for_it() {
    const REQUESTS: usize = 20_000;
    let engine = engine();
    let windows = [(setting::INITIAL_WINDOW_SIZE, 1 << 30)];
    let mut harness = Harness::new(publishers(&engine), &windows);
    frame::write_window_update(&mut harness.to_send, 0, 1 << 30);
    harness.request(1, path::PUBLISH_STREAM);

    let (mut asked, mut answered, mut idle) = (0, 0, 0);
    let (mut was_full, mut most_kept) = (false, 0);
    while answered < REQUESTS {
        if harness.to_send.is_empty() && asked < REQUESTS {
            harness.data(1, 0, PUBLISH);
            asked += 1;
        }
        match harness.peer.try_write(&harness.to_send) {
            Ok(bytes) if bytes > 0 => {
                harness.to_send.drain(..bytes);
                idle = 0;
            }
            _ => idle += 1,
        }
        harness.poll();
        was_full |= harness.driver.is_full();
        most_kept = most_kept.max(harness.driver.http.output().capacity());
        // It takes a little, when nothing else moves any more.
        if idle > 200 {
            let mut piece = [0; 4 << 10];
            if let Ok(bytes) = harness.peer.try_read(&mut piece) {
                harness.received.extend_from_slice(&piece[..bytes]);
            }
            let (bytes, ended) = data_on(1, &harness.frames());
            assert!(bytes % RESPONSE_BYTES == 0 && !ended);
            answered += bytes / RESPONSE_BYTES;
        }
        tokio::task::yield_now().await;
    }
    assert!(was_full);
    assert!(most_kept <= 4 * MAX_OUTPUT_BYTES, "{most_kept}");
    assert_eq!((asked, answered), (REQUESTS, REQUESTS));
    assert_eq!(engine.head().seq().number(), REQUESTS as u64);
}

#[tokio::test]
async fn half_of_a_long_read_is_answered_before_the_other_half_is_taken() {
    const REQUESTS: usize = 8;
    let engine = engine();
    let mut harness = Harness::new(publishers(&engine), &[]);
    harness.request(1, path::PUBLISH_STREAM);
    harness.exchange().await;
    let event = large_event(10_000);
    let request = [
        &[
            0x0a,
            0x80 | event.len() as u8 & 0x7f,
            (event.len() >> 7) as u8,
        ],
        &event[..],
    ];
    let request = request.concat();
    let prefix = [&[0][..], &(request.len() as u32).to_be_bytes()].concat();
    for _ in 0..REQUESTS {
        harness.data(1, 0, &[&prefix[..], &request].concat());
    }
    assert!(harness.to_send.len() > 2 * PART_BYTES);
    harness.send();
    assert!(harness.to_send.is_empty(), "the socket takes all at once");
    harness.exchange().await;

    assert_eq!(engine.head().seq().number(), REQUESTS as u64);
    let frames = harness.frames();
    let responses = frames.iter().filter(|of| of.header.kind == kind::DATA);
    let counts: Vec<usize> = responses
        .map(|of| of.payload.len() / RESPONSE_BYTES)
        .collect();
    // The fifth is what makes it more than half.
    assert_eq!(counts, [REQUESTS / 2 + 1, REQUESTS / 2 - 1]);
}

#[tokio::test]
async fn a_stalled_stream_ends_alone_with_its_status() {
    let engine = engine();
    let mut harness = Harness::new(gateways(&engine), &[(setting::INITIAL_WINDOW_SIZE, 1000)]);
    frame::write_window_update(&mut harness.to_send, 0, 1 << 20);
    for (stream, id) in [(1, "reads"), (3, "stalls")] {
        harness.request(stream, path::SUBSCRIBE_PUSH);
        harness.data(stream, flag::END_STREAM, &subscribe(id));
    }
    frame::write_window_update(&mut harness.to_send, 1, 1 << 20);
    harness.exchange().await;
    let event = large_event(4000);
    engine
        .publisher()
        .publish(Published::parse(&event).unwrap())
        .unwrap();
    harness.exchange().await;
    let frames = harness.frames();
    let (whole, _) = data_on(1, &frames);
    assert!(whole > 4000);
    assert_eq!(data_on(3, &frames), (1000, false));

    report_stalls(&harness);
    harness.exchange().await;
    let frames = harness.frames();
    assert_eq!(data_on(3, &frames), (0, true));
    let text = text_on(3, &frames);
    assert!(
        text.contains("grpc-status") && text.contains("took nothing for 30.0s"),
        "{text:?}"
    );
    assert_eq!(engine.stats().subscribers, 1);

    engine
        .publisher()
        .publish(Published::parse(&event).unwrap())
        .unwrap();
    harness.exchange().await;
    assert_eq!(data_on(1, &harness.frames()), (whole, false));
    assert!(!harness.ended);
}

/// Has the watchdog find every stream that waits to stall, as it does after the timeout.
fn report_stalls<S: Service>(harness: &Harness<S>) {
    let stall = Stall {
        lasted: Duration::from_secs(30),
        pinned_bytes: None,
    };
    harness.driver.shared.watchdog.report_all(stall);
}

#[tokio::test]
async fn where_the_connections_window_is_shut_the_stream_that_holds_it_ends() {
    let engine = engine();
    // Windows of streams are wide: one reader that takes nothing shuts the connection's.
    let mut harness = Harness::new(
        gateways(&engine),
        &[(setting::INITIAL_WINDOW_SIZE, 1 << 20)],
    );
    harness.request(1, path::SUBSCRIBE_PUSH);
    harness.data(1, flag::END_STREAM, &subscribe("stalls"));
    harness.exchange().await;
    let event = large_event(10_000);
    for _ in 0..4 {
        engine
            .publisher()
            .publish(Published::parse(&event).unwrap())
            .unwrap();
    }
    harness.exchange().await;
    harness.request(3, path::SUBSCRIBE_PUSH);
    harness.data(3, flag::END_STREAM, &subscribe("reads"));
    harness.exchange().await;
    for _ in 0..4 {
        engine
            .publisher()
            .publish(Published::parse(&event).unwrap())
            .unwrap();
    }
    harness.exchange().await;
    let frames = harness.frames();
    let (held, read) = (data_on(1, &frames).0, data_on(3, &frames).0);
    assert_eq!(held + read, 65_535, "the connection's window");

    report_stalls(&harness);
    harness.exchange().await;
    let frames = harness.frames();
    assert_eq!(
        (data_on(1, &frames), data_on(3, &frames)),
        ((0, true), (0, false))
    );
    // What the peer drops of the ended stream opens the connection's window again.
    frame::write_window_update(&mut harness.to_send, 0, held as u32);
    harness.exchange().await;
    let (rest, ended) = data_on(3, &harness.frames());
    assert!(rest > 0 && !ended);
}

fn request_timeout<S: Service>(_harness: &Harness<S>) -> Duration {
    S::REQUEST_TIMEOUT
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_arrive_ends_alone() {
    let engine = engine();
    let mut harness = Harness::new(gateways(&engine), &[]);
    for (stream, id) in [(1, "whole"), (3, "half")] {
        harness.request(stream, path::SUBSCRIBE_PUSH);
        let (flags, bytes) = match id {
            "whole" => (flag::END_STREAM, usize::MAX),
            _ => (0, 7),
        };
        let request = subscribe(id);
        harness.data(stream, flags, &request[..bytes.min(request.len())]);
    }
    harness.exchange().await;
    let timeout = request_timeout(&harness);
    advance(timeout / 2).await;
    harness.exchange().await;
    assert_eq!(data_on(3, &harness.frames()), (0, false));
    advance(timeout).await;
    harness.exchange().await;
    let frames = harness.frames();
    let text = text_on(3, &frames);
    assert!(text.contains("did not arrive within"), "{text:?}");
    assert_eq!(engine.stats().subscribers, 1);
    assert!(!harness.ended);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_does_not_arrive_ends_the_connection_once() {
    let engine = engine();
    let mut harness = Harness::new(gateways(&engine), &[]);
    harness.request(1, path::SUBSCRIBE_PUSH);
    harness.data(1, flag::END_STREAM, &subscribe("whole"));
    harness.to_send.extend([0, 0, 8, kind::PING, 0]);
    harness.exchange().await;
    let timeout = request_timeout(&harness);
    advance(timeout + Duration::from_millis(5)).await;
    // With as many turns as it likes: it must come to an end by itself.
    let mut polls = 0;
    tokio::task::unconstrained(std::future::poll_fn(|cx| {
        polls += 1;
        harness.ended |= Pin::new(&mut harness.driver).poll(cx).is_ready();
        Poll::Ready(())
    }))
    .await;
    harness.exchange().await;
    let frames = harness.frames();
    let goodbyes = frames.iter().filter(|of| of.header.kind == kind::GOAWAY);
    assert_eq!((goodbyes.count(), polls), (1, 1), "{frames:?}");
    assert_eq!(engine.stats().subscribers, 0);
}

#[tokio::test]
async fn a_call_that_is_held_up_asks_for_no_memory() {
    /// Of a request of 1 MiB, the prefix and a part.
    const PART: [u8; 2000] = {
        let mut part = [0; 2000];
        part[2] = 0x10;
        part
    };
    let engine = engine();
    // None of its responses may be sent.
    let mut harness = Harness::new(publishers(&engine), &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let permits = |harness: &Harness<_>| harness.driver.shared.arriving.available_permits();
    let all = permits(&harness);
    harness.request(1, path::PUBLISH_STREAM);
    harness.data(1, 0, &PART);
    harness.exchange().await;
    let missing_bytes = (1 << 20) + 5 - PART.len();
    assert_eq!(all - permits(&harness), missing_bytes, "it has memory");

    harness.request(3, path::PUBLISH_STREAM);
    // As many as fill what may be unsent: the next request is held up, whole or not.
    let filling = (16_usize << 10).div_ceil(RESPONSE_BYTES);
    harness.data(3, 0, &PUBLISH.repeat(filling));
    harness.exchange().await;
    assert_eq!(engine.head().seq().number(), filling as u64);
    harness.data(3, 0, &PART);
    harness.exchange().await;
    assert_eq!(all - permits(&harness), missing_bytes, "the other has none");
}

#[tokio::test]
async fn a_connection_queues_for_memory_with_a_few_calls_at_a_time() {
    let engine = engine();
    let mut harness = Harness::new(publishers(&engine), &[]);
    // Each announces 64 KiB, of the 1 MiB that there is.
    let calls = 20;
    for n in 0..calls {
        harness.request(2 * n + 1, path::PUBLISH_STREAM);
        harness.data(2 * n + 1, 0, b"\0\0\x01\0\0begin");
    }
    harness.exchange().await;
    assert_eq!(harness.driver.long_requests(), LONG_REQUESTS);
    let waiting = |harness: &Harness<_>| {
        let streams = harness.driver.http.streams();
        let calls = streams.filter_map(|(_, of)| of.state.as_ref());
        calls.filter(|of| of.memory.is_waiting()).count()
    };
    assert_eq!(waiting(&harness), calls as usize - LONG_REQUESTS);
    // When some have gone, others take their places.
    for stream in [1, 3] {
        let cancel = 8_u32.to_be_bytes();
        frame::write(&mut harness.to_send, kind::RST_STREAM, 0, stream, &cancel);
    }
    harness.exchange().await;
    assert_eq!(harness.driver.long_requests(), LONG_REQUESTS);
    assert_eq!(waiting(&harness), calls as usize - LONG_REQUESTS - 2);
}
