//! What no honest peer sends. After each attack the server serves a new gateway
//! and a new producer.

#![cfg(feature = "server")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::raw::{self, PREFACE};
use common::{TestServer, soon, until};
use http::{HeaderValue, Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn both(server: &TestServer) -> [SocketAddr; 2] {
    [server.gateway_addr(), server.producer_addr()]
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
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
            say_and_be_cut(address, &[PREFACE, SETTINGS, &attack].concat()).await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection() {
    let server = TestServer::start().await;
    for address in both(&server) {
        let large = frame(0, 0, 1, &vec![0; 20_000]);
        say_and_be_cut(address, &[PREFACE, SETTINGS, &large].concat()).await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let server = TestServer::start().await;
    for address in both(&server) {
        // A header block that goes on and on in CONTINUATION frames: a literal
        // header whose value is announced as huge.
        let mut words = [PREFACE, SETTINGS].concat();
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
                            let words = [PREFACE, SETTINGS].concat();
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
    for (address, path) in [
        (server.gateway_addr(), raw::SUBSCRIBE),
        (server.producer_addr(), raw::PUBLISH_STREAM),
    ] {
        // HEADERS and RST_STREAM, as fast as they can be written. The block is
        // made of static table entries and one literal path.
        let mut words = [PREFACE, SETTINGS].concat();
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
        soon(socket.write_all(&[PREFACE, SETTINGS].concat()))
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
