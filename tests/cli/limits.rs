//! Limits of connections and of open files: whoever comes too late is told so at once, the
//! log names the limit and its setting, and when there is room again others are served.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::frames::kind;
use crate::support::goodbye::{Goodbye, NO_FILES, TOO_MANY_CONNECTIONS};
use crate::support::process::Server;
use crate::support::soon;
use crate::support::wire::{Frame, Wire};

/// A connection that is served, or one that is refused with its GOAWAY frame.
async fn try_connect(address: SocketAddr) -> Result<Wire, (Wire, Frame)> {
    let mut wire = Wire::connect(address).await;
    wire.find(kind::SETTINGS).await;
    loop {
        let frame = wire.next().await.expect("GOAWAY before the end");
        match frame.kind {
            // The acknowledgement of its own settings.
            kind::SETTINGS => return Ok(wire),
            kind::GOAWAY => return Err((wire, frame)),
            _ => {}
        }
    }
}

/// A connection for which there must be room.
async fn served(address: SocketAddr) -> Wire {
    match try_connect(address).await {
        Ok(wire) => wire,
        Err((_, frame)) => panic!("refused: {frame:?}"),
    }
}

/// Connects, and is told why not.
#[track_caller]
fn assert_refused(address: SocketAddr, expected: Goodbye) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let Err((mut wire, frame)) = try_connect(address).await else {
            panic!("{caller}: it is served, expected {expected:?}");
        };
        assert_says(&frame, expected);
        assert!(wire.next().await.is_none(), "{caller}: it is not closed");
    }
}

fn assert_says(goodbye: &Frame, expected: Goodbye) {
    let text = String::from_utf8_lossy(&goodbye.payload[8..]);
    assert!(text.contains(expected.text), "{text}, not {expected:?}");
    assert_eq!(goodbye.code(), Some(expected.reason as u32));
}

/// Connects when there is room: what the server has yet to see the end of counts as well.
async fn connect(address: SocketAddr) -> Wire {
    soon(async {
        loop {
            if let Ok(wire) = try_connect(address).await {
                return wire;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn one_publisher_too_many_is_told_and_served_when_another_has_gone() {
    let server = Server::start(&["--max-producers", "3"]);
    let address: SocketAddr = server.publishers.parse().expect("an address");
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(served(address).await);
    }
    for _ in 0..3 {
        assert_refused(address, TOO_MANY_CONNECTIONS).await;
    }
    let line = server.process.err.find("connections refused");
    assert!(line.contains("3 connections are open"), "{line}");
    assert!(line.contains("--max-producers"), "{line}");

    drop(open.pop());
    open.push(connect(address).await);
    for wire in &mut open {
        wire.assert_alive().await;
    }
}

#[tokio::test]
async fn one_gateway_connection_too_many_is_told_and_served_when_another_has_gone() {
    let server = Server::start(&["--max-subscribers", "2"]);
    let address: SocketAddr = server.gateways.parse().expect("an address");
    let mut open = Vec::new();
    for _ in 0..2 * 2 + 64 {
        open.push(served(address).await);
    }
    assert_refused(address, TOO_MANY_CONNECTIONS).await;
    let line = server.process.err.find("connections refused");
    assert!(line.contains("68 connections are open"), "{line}");
    assert!(line.contains("--max-subscribers"), "{line}");

    drop(open.pop());
    connect(address).await.assert_alive().await;
}

#[tokio::test]
async fn handshakes_that_wait_take_connections_and_give_them_back() {
    let server = Server::start(&["--max-producers", "3"]);
    let address: SocketAddr = server.publishers.parse().expect("an address");
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(Wire::connect_silent(address).await);
    }
    assert_refused(address, TOO_MANY_CONNECTIONS).await;
    server.process.err.find("--max-producers");
    // Nobody has to end them.
    for mut wire in waiting {
        while wire.next().await.is_some() {}
        let line = server.process.err.find("connection cut");
        assert!(line.contains("handshake timeout"), "{line}");
    }
    connect(address).await.assert_alive().await;
}

#[tokio::test]
async fn without_file_descriptors_peers_are_told_and_served_when_there_are_some_again() {
    let server = Server::start(&[]);
    let address: SocketAddr = server.publishers.parse().expect("an address");
    // Whatever is opened once is open now.
    connect(address).await.assert_alive().await;
    let process = server.process.id();
    let files = fs::read_dir(format!("/proc/{process}/fd"));
    let open: Vec<u64> = files
        .expect("it runs")
        .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // Three are free below it; others may have been inherited above.
    let limit = (0..).filter(|n| !open.contains(n)).nth(3).expect("free");
    let before = prlimit(
        Some(server.process.pid()),
        Resource::Nofile,
        Rlimit {
            current: Some(limit),
            maximum: getrlimit(Resource::Nofile).maximum,
        },
    )
    .expect("allowed");

    let mut open = Vec::new();
    loop {
        // The end of the first connection may have freed one more.
        assert!(open.len() <= 4, "the limit is not reached");
        match try_connect(address).await {
            Ok(wire) => open.push(wire),
            Err((_, frame)) => {
                assert_says(&frame, NO_FILES);
                break;
            }
        }
    }
    let line = server.process.err.find("connections refused");
    assert!(line.contains("limit of open files"), "{line}");
    for wire in &mut open {
        wire.assert_alive().await;
    }

    prlimit(Some(server.process.pid()), Resource::Nofile, before).expect("allowed");
    connect(address).await.assert_alive().await;
}
