//! What a restart does to streams and to cursors.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::kit::{Kit, same};
use super::stream::Subscribe;
use crate::client::status_line;
use crate::contract::metadata::{PUSH_RESUME, PUSH_RESUME_REASON};
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

/// How long a restart may take.
const RESTART: Duration = Duration::from_secs(60);

/// Runs `--restart-command`, and waits until the server takes subscriptions again.
async fn restart(kit: &mut Kit) -> Judged {
    let Some(line) = kit.restart.clone() else {
        return skipped("it needs --restart-command");
    };
    let mut command = Command::new("sh");
    // Standard output is the report's.
    command
        .args(["-c", &line])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    match timeout(RESTART, command.status()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => return broken(format!("--restart-command failed: {status}")),
        Ok(Err(error)) => return broken(format!("--restart-command did not start: {error}")),
        Err(_) => return broken("--restart-command did not end within a minute"),
    }
    let began = Instant::now();
    loop {
        let ready = async {
            kit.fresh().await?;
            kit.publisher.reconnect().await
        };
        match ready.await {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() > RESTART => return Err(error),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

pub(super) async fn ends_streams(kit: &mut Kit) -> Judged {
    if kit.restart.is_none() {
        return skipped("it needs --restart-command");
    }
    let mut witness = kit.witness().await?;
    let mut stream = kit.fresh().await?;
    let published = kit.publish_some(&mut witness, 20).await?;
    restart(kit).await?;
    // What was published comes before the end.
    same(&mut stream, &published).await?;
    match stream.any().await? {
        Err(status) if status.code() == Code::Unavailable => Ok(()),
        Err(status) => broken(format!(
            "the stream ended with {}, expected UNAVAILABLE",
            status_line(&status)
        )),
        Ok(received) => broken(format!(
            "the event {} came, which this run has not published",
            received.cursor
        )),
    }
}

pub(super) async fn announces(kit: &mut Kit) -> Judged {
    if kit.restart.is_none() {
        return skipped("it needs --restart-command");
    }
    let mut witness = kit.witness().await?;
    let published = kit.publish_some(&mut witness, 10).await?;
    let cursor = published[3].cursor;
    restart(kit).await?;
    let id = kit.id();
    let mut stream = kit.open(&Subscribe::new(id, cursor.to_string())).await?;
    let mut witness = kit.witness().await?;
    // The event with which it began.
    let first = witness.head;
    let next = kit.publish_some(&mut witness, 3).await?;
    if stream.header(PUSH_RESUME_REASON)? == "expired" {
        // It has the same events, and took longer than it keeps them.
        stream.missed()?;
    } else if stream.header(PUSH_RESUME)? == "resumed" {
        // It has kept them, under the same cursors.
        same(&mut stream, &published[4..]).await?;
    } else {
        ensure!(
            stream.start_cursor()?.epoch() != cursor.epoch(),
            "after a restart the stream is fresh in the same epoch: a cursor of before could name another event"
        );
        stream.expect("fresh", "other-epoch")?;
    }
    let received = stream.next().await?;
    ensure!(
        received.cursor == first,
        "after a restart, expected the event {first}, and {} came",
        received.cursor
    );
    same(&mut stream, &next).await
}
