mod conformance;
mod floods;

use super::*;
use crate::http2::frame::{FrameHeader, HEADER_BYTES, flag};
use crate::http2::hpack;
use crate::http2::request::RequestHead;
use http::HeaderMap;
use proptest::prelude::*;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

const LIMITS: Limits = Limits {
    max_streams: 3,
    max_field_bytes: 1000,
    stream_window: INITIAL_WINDOW,
    connection_window: INITIAL_WINDOW,
    max_frame_bytes: DEFAULT_FRAME_BYTES,
};

mod stream_rules;

/// `:method: POST`, `:scheme: http`, `:path: /`.
const POST: &[u8] = b"\x83\x86\x84";

type Frames = Vec<(FrameHeader, Vec<u8>)>;

fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    bytes(kind::HEADERS, flag::END_HEADERS | flags, stream, block)
}

fn request(stream: u32, body: &[u8]) -> Vec<u8> {
    [
        headers(stream, 0, POST),
        bytes(kind::DATA, flag::END_STREAM, stream, body),
    ]
    .concat()
}

fn window_update(stream: u32, more: u32) -> Vec<u8> {
    bytes(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_settings(&mut out, settings);
    out
}

fn opening() -> Vec<u8> {
    [&PREFACE[..], &settings(&[])].concat()
}

/// A connection that keeps all bodies, and the heads of the requests that it was told of.
struct Server {
    connection: Connection<()>,
    requests: Vec<(u32, Box<RequestHead>)>,
}

impl Server {
    fn new(limits: Limits) -> Self {
        Server {
            connection: Connection::new(limits),
            requests: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Error> {
        let mut input = bytes;
        while let Some(event) = self.connection.receive(&mut input, now)? {
            match event {
                Event::Request { stream, head, .. } => self.requests.push((stream, head)),
                Event::Data { at, data, .. } => self.connection.buffer(at, data),
            }
        }
        assert!(input.is_empty());
        Ok(())
    }

    fn response(&mut self, stream: u32) -> Response<'_> {
        let at = self.index(stream).unwrap();
        self.connection.parts(at).unwrap().response
    }

    fn respond(&mut self, stream: u32, code: u16, fields: &HeaderMap) {
        self.response(stream).head(code, fields);
    }

    /// Ends a response that consists of nothing else, if the stream is open.
    fn finish(&mut self, stream: u32) {
        if self.index(stream).is_some() {
            self.response(stream).whole(200, &HeaderMap::new());
        }
        self.take_ended().for_each(drop);
    }

    fn send(&mut self, stream: u32, data: &[u8]) -> usize {
        self.response(stream).send(data)
    }

    fn open_streams(&self) -> usize {
        self.streams().count()
    }
}

impl Deref for Server {
    type Target = Connection<()>;

    fn deref(&self) -> &Connection<()> {
        &self.connection
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Connection<()> {
        &mut self.connection
    }
}

/// A connection after its opening, whose output so far has been taken.
fn open() -> Server {
    let mut connection = Server::new(LIMITS);
    connection.receive(&opening(), Instant::now()).unwrap();
    assert!(connection.is_open());
    output(&mut connection);
    connection
}

fn output(connection: &mut Server) -> Frames {
    let out = std::mem::take(connection.output());
    let mut rest = &out[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let head = FrameHeader::read(rest).expect("whole frames");
        let after = &rest[HEADER_BYTES..];
        let (payload, after) = after.split_at(head.payload_bytes as usize);
        frames.push((head, payload.to_vec()));
        rest = after;
    }
    frames
}

fn requests(connection: &mut Server) -> Vec<(u32, Box<RequestHead>)> {
    std::mem::take(&mut connection.requests)
}

/// All open streams, with what has arrived of their bodies, and whether that is all.
fn bodies(connection: &mut Server) -> Vec<(u32, Vec<u8>, bool)> {
    let streams = connection.streams();
    streams
        .map(|(_, stream)| (stream.id(), stream.body().to_vec(), stream.is_complete()))
        .collect()
}

fn receive(connection: &mut Server, bytes: &[u8]) -> Result<(), Reason> {
    let received = connection.receive(bytes, Instant::now());
    received.map_err(|error| error.reason)
}

/// The kinds of frames, their streams and, where they have one, their reasons.
fn summary(frames: &Frames) -> Vec<(u8, u32, Option<u32>)> {
    let reason = |head: &FrameHeader, payload: &[u8]| {
        let at = match head.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(*payload[at..].first_chunk().unwrap()))
    };
    frames
        .iter()
        .map(|(head, payload)| (head.kind, head.stream, reason(head, payload)))
        .collect()
}

fn reset(stream: u32, reason: Reason) -> (u8, u32, Option<u32>) {
    (kind::RST_STREAM, stream, Some(reason as u32))
}

#[test]
fn it_says_its_settings_first_and_acknowledges_the_peers() {
    let mut connection = Server::new(LIMITS);
    let frames = output(&mut connection);
    assert_eq!(summary(&frames), [(kind::SETTINGS, 0, None)]);
    let said: Vec<_> = frame::read_settings(&frames[0].1).unwrap().collect();
    assert_eq!(said, [(3, 3), (6, 1000)]);
    receive(&mut connection, &opening()).unwrap();
    let frames = output(&mut connection);
    assert_eq!((frames.len(), frames[0].0.flags), (1, flag::ACK));
}

#[test]
fn a_request_is_told_at_its_head_and_its_body_grows() {
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    let [(1, request)] = &requests(&mut connection)[..] else {
        panic!("opened");
    };
    assert_eq!((&*request.method, &*request.path), ("POST", "/"));
    receive(&mut connection, &bytes(kind::DATA, 0, 1, b"bo")).unwrap();
    assert_eq!(bodies(&mut connection), [(1, b"bo".to_vec(), false)]);
    let padded = bytes(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x02dyxx");
    receive(&mut connection, &padded).unwrap();
    assert_eq!(bodies(&mut connection), [(1, b"body".to_vec(), true)]);
    assert!(requests(&mut connection).is_empty());
    connection.take_body(0, 3);
    assert_eq!(bodies(&mut connection), [(1, b"y".to_vec(), true)]);
    connection.take_body(0, 3);
    assert_eq!(
        bodies(&mut connection),
        [(1, vec![], true)],
        "until it is answered"
    );
}

#[test]
fn windows_can_be_wider_than_everybodys() {
    let (stream_window, connection_window) = (100_000, 300_000);
    let mut connection = Server::new(Limits {
        stream_window,
        connection_window,
        ..LIMITS
    });
    let frames = output(&mut connection);
    let said: Vec<_> = frame::read_settings(&frames[0].1).unwrap().collect();
    assert_eq!(said[2], (setting::INITIAL_WINDOW_SIZE, stream_window));
    let more = (connection_window - INITIAL_WINDOW).to_be_bytes();
    assert_eq!((frames[1].0.stream, &frames[1].1[..]), (0, &more[..]));

    receive(&mut connection, &opening()).unwrap();
    let fill = |stream, size: usize| {
        let piece = |size: usize| bytes(kind::DATA, 0, stream, &vec![0; size]);
        [piece(16_000).repeat(size / 16_000), piece(size % 16_000)].concat()
    };
    let all: Vec<_> = [1, 3, 5]
        .map(|stream| [headers(stream, 0, POST), fill(stream, 100_000)].concat())
        .concat();
    receive(&mut connection, &all).unwrap();
    output(&mut connection);
    // Each stream has used its window, and all of them the connection's.
    let more = connection.receive(&bytes(kind::DATA, 0, 1, b"x"), Instant::now());
    assert_eq!(more.unwrap_err().reason, Reason::FlowControlError);
}

#[test]
fn what_is_taken_or_released_of_a_body_may_be_sent_again() {
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    let piece = |size| bytes(kind::DATA, 0, 1, &vec![0; size]);
    let released = |connection: &mut Server| {
        let frames = output(connection);
        let updates = frames.iter().map(|(head, payload)| {
            assert_eq!(head.kind, kind::WINDOW_UPDATE);
            (
                head.stream,
                u32::from_be_bytes(payload[..].try_into().unwrap()),
            )
        });
        updates.collect::<Vec<_>>()
    };
    for _ in 0..3 {
        receive(&mut connection, &piece(16_000)).unwrap();
    }
    assert!(output(&mut connection).is_empty(), "it is kept");
    connection.take_body(0, 16_000);
    assert!(output(&mut connection).is_empty(), "not worth a word");
    connection.take_body(0, 1000);
    assert_eq!(released(&mut connection), [(0, 17_000), (1, 17_000)]);
    connection.release_body(0);
    assert_eq!(released(&mut connection), [(0, 31_000), (1, 31_000)]);
    assert_eq!(
        connection.stream(0).unwrap().body().len(),
        31_000,
        "still there"
    );
    connection.take_body(0, 31_000);
    assert!(output(&mut connection).is_empty(), "not twice");

    // More than its window on one stream.
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    connection.streams[0].receive.set_left(99);
    receive(&mut connection, &piece(100)).unwrap();
    let refused = [reset(1, Reason::FlowControlError)];
    assert_eq!(summary(&output(&mut connection)), refused);
    assert_eq!(connection.flow.receive.in_all(), INITIAL_WINDOW);
}

#[test]
fn data_is_sent_as_far_as_windows_and_frames_allow() {
    let mut connection = open();
    receive(&mut connection, &request(1, b"")).unwrap();
    let data = vec![7; 100_000];
    assert_eq!(connection.send(1, &data), 0, "not before the head");
    connection.respond(1, 200, &HeaderMap::new());
    output(&mut connection);
    assert_eq!(connection.send(1, &data), INITIAL_WINDOW as usize);
    let frames = output(&mut connection);
    let sizes: Vec<_> = frames.iter().map(|(head, _)| head.payload_bytes).collect();
    assert_eq!(sizes, [16_384, 16_384, 16_384, 16_383]);
    assert_eq!(connection.send(1, &data), 0);
    receive(
        &mut connection,
        &[window_update(0, 5), window_update(1, 9)].concat(),
    )
    .unwrap();
    assert_eq!(connection.send(1, &data), 5);
    assert!(connection.parts(7).is_none(), "there is no such stream");
}

#[test]
fn requests_that_are_answered_may_come_for_ever() {
    let flood = |answers: bool| {
        let mut connection = open();
        (0..10_000).find_map(|n| {
            let stream = 2 * n + 1;
            let failed = receive(&mut connection, &request(stream, b"x")).err();
            if answers {
                connection.answered(1);
            }
            connection.finish(stream);
            output(&mut connection);
            failed
        })
    };
    assert_eq!(flood(true), None);
    assert_eq!(flood(false), Some(Reason::EnhanceYourCalm));
}

#[test]
fn frames_of_data_cost_nothing_as_long_as_they_bring_some_to_somebody() {
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    let byte = bytes(kind::DATA, 0, 1, b"x");
    receive(&mut connection, &byte.repeat(20_000)).unwrap();
    for useless in [
        bytes(kind::DATA, 0, 1, b""),
        bytes(kind::DATA, flag::PADDED, 1, b"\0"),
    ] {
        let mut connection = open();
        receive(&mut connection, &headers(1, 0, POST)).unwrap();
        let failed = receive(&mut connection, &useless.repeat(20_000));
        assert_eq!(failed, Err(Reason::EnhanceYourCalm), "{useless:?}");
    }
    // Nobody wants it; but what its window let out before the peer knew is free.
    connection.reset(1, Reason::Cancel);
    let under_way = INITIAL_WINDOW as usize - 20_000;
    receive(&mut connection, &byte.repeat(under_way)).unwrap();
    let failed = receive(&mut connection, &byte.repeat(20_000));
    assert_eq!(failed, Err(Reason::EnhanceYourCalm));
    // The peer's own reset is told after the last of it.
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    receive(&mut connection, &bytes(kind::RST_STREAM, 0, 1, &[0; 4])).unwrap();
    let failed = receive(&mut connection, &byte.repeat(20_000));
    assert_eq!(failed, Err(Reason::EnhanceYourCalm));
}

#[test]
fn a_response_is_a_head_and_trailers_around_its_data() {
    let mut connection = open();
    receive(&mut connection, &request(1, b"")).unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("content-type", "application/grpc".parse().unwrap());
    fields.insert("a", "b".parse().unwrap());
    connection.respond(1, 200, &fields);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    connection.response(1).trailers(&trailers);
    assert!(connection.open_streams() == 0);
    assert_eq!(connection.take_ended().count(), 1);

    let frames = output(&mut connection);
    assert_eq!(summary(&frames), [(kind::HEADERS, 1, None); 2]);
    assert_eq!(frames[0].0.flags, flag::END_HEADERS);
    assert_eq!(frames[1].0.flags, flag::END_HEADERS | flag::END_STREAM);
    let mut decoder = hpack::Decoder::default();
    let mut read = Vec::new();
    for (_, block) in &frames {
        let add = |name: &[u8], value: &[u8]| {
            read.push(format!("{}={}", name.escape_ascii(), value.escape_ascii()));
        };
        decoder.decode(block, add).unwrap();
    }
    let expected = [
        ":status=200",
        "content-type=application/grpc",
        "a=b",
        "grpc-status=0",
    ];
    assert_eq!(read, expected);
}

#[test]
fn a_long_head_goes_on_in_continuations() {
    let mut connection = open();
    receive(&mut connection, &request(1, b"")).unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("long", "x".repeat(40_000).parse().unwrap());
    connection.response(1).whole(200, &fields);
    let frames = output(&mut connection);
    let flags: Vec<_> = frames
        .iter()
        .map(|(head, _)| (head.kind, head.flags))
        .collect();
    let expected = [
        (kind::HEADERS, flag::END_STREAM),
        (kind::CONTINUATION, 0),
        (kind::CONTINUATION, flag::END_HEADERS),
    ];
    assert_eq!(flags, expected);
}

#[test]
fn what_is_answered_early_need_not_be_sent_to_its_end() {
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    connection.response(1).whole(200, &HeaderMap::new());
    let frames = summary(&output(&mut connection));
    assert_eq!(
        frames,
        [(kind::HEADERS, 1, None), reset(1, Reason::NoError)]
    );
    // What was on its way is dropped, and its window given back.
    for _ in 0..100 {
        receive(&mut connection, &bytes(kind::DATA, 0, 1, &[0; 1000])).unwrap();
    }
    let trailers = headers(1, flag::END_STREAM, b"\x00\x01t\x01x");
    receive(&mut connection, &trailers).unwrap();
    receive(&mut connection, &bytes(kind::RST_STREAM, 0, 1, &[0; 4])).unwrap();
    let frames = summary(&output(&mut connection));
    assert_eq!(frames, [(kind::WINDOW_UPDATE, 0, None); 5]);
}

#[test]
fn requests_that_are_not_taken() {
    let mut connection = open();
    for (block, answer) in [
        (&b"\x83"[..], reset(1, Reason::ProtocolError)),
        (
            &[POST, b"\x00\x01A\x01x"].concat(),
            reset(3, Reason::ProtocolError),
        ),
        (
            &[POST, b"\x00\x0aconnection\x01x"].concat(),
            reset(5, Reason::ProtocolError),
        ),
    ] {
        receive(&mut connection, &headers(answer.1, flag::END_STREAM, block)).unwrap();
        assert_eq!(summary(&output(&mut connection)), [answer]);
    }
    let long = [POST, b"\x00\x01a\x7f\x81\x07", &[b'x'; 1024]].concat();
    receive(&mut connection, &headers(7, flag::END_STREAM, &long)).unwrap();
    let frames = output(&mut connection);
    assert_eq!(summary(&frames), [(kind::HEADERS, 7, None)]);
    assert!(frames[0].1.ends_with(b"\x03431"), "{frames:?}");
    assert!(requests(&mut connection).is_empty());
    assert!(connection.open_streams() == 0);

    // More streams than allowed.
    for stream in [9, 11, 13, 15] {
        receive(&mut connection, &request(stream, b"")).unwrap();
    }
    let refused = [reset(15, Reason::RefusedStream)];
    assert_eq!(summary(&output(&mut connection)), refused);
    receive(&mut connection, &bytes(kind::RST_STREAM, 0, 9, &[0; 4])).unwrap();
    receive(&mut connection, &request(17, b"")).unwrap();
    assert!(output(&mut connection).is_empty());
}

#[test]
fn unknown_frames_and_settings_mean_nothing() {
    let mut connection = open();
    let words = [
        bytes(99, 0xff, 7, b"what is this"),
        settings(&[(0x99, 1), (1, 0)]),
        bytes(kind::PRIORITY, 0, 3, &[0; 5]),
        bytes(kind::GOAWAY, 0, 0, &[0; 8]),
        request(1, b"x"),
    ];
    receive(&mut connection, &words.concat()).unwrap();
    assert_eq!(requests(&mut connection).len(), 1);
    assert_eq!(bodies(&mut connection), [(1, b"x".to_vec(), true)]);
}

#[test]
fn no_more_is_sent_than_windows_and_frames_allow() {
    let mut connection = open();
    receive(
        &mut connection,
        &[request(1, b""), request(3, b"")].concat(),
    )
    .unwrap();
    let plan = |connection: &mut Server, at: usize| {
        let mut sendable = connection.sendable();
        let stream = connection.stream(at).unwrap();
        let mut planned = Vec::new();
        loop {
            match sendable.plan(stream, planned.iter().sum(), 1 << 20) {
                0 => return planned,
                bytes => planned.push(bytes),
            }
        }
    };
    // A frame is 16384 bytes, a window 65535.
    let all = [16_384, 16_384, 16_384, 16_383];
    assert_eq!(plan(&mut connection, 0), all);
    connection.sent(0, 16_384);
    assert_eq!(plan(&mut connection, 0), [16_384, 16_384, 16_383]);
    assert_eq!(
        plan(&mut connection, 1),
        [16_384, 16_384, 16_383],
        "the connection's"
    );
    receive(&mut connection, &window_update(0, 16_384)).unwrap();
    assert_eq!(
        plan(&mut connection, 0),
        [16_384, 16_384, 16_383],
        "the stream's"
    );
    receive(&mut connection, &window_update(1, 16_384)).unwrap();
    assert_eq!(plan(&mut connection, 0), all);
    let sizes = [
        (setting::MAX_FRAME_SIZE, 1 << 20),
        (setting::INITIAL_WINDOW_SIZE, 10),
    ];
    receive(&mut connection, &settings(&sizes)).unwrap();
    assert_eq!(plan(&mut connection, 0), [10]);
    connection.sent(0, 10);
    // It takes back more than was left.
    receive(
        &mut connection,
        &settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]),
    )
    .unwrap();
    assert!(plan(&mut connection, 0).is_empty());
    receive(&mut connection, &window_update(1, 10)).unwrap();
    assert!(plan(&mut connection, 0).is_empty());
    receive(&mut connection, &window_update(1, 1)).unwrap();
    assert_eq!(plan(&mut connection, 0), [1]);
}

#[test]
fn a_peer_may_not_send_more_than_its_window() {
    let mut connection = open();
    receive(&mut connection, &headers(1, 0, POST)).unwrap();
    receive(&mut connection, &headers(3, 0, POST)).unwrap();
    // Kept, and so kept back.
    for stream in [1, 3] {
        receive(&mut connection, &bytes(kind::DATA, 0, stream, &[0; 100])).unwrap();
    }
    assert_eq!(connection.flow.receive.in_all(), INITIAL_WINDOW - 200);
    connection.flow.receive.set_left(99);
    let more = bytes(kind::DATA, 0, 3, &[0; 100]);
    assert_eq!(
        receive(&mut connection, &more),
        Err(Reason::FlowControlError)
    );
}

#[test]
fn whatever_becomes_of_a_request_its_window_is_given_back() {
    let mut connection = open();
    for (n, end) in [
        bytes(kind::DATA, flag::END_STREAM, 1, b"end"),
        bytes(kind::RST_STREAM, 0, 3, &[0; 4]),
        headers(5, flag::END_STREAM, b""),
        bytes(kind::DATA, 0, 7, &[0; 100]),
        Vec::new(),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = 2 * n as u32 + 1;
        receive(&mut connection, &headers(stream, 0, POST)).unwrap();
        receive(&mut connection, &bytes(kind::DATA, 0, stream, &[0; 90])).unwrap();
        receive(&mut connection, &end).unwrap();
        connection.reset(stream, Reason::Cancel);
        assert_eq!(connection.flow.receive.in_all(), INITIAL_WINDOW, "{stream}");
    }
}

#[test]
fn pings_are_answered() {
    let mut connection = open();
    receive(&mut connection, &bytes(kind::PING, 0, 0, b"anything")).unwrap();
    let frames = output(&mut connection);
    assert_eq!(
        (frames[0].0.kind, frames[0].0.flags),
        (kind::PING, flag::ACK)
    );
    assert_eq!(frames[0].1, b"anything");
    connection.send_ping();
    assert_eq!(output(&mut connection)[0].0.flags, 0);
    receive(
        &mut connection,
        &bytes(kind::PING, flag::ACK, 0, &KEEPALIVE),
    )
    .unwrap();
    assert!(output(&mut connection).is_empty());
}

#[test]
fn a_graceful_end_serves_what_crosses_with_it() {
    let mut connection = open();
    receive(&mut connection, &request(1, b"")).unwrap();
    connection.shut_down();
    connection.shut_down();
    let frames = output(&mut connection);
    let expected = [(kind::GOAWAY, 0, Some(0)), (kind::PING, 0, None)];
    assert_eq!(summary(&frames), expected, "once");
    assert_eq!(frames[0].1[..4], MAX_WINDOW.to_be_bytes());
    // Opened before the peer has read that.
    receive(&mut connection, &request(3, b"")).unwrap();
    assert_eq!(connection.open_streams(), 2);
    let answer = bytes(kind::PING, flag::ACK, 0, &frames[1].1);
    receive(&mut connection, &answer).unwrap();
    let frames = output(&mut connection);
    assert_eq!(summary(&frames), [(kind::GOAWAY, 0, Some(0))]);
    assert_eq!(frames[0].1[..4], 3_u32.to_be_bytes());
    // It was told.
    receive(&mut connection, &request(5, b"")).unwrap();
    assert!(!connection.is_drained());
    connection.finish(1);
    connection.finish(3);
    assert!(connection.is_drained());
}

#[test]
fn a_frame_that_is_too_long_is_refused_by_its_head_however_that_arrives() {
    let head = FrameHeader::data(1, DEFAULT_FRAME_BYTES + 1).to_bytes();
    for cut in 0..head.len() {
        let mut connection = open();
        assert_eq!(receive(&mut connection, &head[..cut]), Ok(()));
        let received = receive(&mut connection, &head[cut..]);
        assert_eq!(received, Err(Reason::FrameSizeError), "cut at {cut}");
    }
}

#[test]
fn it_says_whether_something_is_on_its_way() {
    let mut connection = open();
    assert_eq!(connection.incomplete_frame(), None);
    let ping = bytes(kind::PING, 0, 0, &[0; 8]);
    receive(&mut connection, &ping[..5]).unwrap();
    let first = connection.incomplete_frame();
    assert!(first.is_some());
    receive(&mut connection, &ping[5..10]).unwrap();
    assert_eq!(connection.incomplete_frame(), first, "still the same frame");
    receive(&mut connection, &[&ping[10..], &ping[..5]].concat()).unwrap();
    assert_ne!(connection.incomplete_frame(), first, "another one");
    receive(&mut connection, &ping[5..]).unwrap();
    assert_eq!(connection.incomplete_frame(), None);
    // A header block, frame by frame.
    receive(&mut connection, &bytes(kind::HEADERS, 0, 1, POST)).unwrap();
    let block = connection.incomplete_frame();
    assert!(block.is_some());
    receive(&mut connection, &bytes(kind::CONTINUATION, 0, 1, b"")).unwrap();
    assert_eq!(connection.incomplete_frame(), block);
    let end = bytes(kind::CONTINUATION, flag::END_HEADERS, 1, b"");
    receive(&mut connection, &end).unwrap();
    assert_eq!(connection.incomplete_frame(), None);
}

#[test]
fn a_stream_ends_even_without_fields() {
    let mut connection = open();
    for stream in [1, 3] {
        receive(&mut connection, &request(stream, b"")).unwrap();
        connection.respond(stream, 200, &HeaderMap::new());
        output(&mut connection);
        connection.response(stream).trailers(&HeaderMap::new());
        let said = output(&mut connection);
        assert_eq!(said.len(), 1);
        let ends = flag::END_HEADERS | flag::END_STREAM;
        assert_eq!((said[0].0.kind, said[0].0.flags), (kind::HEADERS, ends));
    }
}

#[test]
fn an_honest_peer_that_lives_for_days_is_not_taken_for_a_flood() {
    let mut connection = open();
    let mut now = Instant::now();
    receive(&mut connection, &request(1, b"")).unwrap();
    for _ in 0..100_000 {
        now += Duration::from_secs(10);
        connection
            .receive(&bytes(kind::PING, 0, 0, &[0; 8]), now)
            .unwrap();
        output(&mut connection);
    }
    // One that answers every frame of data with a ping and two updates.
    let answers = [
        bytes(kind::PING, 0, 0, &[0; 8]),
        window_update(0, 100),
        window_update(1, 100),
    ];
    for _ in 0..100_000 {
        connection.sent(0, 100);
        connection.receive(&answers.concat(), now).unwrap();
        output(&mut connection);
    }
}

/// Frames that are often well-formed.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(0_u32), 1_u32..8];
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        Just(POST.to_vec()),
        any::<u32>().prop_map(|n| n.to_be_bytes().to_vec()),
        Just(vec![0; 8]),
    ];
    (0_u8..11, any::<u8>(), stream, payload)
        .prop_map(|(kind, flags, stream, payload)| bytes(kind, flags, stream, &payload))
}

proptest! {
    #[test]
    fn however_the_bytes_arrive_it_is_the_same(
        frames in proptest::collection::vec(any_frame(), 0..12),
        cuts in proptest::collection::vec(1_usize..40, 1..10),
    ) {
        let words = [opening(), frames.concat()].concat();
        let now = Instant::now();
        let mut whole = Server::new(LIMITS);
        let result = whole.receive(&words, now);
        let mut cut = Server::new(LIMITS);
        let mut rest = &words[..];
        let mut result_cut = Ok(());
        for size in cuts.iter().cycle() {
            if rest.is_empty() || result_cut.is_err() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*size));
            result_cut = cut.receive(piece, now);
            rest = after;
        }
        prop_assert_eq!(result, result_cut);
        prop_assert_eq!(output(&mut whole), output(&mut cut));
        prop_assert_eq!(requests(&mut whole), requests(&mut cut));
        prop_assert_eq!(bodies(&mut whole), bodies(&mut cut));
    }

    #[test]
    fn nothing_makes_it_panic_or_say_more_than_it_heard(
        frames in proptest::collection::vec(any_frame(), 0..40),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut connection = open();
        let words = [frames.concat(), noise].concat();
        let heard = words.len();
        let _ = receive(&mut connection, &words);
        // The longest answer for its question is a response with 431 or GOAWAY.
        prop_assert!(connection.output().len() <= 2 * heard + 100);
        output(&mut connection);
    }
}
