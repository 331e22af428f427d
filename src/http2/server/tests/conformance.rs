//! RFC 9113 and RFC 7541, section by section: what ends the connection, what ends a stream,
//! and what is to be borne.

use super::*;

/// How far stream 1 has come.
#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Open,
    /// Half-closed (remote).
    Requested,
    /// Its request is complete, and so is its response.
    Finished,
    /// Its response was complete before its request.
    AnsweredEarly,
    ResetByPeer,
    ResetByUs,
}

use State::*;

/// What is to come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// A connection error.
    Connection(Reason),
    /// A stream error.
    Stream(u32, Reason),
    /// Nothing: neither is an error.
    Borne,
}

use Outcome::{Borne, Connection as Ends, Stream as Resets};
use Reason::*;

fn server_in(state: State) -> Server {
    let mut server = open();
    let words = match state {
        Idle => Vec::new(),
        Requested | Finished => request(1, b""),
        _ => headers(1, 0, POST),
    };
    receive(&mut server, &words).unwrap();
    match state {
        Finished | AnsweredEarly => server.finish(1),
        ResetByPeer => receive(&mut server, &bytes(kind::RST_STREAM, 0, 1, &[0; 4])).unwrap(),
        ResetByUs => server.connection.reset(1, Cancel),
        Idle | Open | Requested => {}
    }
    output(&mut server);
    server
}

fn outcome(server: &mut Server, words: &[u8]) -> Outcome {
    let received = receive(server, words);
    let said = summary(&output(server));
    if let Err(reason) = received {
        let goodbye = (kind::GOAWAY, 0, Some(reason as u32));
        assert_eq!(said.last(), Some(&goodbye));
        assert_eq!(server.open_streams(), 0);
        assert_eq!(receive(server, b""), Err(reason), "for good");
        return Ends(reason);
    }
    let resets: Vec<_> = said
        .iter()
        .filter(|frame| frame.0 == kind::RST_STREAM)
        .collect();
    let Some((_, stream, code)) = resets.first() else {
        return Borne;
    };
    assert_eq!(resets.len(), 1, "{said:?}");
    let reasons = [
        NoError,
        ProtocolError,
        FlowControlError,
        StreamClosed,
        FrameSizeError,
        RefusedStream,
        EnhanceYourCalm,
    ];
    let reason = reasons
        .into_iter()
        .find(|reason| Some(*reason as u32) == *code);
    Resets(*stream, reason.expect("a reason of these"))
}

fn check(section: &str, state: State, words: &[u8], expected: Outcome) {
    let mut server = server_in(state);
    // A neighbour, if identifiers leave room for one.
    if !matches!(state, Idle) {
        receive(&mut server, &request(3, b"")).unwrap();
    }
    let came = outcome(&mut server, words);
    assert_eq!(came, expected, "section {section}, {state:?}: {words:?}");
    if !matches!(came, Ends(_)) && !matches!(state, Idle) {
        assert!(
            server.index(3).is_some(),
            "section {section}: the neighbour goes on"
        );
        receive(&mut server, &request(5, b"")).unwrap();
        assert!(
            server.index(5).is_some(),
            "section {section}: so does the connection"
        );
    }
}

fn data(stream: u32) -> Vec<u8> {
    bytes(kind::DATA, 0, stream, b"x")
}

fn rst(stream: u32) -> Vec<u8> {
    bytes(kind::RST_STREAM, 0, stream, &[0; 4])
}

fn trailers(stream: u32) -> Vec<u8> {
    headers(stream, flag::END_STREAM, b"\x00\x01t\x01x")
}

fn depends_on(stream: u32) -> [u8; 5] {
    let [a, b, c, d] = stream.to_be_bytes();
    [a, b, c, d, 16]
}

/// A request whose `content-length` has one digit.
fn with_length(digit: u8, flags: u8) -> Vec<u8> {
    headers(1, flags, &[POST, b"\x0f\x0d\x01", &[digit]].concat())
}

#[test]
fn section_4_frames() {
    for (section, state, words, expected) in [
        ("4.1: unknown types", Open, bytes(99, 0xff, 7, b"?"), Borne),
        (
            "4.1: unknown flags",
            Open,
            bytes(kind::PING, 0xfe, 0, &[0; 8]),
            Borne,
        ),
        (
            "4.2",
            Open,
            bytes(kind::DATA, 0, 1, &[0; 16_385]),
            Ends(FrameSizeError),
        ),
        (
            "4.2",
            Idle,
            bytes(99, 0, 0, &[0; 16_385]),
            Ends(FrameSizeError),
        ),
        ("4.2", Open, bytes(kind::DATA, 0, 1, &[0; 16_384]), Borne),
        (
            "4.3",
            Idle,
            headers(1, 0, b"\xff\xff\xff\xff\xff\xff"),
            Ends(CompressionError),
        ),
        (
            "4.3: ends inside",
            Idle,
            headers(1, 0, b"\x00\x05a"),
            Ends(CompressionError),
        ),
        (
            "4.3: of a closed stream",
            AnsweredEarly,
            headers(1, flag::END_STREAM, b"\x80"),
            Ends(CompressionError),
        ),
        (
            "4.3: interrupted",
            Idle,
            [
                bytes(kind::HEADERS, 0, 1, POST),
                bytes(kind::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            Ends(ProtocolError),
        ),
        (
            "4.3: interrupted by an unknown type",
            Idle,
            [bytes(kind::HEADERS, 0, 1, POST), bytes(99, 0, 1, b"")].concat(),
            Ends(ProtocolError),
        ),
        (
            "4.3: of another stream",
            Idle,
            [
                bytes(kind::HEADERS, 0, 1, POST),
                bytes(kind::CONTINUATION, 4, 3, b""),
            ]
            .concat(),
            Ends(ProtocolError),
        ),
    ] {
        check(section, state, &words, expected);
    }
}

#[test]
fn section_5_1_stream_states() {
    for (section, state, words, expected) in [
        ("idle: DATA", Idle, data(1), Ends(ProtocolError)),
        ("idle: RST_STREAM", Idle, rst(1), Ends(ProtocolError)),
        (
            "idle: WINDOW_UPDATE",
            Idle,
            window_update(1, 1),
            Ends(ProtocolError),
        ),
        (
            "idle: CONTINUATION",
            Idle,
            bytes(kind::CONTINUATION, 4, 1, b""),
            Ends(ProtocolError),
        ),
        (
            "idle: PRIORITY",
            Idle,
            bytes(kind::PRIORITY, 0, 1, &depends_on(3)),
            Borne,
        ),
        ("open: DATA", Open, data(1), Borne),
        ("open: trailers", Open, trailers(1), Borne),
        (
            "open: CONTINUATION",
            Open,
            bytes(kind::CONTINUATION, 4, 1, b""),
            Ends(ProtocolError),
        ),
        (
            "half-closed (remote): DATA",
            Requested,
            data(1),
            Resets(1, StreamClosed),
        ),
        (
            "half-closed (remote): HEADERS",
            Requested,
            trailers(1),
            Resets(1, StreamClosed),
        ),
        (
            "half-closed (remote): WINDOW_UPDATE",
            Requested,
            window_update(1, 1),
            Borne,
        ),
        ("half-closed (remote): RST_STREAM", Requested, rst(1), Borne),
        ("closed: DATA", Finished, data(1), Resets(1, StreamClosed)),
        ("closed: HEADERS", Finished, trailers(1), Ends(StreamClosed)),
        (
            "closed: CONTINUATION",
            Finished,
            bytes(kind::CONTINUATION, 4, 1, b""),
            Ends(ProtocolError),
        ),
        (
            "closed: WINDOW_UPDATE",
            Finished,
            window_update(1, 1),
            Borne,
        ),
        ("closed: RST_STREAM", Finished, rst(1), Borne),
        (
            "closed: PRIORITY",
            Finished,
            bytes(kind::PRIORITY, 0, 1, &depends_on(3)),
            Borne,
        ),
        (
            "reset by the peer: DATA",
            ResetByPeer,
            data(1),
            Resets(1, StreamClosed),
        ),
        (
            "reset by the peer: HEADERS",
            ResetByPeer,
            trailers(1),
            Resets(1, StreamClosed),
        ),
        ("reset by the peer: RST_STREAM", ResetByPeer, rst(1), Borne),
        // The peer may not know yet.
        ("reset by us: DATA", ResetByUs, data(1), Borne),
        ("reset by us: HEADERS", ResetByUs, trailers(1), Borne),
        ("answered early: DATA", AnsweredEarly, data(1), Borne),
        ("answered early: HEADERS", AnsweredEarly, trailers(1), Borne),
        // By now it does, or never will.
        (
            "reset by us, then by the peer: DATA",
            ResetByUs,
            [rst(1), data(1)].concat(),
            Resets(1, StreamClosed),
        ),
        (
            "reset by us, then ended by the peer: DATA",
            ResetByUs,
            [bytes(kind::DATA, flag::END_STREAM, 1, b""), data(1)].concat(),
            Resets(1, StreamClosed),
        ),
        (
            "answered early, then ended by the peer: HEADERS",
            AnsweredEarly,
            [trailers(1), trailers(1)].concat(),
            Ends(StreamClosed),
        ),
        (
            "5.1.1: even",
            Idle,
            headers(2, 0, POST),
            Ends(ProtocolError),
        ),
        (
            "5.1.1: lower than an earlier one",
            Idle,
            [request(5, b""), headers(3, 0, POST)].concat(),
            Ends(ProtocolError),
        ),
        (
            "5.1.1: DATA on one that was passed over",
            Idle,
            [request(5, b""), data(3)].concat(),
            Ends(ProtocolError),
        ),
    ] {
        check(section, state, &words, expected);
    }
}

#[test]
fn section_5_1_2_more_streams_than_announced() {
    // A stream counts until its response is complete: gRPC refuses most calls at their heads,
    // and RFC 9113, 8.1 has a server answer before the request is complete. So a peer that is
    // answered early may open as many as it likes, one after another.
    let mut server = server_in(Open);
    receive(&mut server, &[request(3, b""), request(5, b"")].concat()).unwrap();
    let more = [headers(7, 0, POST), data(7)].concat();
    assert_eq!(outcome(&mut server, &more), Resets(7, RefusedStream));
    assert_eq!(server.open_streams(), 3);
    server.finish(3);
    receive(&mut server, &request(9, b"")).unwrap();
    assert!(server.index(9).is_some());
}

#[test]
fn section_5_3_priorities() {
    let own = |stream| bytes(kind::PRIORITY, 0, stream, &depends_on(stream));
    let with_priority = |on: u32| {
        let block = [&depends_on(on)[..], POST].concat();
        headers(7, flag::PRIORITY | flag::END_STREAM, &block)
    };
    for (section, state, words, expected) in [
        ("5.3.1 of RFC 7540", Open, own(1), Resets(1, ProtocolError)),
        (
            "5.3.1 of RFC 7540: closed",
            Finished,
            own(1),
            Resets(1, ProtocolError),
        ),
        // A stream that is idle must not be reset (6.4).
        ("5.3.1 of RFC 7540: idle", Idle, own(1), Ends(ProtocolError)),
        (
            "6.3: length",
            Open,
            bytes(kind::PRIORITY, 0, 1, &[0; 4]),
            Resets(1, FrameSizeError),
        ),
        (
            "6.3: length, idle",
            Idle,
            bytes(kind::PRIORITY, 0, 1, &[0; 4]),
            Ends(FrameSizeError),
        ),
        (
            "6.3: stream 0",
            Open,
            bytes(kind::PRIORITY, 0, 0, &[0; 5]),
            Ends(ProtocolError),
        ),
    ] {
        check(section, state, &words, expected);
    }
    for (on, expected) in [(7, Resets(7, ProtocolError)), (1, Borne)] {
        let mut server = server_in(Open);
        assert_eq!(outcome(&mut server, &with_priority(on)), expected);
        assert_eq!(server.index(7).is_some(), expected == Borne);
        assert!(server.index(1).is_some());
    }
}

#[test]
fn section_6_frames_of_streams() {
    for (section, state, words, expected) in [
        ("6.1: stream 0", Open, data(0), Ends(ProtocolError)),
        (
            "6.1: padding",
            Open,
            bytes(kind::DATA, flag::PADDED, 1, b"\x05abc"),
            Ends(ProtocolError),
        ),
        (
            "6.1: no Pad Length",
            Open,
            bytes(kind::DATA, flag::PADDED, 1, b""),
            Ends(FrameSizeError),
        ),
        (
            "6.1: all padding",
            Open,
            bytes(kind::DATA, flag::PADDED, 1, b"\x02ab"),
            Borne,
        ),
        (
            "6.2: stream 0",
            Idle,
            headers(0, 0, POST),
            Ends(ProtocolError),
        ),
        (
            "6.2: padding",
            Idle,
            headers(1, flag::PADDED, b"\x09abc"),
            Ends(ProtocolError),
        ),
        (
            "6.2: no room for a priority",
            Idle,
            headers(1, flag::PRIORITY, b"abc"),
            Ends(FrameSizeError),
        ),
        ("6.4: stream 0", Open, rst(0), Ends(ProtocolError)),
        (
            "6.4: length",
            Open,
            bytes(kind::RST_STREAM, 0, 1, &[0; 3]),
            Ends(FrameSizeError),
        ),
        (
            "6.6",
            Open,
            bytes(kind::PUSH_PROMISE, 4, 1, &[0; 4]),
            Ends(ProtocolError),
        ),
        (
            "6.9: length",
            Open,
            bytes(kind::WINDOW_UPDATE, 0, 1, &[0; 3]),
            Ends(FrameSizeError),
        ),
        (
            "6.9: 0",
            Open,
            window_update(1, 0),
            Resets(1, ProtocolError),
        ),
        (
            "6.9: 0, requested",
            Requested,
            window_update(1, 0),
            Resets(1, ProtocolError),
        ),
        (
            "6.9: 0, answered",
            AnsweredEarly,
            window_update(1, 0),
            Resets(1, ProtocolError),
        ),
        (
            "6.9: 0, connection",
            Open,
            window_update(0, 0),
            Ends(ProtocolError),
        ),
        (
            "6.9: reserved bit",
            Open,
            window_update(1, 1 << 31 | 1),
            Borne,
        ),
        (
            "6.9.1",
            Open,
            window_update(1, MAX_WINDOW),
            Resets(1, FlowControlError),
        ),
        (
            "6.9.1: answered",
            AnsweredEarly,
            window_update(1, MAX_WINDOW),
            Resets(1, FlowControlError),
        ),
        (
            "6.9.1: just not",
            Open,
            window_update(1, MAX_WINDOW - INITIAL_WINDOW),
            Borne,
        ),
        (
            "6.9.1: connection",
            Open,
            window_update(0, MAX_WINDOW),
            Ends(FlowControlError),
        ),
        (
            "6.10: idle",
            Open,
            bytes(kind::CONTINUATION, 4, 7, b""),
            Ends(ProtocolError),
        ),
    ] {
        check(section, state, &words, expected);
    }
}

#[test]
fn section_6_frames_of_the_connection() {
    let lifted = [
        window_update(1, MAX_WINDOW - INITIAL_WINDOW),
        settings(&[(setting::INITIAL_WINDOW_SIZE, INITIAL_WINDOW + 1)]),
    ];
    for (section, state, words, expected) in [
        (
            "6.5: stream",
            Idle,
            bytes(kind::SETTINGS, 0, 1, b""),
            Ends(ProtocolError),
        ),
        (
            "6.5: length",
            Idle,
            bytes(kind::SETTINGS, 0, 0, &[0; 5]),
            Ends(FrameSizeError),
        ),
        (
            "6.5: ACK",
            Idle,
            bytes(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
            Ends(FrameSizeError),
        ),
        (
            "6.5.2: push",
            Idle,
            settings(&[(setting::ENABLE_PUSH, 2)]),
            Ends(ProtocolError),
        ),
        (
            "6.5.2: window",
            Idle,
            settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]),
            Ends(FlowControlError),
        ),
        (
            "6.5.2: least frame size",
            Idle,
            settings(&[(setting::MAX_FRAME_SIZE, 16_383)]),
            Ends(ProtocolError),
        ),
        (
            "6.5.2: largest frame size",
            Idle,
            settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]),
            Ends(ProtocolError),
        ),
        (
            "6.5.2: unknown",
            Open,
            settings(&[(0x99, 1), (1, 0)]),
            Borne,
        ),
        (
            "6.7: stream",
            Open,
            bytes(kind::PING, 0, 1, &[0; 8]),
            Ends(ProtocolError),
        ),
        (
            "6.7: length",
            Open,
            bytes(kind::PING, 0, 0, &[0; 7]),
            Ends(FrameSizeError),
        ),
        (
            "6.8: stream",
            Open,
            bytes(kind::GOAWAY, 0, 1, &[0; 8]),
            Ends(ProtocolError),
        ),
        (
            "6.8: length",
            Open,
            bytes(kind::GOAWAY, 0, 0, &[0; 7]),
            Ends(FrameSizeError),
        ),
        ("6.8", Open, bytes(kind::GOAWAY, 0, 0, &[0; 9]), Borne),
        (
            "6.9.2: SETTINGS lift a window",
            Open,
            lifted.concat(),
            Ends(FlowControlError),
        ),
    ] {
        check(section, state, &words, expected);
    }
}

#[test]
fn section_3_4_preface() {
    for first in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
    ] {
        let mut server = Server::new(LIMITS);
        assert_eq!(receive(&mut server, first), Err(ProtocolError));
    }
    for first in [
        bytes(kind::PING, 0, 0, &[0; 8]),
        bytes(kind::SETTINGS, flag::ACK, 0, b""),
    ] {
        let mut server = Server::new(LIMITS);
        let words = [&PREFACE[..], &first].concat();
        assert_eq!(receive(&mut server, &words), Err(ProtocolError));
    }
}

#[test]
fn section_8_1_messages() {
    let end = |stream, content: &[u8]| bytes(kind::DATA, flag::END_STREAM, stream, content);
    let malformed = Resets(1, ProtocolError);
    for (section, state, words, expected) in [
        (
            "8.1: HEADERS twice",
            Open,
            headers(1, 0, b"\x00\x01t\x01x"),
            malformed,
        ),
        (
            "8.1: HEADERS twice, answered",
            AnsweredEarly,
            headers(1, 0, POST),
            malformed,
        ),
        (
            "8.1: pseudo-header fields in trailers",
            Open,
            headers(1, flag::END_STREAM, POST),
            malformed,
        ),
        (
            "8.2: upper case in trailers",
            Open,
            headers(1, flag::END_STREAM, b"\x00\x01T\x01x"),
            malformed,
        ),
        (
            "8.1.1: too much",
            Idle,
            [with_length(b'1', 0), end(1, b"ab")].concat(),
            malformed,
        ),
        (
            "8.1.1: too little",
            Idle,
            [with_length(b'3', 0), end(1, b"ab")].concat(),
            malformed,
        ),
        (
            "8.1.1: nothing",
            Idle,
            with_length(b'3', flag::END_STREAM),
            malformed,
        ),
        (
            "8.1.1: trailers",
            Idle,
            [with_length(b'3', 0), trailers(1)].concat(),
            malformed,
        ),
        (
            "8.1.1: more before the end",
            Idle,
            [with_length(b'1', 0), bytes(kind::DATA, 0, 1, b"ab")].concat(),
            malformed,
        ),
        (
            "8.1.1: right, without its padding",
            Idle,
            [
                with_length(b'3', 0),
                data(1),
                bytes(kind::DATA, flag::PADDED, 1, b"\x02bcxx"),
                trailers(1),
            ]
            .concat(),
            Borne,
        ),
        (
            "8.1.1: none",
            Idle,
            with_length(b'0', flag::END_STREAM),
            Borne,
        ),
    ] {
        check(section, state, &words, expected);
    }
    // A request that was answered early need not be sent to its end.
    let mut server = open();
    receive(&mut server, &with_length(b'9', 0)).unwrap();
    server.finish(1);
    output(&mut server);
    assert_eq!(outcome(&mut server, &end(1, b"ab")), Borne);
}

#[test]
fn section_8_3_requests() {
    let field = |name: &[u8], value: &[u8]| {
        [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
    };
    let with = |name: &[u8], value: &[u8]| [POST, &field(name, value)].concat();
    for block in [
        b"\x86\x84".to_vec(),
        b"\x83\x84".to_vec(),
        b"\x83\x86".to_vec(),
        b"\x83\x83\x86\x84".to_vec(),
        [&b"\x83\x86"[..], &field(b":path", b"")].concat(),
        [&b"\x83\x86"[..], &field(b":path", b"a")].concat(),
        with(b":status", b"200"),
        with(b":unknown", b"x"),
        [&field(b"a", b"b")[..], POST].concat(),
        with(b"Upper", b"x"),
        with(b"connection", b"close"),
        with(b"te", b"gzip"),
        with(b"a", b"b\nc"),
    ] {
        let mut server = open();
        let came = outcome(&mut server, &headers(1, flag::END_STREAM, &block));
        assert_eq!(came, Resets(1, ProtocolError), "{block:?}");
        assert_eq!(server.open_streams(), 0);
        receive(&mut server, &request(3, b"")).unwrap();
        assert_eq!(server.open_streams(), 1);
    }
    for block in [with(b"te", b"trailers"), with(b"a", b" b ")] {
        let mut server = open();
        let came = outcome(&mut server, &headers(1, flag::END_STREAM, &block));
        assert_eq!((came, server.open_streams()), (Borne, 1), "{block:?}");
    }
}

/// Frames of a block with so many fields of 1000 bytes, all of which go into the table, and
/// then one of which the table has room for.
fn large_request(stream: u32, fields: usize) -> Vec<u8> {
    let field = [&b"\x40\x05token\x7f\xe9\x06"[..], &[b't'; 1000]].concat();
    let block = [POST, &field.repeat(fields), b"\x40\x01k\x01v"].concat();
    let pieces: Vec<&[u8]> = block.chunks(DEFAULT_FRAME_BYTES as usize).collect();
    let frames = pieces.iter().enumerate().map(|(n, piece)| {
        let kind = if n == 0 {
            kind::HEADERS
        } else {
            kind::CONTINUATION
        };
        let ends = if n + 1 == pieces.len() {
            flag::END_HEADERS
        } else {
            0
        };
        bytes(kind, ends, stream, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

#[test]
fn section_10_5_1_header_blocks_of_any_size() {
    for fields in [1, 8, 15, 17, 31, 33, 60, 600] {
        let mut server = server_in(Requested);
        let words = [
            large_request(3, fields),
            bytes(kind::DATA, flag::END_STREAM, 3, b"x"),
        ];
        receive(&mut server, &words.concat()).unwrap();
        let frames = output(&mut server);
        let said = [(kind::HEADERS, 3, None), reset(3, NoError)];
        assert_eq!(summary(&frames), said, "{fields}");
        assert!(frames[0].1.ends_with(b"\x03431"));
        assert!(server.index(1).is_some(), "the neighbour goes on");
        requests(&mut server);
        // The table has what came last.
        receive(
            &mut server,
            &headers(5, flag::END_STREAM, &[POST, &[0xbe]].concat()),
        )
        .unwrap();
        let [(5, head)] = &requests(&mut server)[..] else {
            panic!("{fields}: the next request is served");
        };
        assert_eq!(head.fields["k"], "v");
    }
}
