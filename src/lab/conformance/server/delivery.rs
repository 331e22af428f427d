//! What a stream delivers: everything, once, in order, as it was published.

use tokio::task::JoinSet;

use super::kit::{Kit, LARGE_BYTES, WINDOW_CHUNKS, is_limit, same};
use super::stream::{Stream, Subscribe, number, text};
use crate::client::status_line;
use crate::contract::metadata::PUSH_MISSED;
use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent};
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

/// A burst, where the ring is not known to be small.
const BURST_EVENTS: u64 = 3000;

pub(super) async fn every_gateway(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(kit.fresh().await?);
    }
    let user = kit.user();
    let mut events = Vec::new();
    for round in 0..5 {
        events.push(kit.event());
        events.push(kit.invalidation(&user, ""));
        events.push(kit.invalidation(&user, &format!("session-{round}")));
    }
    let published = kit.publish(&mut witness, &events).await?;
    for stream in &mut streams {
        same(stream, &published).await?;
    }
    Ok(())
}

pub(super) async fn cursor_form(kit: &mut Kit) -> Judged {
    // Every message that the kit reads has to have a well-formed cursor, and a greater one than the
    // message before. What is left is that their texts have the same order.
    let mut witness = kit.witness().await?;
    let events = kit.publish_some(&mut witness, 40).await?;
    for pair in events.windows(2) {
        let (earlier, later) = (&pair[0].event.cursor, &pair[1].event.cursor);
        ensure!(
            earlier < later,
            "as text, the cursor {later} is not greater than {earlier}"
        );
    }
    Ok(())
}

pub(super) async fn cursor_dense(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let mut before = witness.head;
    for received in kit.publish_some(&mut witness, 100).await? {
        let cursor = received.cursor;
        ensure!(
            cursor.epoch() == before.epoch(),
            "the epoch changed within a stream: {cursor} came after {before}"
        );
        ensure!(
            Some(cursor.seq()) == before.seq().next(),
            "the sequence has a hole: {cursor} came after {before}"
        );
        before = cursor;
    }
    Ok(())
}

/// A ClientEvent with texts that are easily changed on the way.
fn odd_event(kit: &mut Kit, round: usize) -> PushEvent {
    // Both forms of the same letter: neither may become the other.
    let odd = [
        " leading and trailing ",
        "e\u{301} and \u{e9}",
        "UPPER lower",
        "a\tb\nc\r\nd",
        "\u{feff}\u{200b}\u{1f9ff}",
        "%00 &amp; \\u0041 \"quoted\" 'too'",
        "\u{0} and more",
    ];
    let text = |at: usize| odd[(round + at) % odd.len()].to_owned();
    let event = kit.event();
    let Some(Kind::ClientEvent(mut event)) = event.kind else {
        return event;
    };
    event.device_session_id = text(0);
    event.kind = text(1);
    event.request_id = text(2);
    event.trace_id = text(3);
    event.user_id.push_str(&text(4));
    PushEvent {
        kind: Some(Kind::ClientEvent(event)),
        cursor: String::new(),
    }
}

pub(super) async fn fields_verbatim(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let mut events: Vec<_> = (0..7).map(|round| odd_event(kit, round)).collect();
    // The least that an event has.
    let user = kit.user();
    events.push(PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: user.clone(),
            kind: "k".to_owned(),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    });
    events.push(PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: "u".repeat(1000),
            device_session_id: "s".repeat(1000),
            kind: "k".repeat(1000),
            event_id: "e".repeat(1000),
            request_id: "r".repeat(1000),
            trace_id: "t".repeat(1000),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    });
    kit.publish(&mut witness, &events).await?;
    Ok(())
}

pub(super) async fn payload_verbatim(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let payloads: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        (0..=255).collect(),
        vec![0xff; 3],
        b"{ \"a\" : 1.0,\n \"a\":1e0 , \"\\u00e9\":12345678901234567890 }".to_vec(),
        b"null".to_vec(),
        b" [ ] ".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        vec![b'x'; LARGE_BYTES],
    ];
    let events: Vec<_> = payloads
        .into_iter()
        .map(|payload| kit.event_with(payload))
        .collect();
    kit.publish(&mut witness, &events).await?;
    Ok(())
}

pub(super) async fn invalidation(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let user = kit.user();
    let mut events = vec![
        kit.invalidation(&user, ""),
        kit.invalidation(&user, "session-1"),
        kit.invalidation("another \u{e9} user", "e\u{301}"),
    ];
    // A reason is free text, and may be missing.
    for reason in ["", "banned: \u{201e}spam\u{201c}\n(third time)", " logout "] {
        let mut event = kit.invalidation(&user, "session-2");
        if let Some(Kind::SessionInvalidation(invalidation)) = &mut event.kind {
            invalidation.reason = reason.to_owned();
        }
        events.push(event);
    }
    let mut stream = kit.fresh().await?;
    let published = kit.publish(&mut witness, &events).await?;
    same(&mut stream, &published).await
}

pub(super) async fn burst(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let start = witness.head;
    // Nobody has to be fast: the ring holds it all.
    let count = kit
        .ring_events
        .map_or(BURST_EVENTS, |ring| (ring / 2).min(BURST_EVENTS));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let mut stream = kit.subscribe(start).await?;
        readers.spawn(async move { stream.take(count).await });
    }
    // One that comes back again and again.
    let id = kit.id();
    let (gateways, patience) = (kit.gateways.clone(), kit.patience);
    readers.spawn(async move {
        let mut received = Vec::new();
        let mut cursor = start;
        while received.len() < count {
            let connection = match gateways.connect().await {
                Ok(connection) => connection,
                Err(error) => return broken(format!("no connection for a gateway: {error}")),
            };
            let subscribe = Subscribe::new(&*id, cursor.to_string());
            let opened = Stream::open(connection, &subscribe, patience).await?;
            let mut stream = match opened {
                Ok(stream) => stream,
                Err(status) if is_limit(&status) => {
                    return skipped(format!("the server has a limit: {}", status_line(&status)));
                }
                Err(status) => {
                    return broken(format!(
                        "a gateway that resumes was refused: {}",
                        status_line(&status)
                    ));
                }
            };
            stream.expect("resumed", "requested")?;
            let here = 97.min(count - received.len());
            received.extend(stream.take(here).await?);
            if let Some(last) = received.last() {
                cursor = last.cursor;
            }
        }
        Ok(received)
    });
    let published = kit.publish_some(&mut witness, count).await?;
    while let Some(read) = readers.join_next().await {
        let read = read.unwrap_or_else(|error| broken(format!("a gateway failed: {error}")))?;
        for (received, wanted) in read.iter().zip(&published) {
            ensure!(
                received.bytes == wanted.bytes,
                "expected the event {}, and {} came, {:?}",
                wanted.cursor,
                received.cursor,
                received.event.kind
            );
        }
    }
    Ok(())
}

pub(super) async fn slow_gateway(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    // It reads nothing.
    let slow = kit.fresh().await?;
    let mut other = kit.fresh().await?;
    for _ in 0..WINDOW_CHUNKS {
        let published = kit.publish_large(&mut witness).await?;
        same(&mut other, &published).await?;
    }
    drop(slow);
    Ok(())
}

pub(super) async fn lagged(kit: &mut Kit) -> Judged {
    let Some(ring) = kit.ring_events else {
        return skipped("it needs --ring-events");
    };
    let mut witness = kit.witness().await?;
    let mut slow = kit.fresh().await?;
    let start = witness.head;
    // More than it can have taken, and then a whole ring.
    let mut published = kit.fill_window(&mut witness).await?;
    let beyond = published.len() + usize::try_from(ring).unwrap_or(usize::MAX);
    while published.len() < beyond {
        published.extend(kit.publish_large(&mut witness).await?);
    }
    // What it has taken is a run without gaps from its start on; then it is told how many it missed.
    let mut at = 0;
    loop {
        match slow.any().await? {
            Ok(received) => {
                let Some(wanted) = published.get(at) else {
                    return broken("a gateway that is too slow received more than was published");
                };
                ensure!(
                    received.bytes == wanted.bytes,
                    "a gateway that was too slow was not told so: expected the event {} or the end, and {} came",
                    wanted.cursor,
                    received.cursor
                );
                at += 1;
                ensure!(
                    at < published.len(),
                    "a gateway that read nothing received all {at} events, though the ring has {ring}: is --ring-events right?"
                );
            }
            Err(status) => {
                ensure!(
                    status.code() == tonic::Code::OutOfRange,
                    "a gateway that was too slow ended with {}, expected OUT_OF_RANGE",
                    status_line(&status)
                );
                let Some(missed) = text(status.metadata(), PUSH_MISSED) else {
                    return broken(format!("the trailers have no {PUSH_MISSED}"));
                };
                let missed = number(PUSH_MISSED, missed)?;
                let unread = (published.len() - at) as u64;
                ensure!(
                    (1..=unread).contains(&missed),
                    "push-missed is {missed}; from {start} on the gateway received {at} events, and {unread} more were published"
                );
                return Ok(());
            }
        }
    }
}

pub(super) async fn shared_connection(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let connection = kit.connect().await?;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let id = kit.id();
        let subscribe = Subscribe::new(id, "");
        streams.push(kit.open_on(connection.clone(), &subscribe).await?);
    }
    // One leaves, one is refused, one is taken over: the others go on.
    drop(streams.pop());
    let refused = Subscribe::new("", "");
    let _ = Stream::open(connection.clone(), &refused, kit.patience).await?;
    let id = kit.id();
    let older = kit
        .open_on(connection.clone(), &Subscribe::new(&*id, ""))
        .await?;
    let newer = kit
        .open_on(connection.clone(), &Subscribe::new(&*id, ""))
        .await?;
    let published = kit.publish_some(&mut witness, 5).await?;
    drop(older);
    for stream in streams.iter_mut().chain([newer].iter_mut()) {
        same(stream, &published).await?;
    }
    Ok(())
}
