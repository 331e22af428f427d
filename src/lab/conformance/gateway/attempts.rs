//! When a gateway tries again.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use tonic::{Code, Status};

use super::backend::Arrival;
use super::kit::{Kit, interval};
use crate::contract::details::{DOMAIN, Details, ErrorInfo, ErrorReason};
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

/// How long attempts are counted.
const WINDOW: Duration = Duration::from_secs(3);
/// Attempts within it. Back-off that starts at 0.2 seconds and doubles makes six at most.
const ATTEMPTS: usize = 9;
/// The same, where another process has the id.
const TAKEOVERS: usize = 4;

/// A status with this contract's reason.
fn status(code: Code, reason: ErrorReason, retry_delay: Option<Duration>) -> Status {
    let message = "judged by the conformance kit";
    let details = Details {
        error_info: Some(ErrorInfo {
            domain: DOMAIN.to_owned(),
            reason: reason.as_str().to_owned(),
            ..ErrorInfo::default()
        }),
        retry_delay,
    };
    let bytes = details.encode(code as i32, message);
    Status::with_details(code, message, bytes.into())
}

pub(super) fn stopping() -> Status {
    Status::unavailable("the server is stopping")
}

/// Counts attempts that are answered so, after the stream has ended with this.
async fn attempts(
    kit: &mut Kit,
    end: Status,
    answer: impl AsyncFnMut(&mut Kit, Arrival) -> Judged,
) -> Judged<usize> {
    kit.progress(1).await?;
    kit.end(end).await;
    let count = kit.arrivals_in(WINDOW, answer).await?;
    Ok(count)
}

fn expect_at_most(count: usize, limit: usize, what: &str) -> Judged {
    ensure!(
        count <= limit,
        "{what}, the gateway subscribed {count} times within {} seconds, expected {limit} at most",
        WINDOW.as_secs()
    );
    Ok(())
}

pub(super) async fn refused(kit: &mut Kit) -> Judged {
    let count = attempts(kit, stopping(), async |_, arrival| {
        arrival.refuse(stopping());
        Ok(())
    })
    .await?;
    expect_at_most(count, ATTEMPTS, "refused with UNAVAILABLE each time")?;
    // And it comes back.
    kit.live().await?;
    Ok(())
}

pub(super) async fn crowded(kit: &mut Kit) -> Judged {
    let count = attempts(kit, stopping(), async |_, arrival| {
        arrival.refuse(status(
            Code::ResourceExhausted,
            ErrorReason::TooManySubscribers,
            None,
        ));
        Ok(())
    })
    .await?;
    expect_at_most(count, ATTEMPTS, "refused with RESOURCE_EXHAUSTED each time")?;
    kit.live().await?;
    Ok(())
}

pub(super) async fn without_progress(kit: &mut Kit) -> Judged {
    let count = attempts(kit, stopping(), async |kit, arrival| {
        let live = kit.serve(arrival).await?;
        live.open.end(stopping()).await;
        Ok(())
    })
    .await?;
    expect_at_most(
        count,
        ATTEMPTS,
        "accepted and ended with UNAVAILABLE before an event each time",
    )?;
    kit.live().await?;
    Ok(())
}

pub(super) async fn taken_over(kit: &mut Kit) -> Judged {
    let aborted = || status(Code::Aborted, ErrorReason::TakenOver, None);
    let count = attempts(kit, aborted(), async |kit, arrival| {
        // The other process takes the id back, after both have made progress.
        let live = kit.serve(arrival).await?;
        let event = kit.any_event();
        live.open.send(event);
        live.open.end(aborted()).await;
        Ok(())
    })
    .await?;
    expect_at_most(
        count,
        TAKEOVERS,
        "while another process takes its id over again and again",
    )?;
    kit.comes_back().await
}

pub(super) async fn invalid(kit: &mut Kit) -> Judged {
    let count = attempts(kit, stopping(), async |_, arrival| {
        arrival.refuse(Status::invalid_argument("gateway_client_id is empty"));
        Ok(())
    })
    .await?;
    expect_at_most(count, ATTEMPTS, "refused with INVALID_ARGUMENT each time")?;
    kit.comes_back().await
}

pub(super) async fn retry_info(kit: &mut Kit) -> Judged {
    const DELAY: Duration = Duration::from_secs(2);
    kit.progress(1).await?;
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    let refused = Instant::now();
    arrival.refuse(status(
        Code::ResourceExhausted,
        ErrorReason::TooManySubscribers,
        Some(DELAY),
    ));
    let next = kit.arrival().await?;
    let waited = next.at.saturating_duration_since(refused);
    kit.live = Some(kit.serve(next).await?);
    ensure!(
        waited >= DELAY,
        "told by RetryInfo to wait {} ms, it came back after {}",
        DELAY.as_millis(),
        waited.as_millis()
    );
    Ok(())
}

pub(super) async fn slow_headers(kit: &mut Kit) -> Judged {
    kit.progress(1).await?;
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    // A server that is slow to answer has to be waited for, by one call at a time.
    let more = kit
        .arrivals_in(Duration::from_secs(2), async |_, more| {
            more.refuse(stopping());
            Ok(())
        })
        .await?;
    ensure!(
        more == 0,
        "the response's headers took 2 seconds, and it subscribed {more} more times meanwhile"
    );
    kit.live = Some(kit.serve(arrival).await?);
    kit.progress(1).await?;
    Ok(())
}

pub(super) async fn quiet(kit: &mut Kit) -> Judged {
    kit.progress(1).await?;
    ensure!(
        !kit.leaves(Duration::from_secs(3)).await?,
        "it left a stream on which nothing came for 3 seconds"
    );
    Ok(())
}

/// The interval that the gateway has asked for, if it is short enough to wait for.
async fn heartbeat(kit: &mut Kit) -> Judged<Duration> {
    let Some(text) = kit.live().await?.heartbeat.clone() else {
        return skipped("the gateway asks for no heartbeats");
    };
    match interval(&text) {
        Some(interval) if interval <= Duration::from_secs(5) => Ok(interval),
        Some(_) => skipped(format!(
            "the gateway asks for heartbeats each {text}: it needs 5s at most"
        )),
        None => broken(format!("push-heartbeat is {text:?}, which is no interval")),
    }
}

pub(super) async fn silence(kit: &mut Kit) -> Judged {
    kit.progress(1).await?;
    let interval = heartbeat(kit).await?;
    // Two intervals, and as much again for a gateway that looks rarely.
    let limit = interval * 4 + Duration::from_secs(5);
    if let Some(live) = &mut kit.live {
        live.open.silence();
    }
    ensure!(
        kit.leaves(limit).await?,
        "it asks for heartbeats each {} ms, and goes on with a stream that has brought nothing for {} ms",
        interval.as_millis(),
        limit.as_millis()
    );
    kit.live().await?;
    Ok(())
}

pub(super) async fn heartbeats(kit: &mut Kit) -> Judged {
    let sent = kit.progress(2).await?;
    let interval = heartbeat(kit).await?;
    let position = sent[1].cursor.clone();
    ensure!(
        !kit.leaves(interval * 5).await?,
        "it left a stream with heartbeats"
    );
    kit.end(stopping()).await;
    let arrival = kit.arrival().await?;
    let cursor = arrival.cursor.clone();
    kit.live = Some(kit.serve(arrival).await?);
    ensure!(
        cursor == position,
        "after heartbeats at {position}, it subscribed with {cursor:?}"
    );
    Ok(())
}

pub(super) async fn credential(kit: &mut Kit) -> Judged {
    let Some(path) = kit.token_file.clone() else {
        return skipped("it needs --gateway-token-file");
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let token = format!("token-{}", kit.mark());
    kit.progress(1).await?;
    if let Err(error) = write_token(&path, &token) {
        return broken(format!("cannot write {}: {error}", path.display()));
    }
    kit.end(status(
        Code::Unauthenticated,
        ErrorReason::CredentialExpired,
        None,
    ))
    .await;
    // Some attempts may use what was read before.
    let until = Instant::now() + kit.patience;
    while Instant::now() < until {
        let arrival = kit.arrival().await?;
        let shown = arrival.header("authorization").unwrap_or_default();
        if shown == bearer(&token) {
            kit.live = Some(kit.serve(arrival).await?);
            return Ok(());
        }
        arrival.refuse(status(
            Code::Unauthenticated,
            ErrorReason::CredentialExpired,
            None,
        ));
    }
    broken(format!(
        "its credential had ended and the file has a new one: it did not come with that within {} seconds",
        kit.patience.as_secs()
    ))
}

/// In one step: a gateway that reads meanwhile gets the one or the other.
pub(super) fn write_token(path: &Path, token: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, token)?;
    fs::rename(&new, path)
}
