//! `galaxy-push publish`: events into the ring.

mod enforcement;
mod lines;
mod pipeline;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use tokio::sync::mpsc;

use super::json;
use crate::client::{self, Connection, Connector};
use crate::command::{ConnectArgs, Failure, connect_failure, stderr, value};
use crate::config::{Address, Config};
use crate::contract::publisher::PublishRequest;
use crate::contract::publisher::publisher_client::PublisherClient;
use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};
use crate::cursor::Cursor;
use lines::{Batching, End};
use pipeline::Report;

/// Publish events: one from flags, or many from lines of JSON.
///
/// The server's response gives each event its cursor, which is the event's position in the
/// stream. Each cursor is printed on its own line, in the order of the events. A printed
/// cursor means that the event is in the ring.
///
/// With FILE, or - for standard input, every line is one event in the JSON that
/// `tail` prints (JSON Lines, in UTF-8); blank lines are skipped. `payload` is any JSON
/// value, and its bytes are sent unchanged; other payloads go into `payload_base64`.
/// Fields that are absent or null are empty. A `cursor` is ignored, so that the output of
/// `tail` can be published again. An unknown field is refused, since it would be lost.
///
/// Protobuf's JSON names (`clientEvent`, `userId`) are read as well. Only `payload` differs
/// from protobuf's JSON, where it is base64: that is `payload_base64` here. Both alphabets
/// of base64 are read, with and without padding.
///
/// Events are sent in atomic batches of up to --batch. A batch holds the events that are
/// ready; no event waits for a batch to fill. Up to --in-flight batches may wait for their response.
///
/// A bad line stops publishing: the lines before it are published, the bad line and the
/// lines after it are not. Standard error names the line, the column and the field.
///
/// If the connection breaks, standard error names the last line that was accepted, and
/// the lines in doubt. Events in doubt may have been accepted, with the response lost.
/// Publishing them again can repeat them; devices drop repeats by their `event_id`.
///
/// If standard output is closed early, publishing continues without printing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push publish --user-id u1 --kind turn.ready --payload '{\"game\":1}'
  galaxy-push publish --user-id u1 --session-id s1 --kind avatar --payload-file face.png
  galaxy-push publish --invalidate --user-id u2 --reason logout
  galaxy-push publish --invalidate --user-id u3 --reason ban --wait-enforced 90s
  galaxy-push publish examples/events.jsonl
  publisher | galaxy-push publish - --connect unix:/run/galaxy-push.sock
  publisher | galaxy-push publish - --connect push.example:50052 --tls-ca ca.pem \\
   --tls-cert producer.pem --tls-key producer.key

A line of FILE is one of:
  {\"client_event\":{\"user_id\":\"u1\",\"device_session_id\":\"s1\",\"kind\":\"turn.ready\",
   \"payload\":{\"game\":1},\"event_id\":\"e1\",\"request_id\":\"r1\",\"trace_id\":\"t1\"}}
  {\"session_invalidation\":{\"user_id\":\"u2\",\"device_session_id\":\"\",\"reason\":\"logout\"}}
(each on a single line; only user_id and kind are required)")]
pub(super) struct Args {
    /// The server's address for publishers: HOST:PORT or unix:PATH.
    #[arg(long, default_value_t = Config::default().publish_listen)]
    connect: Address,

    /// A file of events, one JSON object a line, or - for standard input.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,

    /// With FILE: the most events in one request (1 to 4096). Larger requests cost less
    /// for each event; a request is refused as a whole.
    #[arg(long, default_value = "256", value_parser = |text: &str| value::within(text, 1..=4096))]
    batch: u64,

    /// With FILE: the most requests in flight (1 to 1024).
    #[arg(long, default_value = "32", value_parser = |text: &str| value::within(text, 1..=1024))]
    in_flight: u64,

    /// Wait, for so long at most (up to 10 minutes), until no gateway serves a session that an invalidation among the
    /// events revokes. The exit code is 1 if that is not certain by then, with the gateways that may
    /// serve on.
    #[arg(long, value_name = "DURATION", value_parser = enforcement::timeout)]
    wait_enforced: Option<Duration>,

    #[command(flatten)]
    event: EventArgs,

    #[command(flatten)]
    how: ConnectArgs,
}

/// One event, from flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "One event")]
struct EventArgs {
    /// The user who receives the event.
    #[arg(
        long,
        value_name = "ID",
        conflicts_with = "input",
        value_parser = NonEmptyStringValueParser::new()
    )]
    user_id: Option<String>,

    /// The only session that receives the event. Default: all sessions of the user.
    #[arg(long, value_name = "ID", conflicts_with = "input")]
    session_id: Option<String>,

    /// The event's kind, from the notification catalogue, such as turn.ready.
    #[arg(
        long,
        value_name = "KIND",
        conflicts_with = "input",
        value_parser = NonEmptyStringValueParser::new()
    )]
    kind: Option<String>,

    /// The payload, sent unchanged. Default: empty.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["input", "payload_file"])]
    payload: Option<String>,

    /// A file whose bytes are the payload.
    #[arg(long, conflicts_with = "input")]
    payload_file: Option<PathBuf>,

    /// The event's stable id, by which devices recognise a repeat. Default: a random id.
    #[arg(long, value_name = "ID", conflicts_with = "input")]
    event_id: Option<String>,

    /// The id of the request that the event responds to. Default: none.
    #[arg(long, value_name = "ID", conflicts_with = "input")]
    request_id: Option<String>,

    /// The id of the event's trace. Default: none.
    #[arg(long, value_name = "ID", conflicts_with = "input")]
    trace_id: Option<String>,

    /// Revoke the session of --session-id, or all sessions of --user-id, instead of
    /// sending an event to a client.
    #[arg(
        long,
        conflicts_with_all = ["input", "kind", "payload", "payload_file", "event_id", "request_id", "trace_id"]
    )]
    invalidate: bool,

    /// With --invalidate: the reason, a code for the logs, such as logout or ban.
    #[arg(long, value_name = "CODE", conflicts_with = "input")]
    reason: Option<String>,
}

/// The largest `--payload-file`: no server takes more.
const MAX_PAYLOAD_BYTES: u64 = Config::MAX_EVENT_BYTES as u64;
/// Enough for the lines of several batches.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// How many batches may be read ahead of the connection.
const BATCHES_AHEAD: usize = 4;

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the worker threads: {error}")))?;
    let outcome = match args.input {
        None => {
            let event = args.event.into_event()?;
            let connector = args.how.connector(&args.connect)?;
            runtime.block_on(publish_one(&connector, event, args.wait_enforced))
        }
        Some(path) => {
            let connector = args.how.connector(&args.connect)?;
            let input = Input::open(path)?;
            let batching = Batching {
                max_events: args.batch as usize,
                in_flight: args.in_flight as usize,
            };
            runtime.block_on(publish_lines(
                &connector,
                input,
                batching,
                args.wait_enforced,
            ))
        }
    };
    // The thread that reads standard input may block there without end.
    runtime.shutdown_background();
    outcome
}

async fn connect(connector: &Connector) -> Result<PublisherClient<Connection>, Failure> {
    match connector.connect().await {
        Ok(connection) => Ok(PublisherClient::new(connection)),
        Err(error) => Err(connect_failure(&error)),
    }
}

async fn publish_one(
    connector: &Connector,
    event: PushEvent,
    wait_enforced: Option<Duration>,
) -> Result<(), Failure> {
    let request = PublishRequest {
        events: vec![event],
    };
    let mut client = connect(connector).await?;
    let response = client.publish(request).await.map_err(|status| {
        Failure::failed(format!(
            "the event was not accepted: {}",
            client::status_line(&status)
        ))
    })?;
    let mut cursors = Cursors::default();
    let cursor = response.into_inner().first_cursor;
    cursors.print_text(&cursor);
    cursors.end()?;
    match wait_enforced {
        Some(timeout) => enforcement::wait(client, cursor, timeout).await,
        None => Ok(()),
    }
}

async fn publish_lines(
    connector: &Connector,
    input: Input,
    batching: Batching,
    wait_enforced: Option<Duration>,
) -> Result<(), Failure> {
    let client = connect(connector).await?;
    let waiting = client.clone();
    let mut newest = None;
    let name = input.name;
    let (batches, to_send) = mpsc::channel(BATCHES_AHEAD);
    let reader = std::thread::spawn(move || lines::read(input.lines, &batching, &batches));

    let mut cursors = Cursors::default();
    let report = pipeline::run(client, to_send, batching.in_flight, |first, last| {
        newest = newest.max(Some(last));
        cursors.print(first, last);
    })
    .await;
    if report.broken.is_some() {
        return Err(Failure::failed(report.describe(&name)));
    }

    // The pipeline ended because the reader has: it does not block.
    let end = reader
        .join()
        .map_err(|_| Failure::failed(format!("{name}: reading it failed")))?;
    match end {
        End::Complete => {
            if report.accepted == 0 {
                stderr::say(&format!("{name}: it has no event"));
            }
            cursors.end()?;
            match wait_enforced.zip(newest) {
                Some((timeout, newest)) => {
                    enforcement::wait(waiting, newest.to_string(), timeout).await
                }
                None => Ok(()),
            }
        }
        End::Bad { line, error } => Err(Failure::failed(format!(
            "{name}, line {line}{error}; {}",
            accepted_before(&report)
        ))),
        End::Unreadable { line, error } => Err(Failure::failed(format!(
            "{name}: cannot read it after line {line}: {error}; {}",
            accepted_before(&report)
        ))),
    }
}

fn accepted_before(report: &Report) -> String {
    match report.accepted {
        0 => "no event was accepted before it".to_owned(),
        1 => "the 1 event before it was accepted".to_owned(),
        events => format!("the {events} events before it were accepted"),
    }
}

/// The lines, and what to call them.
struct Input {
    name: String,
    lines: BufReader<Box<dyn Read + Send>>,
}

impl Input {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let (name, lines): (String, Box<dyn Read + Send>) = if path.as_os_str() == "-" {
            ("standard input".to_owned(), Box::new(io::stdin()))
        } else {
            (path.display().to_string(), Box::new(open(&path)?))
        };
        Ok(Input {
            name,
            lines: BufReader::with_capacity(READ_BUFFER_BYTES, lines),
        })
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path)
        .map_err(|error| Failure::failed(format!("cannot open {}: {error}", path.display())))
}

impl EventArgs {
    fn into_event(self) -> Result<PushEvent, Failure> {
        let Some(user_id) = self.user_id else {
            return Err(Failure::usage(
                "say what to publish: FILE, - for standard input, or one event from --user-id and --kind",
            ));
        };
        if self.reason.is_some() && !self.invalidate {
            return Err(Failure::usage("--reason needs --invalidate"));
        }
        let device_session_id = self.session_id.unwrap_or_default();
        let kind = if self.invalidate {
            Kind::SessionInvalidation(SessionInvalidation {
                user_id,
                device_session_id,
                reason: self.reason.unwrap_or_default(),
            })
        } else {
            let payload = match (self.payload, self.payload_file) {
                (Some(text), _) => text.into_bytes(),
                (None, Some(path)) => read_payload(&path)?,
                (None, None) => Vec::new(),
            };
            let Some(kind) = self.kind else {
                return Err(Failure::usage(
                    "--kind is missing (or --invalidate, to revoke sessions)",
                ));
            };
            Kind::ClientEvent(ClientEvent {
                user_id,
                device_session_id,
                kind,
                payload: payload.into(),
                event_id: self
                    .event_id
                    .unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>())),
                request_id: self.request_id.unwrap_or_default(),
                trace_id: self.trace_id.unwrap_or_default(),
            })
        };
        json::check(&kind).map_err(Failure::usage)?;
        Ok(PushEvent {
            kind: Some(kind),
            cursor: String::new(),
        })
    }
}

fn read_payload(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    open(path)?
        .take(MAX_PAYLOAD_BYTES + 1)
        .read_to_end(&mut payload)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    if payload.len() as u64 > MAX_PAYLOAD_BYTES {
        return Err(Failure::failed(format!(
            "{} is larger than {MAX_PAYLOAD_BYTES} bytes, which no server takes",
            path.display()
        )));
    }
    Ok(payload)
}

/// Prints cursors. What cannot be printed does not stop the publishing.
struct Cursors {
    stdout: BufWriter<io::Stdout>,
    error: Option<io::Error>,
}

impl Default for Cursors {
    fn default() -> Self {
        Cursors {
            stdout: BufWriter::new(io::stdout()),
            error: None,
        }
    }
}

impl Cursors {
    /// All from `first` to `last`.
    fn print(&mut self, first: Cursor, last: Cursor) {
        for seq in first.seq().number()..=last.seq().number() {
            let cursor = Cursor::new(first.epoch(), crate::cursor::Seq::new(seq));
            self.write(cursor.to_text().as_str());
        }
        self.flush();
    }

    fn print_text(&mut self, cursor: &str) {
        self.write(cursor);
        self.flush();
    }

    fn write(&mut self, cursor: &str) {
        if self.error.is_none() {
            self.error = writeln!(self.stdout, "{cursor}").err();
        }
    }

    fn flush(&mut self) {
        if self.error.is_none() {
            self.error = self.stdout.flush().err();
        }
    }

    /// A reader who closed standard output has read enough; any other error is
    /// told.
    fn end(self) -> Result<(), Failure> {
        match self.error {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed(format!(
                    "all events were accepted, but their cursors could not be written to standard output: {error}"
                )))
            }
            _ => Ok(()),
        }
    }
}
