//! What ends a stream, and what does not end a connection.

use super::*;

const CLOSED: Option<Reason> = Some(Reason::StreamClosed);
const MALFORMED: Option<Reason> = Some(Reason::ProtocolError);

fn data(stream: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    bytes(kind::DATA, flags, stream, data)
}

/// The only RST_STREAM that comes of these frames, for the stream 1; or none.
fn reset_by(connection: &mut Server, frames: &[u8]) -> Option<Reason> {
    receive(connection, frames).expect("the connection goes on");
    let frames = summary(&output(connection));
    let resets: Vec<_> = frames
        .into_iter()
        .filter(|frame| frame.0 == kind::RST_STREAM)
        .collect();
    if resets.is_empty() {
        return None;
    }
    let reasons = [Reason::StreamClosed, Reason::ProtocolError];
    let told = reasons.into_iter().find(|of| resets == [reset(1, *of)]);
    assert!(told.is_some(), "{resets:?}");
    told
}

#[test]
fn a_body_is_as_long_as_its_content_length() {
    // RFC 7541, appendix A: 28.
    let head = |length: &[u8], flags| {
        let block = [POST, &[0x0f, 13, length.len() as u8], length].concat();
        headers(1, flags, &block)
    };
    let trailers = headers(1, flag::END_STREAM, b"\x00\x01a\x01b");
    for (what, frames, expected) in [
        (
            "as long",
            vec![head(b"4", 0), data(1, 0, b"abc"), data(1, 1, b"d")],
            None,
        ),
        (
            "as long, and trailers",
            vec![head(b"3", 0), data(1, 0, b"abc"), trailers.clone()],
            None,
        ),
        (
            "padding does not count",
            vec![
                head(b"1", 0),
                data(1, flag::PADDED | flag::END_STREAM, b"\x02a\0\0"),
            ],
            None,
        ),
        (
            "longer in one frame",
            vec![head(b"2", 0), data(1, 0, b"abc")],
            MALFORMED,
        ),
        (
            "longer in several",
            vec![head(b"3", 0), data(1, 0, b"abc"), data(1, 0, b"d")],
            MALFORMED,
        ),
        (
            "shorter",
            vec![head(b"4", 0), data(1, flag::END_STREAM, b"abc")],
            MALFORMED,
        ),
        (
            "shorter, and trailers",
            vec![head(b"4", 0), data(1, 0, b"abc"), trailers.clone()],
            MALFORMED,
        ),
        ("none at all", vec![head(b"4", flag::END_STREAM)], MALFORMED),
        ("none, as it says", vec![head(b"0", flag::END_STREAM)], None),
    ] {
        let mut connection = open();
        let told = reset_by(&mut connection, &frames.concat());
        assert_eq!(told, expected, "{what}");
        let open = usize::from(expected.is_none());
        assert_eq!(connection.open_streams(), open, "{what}");
    }
}

#[test]
fn frames_after_the_end_of_a_stream_are_a_fault_only_if_the_peer_knew() {
    let start = || {
        let mut connection = open();
        receive(&mut connection, &headers(1, 0, POST)).unwrap();
        connection
    };
    let late = data(1, 0, b"late");
    // We have ended it in the middle of the request.
    let mut connection = start();
    connection.reset(1, Reason::Cancel);
    connection.take_ended().for_each(drop);
    output(&mut connection);
    assert_eq!(reset_by(&mut connection, &late), None);
    // Up to what the peer says is the end of it.
    assert_eq!(reset_by(&mut connection, &data(1, 1, b"end")), None);
    assert_eq!(reset_by(&mut connection, &late), CLOSED);

    // The peer has reset it.
    let mut connection = start();
    receive(&mut connection, &bytes(kind::RST_STREAM, 0, 1, &[0; 4])).unwrap();
    connection.take_ended().for_each(drop);
    assert_eq!(reset_by(&mut connection, &late), CLOSED);
    let more = headers(1, flag::END_STREAM, b"\x00\x01a\x01b");
    assert_eq!(reset_by(&mut connection, &more), CLOSED);

    // The peer has completed its request, and we the response.
    let mut connection = start();
    receive(&mut connection, &data(1, flag::END_STREAM, b"")).unwrap();
    assert_eq!(connection.index(1), Some(0), "it waits for its response");
    connection.finish(1);
    output(&mut connection);
    assert_eq!(reset_by(&mut connection, &late), CLOSED);
    let harmless = [
        window_update(1, 1),
        bytes(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 16]),
        bytes(kind::RST_STREAM, 0, 1, &[0; 4]),
    ];
    assert_eq!(reset_by(&mut connection, &harmless.concat()), None);
    let mut connection = start();
    receive(&mut connection, &data(1, flag::END_STREAM, b"")).unwrap();
    connection.finish(1);
    assert_eq!(receive(&mut connection, &more), Err(Reason::StreamClosed));

    // Of one that was long ago, nobody knows.
    let mut connection = start();
    receive(&mut connection, &bytes(kind::RST_STREAM, 0, 1, &[0; 4])).unwrap();
    for stream in (3..).step_by(2).take(100) {
        receive(&mut connection, &request(stream, b"")).unwrap();
        connection.finish(stream);
    }
    assert_eq!(reset_by(&mut connection, &late), None);
}

#[test]
fn a_connection_with_a_stream_that_is_well_bears_its_neighbours_cancels() {
    let goes_on_for_a_minute = |is_well: bool| {
        let mut connection = open();
        receive(&mut connection, &request(1, b"")).unwrap();
        if is_well {
            connection.respond(1, 200, &HeaderMap::new());
        }
        output(&mut connection);
        let start = Instant::now();
        (0..60 * 250).all(|n| {
            let stream = 2 * n + 3;
            let cancelled = [
                headers(stream, 0, POST),
                bytes(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
            ];
            let now = start + Duration::from_millis(4) * n;
            let received = connection.receive(&cancelled.concat(), now);
            connection.take_ended().for_each(drop);
            // It says nothing, but to refuse.
            received.is_ok() && output(&mut connection).is_empty()
        })
    };
    assert!(goes_on_for_a_minute(true));
    // Else it is a flood that brings nobody anything.
    assert!(!goes_on_for_a_minute(false));
}
