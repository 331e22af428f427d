//! What a gateway sends as its id and its cursor.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic::Status;

use super::backend::Arrival;
use super::kit::{Fresh, Kit, mark_at};
use crate::contract::metadata::{PUSH_HEARTBEAT, PUSH_INSTANCE, PUSH_REVOCATIONS};
use crate::contract::push::PushEvent;
use crate::contract::start::Reason;
use crate::contract::{gateway_id, heartbeat, instance, revocations};
use crate::cursor::{Cursor, Epoch};
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

fn stopping() -> Status {
    Status::unavailable("the server is stopping")
}

/// The cursor of the next subscription, which is answered as a server does.
async fn next_cursor(kit: &mut Kit) -> Judged<String> {
    let arrival = kit.arrival().await?;
    let cursor = arrival.cursor.clone();
    kit.live = Some(kit.serve(arrival).await?);
    Ok(cursor)
}

/// Ends the stream until the gateway comes back with the cursor of one of these. With an earlier one it
/// has not processed them yet, and receives them again.
async fn comes_to(
    kit: &mut Kit,
    sent: &[PushEvent],
    end: impl Fn() -> Status,
    what: &str,
) -> Judged {
    let until = Instant::now() + kit.patience;
    loop {
        kit.end(end()).await;
        let cursor = next_cursor(kit).await?;
        let is_earlier = match cursor.parse::<Cursor>() {
            Ok(earlier) => earlier.epoch() != kit.epoch || earlier < kit.head(),
            Err(_) => false,
        };
        if sent.iter().any(|event| event.cursor == cursor) || !is_earlier || Instant::now() > until
        {
            return expect_among(&cursor, sent, what);
        }
        kit.settle().await;
    }
}

/// It has to be the cursor of one of these.
fn expect_among(cursor: &str, sent: &[PushEvent], what: &str) -> Judged {
    ensure!(
        sent.iter().any(|event| event.cursor == cursor),
        "{what}, the gateway subscribed with {cursor:?}, expected one of {} to {}",
        sent.first().map_or("", |event| &event.cursor),
        sent.last().map_or("", |event| &event.cursor)
    );
    Ok(())
}

pub(super) async fn subscribes(kit: &mut Kit) -> Judged {
    kit.live().await?;
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    if let Err(error) = gateway_id::check(&arrival.id) {
        return broken(format!("gateway_client_id is {:?}: {error}", arrival.id));
    }
    ensure!(
        arrival.cursor.is_empty() || arrival.cursor.parse::<Cursor>().is_ok(),
        "its cursor is {:?}: no server has issued it",
        arrival.cursor
    );
    for key in [PUSH_HEARTBEAT, PUSH_REVOCATIONS, PUSH_INSTANCE] {
        let value = arrival.header(key).unwrap_or_default();
        let is_valid = match key {
            _ if !arrival.metadata.contains_key(key) => true,
            PUSH_HEARTBEAT => heartbeat::parse(value).is_ok(),
            PUSH_REVOCATIONS => value == revocations::REPLAY,
            _ => instance::check(value).is_ok(),
        };
        ensure!(
            is_valid,
            "its metadata has {key}: {value:?}, which servers refuse"
        );
    }
    kit.live = Some(kit.serve(arrival).await?);
    Ok(())
}

pub(super) async fn keeps_id(kit: &mut Kit) -> Judged {
    let id = kit.live().await?.id.clone();
    kit.end(stopping()).await;
    let again = kit.live().await?.id.clone();
    ensure!(
        id == again,
        "it subscribed as {id:?} and came back as {again:?}"
    );
    Ok(())
}

pub(super) async fn resumes(kit: &mut Kit) -> Judged {
    for _ in 0..3 {
        let sent = kit.progress(5).await?;
        comes_to(kit, &sent, stopping, "after events").await?;
    }
    Ok(())
}

/// Every way in which a stream ends.
pub(super) async fn after_each_end(kit: &mut Kit) -> Judged {
    for (status, name) in [
        (Status::ok(""), "OK"),
        (Status::out_of_range("lagged"), "OUT_OF_RANGE"),
        (Status::deadline_exceeded("stalled"), "DEADLINE_EXCEEDED"),
        (Status::internal("a proxy's word"), "INTERNAL"),
        (Status::unknown("?"), "UNKNOWN"),
    ] {
        let sent = kit.progress(3).await?;
        comes_to(kit, &sent, || status.clone(), &format!("after {name}")).await?;
    }
    Ok(())
}

pub(super) async fn one_stream(kit: &mut Kit) -> Judged {
    kit.progress(1).await?;
    let Some(arrival) = kit.arrival_within(Duration::from_secs(2)).await? else {
        return Ok(());
    };
    // A renewal: the older stream is left when the newer one has begun.
    let older = kit.live.take();
    kit.live = Some(kit.serve(arrival).await?);
    if let Some(mut older) = older {
        let left = tokio::time::timeout(kit.patience, older.open.left()).await;
        ensure!(
            left.is_ok(),
            "it has opened another stream and goes on with the older one"
        );
    }
    Ok(())
}

pub(super) async fn durable(kit: &mut Kit) -> Judged {
    kit.gateway_output()?;
    let sent = kit.progress(5).await?;
    let until = Instant::now() + kit.patience;
    // Nobody has to write for each event: an earlier cursor is one that was not written yet.
    let mut pause = Duration::from_secs(1);
    loop {
        sleep(pause).await;
        kit.kill_gateway().await?;
        let cursor = next_cursor(kit).await?;
        if Instant::now() > until || sent.iter().any(|event| event.cursor == cursor) {
            return expect_among(&cursor, &sent, "killed and started again");
        }
        pause *= 2;
    }
}

pub(super) async fn start_cursor(kit: &mut Kit) -> Judged {
    kit.progress(1).await?;
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    // The gap ends here, and nothing comes.
    for _ in 0..50 {
        kit.any_event();
    }
    let start = kit.head().to_string();
    let fresh = Fresh {
        reason: Reason::Expired,
        missed: Some(50),
        revocations: Some(("complete", Vec::new())),
    };
    kit.live = Some(kit.serve_fresh(arrival, fresh).await?);
    kit.settle().await;
    kit.end(stopping()).await;
    let cursor = next_cursor(kit).await?;
    ensure!(
        cursor == start,
        "a fresh stream started at {start} and ended before an event; the gateway subscribed with {cursor:?}, and would have another gap"
    );
    Ok(())
}

/// Answers the next subscription as a server does that was born again in this epoch.
async fn other_epoch(kit: &mut Kit, epoch: Epoch) -> Judged {
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    kit.new_epoch(epoch);
    let fresh = Fresh {
        reason: Reason::OtherEpoch,
        missed: None,
        revocations: Some(("partial", Vec::new())),
    };
    kit.live = Some(kit.serve_fresh(arrival, fresh).await?);
    Ok(())
}

pub(super) async fn follows_epoch(kit: &mut Kit) -> Judged {
    kit.progress(20).await?;
    let now = kit.epoch.number();
    // Also one that is smaller: the clock went back.
    for number in [now + (1000 << 18), now - (60_000 << 18), now + (2000 << 18)] {
        let Some(epoch) = Epoch::from_number(number) else {
            return broken("the clock leaves no other epoch");
        };
        other_epoch(kit, epoch).await?;
        let sent = kit.progress(3).await?;
        comes_to(kit, &sent, stopping, "after an epoch that began anew").await?;
    }
    Ok(())
}

pub(super) async fn unknown_messages(kit: &mut Kit) -> Judged {
    kit.progress(1).await?;
    // A kind that it does not know is a message without one; its cursor counts.
    let event = kit.any_event();
    kit.send([mark_at(event.cursor)]).await?;
    let user = kit.user();
    let mark = kit.mark();
    let large = super::kit::client_event(&user, "", &mark, &"x".repeat(1 << 20));
    let large = kit.append(large);
    kit.send([large]).await?;
    let sent = kit.progress(2).await?;
    let what = "after a message of an unknown kind and one of 1 MiB";
    comes_to(kit, &sent, stopping, what).await
}

pub(super) async fn repeated(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let session = match kit.session(&user).await {
        Ok(session) => Some(session),
        Err(super::Unkept::Skipped(_)) => None,
        Err(broken) => return Err(broken),
    };
    kit.progress(3).await?;
    let (event, mark) = kit.client_event(&user, "");
    kit.send([event.clone(), event.clone()]).await?;
    // It may take that for a fault of the server, and come back.
    kit.settle().await;
    let after = kit.progress(2).await?;
    comes_to(kit, &after, stopping, "after an event that came twice").await?;
    if let Some(session) = session {
        kit.receives(&session, &mark).await?;
        let count = session.output.count(&mark);
        ensure!(
            count == 1,
            "an event that came twice was forwarded {count} times"
        );
    }
    Ok(())
}

pub(super) async fn never_back(kit: &mut Kit) -> Judged {
    let sent = kit.progress(6).await?;
    comes_to(kit, &sent[5..], stopping, "after events").await?;
    // An event with a cursor from before.
    let user = kit.user();
    let mark = kit.mark();
    let backward = PushEvent {
        kind: Some(super::kit::client_event(&user, "", &mark, "")),
        cursor: sent[1].cursor.clone(),
    };
    kit.send([backward]).await?;
    kit.settle().await;
    if kit.live.as_ref().is_some_and(|live| live.open.is_open()) {
        kit.end(stopping()).await;
    } else {
        kit.live = None;
    }
    let cursor = next_cursor(kit).await?;
    expect_among(&cursor, &sent[5..], "after a cursor that went back")
}

pub(super) async fn interrupted_replay(kit: &mut Kit) -> Judged {
    for sent in [0, 1] {
        interrupted_after(kit, sent).await?;
    }
    Ok(())
}

/// A replay of two revocations, of which only so many come.
async fn interrupted_after(kit: &mut Kit, sent: usize) -> Judged {
    kit.progress(2).await?;
    let user = kit.user();
    let (first, _) = kit.invalidation(&user, "session-1");
    let (second, _) = kit.invalidation(&user, "session-2");
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    let before = arrival.cursor.clone();
    if arrival.header("push-revocations").is_none() {
        kit.live = Some(kit.serve(arrival).await?);
        return skipped("the gateway does not ask for missed revocations");
    }
    for _ in 0..20 {
        kit.any_event();
    }
    let start = kit.head();
    let live = replay(kit, arrival, &[&first, &second], sent).await?;
    kit.settle().await;
    live.end(stopping()).await;
    let arrival = kit.arrival().await?;
    let cursor = arrival.cursor.clone();
    let fresh = Fresh {
        reason: Reason::Expired,
        missed: Some(20),
        revocations: Some(("complete", vec![second])),
    };
    kit.live = Some(kit.serve_fresh(arrival, fresh).await?);
    ensure!(
        cursor == before || sent == 1 && cursor == first.cursor,
        "a replay of two revocations up to {start} ended after {sent}, and the gateway subscribed with {cursor:?}, not with {before}: it would never be told the rest"
    );
    Ok(())
}

/// A stream that begins with a replay, of which so many messages come.
async fn replay(
    kit: &mut Kit,
    arrival: Arrival,
    missed: &[&PushEvent],
    sent: usize,
) -> Judged<super::backend::Open> {
    let open = arrival.accept(&[
        ("push-resume", "fresh".to_owned()),
        ("push-resume-reason", "expired".to_owned()),
        ("push-missed", "20".to_owned()),
        ("push-start-cursor", kit.head().to_string()),
        ("push-revocations", "complete".to_owned()),
        ("push-revocations-count", missed.len().to_string()),
    ])?;
    for event in &missed[..sent] {
        open.send((*event).clone());
    }
    Ok(open)
}
