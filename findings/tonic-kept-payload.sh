#!/usr/bin/env bash
# What a tonic client keeps in memory when it keeps a small payload.
#
# Versions:  tonic 0.14.9, tonic-prost 0.14.9, prost 0.14.6, bytes 1.12.2, h2 0.4.20 for the
#            server (crates.io).
# Input:     a response stream of 20,000 messages with one field `bytes` of 100 bytes, generated
#            as `bytes::Bytes`. The client keeps the payload of each hundredth message: as it is,
#            or as a copy.
# Expected:  some 100 bytes for each payload that is kept, and a little for its count.
# Seen:      8,264 bytes for each payload that is kept, and 132 for each copy. A payload is a view
#            of the decoder's buffer of 8 KiB, which goes only as a whole: a hundredth of the payloads
#            holds most of what the stream has brought.
# So what:   whoever puts events into queues, caches or maps copies the small ones, or slow readers
#            hold the memory of what the fast ones have read. prost's `bytes(...)` saves a copy only
#            where the payload goes away soon.
. "$(dirname "$0")/lib/setup.sh"

mkdir -p "$folder/kept/src"
cat >"$folder/kept/Cargo.toml" <<'TOML'
[package]
name = "kept"
edition = "2024"

[dependencies]
bytes = "=1.12.2"
h2 = "=0.4.20"
http = "1"
prost = "=0.14.6"
tokio = { version = "1", features = ["macros", "net", "rt"] }
tonic = { version = "=0.14.9", default-features = false, features = ["channel", "codegen"] }
tonic-prost = "=0.14.9"
TOML
cat >"$folder/kept/src/main.rs" <<'RUST'
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::poll_fn;
use std::sync::atomic::{AtomicIsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::http::uri::PathAndQuery;

const MESSAGES: usize = 20_000;
const PAYLOAD: usize = 100;
const EACH: usize = 100;

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
}

/// A prefix of gRPC, and a message.
fn encoded() -> Bytes {
    let length = PAYLOAD as u8 + 2;
    let mut frame = BytesMut::from(&[0, 0, 0, 0, length, 0x0a, PAYLOAD as u8][..]);
    frame.resize(frame.len() + PAYLOAD, b'x');
    frame.freeze()
}

async fn serve(socket: TcpStream) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let frame = encoded();
    for _ in 0..MESSAGES {
        body.reserve_capacity(frame.len());
        while body.capacity() < frame.len() {
            poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
        }
        body.send_data(frame.clone(), false).unwrap();
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    body.send_trailers(trailers).unwrap();
}

/// What the payloads hold that are kept.
async fn held(keep: fn(Bytes) -> Bytes) -> isize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    let channel = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), Message>::new();
    let path = PathAndQuery::from_static("/demo.Demo/Events");
    let response = client.server_streaming(tonic::Request::new(()), path, codec).await;
    let mut stream = response.unwrap().into_inner();
    let mut kept = Vec::with_capacity(MESSAGES / EACH);
    for number in 0..MESSAGES {
        let message = stream.message().await.unwrap().unwrap();
        if number % EACH == 0 {
            kept.push(keep(message.payload));
        }
    }
    assert!(stream.message().await.unwrap().is_none());
    server.await.unwrap();
    drop((stream, client));
    let before = LIVE.load(Ordering::Relaxed);
    drop(kept);
    before - LIVE.load(Ordering::Relaxed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let received = (MESSAGES * encoded().len()) as isize;
    for (name, keep) in [
        ("as they came", (|payload| payload) as fn(Bytes) -> Bytes),
        ("copied", |payload| Bytes::copy_from_slice(&payload)),
    ] {
        let held = held(keep).await;
        eprintln!("{name}: {held} bytes of {received}");
        let part = match held * 100 / received {
            ..=2 => "no more than they are",
            50.. => "most of what was received",
            _ => "something between",
        };
        println!("1 of 100 payloads, {name}: they hold {part}");
    }
}
RUST
seen=$(cd "$folder/kept" && cargo run --quiet --release)
same "$seen" "1 of 100 payloads, as they came: they hold most of what was received
1 of 100 payloads, copied: they hold no more than they are"
