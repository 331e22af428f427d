//! Gateways and publishers that share a connection, as behind a proxy: what one stream does
//! ends that stream alone. The others miss nothing.

#![cfg(feature = "server")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use galaxy_push::contract::publisher::PublishResponse;
use galaxy_push::contract::push::PushEvent;
use prost::Message;
use support::frames::{self, MAX_WINDOW, Reason, flag, kind, setting};
use support::grpc::{
    PUBLISH, PUBLISH_STREAM, SUBSCRIBE, message, publish_request, subscribe_request,
};
use support::header_block::HeaderBlock;
use support::wire::{Frame, Wire};
use support::{Harness, event, large_event, publish, until};
use tokio::time::timeout;

/// A timeout that no test waits for.
const LONG: Duration = Duration::from_secs(3600);
/// A timeout that tests do wait for.
const SHORT: Duration = Duration::from_millis(200);
/// A connection that is silent for as long has nothing more to say.
const SILENCE: Duration = Duration::from_secs(10);

const DEADLINE_EXCEEDED: &str = "4";
const RESOURCE_EXHAUSTED: &str = "8";
const OK: &str = "0";
const ABORTED: &str = "10";
const UNIMPLEMENTED: &str = "12";

/// One connection, and what has come on each of its streams.
struct Shared {
    wire: Wire,
    streams: BTreeMap<u32, Received>,
    next: u32,
}

#[derive(Debug, Default)]
struct Received {
    /// The response's head, if it has one of its own.
    has_head: bool,
    data: Vec<u8>,
    /// The client takes what arrives: it opens the windows again.
    is_read: bool,
    end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// A `:status` that is not 200.
    Http(String),
    /// `grpc-status` and `grpc-message`.
    Status(String, String),
    /// RST_STREAM with this code.
    Reset(u32),
}

impl Shared {
    /// A connection whose streams have a window of `window` each.
    async fn connect(address: SocketAddr, window: u32) -> Self {
        let settings = frames::settings(&[(setting::INITIAL_WINDOW_SIZE, window)]);
        Shared {
            wire: Wire::connect_with(address, &settings).await,
            streams: BTreeMap::new(),
            next: 1,
        }
    }

    /// The same, with a window of the connection that never ends.
    async fn connect_wide(address: SocketAddr, window: u32) -> Self {
        let mut shared = Shared::connect(address, window).await;
        let update = frames::window_update(0, MAX_WINDOW - (1 << 16));
        shared.wire.send(&update).await;
        shared
    }

    /// Makes a request; its response is not read.
    async fn request(&mut self, block: &HeaderBlock, body: &[u8], ends: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let data = if ends {
            frames::data_end(stream, body)
        } else {
            frames::data(stream, body)
        };
        let request = [frames::headers(stream, block), data].concat();
        self.streams.insert(stream, Received::default());
        self.wire.send(&request).await;
        stream
    }

    async fn call(&mut self, path: &str, body: &[u8]) -> u32 {
        self.request(&HeaderBlock::call(path), body, true).await
    }

    async fn subscribe(&mut self, id: &str) -> u32 {
        self.call(SUBSCRIBE, &subscribe_request(id, "")).await
    }

    /// The stream's response is read from here on.
    async fn read(&mut self, stream: u32) {
        self.streams.get_mut(&stream).expect("opened").is_read = true;
        let update = frames::window_update(stream, 1 << 20);
        self.wire.send(&update).await;
    }

    /// A stream that is well: subscribed, or a PublishStream; and read.
    async fn good(&mut self, path: &str) -> u32 {
        let stream = if path == SUBSCRIBE {
            self.subscribe("good").await
        } else {
            let request = publish_request(vec![event(0)]);
            self.request(&HeaderBlock::call(path), &request, false)
                .await
        };
        self.read(stream).await;
        self.begun(stream).await;
        stream
    }

    /// Waits until a stream's response has begun, which must not be its end.
    async fn begun(&mut self, stream: u32) {
        self.until(|of| {
            let of = &of.streams[&stream];
            of.has_head || of.end.is_some()
        })
        .await;
        assert_eq!(self.streams[&stream].end, None);
    }

    /// Takes the next frame.
    async fn next(&mut self) {
        let Ok(next) = timeout(SILENCE, self.wire.next()).await else {
            let ends = self.streams.iter().map(|(stream, of)| (stream, &of.end));
            let ends: BTreeMap<_, _> = ends.collect();
            panic!("nothing comes any more; streams and how they ended: {ends:?}");
        };
        let Some(frame) = next else {
            panic!("the connection has ended");
        };
        assert_ne!(
            frame.kind,
            kind::GOAWAY,
            "the connection is ended: {:?} {}",
            frame.code(),
            String::from_utf8_lossy(&frame.payload)
        );
        let Some(received) = self.streams.get_mut(&frame.stream) else {
            return;
        };
        match frame.kind {
            kind::DATA => {
                received.data.extend(&frame.payload);
                let bytes = frame.payload.len() as u32;
                if received.is_read && bytes > 0 {
                    let stream = frame.stream;
                    let updates = [
                        frames::window_update(0, bytes),
                        frames::window_update(stream, bytes),
                    ];
                    self.wire.send(&updates.concat()).await;
                }
            }
            kind::HEADERS if frame.ends_stream() => received.end = Some(End::of(&frame)),
            kind::HEADERS => received.has_head = true,
            kind::RST_STREAM if received.end.is_none() => {
                received.end = frame.code().map(End::Reset);
            }
            _ => {}
        }
    }

    async fn until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        while !condition(self) {
            self.next().await;
        }
    }

    /// How a stream ends.
    async fn end(&mut self, stream: u32) -> End {
        loop {
            if let Some(end) = &self.streams[&stream].end {
                return end.clone();
            }
            self.next().await;
        }
    }

    /// A stream's `grpc-status`, which has to be `code`; its message.
    #[track_caller]
    fn status(&mut self, stream: u32, code: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        let code = code.to_owned();
        async move {
            match self.end(stream).await {
                End::Status(found, message) if found == code => message,
                other => panic!("{caller}: {other:?}, not status {code}"),
            }
        }
    }

    /// The messages of a stream that have arrived in full.
    fn messages(&self, stream: u32) -> Vec<&[u8]> {
        let mut rest = &self.streams[&stream].data[..];
        let mut messages = Vec::new();
        while let Some((&[_, a, b, c, d], after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some((message, after)) = after.split_at_checked(length) else {
                break;
            };
            messages.push(message);
            rest = after;
        }
        messages
    }

    /// The cursors of a stream's events: the first `count` of them.
    async fn cursors(&mut self, stream: u32, count: usize) -> Vec<String> {
        self.until(|of| of.messages(stream).len() >= count || of.streams[&stream].end.is_some())
            .await;
        assert_eq!(self.streams[&stream].end, None, "before all events");
        let messages = self.messages(stream);
        let event = |bytes: &&[u8]| PushEvent::decode(*bytes).expect("an event").cursor;
        messages.iter().take(count).map(event).collect()
    }

    /// Shows that a stream from [`good`](Self::good) goes on: `published` were so far, and
    /// one more is now.
    async fn assert_goes_on(&mut self, server: &Harness, good: u32, path: &str) {
        if path == SUBSCRIBE {
            let published = server.publish(500, 501).await;
            loop {
                let have = self.messages(good).len();
                if self.cursors(good, have + 1).await.last() == published.last() {
                    break;
                }
            }
        } else {
            let have = self.messages(good).len();
            let request = publish_request(vec![event(have as u64)]);
            self.wire.send(&frames::data(good, &request)).await;
            self.until(|of| of.messages(good).len() > have).await;
            let messages = self.messages(good);
            let last = messages.last().expect("one at least");
            PublishResponse::decode(*last).expect("a response");
        }
        assert_eq!(self.streams[&good].end, None);
    }
}

impl End {
    fn of(frame: &Frame) -> Self {
        match frame.field(":status") {
            Some(status) if status != "200" => End::Http(status),
            _ => End::Status(
                frame.field("grpc-status").expect("a status"),
                frame.field("grpc-message").unwrap_or_default(),
            ),
        }
    }
}

/// Publishes `count` batches of eight events of about 10 KiB; returns the cursor of each
/// batch's last.
async fn publish_large(server: &Harness, count: usize) -> Vec<String> {
    let mut publisher = server.publisher().await;
    let mut last = Vec::new();
    for _ in 0..count {
        let batch = (0..8).map(|_| large_event(10_000)).collect();
        let response = publish(&mut publisher, batch).await.expect("published");
        last.push(response.last_cursor);
    }
    last
}

#[tokio::test]
async fn a_gateway_whose_window_stays_shut_ends_alone() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    let mut shared = Shared::connect_wide(server.gateway_addr(), 10).await;
    let mut fast = Vec::new();
    for n in 0..3 {
        let stream = shared.subscribe(&format!("fast-{n}")).await;
        shared.read(stream).await;
        fast.push(stream);
    }
    let slow = shared.subscribe("slow").await;
    until(|| server.engine.stats().subscribers == 4).await;

    let mut published = server.publish(0, 20).await;
    let message = shared.status(slow, DEADLINE_EXCEEDED).await;
    assert!(message.contains("took%20nothing"), "{message}");
    assert_eq!(shared.streams[&slow].data.len(), 10, "what its window took");
    until(|| server.engine.stats().subscribers == 3).await;

    published.extend(server.publish(20, 40).await);
    for stream in fast {
        assert_eq!(shared.cursors(stream, 40).await, published);
        assert_eq!(shared.streams[&stream].end, None);
    }
}

#[tokio::test]
async fn a_gateway_that_uses_up_the_connections_window_ends_alone() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    let mut shared = Shared::connect(server.gateway_addr(), 1 << 20).await;
    let fast = shared.subscribe("fast").await;
    shared.read(fast).await;
    // It is in the middle, so that its place does not matter.
    let slow = shared.subscribe("slow").await;
    let also_fast = shared.subscribe("also fast").await;
    shared.read(also_fast).await;
    until(|| server.engine.stats().subscribers == 3).await;

    // Several times the window. What is read is given back at once; the slow one's is not.
    let published = publish_large(&server, 4).await;
    shared.status(slow, DEADLINE_EXCEEDED).await;
    let held = shared.streams[&slow].data.len();
    assert!((1..65_536).contains(&held), "{held} bytes");
    // The client discards what was not read of it.
    let update = frames::window_update(0, held as u32);
    shared.wire.send(&update).await;
    for stream in [fast, also_fast] {
        let cursors = shared.cursors(stream, 32).await;
        let last: Vec<_> = cursors.chunks(8).map(|batch| batch[7].clone()).collect();
        assert_eq!(last, published);
        assert_eq!(shared.streams[&stream].end, None);
    }
}

#[tokio::test]
async fn a_taken_over_gateway_that_takes_nothing_ends_with_its_own_status() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    let mut shared = Shared::connect_wide(server.gateway_addr(), 10).await;
    let old = shared.subscribe("gateway").await;
    until(|| server.engine.stats().subscribers == 1).await;
    server.publish(0, 1).await;
    let new = shared.subscribe("gateway").await;
    shared.read(new).await;
    shared.status(old, ABORTED).await;
    let published = server.publish(1, 3).await;
    assert_eq!(shared.cursors(new, 2).await, published);
}

#[tokio::test]
async fn a_publisher_that_takes_no_responses_ends_alone() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    // Less than a response.
    let mut shared = Shared::connect_wide(server.publisher_addr(), 10).await;
    let good = shared.good(PUBLISH_STREAM).await;
    let request = publish_request(vec![event(1)]);
    let unary = shared.call(PUBLISH, &request).await;
    let open = HeaderBlock::call(PUBLISH_STREAM);
    let stream = shared.request(&open, &request.repeat(3), false).await;
    until(|| server.published() >= 4).await;
    for stalled in [unary, stream] {
        let message = shared.status(stalled, DEADLINE_EXCEEDED).await;
        assert!(message.contains("took%20nothing"), "{message}");
        shared.assert_goes_on(&server, good, PUBLISH_STREAM).await;
    }
}

#[tokio::test]
async fn pinned_memory_is_given_back_by_ending_stalled_streams_and_no_connection() {
    let server = Harness::with(|config| {
        config.max_bytes = 4 << 20;
        config.max_event_bytes = 16 << 10;
        config.stall_timeout = LONG;
    })
    .await;
    let mut shared = Shared::connect_wide(server.gateway_addr(), 1000).await;
    let good = shared.good(SUBSCRIBE).await;
    let mut published = Vec::new();
    let mut slow = Vec::new();
    // Each of them stands at another place of the ring.
    for n in 0..60 {
        let stream = shared.subscribe(&format!("slow-{n}")).await;
        shared.begun(stream).await;
        slow.push(stream);
        published.extend(publish_large(&server, 1).await);
        shared.cursors(good, 8 * published.len()).await;
    }
    // The ring moves on from all of these places.
    for _ in 0..120 {
        published.extend(publish_large(&server, 1).await);
        shared.cursors(good, 8 * published.len()).await;
    }
    shared
        .until(|of| slow.iter().any(|stream| of.streams[stream].end.is_some()))
        .await;
    let limit = (4 << 20) / 4;
    until(|| server.engine.stats().pinned_bytes <= limit).await;
    shared.assert_goes_on(&server, good, SUBSCRIBE).await;

    let ended: Vec<_> = slow
        .iter()
        .filter_map(|stream| shared.streams[stream].end.clone())
        .collect();
    assert!(!ended.is_empty(), "somebody held more than the limit");
    assert!(
        ended.len() < slow.len(),
        "no more than necessary were ended"
    );
    for end in ended {
        let End::Status(code, message) = &end else {
            panic!("{end:?}");
        };
        assert_eq!(code, DEADLINE_EXCEEDED);
        assert!(message.contains("hold"), "{message}");
    }
    let cursors = shared.cursors(good, 8 * published.len()).await;
    let last: Vec<_> = cursors.chunks(8).map(|batch| batch[7].clone()).collect();
    assert_eq!(last, published, "without a gap");
}

#[tokio::test]
async fn what_is_no_call_ends_alone() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let mut shared = Shared::connect_wide(address, 1 << 20).await;
        let good = shared.good(path).await;
        let call = HeaderBlock::call(path);
        let right = if path == SUBSCRIBE {
            subscribe_request("other", "")
        } else {
            publish_request(vec![event(1)])
        };
        let status = |code: &str| End::Status(code.to_owned(), String::new());
        let compressed = [&[1], &right[1..]].concat();
        let head = HeaderBlock::request("POST", path);
        let bad_type = head.literal("content-type", "text/plain");
        let gzip = call.clone().literal("grpc-encoding", "gzip");
        for (what, block, body, expected) in [
            ("no message", &call, vec![], status(UNIMPLEMENTED)),
            ("the compressed flag", &call, compressed, status("13")),
            ("half a prefix", &call, vec![0, 0], status("13")),
            ("half a message", &call, right[..9].to_vec(), status("13")),
            ("4 GiB", &call, vec![0, 255, 255, 255, 255], status("3")),
            ("no protobuf", &call, message(&[0xff; 9]), status("3")),
            ("another encoding", &gzip, right.clone(), status("12")),
            (
                "an unknown method",
                &HeaderBlock::call("/a.B/C"),
                right.clone(),
                status(UNIMPLEMENTED),
            ),
            (
                "another content-type",
                &bad_type,
                right.clone(),
                End::Http("415".to_owned()),
            ),
        ] {
            if what == "no message" && path == PUBLISH_STREAM {
                // A stream of none is one.
                continue;
            }
            let stream = shared.request(block, &body, true).await;
            let end = match shared.end(stream).await {
                End::Status(code, message) => {
                    assert_ne!(message, "", "{path}: {what}");
                    status(&code)
                }
                other => other,
            };
            assert_eq!(end, expected, "{path}: {what}");
            shared.assert_goes_on(&server, good, path).await;
        }
        let several = match path {
            SUBSCRIBE => shared.call(path, &right.repeat(2)).await,
            _ => shared.call(PUBLISH, &right.repeat(2)).await,
        };
        shared.status(several, UNIMPLEMENTED).await;
        for reason in [Reason::Cancel, Reason::InternalError] {
            let stream = shared.request(&call, &right, false).await;
            shared.wire.send(&frames::rst_stream(stream, reason)).await;
            shared.assert_goes_on(&server, good, path).await;
        }
    }
    until(|| server.engine.stats().subscribers == 0).await;
}

#[tokio::test]
async fn a_request_with_headers_of_any_size_is_431_and_its_neighbours_go_on() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        for kib in [17, 31, 33, 60, 1024] {
            let mut shared = Shared::connect_wide(address, 1 << 20).await;
            let good = shared.good(path).await;
            let value = "t".repeat(1024);
            // The peer's table has what was added by a block that is refused: before it was
            // known to be too large, and after.
            let large = HeaderBlock::call(path).stored("x-early", "early");
            let large = (0..kib).fold(large, |block, _| block.literal("x-token", &value));
            let large = large.stored("content-type", "application/grpc");
            let mut pieces = large.bytes().chunks(16_384).peekable();
            let stream = shared.next;
            shared.next += 2;
            shared.streams.insert(stream, Received::default());
            let mut name = kind::HEADERS;
            while let Some(piece) = pieces.next() {
                let is_last = pieces.peek().is_none();
                let flags = if is_last { flag::END_HEADERS } else { 0 };
                let frame = frames::any(name, flags, stream, piece);
                shared.wire.send(&frame).await;
                name = kind::CONTINUATION;
            }
            let body = frames::data_end(stream, b"\0\0\0\0\0");
            shared.wire.send(&body).await;
            let end = shared.end(stream).await;
            assert_eq!(end, End::Http("431".to_owned()), "{path}: {kib} KiB");
            shared.assert_goes_on(&server, good, path).await;

            // Without a content-type, which the table has, it would be 415.
            let other = HeaderBlock::request("POST", "/a.B/C").entry(0).entry(1);
            let other = shared.request(&other, b"", true).await;
            shared.status(other, UNIMPLEMENTED).await;
        }
    }
}

/// How many requests a connection gets to make that takes each of them back at once, until
/// the server has enough of it.
async fn requests_of_a_flood(address: SocketAddr) -> u32 {
    let call = HeaderBlock::call(SUBSCRIBE);
    let request = |n: u32| {
        let stream = 2 * n + 1;
        let reset = frames::rst_stream(stream, Reason::Cancel);
        [frames::headers(stream, &call), reset].concat()
    };
    let flood: Vec<u8> = (0..10_000).flat_map(request).collect();
    let mut wire = Wire::connect(address).await;
    wire.send(&flood).await;
    let goodbye = wire.find(kind::GOAWAY).await;
    assert_eq!(goodbye.code(), Some(Reason::EnhanceYourCalm as u32));
    let last = goodbye.payload.first_chunk().expect("a stream");
    u32::from_be_bytes(*last).div_ceil(2)
}

/// A proxy's gateways: one is well, the others try again as fast as they are answered. That
/// is several times what a flood gets to do: it must not be taken for one.
#[tokio::test]
async fn honest_retries_takeovers_cancels_deadlines_and_probes_never_end_a_connection() {
    const FLOODS: u32 = 8;
    let server = Harness::with(|config| {
        // One of them is left for the takeovers, and one for what is cancelled.
        config.max_subscribers = 3;
    })
    .await;
    let flood = requests_of_a_flood(server.gateway_addr()).await;
    let mut shared = Shared::connect_wide(server.gateway_addr(), 1 << 20).await;
    let good = shared.good(SUBSCRIBE).await;
    let mut rival = shared.subscribe("rival").await;
    let mut filler = shared.subscribe("filler").await;
    shared.begun(rival).await;
    shared.begun(filler).await;

    let mut rounds = 0;
    while shared.next / 2 < FLOODS * flood {
        let full = shared.subscribe("one too many").await;
        shared.status(full, RESOURCE_EXHAUSTED).await;

        let newer = shared.subscribe("rival").await;
        shared.status(rival, ABORTED).await;
        rival = newer;

        let probe = shared.call("/grpc.health.v1.Health/Check", &[0; 5]).await;
        shared.status(probe, OK).await;
        let unknown = shared
            .call("/grpc.channelz.v1.Channelz/GetServers", &[0; 5])
            .await;
        shared.status(unknown, UNIMPLEMENTED).await;

        // A client cancels, in its own way; and a deadline is a cancel.
        for reason in [Reason::Cancel, Reason::InternalError] {
            shared.wire.send(&frames::rst_stream(filler, reason)).await;
            filler = shared.subscribe("filler").await;
            shared.begun(filler).await;
        }
        shared
            .streams
            .retain(|stream, _| [good, rival, filler].contains(stream));
        if rounds % 50 == 0 {
            shared.assert_goes_on(&server, good, SUBSCRIBE).await;
        }
        rounds += 1;
    }
    assert_eq!(server.engine.stats().subscribers, 3);
}

#[tokio::test]
async fn response_heads_stay_below_4_kib_whatever_is_asked() {
    let server = Harness::start().await;
    let mut shared = Shared::connect_wide(server.gateway_addr(), 1 << 20).await;
    let mut asked = Vec::new();
    for text in ["x", "xé", "🛰", "\n", "%", "\u{7f}"] {
        // More than a request may have; and as much, which is looked at.
        for bytes in [100_000, 3900] {
            let text = text.repeat(bytes / text.len());
            asked.push(subscribe_request(&text, ""));
            asked.push(subscribe_request("gateway", &text));
            let id: String = text.chars().take(64).collect();
            asked.push(subscribe_request(&id, &text));
            asked.push(message(text.as_bytes()));
        }
    }
    let mut calls: Vec<_> = asked
        .into_iter()
        .map(|body| (HeaderBlock::call(SUBSCRIBE), body))
        .collect();
    let path = format!("/{}", "%20".repeat(2000));
    calls.push((HeaderBlock::call(&path), vec![0; 5]));
    let encoding = HeaderBlock::call(SUBSCRIBE).literal("grpc-encoding", &"z".repeat(6000));
    calls.push((encoding, vec![0; 5]));
    for (block, body) in calls {
        let stream = shared.next;
        shared.next += 2;
        shared.wire.send(&frames::headers(stream, &block)).await;
        let mut pieces = body.chunks(16_384).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            let flags = if is_last { flag::END_STREAM } else { 0 };
            let frame = frames::any(kind::DATA, flags, stream, piece);
            shared.wire.send(&frame).await;
        }
        let head = shared.wire.find_on(stream).await;
        assert_eq!(head.kind, kind::HEADERS, "{head:?}");
        assert!(head.payload.len() < 4096, "{}", head.payload.len());
        let message = head.field("grpc-message").unwrap_or_default();
        assert!(is_percent_encoded(&message), "{message}");
        // Every status has room for its details, as long as it speaks gRPC.
        let is_grpc = head.field("grpc-status").is_some();
        let has_details = head.field("grpc-status-details-bin").is_some();
        assert_eq!(has_details, is_grpc, "{head:?}");
        shared
            .wire
            .send(&frames::rst_stream(stream, Reason::Cancel))
            .await;
    }
}

/// Whether a text is as gRPC's specification encodes messages, and UTF-8 when decoded.
fn is_percent_encoded(text: &str) -> bool {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                let Ok(byte) = u8::from_str_radix(digits, 16) else {
                    return false;
                };
                decoded.push(byte);
                tail
            }
            (b'%', _) => return false,
            (b' '..=b'~', tail) => {
                decoded.push(*first);
                tail
            }
            _ => return false,
        };
    }
    String::from_utf8(decoded).is_ok()
}
