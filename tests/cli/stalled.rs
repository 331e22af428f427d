//! Gateways that never read, by the thousand: what they make the process hold is
//! bounded, and nobody else notices.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use galaxy_push::cursor::Cursor;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::support::frames::{self, MAX_WINDOW, PREFACE, setting};
use crate::support::grpc::{SUBSCRIBE, subscribe_request};
use crate::support::large_event;
use crate::support::process::{PATIENCE, Server};

const GATEWAYS: usize = 1000;
const MAX_BYTES: u64 = 32 << 20;
/// A quarter of that.
const MAX_PINNED_BYTES: u64 = MAX_BYTES / 4;
/// What is published between two looks at what is pinned, and what the allocator has yet
/// to give back.
const SLACK_BYTES: u64 = MAX_BYTES * 3 / 8;
/// What requests and responses under way take.
const WORK_BYTES: u64 = 12 << 20;
/// What ARCHITECTURE.md (*Memory*) says that a gateway's connection takes at most, as
/// long as it keeps to the protocol.
const GATEWAY_BYTES: u64 = 4 << 10;
/// And what is known of it, while it is subscribed and after its end; and the lines of the log
/// that nobody has read yet.
const TELEMETRY_BYTES: u64 = 2 << 10;
const EVENT_BYTES: usize = 1000;
const BATCH: usize = 250;
/// The ring, once.
const RING_BATCHES: usize = MAX_BYTES as usize / (BATCH * EVENT_BYTES);
/// How far the publisher may be ahead of the gateway that reads: well within the ring.
const AHEAD: u64 = 8_000;

fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("VmRSS").trim().parse::<u64>().expect("a number") << 10
}

fn batch() -> Vec<PushEvent> {
    vec![large_event(EVENT_BYTES); BATCH]
}

/// Subscribes, and then never reads again. Every other one opens its windows as far as
/// they go, so that it is its socket that fills.
fn stall(address: SocketAddr, n: usize) -> TcpStream {
    let mut opening = PREFACE.to_vec();
    if n.is_multiple_of(2) {
        opening.extend(frames::settings(&[]));
    } else {
        opening.extend(frames::settings(&[
            (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW),
            (setting::MAX_FRAME_SIZE, 1 << 20),
        ]));
        opening.extend(frames::window_update(0, MAX_WINDOW - (1 << 16)));
    }
    let request = subscribe_request(&format!("deaf-{n}"), "");
    opening.extend(frames::call(1, SUBSCRIBE, &request));

    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.write_all(&opening).expect("sent");
    // Its response has begun.
    let mut said: Vec<u8> = Vec::new();
    while !said.windows(17).any(|of| of == b"push-start-cursor") {
        let mut piece = [0; 64];
        let n = socket.read(&mut piece).expect("a response");
        assert!(n > 0, "subscribed: {said:?}");
        said.extend(&piece[..n]);
    }
    socket
}

/// The reading gateway: how far it has come is in the channel.
async fn read(address: SocketAddr, progress: watch::Sender<u64>) {
    let gateway = PushClient::connect(format!("http://{address}")).await;
    let request = GatewaySubscribeRequest {
        gateway_client_id: "healthy".to_owned(),
        cursor: String::new(),
    };
    let response = gateway.expect("connected").subscribe_push(request).await;
    let mut events = response.expect("subscribed").into_inner();
    // From here on it is subscribed.
    let mut last = 0;
    progress.send_replace(last);
    while let Ok(Some(event)) = events.message().await {
        let cursor: Cursor = event.cursor.parse().expect("a cursor");
        last += 1;
        assert_eq!(cursor.seq().number(), last, "the next one");
        progress.send_replace(last);
    }
    panic!("the healthy gateway's stream ended after {last}");
}

#[test]
fn a_thousand_gateways_that_never_read_hold_no_more_than_is_allowed() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("allowed");

    let server = Server::start(&[
        "--max-bytes",
        "32MiB",
        "--max-events",
        "50000",
        "--max-subscribers",
        "2000",
        // Nobody is cut for its stall alone.
        "--stall-timeout",
        "1h",
    ]);
    let process = server.process.id();
    let gateways: SocketAddr = server.gateways.parse().expect("an address");
    let publishers = format!("http://{}", server.publishers);
    let quiet = resident_bytes(process);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (progress, mut seen) = watch::channel(u64::MAX);
        let reading = tokio::spawn(read(gateways, progress));
        let subscribed = seen.wait_for(|seen| *seen == 0);
        tokio::time::timeout(PATIENCE, subscribed)
            .await
            .expect("in time")
            .expect("reading");

        let mut publisher = PublisherClient::connect(publishers)
            .await
            .expect("connected");
        let mut published = 0;
        let mut publish = async |seen: &mut watch::Receiver<u64>| {
            let request = PublishRequest { events: batch() };
            publisher.publish(request).await.expect("published");
            published += BATCH as u64;
            let near = seen.wait_for(|seen| *seen + AHEAD >= published);
            tokio::time::timeout(PATIENCE, near)
                .await
                .expect("in time")
                .expect("the healthy gateway misses nothing");
            published
        };

        // With nobody else, all of the ring in use.
        for _ in 0..2 * RING_BATCHES {
            publish(&mut seen).await;
        }
        let alone = resident_bytes(process);
        assert!(
            alone <= quiet + MAX_BYTES + WORK_BYTES,
            "{alone}, {quiet} at first"
        );

        // They stand at many places of the ring.
        let mut deaf = Vec::new();
        for n in 0..GATEWAYS {
            deaf.push(stall(gateways, n));
            if n % 10 == 9 {
                publish(&mut seen).await;
            }
        }
        let mut most = resident_bytes(process);
        let mut published = 0;
        for _ in 0..5 * RING_BATCHES {
            published = publish(&mut seen).await;
            most = most.max(resident_bytes(process));
        }
        let stated =
            MAX_PINNED_BYTES + GATEWAYS as u64 * (GATEWAY_BYTES + TELEMETRY_BYTES) + SLACK_BYTES;
        let allowed = alone + stated;
        println!(
            "resident KiB: {} quiet, {} alone, {} at most, {} allowed",
            quiet >> 10,
            alone >> 10,
            most >> 10,
            allowed >> 10
        );
        assert!(most <= allowed, "{most} bytes are more than {allowed}");
        let all = seen.wait_for(|seen| *seen == published);
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("in time")
            .expect("the healthy gateway misses nothing");

        // Some had full sockets, and were cut; others had shut windows, and only lost their
        // streams. All go now.
        let cut = deaf.iter().filter(|socket| is_cut(socket)).count();
        println!("{cut} were cut");
        assert!(cut > 0, "the limit had to act");
        drop(deaf);
        let begun = Instant::now();
        loop {
            let left = resident_bytes(process);
            // How much of what was freed, the allocator decides.
            if left + MAX_PINNED_BYTES / 8 <= most {
                println!("{} KiB afterwards", left >> 10);
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{left} bytes are left of {most}"
            );
            // The allocator gives memory back while it works.
            publish(&mut seen).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!reading.is_finished());
    });
}

/// Whether the server has reset the connection.
fn is_cut(socket: &TcpStream) -> bool {
    socket.take_error().is_ok_and(|error| error.is_some())
}
