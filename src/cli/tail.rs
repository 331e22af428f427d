//! `galaxy-push tail`: a gateway that prints.

mod cursor_file;
mod printer;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use super::json;
use crate::client::{BuildError, Gateway, Item, Stopped};
use crate::command::{ConnectArgs, Failure, signals, value};
use crate::config::{Address, Config};
use crate::contract::heartbeat::{self, HeartbeatError};
use crate::cursor::Cursor;
use cursor_file::{CursorFile, CursorFileError};
use printer::{End, Job, Jobs, Printer};

/// Subscribe as a gateway and print every event as one line of JSON.
///
/// The command stays subscribed until it is stopped. When the connection breaks or the
/// server stops, it reconnects with growing, jittered delays. It resumes with the event
/// after the last one that it printed. A gap is reported on standard error, with the
/// number of missed events if it is known.
///
/// A line holds the event and its cursor. `payload` is the payload itself if it is JSON,
/// without the whitespace between tokens. Other payloads, JSON nested deeper than 100
/// levels, and JSON's null are in `payload_base64`. `publish` reads the same lines.
///
/// With --cursor-file, the position is kept in a file, and the next run resumes there.
/// After kill -9 at any moment, no event is skipped, and at most the last one is printed
/// again. After a power failure, no event is skipped either; the events of the last
/// second or so may be printed again. If standard output is not a regular file, its
/// reader must store what it has read.
///
/// The file is locked: a second tail with the same file is refused. A file that is
/// damaged or not a cursor file is refused, and left unchanged.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
What ends it:
  SIGTERM, SIGINT          exit code 0, the position saved
  --count events printed   exit code 0
  standard output closed   exit code 0, an event that was not read is not counted
  ABORTED                  exit code 3: another gateway has taken over the id
  INVALID_ARGUMENT,
  UNIMPLEMENTED            exit code 1: the server will never accept it
  an event that is larger than --max-event-bytes
                           exit code 1, the position before it saved
When it reconnects:
  UNAVAILABLE              the server is stopping, or cannot be reached
  RESOURCE_EXHAUSTED       the server has its maximum number of gateways
  UNAUTHENTICATED          the token or certificate is missing, unknown or has expired
  PERMISSION_DENIED        it has no right to subscribe under this id
  OUT_OF_RANGE             this tail was too slow for the ring; the gap follows

A gap is one line on standard error, with the reason in parentheses:
  galaxy-push: gap: 17 events were missed (expired)
  expired                  the next event has left the ring or its window
  other-epoch              the server restarted, or it is a different one
  ahead                    the cursor is past the server's newest event

Examples:
  galaxy-push tail --id gateway-1
  galaxy-push tail --id gateway-1 --cursor-file gateway-1.cursor >> events.jsonl
  galaxy-push tail --connect push.example:50051 --tls --token-file token
  galaxy-push tail --count 10 | jq .client_event.kind
  galaxy-push tail --connect unix:/run/galaxy-push.sock --cursor CBSZJPG00007-0000000001A")]
pub(super) struct Args {
    /// The server's address for gateways: HOST:PORT or unix:PATH.
    #[arg(long, default_value_t = Config::default().listen)]
    connect: Address,

    /// The gateway's id: 1 to 256 bytes, no control characters. A newer
    /// subscription with the same id ends the older one. Default: a random id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// Resume after this event. Default: start with the next event to be published. A
    /// cursor in --cursor-file takes precedence.
    #[arg(long)]
    cursor: Option<Cursor>,

    /// Keep the position in this file; it is created if it does not exist.
    #[arg(long)]
    cursor_file: Option<PathBuf>,

    /// Stop after this number of events.
    #[arg(long, value_parser = |text: &str| value::within(text, 1..=u64::MAX))]
    count: Option<u64>,

    /// The largest encoded event that is accepted: at least the server's
    /// --max-event-bytes. A larger event ends the command.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = Config::MAX_PORTABLE_EVENT_BYTES,
        value_parser = max_event_bytes
    )]
    max_event_bytes: usize,

    /// Have the server show that a quiet stream lives, every so long: from 1s to 5m. A
    /// stream that brings nothing for twice as long is dropped, and subscribed anew. Default:
    /// no heartbeats.
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    heartbeat: Option<Duration>,

    /// Where the server cannot go on after the cursor, print first the session invalidations
    /// that were missed: the newest of each user and session. A line on standard error says how
    /// many, and whether they are all there.
    #[arg(long)]
    replay_revocations: bool,

    #[command(flatten)]
    how: ConnectArgs,
}

fn max_event_bytes(text: &str) -> Result<usize, String> {
    match value::size_in_memory(text)? {
        0 => Err("it must be at least 1".to_owned()),
        bytes if bytes > Config::MAX_EVENT_BYTES => {
            Err("more than 16MiB, which no server sends".to_owned())
        }
        bytes => Ok(bytes),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = value::duration(text)?;
    match heartbeat::is_allowed(&interval) {
        true => Ok(interval),
        false => Err(HeartbeatError::Range.to_string()),
    }
}

/// After a signal: how long the line that is being written may take. Whoever
/// reads standard output may not read on.
const LAST_LINE: Duration = Duration::from_secs(2);

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let id = args
        .id
        .unwrap_or_else(|| format!("tail-{:016x}", rand::random::<u64>()));
    let connector = args.how.connector(&args.connect)?;
    let mut builder = Gateway::builder(&id, args.connect.clone())
        .connector(connector)
        .max_event_bytes(args.max_event_bytes)
        .replay_revocations(args.replay_revocations);
    if let Some(interval) = args.heartbeat {
        builder = builder.heartbeat(interval);
    }
    // What is wrong with the flags is said before any file is made.
    builder
        .clone()
        .build()
        .map_err(|error| build_failure(&error))?;

    let mut cursor = args.cursor;
    let file = args
        .cursor_file
        .map(|path| open_file(path, &mut cursor))
        .transpose()
        .map_err(|error| Failure::failed(format!("--cursor-file: {error}")))?;
    let gateway = builder
        .cursor(cursor)
        .build()
        .map_err(|error| build_failure(&error))?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the worker thread: {error}")))?;
    let outcome = runtime.block_on(tail(gateway, &id, &args.connect, file, args.count));
    // A printer that nobody reads may wait in its write for ever.
    runtime.shutdown_background();
    outcome
}

fn build_failure(error: &BuildError) -> Failure {
    match error {
        BuildError::Id(error) => Failure::usage(format!("--id: {error}")),
        error => Failure::usage(error.to_string()),
    }
}

/// Opens the file, and settles where to go on: where the file says, or else at
/// the cursor that was asked for. That is then the file's, so that the next run
/// need not be told again if this one never gets to an event.
fn open_file(path: PathBuf, cursor: &mut Option<Cursor>) -> Result<CursorFile, CursorFileError> {
    let mut file = CursorFile::open(path)?;
    match (file.cursor(), *cursor) {
        (None, None) => {}
        (None, Some(asked)) => file.save(asked)?,
        (Some(kept), asked) => {
            if asked.is_some_and(|asked| asked != kept) {
                tracing::warn!("--cursor is ignored: --cursor-file has {kept}");
            }
            *cursor = Some(kept);
        }
    }
    Ok(file)
}

async fn tail(
    gateway: Gateway,
    id: &str,
    address: &Address,
    file: Option<CursorFile>,
    count: Option<u64>,
) -> Result<(), Failure> {
    let asked_to_stop = signals::asked_to_stop()?;
    let (mut printer, jobs) = Printer::start(id, file)?;

    let mut interrupted = pin!(async {
        tokio::select! {
            () = asked_to_stop => {}
            () = printer::stdout_closed() => {}
        }
    });

    let stopped = tokio::select! {
        // The feed first: while it runs, only a failure ends the printer.
        biased;
        stopped = feed(gateway, count, jobs) => stopped,
        end = printer.end() => return describe(end),
        () = &mut interrupted => return finish(&mut printer).await,
    };
    let end = tokio::select! {
        end = printer.end() => end,
        () = &mut interrupted => return finish(&mut printer).await,
    };
    describe(end)?;
    match stopped {
        None => Ok(()),
        Some(stopped @ Stopped::TakenOver(_)) => {
            Err(Failure::taken_over(format!("{id:?}: {stopped}")))
        }
        Some(stopped @ Stopped::EventTooLarge { .. }) => Err(Failure::failed(format!(
            "{address}: {stopped}: raise --max-event-bytes"
        ))),
        Some(stopped) => Err(Failure::failed(format!("{address}: {stopped}"))),
    }
}

/// Ends in the middle: the line under way is completed and its place saved, what
/// waits behind it is left for the next run.
async fn finish(printer: &mut Printer) -> Result<(), Failure> {
    printer.skip_the_rest();
    match tokio::time::timeout(LAST_LINE, printer.end()).await {
        Ok(end) => describe(end),
        Err(_) => Ok(()),
    }
}

/// Hands to the printer what the gateway tells, until it stops or `count` events
/// were handed over. What is handed over is processed as far as the gateway is
/// concerned: only if this process ends it is not, and then the file counts.
async fn feed(mut gateway: Gateway, count: Option<u64>, jobs: Jobs) -> Option<Stopped> {
    let mut left = count;
    while left != Some(0) {
        let job = match gateway.next().await {
            Ok(Item::Gap(gap)) => Job::Gap(gap),
            Ok(Item::Connected(start)) => Job::Start(start),
            Ok(Item::Event { cursor, event }) => {
                gateway.processed(cursor);
                left = left.map(|left| left - 1);
                Job::Event(cursor, event)
            }
            Ok(Item::Replayed { cursor }) => {
                gateway.processed(cursor);
                Job::Replayed(cursor)
            }
            Ok(Item::Disconnected { cause, retry_in }) => Job::Disconnected(cause, retry_in),
            Err(stopped) => return Some(stopped),
        };
        if !jobs.send(job).await {
            // The printer says why.
            return None;
        }
    }
    None
}

fn describe(end: End) -> Result<(), Failure> {
    match end {
        End::Done | End::Closed => Ok(()),
        End::Stdout(error) => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
        End::CursorFile(error) => Err(Failure::failed(error.to_string())),
        End::Panicked => Err(Failure::failed("printing ended unexpectedly")),
    }
}
