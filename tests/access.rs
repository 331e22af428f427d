//! Who may do what: nobody subscribes, publishes or takes over who may not, and open calls
//! end with what they rest on.

#![cfg(feature = "server")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use galaxy_push::config::Config;
use galaxy_push::contract::publisher::{PublishRequest, PublishResponse};
use galaxy_push::contract::push::PushEvent;
use galaxy_push::cursor::Cursor;
use galaxy_push::server::Server;
use h2::SendStream;
use support::grpc::{PUBLISH, PUBLISH_STREAM, SUBSCRIBE, publish_request, subscribe_request};
use support::h2_client::{GrpcResponse, H2Client};
use support::tokens::{
    Tokens, gateway, gateway_with_streams, publish_as, publisher, publisher_with_rate,
    subscribe_as, until, with_token,
};
use support::{Harness, Subscription, event, invalidation, publish, soon};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A server with a gateway that may be `a`, and a publisher of client events.
async fn start() -> (Harness, Arc<Tokens>) {
    let tokens = Tokens::new();
    tokens.set(gateway("token-a", &["a"]));
    tokens.set(publisher("producer"));
    let server = Harness::with_authenticator(|_| {}, tokens.clone()).await;
    (server, tokens)
}

async fn subscribe(server: &Harness, token: &str, id: &str, cursor: &str) -> Subscription {
    match try_subscribe(server, token, id, cursor).await {
        Ok(subscription) => subscription,
        Err(status) => panic!("{id} was not subscribed: {status:?}"),
    }
}

async fn try_subscribe(
    server: &Harness,
    token: &str,
    id: &str,
    cursor: &str,
) -> Result<Subscription, Status> {
    subscribe_as(&mut server.gateway().await, token, id, cursor).await
}

/// Publishes single events until it is stopped; returns how many.
struct Load {
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<u64>,
}

impl Load {
    async fn start(server: &Harness) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut producer = server.publisher().await;
        let publishing = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let published = publish_as(&mut producer, "producer", vec![event(n)]).await;
                    published.expect("published");
                    n += 1;
                }
                n
            }
        });
        Load { stop, publishing }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        soon(self.publishing).await.expect("no panic")
    }
}

fn seq(cursor: &str) -> u64 {
    cursor.parse::<Cursor>().expect("a cursor").seq().number()
}

/// That the events follow one another from `after` on. Returns the last one.
fn assert_run(after: u64, events: &[PushEvent]) -> u64 {
    let mut last = after;
    for event in events {
        assert_eq!(seq(&event.cursor), last + 1);
        last += 1;
    }
    last
}

fn assert_code(status: &Status, code: Code, part: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{status:?}");
}

/// An open `PublishStream`.
struct Publishing {
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
}

impl Publishing {
    async fn open(server: &Harness, token: &str) -> Self {
        let (requests, stream) = mpsc::channel(8);
        let request = with_token(token, ReceiverStream::new(stream));
        let mut producer = server.publisher().await;
        let response = soon(producer.publish_stream(request)).await;
        Publishing {
            requests,
            responses: response.expect("opened").into_inner(),
        }
    }

    async fn send(&self, events: Vec<PushEvent>) {
        let sent = self.requests.send(PublishRequest { events }).await;
        sent.expect("the call is open");
    }

    async fn response(&mut self) -> Result<PublishResponse, Status> {
        Ok(soon(self.responses.message()).await?.expect("a response"))
    }
}

#[tokio::test]
async fn whoever_shows_nothing_or_something_wrong_is_refused_everywhere() {
    let (server, _tokens) = start().await;
    for (address, path, body) in [
        (server.gateway_addr(), SUBSCRIBE, subscribe_request("a", "")),
        (
            server.publisher_addr(),
            PUBLISH,
            publish_request(vec![event(1)]),
        ),
        (
            server.publisher_addr(),
            PUBLISH_STREAM,
            publish_request(vec![event(1)]),
        ),
    ] {
        let mut client = H2Client::connect(address).await;
        let response = client.call(path, body.clone()).await;
        assert_eq!(
            response.grpc_status(),
            Some(Code::Unauthenticated),
            "{path}"
        );
        assert!(
            response.message().contains("Bearer"),
            "{}",
            response.message()
        );
        for wrong in [
            "Bearer nobody",
            "Bearer ",
            "",
            "token-a",
            "Basic dG9rZW4tYQ==",
        ] {
            let response = client
                .call_with(path, body.clone(), |fields| {
                    fields.insert("authorization", wrong.parse().unwrap());
                })
                .await;
            assert_eq!(
                response.grpc_status(),
                Some(Code::Unauthenticated),
                "{path} {wrong:?}"
            );
            assert!(
                !response.message().contains("dG9rZW4tYQ"),
                "{}",
                response.message()
            );
        }
    }
    assert_eq!(server.published(), 0);
    assert_eq!(server.engine.stats().subscribers, 0);
}

#[tokio::test]
async fn two_authorization_fields_are_refused_even_if_both_are_right() {
    let (server, _tokens) = start().await;
    let mut client = H2Client::connect(server.gateway_addr()).await;
    for other in ["Bearer token-a", "Bearer nobody"] {
        let response = client
            .call_with(SUBSCRIBE, subscribe_request("a", ""), |fields| {
                fields.append("authorization", "Bearer token-a".parse().unwrap());
                fields.append("authorization", other.parse().unwrap());
            })
            .await;
        assert_eq!(response.grpc_status(), Some(Code::Unauthenticated));
        assert!(
            response.message().contains("more than one"),
            "{}",
            response.message()
        );
    }
}

#[tokio::test]
async fn a_valid_credential_with_anothers_id_is_refused_and_the_genuine_stream_misses_nothing() {
    let (server, tokens) = start().await;
    tokens.set(gateway("token-b", &["b"]));
    let mut genuine = subscribe(&server, "token-a", "a", "").await;
    let load = Load::start(&server).await;
    let mut thief = server.gateway().await;
    for _ in 0..50 {
        let refused = subscribe_as(&mut thief, "token-b", "a", "").await;
        let status = refused.expect_err("refused");
        assert_code(
            &status,
            Code::PermissionDenied,
            "token-b may not subscribe as gateway \"a\"",
        );
    }
    let count = load.stop().await;
    let cursors = genuine.cursors(count as usize).await;
    for (n, cursor) in cursors.iter().enumerate() {
        assert_eq!(seq(cursor), n as u64 + 1);
    }
    // Its own id is still its own.
    subscribe_as(&mut thief, "token-b", "b", "")
        .await
        .expect("subscribed");
    let more = publish_as(&mut server.publisher().await, "producer", vec![event(0)]).await;
    assert_eq!(
        genuine.next().await.cursor,
        more.expect("published").first_cursor
    );
}

#[tokio::test]
async fn a_batch_with_a_kind_that_is_not_granted_leaves_no_trace() {
    let (server, tokens) = start().await;
    let mut witness = subscribe(&server, "token-a", "a", "").await;
    let mut producer = server.publisher().await;
    let batch = vec![event(1), invalidation("u"), event(2)];
    let refused = publish_as(&mut producer, "producer", batch.clone()).await;
    let status = refused.expect_err("refused");
    assert_code(
        &status,
        Code::PermissionDenied,
        "producer may not publish a session_invalidation",
    );
    assert_eq!(server.published(), 0);

    let stream = Publishing::open(&server, "producer").await;
    let mut stream = stream;
    stream.send(vec![event(3)]).await;
    stream.send(batch).await;
    stream.send(vec![event(4)]).await;
    let earlier = stream.response().await.expect("it was allowed");
    let status = stream.response().await.expect_err("refused");
    assert_code(&status, Code::PermissionDenied, "session_invalidation");
    assert_eq!(server.published(), 1, "nothing after it, either");
    assert_eq!(witness.next().await.cursor, earlier.first_cursor);

    // A gateway's credential publishes nothing at all.
    let refused = publish_as(&mut producer, "token-a", vec![event(5)]).await;
    assert_code(
        &refused.expect_err("refused"),
        Code::PermissionDenied,
        "may not publish",
    );
    assert_eq!(server.published(), 1);
    // With the right to, it is published as a whole.
    tokens.set(support::tokens::publisher_of_all("producer"));
    let batch = vec![event(6), invalidation("u")];
    publish_as(&mut producer, "producer", batch)
        .await
        .expect("published");
    assert_eq!(witness.cursors(2).await.len(), 2);
}

#[tokio::test]
async fn a_revoked_token_ends_an_idle_stream_and_a_busy_one_alike() {
    let (server, tokens) = start().await;
    tokens.set(gateway("token-b", &["b"]));
    let revoked = subscribe(&server, "token-a", "a", "").await;
    let mut other = subscribe(&server, "token-b", "b", "").await;
    tokens.revoke("token-a");
    let (events, status) = revoked.finish().await;
    assert_eq!(events, []);
    assert_code(&status, Code::PermissionDenied, "token-a was revoked");
    let again = try_subscribe(&server, "token-a", "a", "").await;
    assert_code(
        &again.expect_err("refused"),
        Code::Unauthenticated,
        "not known",
    );

    tokens.set(gateway("token-a", &["a"]));
    let mut busy = subscribe(&server, "token-a", "a", "").await;
    let start = seq(busy.meta("push-start-cursor").expect("a start"));
    let load = Load::start(&server).await;
    busy.cursors(20).await;
    tokens.revoke("token-a");
    let (events, status) = busy.finish().await;
    assert_code(&status, Code::PermissionDenied, "token-a was revoked");
    assert_run(start + 20, &events);
    let count = load.stop().await;
    assert_eq!(other.cursors(count as usize).await.len(), count as usize);
    assert_eq!(server.engine.stats().subscribers, 1);
}

#[tokio::test]
async fn a_stream_goes_on_with_what_was_changed_unless_its_id_is_not_granted_any_more() {
    let (server, tokens) = start().await;
    let mut stream = subscribe(&server, "token-a", "a", "").await;
    tokens.set(gateway("token-a", &["c", "a*"]));
    // Somebody who was revoked has been looked at as well by now.
    tokens.set(gateway("token-b", &["b"]));
    let probe = subscribe(&server, "token-b", "b", "").await;
    tokens.revoke("token-b");
    probe.finish().await;
    let published = publish_as(&mut server.publisher().await, "producer", vec![event(1)]).await;
    assert_eq!(
        stream.next().await.cursor,
        published.expect("published").first_cursor
    );

    tokens.set(gateway("token-a", &["c"]));
    let (events, status) = stream.finish().await;
    assert_eq!(events, []);
    assert_code(
        &status,
        Code::PermissionDenied,
        "token-a may not subscribe as gateway \"a\"",
    );
}

#[tokio::test]
async fn a_revoked_publisher_is_ended_after_the_responses_to_what_it_has_published() {
    let (server, tokens) = start().await;
    let mut stream = Publishing::open(&server, "producer").await;
    stream.send(vec![event(1)]).await;
    stream.response().await.expect("published");
    tokens.revoke("producer");
    let status = stream.response().await.expect_err("idle, and ended");
    assert_code(&status, Code::PermissionDenied, "producer was revoked");
    assert_eq!(server.published(), 1);

    // The right to publish is taken, and nothing else.
    tokens.set(publisher("producer"));
    let mut stream = Publishing::open(&server, "producer").await;
    tokens.set(gateway("producer", &["*"]));
    let status = stream.response().await.expect_err("idle, and ended");
    assert_code(&status, Code::PermissionDenied, "producer may not publish");
}

#[tokio::test]
async fn a_request_whose_credential_is_revoked_while_it_arrives_is_not_published() {
    let (server, tokens) = start().await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    let (response, mut body) = open_as(&mut client, PUBLISH, "producer").await;
    let request = publish_request(vec![event(1)]);
    let (half, rest) = request.split_at(request.len() / 2);
    body.send_data(Bytes::copy_from_slice(half), false)
        .expect("sent");
    // The call has begun when a later one of its connection is answered.
    let other = client.call(PUBLISH, publish_request(vec![event(1)])).await;
    assert_eq!(other.grpc_status(), Some(Code::Unauthenticated));
    tokens.revoke("producer");
    body.send_data(Bytes::copy_from_slice(rest), true)
        .expect("sent");
    let response = GrpcResponse::read(soon(response).await.expect("a response")).await;
    assert_eq!(response.grpc_status(), Some(Code::PermissionDenied));
    assert_eq!(server.published(), 0);

    let mut client = H2Client::connect(server.gateway_addr()).await;
    let (response, mut body) = open_as(&mut client, SUBSCRIBE, "token-a").await;
    let other = client.call(SUBSCRIBE, subscribe_request("a", "")).await;
    assert_eq!(other.grpc_status(), Some(Code::Unauthenticated));
    tokens.revoke("token-a");
    body.send_data(subscribe_request("a", "").into(), true)
        .expect("sent");
    let response = GrpcResponse::read(soon(response).await.expect("a response")).await;
    assert_eq!(response.grpc_status(), Some(Code::PermissionDenied));
    assert_eq!(server.engine.stats().subscribers, 0);
}

async fn open_as(
    client: &mut H2Client,
    path: &str,
    token: &str,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let value = format!("Bearer {token}");
    client
        .open_with(path, |fields| {
            fields.insert("authorization", value.parse().unwrap());
        })
        .await
}

#[tokio::test]
async fn open_calls_end_when_their_credential_expires() {
    let (server, tokens) = start().await;
    let end = SystemTime::now() + Duration::from_secs(2);
    tokens.set(until(gateway("brief", &["brief"]), end));
    tokens.set(until(publisher("brief-producer"), end));
    let brief = subscribe(&server, "brief", "brief", "").await;
    let mut lasting = subscribe(&server, "token-a", "a", "").await;
    let mut stream = Publishing::open(&server, "brief-producer").await;
    stream.send(vec![event(1)]).await;
    let published = stream.response().await.expect("published");

    let (events, status) = brief.finish().await;
    assert_code(&status, Code::Unauthenticated, "expired");
    assert!(SystemTime::now() >= end, "not before");
    assert_eq!(events.len(), 1);
    let status = stream.response().await.expect_err("ended");
    assert_code(&status, Code::Unauthenticated, "expired");
    let refused = publish_as(
        &mut server.publisher().await,
        "brief-producer",
        vec![event(2)],
    )
    .await;
    assert_code(
        &refused.expect_err("refused"),
        Code::Unauthenticated,
        "expired",
    );
    assert_eq!(lasting.next().await.cursor, published.first_cursor);
    assert_eq!(server.published(), 1);
}

#[tokio::test]
async fn a_credential_that_is_renewed_on_the_server_lasts() {
    let (server, tokens) = start().await;
    let end = SystemTime::now() + Duration::from_secs(1);
    tokens.set(until(gateway("brief", &["brief"]), end));
    tokens.set(until(gateway("brief-too", &["brief-too"]), end));
    let mut renewed = subscribe(&server, "brief", "brief", "").await;
    let other = subscribe(&server, "brief-too", "brief-too", "").await;
    tokens.set(gateway("brief", &["brief"]));
    let (_, status) = other.finish().await;
    assert_code(&status, Code::Unauthenticated, "expired");
    let published = publish_as(&mut server.publisher().await, "producer", vec![event(1)]).await;
    assert_eq!(
        renewed.next().await.cursor,
        published.expect("published").first_cursor
    );
}

#[tokio::test]
async fn a_gateway_takes_over_from_itself_under_load_without_a_gap_or_a_repeat() {
    let (server, tokens) = start().await;
    // As many streams as it has: a takeover is no further one.
    for n in 0..20 {
        tokens.set(gateway_with_streams(&format!("fresh-{n}"), &["g"], 1));
    }
    tokens.set(gateway_with_streams("own", &["own"], 1));
    let load = Load::start(&server).await;
    let mut last = 0;
    let mut cursor = String::new();
    let mut own_last = None;
    let mut own = subscribe(&server, "own", "own", "").await;
    for n in 0..20 {
        // With a credential that is new each time, of another principal even.
        let mut stream = subscribe(&server, &format!("fresh-{n}"), "g", &cursor).await;
        let start = seq(stream.meta("push-start-cursor").expect("a start"));
        if n > 0 {
            assert_eq!(stream.meta("push-resume"), Some("resumed"));
            assert_eq!(start, last);
        }
        last = start;
        for _ in 0..10 {
            let event = stream.next().await;
            assert_eq!(seq(&event.cursor), last + 1);
            last += 1;
            cursor = event.cursor;
        }

        // And with the one that it has.
        let event = own.next().await;
        assert!(own_last.is_none_or(|last| seq(&event.cursor) == last + 1));
        let newer = subscribe(&server, "own", "own", &event.cursor).await;
        assert_eq!(newer.meta("push-resume"), Some("resumed"));
        own_last = Some(seq(&event.cursor));
        let (rest, status) = std::mem::replace(&mut own, newer).finish().await;
        assert_code(&status, Code::Aborted, "newer subscription");
        assert_run(seq(&event.cursor), &rest);
    }
    load.stop().await;
}

#[tokio::test]
async fn a_principal_has_no_more_streams_than_it_may() {
    let (server, tokens) = start().await;
    tokens.set(gateway_with_streams("two", &["x*"], 2));
    let first = subscribe(&server, "two", "x1", "").await;
    let second = subscribe(&server, "two", "x2", "").await;
    let refused = try_subscribe(&server, "two", "x3", "").await;
    assert_code(
        &refused.expect_err("refused"),
        Code::ResourceExhausted,
        "max_streams",
    );
    // What it has is untouched, and may be taken over by itself.
    let again = subscribe(&server, "two", "x1", "").await;
    let (_, status) = first.finish().await;
    assert_code(&status, Code::Aborted, "newer subscription");
    let refused = try_subscribe(&server, "two", "x3", "").await;
    assert_code(
        &refused.expect_err("refused"),
        Code::ResourceExhausted,
        "max_streams",
    );
    drop(second);
    soon(async {
        while try_subscribe(&server, "two", "x3", "").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(again);
}

#[tokio::test]
async fn a_publisher_over_its_quota_ends_its_stream_after_the_responses_before_it() {
    let (server, tokens) = start().await;
    tokens.set(publisher_with_rate("hurried", 2));
    let mut stream = Publishing::open(&server, "hurried").await;
    stream.send(vec![event(1), event(2)]).await;
    stream.send(vec![event(3), event(4)]).await;
    stream.response().await.expect("within its quota");
    let status = stream.response().await.expect_err("refused");
    assert_code(&status, Code::ResourceExhausted, "events_per_second");
    assert_eq!(
        server.published(),
        2,
        "a batch is taken as a whole or not at all"
    );
}

#[tokio::test]
async fn a_server_that_others_reach_does_not_serve_unprotected() {
    for (is_known, allow_plaintext, starts) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let config = Config {
            listen: "0.0.0.0:0".parse().unwrap(),
            publish_listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: None,
            allow_plaintext,
            ..Config::default()
        };
        let mut server = Server::bind(config).await.expect("bound");
        if is_known {
            server = server.with_authenticator(Tokens::new());
        }
        let ended = soon(server.run(async {})).await;
        assert_eq!(ended.is_ok(), starts, "{ended:?}");
        if let Err(error) = ended {
            assert!(
                error.to_string().starts_with("listen: 0.0.0.0:0 "),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn without_an_authenticator_a_credential_is_not_looked_at() {
    let server = Harness::start().await;
    let mut stream = subscribe(&server, "whatever", "a", "").await;
    let published = publish(&mut server.publisher().await, vec![invalidation("u")]).await;
    assert_eq!(
        stream.next().await.cursor,
        published.expect("published").first_cursor
    );
}
