//! Gateways that take nothing, or too little: nobody else notices, they are told,
//! and what they held is given back.

#![cfg(feature = "server")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::cursor::{Cursor, Seq};
use h2::RecvStream;
use http::Response;
use support::frames::{self, MAX_WINDOW, Reason, kind, setting};
use support::grpc::{PUBLISH, PUBLISH_STREAM, SUBSCRIBE, publish_request, subscribe_request};
use support::h2_client::{GrpcResponse, H2Client};
use support::wire::Wire;
use support::{
    Harness, connect_narrow, event, large_event, missed, publish, soon, subscribe, until,
};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Code;

/// A timeout that no test waits for.
const LONG: Duration = Duration::from_secs(3600);
/// A timeout that tests do wait for.
const SHORT: Duration = Duration::from_millis(200);
/// Within this time more, the watchdog has looked twice.
const LOOKS: Duration = Duration::from_millis(2500);

/// Reads a stream that took nothing to its end: its status is this one, and its
/// connection goes on.
async fn ended(client: &H2Client, stream: Response<RecvStream>, status: Code) {
    let response = GrpcResponse::read(stream).await;
    assert_eq!(response.grpc_status(), Some(status), "{response:?}");
    assert!(!client.driver.is_finished(), "its connection has ended");
}

/// Publishes `count` events of about 10 KiB, eight a batch.
async fn publish_large(server: &Harness, count: u64) {
    let mut publisher = server.publisher().await;
    for _ in 0..count / 8 {
        let batch = (0..8).map(|_| large_event(10_000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_fast_gateways_only_the_slow_one_misses_anything() {
    let server = Harness::with(|config| {
        config.max_bytes = 4 << 20;
        config.stall_timeout = LONG;
    })
    .await;
    let mut narrow = PushClient::new(connect_narrow(server.gateway_addr()).await);
    let slow = subscribe(&mut narrow, "slow", "")
        .await
        .expect("subscribed");

    let mut fast = Vec::new();
    for n in 0..4 {
        let mut gateway = server.subscribe(&format!("fast-{n}"), "").await;
        let (progress, seen) = watch::channel(0);
        let reading = tokio::spawn(async move {
            let mut cursors = Vec::new();
            while let Ok(Some(event)) = soon(gateway.events.message()).await {
                cursors.push(event.cursor);
                progress.send_replace(cursors.len() as u64);
            }
            cursors
        });
        fast.push((seen, reading));
    }

    // Several times the ring. The fast ones get time to be fast; the slow one
    // reads nothing all the while.
    const EVENTS: u64 = 2000;
    let mut publisher = server.publisher().await;
    let mut published = Vec::new();
    for n in 0..EVENTS / 8 {
        let batch = (0..8).map(|_| large_event(10_000)).collect();
        let response = publish(&mut publisher, batch).await.expect("published");
        published.extend([response.first_cursor, response.last_cursor]);
        for (seen, _) in &mut fast {
            soon(seen.wait_for(|seen| *seen >= (n + 1) * 8))
                .await
                .expect("reading");
        }
    }

    let (events, status) = slow.finish().await;
    assert_eq!(events.len() as u64 + missed(&status), EVENTS);

    server.stop().await.expect("a graceful stop");
    for (_, reading) in fast {
        let cursors = soon(reading).await.expect("no panic");
        assert_eq!(cursors.len() as u64, EVENTS);
        let ends: Vec<_> = cursors
            .chunks(8)
            .flat_map(|batch| [batch[0].clone(), batch[7].clone()])
            .collect();
        assert_eq!(ends, published);
    }
}

#[tokio::test]
async fn a_gateway_that_never_reads_is_ended_and_its_memory_given_back() {
    let server = Harness::with(|config| {
        config.max_bytes = 4 << 20;
        config.stall_timeout = SHORT;
    })
    .await;
    let mut deaf = H2Client::with_window(server.gateway_addr(), 1000).await;
    let stream = deaf.subscribe("deaf").await;
    publish_large(&server, 1000).await;
    until(|| server.engine.stats().subscribers == 0).await;
    ended(&deaf, stream, Code::DeadlineExceeded).await;
    until(|| server.engine.stats().pinned_bytes == 0).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn a_gateway_that_waits_for_events_is_never_ended() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    let mut patient = server.subscribe("patient", "").await;
    let first = server.publish(0, 1).await;
    assert_eq!(patient.cursors(1).await, first);
    // Others come, stall and are ended one after another, over events that it has
    // received already.
    for _ in 0..3 {
        let mut deaf = H2Client::with_window(server.gateway_addr(), 10).await;
        let stream = deaf.subscribe_after("deaf", &zero(&server)).await;
        until(|| server.engine.stats().subscribers == 1).await;
        ended(&deaf, stream, Code::DeadlineExceeded).await;
    }
    let next = server.publish(1, 2).await;
    assert_eq!(patient.cursors(1).await, next);
}

fn zero(server: &Harness) -> String {
    let head = server.engine.head();
    Cursor::new(head.epoch(), Seq::ZERO).to_string()
}

#[tokio::test]
async fn a_stream_that_has_ended_says_so_even_if_its_last_events_are_not_taken() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    let mut deaf = H2Client::with_window(server.gateway_addr(), 10).await;
    let stream = deaf.subscribe("gateway").await;
    server.publish(0, 1).await;
    // Taken over, it ends behind the event that is still under way.
    let _newer = server.subscribe("gateway", "").await;
    until(|| server.engine.stats().subscribers == 1).await;
    // Nothing is read before it has ended.
    sleep(SHORT + LOOKS).await;
    ended(&deaf, stream, Code::Aborted).await;
}

#[tokio::test]
async fn a_publisher_that_never_takes_its_responses_is_ended() {
    let server = Harness::with(|config| config.stall_timeout = SHORT).await;
    let request = Bytes::from(publish_request(vec![event(1)]));
    for (n, path) in [(1, PUBLISH), (2, PUBLISH_STREAM)] {
        // Less than a response.
        let mut deaf = H2Client::with_window(server.publisher_addr(), 10).await;
        let (response, mut to) = deaf.open(path).await;
        to.send_data(request.clone(), path == PUBLISH)
            .expect("sent");
        let response = soon(response).await.expect("a response");
        // Nothing is read before it has ended.
        sleep(SHORT + LOOKS).await;
        ended(&deaf, response, Code::DeadlineExceeded).await;
        let head = server.engine.head().seq().number();
        assert_eq!(head, n, "it was published");
    }
}

#[tokio::test]
async fn pinned_memory_is_bounded_by_ending_the_longest_stalled() {
    let server = Harness::with(|config| {
        config.max_bytes = 4 << 20;
        config.max_event_bytes = 16 << 10;
        config.stall_timeout = LONG;
    })
    .await;
    // Each of them stands at another place of the ring, with at least one segment
    // under way.
    let mut deaf = Vec::new();
    for n in 0..60 {
        let mut client = H2Client::with_window(server.gateway_addr(), 1000).await;
        let stream = client.subscribe(&format!("deaf-{n}")).await;
        publish_large(&server, 8).await;
        deaf.push((client, stream));
    }
    // The ring moves on from all of these places.
    publish_large(&server, 1000).await;
    let limit = (4 << 20) / 4;
    until(|| server.engine.stats().pinned_bytes <= limit).await;
    let left = server.engine.stats().subscribers;
    assert!(left < 60, "somebody held more than the limit");
    assert!(left > 0, "no more than necessary were ended");
    server.assert_alive().await;
}

#[tokio::test]
async fn half_written_frames_of_reset_streams_count_as_pinned_and_are_bounded() {
    let server = Harness::with(|config| {
        config.max_bytes = 16 << 20;
        config.stall_timeout = LONG;
    })
    .await;
    publish_large(&server, 400).await;
    // Frames of any size, and windows that never end: it is the socket that fills.
    let windows = [
        frames::settings(&[
            (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW),
            (setting::MAX_FRAME_SIZE, 1 << 20),
        ]),
        frames::window_update(0, MAX_WINDOW - (1 << 16)),
    ]
    .concat();
    let mut reset = Vec::new();
    for n in 0..100 {
        let mut wire = Wire::connect_with(server.gateway_addr(), &windows).await;
        // More than a socket takes, and well within the ring.
        let head = server.engine.head();
        let behind = Seq::new(head.seq().number() - 400);
        let cursor = Cursor::new(head.epoch(), behind);
        let request = subscribe_request(&format!("reset-{n}"), &cursor.to_string());
        wire.send(&frames::call(1, SUBSCRIBE, &request)).await;
        wire.find(kind::DATA).await;
        reset.push(wire);
        // Each stands at another place of the ring.
        publish_large(&server, 8).await;
    }
    for wire in &mut reset {
        wire.send(&frames::rst_stream(1, Reason::Cancel)).await;
    }
    until(|| server.engine.stats().subscribers == 0).await;
    // The ring moves on.
    publish_large(&server, 3000).await;
    let limit = (16 << 20) / 4;
    until(|| server.engine.stats().pinned_bytes <= limit).await;
    server.assert_alive().await;
    drop(reset);
    until(|| server.engine.stats().pinned_bytes == 0).await;
}
