//! The client's side of a conversation, byte by byte.

use super::*;
use crate::cursor::{Cursor, Epoch, Seq};
use crate::http2::frame::{self, flag, kind, setting};
use crate::lab::load::event::{Shape, Stamp};
use crate::lab::load::protocol::{
    Begin, Consumer, End, ProtocolError, Publisher, Responses, Sink, Start,
};

fn cursor(seq: u64) -> Cursor {
    Cursor::new(Epoch::MAX, Seq::new(seq))
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    started: Vec<Start>,
    events: Vec<(Vec<u8>, Cursor)>,
    ended: Vec<End>,
}

impl Sink for Seen {
    fn started(&mut self, start: &Start) {
        self.started.push(start.clone());
    }

    fn event(&mut self, event: &[u8], cursor: Option<Cursor>) {
        self.events.push((event.to_vec(), cursor.unwrap()));
    }

    fn ended(&mut self, end: &End) {
        self.ended.push(end.clone());
    }
}

/// What a server says.
#[derive(Clone, Debug, Default)]
struct Server(Vec<u8>);

impl Server {
    /// As it greets.
    fn new() -> Self {
        let mut server = Server::default();
        frame::write_settings(&mut server.0, &[(setting::MAX_FRAME_SIZE, 1 << 20)]);
        frame::write(&mut server.0, kind::SETTINGS, flag::ACK, 0, &[]);
        server
    }

    /// As it greets, and begins a stream after this place.
    fn with_head(seq: u64) -> Self {
        let mut server = Server::new();
        let start = cursor(seq).to_string();
        let fields = [
            ("push-resume", "resumed"),
            ("push-resume-reason", "requested"),
            ("push-start-cursor", &start),
        ];
        server.headers(true, &fields, false);
        server
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, content: &[u8]) -> &mut Self {
        frame::write(&mut self.0, kind, flags, stream, content);
        self
    }

    fn block(is_head: bool, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        if is_head {
            block.push(0x88);
        }
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    fn headers(&mut self, is_head: bool, fields: &[(&str, &str)], ends: bool) -> &mut Self {
        let flags = flag::END_HEADERS | if ends { flag::END_STREAM } else { 0 };
        self.frame(kind::HEADERS, flags, 1, &Self::block(is_head, fields))
    }

    fn data(&mut self, content: &[u8]) -> &mut Self {
        self.frame(kind::DATA, 0, 1, content)
    }
}

/// An event's message with its cursor, and gRPC's prefix before it.
fn message(event: &[u8], seq: u64) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(event.len() as u32 + 26).to_be_bytes());
    message.extend_from_slice(event);
    message.extend_from_slice(b"\x1a\x18");
    message.extend_from_slice(cursor(seq).to_text().as_str().as_bytes());
    message
}

fn gateway(offer: Offer) -> (Subscribe, Vec<u8>) {
    let mut gateway = Subscribe::new("g", "localhost", offer);
    let mut out = Vec::new();
    gateway.open(Begin::Head, &mut out);
    (gateway, out)
}

/// Receives the bytes in these pieces, as a worker does.
fn receive<'a>(
    gateway: &mut Subscribe,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Result<Seen, ProtocolError>, Vec<u8>) {
    let (mut seen, mut out, mut rest) = (Seen::default(), Vec::new(), Vec::new());
    for piece in pieces {
        rest.extend_from_slice(piece);
        match gateway.receive(&rest, &mut out, &mut seen) {
            Ok(done) => drop(rest.drain(..done)),
            Err(error) => return (Err(error), out),
        }
    }
    assert!(rest.is_empty(), "{} bytes were left", rest.len());
    (Ok(seen), out)
}

fn refused(server: &Server) -> String {
    let (mut gateway, _) = gateway(Offer::default());
    let (outcome, _) = receive(&mut gateway, [&server.0[..]]);
    outcome.unwrap_err().to_string()
}

/// A conversation with everything in it: messages cut by frames, padding, other
/// frames between.
fn everything() -> (Server, Seen) {
    let mut server = Server::with_head(5);
    let events: Vec<Vec<u8>> = (0..6).map(|n| vec![n; 7 * usize::from(n)]).collect();
    let messages: Vec<Vec<u8>> = (6..).zip(&events).map(|(n, e)| message(e, n)).collect();
    server.data(&messages[..3].concat());
    server.frame(kind::PING, 0, 0, b"12345678");
    let (early, late) = messages[3].split_at(3);
    server.data(early).data(&[]).data(late);
    server.frame(kind::WINDOW_UPDATE, 0, 0, &9_u32.to_be_bytes());
    let (early, late) = messages[4].split_at(20);
    let padded = [&[4][..], early, &[0; 4]].concat();
    server.frame(kind::DATA, flag::PADDED, 1, &padded);
    server.frame(0xbe, 0xff, 7, b"an extension");
    server.data(&[late, &messages[5]].concat());
    let trailers = Server::block(false, &[("grpc-status", "11"), ("push-missed", "7")]);
    let (early, late) = trailers.split_at(9);
    server.frame(kind::HEADERS, flag::END_STREAM, 1, early);
    server.frame(kind::CONTINUATION, flag::END_HEADERS, 1, late);
    let seen = Seen {
        started: vec![Start {
            cursor: Some(cursor(5)),
            reason: "requested".into(),
            missed: None,
        }],
        events: events.into_iter().zip((6..).map(cursor)).collect(),
        ended: vec![End {
            code: End::OUT_OF_RANGE,
            message: String::new(),
            missed: Some(7),
        }],
    };
    (server, seen)
}

#[test]
fn a_conversation_means_the_same_wherever_it_is_cut() {
    let (server, expected) = everything();
    for at in 0..=server.0.len() {
        let (mut gateway, _) = gateway(Offer::default());
        let (early, late) = server.0.split_at(at);
        let (seen, out) = receive(&mut gateway, [early, late]);
        assert_eq!(seen.unwrap(), expected, "cut at {at}");
        let mut expected = Vec::new();
        frame::write(&mut expected, kind::SETTINGS, flag::ACK, 0, &[]);
        frame::write(&mut expected, kind::PING, flag::ACK, 0, b"12345678");
        assert_eq!(out, expected, "cut at {at}");
    }
    let (mut gateway, _) = gateway(Offer::default());
    let (seen, _) = receive(&mut gateway, server.0.chunks(1));
    assert_eq!(seen.unwrap(), expected);
}

#[test]
fn a_large_message_comes_in_pieces() {
    let mut server = Server::with_head(0);
    let event = vec![b'e'; 100_000];
    let whole = [message(&event, 1), message(b"next", 2)].concat();
    for piece in whole.chunks(30_000) {
        server.data(piece);
    }
    let (mut gateway, _) = gateway(Offer::default());
    let (seen, _) = receive(&mut gateway, server.0.chunks(7_000));
    let expected = vec![(event, cursor(1)), (b"next".to_vec(), cursor(2))];
    assert_eq!(seen.unwrap().events, expected);
}

#[test]
fn a_connection_begins_with_what_the_contract_asks_for() {
    let offer = Offer {
        frame_bytes: 1 << 20,
        window_bytes: 1 << 21,
    };
    let mut gateway = Subscribe::new("gateway-1", "localhost:7", offer);
    let mut out = Vec::new();
    gateway.open(Begin::After(cursor(3)), &mut out);
    let rest = out.strip_prefix(&frame::PREFACE[..]).unwrap();
    let settings =
        b"\0\0\x18\x04\0\0\0\0\0\0\x01\0\0\0\0\0\x02\0\0\0\0\0\x04\0\x20\0\0\0\x05\0\x10\0\0";
    let rest = rest.strip_prefix(settings).unwrap();
    let update = [
        &b"\0\0\x04\x08\0\0\0\0\0"[..],
        &((1_u32 << 21) - 65_535).to_be_bytes(),
    ];
    let rest = rest.strip_prefix(&update.concat()[..]).unwrap();
    let headers = frame::FrameHeader::read(rest).unwrap();
    assert_eq!((headers.kind, headers.flags, headers.stream), (1, 4, 1));
    let rest = &rest[9 + headers.payload_bytes as usize..];
    let data = frame::FrameHeader::read(rest).unwrap();
    assert_eq!((data.kind, data.flags, data.stream), (0, 1, 1));
    let request = format!("\x0a\x09gateway-1\x12\x18{}", cursor(3));
    assert_eq!(&rest[9 + 5..], request.as_bytes());
}

#[test]
fn windows_are_given_back_when_a_quarter_is_used() {
    let offer = Offer {
        window_bytes: 100_000,
        ..Offer::default()
    };
    let (mut gateway, _) = gateway(offer);
    let mut server = Server::with_head(0);
    let event = vec![0; 20_000 - 31];
    server.data(&message(&event, 1));
    let (seen, out) = receive(&mut gateway, [&server.0[..]]);
    assert_eq!((seen.unwrap().events.len(), out.len()), (1, 9));
    let mut server = Server::default();
    server.data(&message(&event, 2));
    let (_, out) = receive(&mut gateway, [&server.0[..]]);
    let mut updates = Vec::new();
    frame::write_window_update(&mut updates, 0, 40_000);
    frame::write_window_update(&mut updates, 1, 40_000);
    assert_eq!(out, updates);
}

#[test]
fn whatever_is_against_the_protocol_is_named() {
    let head = || Server::with_head(0);
    let mut long = head();
    long.frame(kind::DATA, 0, 1, &vec![0; (1 << 20) + 1]);
    let mut headless = Server::new();
    headless.data(b"x");
    let mut status = Server::new();
    let mut unsettled = Server::default();
    unsettled.headers(true, &[], false);
    status.frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x8d");
    for (server, what) in [
        (&long, "frame longer than SETTINGS_MAX_FRAME_SIZE"),
        (&headless, "DATA before a response's head"),
        (&status, "the HTTP status 404"),
        (&unsettled, "the first frame is not SETTINGS"),
        (head().data(b"\x01\0\0\0\0"), "compressed"),
        (head().data(b"\0\xff\0\0\0"), "a message of"),
        (head().data(b"\0\0\0\0\x01x"), "no cursor"),
        (
            head().frame(kind::DATA, flag::PADDED, 1, b"\x05abc"),
            "padding is longer than the payload",
        ),
        (
            head().frame(kind::DATA, flag::END_STREAM, 1, b""),
            "without a gRPC status",
        ),
        (
            head()
                .data(b"\0\0")
                .headers(false, &[("grpc-status", "0")], true),
            "inside a message",
        ),
        (head().headers(false, &[], true), "without a gRPC status"),
        (head().headers(true, &[], false), "a second head"),
        (
            head().frame(kind::DATA, 0, 3, b""),
            "a stream that was never opened",
        ),
        (
            head().frame(kind::HEADERS, 4, 2, b""),
            "a stream that was never opened",
        ),
        (
            head().frame(kind::PUSH_PROMISE, 4, 1, b"\0\0\0\x02"),
            "PUSH_PROMISE",
        ),
        (head().frame(kind::CONTINUATION, 4, 1, b""), "CONTINUATION"),
        (
            head().frame(kind::HEADERS, 0, 1, b"").data(b""),
            "interrupted",
        ),
        (
            head().frame(kind::HEADERS, 0x24, 1, b"ab"),
            "too short for its priority",
        ),
        (head().frame(kind::SETTINGS, 0, 0, b"12345"), "SETTINGS"),
        (
            head().frame(kind::SETTINGS, 0, 0, b"\0\x05\0\0\0\x01"),
            "SETTINGS_MAX_FRAME_SIZE out of range",
        ),
        (
            head().frame(kind::SETTINGS, 0, 0, b"\0\x04\xff\0\0\0"),
            "SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1",
        ),
        (head().frame(kind::PING, 0, 0, b"1"), "PING"),
        (head().frame(kind::RST_STREAM, 0, 1, b"1"), "RST_STREAM"),
        (head().frame(kind::GOAWAY, 0, 0, b"1234"), "GOAWAY"),
        (
            head().frame(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0bcalm down"),
            "error 11: calm down",
        ),
        (
            head().frame(kind::WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
            "WINDOW_UPDATE increment of 0",
        ),
        (
            head().frame(kind::WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"),
            "window over 2^31-1",
        ),
        (
            head().data(b"").headers(false, &[(":status", "200")], true),
            "malformed fields",
        ),
        (
            head()
                .headers(false, &[("grpc-status", "0")], true)
                .data(b"x"),
            "DATA on a stream that has ended",
        ),
    ] {
        let error = refused(server);
        assert!(error.contains(what), "{error:?} is not about {what:?}");
    }
}

#[test]
fn a_server_cannot_send_beyond_the_window() {
    let offer = Offer {
        window_bytes: 65_535,
        ..Offer::default()
    };
    let (mut gateway, _) = gateway(offer);
    let mut server = Server::with_head(0);
    server.data(&vec![0; 65_536]);
    let (outcome, _) = receive(&mut gateway, [&server.0[..]]);
    assert!(outcome.unwrap_err().to_string().contains("window"));
}

#[test]
fn a_stream_that_is_reset_has_ended_once() {
    let (mut gateway, _) = gateway(Offer::default());
    let mut server = Server::with_head(0);
    server.frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    server.frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    let (seen, _) = receive(&mut gateway, [&server.0[..]]);
    let ended = seen.unwrap().ended;
    assert_eq!(ended.len(), 1);
    assert!(ended[0].to_string().contains("error 8"), "{}", ended[0]);
}

#[derive(Debug, Default)]
struct Received {
    places: Vec<(Cursor, Cursor)>,
    ended: Vec<End>,
}

impl Responses for Received {
    fn accepted(&mut self, places: Option<(Cursor, Cursor)>) {
        self.places.push(places.unwrap());
    }

    fn ended(&mut self, end: &End) {
        self.ended.push(end.clone());
    }
}

/// The contents of all DATA frames, one after the other, and their lengths.
fn body(mut out: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut body, mut lengths) = (Vec::new(), Vec::new());
    while let Some(header) = frame::FrameHeader::read(out) {
        let content = &out[9..9 + header.payload_bytes as usize];
        if header.kind == kind::DATA {
            body.extend_from_slice(content);
            lengths.push(header.payload_bytes as usize);
        }
        out = &out[9 + header.payload_bytes as usize..];
    }
    (body, lengths)
}

#[test]
fn a_publisher_sends_no_more_than_the_windows_let_out() {
    let mut publisher = Publish::new("localhost", Offer::default());
    let mut opened = Vec::new();
    publisher.open(&mut opened);
    let shape = Shape::with_payload(1000);
    let mut batch = shape.batch();
    let stamp = Stamp {
        publisher: 0,
        number: 0,
        due_ns: 1,
        sent_ns: 2,
    };
    batch.fill(stamp, 100);
    let mut out = Vec::new();
    assert!(publisher.has_room());
    publisher.publish(&batch, &mut out);
    let (mut sent, lengths) = body(&out);
    assert_eq!(sent.len(), 65_535);
    assert!(lengths.iter().all(|length| *length <= 16 << 10));
    assert!(!publisher.has_room());

    let mut server = Server::new();
    server.frame(kind::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
    let mut received = Received::default();
    out.clear();
    publisher
        .receive(&server.0, &mut out, &mut received)
        .unwrap();
    assert!(body(&out).0.is_empty(), "the stream's window is full");
    let mut server = Server::default();
    frame::write_settings(&mut server.0, &[(setting::INITIAL_WINDOW_SIZE, 65_540)]);
    publisher
        .receive(&server.0, &mut out, &mut received)
        .unwrap();
    assert_eq!(body(&out).0.len(), 5);
    let mut server = Server::default();
    server.frame(kind::WINDOW_UPDATE, 0, 1, &1_000_000_u32.to_be_bytes());
    publisher
        .receive(&server.0, &mut out, &mut received)
        .unwrap();
    sent.extend_from_slice(&body(&out).0);
    assert!(publisher.has_room());

    let request: crate::contract::publisher::PublishRequest =
        prost::Message::decode(&sent[5..]).unwrap();
    assert_eq!(request.events.len(), 100);
    assert_eq!(
        sent[..5],
        [&[0][..], &(sent.len() as u32 - 5).to_be_bytes()].concat()
    );
}

#[test]
fn a_publisher_gets_its_responses_and_the_end() {
    let mut publisher = Publish::new("localhost", Offer::default());
    publisher.open(&mut Vec::new());
    let mut server = Server::new();
    server.headers(true, &[], false);
    let response = format!("\0\0\0\0\x34\x0a\x18{}\x12\x18{}", cursor(7), cursor(9));
    server.data(response.repeat(2).as_bytes());
    server.headers(
        false,
        &[("grpc-status", "14"), ("grpc-message", "bye")],
        true,
    );
    let mut received = Received::default();
    let done = publisher.receive(&server.0, &mut Vec::new(), &mut received);
    assert_eq!(done, Ok(server.0.len()));
    assert_eq!(received.places, [(cursor(7), cursor(9)); 2]);
    assert_eq!(received.ended[0].code, End::UNAVAILABLE);
    assert!(!publisher.has_room());
}

proptest::proptest! {
    #[test]
    fn no_server_makes_it_panic(
        flips in proptest::collection::vec((0_usize..2000, 0_u8..), 0..8),
        cut in 0_usize..2000,
    ) {
        let (mut server, _) = everything();
        for (at, byte) in flips {
            let at = at % server.0.len();
            server.0[at] = byte;
        }
        let cut = cut % server.0.len();
        let (mut gateway, _) = gateway(Offer::default());
        let (mut seen, mut out) = (Seen::default(), Vec::new());
        let done = gateway.receive(&server.0[..cut], &mut out, &mut seen);
        if let Ok(done) = done {
            let _ = gateway.receive(&server.0[done..], &mut out, &mut seen);
        }
    }
}
