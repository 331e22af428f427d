//! What is a flood, and what is not: each test names the reason that the peer is given.

use super::*;
use crate::http2::server::budget;

/// A gateway that is well, on stream 1.
fn with_live_stream() -> Server {
    let mut server = open();
    receive(&mut server, &request(1, b"")).unwrap();
    server.respond(1, 200, &HeaderMap::new());
    output(&mut server);
    server
}

/// What comes of 100,000 repetitions a second, beside a stream that is well. `react` does what
/// a server does.
fn flood(
    server: &mut Server,
    mut repeat: impl FnMut(u32) -> Vec<u8>,
    mut react: impl FnMut(&mut Server, u32),
) -> (&'static str, u32) {
    let mut now = Instant::now();
    for n in 0..100_000 {
        now += Duration::from_micros(10);
        // The first stream that is free.
        let words = repeat(2 * n + 11);
        if let Err(error) = server.receive(&words, now) {
            assert_eq!(error.reason, Reason::EnhanceYourCalm);
            let frames = output(server);
            let (header, payload) = frames.last().unwrap();
            assert_eq!(header.kind, kind::GOAWAY);
            assert_eq!(&payload[8..], error.text.as_bytes());
            return (error.text, n);
        }
        react(server, 2 * n + 11);
        server.take_ended().for_each(drop);
        output(server);
    }
    panic!("it is not stopped");
}

fn is_stopped(name: &str, repeat: impl FnMut(u32) -> Vec<u8>, text: &str) {
    let mut server = with_live_stream();
    receive(&mut server, &headers(3, 0, POST)).unwrap();
    let (reason, times) = flood(&mut server, repeat, |_, _| {});
    assert_eq!(reason, text, "{name}");
    assert!((100..10_000).contains(&times), "{name}: {times}");
}

#[test]
fn floods_of_frames_end_the_connection_by_their_name() {
    for (frame, text) in [
        (bytes(kind::PING, 0, 0, &[0; 8]), "too many PING frames"),
        (
            bytes(kind::PING, flag::ACK, 0, &[0; 8]),
            "too many PING frames",
        ),
        (settings(&[]), "too many SETTINGS"),
        (
            bytes(kind::SETTINGS, flag::ACK, 0, b""),
            "too many SETTINGS",
        ),
        (
            settings(&[(setting::INITIAL_WINDOW_SIZE, 5); 9]),
            "too many SETTINGS",
        ),
        (window_update(0, 1), "too many WINDOW_UPDATE frames"),
        (window_update(1, 1), "too many WINDOW_UPDATE frames"),
        (
            bytes(kind::DATA, 0, 3, b""),
            "too many DATA frames that are empty or on closed streams",
        ),
        (
            bytes(kind::DATA, flag::PADDED, 3, b"\x03\0\0\0"),
            "too many DATA frames that are empty or on closed streams",
        ),
        (bytes(kind::PRIORITY, 0, 5, &[0; 5]), "too many frames"),
        (bytes(kind::GOAWAY, 0, 0, &[0; 8]), "too many frames"),
        (bytes(99, 0, 0, b""), "too many frames"),
    ] {
        is_stopped(&format!("{frame:?}"), |_| frame.clone(), text);
    }
}

#[test]
fn rapid_reset_ends_the_connection() {
    // CVE-2023-44487, with and without a body, by whatever reason.
    for code in [8_u32, 2, 0] {
        is_stopped(
            "rapid reset",
            |id| {
                [
                    headers(id, 0, POST),
                    bytes(kind::DATA, 0, id, b"x"),
                    bytes(kind::RST_STREAM, 0, id, &code.to_be_bytes()),
                ]
                .concat()
            },
            "too many streams reset by the peer",
        );
    }
}

#[test]
fn streams_that_we_are_made_to_reset_end_the_connection() {
    // CVE-2025-8671: each of these has us reset the stream that was just opened.
    let faults: [fn(u32) -> Vec<u8>; 5] = [
        |id| window_update(id, 0),
        |id| window_update(id, MAX_WINDOW),
        |id| bytes(kind::DATA, 0, id, b"x"),
        |id| bytes(kind::PRIORITY, 0, id, &[0; 4]),
        |id| {
            bytes(
                kind::PRIORITY,
                0,
                id,
                &[&id.to_be_bytes()[..], &[0]].concat(),
            )
        },
    ];
    for (n, fault) in faults.iter().enumerate() {
        let repeat = |id| [headers(id, flag::END_STREAM, POST), fault(id)].concat();
        is_stopped(&format!("fault {n}"), repeat, "too many stream errors");
    }
    let twice = |id| headers(id, 0, POST).repeat(2);
    is_stopped("HEADERS twice", twice, "too many stream errors");
    let malformed = |id| headers(id, flag::END_STREAM, b"\x83");
    is_stopped("malformed", malformed, "too many stream errors");
}

#[test]
fn header_blocks_without_end_end_the_connection() {
    // CVE-2024-27316.
    for (piece, text) in [
        (&b""[..], "too many CONTINUATION frames"),
        // A literal, again and again.
        (&b"\x00\x01a\x01b".repeat(100)[..], "too many header fields"),
        // One literal of 2^27 bytes.
        (&[b'x'; 1000], "too many header fields"),
    ] {
        let mut begun = false;
        let repeat = |_| {
            if std::mem::replace(&mut begun, true) {
                return bytes(kind::CONTINUATION, 0, 5, piece);
            }
            let long = piece.first() == Some(&b'x');
            let start: &[u8] = if long {
                b"\x00\x01a\x7f\x80\x80\x80\x40"
            } else {
                b""
            };
            bytes(kind::HEADERS, 0, 5, start)
        };
        is_stopped(&format!("{:?}", piece.first()), repeat, text);
    }
}

#[test]
fn a_small_header_block_that_stands_for_much_ends_the_connection() {
    let mut server = with_live_stream();
    // Into the table, and then out of it, as a whole or as a name.
    let large = [&b"\x40\x7f\xa1\x1e"[..], &[b'x'; 4000], b"\x01a"].concat();
    let large = [POST, &large].concat();
    receive(&mut server, &headers(3, flag::END_STREAM, &large)).unwrap();
    for bomb in [&b"\xbe"[..], b"\x0f\x2f\x00"] {
        let block = [POST, &bomb.repeat(1000)].concat();
        let received = server.receive(&headers(5, 0, &block), Instant::now());
        assert_eq!(received.unwrap_err().text, "too many header fields");
        server = with_live_stream();
        receive(&mut server, &headers(3, flag::END_STREAM, &large)).unwrap();
    }
}

#[test]
fn windows_opened_by_a_byte_end_the_connection() {
    // Each update has us send a frame with a byte.
    let mut server = with_live_stream();
    let none = settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    receive(&mut server, &none).unwrap();
    let opened = |_| [window_update(1, 1), window_update(0, 1)].concat();
    let (reason, _) = flood(&mut server, opened, |server, _| {
        assert_eq!(server.send(1, b"data"), 1);
    });
    assert_eq!(reason, "too many WINDOW_UPDATE frames");
}

#[test]
fn requests_are_refused_by_themselves_before_the_connection_ends() {
    let mut server = with_live_stream();
    let mut now = Instant::now();
    let mut refused = 0;
    let mut id = 1;
    while refused < 100 {
        id += 2;
        server.receive(&request(id, b""), now).unwrap();
        server.finish(id);
        let calm = reset(id, Reason::EnhanceYourCalm);
        refused += summary(&output(&mut server))
            .iter()
            .filter(|f| **f == calm)
            .count();
    }
    assert!(id > 1000, "{id}");
    assert_eq!(server.send(1, b"an event"), 8, "the live one goes on");
    output(&mut server);
    now += Duration::from_secs(1);
    server.receive(&request(id + 2, b""), now).unwrap();
    assert!(
        server.index(id + 2).is_some(),
        "after a while others are taken"
    );
    server.finish(id + 2);
    let (reason, _) = flood(
        &mut server,
        |n| request(id + 1 + n, b""),
        |server, n| server.finish(id + 1 + n),
    );
    assert_eq!(reason, "too many requests");
}

#[test]
fn fifty_a_second_of_what_proxies_bring_are_no_flood() {
    // As a proxy does it: a gateway that is well, and its neighbours' retries that are
    // refused, takeovers, cancels as Envoy and nghttpx tell them (INTERNAL_ERROR), deadlines
    // (CANCEL), health probes. All with the fields of a real client, for five minutes.
    let fields = [POST, b"\x00\x05agent\x7f\x81\x02", &[b'a'; 384]].concat();
    let call = |id: u32| {
        [
            headers(id, 0, &fields),
            bytes(kind::DATA, flag::END_STREAM, id, b"request"),
        ]
        .concat()
    };
    let rst = |id, code: u32| bytes(kind::RST_STREAM, 0, id, &code.to_be_bytes());
    let mut server = with_live_stream();
    let mut now = Instant::now();
    let mut id = 1;
    for n in 0..50 * 300 {
        now += Duration::from_millis(20);
        for what in 0..5 {
            id += 2;
            server.receive(&call(id), now).unwrap();
            assert!(server.index(id).is_some(), "refused after {n}");
            match what {
                // Refused, or not implemented.
                0 | 1 => server.finish(id),
                2 => {
                    server.respond(id, 200, &HeaderMap::new());
                    server.response(id).trailers(&HeaderMap::new());
                }
                3 => {
                    server.respond(id, 200, &HeaderMap::new());
                    server.receive(&rst(id, 2), now).unwrap();
                }
                _ => server.receive(&rst(id, 8), now).unwrap(),
            }
            server.take_ended().for_each(drop);
        }
        if n % 50 == 0 {
            let ping = bytes(kind::PING, 0, 0, &[0; 8]);
            server.receive(&ping, now).unwrap();
        }
        server.output().clear();
    }
    assert!(server.index(1).is_some());
    assert!(server.budget.left() > budget::RESERVE);
}

#[test]
fn a_stream_that_is_well_counts_in_its_peers_favour() {
    // The same rate of retries, with and without one.
    let refused = |mut server: Server| {
        let mut now = Instant::now();
        (0..).map(|n| 2 * n + 3).take(250 * 60).any(|id| {
            now += Duration::from_millis(4);
            server.receive(&request(id, b""), now).unwrap();
            let is_refused = server.index(id).is_none();
            server.finish(id);
            server.output().clear();
            is_refused
        })
    };
    assert!(!refused(with_live_stream()));
    assert!(refused(open()));
}
