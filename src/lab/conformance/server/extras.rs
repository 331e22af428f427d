//! What a gateway may ask for beside its stream: heartbeats, missed revocations, reasons for
//! machines, receipts, health.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::kit::{Kit, Witness, same};
use super::publisher::unary;
use super::stream::{Stream, Subscribe, number};
use crate::client::{error_info, status_line};
use crate::contract::details::{DOMAIN, ErrorReason};
use crate::contract::gateway::{ReportRequest, ReportResponse};
use crate::contract::metadata::{
    PUSH_HEAD_CURSOR, PUSH_HEARTBEAT, PUSH_INSTANCE, PUSH_REVOCATIONS, PUSH_REVOCATIONS_COUNT,
};
use crate::contract::path;
use crate::contract::publisher::missing_gateway::Reason as Missing;
use crate::contract::publisher::{WaitEnforcedRequest, WaitEnforcedResponse};
use crate::contract::push::PushEvent;
use crate::contract::push::push_event::Kind;
use crate::cursor::Cursor;
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

/// A lease that every server takes, and longer than what is judged with it takes.
const LEASE_MS: u32 = 10_000;
/// The shortest interval that may be asked for.
const HEARTBEAT: &str = "1s";

/// The status says this to machines too.
fn expect_reason(status: &Status, reason: ErrorReason, fields: &[&str]) -> Judged {
    let Some(info) = error_info(status) else {
        return broken(format!(
            "{} has no google.rpc.ErrorInfo",
            status_line(status)
        ));
    };
    ensure!(
        info.domain == DOMAIN,
        "the ErrorInfo of {} has the domain {:?}, expected {DOMAIN:?}",
        status_line(status),
        info.domain
    );
    ensure!(
        info.is(reason),
        "the ErrorInfo of {} has the reason {:?}, expected {:?}",
        status_line(status),
        info.reason,
        reason.as_str()
    );
    for field in fields {
        ensure!(
            info.metadata.contains_key(*field),
            "the ErrorInfo of {} has no {field:?} in its metadata",
            status_line(status)
        );
    }
    Ok(())
}

async fn refusal(kit: &mut Kit, subscribe: &Subscribe) -> Judged<Status> {
    let refused = match kit.ask(subscribe).await? {
        Err(status) => Some(status),
        // Its headers may come before its status.
        Ok(mut stream) => stream.any().await?.err(),
    };
    match refused {
        Some(status) => Ok(status),
        None => broken(format!("{subscribe:?} was accepted")),
    }
}

pub(super) async fn reasons(kit: &mut Kit) -> Judged {
    let status = refusal(kit, &Subscribe::new("", "")).await?;
    expect_reason(&status, ErrorReason::InvalidGatewayId, &["field"])?;
    let id = kit.id();
    let mut older = kit.open(&Subscribe::new(&*id, "")).await?;
    let _newer = kit.open(&Subscribe::new(&*id, "")).await?;
    let (_, status) = older.end().await?;
    expect_reason(&status, ErrorReason::TakenOver, &["peer"])
}

pub(super) async fn instance(kit: &mut Kit) -> Judged {
    let id = kit.id();
    let mut older = kit.open(&Subscribe::new(&*id, "")).await?;
    let name = format!("pod-{}", kit.run);
    let newer = Subscribe::new(&*id, "").with(PUSH_INSTANCE, &*name);
    let _newer = kit.open(&newer).await?;
    let (_, status) = older.end().await?;
    let info = error_info(&status).unwrap_or_default();
    ensure!(
        info.metadata.get("instance") == Some(&name),
        "the newer stream's push-instance is {name:?}, and the older one is told {:?}",
        info.metadata
    );
    Ok(())
}

pub(super) async fn heartbeats(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let id = kit.id();
    let subscribe = Subscribe::new(id, "").with(PUSH_HEARTBEAT, HEARTBEAT);
    let mut stream = kit.open(&subscribe).await?;
    ensure!(
        stream.header(PUSH_HEARTBEAT)? == HEARTBEAT,
        "push-heartbeat is {:?}, expected {HEARTBEAT:?}",
        stream.header(PUSH_HEARTBEAT)?
    );
    heartbeat_at(&mut stream, witness.head).await?;
    let published = kit.publish_some(&mut witness, 2).await?;
    let head = witness.head;
    // One may have been under way.
    for wanted in published {
        loop {
            let Ok(received) = stream.any().await? else {
                return broken("a stream with heartbeats ended");
            };
            if received.has_kind() {
                ensure!(
                    received.bytes == wanted.bytes,
                    "expected the event {}, and {} came",
                    wanted.cursor,
                    received.cursor
                );
                break;
            }
            ensure!(
                received.cursor < wanted.cursor,
                "a heartbeat at {} came before the event {}",
                received.cursor,
                wanted.cursor
            );
        }
    }
    heartbeat_at(&mut stream, head).await?;
    heartbeat_at(&mut stream, head).await
}

async fn heartbeat_at(stream: &mut Stream, position: Cursor) -> Judged {
    match stream.any().await? {
        Ok(received) if received.has_kind() => broken(format!(
            "the event {} came, expected a heartbeat",
            received.cursor
        )),
        Ok(received) => {
            ensure!(
                received.cursor == position,
                "a heartbeat's cursor is {}, and the stream has passed {position}",
                received.cursor
            );
            Ok(())
        }
        Err(status) => broken(format!(
            "a quiet stream with heartbeats ended: {}",
            status_line(&status)
        )),
    }
}

pub(super) async fn heartbeat_rules(kit: &mut Kit) -> Judged {
    for value in [
        "0s", "999ms", "301s", "6m", "1h", "15", "fast", "-1s", "1.5s",
    ] {
        let id = kit.id();
        let status = refusal(kit, &Subscribe::new(id, "").with(PUSH_HEARTBEAT, value)).await?;
        ensure!(
            status.code() == Code::InvalidArgument,
            "push-heartbeat: {value} was refused with {}, expected INVALID_ARGUMENT",
            status_line(&status)
        );
    }
    for value in ["1000ms", "15s", "5m"] {
        let id = kit.id();
        kit.open(&Subscribe::new(id, "").with(PUSH_HEARTBEAT, value))
            .await?;
    }
    Ok(())
}

/// Subscribes with `push-revocations: replay`.
async fn with_replay(kit: &mut Kit, cursor: impl ToString) -> Judged<Stream> {
    let id = kit.id();
    let subscribe = Subscribe::new(id, cursor.to_string()).with(PUSH_REVOCATIONS, "replay");
    kit.open(&subscribe).await
}

/// Reads the replay, its end mark too: the marks of its invalidations, in order.
async fn replayed(stream: &mut Stream) -> Judged<Vec<(Cursor, PushEvent)>> {
    let count = number(
        PUSH_REVOCATIONS_COUNT,
        stream.header(PUSH_REVOCATIONS_COUNT)?,
    )?;
    let start = stream.start_cursor()?;
    let mut all: Vec<(Cursor, PushEvent)> = Vec::new();
    for at in 0..count {
        let Ok(received) = stream.any().await? else {
            return broken(format!(
                "the stream ended after {at} of {count} revocations"
            ));
        };
        ensure!(
            matches!(received.event.kind, Some(Kind::SessionInvalidation(_))),
            "message {at} of {count} revocations is none: {:?}",
            received.event
        );
        ensure!(
            received.cursor <= start,
            "the revocation {} lies behind the stream's start, {start}",
            received.cursor
        );
        if let Some((before, _)) = all.last() {
            ensure!(
                *before < received.cursor,
                "the revocation {} came after {before}",
                received.cursor
            );
        }
        all.push((received.cursor, received.event));
    }
    let Ok(mark) = stream.any().await? else {
        return broken("the stream ended before the end mark of the revocations");
    };
    ensure!(
        !mark.has_kind() && mark.cursor == start,
        "expected the end mark at {start} after {count} revocations, and {} came, {:?}",
        mark.cursor,
        mark.event.kind
    );
    Ok(all)
}

/// Publishes invalidations: those that have to be in a replay afterwards.
async fn invalidate(kit: &mut Kit, witness: &mut Witness) -> Judged<Vec<(Cursor, PushEvent)>> {
    let user = kit.id();
    let other = kit.id();
    let events = vec![
        kit.invalidation(&user, "session-1"),
        kit.event(),
        kit.invalidation(&user, "session-2"),
        kit.invalidation(&other, ""),
        // A newer one of the same session takes the first one's place.
        kit.invalidation(&user, "session-1"),
    ];
    let published = kit.publish(witness, &events).await?;
    let kept = [2, 3, 4].map(|at| (published[at].cursor, published[at].event.clone()));
    Ok(kept.into())
}

/// Each wanted one is there, with its cursor, as it was published.
fn expect_all(replay: &[(Cursor, PushEvent)], wanted: &[(Cursor, PushEvent)]) -> Judged {
    for (cursor, event) in wanted {
        ensure!(
            replay.iter().any(|(at, it)| at == cursor && it == event),
            "the invalidation {cursor} was missed and is not among the {} revocations",
            replay.len()
        );
    }
    Ok(())
}

pub(super) async fn revocations(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let wanted = invalidate(kit, &mut witness).await?;
    let mut stream = with_replay(kit, "").await?;
    stream.expect_fresh("no-cursor", witness.head)?;
    let said = stream.header(PUSH_REVOCATIONS)?.to_owned();
    ensure!(
        ["complete", "partial"].contains(&&*said),
        "push-revocations is {said:?}, neither \"complete\" nor \"partial\""
    );
    let replay = replayed(&mut stream).await?;
    if said == "complete" {
        expect_all(&replay, &wanted)?;
    }
    let next = kit.publish_some(&mut witness, 2).await?;
    same(&mut stream, &next).await
}

pub(super) async fn revocations_after_gap(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let before = invalidate(kit, &mut witness).await?;
    let cursor = witness.head;
    let wanted = invalidate(kit, &mut witness).await?;
    kit.turn_ring(&mut witness).await?;
    let mut stream = with_replay(kit, cursor).await?;
    stream.expect_fresh("expired", witness.head)?;
    let said = stream.header(PUSH_REVOCATIONS)?.to_owned();
    let replay = replayed(&mut stream).await?;
    if said == "partial" {
        return skipped(
            "the server's table of revocations is smaller than what was published, and says so",
        );
    }
    expect_all(&replay, &wanted)?;
    for (cursor, _) in &before {
        ensure!(
            !replay.iter().any(|(at, _)| at == cursor),
            "the invalidation {cursor} was processed and is among the revocations"
        );
    }
    let next = kit.publish_some(&mut witness, 2).await?;
    same(&mut stream, &next).await
}

pub(super) async fn revocations_of_other_epoch(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let wanted = invalidate(kit, &mut witness).await?;
    for cursor in ["000000000000-00000000001", "malformed"] {
        let mut stream = with_replay(kit, cursor).await?;
        ensure!(
            stream.header(PUSH_REVOCATIONS)? == "partial",
            "with the cursor {cursor:?}, push-revocations is {:?}: nobody can know what was before this epoch",
            stream.header(PUSH_REVOCATIONS)?
        );
        let replay = replayed(&mut stream).await?;
        if (1..wanted.len()).contains(&replay.len()) {
            return skipped("the server's table of revocations is smaller than what was published");
        }
        expect_all(&replay, &wanted)?;
    }
    Ok(())
}

pub(super) async fn revocations_resumed(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let cursor = witness.head;
    let missed = kit.publish_some(&mut witness, 4).await?;
    let mut stream = with_replay(kit, cursor).await?;
    stream.expect("resumed", "requested")?;
    let head = stream.header(PUSH_HEAD_CURSOR)?;
    ensure!(
        head == witness.head.to_string(),
        "push-head-cursor is {head}, and the newest event is {}",
        witness.head
    );
    same(&mut stream, &missed).await
}

pub(super) async fn revocations_rules(kit: &mut Kit) -> Judged {
    for value in ["yes", "REPLAY", "replay,replay"] {
        let id = kit.id();
        let status = refusal(kit, &Subscribe::new(id, "").with(PUSH_REVOCATIONS, value)).await?;
        ensure!(
            status.code() == Code::InvalidArgument,
            "push-revocations: {value} was refused with {}, expected INVALID_ARGUMENT",
            status_line(&status)
        );
    }
    Ok(())
}

/// Asks what is known of an invalidation, without waiting.
async fn known(kit: &Kit, cursor: Cursor) -> Judged<WaitEnforcedResponse> {
    let wait = WaitEnforcedRequest {
        cursor: cursor.to_string(),
        timeout_ms: 0,
    };
    let calls = kit.publisher.calls()?;
    match calls
        .unary(path::WAIT_ENFORCED, wait.encode_to_vec().into())
        .await?
    {
        Ok(response) => Ok(response),
        Err(status) => broken(format!(
            "WaitEnforced was refused: {}",
            status_line(&status)
        )),
    }
}

pub(super) async fn receipts(kit: &mut Kit) -> Judged {
    kit.publisher.calls()?;
    // It sends no reports: nothing is proven while it is there.
    let mut witness = kit.witness().await?;
    let id = kit.id();
    let name = format!("{id}-process");
    let subscribe = Subscribe::new(&*id, "").with(PUSH_INSTANCE, &*name);
    let _stream = kit.open(&subscribe).await?;
    let connection = kit.connect().await?;
    let patience = kit.patience;
    let report = async |enforced: Cursor| -> Judged<String> {
        let request = ReportRequest {
            gateway_client_id: id.clone(),
            instance: name.clone(),
            enforced_cursor: enforced.to_string(),
            lease_ms: LEASE_MS,
        };
        let request = request.encode_to_vec().into();
        let answer: Result<ReportResponse, _> =
            unary(connection.clone(), path::REPORT, request, patience).await?;
        match answer {
            Ok(response) => Ok(response.head_cursor),
            Err(status) => broken(format!("a report was refused: {}", status_line(&status))),
        }
    };
    let before = witness.head;
    report(before).await?;
    let user = kit.user();
    let events = [kit.invalidation(&user, "")];
    let cursor = kit.publish(&mut witness, &events).await?[0].cursor;

    let behind = known(kit, cursor).await?;
    ensure!(
        !behind.proven,
        "WaitEnforced({cursor}) is proven, and a gateway has reported {before}"
    );
    let said = behind
        .missing
        .iter()
        .find(|missing| missing.gateway_client_id == id);
    ensure!(
        said.is_some_and(|missing| missing.reason == i32::from(Missing::Behind)),
        "the gateway has reported {before}, and WaitEnforced({cursor}) says of it {said:?}, expected BEHIND"
    );

    let head = report(cursor).await?;
    ensure!(
        head >= cursor.to_string(),
        "a report was answered with the head {head}, and {cursor} was published before"
    );
    let enforced = known(kit, cursor).await?;
    ensure!(
        enforced.enforced > behind.enforced,
        "the gateway has reported {cursor}, and WaitEnforced({cursor}) knows of {} that have enforced it, as before",
        enforced.enforced
    );
    ensure!(
        !enforced
            .missing
            .iter()
            .any(|missing| missing.gateway_client_id == id),
        "the gateway has reported {cursor}, and WaitEnforced({cursor}) says that it is missing"
    );
    ensure!(
        !enforced.proven,
        "WaitEnforced({cursor}) is proven, and a gateway is subscribed that sends no reports"
    );
    Ok(())
}

pub(super) async fn health(kit: &mut Kit) -> Judged {
    // `HealthCheckRequest` with an empty service.
    let answer: Result<Health, _> = unary(
        kit.connect().await?,
        "/grpc.health.v1.Health/Check",
        Bytes::new(),
        kit.patience,
    )
    .await?;
    match answer {
        Ok(health) if health.status == 1 => Ok(()),
        Ok(health) => broken(format!(
            "grpc.health.v1 says {}, expected 1 (SERVING)",
            health.status
        )),
        Err(status) => broken(format!(
            "Health/Check was refused: {}",
            status_line(&status)
        )),
    }
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn unknown_method(kit: &mut Kit) -> Judged {
    let answer: Result<Health, _> = unary(
        kit.connect().await?,
        "/galaxy.backend.push.v1.Push/NoSuchMethod",
        Bytes::new(),
        kit.patience,
    )
    .await?;
    match answer {
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        Err(status) => broken(format!(
            "an unknown method was refused with {}, expected UNIMPLEMENTED",
            status_line(&status)
        )),
        Ok(_) => broken("an unknown method was answered"),
    }
}

pub(super) async fn silent_without_heartbeats(kit: &mut Kit) -> Judged {
    let mut witness = kit.witness().await?;
    let mut stream = kit.fresh().await?;
    // Longer than the shortest interval.
    sleep(Duration::from_millis(1500)).await;
    let published = kit.publish_some(&mut witness, 1).await?;
    same(&mut stream, &published).await
}
