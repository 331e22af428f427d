//! How a stream starts: the rows of the resume table, what is told at once, and
//! which requests are refused.

#![cfg(feature = "server")]

mod support;

use std::time::Duration;

use galaxy_push::contract::push::GatewaySubscribeRequest;
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use support::grpc::{self, SUBSCRIBE};
use support::h2_client::H2Client;
use support::{Harness, event, publish, soon, subscribe};
use tokio_stream::{self as stream};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

/// What the initial metadata says: push-resume, push-resume-reason, push-missed.
async fn resumed_as(server: &Harness, cursor: &str) -> (String, String, Option<u64>, String) {
    let subscription = server.subscribe("gateway", cursor).await;
    let text = |key| subscription.meta(key).expect(key).to_owned();
    (
        text("push-resume"),
        text("push-resume-reason"),
        subscription
            .meta("push-missed")
            .map(|missed| missed.parse().expect("a number")),
        text("push-start-cursor"),
    )
}

fn row(
    resume: &str,
    reason: &str,
    missed: Option<u64>,
    start: &str,
) -> (String, String, Option<u64>, String) {
    (
        resume.to_owned(),
        reason.to_owned(),
        missed,
        start.to_owned(),
    )
}

#[tokio::test]
async fn a_cursor_in_the_ring_resumes_at_the_next_event() {
    let server = Harness::start().await;
    let cursors = server.publish(0, 10).await;
    let mut subscription = server.subscribe("gateway", &cursors[3]).await;
    assert_eq!(subscription.meta("push-resume"), Some("resumed"));
    assert_eq!(subscription.meta("push-resume-reason"), Some("requested"));
    assert_eq!(subscription.meta("push-start-cursor"), Some(&*cursors[3]));
    assert_eq!(subscription.meta("push-missed"), None);
    assert_eq!(subscription.cursors(6).await, cursors[4..]);
}

#[tokio::test]
async fn the_head_resumes() {
    let server = Harness::start().await;
    let cursors = server.publish(0, 3).await;
    let head = &cursors[2];
    assert_eq!(
        resumed_as(&server, head).await,
        row("resumed", "requested", None, head)
    );
}

#[tokio::test]
async fn sequence_zero_resumes_a_ring_that_has_lost_nothing() {
    let server = Harness::start().await;
    let zero = server.engine.head().to_string();
    let cursors = server.publish(0, 5).await;
    let mut subscription = server.subscribe("gateway", &zero).await;
    assert_eq!(subscription.meta("push-resume"), Some("resumed"));
    assert_eq!(subscription.meta("push-start-cursor"), Some(&*zero));
    assert_eq!(subscription.cursors(5).await, cursors);
}

#[tokio::test]
async fn no_cursor_starts_after_the_head() {
    let server = Harness::start().await;
    let cursors = server.publish(0, 3).await;
    let mut subscription = server.subscribe("gateway", "").await;
    assert_eq!(subscription.meta("push-resume"), Some("fresh"));
    assert_eq!(subscription.meta("push-resume-reason"), Some("no-cursor"));
    assert_eq!(subscription.meta("push-start-cursor"), Some(&*cursors[2]));
    assert_eq!(subscription.meta("push-missed"), None);
    let next = server.publish(3, 4).await;
    assert_eq!(subscription.cursors(1).await, next);
}

#[tokio::test]
async fn a_cursor_that_has_left_the_ring_is_expired_and_told_what_it_missed() {
    let server = Harness::with(|config| config.max_events = 10).await;
    let cursors = server.publish(0, 30).await;
    // The next event after cursors[5] is the 7th of 30, and the ring keeps 10.
    assert_eq!(
        resumed_as(&server, &cursors[5]).await,
        row("fresh", "expired", Some(24), &cursors[29])
    );
    assert_eq!(
        resumed_as(&server, &cursors[18]).await,
        row("fresh", "expired", Some(11), &cursors[29])
    );
    assert_eq!(
        resumed_as(&server, &cursors[19]).await,
        row("resumed", "requested", None, &cursors[19])
    );
}

#[tokio::test]
async fn a_cursor_that_has_left_the_window_is_expired() {
    let server = Harness::with(|config| config.window = Duration::from_millis(1)).await;
    let cursors = server.publish(0, 3).await;
    // The clock is coarse; it moves on while this asks again.
    let expired = soon(async {
        loop {
            let found = resumed_as(&server, &cursors[0]).await;
            if found.0 == "fresh" {
                return found;
            }
        }
    });
    assert_eq!(expired.await, row("fresh", "expired", Some(2), &cursors[2]));
    assert_eq!(
        resumed_as(&server, &cursors[2]).await,
        row("resumed", "requested", None, &cursors[2]),
        "whoever missed nothing resumes, however long ago"
    );
}

#[tokio::test]
async fn a_cursor_past_the_head_is_ahead() {
    let server = Harness::start().await;
    let cursors = server.publish(0, 3).await;
    let head: Cursor = cursors[2].parse().unwrap();
    let ahead = Cursor::new(head.epoch(), Seq::new(head.seq().number() + 1));
    assert_eq!(
        resumed_as(&server, &ahead.to_string()).await,
        row("fresh", "ahead", None, &cursors[2])
    );
}

#[tokio::test]
async fn a_cursor_of_another_epoch_starts_after_the_head() {
    let server = Harness::start().await;
    let cursors = server.publish(0, 3).await;
    let head: Cursor = cursors[2].parse().unwrap();
    for (other, number) in [
        ("older", head.epoch().number() - 1),
        ("born in the same millisecond", head.epoch().number() ^ 1),
        ("newer", head.epoch().number() + (1 << 18)),
    ] {
        let epoch = Epoch::from_number(number).unwrap();
        let cursor = Cursor::new(epoch, Seq::new(1)).to_string();
        assert_eq!(
            resumed_as(&server, &cursor).await,
            row("fresh", "other-epoch", None, &cursors[2]),
            "{other}"
        );
    }
}

#[tokio::test]
async fn what_is_no_cursor_is_malformed() {
    let server = Harness::start().await;
    let cursors = server.publish(0, 1).await;
    let lower_case = cursors[0].to_lowercase();
    let with_space = format!(" {}", cursors[0]);
    for text in ["0", "null", &lower_case, &with_space, &"Z".repeat(1000)] {
        assert_eq!(
            resumed_as(&server, text).await,
            row("fresh", "malformed", None, &cursors[0]),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn initial_metadata_arrives_before_any_event() {
    let server = Harness::start().await;
    // Nothing is ever published: only a response that is not held back for the
    // first event can be seen.
    let subscription = server.subscribe("gateway", "").await;
    let zero = server.engine.head().to_string();
    assert_eq!(subscription.meta("push-start-cursor"), Some(&*zero));
}

#[tokio::test]
async fn ids_of_1_to_256_bytes_without_control_characters_are_accepted() {
    let server = Harness::start().await;
    let mut gateway = server.gateway().await;
    for id in ["a", "eu/gateway 1", "шлюз", &"x".repeat(256), "\u{a0}"] {
        let subscribed = subscribe(&mut gateway, id, "").await;
        assert!(subscribed.is_ok(), "{id:?}: {subscribed:?}");
    }
}

#[tokio::test]
async fn invalid_gateway_ids_are_refused_by_the_name_of_the_field() {
    let server = Harness::start().await;
    let mut gateway = server.gateway().await;
    for id in [
        "",
        "\n",
        "a\0",
        "tab\t",
        "\u{7f}",
        "\u{9f}",
        &"x".repeat(257),
        &"ж".repeat(129),
    ] {
        let status = subscribe(&mut gateway, id, "").await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{id:?}: {status:?}");
        assert!(status.message().contains("gateway_client_id"), "{status:?}");
    }
    assert_eq!(server.engine.stats().subscribers, 0);
}

#[tokio::test]
async fn a_request_larger_than_any_honest_one_is_refused() {
    let server = Harness::start().await;
    let mut gateway = server.gateway().await;
    let status = subscribe(&mut gateway, "gateway", &"0".repeat(100_000))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("4096"), "{status:?}");
    server.assert_alive().await;
}

/// Calls SubscribePush with these request messages, as tonic's generated client
/// never would.
async fn subscribe_with(
    server: &Harness,
    path: &'static str,
    messages: Vec<GatewaySubscribeRequest>,
) -> tonic::Status {
    type Codec =
        tonic_prost::ProstCodec<GatewaySubscribeRequest, galaxy_push::contract::push::PushEvent>;
    let channel = support::connect(server.gateway_addr()).await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = tonic::Request::new(stream::iter(messages));
    let path = PathAndQuery::from_static(path);
    soon(grpc.streaming(request, path, Codec::default()))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_subscribe_without_a_message_is_refused() {
    let server = Harness::start().await;
    let status = subscribe_with(&server, SUBSCRIBE, vec![]).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(
        status.message().contains("one request message"),
        "{status:?}"
    );
    server.assert_alive().await;
}

#[tokio::test]
async fn a_subscribe_with_two_messages_is_refused() {
    let server = Harness::start().await;
    let request = GatewaySubscribeRequest {
        gateway_client_id: "gateway".to_owned(),
        cursor: String::new(),
    };
    let status = subscribe_with(&server, SUBSCRIBE, vec![request.clone(), request]).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert_eq!(server.engine.stats().subscribers, 0);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let server = Harness::start().await;
    for path in [
        "/galaxy.backend.push.v1.Push/Unsubscribe",
        "/galaxy.backend.push.v1.Push/",
        "/galaxy.backend.push.v2.Push/SubscribePush",
        "/galaxy.push.publisher.v1.Publisher/Publish",
        "/",
    ] {
        let status = subscribe_with(&server, path, vec![]).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
}

#[tokio::test]
async fn a_malformed_request_is_refused_with_what_is_wrong_in_it() {
    let server = Harness::start().await;
    let mut client = H2Client::connect(server.gateway_addr()).await;
    // Field 1, length 3, and bytes that are not UTF-8.
    let not_utf8 = grpc::message(b"\x0a\x03\xff\xfe\xfd");
    let response = client.call(SUBSCRIBE, not_utf8).await;
    assert_eq!(
        response.grpc_status(),
        Some(Code::InvalidArgument),
        "{response:?}"
    );
    assert!(
        response.message().contains("gateway_client_id"),
        "{response:?}"
    );
}

#[tokio::test]
async fn every_gateway_gets_every_event_in_one_order() {
    let server = Harness::start().await;
    let mut gateways = Vec::new();
    for n in 0..5 {
        gateways.push(server.subscribe(&format!("gateway-{n}"), "").await);
    }
    let mut publisher = server.publisher().await;
    let mut published = Vec::new();
    for n in 0..100 {
        let response = publish(&mut publisher, vec![event(2 * n), event(2 * n + 1)])
            .await
            .unwrap();
        published.extend([response.first_cursor, response.last_cursor]);
    }
    for gateway in &mut gateways {
        assert_eq!(gateway.cursors(200).await, published);
    }
}
