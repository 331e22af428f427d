//! What no honest peer sends. Each attack is stopped for its own reason, which the peer
//! is told; after it the server serves a new gateway and a new publisher.

#![cfg(feature = "server")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use galaxy_push::contract::push::PushEvent;
use http::{Method, Request, StatusCode};
use prost::Message;
use support::frames::{self, MAX_WINDOW, PREFACE, Reason, flag, kind, setting};
use support::goodbye::{self, Goodbye};
use support::grpc::{self, PUBLISH, SUBSCRIBE};
use support::h2_client::H2Client;
use support::header_block::HeaderBlock;
use support::wire::Wire;
use support::{Harness, event, large_event, publish, soon, until};
use tokio::time::{Instant, sleep, timeout};

/// What the watchdog does when nothing else ends a connection: it cuts one without a
/// handshake after 10 s, and one that is silent after 40 s.
const BEFORE_THE_SILENT_ARE_CUT: Duration = Duration::from_secs(30);

/// Sends `attack` on a new connection, in place of its preface too, and checks why the
/// server ends it.
async fn stopped(address: SocketAddr, attack: &[u8], expected: Goodbye, what: &str) {
    let wire = Wire::connect_silent(address).await;
    wire.send_until_goodbye(attack, 1, expected, what).await;
}

/// Bytes without a pattern, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn what_is_no_client_preface_is_told_so() {
    let server = Harness::start().await;
    for address in server.addresses() {
        for (what, garbage) in [
            ("noise", noise(100_000)),
            ("zeros", vec![0; 1000]),
            ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
            (
                "another version",
                b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n".to_vec(),
            ),
        ] {
            stopped(address, &garbage, goodbye::NOT_HTTP2, what).await;
        }
        let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc";
        stopped(address, hello, goodbye::TLS, "a TLS handshake").await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_preface_without_settings_behind_it_is_told_so() {
    let server = Harness::start().await;
    for address in server.addresses() {
        for (what, frame, expected) in [
            (
                "a frame that claims 16 MiB",
                vec![0xff; 9],
                goodbye::FRAME_TOO_LONG,
            ),
            ("DATA", frames::data(1, b"data"), goodbye::NO_SETTINGS_FIRST),
            ("PING", frames::ping(&[0; 8]), goodbye::NO_SETTINGS_FIRST),
            (
                "an acknowledgement",
                frames::any(kind::SETTINGS, flag::ACK, 0, b""),
                goodbye::NO_SETTINGS_FIRST,
            ),
        ] {
            let attack = [PREFACE, &frame[..]].concat();
            stopped(address, &attack, expected, what).await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_frame_that_must_not_be_ends_the_connection_with_its_own_error() {
    let server = Harness::start().await;
    let block = HeaderBlock::request("POST", "/");
    for (address, path) in server.methods() {
        for (what, attack, expected) in [
            (
                "noise of which the first frame would be long",
                [vec![0xff], noise(50_000)].concat(),
                goodbye::FRAME_TOO_LONG,
            ),
            (
                "DATA that claims 16 MiB",
                [
                    &frames::open_call(1, path)[..],
                    &[0xff, 0xff, 0xff, kind::DATA, 0, 0, 0, 0, 1],
                ]
                .concat(),
                goodbye::FRAME_TOO_LONG,
            ),
            (
                "DATA on an idle stream",
                frames::data(7, b"data"),
                goodbye::IDLE_STREAM,
            ),
            (
                "RST_STREAM on an idle stream",
                frames::rst_stream(7, Reason::Cancel),
                goodbye::IDLE_STREAM,
            ),
            (
                "WINDOW_UPDATE on an idle stream",
                frames::window_update(7, 1),
                goodbye::IDLE_STREAM,
            ),
            (
                "a request on an even stream",
                frames::headers(2, &block),
                goodbye::EVEN_STREAM,
            ),
            (
                "a header block of noise",
                frames::any(kind::HEADERS, flag::END_HEADERS, 1, &noise(100)),
                goodbye::HPACK,
            ),
            (
                "a header block with an entry that no table has",
                frames::headers(1, &HeaderBlock::new().entry(0)),
                goodbye::HPACK,
            ),
            (
                "CONTINUATION of nothing",
                frames::any(kind::CONTINUATION, flag::END_HEADERS, 1, block.bytes()),
                goodbye::CONTINUATION_ALONE,
            ),
            (
                "PING inside a header block",
                [
                    frames::any(kind::HEADERS, 0, 1, block.bytes()),
                    frames::ping(&[0; 8]),
                ]
                .concat(),
                goodbye::HEADERS_INTERRUPTED,
            ),
            (
                "WINDOW_UPDATE of 0",
                frames::window_update(0, 0),
                goodbye::WINDOW_UPDATE_OF_0,
            ),
            (
                "PUSH_PROMISE",
                frames::any(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2]),
                goodbye::PUSH_PROMISE,
            ),
        ] {
            let wire = Wire::connect(address).await;
            wire.send_until_goodbye(&attack, 1, expected, what).await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let server = Harness::start().await;
    for address in server.addresses() {
        for (what, first, piece, expected) in [
            (
                "one value of 16 MiB",
                HeaderBlock::new().announced("a", 16 << 20),
                &[b'x'; 1000][..],
                goodbye::HEADER_FLOOD,
            ),
            (
                "nothing at all",
                HeaderBlock::new(),
                b"",
                goodbye::CONTINUATION_FLOOD,
            ),
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(&frames::any(kind::HEADERS, 0, 1, first.bytes()))
                .await;
            let pieces = frames::any(kind::CONTINUATION, 0, 1, piece).repeat(100);
            wire.send_until_goodbye(&pieces, 100, expected, what).await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn more_header_fields_than_allowed_are_431_and_other_calls_go_on() {
    let server = Harness::start().await;
    for (address, path) in [
        (server.gateway_addr(), SUBSCRIBE),
        (server.publisher_addr(), PUBLISH),
    ] {
        let mut wire = Wire::connect(address).await;
        let value = "x".repeat(1000);
        let call = HeaderBlock::call(path);
        let large = (0..20).fold(call.clone(), |block, n| {
            block.literal(&format!("x-padding-{n}"), &value)
        });
        let (first, rest) = large.bytes().split_at(16_000);
        wire.send(&frames::any(kind::HEADERS, flag::END_STREAM, 1, first))
            .await;
        let flags = flag::END_HEADERS;
        wire.send(&frames::any(kind::CONTINUATION, flags, 1, rest))
            .await;
        let head = wire.find(kind::HEADERS).await;
        assert_eq!((head.stream, head.ends_stream()), (1, true), "{path}");
        assert_eq!(head.field(":status").as_deref(), Some("431"), "{path}");

        wire.send(&frames::headers_end(3, &call)).await;
        let head = wire.find(kind::HEADERS).await;
        assert_eq!(head.stream, 3, "{path}");
        assert_eq!(head.field(":status").as_deref(), Some("200"), "{path}");
    }
    assert_eq!(server.engine.stats().subscribers, 0);
    server.assert_alive().await;
}

#[tokio::test]
async fn http_requests_that_are_no_grpc_calls_are_405_or_415() {
    let server = Harness::start().await;
    for address in server.addresses() {
        let client = H2Client::connect(address).await;
        let call = async |request: Request<()>| {
            let what = format!("{request:?}");
            let mut streams = soon(client.streams.clone().ready())
                .await
                .expect("a free stream");
            let (response, _) = streams.send_request(request, true).expect("sent");
            let response = soon(response).await;
            response.unwrap_or_else(|error| panic!("{what}: {error}"))
        };
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT] {
            for path in ["/", "/*", SUBSCRIBE, PUBLISH, "/%00", "/a/%ff"] {
                let uri = format!("http://localhost{path}");
                let request = Request::builder().method(&method).uri(uri);
                let response = call(request.body(()).unwrap()).await;
                let status = response.status();
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert_eq!(response.headers()["allow"], "POST", "{method} {path}");
            }
        }
        let connect = Request::connect("localhost:80").body(()).unwrap();
        let status = call(connect).await.status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "CONNECT");
        for content_type in [None, Some("text/plain"), Some("application/json"), Some("")] {
            for path in [SUBSCRIBE, PUBLISH, "/"] {
                let mut request = Request::post(format!("http://localhost{path}"));
                if let Some(content_type) = content_type {
                    request = request.header("content-type", content_type);
                }
                let status = call(request.body(()).unwrap()).await.status();
                let expected = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                assert_eq!(status, expected, "{content_type:?} {path}");
            }
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_malformed_request_resets_its_stream_and_no_other() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let mut wire = Wire::connect(address).await;
        wire.send(&frames::open_call(1, path)).await;
        let call = || HeaderBlock::call(path);
        let mut stream = 1;
        for (what, block) in [
            ("no fields", HeaderBlock::new()),
            (
                "no :path",
                HeaderBlock::new()
                    .literal(":method", "POST")
                    .literal(":scheme", "http"),
            ),
            ("an empty :path", HeaderBlock::request("POST", "")),
            (":method twice", {
                HeaderBlock::new()
                    .literal(":method", "POST")
                    .literal(":method", "POST")
            }),
            ("a response's :status", call().literal(":status", "200")),
            ("upper case", call().literal("X-Upper", "1")),
            ("connection", call().literal("connection", "close")),
            ("te: gzip", call().literal("te", "gzip")),
            ("a line feed", call().literal("x-a", "1\n2")),
        ] {
            stream += 2;
            wire.send(&frames::headers(stream, &block)).await;
            let reset = wire.find_on(stream).await;
            assert_eq!(reset.kind, kind::RST_STREAM, "{path}: {what}: {reset:?}");
            let protocol_error = Some(Reason::ProtocolError as u32);
            assert_eq!(reset.code(), protocol_error, "{path}: {what}");
        }
        // The first call is still there, and takes its request.
        let request = match path {
            SUBSCRIBE => grpc::subscribe_request("gateway", ""),
            _ => grpc::publish_request(vec![event(1)]),
        };
        wire.send(&frames::data_end(1, &request)).await;
        let response = wire.find_on(1).await;
        let taken = response.kind == kind::DATA || response.field("grpc-status").is_none();
        assert!(taken, "{path}: {response:?}");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn streams_that_are_reset_as_they_are_opened_end_the_connection() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        // CVE-2023-44487, as fast as it can be written.
        let resets: Vec<u8> = (0..20_000)
            .flat_map(|n| {
                let stream = 2 * n + 1;
                let open = frames::open_call(stream, path);
                [open, frames::rst_stream(stream, Reason::Cancel)].concat()
            })
            .collect();
        let wire = Wire::connect(address).await;
        wire.send_until_goodbye(&resets, 1, goodbye::RESET_FLOOD, path)
            .await;
    }
    until(|| server.engine.stats().subscribers == 0).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn frames_that_bring_nobody_anything_end_the_connection() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        for (what, frame, expected) in [
            ("PING", frames::ping(&[0; 8]), goodbye::PING_FLOOD),
            ("PING ACK", frames::ping_ack(&[0; 8]), goodbye::PING_FLOOD),
            (
                "no settings",
                frames::settings(&[]),
                goodbye::SETTINGS_FLOOD,
            ),
            ("empty DATA", frames::data(1, b""), goodbye::DATA_FLOOD),
            (
                "the connection's window by a byte",
                frames::window_update(0, 1),
                goodbye::WINDOW_FLOOD,
            ),
            (
                "a stream's window by a byte",
                frames::window_update(1, 1),
                goodbye::WINDOW_FLOOD,
            ),
            (
                "frames of no known kind",
                frames::any(99, 0, 0, b""),
                goodbye::FRAME_FLOOD,
            ),
            (
                "one setting",
                frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]),
                goodbye::SETTINGS_FLOOD,
            ),
            // One frame with more settings than anybody has.
            (
                "2,700 settings at once",
                frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 100); 2700]),
                goodbye::SETTINGS_FLOOD,
            ),
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(&frames::open_call(1, path)).await;
            wire.send_until_goodbye(&frame.repeat(100), 1000, expected, (path, what))
                .await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_flood_whose_responses_are_not_read_ends_the_connection_for_the_flood() {
    let server = Harness::start().await;
    for address in server.addresses() {
        let mut wire = Wire::connect(address).await;
        // All responses fit into the sockets' buffers, so that nothing stalls.
        wire.send(&frames::ping(&[0; 8]).repeat(10_000)).await;
        wire.assert_goodbye(goodbye::PING_FLOOD, "pings").await;
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_on_asking_and_reads_nothing_is_cut_for_its_full_socket() {
    let stall_timeout = Duration::from_secs(5);
    let server = Harness::with(|config| config.stall_timeout = stall_timeout).await;
    let mut publisher = server.publisher().await;
    for _ in 0..100 {
        let batch = (0..10).map(|_| large_event(10_000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }
    // Its windows take everything: it is the socket that fills.
    let windows = [
        frames::settings(&[(setting::INITIAL_WINDOW_SIZE, MAX_WINDOW)]),
        frames::window_update(0, MAX_WINDOW - (1 << 16)),
    ];
    let mut deaf = Wire::connect_with(server.gateway_addr(), &windows.concat()).await;
    let zero = galaxy_push::cursor::Cursor::new(
        server.engine.head().epoch(),
        galaxy_push::cursor::Seq::ZERO,
    );
    let request = grpc::subscribe_request("deaf", &zero.to_string());
    deaf.send(&frames::call(1, SUBSCRIBE, &request)).await;
    until(|| server.engine.stats().subscribers == 1).await;
    // It is not silent: it pings, seldom enough to be no flood.
    let asking = async {
        use tokio::io::AsyncWriteExt;
        while deaf.socket.write_all(&frames::ping(&[0; 8])).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let begun = Instant::now();
    let cut = timeout(BEFORE_THE_SILENT_ARE_CUT, asking).await;
    assert!(cut.is_ok(), "not cut for its stall");
    assert!(begun.elapsed() >= stall_timeout, "cut for something else");
    until(|| server.engine.stats().subscribers == 0).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn windows_beyond_2_31_are_errors_of_flow_control() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        for (what, attack) in [
            ("the connection's", frames::window_update(0, MAX_WINDOW)),
            (
                "every stream's",
                frames::settings(&[(setting::INITIAL_WINDOW_SIZE, MAX_WINDOW + 1)]),
            ),
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(&frames::open_call(1, path)).await;
            wire.send_until_goodbye(&attack, 1, goodbye::WINDOW_TOO_LARGE, (path, what))
                .await;
        }
        // Of a stream, it is that stream's end.
        for (increment, reason) in [
            (0, Reason::ProtocolError),
            (MAX_WINDOW, Reason::FlowControlError),
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(&frames::open_call(1, path)).await;
            wire.send(&frames::window_update(1, increment)).await;
            let reset = wire.find(kind::RST_STREAM).await;
            assert_eq!((reset.stream, reset.code()), (1, Some(reason as u32)));
            wire.assert_alive().await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_window_of_a_byte_at_a_time_carries_whole_events() {
    let server = Harness::start().await;
    let shut = frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let mut wire = Wire::connect_with(server.gateway_addr(), &shut).await;
    let request = grpc::subscribe_request("sip", "");
    wire.send(&frames::call(1, SUBSCRIBE, &request)).await;
    wire.find(kind::HEADERS).await;
    // More updates than a flood may have.
    let published = server.publish(0, 60).await;
    let mut received = Vec::new();
    let mut events = Vec::new();
    while events.len() < published.len() {
        wire.send(&frames::window_update(1, 1)).await;
        let data = wire.find(kind::DATA).await;
        assert_eq!((data.stream, data.payload.len()), (1, 1));
        received.extend(data.payload);
        if let Some((&[_, a, b, c, d], message)) = received.split_first_chunk::<5>()
            && message.len() == u32::from_be_bytes([a, b, c, d]) as usize
        {
            events.push(PushEvent::decode(message).expect("an event"));
            received.clear();
        }
    }
    for (n, (got, cursor)) in events.into_iter().zip(published).enumerate() {
        let sent = PushEvent {
            cursor,
            ..event(n as u64)
        };
        assert_eq!(got, sent);
    }
}

#[tokio::test]
async fn streams_beyond_the_announced_limit_are_refused_one_by_one() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let mut wire = Wire::connect(address).await;
        let settings = wire.find(kind::SETTINGS).await.payload;
        let mut settings = galaxy_push::http2::frame::read_settings(&settings).expect("whole");
        let allowed = settings.find(|(name, _)| *name == setting::MAX_CONCURRENT_STREAMS);
        assert_eq!(allowed, Some((setting::MAX_CONCURRENT_STREAMS, 256)));
        for n in 0..300 {
            wire.send(&frames::open_call(2 * n + 1, path)).await;
        }
        for _ in 256..300 {
            let refused = wire.find(kind::RST_STREAM).await;
            assert_eq!(refused.code(), Some(Reason::RefusedStream as u32));
            assert!(refused.stream > 2 * 255, "{refused:?}");
        }
        // One call less makes room for one more.
        wire.send(&frames::rst_stream(1, Reason::Cancel)).await;
        let request = match path {
            SUBSCRIBE => grpc::subscribe_request("last", ""),
            _ => grpc::publish_request(vec![event(1)]),
        };
        wire.send(&frames::call(601, path, &request)).await;
        let head = wire.find_on(601).await;
        assert_eq!(head.kind, kind::HEADERS, "{head:?}");
        assert_eq!(head.field("grpc-status"), None, "it was taken");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_small_header_block_with_a_large_list_of_fields_is_431() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let mut wire = Wire::connect(address).await;
        let block = HeaderBlock::call(path).stored("a", &"x".repeat(4000));
        let block = (0..10).fold(block, |block, _| block.entry(0));
        wire.send(&frames::headers(1, &block)).await;
        let head = wire.find_on(1).await;
        assert_eq!(head.field(":status").as_deref(), Some("431"), "{path}");
        wire.assert_alive().await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_header_block_that_stands_for_megabytes_ends_the_connection() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let block = HeaderBlock::call(path).stored("a", &"x".repeat(4000));
        let block = (0..10_000).fold(block, |block, _| block.entry(0));
        let wire = Wire::connect(address).await;
        let attack = frames::headers(1, &block);
        wire.send_until_goodbye(&attack, 1, goodbye::HEADER_FLOOD, path)
            .await;
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_arrives_in_full_is_refused_alone() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let mut wire = Wire::connect(address).await;
        wire.send(&frames::open_call(1, path)).await;
        wire.send(&frames::data(1, b"\0\0\0\0\x05half")).await;
        let status = loop {
            let head = wire.find(kind::HEADERS).await;
            if let Some(status) = head.field("grpc-status") {
                assert_eq!(head.stream, 1);
                let message = head.field("grpc-message").expect("a message");
                assert!(message.contains("did%20not%20arrive"), "{message}");
                break status;
            }
        };
        assert_eq!(status, "4", "DEADLINE_EXCEEDED");
        wire.assert_alive().await;
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_or_header_block_that_never_arrives_in_full_ends_the_connection() {
    let server = Harness::start().await;
    for (address, path) in server.methods() {
        let block = HeaderBlock::call(path);
        let headers = frames::any(kind::HEADERS, 0, 1, block.bytes());
        let continuation = frames::any(kind::CONTINUATION, flag::END_HEADERS, 1, &[0; 100]);
        for (what, half) in [
            ("a header block", headers.clone()),
            (
                "a frame",
                [
                    &frames::open_call(1, path)[..],
                    &frames::data(1, &[0; 10_000])[..9000],
                ]
                .concat(),
            ),
            ("a frame's header", frames::ping(&[0; 8])[..4].to_vec()),
            (
                "a CONTINUATION frame",
                [&headers[..], &continuation[..50]].concat(),
            ),
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(&half).await;
            wire.assert_goodbye(goodbye::LATE, (path, what)).await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_never_complete_is_cut_before_the_silent_are() {
    let server = Harness::start().await;
    for address in server.addresses() {
        for half in [
            &b""[..],
            &PREFACE[..10],
            PREFACE,
            &[PREFACE, &[0; 5][..]].concat(),
        ] {
            let mut wire = Wire::connect_silent(address).await;
            wire.send(half).await;
            let end = async { while wire.next().await.is_some() {} };
            let cut = timeout(BEFORE_THE_SILENT_ARE_CUT, end).await;
            assert!(cut.is_ok(), "not cut for its handshake: {half:?}");
        }
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn on_a_full_listener_connections_without_a_call_make_room() {
    let server = Harness::with(|config| config.max_subscribers = 8).await;
    let mut subscribed = server.subscribe("subscribed", "").await;
    // As many as the listener takes. They respond to pings, so that only their idleness can be
    // held against them.
    let mut idle = Vec::new();
    for _ in 1..2 * 8 + 64 {
        let socket = soon(tokio::net::TcpStream::connect(server.gateway_addr()));
        let socket = socket.await.expect("connected");
        let handshake = h2::client::handshake(socket).await;
        let (streams, connection): (h2::client::SendRequest<Bytes>, _) =
            handshake.expect("a handshake");
        // Without a request handle, it would end by itself.
        idle.push((tokio::spawn(connection), streams));
    }
    // Whoever comes now is told at once, and does not wait for room.
    Wire::connect(server.gateway_addr())
        .await
        .assert_goodbye(goodbye::TOO_MANY_CONNECTIONS, "one more")
        .await;

    // Within seconds, there is room.
    let begun = Instant::now();
    while let Err(status) = server.try_subscribe("later", "").await {
        assert!(status.message().contains("http2 error"), "{status:?}");
        assert!(begun.elapsed() < BEFORE_THE_SILENT_ARE_CUT, "{status:?}");
        sleep(Duration::from_millis(100)).await;
    }
    let ended = idle.iter().filter(|(idle, _)| idle.is_finished()).count();
    assert!(ended > 0, "somebody made room");
    server.assert_alive().await;
    let published = server.publish(100, 101).await;
    let received = subscribed.cursors(2).await;
    assert_eq!(received[1..], published);
}
