//! RFC 9113 rule by rule, on both ports: which frames end a connection, which end one
//! stream, and with which error code. The order of the cases is that of the specification.
//!
//! Each case has a connection of its own. What it sends first is served before the frames
//! that it is about arrive, so that the state of its streams is known.

#![cfg(feature = "server")]

mod support;

use std::net::SocketAddr;

use support::event;
use support::frames::{self, MAX_WINDOW, Reason, flag, kind, setting};
use support::goodbye::Goodbye;
use support::grpc::{SUBSCRIBE, message, publish_request, subscribe_request};
use support::header_block::HeaderBlock;
use support::{Harness, wire::Wire};

/// A method that nobody has: its calls end as soon as their head is there.
const NO_METHOD: &str = "/a.B/C";
/// Whatever the server's settings are, one frame more than it takes.
const TOO_LONG: [u8; 3] = [0xff; 3];

/// What comes of it.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The connection ends, and GOAWAY says this.
    GoAway(Reason, &'static str),
    /// The stream ends, and the connection goes on.
    Reset(u32, Reason),
    /// No stream ends by RST_STREAM, and the connection goes on.
    GoesOn,
}
use Outcome::{GoAway, GoesOn, Reset};

/// The rule, what is served before, the frames that it is about, and what they come to.
type Case = (&'static str, Vec<u8>, Vec<u8>, Outcome);

async fn check(address: SocketAddr, path: &str, (rule, before, frames, outcome): Case) {
    let what = format!("{path}: {rule}");
    let mut wire = Wire::connect(address).await;
    wire.send(&before).await;
    wire.settle().await;
    let expected = match outcome {
        GoAway(reason, text) => {
            let goodbye = Goodbye { reason, text };
            return wire.send_until_goodbye(&frames, 1, goodbye, what).await;
        }
        Reset(stream, reason) => vec![(stream, Some(reason as u32))],
        GoesOn => vec![],
    };
    wire.send(&frames).await;
    let mut resets = Vec::new();
    // The first PONG may be written before what came with its PING is served.
    for payload in [b"settle 1", b"settle 2"] {
        wire.send(&frames::ping(payload)).await;
        loop {
            let Some(frame) = wire.next().await else {
                panic!("{what}: the connection has ended");
            };
            match frame.kind {
                kind::RST_STREAM => resets.push((frame.stream, frame.code())),
                kind::GOAWAY => panic!("{what}: {frame:?}"),
                kind::PING if frame.payload == payload => break,
                _ => {}
            }
        }
    }
    assert_eq!(resets, expected, "{what}");
    // Header blocks are in step, and streams can be opened.
    wire.send(&frames::call(1001, NO_METHOD, &message(b"")))
        .await;
    let head = wire.find_on(1001).await;
    assert_eq!(head.field("grpc-status").as_deref(), Some("12"), "{what}");
}

/// Runs a table on both ports, of which it knows the path of a call that may stay open.
async fn check_all(cases: impl Fn(&str) -> Vec<Case>) {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        for case in cases(path) {
            check(address, path, case).await;
        }
    }
    server.assert_alive().await;
}

/// A request whose body is still to come.
fn open(stream: u32, path: &str) -> Vec<u8> {
    frames::open_call(stream, path)
}

/// A request that is complete, while its response is not.
fn half_closed(stream: u32, path: &str) -> Vec<u8> {
    let request = match path {
        SUBSCRIBE => subscribe_request("conforming", ""),
        _ => publish_request(vec![event(1)]),
    };
    let shut = frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    [shut, frames::call(stream, path, &request)].concat()
}

/// A stream that both sides have ended.
fn ended(stream: u32) -> Vec<u8> {
    frames::call(stream, NO_METHOD, &message(b""))
}

/// A stream that the client has reset.
fn reset(stream: u32, path: &str) -> Vec<u8> {
    [
        open(stream, path),
        frames::rst_stream(stream, Reason::Cancel),
    ]
    .concat()
}

/// A stream that the server has ended before the request was complete.
fn ended_early(stream: u32) -> Vec<u8> {
    open(stream, NO_METHOD)
}

/// A header block with which nothing is wrong behind a body.
fn trailers() -> HeaderBlock {
    HeaderBlock::new().literal("a", "b")
}

/// PRIORITY, or that part of HEADERS.
fn depends_on(stream: u32) -> Vec<u8> {
    [&stream.to_be_bytes()[..], &[16]].concat()
}

fn priority(stream: u32, on: u32) -> Vec<u8> {
    frames::any(kind::PRIORITY, 0, stream, &depends_on(on))
}

/// HEADERS with a priority, which leave the body to come.
fn headers_with_priority(stream: u32, on: u32, path: &str) -> Vec<u8> {
    let payload = [&depends_on(on), HeaderBlock::call(path).bytes()].concat();
    let flags = flag::END_HEADERS | flag::PRIORITY;
    frames::any(kind::HEADERS, flags, stream, &payload)
}

/// A call with a `content-length`, and the start of its body.
fn with_length(path: &str, length: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let block = HeaderBlock::call(path).literal("content-length", length);
    let body = pieces.iter().flat_map(|piece| frames::data(1, piece));
    frames::headers(1, &block).into_iter().chain(body).collect()
}

fn one_setting(name: u16, value: u32) -> Vec<u8> {
    frames::settings(&[(name, value)])
}

/// A frame without a payload, and with a length that no peer takes.
fn too_long(of: u8, stream: u32) -> Vec<u8> {
    let header = frames::any(of, 0, stream, &[]);
    [&TOO_LONG[..], &header[3..]].concat()
}

#[tokio::test]
async fn frames_on_streams_that_are_idle_or_have_ended() {
    let data = || frames::data(1, b"data");
    let more = || frames::headers_end(1, &trailers());
    let update = || frames::window_update(1, 1);
    let cancel = || frames::rst_stream(1, Reason::Cancel);
    let continuation = || frames::any(kind::CONTINUATION, flag::END_HEADERS, 1, &[]);
    let idle = GoAway(Reason::ProtocolError, "frame on an idle stream");
    let closed = Reset(1, Reason::StreamClosed);
    let alone = GoAway(Reason::ProtocolError, "CONTINUATION without a header block");
    let ended_by_peer = GoAway(
        Reason::StreamClosed,
        "HEADERS on a stream that the peer has ended",
    );
    check_all(|path| {
        vec![
            ("5.1 idle: DATA", vec![], data(), idle),
            ("5.1 idle: RST_STREAM", vec![], cancel(), idle),
            ("5.1 idle: WINDOW_UPDATE", vec![], update(), idle),
            ("5.1 idle: CONTINUATION", vec![], continuation(), alone),
            ("5.1 idle: PRIORITY", vec![], priority(1, 0), GoesOn),
            (
                "5.1 half-closed: DATA",
                half_closed(1, path),
                data(),
                closed,
            ),
            (
                "5.1 half-closed: HEADERS",
                half_closed(1, path),
                more(),
                closed,
            ),
            (
                "5.1 half-closed: CONTINUATION",
                half_closed(1, path),
                continuation(),
                alone,
            ),
            (
                "5.1 half-closed: PRIORITY, WINDOW_UPDATE, RST_STREAM",
                half_closed(1, path),
                [priority(1, 0), update(), cancel()].concat(),
                GoesOn,
            ),
            ("5.1 closed: DATA", ended(1), data(), closed),
            ("5.1 closed: HEADERS", ended(1), more(), ended_by_peer),
            ("5.1 closed: CONTINUATION", ended(1), continuation(), alone),
            (
                "5.1 closed: PRIORITY, WINDOW_UPDATE, RST_STREAM",
                ended(1),
                [priority(1, 0), update(), cancel()].concat(),
                GoesOn,
            ),
            (
                "5.1 reset by the peer: DATA",
                reset(1, path),
                data(),
                closed,
            ),
            (
                "5.1 reset by the peer: HEADERS",
                reset(1, path),
                more(),
                closed,
            ),
            (
                "5.1 reset by the peer: PRIORITY",
                reset(1, path),
                priority(1, 0),
                GoesOn,
            ),
            (
                "5.1 ended early: the rest of the request",
                ended_early(1),
                [data(), more()].concat(),
                GoesOn,
            ),
            (
                "5.1 ended early: DATA after the rest of the request",
                ended_early(1),
                [data(), frames::data_end(1, b""), data()].concat(),
                closed,
            ),
            (
                "5.1 ended early: DATA after RST_STREAM",
                ended_early(1),
                [cancel(), data()].concat(),
                closed,
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn the_identifiers_and_the_number_of_streams() {
    let lower = GoAway(
        Reason::ProtocolError,
        "a stream identifier that is lower than an earlier one",
    );
    let itself = GoAway(Reason::ProtocolError, "a stream depends on itself");
    check_all(|path| {
        let all_but_one = (0..255).flat_map(|n| open(2 * n + 1, path)).collect();
        vec![
            (
                "5.1.1 an even identifier",
                vec![],
                open(2, path),
                GoAway(
                    Reason::ProtocolError,
                    "HEADERS on an even stream identifier",
                ),
            ),
            (
                "5.1.1 a lower identifier",
                open(5, path),
                open(3, path),
                lower,
            ),
            (
                "5.1.1 DATA on a lower identifier",
                open(5, path),
                frames::data(3, b"data"),
                lower,
            ),
            (
                "5.1.1 identifiers with gaps",
                open(1, path),
                open(9, path),
                GoesOn,
            ),
            (
                "5.1.2 more streams than announced",
                all_but_one,
                [
                    open(511, path),
                    open(513, path),
                    frames::rst_stream(1, Reason::Cancel),
                ]
                .concat(),
                Reset(513, Reason::RefusedStream),
            ),
            (
                "5.3.1 HEADERS that depend on their own stream",
                vec![],
                headers_with_priority(1, 1, path),
                Reset(1, Reason::ProtocolError),
            ),
            (
                "5.3.1 HEADERS that depend on another stream",
                vec![],
                headers_with_priority(1, 3, path),
                GoesOn,
            ),
            (
                "5.3.1 PRIORITY of a stream that depends on itself",
                open(1, path),
                priority(1, 1),
                Reset(1, Reason::ProtocolError),
            ),
            (
                "5.3.1 PRIORITY of an idle stream that depends on itself",
                vec![],
                priority(1, 1),
                itself,
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn the_form_of_frames() {
    let padding = GoAway(Reason::ProtocolError, "padding is longer than the payload");
    let long = GoAway(
        Reason::FrameSizeError,
        "frame longer than SETTINGS_MAX_FRAME_SIZE",
    );
    let interrupted = GoAway(
        Reason::ProtocolError,
        "a header block is interrupted by another frame",
    );
    let size = |text| GoAway(Reason::FrameSizeError, text);
    let stream = |text| GoAway(Reason::ProtocolError, text);
    let any = frames::any;
    check_all(|path| {
        let block = HeaderBlock::call(path);
        let unended = || any(kind::HEADERS, 0, 1, block.bytes());
        let padded = |flags, before: &[u8], after: &[u8]| {
            let payload = [before, block.bytes(), after].concat();
            any(kind::HEADERS, flag::END_HEADERS | flags, 1, &payload)
        };
        let priority = flag::PADDED | flag::PRIORITY;
        vec![
            ("4.2 DATA", open(1, path), too_long(kind::DATA, 1), long),
            ("4.2 HEADERS", vec![], too_long(kind::HEADERS, 1), long),
            (
                "4.2 a type that is not known",
                vec![],
                too_long(99, 0),
                long,
            ),
            (
                "5.5 a type that is not known",
                vec![],
                any(99, 0xff, 7, b"?"),
                GoesOn,
            ),
            (
                "5.5 one inside a header block",
                vec![],
                [unended(), any(99, 0, 1, b"?")].concat(),
                interrupted,
            ),
            (
                "6.1 stream 0",
                vec![],
                frames::data(0, b""),
                stream("DATA on stream 0"),
            ),
            (
                "6.1 padding that is all of DATA",
                open(1, path),
                any(kind::DATA, flag::PADDED, 1, b"\x03\0\0\0"),
                GoesOn,
            ),
            (
                "6.1 padding that is more than DATA",
                open(1, path),
                any(kind::DATA, flag::PADDED, 1, b"\x04\0\0\0"),
                padding,
            ),
            (
                "6.1 no Pad Length",
                open(1, path),
                any(kind::DATA, flag::PADDED, 1, b""),
                size("a padded frame without a Pad Length"),
            ),
            (
                "6.2 stream 0",
                vec![],
                frames::headers(0, &block),
                stream("HEADERS on stream 0"),
            ),
            (
                "6.2 padding",
                vec![],
                padded(flag::PADDED, b"\x02", &[0; 2]),
                GoesOn,
            ),
            (
                "6.2 padding and a priority",
                vec![],
                padded(priority, b"\x02\0\0\0\0\x10", &[0; 2]),
                GoesOn,
            ),
            (
                "6.2 too much padding",
                vec![],
                padded(flag::PADDED, b"\xff", b""),
                padding,
            ),
            (
                "6.2 too short for a priority",
                vec![],
                any(
                    kind::HEADERS,
                    flag::END_HEADERS | flag::PRIORITY,
                    1,
                    &[0; 4],
                ),
                size("HEADERS is too short for its priority"),
            ),
            (
                "6.3 stream 0",
                vec![],
                any(kind::PRIORITY, 0, 0, &[0; 5]),
                stream("PRIORITY on stream 0"),
            ),
            (
                "6.3 the length",
                open(1, path),
                any(kind::PRIORITY, 0, 1, &[0; 4]),
                Reset(1, Reason::FrameSizeError),
            ),
            (
                "6.4 stream 0",
                vec![],
                frames::rst_stream(0, Reason::Cancel),
                stream("RST_STREAM on stream 0"),
            ),
            (
                "6.4 the length",
                open(1, path),
                any(kind::RST_STREAM, 0, 1, &[0; 3]),
                size("RST_STREAM length is not 4"),
            ),
            (
                "6.6 PUSH_PROMISE",
                open(1, path),
                any(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2]),
                stream("PUSH_PROMISE from a client"),
            ),
            (
                "6.7 another stream than 0",
                vec![],
                any(kind::PING, 0, 1, &[0; 8]),
                stream("PING on a stream other than 0"),
            ),
            (
                "6.7 the length",
                vec![],
                any(kind::PING, 0, 0, &[0; 6]),
                size("PING length is not 8"),
            ),
            (
                "6.8 another stream than 0",
                vec![],
                any(kind::GOAWAY, 0, 1, &[0; 8]),
                stream("GOAWAY on a stream other than 0"),
            ),
            (
                "6.8 the length",
                vec![],
                any(kind::GOAWAY, 0, 0, &[0; 7]),
                size("GOAWAY length is less than 8"),
            ),
            (
                "6.10 several CONTINUATION frames",
                vec![],
                [
                    unended(),
                    any(kind::CONTINUATION, 0, 1, b""),
                    any(kind::CONTINUATION, flag::END_HEADERS, 1, trailers().bytes()),
                ]
                .concat(),
                GoesOn,
            ),
            (
                "6.10 CONTINUATION on another stream",
                vec![],
                [
                    unended(),
                    any(kind::CONTINUATION, flag::END_HEADERS, 3, b""),
                ]
                .concat(),
                interrupted,
            ),
            (
                "6.10 HEADERS inside a header block",
                vec![],
                [unended(), open(3, path)].concat(),
                interrupted,
            ),
            (
                "6.10 DATA inside a header block",
                vec![],
                [unended(), frames::data(1, b"")].concat(),
                interrupted,
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn settings_and_windows() {
    let wide = GoAway(Reason::FlowControlError, "over 2^31-1");
    let frame_size = GoAway(
        Reason::ProtocolError,
        "SETTINGS_MAX_FRAME_SIZE out of range",
    );
    let any = frames::any;
    check_all(|path| {
        vec![
            (
                "6.5 ACK with a payload",
                vec![],
                any(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
                GoAway(Reason::FrameSizeError, "SETTINGS ACK with a payload"),
            ),
            (
                "6.5 another stream than 0",
                vec![],
                any(kind::SETTINGS, 0, 1, &[]),
                GoAway(Reason::ProtocolError, "SETTINGS on a stream other than 0"),
            ),
            (
                "6.5 the length",
                vec![],
                any(kind::SETTINGS, 0, 0, &[0; 7]),
                GoAway(
                    Reason::FrameSizeError,
                    "SETTINGS length is not a multiple of 6",
                ),
            ),
            (
                "6.5.2 ENABLE_PUSH",
                vec![],
                one_setting(setting::ENABLE_PUSH, 2),
                GoAway(Reason::ProtocolError, "SETTINGS_ENABLE_PUSH"),
            ),
            (
                "6.5.2 INITIAL_WINDOW_SIZE",
                vec![],
                one_setting(setting::INITIAL_WINDOW_SIZE, MAX_WINDOW + 1),
                wide,
            ),
            (
                "6.5.2 MAX_FRAME_SIZE, too small",
                vec![],
                one_setting(setting::MAX_FRAME_SIZE, (1 << 14) - 1),
                frame_size,
            ),
            (
                "6.5.2 MAX_FRAME_SIZE, too large",
                vec![],
                one_setting(setting::MAX_FRAME_SIZE, 1 << 24),
                frame_size,
            ),
            (
                "6.5.2 the least and the largest, and a setting that is not known",
                vec![],
                frames::settings(&[
                    (setting::ENABLE_PUSH, 0),
                    (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW),
                    (setting::MAX_FRAME_SIZE, 1 << 14),
                    (setting::MAX_FRAME_SIZE, (1 << 24) - 1),
                    (99, u32::MAX),
                ]),
                GoesOn,
            ),
            (
                "6.9 the length",
                vec![],
                any(kind::WINDOW_UPDATE, 0, 0, &[0; 3]),
                GoAway(Reason::FrameSizeError, "WINDOW_UPDATE length is not 4"),
            ),
            (
                "6.9 0 for the connection",
                vec![],
                frames::window_update(0, 0),
                GoAway(Reason::ProtocolError, "WINDOW_UPDATE increment of 0"),
            ),
            (
                "6.9 0 for a stream",
                open(1, path),
                frames::window_update(1, 0),
                Reset(1, Reason::ProtocolError),
            ),
            (
                "6.9.1 over the limit, for the connection",
                vec![],
                frames::window_update(0, MAX_WINDOW - 65_534),
                wide,
            ),
            (
                "6.9.1 up to the limit, for the connection",
                vec![],
                frames::window_update(0, MAX_WINDOW - 65_535),
                GoesOn,
            ),
            (
                "6.9.1 over the limit, for a stream",
                open(1, path),
                frames::window_update(1, MAX_WINDOW - 65_534),
                Reset(1, Reason::FlowControlError),
            ),
            (
                "6.9.1 up to the limit, for a stream",
                open(1, path),
                frames::window_update(1, MAX_WINDOW - 65_535),
                GoesOn,
            ),
            (
                "6.9.2 SETTINGS that lift a stream's window over the limit",
                [open(1, path), frames::window_update(1, 1)].concat(),
                one_setting(setting::INITIAL_WINDOW_SIZE, MAX_WINDOW),
                wide,
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn requests_and_their_header_blocks() {
    let malformed = Reset(1, Reason::ProtocolError);
    let not_hpack = GoAway(Reason::CompressionError, "HPACK decoding failed");
    let end = || frames::data_end(1, b"");
    check_all(|path| {
        let call = HeaderBlock::call(path);
        let five = message(b"");
        let raw = |bytes: &[u8]| {
            frames::any(
                kind::HEADERS,
                flag::END_HEADERS,
                1,
                &[bytes, call.bytes()].concat(),
            )
        };
        let late_size = [call.bytes(), &[0x20]].concat();
        vec![
            (
                "8.1 a second HEADERS without END_STREAM",
                open(1, path),
                frames::headers(1, &trailers()),
                malformed,
            ),
            (
                "8.1 trailers",
                open(1, path),
                frames::headers_end(1, &trailers()),
                GoesOn,
            ),
            (
                "8.1 trailers with a pseudo-header field",
                open(1, path),
                frames::headers_end(1, &trailers().literal(":path", path)),
                malformed,
            ),
            (
                "8.1.1 a content-length that is the body's",
                vec![],
                [with_length(path, "5", &[&five[..2], &five[2..]]), end()].concat(),
                GoesOn,
            ),
            (
                "8.1.1 one that is less, in one frame",
                vec![],
                with_length(path, "4", &[&five]),
                malformed,
            ),
            (
                "8.1.1 one that is less, in several",
                vec![],
                with_length(path, "4", &[&five[..3], &five[3..]]),
                malformed,
            ),
            (
                "8.1.1 one that is more",
                vec![],
                [with_length(path, "6", &[&five]), end()].concat(),
                malformed,
            ),
            (
                "8.1.1 one that is more, and trailers",
                vec![],
                [
                    with_length(path, "6", &[&five]),
                    frames::headers_end(1, &trailers()),
                ]
                .concat(),
                malformed,
            ),
            (
                "8.1.1 padding does not count",
                vec![],
                [
                    with_length(path, "1", &[]),
                    frames::any(kind::DATA, flag::PADDED, 1, b"\x03\0\0\0\0"),
                    end(),
                ]
                .concat(),
                GoesOn,
            ),
            (
                "8.1.1 one without a body",
                vec![],
                frames::headers_end(1, &call.clone().literal("content-length", "1")),
                malformed,
            ),
            (
                "8.1.1 no number",
                vec![],
                with_length(path, "-1", &[]),
                malformed,
            ),
            (
                "8.1.1 two that differ",
                vec![],
                frames::headers(
                    1,
                    &call
                        .clone()
                        .literal("content-length", "5")
                        .literal("content-length", "6"),
                ),
                malformed,
            ),
            (
                "8.3 a pseudo-header field behind others",
                vec![],
                frames::headers(1, &call.clone().literal(":method", "POST")),
                malformed,
            ),
            (
                "8.3 one that is not known",
                vec![],
                frames::headers(1, &HeaderBlock::request("POST", path).literal(":a", "b")),
                malformed,
            ),
            // RFC 7541.
            ("HPACK 2.3.3: the index 0", vec![], raw(&[0x80]), not_hpack),
            (
                "HPACK 2.3.3: an index of no entry",
                vec![],
                raw(&[0xff, 0x00]),
                not_hpack,
            ),
            (
                "HPACK 4.2: a table size over the setting",
                vec![],
                raw(&[0x3f, 0xe2, 0x1f]),
                not_hpack,
            ),
            (
                "HPACK 4.2: the setting's table size, after the least",
                vec![],
                raw(&[0x20, 0x3f, 0xe1, 0x1f]),
                GoesOn,
            ),
            (
                "HPACK 4.2: a table size at the end of a block",
                vec![],
                frames::any(kind::HEADERS, flag::END_HEADERS, 1, &late_size),
                not_hpack,
            ),
            (
                "HPACK 5.2: Huffman padding of a byte",
                vec![],
                raw(&[0x00, 0x01, b'a', 0x82, 0x1f, 0xff]),
                not_hpack,
            ),
            (
                "HPACK 5.2: Huffman padding of zeros",
                vec![],
                raw(&[0x00, 0x01, b'a', 0x81, 0x18]),
                not_hpack,
            ),
        ]
    })
    .await;
}
