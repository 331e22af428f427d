//! Replays of revocations over gRPC: what a gateway is told that was away for too long.

#![cfg(all(feature = "client", feature = "server"))]

mod support;

use std::time::Duration;

use galaxy_push::client::{Completeness, Gateway, Item};
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent, SessionInvalidation};
use galaxy_push::cursor::Cursor;
use support::{Harness, event, invalidation, publish, reason, soon};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};

/// A ring that a gateway is soon out of.
async fn server() -> Harness {
    Harness::with(|config| config.max_events = 8).await
}

fn revocation(user: u64, session: u64) -> PushEvent {
    PushEvent {
        kind: Some(Kind::SessionInvalidation(SessionInvalidation {
            user_id: format!("user-{user}"),
            device_session_id: format!("session-{session}"),
            reason: "logout".to_owned(),
        })),
        cursor: String::new(),
    }
}

async fn put(server: &Harness, events: Vec<PushEvent>) -> String {
    let mut publisher = server.publisher().await;
    let response = soon(publish(&mut publisher, events)).await;
    response.expect("published").last_cursor
}

async fn ask(
    server: &Harness,
    cursor: &str,
    value: &str,
) -> Result<Response<Streaming<PushEvent>>, Status> {
    let mut request = Request::new(GatewaySubscribeRequest {
        gateway_client_id: "gateway".to_owned(),
        cursor: cursor.to_owned(),
    });
    let value = value.parse().expect("text");
    request.metadata_mut().insert("push-revocations", value);
    soon(server.gateway().await.subscribe_push(request)).await
}

fn text<T>(response: &Response<T>, key: &str) -> String {
    let value = response.metadata().get(key).expect(key);
    value.to_str().expect("text").to_owned()
}

/// What the response says, and the messages up to the mark, which is not among them.
async fn replay(server: &Harness, cursor: &str) -> (String, Vec<PushEvent>, Streaming<PushEvent>) {
    let response = ask(server, cursor, "replay").await.expect("subscribed");
    let start = text(&response, "push-start-cursor");
    let count = text(&response, "push-revocations-count");
    let count: usize = count.parse().expect("a number");
    let said = text(&response, "push-revocations");
    let mut stream = response.into_inner();
    let mut missed = Vec::new();
    for _ in 0..count {
        missed.push(
            soon(stream.next())
                .await
                .expect("goes on")
                .expect("a message"),
        );
    }
    let mark = soon(stream.next())
        .await
        .expect("goes on")
        .expect("a message");
    assert_eq!((mark.kind, mark.cursor), (None, start));
    (said, missed, stream)
}

#[tokio::test]
async fn what_was_missed_comes_first_then_a_mark_then_what_is_new() {
    let server = server().await;
    let processed = put(&server, vec![event(0)]).await;
    let mut revoked = Vec::new();
    for n in 0..3 {
        let cursor = put(&server, vec![revocation(n, 1)]).await;
        revoked.push((n, cursor));
        put(&server, vec![event(n)]).await;
    }
    // The newest of a session stands for the older ones.
    let again = put(&server, vec![revocation(1, 1)]).await;
    revoked.remove(1);
    revoked.push((1, again));
    put(&server, (0..20).map(event).collect()).await;

    let (said, missed, mut stream) = replay(&server, &processed).await;
    assert_eq!(said, "complete");
    let expected: Vec<_> = revoked
        .iter()
        .map(|(user, cursor)| PushEvent {
            cursor: cursor.clone(),
            ..revocation(*user, 1)
        })
        .collect();
    assert_eq!(missed, expected);
    let next = put(&server, vec![event(99)]).await;
    let event = soon(stream.next())
        .await
        .expect("goes on")
        .expect("an event");
    assert_eq!(event.cursor, next);

    // From one of them on: those that come after it.
    let (said, missed, _stream) = replay(&server, &revoked[0].1).await;
    assert_eq!((&*said, &missed[..]), ("complete", &expected[1..]));
    // None, and no cursor of this stream: all that there are.
    let (said, missed, _stream) = replay(&server, "").await;
    assert_eq!((&*said, &missed[..]), ("complete", &expected[..]));
    let other = "000000000000-00000000001";
    assert!(other.parse::<Cursor>().is_ok());
    let (said, missed, _stream) = replay(&server, other).await;
    assert_eq!((&*said, &missed[..]), ("partial", &expected[..]));
}

#[tokio::test]
async fn a_stream_that_resumes_or_did_not_ask_has_no_replay() {
    let server = server().await;
    let first = put(&server, vec![invalidation("u")]).await;
    let response = ask(&server, &first, "replay").await.expect("subscribed");
    assert!(response.metadata().get("push-revocations").is_none());
    put(&server, (0..20).map(event).collect()).await;
    let mut subscription = server.subscribe("gateway", &first).await;
    assert_eq!(subscription.meta("push-revocations"), None);
    let next = put(&server, vec![event(1)]).await;
    assert_eq!(subscription.cursors(1).await, [next]);
}

#[tokio::test]
async fn a_stream_that_resumes_says_where_it_has_caught_up() {
    let server = server().await;
    let processed = put(&server, vec![event(0)]).await;
    let head = put(&server, vec![event(1), event(2)]).await;
    let response = ask(&server, &processed.to_string(), "replay")
        .await
        .expect("subscribed");
    assert_eq!(text(&response, "push-resume"), "resumed");
    assert_eq!(text(&response, "push-head-cursor"), head);
    // With a fresh start that is where it starts.
    let response = ask(&server, "", "replay").await.expect("subscribed");
    assert!(!response.metadata().contains_key("push-head-cursor"));
    // Nobody else is told.
    let request = Request::new(GatewaySubscribeRequest {
        gateway_client_id: "plain".to_owned(),
        cursor: processed.to_string(),
    });
    let response = soon(server.gateway().await.subscribe_push(request)).await;
    assert!(
        !response
            .expect("subscribed")
            .metadata()
            .contains_key("push-head-cursor")
    );
}

#[tokio::test]
async fn another_value_is_refused() {
    let server = server().await;
    for value in ["", "Replay", "complete"] {
        let refused = ask(&server, "", value).await.expect_err(value);
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(reason(&refused).0, "INVALID_METADATA");
        assert!(refused.message().contains("push-revocations"), "{refused}");
    }
}

#[tokio::test]
async fn what_the_table_does_not_keep_is_told() {
    let none = Harness::with(|config| {
        config.max_events = 8;
        config.max_revocations = 0;
    });
    let none = none.await;
    let first = put(&none, vec![invalidation("u")]).await;
    put(&none, (0..20).map(event).collect()).await;
    let (said, missed, _stream) = replay(&none, &first).await;
    assert_eq!((&*said, missed.len()), ("partial", 0));

    let few = Harness::with(|config| {
        config.max_events = 8;
        config.max_revocations = 2;
    });
    let few = few.await;
    let first = put(&few, vec![event(0)]).await;
    let cursor = put(&few, vec![revocation(1, 1)]).await;
    put(&few, vec![revocation(2, 1), revocation(3, 1)]).await;
    put(&few, (0..20).map(event).collect()).await;
    let (said, missed, _stream) = replay(&few, &first).await;
    assert_eq!((&*said, missed.len()), ("partial", 2));
    let (said, missed, _stream) = replay(&few, &cursor).await;
    assert_eq!((&*said, missed.len()), ("complete", 2));
}

/// More than one write, and windows of 64 KiB; meanwhile all of them are replaced.
#[tokio::test]
async fn a_long_replay_is_exact_while_what_it_reads_is_replaced() {
    let server = server().await;
    let users = 4000;
    for first in (0..users).step_by(500) {
        put(
            &server,
            (first..first + 500).map(|n| revocation(n, 1)).collect(),
        )
        .await;
    }
    put(&server, (0..20).map(event).collect()).await;
    let response = ask(&server, "", "replay").await.expect("subscribed");
    let start = text(&response, "push-start-cursor");
    assert_eq!(text(&response, "push-revocations-count"), "4000");
    let mut stream = response.into_inner();
    for first in (0..users).step_by(500) {
        put(
            &server,
            (first..first + 500).map(|n| revocation(n, 1)).collect(),
        )
        .await;
    }
    for n in 0..users {
        let event = soon(stream.next())
            .await
            .expect("goes on")
            .expect("an event");
        assert_eq!(event.kind, revocation(n, 1).kind, "{n}");
        assert!(event.cursor <= start);
    }
    let mark = soon(stream.next())
        .await
        .expect("goes on")
        .expect("an event");
    assert_eq!((mark.kind, mark.cursor), (None, start));
    // The ring has turned meanwhile.
    let ended = soon(stream.next())
        .await
        .expect("goes on")
        .expect_err("lapped");
    assert_eq!(ended.code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_gateway_is_told_whom_to_throw_out() {
    let server = server().await;
    let address = server
        .gateway_addr()
        .to_string()
        .parse()
        .expect("an address");
    let first = put(&server, vec![event(0)]).await;
    put(&server, vec![revocation(1, 1)]).await;
    put(&server, (0..20).map(event).collect()).await;
    let mut gateway = Gateway::builder("gateway", address)
        .cursor(Some(first.parse().expect("a cursor")))
        .replay_revocations(true)
        .heartbeat(Duration::from_secs(1))
        .build()
        .expect("valid");
    let gap = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(gap, Item::Gap(_)), "{gap:?}");
    let Item::Connected(start) = soon(gateway.next()).await.expect("goes on") else {
        panic!("not connected");
    };
    let missed = start.revocations.expect("a replay");
    assert_eq!(
        (missed.completeness, missed.count),
        (Completeness::Complete, 1)
    );
    assert_eq!(gateway.cursor(), first.parse().ok());
    let Item::Event { cursor, event } = soon(gateway.next()).await.expect("goes on") else {
        panic!("not an event");
    };
    assert_eq!(event.kind, revocation(1, 1).kind);
    gateway.processed(cursor);
    assert_eq!(gateway.cursor(), Some(cursor));
    let Item::Replayed { cursor } = soon(gateway.next()).await.expect("goes on") else {
        panic!("not the end");
    };
    assert_eq!(cursor, start.cursor);
    gateway.processed(cursor);
    assert_eq!(gateway.cursor(), Some(start.cursor));
    let next = put(&server, vec![support::event(7)]).await;
    let Item::Event { cursor, .. } = soon(gateway.next()).await.expect("goes on") else {
        panic!("not an event");
    };
    assert_eq!(cursor.to_string(), next);
}
