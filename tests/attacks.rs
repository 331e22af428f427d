//! What no honest peer sends. After each attack the server serves a new gateway
//! and a new producer.

#![cfg(feature = "server")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::raw::{self, PREFACE};
use common::wire::{self, NO_SETTINGS, Wire, frame};
use common::{TestServer, event, soon, until};
use galaxy_push::contract::push::PushEvent;
use http::{HeaderValue, Method, Request};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn both(server: &TestServer) -> [SocketAddr; 2] {
    [server.gateway_addr(), server.producer_addr()]
}

/// Both, with a method that streams.
fn both_methods(server: &TestServer) -> [(SocketAddr, &'static str); 2] {
    let [gateways, producers] = both(server);
    [(gateways, raw::SUBSCRIBE), (producers, raw::PUBLISH_STREAM)]
}

/// Sends `words` on a new connection, and waits until the server ends it.
async fn say_and_be_cut(address: SocketAddr, words: &[u8]) {
    let mut socket = soon(TcpStream::connect(address)).await.expect("connected");
    // The server may end it before it has read everything.
    let _ = soon(socket.write_all(words)).await;
    let mut said = Vec::new();
    let _ = soon(socket.read_to_end(&mut said)).await;
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
async fn garbage_instead_of_a_preface_ends_the_connection() {
    let server = TestServer::start().await;
    for address in both(&server) {
        say_and_be_cut(address, &noise(100_000)).await;
        say_and_be_cut(address, &[0; 1000]).await;
        say_and_be_cut(address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        say_and_be_cut(
            address,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaa",
        )
        .await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn garbage_after_the_preface_ends_the_connection() {
    let server = TestServer::start().await;
    for address in both(&server) {
        // A frame that claims 16 MiB.
        say_and_be_cut(address, &[PREFACE, &[0xff; 9]].concat()).await;
        // DATA instead of SETTINGS.
        say_and_be_cut(address, &[PREFACE, &frame(0, 0, 1, b"data")].concat()).await;
        // After the handshake: noise, a stream that was never opened, half of a
        // header block.
        for attack in [
            [vec![0xff], noise(50_000)].concat(),
            frame(0, 0, 7, b"data"),
            frame(1, 4, 2, b"even"),
            frame(1, 4, 1, &noise(100)),
            frame(9, 4, 1, b"continues nothing"),
            frame(8, 0, 0, &[0; 4]),
            frame(5, 4, 1, &[0, 0, 0, 2]),
        ] {
            say_and_be_cut(address, &[PREFACE, NO_SETTINGS, &attack].concat()).await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection() {
    let server = TestServer::start().await;
    for address in both(&server) {
        let large = frame(0, 0, 1, &vec![0; 20_000]);
        say_and_be_cut(address, &[PREFACE, NO_SETTINGS, &large].concat()).await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let server = TestServer::start().await;
    for address in both(&server) {
        // A header block that goes on and on in CONTINUATION frames: a literal
        // header whose value is announced as huge.
        let mut words = [PREFACE, NO_SETTINGS].concat();
        words.extend(frame(1, 0, 1, b"\x00\x01a\x7f\xff\xff\xff\x07"));
        for _ in 0..2000 {
            words.extend(frame(9, 0, 1, &[b'x'; 1000]));
        }
        say_and_be_cut(address, &words).await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_request_with_oversized_headers_is_refused() {
    let server = TestServer::start().await;
    for (address, path) in [
        (server.gateway_addr(), raw::SUBSCRIBE),
        (server.producer_addr(), raw::PUBLISH),
    ] {
        let client = raw::Client::connect(address).await;
        let mut request = raw::request(path);
        for n in 0..40 {
            let name: http::HeaderName = format!("x-padding-{n}").parse().unwrap();
            let value = HeaderValue::from_str(&"x".repeat(1000)).unwrap();
            request.headers_mut().insert(name, value);
        }
        let mut streams = soon(client.streams.ready()).await.expect("a free stream");
        let (response, _body) = streams.send_request(request, true).expect("sent");
        // Either answered with an HTTP error or reset, but not served.
        if let Ok(response) = soon(response).await {
            assert!(!response.status().is_success(), "{response:?}");
        }
    }
    assert_eq!(server.engine.stats().subscribers, 0);
    server.assert_alive().await;
}

#[tokio::test]
async fn unusual_http_requests_are_answered_or_refused() {
    let server = TestServer::start().await;
    for address in both(&server) {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT] {
            for path in [
                "/",
                "/*",
                raw::SUBSCRIBE,
                "/%00",
                "/galaxy.backend.push.v1.Push/%ff",
            ] {
                let client = raw::Client::connect(address).await;
                let request = Request::builder()
                    .method(&method)
                    .uri(format!("http://localhost{path}"))
                    .body(())
                    .unwrap();
                let mut streams = soon(client.streams.ready()).await.expect("a free stream");
                let (response, _) = streams.send_request(request, true).expect("sent");
                // A status or a reset, but an end.
                let _ = soon(response).await;
            }
        }
        let client = raw::Client::connect(address).await;
        let connect = Request::connect("localhost:80").body(()).unwrap();
        let mut streams = soon(client.streams.ready()).await.expect("a free stream");
        let (response, _) = streams.send_request(connect, true).expect("sent");
        let _ = soon(response).await;
    }
    server.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_quick_connects_leave_nothing_behind() {
    let server = TestServer::start().await;
    let mut connecting = Vec::new();
    for address in both(&server) {
        for kind in 0..4 {
            connecting.push(tokio::spawn(async move {
                for _ in 0..500 {
                    let mut socket = soon(TcpStream::connect(address)).await.expect("connected");
                    match kind {
                        0 => {}
                        1 => socket.write_all(PREFACE).await.expect("sent"),
                        2 => {
                            let words = [PREFACE, NO_SETTINGS].concat();
                            socket.write_all(&words).await.expect("sent");
                        }
                        _ => socket.set_zero_linger().expect("set"),
                    }
                }
            }));
        }
    }
    for task in connecting {
        soon(task).await.expect("no panic");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection_but_not_the_server() {
    let server = TestServer::start().await;
    for (address, path) in both_methods(&server) {
        // HEADERS and RST_STREAM, as fast as they can be written. The block is
        // made of static table entries and one literal path.
        let mut words = [PREFACE, NO_SETTINGS].concat();
        for n in 0..20_000_u32 {
            let mut block = b"\x83\x86\x44".to_vec();
            block.push(path.len() as u8);
            block.extend(path.as_bytes());
            words.extend(frame(1, 4, 2 * n + 1, &block));
            words.extend(frame(3, 0, 2 * n + 1, &[0, 0, 0, 8]));
        }
        say_and_be_cut(address, &words).await;
    }
    until(|| server.engine.stats().subscribers == 0).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn a_peer_that_sends_pings_and_reads_nothing_is_cut() {
    let server = TestServer::with(|config| config.stall_timeout = Duration::from_millis(200)).await;
    for address in both(&server) {
        let mut socket = soon(TcpStream::connect(address)).await.expect("connected");
        soon(socket.write_all(&[PREFACE, NO_SETTINGS].concat()))
            .await
            .expect("sent");
        let pings = frame(6, 0, 0, &[0; 8]).repeat(1000);
        // Fails when the server has had enough.
        while soon(socket.write_all(&pings)).await.is_ok() {}
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_of_a_connection_are_refused_one_by_one() {
    let server = TestServer::start().await;
    let mut client = raw::Client::connect(server.gateway_addr()).await;
    // Half-open calls up to the limit that the server announces.
    let mut open = Vec::new();
    client.subscribe("first").await;
    for _ in 0..client.streams.current_max_send_streams() - 1 {
        let (response, to) = client.open(raw::SUBSCRIBE).await;
        open.push((response, to));
    }
    assert!(open.len() < 1000, "there is a limit");
    server.assert_alive().await;
    // The connection itself goes on: one call less, one call more.
    let (response, mut to) = open.pop().expect("one of them");
    to.send_data(Bytes::from(raw::subscribe_request("last", "")), true)
        .expect("sent");
    soon(response).await.expect("a response");
}

/// Says `words` again and again, and reads what is answered, until the server ends
/// the connection or has heard `times` of them. Answers with what reason it ended.
async fn flood(address: SocketAddr, opening: &[u8], words: &[u8], times: usize) -> Option<u32> {
    let Wire { socket } = Wire::connect(address, &[NO_SETTINGS, opening].concat()).await;
    let (mut from, mut to) = socket.into_split();
    let reading = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = soon(from.read_to_end(&mut said)).await;
        said
    });
    for _ in 0..times {
        if reading.is_finished() || soon(to.write_all(words)).await.is_err() {
            break;
        }
    }
    // Who was not cut ends it.
    let _ = soon(to.shutdown()).await;
    let said = soon(reading).await.expect("no panic");
    let (mut rest, mut reason) = (&said[..], None);
    while let Some((&[a, b, c, kind, ..], after)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == wire::GOAWAY {
            reason = after[4..8].try_into().ok().map(u32::from_be_bytes);
        }
        rest = after.get(length..).unwrap_or_default();
    }
    reason
}

#[tokio::test]
async fn a_flood_whose_answers_are_read_ends_the_connection() {
    let server = TestServer::start().await;
    for (address, method) in both_methods(&server) {
        let call = wire::open_call(1, method);
        for flood_of in [
            frame(wire::PING, 0, 0, &[0; 8]),
            frame(wire::PING, wire::ACK, 0, &[0; 8]),
            NO_SETTINGS.to_vec(),
            wire::setting(4, 100),
            frame(wire::DATA, 0, 1, b""),
            wire::window_update(0, 1),
            wire::window_update(1, 1),
            // Of no known kind.
            frame(99, 0, 0, b""),
        ] {
            let words = flood_of.repeat(100);
            let reason = flood(address, &call, &words, 1000).await;
            let calm = Some(wire::ENHANCE_YOUR_CALM);
            assert_eq!(reason, calm, "{method}: {flood_of:?}");
        }
        // One frame with more settings than anybody has.
        let many = [0, 4, 0, 0, 0, 100].repeat(2700);
        let many = frame(wire::SETTINGS, 0, 0, &many);
        let reason = flood(address, &call, &many, 1000).await;
        assert_eq!(reason, Some(wire::ENHANCE_YOUR_CALM), "{method}");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn windows_that_are_opened_by_nothing_or_too_far() {
    let server = TestServer::start().await;
    const MOST: u32 = (1 << 31) - 1;
    for (address, path) in both_methods(&server) {
        let call = wire::open_call(1, path);
        for (abuse, reason) in [
            (wire::window_update(0, 0), wire::PROTOCOL_ERROR),
            (wire::window_update(0, MOST), wire::FLOW_CONTROL_ERROR),
            (wire::setting(4, MOST + 1), wire::FLOW_CONTROL_ERROR),
        ] {
            let mut wire = Wire::connect(address, NO_SETTINGS).await;
            wire.say(&[&call[..], &abuse].concat()).await;
            let said = wire.goodbye().await;
            // h2 has one reason for all settings that cannot be.
            let other = abuse[3] == wire::SETTINGS && said == wire::PROTOCOL_ERROR;
            assert!(said == reason || other, "{abuse:?}: {said}");
        }
    }
    // Of a stream, it is that stream's end.
    for (address, path) in both_methods(&server) {
        for (more, reason) in [(0, wire::PROTOCOL_ERROR), (MOST, wire::FLOW_CONTROL_ERROR)] {
            let mut wire = Wire::connect(address, NO_SETTINGS).await;
            wire.say(&wire::open_call(1, path)).await;
            wire.say(&wire::window_update(1, more)).await;
            assert_eq!(wire.find(wire::RST_STREAM).await.reason(), Some(reason));
            wire.assert_alive().await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_window_of_a_byte_at_a_time_carries_whole_events() {
    let server = TestServer::start().await;
    let mut wire = Wire::connect(server.gateway_addr(), &wire::setting(4, 0)).await;
    let request = raw::subscribe_request("sip", "");
    wire.say(&wire::call(1, raw::SUBSCRIBE, &request)).await;
    wire.find(wire::HEADERS).await;
    // More updates than a flood may have.
    let published = server.publish(0, 60).await;
    let mut received = Vec::new();
    let mut events = Vec::new();
    while events.len() < published.len() {
        wire.say(&wire::window_update(1, 1)).await;
        let data = wire.find(wire::DATA).await;
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
async fn who_opens_more_streams_than_allowed_has_those_refused() {
    let server = TestServer::start().await;
    for (address, path) in both_methods(&server) {
        let mut wire = Wire::connect(address, NO_SETTINGS).await;
        let allowed = wire.find(wire::SETTINGS).await.payload;
        let mut settings = allowed.chunks(6);
        let allowed = settings.find(|setting| setting.starts_with(&[0, 3]));
        let allowed = allowed.expect("MAX_CONCURRENT_STREAMS").to_vec();
        assert_eq!(allowed, [0, 3, 0, 0, 1, 0], "256");
        for n in 0..300 {
            wire.say(&wire::open_call(2 * n + 1, path)).await;
        }
        for _ in 256..300 {
            let refused = wire.find(wire::RST_STREAM).await;
            assert_eq!(refused.reason(), Some(wire::REFUSED_STREAM));
            assert!(refused.stream > 2 * 255, "{refused:?}");
        }
        wire.assert_alive().await;
    }
    server.assert_alive().await;
}

/// A field of 4 KiB that is kept in the table.
const LARGE_FIELD: fn() -> Vec<u8> = || [&b"\x40\x01a\x7f\xa1\x1e"[..], &[b'x'; 4000]].concat();
/// The same again, out of the table.
const AGAIN: u8 = 0xbe;

#[tokio::test]
async fn a_small_block_with_a_large_list_of_fields_is_refused() {
    let server = TestServer::start().await;
    for (address, path) in both_methods(&server) {
        let mut wire = Wire::connect(address, NO_SETTINGS).await;
        let block = [wire::call_block(path), LARGE_FIELD(), vec![AGAIN; 10]].concat();
        wire.say(&frame(wire::HEADERS, wire::END_HEADERS, 1, &block))
            .await;
        let answer = loop {
            let next = wire.next().await.expect("an answer before the end");
            if next.stream == 1 {
                break next;
            }
        };
        match answer.kind {
            wire::HEADERS => {
                let literal = answer.payload.windows(3).any(|of| of == b"431");
                assert!(literal, "{answer:?}");
            }
            kind => assert_eq!(kind, wire::RST_STREAM),
        }
        wire.assert_alive().await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_block_that_stands_for_megabytes_ends_the_connection() {
    let server = TestServer::start().await;
    for (address, path) in both_methods(&server) {
        let mut wire = Wire::connect(address, NO_SETTINGS).await;
        let block = [wire::call_block(path), LARGE_FIELD(), vec![AGAIN; 10_000]];
        wire.say(&frame(wire::HEADERS, wire::END_HEADERS, 1, &block.concat()))
            .await;
        assert_eq!(wire.goodbye().await, wire::ENHANCE_YOUR_CALM);
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn what_never_arrives_in_full_is_not_waited_for() {
    let server = TestServer::start().await;
    for (address, method) in both_methods(&server) {
        // A request, which is refused alone.
        let mut wire = Wire::connect(address, NO_SETTINGS).await;
        wire.say(&wire::open_call(1, method)).await;
        wire.say(&frame(wire::DATA, 0, 1, b"\0\0\0\0\x05half"))
            .await;
        let text = loop {
            let head = wire.find(wire::HEADERS).await;
            let text = String::from_utf8_lossy(&head.payload).into_owned();
            if text.contains("grpc-status") {
                break text;
            }
        };
        assert!(text.contains("did%20not%20arrive%20within"), "{text}");
        wire.assert_alive().await;
        // A header block, a frame, a frame's head, a block in the middle of its second
        // frame.
        let continuation = frame(wire::CONTINUATION, wire::END_HEADERS, 1, &[0; 100]);
        let headers = frame(wire::HEADERS, 0, 1, &wire::call_block(method));
        for half in [
            headers.clone(),
            [
                wire::open_call(1, method),
                frame(wire::DATA, 0, 1, &[0; 10_000])[..9000].to_vec(),
            ]
            .concat(),
            frame(wire::PING, 0, 0, &[0; 8])[..4].to_vec(),
            [&headers[..], &continuation[..50]].concat(),
        ] {
            let mut wire = Wire::connect(address, NO_SETTINGS).await;
            wire.say(&half).await;
            assert_eq!(wire.goodbye().await, wire::ENHANCE_YOUR_CALM);
        }
        // A preface, and no settings.
        let mut wire = Wire::connect(address, b"").await;
        while wire.next().await.is_some() {}
    }
    server.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_beyond_the_limit_make_room() {
    let server = TestServer::with(|config| config.max_subscribers = 8).await;
    let mut subscribed = server.subscribe("subscribed", "").await;
    // Until the listener takes no more: those that do nothing would keep others out.
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(Wire::connect(server.gateway_addr(), NO_SETTINGS).await);
    }
    server.assert_alive().await;
    let mut ended = 0;
    for wire in &mut idle {
        let at_once = tokio::time::timeout(Duration::from_millis(1), async {
            while wire.next().await.is_some() {}
        });
        ended += usize::from(at_once.await.is_ok());
    }
    assert!(ended > 0, "somebody made room");
    let published = server.publish(100, 101).await;
    let received = subscribed.cursors(2).await;
    assert_eq!(received[1..], published);
}
