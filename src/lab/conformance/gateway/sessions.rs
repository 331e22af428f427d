//! What a gateway does for its sessions, and to those that are revoked.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::attempts::stopping;
use super::kit::{Fresh, Kit, Session, mark_at};
use crate::contract::gateway::ReportRequest;
use crate::contract::metadata::PUSH_REVOCATIONS;
use crate::contract::push::PushEvent;
use crate::contract::start::Reason;
use crate::cursor::{Cursor, Epoch};
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

pub(super) async fn reason_logged(kit: &mut Kit) -> Judged {
    kit.live().await?;
    let mut output = kit.gateway_output()?;
    let user = kit.user();
    for session in ["", "session-1"] {
        let (event, reason) = kit.invalidation(&user, session);
        kit.send([event]).await?;
        ensure!(
            output.wait_for(&reason, kit.patience).await,
            "the reason of an invalidation, {reason}, is not in what the gateway has written"
        );
    }
    Ok(())
}

pub(super) async fn to_user(kit: &mut Kit) -> Judged {
    let (user, other) = (kit.user(), kit.user());
    let first = kit.session(&user).await?;
    let second = kit.session(&user).await?;
    let foreign = kit.session(&other).await?;
    let (event, mark) = kit.client_event(&user, "");
    kit.send([event]).await?;
    kit.receives(&first, &mark).await?;
    kit.receives(&second, &mark).await?;
    // What comes later is there: so would be what came before.
    let (event, later) = kit.client_event(&other, "");
    kit.send([event]).await?;
    kit.receives(&foreign, &later).await?;
    ensure!(
        !foreign.output.has(&mark),
        "an event for {user} arrived at a session of {other}"
    );
    Ok(())
}

pub(super) async fn to_session(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let first = kit.session(&user).await?;
    let second = kit.session(&user).await?;
    let (event, mark) = kit.client_event(&user, &first.id);
    kit.send([event]).await?;
    kit.receives(&first, &mark).await?;
    // The same session id of somebody else is another session.
    let other = kit.user();
    let (event, foreign) = kit.client_event(&other, &first.id);
    kit.send([event]).await?;
    let (event, later) = kit.client_event(&user, "");
    kit.send([event]).await?;
    kit.receives(&first, &later).await?;
    kit.receives(&second, &later).await?;
    ensure!(
        !second.output.has(&mark),
        "an event for one session arrived at another one of the same user"
    );
    ensure!(
        !first.output.has(&foreign),
        "an event for a session of {other} arrived at one of {user} with the same id"
    );
    Ok(())
}

pub(super) async fn in_order(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let session = kit.session(&user).await?;
    let mut marks = Vec::new();
    let mut events = Vec::new();
    // Fewer than a short queue holds: nobody has to be fast.
    for _ in 0..30 {
        let (event, mark) = kit.client_event(&user, "");
        events.push(event);
        marks.push(mark);
    }
    kit.send(events).await?;
    for mark in &marks {
        kit.receives(&session, mark).await?;
    }
    let places = session
        .output
        .with(|text| marks.iter().map(|mark| text.find(mark)).collect::<Vec<_>>());
    ensure!(
        places.is_sorted(),
        "events arrived at a session in another order than on the stream"
    );
    Ok(())
}

/// The session is revoked, and an event right behind that does not arrive.
async fn expect_revoked(kit: &Kit, session: &Session, late: &str, what: &str) -> Judged {
    kit.ends(session, what).await?;
    ensure!(
        !session.output.has(late),
        "an event that came after {what} arrived at the session {}",
        session.id
    );
    Ok(())
}

pub(super) async fn session_revoked(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let revoked = kit.session(&user).await?;
    let sibling = kit.session(&user).await?;
    let (invalidation, _) = kit.invalidation(&user, &revoked.id);
    let (event, mark) = kit.client_event(&user, "");
    kit.send([invalidation, event]).await?;
    expect_revoked(kit, &revoked, &mark, "the session's invalidation").await?;
    kit.receives(&sibling, &mark).await
}

pub(super) async fn user_revoked(kit: &mut Kit) -> Judged {
    let (user, other) = (kit.user(), kit.user());
    let first = kit.session(&user).await?;
    let second = kit.session(&user).await?;
    let foreign = kit.session(&other).await?;
    let (invalidation, _) = kit.invalidation(&user, "");
    let (event, mark) = kit.client_event(&user, "");
    let (later, for_other) = kit.client_event(&other, "");
    kit.send([invalidation, event, later]).await?;
    expect_revoked(kit, &first, &mark, "the user's invalidation").await?;
    expect_revoked(kit, &second, &mark, "the user's invalidation").await?;
    kit.receives(&foreign, &for_other).await
}

pub(super) async fn others_live(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let session = kit.session(&user).await?;
    // None of these is this session.
    let longer = format!("{user}0");
    let other = kit.user();
    let others = [
        kit.invalidation(&longer, "").0,
        kit.invalidation(&longer, &session.id).0,
        kit.invalidation(&other, &session.id).0,
        kit.invalidation(&user, "another-session").0,
    ];
    kit.send(others).await?;
    let (event, mark) = kit.client_event(&user, "");
    kit.send([event]).await?;
    kit.receives(&session, &mark).await
}

pub(super) async fn again_after_revocation(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let revoked = kit.session(&user).await?;
    let (invalidation, _) = kit.invalidation(&user, "");
    kit.send([invalidation]).await?;
    kit.ends(&revoked, "the user's invalidation").await?;
    // Whoever logs in afterwards has a session that was never revoked.
    let next = kit.session(&user).await?;
    let (event, mark) = kit.client_event(&user, "");
    kit.send([event]).await?;
    kit.receives(&next, &mark).await
}

/// A gap in which revocations were lost; so many others were not.
fn partial(left: usize) -> Fresh {
    Fresh {
        reason: Reason::Expired,
        missed: Some(2),
        // Put in when they are known.
        revocations: Some(("partial", vec![mark_at(""); left])),
    }
}

/// A gap in which nobody can know who was revoked: the session must not be served unless it was
/// validated anew.
async fn suspect(kit: &mut Kit, what: &str, mut fresh: Fresh, epoch: Option<Epoch>) -> Judged {
    let user = kit.user();
    let session = kit.session(&user).await?;
    kit.progress(1).await?;
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    match epoch {
        Some(epoch) => kit.new_epoch(epoch),
        None => {
            // Among them the session's invalidation.
            kit.invalidation(&user, &session.id);
            let other = kit.user();
            if let Some((_, missed)) = &mut fresh.revocations {
                for event in missed {
                    *event = kit.invalidation(&other, "").0;
                }
            }
            kit.any_event();
        }
    }
    kit.live = Some(kit.serve_fresh(arrival, fresh).await?);
    let (event, mark) = kit.client_event(&user, "");
    kit.send([event]).await?;
    expect_revoked(kit, &session, &mark, what).await
}

fn needs_no_validation(kit: &Kit) -> Judged {
    if kit.revalidates {
        return skipped("with --revalidates, the kit cannot see what the backend has answered");
    }
    Ok(())
}

pub(super) async fn gap(kit: &mut Kit) -> Judged {
    needs_no_validation(kit)?;
    // A server that does not know of missed revocations; each reason, and one of a later version.
    for reason in ["expired", "ahead", "malformed", "by-lot"] {
        let fresh = Fresh {
            reason: Reason::from_value(reason),
            missed: Some(2),
            revocations: None,
        };
        suspect(kit, &format!("a gap ({reason})"), fresh, None).await?;
    }
    // One that has lost all of them, and one that has lost some.
    for left in [0, 1] {
        let what = format!("a gap with {left} revocations, partial");
        suspect(kit, &what, partial(left), None).await?;
    }
    Ok(())
}

pub(super) async fn epoch_gap(kit: &mut Kit) -> Judged {
    needs_no_validation(kit)?;
    let Some(epoch) = Epoch::from_number(kit.epoch.number() + (1000 << 18)) else {
        return broken("the clock leaves no other epoch");
    };
    let fresh = Fresh {
        reason: Reason::OtherEpoch,
        missed: None,
        revocations: Some(("partial", Vec::new())),
    };
    suspect(kit, "a server that was born again", fresh, Some(epoch)).await
}

pub(super) async fn while_away(kit: &mut Kit) -> Judged {
    let keeps_sessions = kit.keeps_sessions().await?;
    let user = kit.user();
    let revoked = kit.session(&user).await?;
    let sibling = kit.session(&user).await?;
    kit.progress(1).await?;
    kit.end(stopping()).await;
    // It happens before the gateway is back, which then resumes.
    kit.invalidation(&user, &revoked.id);
    let (_, mark) = kit.client_event(&user, "");
    kit.live().await?;
    expect_revoked(
        kit,
        &revoked,
        &mark,
        "an invalidation while the gateway was away",
    )
    .await?;
    if keeps_sessions {
        kit.receives(&sibling, &mark).await?;
    }
    Ok(())
}

pub(super) async fn replay(kit: &mut Kit) -> Judged {
    let keeps_sessions = kit.keeps_sessions().await?;
    let (user, banned, bystander) = (kit.user(), kit.user(), kit.user());
    let revoked = kit.session(&user).await?;
    let sibling = kit.session(&user).await?;
    let gone = kit.session(&banned).await?;
    let other = kit.session(&bystander).await?;
    kit.progress(1).await?;
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    if arrival.header(PUSH_REVOCATIONS).is_none() {
        kit.live = Some(kit.serve(arrival).await?);
        return skipped("the gateway does not ask for missed revocations");
    }
    let missed: Vec<PushEvent> = vec![
        kit.invalidation(&user, &revoked.id).0,
        kit.invalidation(&banned, "").0,
    ];
    kit.any_event();
    let fresh = Fresh {
        reason: Reason::Expired,
        missed: Some(3),
        revocations: Some(("complete", missed)),
    };
    kit.live = Some(kit.serve_fresh(arrival, fresh).await?);
    let mut marks = Vec::new();
    for user in [&user, &banned, &bystander] {
        let (event, mark) = kit.client_event(user, "");
        kit.send([event]).await?;
        marks.push(mark);
    }
    expect_revoked(kit, &revoked, &marks[0], "a replayed invalidation").await?;
    expect_revoked(kit, &gone, &marks[1], "a replayed invalidation").await?;
    // A complete replay says of everybody else that nothing has happened.
    if keeps_sessions {
        kit.receives(&sibling, &marks[0]).await?;
        kit.receives(&other, &marks[2]).await?;
    }
    Ok(())
}

pub(super) async fn heartbeat_is_no_event(kit: &mut Kit) -> Judged {
    let user = kit.user();
    let session = kit.session(&user).await?;
    let sent = kit.progress(1).await?;
    let cursor = sent[0].cursor.clone();
    kit.send([mark_at(cursor.clone()), mark_at(cursor.clone())])
        .await?;
    let (event, mark) = kit.client_event(&user, "");
    kit.send([event]).await?;
    kit.receives(&session, &mark).await?;
    ensure!(
        !session.output.has(&cursor),
        "a message without a kind arrived at a session"
    );
    Ok(())
}

/// The longest lease that any server takes, in milliseconds.
const MAX_LEASE_MS: u32 = 600_000;

/// Each report has to be true: of this gateway, with what was sent to it. `sent` is the newest.
fn expect_true(kit: &Kit, reports: &[ReportRequest], sent: &str) -> Judged {
    let Some(live) = &kit.live else {
        return Ok(());
    };
    let mut before: Option<(&str, Cursor)> = None;
    for report in reports {
        ensure!(
            report.gateway_client_id == live.id,
            "it reports as {:?}, and subscribes as {:?}",
            report.gateway_client_id,
            live.id
        );
        ensure!(
            report.lease_ms <= MAX_LEASE_MS,
            "a report's lease is {} ms, which no server takes",
            report.lease_ms
        );
        let Ok(enforced) = report.enforced_cursor.parse::<Cursor>() else {
            return broken(format!(
                "a report's enforced_cursor is {:?}",
                report.enforced_cursor
            ));
        };
        // Reports of an earlier process, and of an earlier epoch, are about other streams.
        if report.instance != live.instance || enforced.epoch() != kit.epoch {
            continue;
        }
        ensure!(
            report.enforced_cursor.as_str() <= sent,
            "it reports {enforced} as enforced, and was sent no more than {sent}"
        );
        if let Some((instance, earlier)) = before {
            ensure!(
                instance != report.instance || earlier <= enforced,
                "it reports {enforced} as enforced after {earlier}"
            );
        }
        before = Some((&report.instance, enforced));
    }
    Ok(())
}

pub(super) async fn receipts(kit: &mut Kit) -> Judged {
    let sent = kit.progress(2).await?;
    if kit.backend.reports.all().is_empty() {
        return skipped("the gateway sends no reports");
    }
    // The server knows of it, and the gateway does not yet: it must not report it.
    let before = kit.backend.reports.all().len();
    let user = kit.user();
    let (invalidation, _) = kit.invalidation(&user, "");
    let cursor = invalidation.cursor.clone();
    kit.settle().await;
    let reports = kit.backend.reports.all();
    expect_true(kit, &reports[before..], &sent[1].cursor)?;
    kit.send([invalidation]).await?;
    let until = Instant::now() + kit.patience;
    loop {
        let reports = kit.backend.reports.all();
        expect_true(kit, &reports[before..], &cursor)?;
        let is_ours = |report: &&ReportRequest| {
            kit.live
                .as_ref()
                .is_some_and(|live| live.instance == report.instance)
        };
        if reports[before..]
            .iter()
            .filter(is_ours)
            .any(|report| report.enforced_cursor == cursor)
        {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "an invalidation at {cursor} was sent, and it has not reported it as enforced under its push-instance"
        );
        sleep(Duration::from_millis(20)).await;
    }
}
