//! Publishing by `galaxy.push.publisher.v1.Publisher`: batches, answers, refusals.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::task::JoinSet;
use tonic::Code;

use super::kit::Kit;
use super::stream::mark;
use crate::client::status_line;
use crate::contract::metadata::PUSH_START_CURSOR;
use crate::contract::path;
use crate::contract::publisher::{PublishRequest, PublishResponse};
use crate::contract::push::PushEvent;
use crate::contract::push::push_event::Kind;
use crate::lab::conformance::promise::{Judged, broken, ensure};

/// A length-delimited field.
fn field(number: u32, content: &[u8]) -> Bytes {
    let mut field = BytesMut::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(content.len() as u64, &mut field);
    field.put_slice(content);
    field.freeze()
}

/// A `PublishRequest` of events that are encoded already.
fn request(events: &[Bytes]) -> Bytes {
    events.iter().flat_map(|event| field(1, event)).collect()
}

fn encoded(events: &[PushEvent]) -> Bytes {
    let request = PublishRequest {
        events: events.to_vec(),
    };
    request.encode_to_vec().into()
}

pub(super) async fn answers(kit: &mut Kit) -> Judged {
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    for count in [1, 2, 50] {
        let events = kit.events(count);
        let response = calls.publish(&events).await?;
        let received = witness.expect(&events).await?;
        let delivered = (&received[0].event.cursor, &received[count - 1].event.cursor);
        ensure!(
            (&response.first_cursor, &response.last_cursor) == delivered,
            "the answer to {count} events is {} to {}, and a gateway received them as {} to {}",
            response.first_cursor,
            response.last_cursor,
            delivered.0,
            delivered.1
        );
    }
    // Answered means that it is in the stream: whoever subscribes now starts behind it.
    let response = calls.publish(&kit.events(3)).await?;
    let start = kit.fresh().await?.header(PUSH_START_CURSOR)?.to_owned();
    ensure!(
        start == response.last_cursor,
        "an answer said {}, and a stream that was opened afterwards without a cursor starts at {start}",
        response.last_cursor
    );
    Ok(())
}

pub(super) async fn atomic(kit: &mut Kit) -> Judged {
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    for bad in [0, 4, 8] {
        let mut events = kit.events(9);
        events[bad] = kit.invalidation("", "");
        let answer: Result<PublishResponse, _> =
            calls.unary(path::PUBLISH, encoded(&events)).await?;
        ensure!(
            answer.is_err(),
            "a batch was accepted whose event {bad} has no user_id"
        );
        // Whatever was kept of it would come first.
        kit.publish_some(&mut witness, 1).await?;
    }
    Ok(())
}

pub(super) async fn contiguous(kit: &mut Kit) -> Judged {
    const PUBLISHERS: usize = 4;
    const BATCHES: usize = 8;
    const EVENTS: usize = 8;
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    let mut publishers = JoinSet::new();
    let mut sent = Vec::new();
    for _ in 0..PUBLISHERS {
        let batches: Vec<Vec<PushEvent>> = (0..BATCHES).map(|_| kit.events(EVENTS)).collect();
        sent.push(batches.clone());
        let calls = calls.clone();
        publishers.spawn(async move {
            for batch in batches {
                calls.publish(&batch).await?;
            }
            Ok(())
        });
    }
    // The next batch of each publisher.
    let mut next = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS * BATCHES {
        let first = witness.stream.next().await?;
        let found = (0..PUBLISHERS).find(|publisher| {
            let batch = sent[*publisher].get(next[*publisher]);
            batch.is_some_and(|batch| mark(&batch[0]) == first.mark())
        });
        let Some(publisher) = found else {
            return broken(format!(
                "the event {} begins no publisher's next batch: it lies within another one, or overtakes one",
                first.cursor
            ));
        };
        for wanted in &sent[publisher][next[publisher]][1..] {
            let received = witness.stream.next().await?;
            ensure!(
                mark(wanted) == received.mark(),
                "the event {} lies within a batch of another publisher",
                received.cursor
            );
        }
        next[publisher] += 1;
    }
    while let Some(done) = publishers.join_next().await {
        done.unwrap_or_else(|error| broken(format!("a publisher failed: {error}")))?;
    }
    Ok(())
}

pub(super) async fn bytes_verbatim(kit: &mut Kit) -> Judged {
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    let user = kit.user();
    // Fields in another order, one of them twice, an empty one that is there, and unknown ones.
    let client_event: Bytes = [
        field(6, b"request"),
        field(4, b"{}"),
        field(3, b"conformance"),
        field(1, b"somebody"),
        field(1, user.as_bytes()),
        field(7, b""),
        field(99, b"unknown here"),
        field(2047, b"\xff\x00"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let event: Bytes = [field(1000, b"unknown too"), field(1, &client_event)]
        .into_iter()
        .flatten()
        .collect();
    let invalidation: Bytes = [
        field(3, b"logout"),
        field(2, user.as_bytes()),
        field(50, b"x"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let invalidation = field(2, &invalidation);
    for event in [event, invalidation] {
        let answer: Result<PublishResponse, _> = calls
            .unary(path::PUBLISH, request(std::slice::from_ref(&event)))
            .await?;
        if let Err(status) = answer {
            return broken(format!(
                "an event with unknown fields was refused: {}",
                status_line(&status)
            ));
        }
        let received = witness.stream.next().await?;
        let mut wanted = event.to_vec();
        wanted.extend_from_slice(&field(3, received.event.cursor.as_bytes()));
        ensure!(
            received.bytes == wanted,
            "published were {} bytes, {}; with its cursor behind, {} came as {}",
            event.len(),
            hex(&event),
            received.cursor,
            hex(&received.bytes)
        );
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Three good events, a bad one, and a good one.
async fn refuses(kit: &mut Kit, bad: Bytes, field: Option<&str>) -> Judged {
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    let mut events: Vec<Bytes> = kit
        .events(4)
        .iter()
        .map(|event| event.encode_to_vec().into())
        .collect();
    events.insert(3, bad);
    let answer: Result<PublishResponse, _> = calls.unary(path::PUBLISH, request(&events)).await?;
    let status = match answer {
        Ok(_) => return broken("the batch was accepted"),
        Err(status) => status,
    };
    ensure!(
        status.code() == Code::InvalidArgument,
        "it was refused with {}, expected INVALID_ARGUMENT",
        status_line(&status)
    );
    ensure!(
        status.message().contains('3'),
        "the refusal does not name the event's index, 3: {:?}",
        status.message()
    );
    if let Some(field) = field {
        ensure!(
            status.message().contains(field),
            "the refusal does not name the field {field}: {:?}",
            status.message()
        );
    }
    // Whatever was kept of it would come first.
    kit.publish_some(&mut witness, 1).await?;
    Ok(())
}

fn bytes(event: &PushEvent) -> Bytes {
    event.encode_to_vec().into()
}

pub(super) async fn refuses_no_events(kit: &mut Kit) -> Judged {
    let calls = kit.publisher.calls()?;
    let answer: Result<PublishResponse, _> = calls.unary(path::PUBLISH, Bytes::new()).await?;
    match answer {
        Ok(_) => broken("a batch without events was accepted"),
        Err(status) if status.code() == Code::InvalidArgument => Ok(()),
        Err(status) => broken(format!(
            "it was refused with {}, expected INVALID_ARGUMENT",
            status_line(&status)
        )),
    }
}

pub(super) async fn refuses_no_kind(kit: &mut Kit) -> Judged {
    refuses(kit, Bytes::new(), Some("kind")).await?;
    // A kind of a later version is none that can be checked.
    refuses(kit, field(9, b"x"), Some("kind")).await
}

pub(super) async fn refuses_empty_user(kit: &mut Kit) -> Judged {
    let mut event = kit.event();
    if let Some(Kind::ClientEvent(event)) = &mut event.kind {
        event.user_id.clear();
    }
    refuses(kit, bytes(&event), Some("user_id")).await?;
    let event = kit.invalidation("", "session-1");
    refuses(kit, bytes(&event), Some("user_id")).await
}

pub(super) async fn refuses_empty_kind(kit: &mut Kit) -> Judged {
    let mut event = kit.event();
    if let Some(Kind::ClientEvent(event)) = &mut event.kind {
        event.kind.clear();
    }
    refuses(kit, bytes(&event), Some("kind")).await
}

pub(super) async fn refuses_cursor(kit: &mut Kit) -> Judged {
    let head = kit.witness().await?.head.to_string();
    for cursor in [head, "x".to_owned()] {
        let event = PushEvent {
            cursor,
            ..kit.event()
        };
        refuses(kit, bytes(&event), Some("cursor")).await?;
    }
    Ok(())
}

pub(super) async fn refuses_not_utf8(kit: &mut Kit) -> Judged {
    for number in [1, 2, 3, 5, 6, 7] {
        let mut event: Vec<u8> = [field(1, b"user"), field(3, b"kind")]
            .into_iter()
            .flatten()
            .collect();
        event.extend_from_slice(&field(number, b"\xff\xfe"));
        refuses(kit, field(1, &event), None).await?;
    }
    let invalidation: Vec<u8> = [field(2, b"user"), field(3, b"\xc0\x80")]
        .into_iter()
        .flatten()
        .collect();
    refuses(kit, field(2, &invalidation), None).await
}

pub(super) async fn refuses_malformed(kit: &mut Kit) -> Judged {
    // A field that is longer than the event; a key without a value; a wire type that is none.
    for bad in [&b"\x0a\x7fuser"[..], b"\x0a", b"\x0f\x01"] {
        refuses(kit, Bytes::copy_from_slice(bad), None).await?;
    }
    Ok(())
}

pub(super) async fn stream_order(kit: &mut Kit) -> Judged {
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    // One after another: no answer waits for the next request.
    let batches: Vec<_> = (0..3).map(|_| kit.events(2)).collect();
    let requests = batches.iter().map(|batch| encoded(batch)).collect();
    calls.publish_in_turn(requests).await?;
    for batch in &batches {
        witness.expect(batch).await?;
    }
    // All at once.
    let batches: Vec<_> = (0..20).map(|at| kit.events(at % 3 + 1)).collect();
    let requests = batches.iter().map(|batch| encoded(batch)).collect();
    let (responses, status) = calls.publish_stream(requests).await?;
    ensure!(
        status.code() == Code::Ok,
        "PublishStream ended with {}, expected OK",
        status_line(&status)
    );
    ensure!(
        responses.len() == batches.len(),
        "{} requests have {} responses",
        batches.len(),
        responses.len()
    );
    for (at, (batch, response)) in batches.iter().zip(&responses).enumerate() {
        let received = witness.expect(batch).await?;
        let delivered = received[0].event.cursor.as_str();
        ensure!(
            response.first_cursor == delivered,
            "response {at} begins at {}, and its request's first event is {delivered}",
            response.first_cursor
        );
    }
    Ok(())
}

pub(super) async fn stream_bad_request(kit: &mut Kit) -> Judged {
    let calls = kit.publisher.calls()?;
    let mut witness = kit.witness().await?;
    let good: Vec<_> = (0..3).map(|_| kit.events(2)).collect();
    let late = kit.events(1);
    let mut requests: Vec<_> = good.iter().map(|batch| encoded(batch)).collect();
    // Its good event is not published either.
    requests.push(encoded(&[kit.event(), kit.invalidation("", "")]));
    requests.push(encoded(&late));
    let (responses, status) = calls.publish_stream(requests).await?;
    ensure!(
        status.code() == Code::InvalidArgument,
        "after a bad request, PublishStream ended with {}, expected INVALID_ARGUMENT",
        status_line(&status)
    );
    ensure!(
        responses.len() == good.len(),
        "{} good requests before the bad one have {} responses",
        good.len(),
        responses.len()
    );
    for batch in &good {
        witness.expect(batch).await?;
    }
    kit.publish_some(&mut witness, 1).await?;
    Ok(())
}
