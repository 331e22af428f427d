//! What may be published: every refusal leaves no trace, what is accepted
//! arrives byte for byte, and a stream of requests has its responses in order.

#![cfg(feature = "server")]

mod support;

use bytes::Bytes;

use galaxy_push::contract::publisher::{PublishRequest, PublishResponse};
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{ClientEvent, PushEvent};

use h2::SendStream;
use prost::Message;
use support::frames::{self, Reason, kind, setting};
use support::grpc::{PUBLISH, PUBLISH_STREAM, message, publish_request};
use support::h2_client::{GrpcResponse, H2Client};
use support::wire::Wire;
use support::{Harness, event, invalidation, large_event, publish, soon, until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// A `PublishRequest` of these encoded events.
fn request(events: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(event.len() as u64, &mut bytes);
        bytes.extend(*event);
    }
    bytes
}

fn good() -> Vec<u8> {
    event(1).encode_to_vec()
}

fn client_event(change: impl FnOnce(&mut ClientEvent)) -> Vec<u8> {
    let mut event = event(1);
    if let Some(Kind::ClientEvent(client_event)) = &mut event.kind {
        change(client_event);
    }
    event.encode_to_vec()
}

const MAX_EVENT_BYTES: usize = 1000;

/// Everything that is refused: the request, and what the status must say.
fn refusals() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = good();
    let at_2 = |bad: &[u8]| request(&[&good, &good, bad, &good]);
    let with_cursor = PushEvent {
        cursor: "000000000000-00000000001".to_owned(),
        ..event(1)
    };
    let too_large = large_event(MAX_EVENT_BYTES);
    let not_utf8 = b"\x0a\x09\x0a\x02\xff\xfe\x1a\x03abc";
    vec![
        ("no events", vec![], "events"),
        ("no kind", at_2(b""), "events[2]"),
        (
            "an unknown kind only",
            at_2(b"\x7a\x02hi"),
            "events[2].kind is not set",
        ),
        (
            "an empty user_id",
            at_2(&client_event(|event| event.user_id.clear())),
            "events[2].client_event.user_id",
        ),
        (
            "an empty kind",
            at_2(&client_event(|event| event.kind.clear())),
            "events[2].client_event.kind",
        ),
        (
            "an invalidation of nobody",
            at_2(&invalidation("").encode_to_vec()),
            "events[2].session_invalidation.user_id",
        ),
        (
            "a cursor",
            at_2(&with_cursor.encode_to_vec()),
            "events[2].cursor",
        ),
        (
            "text that is not UTF-8",
            at_2(not_utf8),
            "events[2].client_event.user_id",
        ),
        (
            "an event that breaks off",
            at_2(&good[..good.len() - 1]),
            "events[2]",
        ),
        (
            "an event too large",
            at_2(&too_large.encode_to_vec()),
            "events[2]",
        ),
        (
            "a request that breaks off",
            request(&[&good])[..5].to_vec(),
            "PublishRequest",
        ),
        ("garbage", vec![0xff; 100], "PublishRequest"),
        ("a bad first event", request(&[b"", &good]), "events[0]"),
    ]
}

/// Shows that nothing was published so far: the next event is the first.
async fn assert_untouched(server: &Harness, gateway: &mut support::Subscription) {
    assert_eq!(server.engine.head().seq().number(), 0);
    let published = server.publish(0, 1).await;
    assert_eq!(gateway.next().await.cursor, published[0]);
}

#[tokio::test]
async fn each_bad_request_is_refused_by_field_and_index_and_leaves_no_trace() {
    let server = Harness::with(|config| config.max_event_bytes = MAX_EVENT_BYTES).await;
    let mut gateway = server.subscribe("gateway", "").await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    for (what, request, says) in refusals() {
        let response = client.call(PUBLISH, message(&request)).await;
        assert_eq!(
            response.grpc_status(),
            Some(Code::InvalidArgument),
            "{what}: {response:?}"
        );
        assert!(response.message().contains(says), "{what}: {response:?}");
    }
    assert_untouched(&server, &mut gateway).await;
}

#[tokio::test]
async fn each_bad_request_ends_a_stream_the_same_way() {
    let server = Harness::with(|config| config.max_event_bytes = MAX_EVENT_BYTES).await;
    let mut gateway = server.subscribe("gateway", "").await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    for (what, request, says) in refusals() {
        let response = client.call(PUBLISH_STREAM, message(&request)).await;
        assert_eq!(
            response.grpc_status(),
            Some(Code::InvalidArgument),
            "{what}: {response:?}"
        );
        assert!(response.message().contains(says), "{what}: {response:?}");
        assert_eq!(response.data, b"", "{what}");
    }
    assert_untouched(&server, &mut gateway).await;
}

#[tokio::test]
async fn an_event_of_just_the_limit_is_accepted() {
    let smallest = large_event(0).encode_to_vec().len();
    // Two lengths of one byte become two of two: one for the payload's field (and
    // its tag), one for the event's.
    let payload = MAX_EVENT_BYTES - smallest - 4;
    let event = large_event(payload);
    assert_eq!(event.encoded_len(), MAX_EVENT_BYTES);
    let server = Harness::with(|config| config.max_event_bytes = MAX_EVENT_BYTES).await;
    let mut publisher = server.publisher().await;
    publish(&mut publisher, vec![event])
        .await
        .expect("accepted");
    let status = publish(&mut publisher, vec![large_event(payload + 1)])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("1000"), "{status:?}");
}

#[tokio::test]
async fn a_request_over_the_message_limit_is_refused_and_the_server_lives() {
    let server = Harness::start().await;
    let mut publisher = server.publisher().await;
    for _ in 0..3 {
        let batch = (0..200).map(|_| large_event(60_000)).collect();
        let status = publish(&mut publisher, batch).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("4194304"), "{status:?}");
    }
    assert_eq!(server.engine.head().seq().number(), 0);
    server.assert_alive().await;
}

#[tokio::test]
async fn a_batch_is_contiguous_and_its_response_has_its_first_and_last_cursor() {
    let server = Harness::start().await;
    let mut gateway = server.subscribe("gateway", "").await;
    let mut publisher = server.publisher().await;
    let events: Vec<_> = (0..500).map(event).collect();
    let response = publish(&mut publisher, events.clone())
        .await
        .expect("published");
    let mut received = Vec::new();
    for _ in 0..500 {
        received.push(gateway.next().await);
    }
    assert_eq!(received[0].cursor, response.first_cursor);
    assert_eq!(received[499].cursor, response.last_cursor);
    for (received, mut sent) in received.into_iter().zip(events) {
        sent.cursor.clone_from(&received.cursor);
        assert_eq!(received, sent);
    }
}

#[tokio::test]
async fn a_gateway_gets_the_publishers_bytes_and_then_the_cursor() {
    let server = Harness::start().await;
    let mut gateway = H2Client::connect(server.gateway_addr()).await;
    let stream = gateway.subscribe("gateway").await;

    // What prost would not write: unknown fields (in the event and in its kind),
    // fields out of order, a default value spelled out, a repeated field.
    let mut kind = b"\x1a\x04mail\x0a\x01b\x0a\x01a\x2a\x00".to_vec();
    kind.extend(b"\xf8\x07\x2a");
    let mut odd = b"\xa2\x06\x05hello\x0a".to_vec();
    odd.push(kind.len() as u8);
    odd.extend(&kind);
    odd.extend(b"\xa8\x06\x01");
    let plain = invalidation("user").encode_to_vec();

    let mut publisher = H2Client::connect(server.publisher_addr()).await;
    let response = publisher
        .call(PUBLISH, message(&request(&[&odd, &plain])))
        .await;
    assert_eq!(response.grpc_status(), Some(Code::Ok), "{response:?}");
    let published = PublishResponse::decode(&response.data[5..]).expect("a response");

    let mut expected = Vec::new();
    for (event, cursor) in [
        (odd, published.first_cursor),
        (plain, published.last_cursor),
    ] {
        let mut with_cursor = event;
        with_cursor.extend(b"\x1a\x18");
        with_cursor.extend(cursor.as_bytes());
        expected.extend(message(&with_cursor));
    }
    server.stop().await.expect("a graceful stop");
    let received = GrpcResponse::read(stream).await;
    assert_eq!(received.data, expected);
}

/// A PublishStream whose requests are sent one by one.
async fn open_stream(
    server: &Harness,
) -> (
    mpsc::Sender<PublishRequest>,
    tonic::Streaming<PublishResponse>,
) {
    let mut publisher = server.publisher().await;
    let (requests, receiver) = mpsc::channel(1000);
    let responses = soon(publisher.publish_stream(ReceiverStream::new(receiver)))
        .await
        .expect("a stream");
    (requests, responses.into_inner())
}

#[tokio::test]
async fn each_request_of_a_stream_has_its_response_in_order() {
    let server = Harness::start().await;
    let mut gateway = server.subscribe("gateway", "").await;
    let (requests, mut responses) = open_stream(&server).await;
    let mut published = Vec::new();
    for n in 0..200 {
        let events = vec![event(2 * n), event(2 * n + 1)];
        requests.send(PublishRequest { events }).await.unwrap();
        if n % 10 == 0 {
            // The response comes at once, not when the stream ends.
            published.push(
                soon(responses.message())
                    .await
                    .unwrap()
                    .expect("a response"),
            );
        }
    }
    drop(requests);
    while let Some(response) = soon(responses.message()).await.expect("responses") {
        published.push(response);
    }
    assert_eq!(published.len(), 200);
    for response in published {
        assert_eq!(gateway.next().await.cursor, response.first_cursor);
        assert_eq!(gateway.next().await.cursor, response.last_cursor);
    }
}

#[tokio::test]
async fn a_bad_request_ends_the_stream_and_earlier_responses_stand() {
    let server = Harness::start().await;
    let mut gateway = server.subscribe("gateway", "").await;
    let mut body = Vec::new();
    for n in 0..20 {
        body.extend(message(&request(&[&event(n).encode_to_vec()])));
    }
    body.extend(message(&request(&[&good(), b""])));
    body.extend(message(&request(&[&good()])));
    // All in one piece, so that the responses wait in one buffer with the status.
    let mut client = H2Client::connect(server.publisher_addr()).await;
    let response = client.call(PUBLISH_STREAM, body).await;
    assert_eq!(
        response.grpc_status(),
        Some(Code::InvalidArgument),
        "{response:?}"
    );
    assert!(response.message().contains("events[1]"), "{response:?}");

    let responses: Vec<_> = messages(&response.data)
        .map(|message| PublishResponse::decode(message).expect("a response"))
        .collect();
    assert_eq!(responses.len(), 20);
    for response in responses {
        assert_eq!(gateway.next().await.cursor, response.first_cursor);
    }
    assert_eq!(
        server.engine.head().seq().number(),
        20,
        "nothing after the bad request"
    );
}

/// The messages of a gRPC body.
fn messages(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (prefix, rest) = body.split_at_checked(5)?;
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let (message, rest) = rest.split_at(length);
        body = rest;
        Some(message)
    })
}

/// A `PublishResponse` on a stream, with its prefix.
const RESPONSE_BYTES: usize = 57;

#[tokio::test]
async fn a_publisher_that_does_not_read_its_responses_is_stopped_by_flow_control() {
    let server = Harness::start().await;
    // Room for few responses.
    let narrow = frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 1000)]);
    let mut wire = Wire::connect_with(server.publisher_addr(), &narrow).await;
    // As many requests as fit into the windows of a publisher that never waits.
    let all = 8000;
    let mut sent = frames::open_call(1, PUBLISH_STREAM);
    for piece in SHORT.repeat(all).chunks(16 << 10) {
        sent.extend(frames::data(1, piece));
    }
    wire.send(&sent).await;
    wire.settle().await;
    let stopped_at = server.published();
    assert!(stopped_at >= 1000 / RESPONSE_BYTES as u64, "{stopped_at}");
    assert!(stopped_at < all as u64 / 2, "its responses are kept for it");
    wire.settle().await;
    assert_eq!(server.published(), stopped_at, "nothing goes on by itself");

    // What stopped it was the window: once responses are taken, it goes on.
    let more = all * RESPONSE_BYTES;
    wire.send(&frames::window_update(0, more as u32)).await;
    wire.send(&frames::window_update(1, more as u32)).await;
    until(|| server.published() == all as u64).await;
}

#[tokio::test]
async fn compressed_requests_are_refused() {
    let server = Harness::start().await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    let response = client
        .call_with(PUBLISH, message(&request(&[&good()])), |head| {
            head.insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
        })
        .await;
    assert_eq!(
        response.grpc_status(),
        Some(Code::Unimplemented),
        "{response:?}"
    );
    assert_eq!(response.headers["grpc-accept-encoding"], "identity");

    let mut flagged = message(&request(&[&good()]));
    flagged[0] = 1;
    let response = client.call(PUBLISH, flagged).await;
    assert_eq!(response.grpc_status(), Some(Code::Internal), "{response:?}");
    assert_eq!(server.engine.head().seq().number(), 0);
}

#[tokio::test]
async fn large_requests_of_many_publishers_at_once_are_all_taken() {
    let server = Harness::with(|config| config.max_bytes = 64 << 20).await;
    let mut publishers = Vec::new();
    for _ in 0..40 {
        let mut publisher = server.publisher().await;
        publishers.push(tokio::spawn(async move {
            let batch = (0..60).map(|_| large_event(60_000)).collect();
            publish(&mut publisher, batch).await
        }));
    }
    for publisher in publishers {
        soon(publisher).await.unwrap().expect("published");
    }
    assert_eq!(server.engine.head().seq().number(), 40 * 60);
}

#[tokio::test]
async fn more_calls_at_once_on_a_connection_than_its_window_holds_are_all_taken() {
    let server = Harness::start().await;
    let publisher = server.publisher().await;
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let mut publisher = publisher.clone();
            // 200 times 60 KiB are three times the window.
            tokio::spawn(async move { publish(&mut publisher, vec![large_event(60_000)]).await })
        })
        .collect();
    for call in calls {
        soon(call).await.unwrap().expect("published");
    }
    assert_eq!(server.engine.head().seq().number(), 200);
}

/// Begins more of the longest requests that there are than there is memory for. They never
/// end, as long as what this returns is kept.
async fn hoard(server: &Harness) -> Vec<(H2Client, SendStream<Bytes>)> {
    let mut hoarders = Vec::new();
    for _ in 0..20 {
        let mut client = H2Client::connect(server.publisher_addr()).await;
        let (response, mut request) = client.open(PUBLISH_STREAM).await;
        let mut beginning = vec![0];
        beginning.extend((4_u32 << 20).to_be_bytes());
        beginning.extend([0; 10_000]);
        request.send_data(beginning.into(), false).expect("sent");
        soon(response).await.map(drop).expect("a response");
        hoarders.push((client, request));
    }
    hoarders
}

#[tokio::test]
async fn requests_that_never_end_keep_only_large_ones_waiting() {
    let server = Harness::start().await;
    let mut hoarders = hoard(&server).await;
    let mut publisher = server.publisher().await;
    let mut large = tokio::spawn({
        let mut publisher = publisher.clone();
        let batch: Vec<_> = (0..60).map(|_| large_event(60_000)).collect();
        async move { publish(&mut publisher, batch).await }
    });
    for n in 0..100 {
        let published = soon(publish(&mut publisher, vec![event(n)])).await;
        published.expect("published");
    }
    assert!(!large.is_finished());
    hoarders.clear();
    let published = soon(&mut large).await.unwrap();
    published.expect("there is memory again");
    assert_eq!(server.engine.head().seq().number(), 160);
}

#[tokio::test]
async fn large_requests_beyond_a_connections_memory_are_published_or_refused() {
    let server = Harness::with(|config| config.max_bytes = 64 << 20).await;
    let publisher = server.publisher().await;
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let mut publisher = publisher.clone();
            let batch = (0..60).map(|_| large_event(60_000)).collect();
            tokio::spawn(async move { publish(&mut publisher, batch).await })
        })
        .collect();
    let mut published = 0;
    for call in calls {
        match soon(call).await.unwrap() {
            Ok(_) => published += 1,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
    }
    // As many as a connection may have memory for at once, at least.
    assert!(published >= 8, "{published}");
    assert_eq!(server.engine.head().seq().number(), published * 60);
}

#[tokio::test]
async fn a_published_request_gives_its_memory_back_before_the_next() {
    let server = Harness::with(|config| config.max_bytes = 64 << 20).await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    let (response, mut requests) = client.open(PUBLISH_STREAM).await;
    let event = large_event(60_000).encode_to_vec();
    let large = message(&request(&vec![&event[..]; 50]));
    let (beginning, rest) = large.split_at(2_000_000);
    requests
        .send_data(beginning.to_vec().into(), false)
        .expect("sent");
    soon(response).await.map(drop).expect("a response");
    // It has memory, and others have all that there is besides.
    let mut hoarders = hoard(&server).await;
    let rest_and_next = [rest, &large[..100_000]].concat();
    requests
        .send_data(rest_and_next.into(), false)
        .expect("sent");
    until(|| server.engine.head().seq().number() == 50).await;
    hoarders.clear();
    let end = large[100_000..].to_vec();
    requests.send_data(end.into(), true).expect("sent");
    until(|| server.engine.head().seq().number() == 100).await;
}

/// The shortest request that there is, with its prefix.
const SHORT: &[u8] = b"\0\0\0\0\x0a\x0a\x08\x0a\x06\x0a\x01u\x1a\x01k";

#[tokio::test]
async fn a_stream_that_is_far_ahead_leaves_turns_to_other_calls() {
    let server = Harness::start().await;
    let windows = [
        frames::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]),
        frames::window_update(0, 1 << 20),
    ];
    let mut wire = Wire::connect_with(server.publisher_addr(), &windows.concat()).await;
    let all = 8000;
    let mut sent = frames::open_call(1, PUBLISH_STREAM);
    for piece in SHORT.repeat(all).chunks(16 << 10) {
        sent.extend(frames::data(1, piece));
    }
    sent.extend(frames::call(3, PUBLISH, SHORT));
    wire.send(&sent).await;
    let mut responses_before = 0;
    loop {
        let next = wire.next().await.expect("a response");
        match (next.kind, next.stream) {
            (kind::DATA, 1) => responses_before += next.payload.len() / RESPONSE_BYTES,
            (kind::DATA, 3) => break,
            _ => {}
        }
    }
    assert!(responses_before < all / 2, "{responses_before}");
    until(|| server.engine.head().seq().number() == all as u64 + 1).await;
}

#[tokio::test]
async fn data_under_way_to_a_refused_stream_is_no_flood() {
    let server = Harness::start().await;
    let mut wire = Wire::connect(server.publisher_addr()).await;
    let mut sent = frames::open_call(1, PUBLISH_STREAM);
    sent.extend(frames::data(1, &message(b"")));
    // More frames than a flood may have.
    sent.extend(frames::data(1, SHORT).repeat(10_000));
    wire.send(&sent).await;
    let refused = wire.find(kind::RST_STREAM).await;
    assert_eq!(refused.stream, 1);
    wire.assert_alive().await;
    assert_eq!(server.engine.head().seq().number(), 0);
}

#[tokio::test]
async fn a_request_in_frames_of_a_byte_is_taken() {
    let server = Harness::start().await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    for path in [PUBLISH, PUBLISH_STREAM] {
        let (response, mut request) = client.open(path).await;
        let body = message(&request_of(20));
        let (last, rest) = body.split_last().unwrap();
        for byte in rest {
            request.send_data(vec![*byte].into(), false).expect("sent");
        }
        request.send_data(vec![*last].into(), true).expect("sent");
        let response = GrpcResponse::read(soon(response).await.expect("a response")).await;
        assert_eq!(response.grpc_status(), Some(Code::Ok), "{response:?}");
        assert_eq!(messages(&response.data).count(), 1);
    }
    assert_eq!(server.engine.head().seq().number(), 40);
}

#[tokio::test]
async fn publish_takes_one_request() {
    let server = Harness::start().await;
    let mut client = H2Client::connect(server.publisher_addr()).await;
    for body in [vec![], message(&request_of(1)).repeat(2)] {
        let response = client.call(PUBLISH, body).await;
        assert_eq!(
            response.grpc_status(),
            Some(Code::Unimplemented),
            "{response:?}"
        );
        assert!(response.message().contains("one request"), "{response:?}");
    }
    let response = client
        .call("/galaxy.push.publisher.v1.Publisher/Other", vec![])
        .await;
    assert_eq!(
        response.grpc_status(),
        Some(Code::Unimplemented),
        "{response:?}"
    );
    assert!(response.message().contains("PublishStream"), "{response:?}");
    assert_eq!(server.engine.head().seq().number(), 0);
}

/// A `PublishRequest` of so many events.
fn request_of(events: usize) -> Vec<u8> {
    request(&vec![&good()[..]; events])
}

#[tokio::test]
async fn a_publisher_that_leaves_in_the_middle_of_a_request_leaves_no_trace() {
    let server = Harness::start().await;
    let whole = publish_request(vec![event(1), event(2)]);
    let mut wire = Wire::connect(server.publisher_addr()).await;
    let mut stream = 1;
    for path in [PUBLISH, PUBLISH_STREAM] {
        for cut in [1, 5, 6, whole.len() / 2, whole.len() - 1] {
            wire.send(&frames::open_call(stream, path)).await;
            wire.send(&frames::data(stream, &whole[..cut])).await;
            wire.send(&frames::rst_stream(stream, Reason::Cancel)).await;
            stream += 2;
        }
    }
    // And the connection as a whole.
    wire.send(&frames::open_call(stream, PUBLISH_STREAM)).await;
    wire.send(&frames::data(stream, &whole[..whole.len() - 1]))
        .await;
    wire.settle().await;
    drop(wire);
    // A body that ends in the middle of a message.
    let mut client = H2Client::connect(server.publisher_addr()).await;
    for path in [PUBLISH, PUBLISH_STREAM] {
        let response = client.call(path, whole[..whole.len() - 1].to_vec()).await;
        assert_ne!(response.grpc_status(), Some(Code::Ok), "{response:?}");
    }
    assert_eq!(server.engine.head().seq().number(), 0);
    server.assert_alive().await;
}
