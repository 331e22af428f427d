//! One call from the client's end.

use super::*;
use crate::http2::frame::{FrameHeader, HEADER_BYTES, Reason};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    window_bytes: 100_000,
    max_frame_bytes: 1 << 14,
    max_field_bytes: 1000,
};
const OK: &[u8] = b"\x88";

fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

fn headers(flags: u8, block: &[u8]) -> Vec<u8> {
    bytes(kind::HEADERS, flag::END_HEADERS | flags, STREAM, block)
}

fn greeting() -> Vec<u8> {
    bytes(kind::SETTINGS, 0, 0, &[])
}

fn open() -> Connection {
    Connection::open(LIMITS, "localhost", "/", &HeaderMap::new(), &mut Vec::new())
}

/// What it is told, data that is cut put together, and what it answers.
fn receive(
    connection: &mut Connection,
    pieces: &[&[u8]],
) -> (Result<Vec<String>, ConnectionError>, Vec<u8>) {
    let (mut told, mut out) = (Vec::new(), Vec::new());
    let mut body = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            let event = match connection.receive(&mut input, &mut out) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => return (Err(error), out),
            };
            told.push(match event {
                Event::Data { data, ends } => {
                    body.extend_from_slice(data);
                    if !ends {
                        continue;
                    }
                    "end of data".to_owned()
                }
                Event::Head { status, ends, .. } => format!("head {status} {ends}"),
                Event::Trailers(fields) => format!("trailers {}", fields.len()),
                Event::Reset(code) => format!("reset {code}"),
            });
        }
        assert!(input.is_empty());
    }
    told.push(format!("body {:?}", String::from_utf8_lossy(&body)));
    (Ok(told), out)
}

/// What it says of this, after the settings.
fn told(frames: &[Vec<u8>]) -> Result<Vec<String>, ConnectionError> {
    let input = [greeting(), frames.concat()].concat();
    receive(&mut open(), &[&input]).0
}

#[test]
fn a_response_has_a_head_a_body_and_an_end() {
    let head = || headers(0, OK);
    let data = |flags, data: &[u8]| bytes(kind::DATA, flags, STREAM, data);
    let trailers = headers(flag::END_STREAM, b"\x00\x01a\x01b");
    let early_hints = headers(0, b"\x08\x03103");
    for (what, frames, expected) in [
        (
            "all head",
            vec![headers(flag::END_STREAM, OK)],
            vec!["head 200 true", "body \"\""],
        ),
        (
            "an interim head before it, padding, and trailers",
            vec![
                early_hints,
                head(),
                data(0, b"ab"),
                data(flag::PADDED, b"\x02cd\0\0"),
                trailers,
            ],
            vec!["head 200 false", "trailers 1", "body \"abcd\""],
        ),
        (
            "data that ends",
            vec![head(), data(flag::END_STREAM, b"x")],
            vec!["head 200 false", "end of data", "body \"x\""],
        ),
        (
            "a reset, twice",
            [
                vec![head()],
                vec![bytes(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]); 2],
            ]
            .concat(),
            vec!["head 200 false", "reset 8", "body \"\""],
        ),
        (
            "a graceful end of the connection",
            vec![
                bytes(kind::GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0bye"),
                head(),
            ],
            vec!["head 200 false", "body \"\""],
        ),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(told(&frames), Ok(expected), "{what}");
    }
}

#[test]
fn what_breaks_a_rule_is_told_apart() {
    let interim_end = headers(flag::END_STREAM, b"\x08\x03100");
    let data_first = bytes(kind::DATA, 0, STREAM, &[0; 1 << 14]);
    let large = [OK, b"\x00\x01a\x7f\xe9\x07", &[b'x'; 1128]].concat();
    for (frames, reason) in [
        (vec![interim_end], Reason::ProtocolError),
        (vec![headers(0, b"\x00\x01a\x01b")], Reason::ProtocolError),
        (vec![headers(0, b"\xbe")], Reason::CompressionError),
        (vec![headers(0, &large)], Reason::EnhanceYourCalm),
        (vec![headers(0, OK), headers(0, OK)], Reason::ProtocolError),
        (
            vec![headers(0, OK), headers(flag::END_STREAM, OK)],
            Reason::ProtocolError,
        ),
        (
            vec![headers(flag::END_STREAM, OK), headers(flag::END_STREAM, OK)],
            Reason::StreamClosed,
        ),
        (
            vec![bytes(kind::PRIORITY, 0, 1, &[0; 4])],
            Reason::FrameSizeError,
        ),
        (vec![data_first], Reason::ProtocolError),
    ] {
        match told(&frames) {
            Err(ConnectionError::Protocol(error)) => assert_eq!(error.reason, reason, "{error}"),
            other => panic!("{other:?}, and not {reason:?}"),
        }
    }
    let go_away = bytes(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0bcalm down");
    let error = told(&[go_away]).unwrap_err();
    assert!(
        error.to_string().ends_with("error 11: calm down"),
        "{error}"
    );
}

#[test]
fn a_request_is_sent_as_far_as_the_windows_allow() {
    let mut connection = open();
    let body = vec![b'x'; 70_000];
    let mut out = Vec::new();
    assert_eq!(connection.send(&body, true, &mut out), 65_535);
    let frames = 65_535_usize.div_ceil(1 << 14);
    assert_eq!(out.len(), 65_535 + frames * HEADER_BYTES);
    let more = [
        greeting(),
        bytes(kind::WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes()),
        bytes(kind::WINDOW_UPDATE, 0, STREAM, &10_000_u32.to_be_bytes()),
    ];
    receive(&mut connection, &[&more.concat()]).0.unwrap();
    out.clear();
    assert_eq!(connection.send(&body[65_535..], true, &mut out), 4465);
    let header = FrameHeader::read(&out).unwrap();
    assert_eq!((header.flags, out.len()), (flag::END_STREAM, 9 + 4465));
}

#[test]
fn no_server_sends_beyond_the_window_and_it_is_opened_in_time() {
    let data = bytes(kind::DATA, 0, STREAM, &[0; 1 << 14]);
    let mut connection = open();
    let start = [greeting(), headers(0, OK)].concat();
    receive(&mut connection, &[&start]).0.unwrap();
    for _ in 0..100 {
        receive(&mut connection, &[&data]).0.unwrap();
    }
    // The connection's window is one thing, the stream's another.
    connection.receive = ReceiveWindow::new(INITIAL_WINDOW);
    assert!(connection.receive.receive(INITIAL_WINDOW));
    match receive(&mut connection, &[&data]).0 {
        Err(ConnectionError::Protocol(error)) => {
            assert_eq!(error.reason, Reason::FlowControlError);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn however_the_bytes_arrive_it_is_the_same(
        frames in proptest::collection::vec(
            (0_u8..11, any::<u8>(), 0_u32..3, prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..20),
                Just(OK.to_vec()),
                Just(vec![0; 8]),
            ]),
            0..12,
        ),
        size in 1_usize..40,
    ) {
        let frames = frames.iter().flat_map(|(k, f, s, p)| bytes(*k, *f, *s, p));
        let input: Vec<u8> = [greeting(), headers(0, OK)].concat().into_iter().chain(frames).collect();
        let cut: Vec<&[u8]> = input.chunks(size).collect();
        prop_assert_eq!(receive(&mut open(), &[&input]), receive(&mut open(), &cut));
    }
}
