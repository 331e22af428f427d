//! The figures of `/metrics` and of the log of ends: exactly what peers sent and received.

#![cfg(feature = "server")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use galaxy_push::access::{AdminRole, Identity};
use galaxy_push::config::{Address, Config};
use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::push::PushEvent;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::cursor::Cursor;
use prost::Message as _;
use serde_json::Value;
use support::h2_client::H2Client;
use support::http::Http;
use support::tokens::{Tokens, gateway, subscribe_as};
use support::{
    Harness, connect_narrow, event, invalidation, large_event, missed, publish, soon, subscribe,
};
use tonic::Code;

/// What a gateway is sent besides the event: gRPC's prefix.
const PREFIX_BYTES: usize = 5;

fn listen(config: &mut Config) {
    config.admin_listen = Some(Address::Tcp("127.0.0.1:0".to_owned()));
}

/// The samples of `/metrics`: name with labels, and value.
async fn metrics(server: &Harness, token: Option<&str>) -> BTreeMap<String, f64> {
    let mut http = Http::connect(server.admin_addr()).await;
    if let Some(token) = token {
        http = http.with_token(token);
    }
    let answer = http.get("/metrics").await;
    let text = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Waits until the metrics have these values, all at once.
#[track_caller]
fn settle(
    server: &Harness,
    token: Option<&'static str>,
    wanted: Vec<(&str, f64)>,
) -> impl Future<Output = ()> {
    let wanted: Vec<(String, f64)> = wanted
        .into_iter()
        .map(|(name, value)| (format!("galaxy_push_{name}"), value))
        .collect();
    let caller = std::panic::Location::caller();
    async move {
        let mut found = BTreeMap::new();
        for _ in 0..200 {
            found = metrics(server, token).await;
            if wanted
                .iter()
                .all(|(name, value)| found.get(name) == Some(value))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (name, value) in &wanted {
            assert_eq!(found.get(name), Some(value), "{name}, at {caller}");
        }
    }
}

async fn ends(server: &Harness) -> Vec<Value> {
    let mut http = Http::connect(server.admin_addr()).await;
    let ends = http.get("/api/v1/ends").await.json();
    ends["ends"].as_array().expect("ends").clone()
}

fn cause(name: &str) -> String {
    format!("stream_ends_total{{cause=\"{name}\"}}")
}

#[tokio::test]
async fn what_was_published_and_delivered_is_counted_to_the_event() {
    let server = Harness::with(listen).await;
    let mut gateways = Vec::new();
    for n in 0..3 {
        gateways.push(server.subscribe(&format!("g{n}"), "").await);
    }
    let mut publisher = server.publisher().await;
    let mut bytes = 0;
    let mut count = |events: &[PushEvent]| {
        bytes += events.iter().map(PushEvent::encoded_len).sum::<usize>();
    };
    for n in 0..5 {
        let batch: Vec<_> = (0..10).map(|m| event(10 * n + m)).collect();
        count(&batch);
        publish(&mut publisher, batch).await.expect("published");
    }
    let batch = vec![invalidation("u1"), event(7), invalidation("u2")];
    count(&batch);
    publish(&mut publisher, batch).await.expect("published");
    let refused = publish(&mut publisher, vec![PushEvent::default()]).await;
    assert_eq!(refused.expect_err("no kind").code(), Code::InvalidArgument);
    let requests: Vec<_> = (0..4)
        .map(|n| {
            let events = vec![event(n)];
            count(&events);
            PublishRequest { events }
        })
        .collect();
    let answers = publisher.publish_stream(tokio_stream::iter(requests)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let mut answered = 0;
    while soon(answers.message()).await.expect("no error").is_some() {
        answered += 1;
    }
    assert_eq!(answered, 4);

    const EVENTS: usize = 57;
    let mut delivered_bytes = 0;
    for gateway in &mut gateways {
        for _ in 0..EVENTS {
            delivered_bytes += PREFIX_BYTES + gateway.next().await.encoded_len();
        }
    }
    assert_eq!(
        delivered_bytes,
        3 * (bytes + EVENTS * (PREFIX_BYTES + Cursor::FIELD_BYTES))
    );
    let started = "subscriptions_total{resume=\"fresh\",reason=\"no-cursor\"}";
    settle(
        &server,
        None,
        vec![
            ("events_published_total{kind=\"client_event\"}", 55.0),
            ("events_published_total{kind=\"session_invalidation\"}", 2.0),
            ("event_bytes_published_total", bytes as f64),
            (
                "publish_requests_total{method=\"Publish\",code=\"OK\"}",
                6.0,
            ),
            (
                "publish_requests_total{method=\"Publish\",code=\"INVALID_ARGUMENT\"}",
                1.0,
            ),
            (
                "publish_requests_total{method=\"PublishStream\",code=\"OK\"}",
                4.0,
            ),
            ("deliveries_total", (3 * EVENTS) as f64),
            ("delivered_bytes_total", delivered_bytes as f64),
            ("gateways", 3.0),
            (started, 3.0),
            ("ring_newest_sequence", EVENTS as f64),
        ],
    )
    .await;

    // Sums stay when what they are made of has gone.
    drop((gateways, publisher, answers));
    settle(
        &server,
        None,
        vec![
            ("gateways", 0.0),
            ("deliveries_total", (3 * EVENTS) as f64),
            ("delivered_bytes_total", delivered_bytes as f64),
            ("events_published_total{kind=\"client_event\"}", 55.0),
            (
                "publish_requests_total{method=\"Publish\",code=\"OK\"}",
                6.0,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn every_end_is_counted_by_its_cause_and_has_its_figures() {
    let server = Harness::with(|config| {
        listen(config);
        config.max_bytes = 4 << 20;
        config.stall_timeout = Duration::from_secs(1);
        config.max_subscribers = 3;
    })
    .await;

    // Taken over, and then cancelled.
    let mut older = server.subscribe("twice", "").await;
    server.publish(0, 2).await;
    older.cursors(2).await;
    let newer = server.subscribe("twice", "").await;
    let (_, status) = older.finish().await;
    assert_eq!(status.code(), Code::Aborted);
    drop(newer);
    settle(
        &server,
        None,
        vec![(&cause("takeover"), 1.0), (&cause("cancelled"), 1.0)],
    )
    .await;

    // Disconnected: a connection that ends with its stream open.
    let mut client = H2Client::connect(server.gateway_addr()).await;
    let stream = client.subscribe("gone").await;
    client.driver.abort();
    drop((client, stream));
    settle(&server, None, vec![(&cause("disconnected"), 1.0)]).await;

    // Refused: no id; and one more than there may be.
    let refused = server.try_subscribe("", "").await.expect_err("no id");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut held = Vec::new();
    for n in 0..3 {
        held.push(server.subscribe(&format!("held-{n}"), "").await);
    }
    let refused = server.try_subscribe("late", "").await.expect_err("full");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(held);
    settle(
        &server,
        None,
        vec![
            (&cause("refused"), 2.0),
            (&cause("cancelled"), 4.0),
            ("gateways", 0.0),
        ],
    )
    .await;

    // Lapped: too slow for the ring; and stalled: it takes nothing at all.
    let mut narrow = PushClient::new(connect_narrow(server.gateway_addr()).await);
    let slow = subscribe(&mut narrow, "slow", "")
        .await
        .expect("subscribed");
    let deaf = H2Client::with_window(server.gateway_addr(), 1000).await;
    let mut deaf_client = deaf;
    let deaf = deaf_client.subscribe("deaf").await;
    let mut publisher = server.publisher().await;
    for _ in 0..100 {
        let batch = (0..8).map(|_| large_event(10_000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }
    let (received, status) = slow.finish().await;
    let gap = missed(&status);
    assert_eq!(received.len() as u64 + gap, 800);
    settle(
        &server,
        None,
        vec![
            (&cause("lapped"), 1.0),
            (&cause("stalled"), 1.0),
            ("missed_events_total", gap as f64),
        ],
    )
    .await;
    drop(deaf);

    // A cursor that has left the ring: what was missed by then counts too.
    let first = Cursor::new(
        server.engine.head().epoch(),
        galaxy_push::cursor::Seq::new(1),
    );
    let expired = server.subscribe("back", &first.to_string()).await;
    assert_eq!(expired.meta("push-resume-reason"), Some("expired"));
    let away: u64 = expired
        .meta("push-missed")
        .expect("a count")
        .parse()
        .expect("a number");
    settle(
        &server,
        None,
        vec![
            ("missed_events_total", (gap + away) as f64),
            (
                "subscriptions_total{resume=\"fresh\",reason=\"expired\"}",
                1.0,
            ),
        ],
    )
    .await;

    let ends = ends(&server).await;
    let of = |id: &str| ends.iter().find(|end| end["id"] == id).expect("an end");
    let taken = ends
        .iter()
        .find(|end| end["cause"] == "takeover")
        .expect("an end");
    assert_eq!(taken["delivered_events"], 2);
    let detail = taken["detail"].as_str().expect("text");
    assert!(detail.starts_with("taken over by 127.0.0.1:"), "{detail}");
    assert_eq!(of("slow")["missed"], gap);
    assert_eq!(of("slow")["delivered_events"], received.len());
    assert_eq!(of("slow")["cause"], "lapped");
    assert_eq!(of("deaf")["cause"], "stalled");
    assert_eq!(of("gone")["cause"], "disconnected");
    let refused: Vec<_> = ends
        .iter()
        .filter(|end| end["cause"] == "refused")
        .collect();
    assert_eq!(refused.len(), 2);
}

#[tokio::test]
async fn credentials_that_end_and_those_that_are_refused_are_counted_apart() {
    let tokens = Tokens::new();
    tokens.set(Identity::new("reader").admin(AdminRole::Read));
    tokens.set(gateway("revoked", &["*"]));
    let soon_over = SystemTime::now() + Duration::from_secs(3);
    tokens.set(support::tokens::until(gateway("short", &["*"]), soon_over));
    tokens.set(gateway("narrow", &["mine"]));
    let server = Harness::with_authenticator(listen, Arc::clone(&tokens) as _).await;
    let mut client = server.gateway().await;
    let revoked = subscribe_as(&mut client, "revoked", "a", "")
        .await
        .expect("granted");
    let expiring = subscribe_as(&mut client, "short", "b", "")
        .await
        .expect("granted");
    let refused = subscribe_as(&mut client, "narrow", "yours", "").await;
    assert_eq!(
        refused.expect_err("not granted").code(),
        Code::PermissionDenied
    );
    let unknown = subscribe_as(&mut client, "nobody", "x", "").await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::Unauthenticated);
    tokens.revoke("revoked");
    assert_eq!(revoked.finish().await.1.code(), Code::PermissionDenied);
    assert_eq!(expiring.finish().await.1.code(), Code::Unauthenticated);
    settle(
        &server,
        Some("reader"),
        vec![
            (&cause("denied"), 1.0),
            (&cause("expired"), 1.0),
            (&cause("refused"), 2.0),
            ("auth_failures_total{reason=\"SUBSCRIBE_NOT_GRANTED\"}", 1.0),
            ("auth_failures_total{reason=\"CREDENTIAL_UNKNOWN\"}", 1.0),
        ],
    )
    .await;
}
