//! How a stream ends: every row of the table, and that the counts add up.

#![cfg(feature = "server")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::cursor::Cursor;
use support::{
    Harness, connect_narrow, event, large_event, missed, publish, reason, soon, subscribe, until,
};
use tonic::{Code, Status};

fn seq(cursor: &str) -> u64 {
    cursor.parse::<Cursor>().expect("a cursor").seq().number()
}

fn assert_code(status: &Status, code: Code) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty(), "{status:?}");
    let (expected, retries) = match code {
        Code::Aborted => ("TAKEN_OVER", false),
        Code::OutOfRange => ("LAGGED", true),
        Code::Unavailable => ("STOPPING", true),
        Code::ResourceExhausted => ("TOO_MANY_SUBSCRIBERS", true),
        other => panic!("{other:?} is no row of the table"),
    };
    assert_eq!(reason(status), (expected.to_owned(), retries));
}

#[tokio::test]
async fn a_newer_subscription_takes_the_id_and_the_older_stream_is_aborted() {
    let server = Harness::start().await;
    let mut older = server.subscribe("gateway", "").await;
    let before = server.publish(0, 5).await;
    assert_eq!(older.cursors(5).await, before);

    let mut newer = server.subscribe("gateway", "").await;
    let after = server.publish(5, 10).await;
    let (rest, status) = older.finish().await;
    assert_eq!(rest, []);
    assert_code(&status, Code::Aborted);
    assert_eq!(newer.cursors(5).await, after);
}

#[tokio::test]
async fn a_taken_over_stream_has_nothing_from_after_the_newer_ones_response() {
    let server = Harness::start().await;
    let engine = server.engine.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let mut publisher = server.publisher().await;
        let stop = Arc::clone(&stop);
        async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                publish(&mut publisher, vec![event(n)])
                    .await
                    .expect("published");
                n += 1;
            }
        }
    });

    let mut older = server.subscribe("gateway", "").await;
    for _ in 0..50 {
        let mut last = seq(&older.next().await.cursor);
        let newer = server.subscribe("gateway", "").await;
        let head_at_response = engine.head().seq().number();
        let start = seq(newer.meta("push-start-cursor").expect("a start"));
        let (events, status) = older.finish().await;
        assert_code(&status, Code::Aborted);
        if let Some(event) = events.last() {
            last = seq(&event.cursor);
        }
        assert!(
            last <= start && start <= head_at_response,
            "the older stream got {last}, the newer one starts after {start}"
        );
        older = newer;
    }
    stop.store(true, Ordering::Relaxed);
    soon(publishing).await.expect("published without an error");
}

#[tokio::test]
async fn a_taken_over_stream_and_its_successor_together_are_whole() {
    let server = Harness::start().await;
    let older = server.subscribe("gateway", "").await;
    let published = server.publish(0, 300).await;
    let newer_from = {
        let (mut gateway, cursor) = (server.gateway().await, &published[99]);
        subscribe(&mut gateway, "gateway", cursor)
            .await
            .expect("resumed")
    };
    let (events, status) = older.finish().await;
    assert_code(&status, Code::Aborted);
    let older: Vec<_> = events.into_iter().map(|event| event.cursor).collect();
    assert_eq!(older, published[..older.len()], "gapless from its start");
    let mut newer = newer_from;
    assert_eq!(newer.cursors(200).await, published[100..]);
}

#[tokio::test]
async fn a_lagged_stream_is_out_of_range_and_delivered_and_missed_add_up() {
    let server = Harness::with(|config| config.max_bytes = 2 << 20).await;
    let mut gateway = PushClient::new(connect_narrow(server.gateway_addr()).await);
    let slow = subscribe(&mut gateway, "slow", "")
        .await
        .expect("subscribed");

    // Nobody reads while several times the ring is published.
    let mut publisher = server.publisher().await;
    const EVENTS: u64 = 8 * 1024;
    for _ in 0..EVENTS / 64 {
        let batch = (0..64).map(|_| large_event(1000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }

    let (events, status) = slow.finish().await;
    assert_code(&status, Code::OutOfRange);
    let delivered = events.len() as u64;
    assert!(delivered < EVENTS);
    for (n, event) in (1..).zip(&events) {
        assert_eq!(seq(&event.cursor), n, "gapless up to its end");
    }
    assert_eq!(delivered + missed(&status), EVENTS);
}

#[tokio::test]
async fn resuming_after_having_lagged_tells_the_same_gap() {
    let server = Harness::with(|config| config.max_events = 100).await;
    let mut gateway = PushClient::new(connect_narrow(server.gateway_addr()).await);
    let slow = subscribe(&mut gateway, "slow", "")
        .await
        .expect("subscribed");
    let mut publisher = server.publisher().await;
    for _ in 0..64 {
        let batch = (0..64).map(|_| large_event(2000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }
    let (events, status) = slow.finish().await;
    let last = &events.last().expect("the window took some").cursor;
    let again = server.subscribe("slow", last).await;
    assert_eq!(again.meta("push-resume-reason"), Some("expired"));
    assert_eq!(
        again.meta("push-missed"),
        Some(&*missed(&status).to_string())
    );
}

#[tokio::test]
async fn a_stopping_server_delivers_everything_and_then_is_unavailable() {
    let server = Harness::start().await;
    let gateways = [
        server.subscribe("gateway-1", "").await,
        server.subscribe("gateway-2", "").await,
    ];
    let published = server.publish(0, 1000).await;
    let stopping = tokio::spawn(server.stop());
    for gateway in gateways {
        let (events, status) = gateway.finish().await;
        let delivered: Vec<_> = events.into_iter().map(|event| event.cursor).collect();
        assert_eq!(delivered, published);
        assert_code(&status, Code::Unavailable);
    }
    soon(stopping).await.unwrap().expect("a graceful stop");
}

#[tokio::test]
async fn one_gateway_too_many_is_refused_but_not_one_that_takes_over() {
    let server = Harness::with(|config| config.max_subscribers = 2).await;
    let _first = server.subscribe("first", "").await;
    let second = server.subscribe("second", "").await;
    let status = server.try_subscribe("third", "").await.unwrap_err();
    assert_code(&status, Code::ResourceExhausted);

    let second_again = server.subscribe("second", "").await;
    assert_code(&second.finish().await.1, Code::Aborted);

    // One that leaves makes room.
    drop(second_again);
    until(|| server.engine.stats().subscribers == 1).await;
    server.subscribe("third", "").await;
}
