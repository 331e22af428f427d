//! One stream: subscribed, and checked event by event.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use super::builder::Builder;
use super::channel::{Connection, Connector};
use super::codec::Encoded;
use super::item::{Disconnect, Stopped};
use super::pulse::Pulse;
use super::start::{self, Start};
use super::status::{error_info, is_too_large, retry_delay};
use super::violation::Violation;
use crate::contract::details::{DOMAIN, ErrorReason};
use crate::contract::heartbeat;
use crate::contract::metadata::{PUSH_HEARTBEAT, PUSH_INSTANCE, PUSH_REVOCATIONS};
use crate::contract::path;
use crate::contract::push::GatewaySubscribeRequest;
use crate::contract::revocations;
use crate::cursor::Cursor;
use crate::event::{Received, ReceivedKind};

/// A stream that is to show that it lives may be quiet for so many intervals.
const MISSED_HEARTBEATS: u32 = 2;

/// An accepted subscription.
pub(super) struct Subscribed {
    pub(super) start: Start,
    pub(super) missed: Option<u64>,
    pub(super) requested: Option<Cursor>,
    pub(super) stream: Box<Stream>,
}

pub(super) struct Stream {
    events: Streaming<Bytes>,
    /// Held also because the connection may end with its last handle.
    connection: Connection,
    since: Instant,
    last: Cursor,
    max_event_bytes: usize,
    /// Where the server sends heartbeats.
    pulse: Option<Pulse>,
    /// While it lasts.
    replay: Option<Replay>,
    /// What comes up to here was had from another stream.
    skip_to: Option<Cursor>,
}

/// What a stream has brought.
#[derive(Debug)]
pub(super) enum Came {
    /// An event, which is the next one: a `PushEvent`, encoded.
    Event(Cursor, Bytes),
    /// The replay has ended.
    Replayed(Cursor),
    /// Nothing but a sign of life.
    Heartbeat,
}

/// Why there is no stream, or no more of it.
#[derive(Debug)]
pub(super) enum Failure {
    Retry(Disconnect),
    Stop(Stopped),
}

impl Failure {
    fn status(&self) -> Option<&Status> {
        match self {
            Failure::Retry(cause) => cause.status(),
            Failure::Stop(Stopped::TakenOver(status) | Stopped::Refused(status)) => Some(status),
            Failure::Stop(_) => None,
        }
    }

    /// How long the server asks to be left alone.
    pub(super) fn retry_delay(&self) -> Option<Duration> {
        self.status().and_then(retry_delay)
    }

    /// Who has the id now, if that is why the stream has ended.
    pub(super) fn taken_over_by(&self) -> Option<TakenBy> {
        let Failure::Stop(Stopped::TakenOver(status)) = self else {
            return None;
        };
        let info = error_info(status).filter(|info| info.domain == DOMAIN);
        let by = info.map(|info| info.metadata).unwrap_or_default();
        Some(match by.get("instance") {
            None if !by.contains_key("peer") => TakenBy::Unknown,
            instance => TakenBy::Instance(instance.cloned()),
        })
    }

    /// The same, of a takeover that is worth another attempt.
    pub(super) fn again(self) -> Self {
        match self {
            Failure::Stop(Stopped::TakenOver(status)) => {
                Failure::Retry(Disconnect::TakenOver(status))
            }
            other => other,
        }
    }

    /// Of an attempt: whether the server may have accepted it all the same.
    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Failure::Retry(Disconnect::Unreachable(_)) => false,
            // It has refused, and says why.
            _ => self.status().and_then(error_info).is_none(),
        }
    }
}

/// Who has taken an id over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TakenBy {
    /// A process that calls itself so, if it does.
    Instance(Option<String>),
    /// The server does not say, or a proxy has left it out.
    Unknown,
}

impl TakenBy {
    /// Whether it may be the process that calls itself so.
    pub(super) fn may_be(&self, instance: &Option<String>) -> bool {
        match self {
            TakenBy::Instance(by) => by == instance,
            TakenBy::Unknown => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Retry(cause) => cause.fmt(f),
            Failure::Stop(stopped) => stopped.fmt(f),
        }
    }
}

impl Stream {
    /// The last event that it has brought, or its start.
    pub(super) fn last(&self) -> Cursor {
        self.last
    }

    /// The last event that it has brought, or that was had from the one before it.
    pub(super) fn reached(&self) -> Cursor {
        let same_stream = |other: &Cursor| other.epoch() == self.last.epoch();
        let skipped = self.skip_to.filter(same_stream);
        skipped.map_or(self.last, |skipped| skipped.max(self.last))
    }

    /// What carries it, for other calls.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether it is in the middle of a replay.
    pub(super) fn is_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// Leaves out what comes up to here.
    pub(super) fn skip_to(&mut self, last: Cursor) {
        self.skip_to = Some(last);
    }

    /// What comes next, checked to be that.
    pub(super) async fn next(&mut self) -> Result<Came, Failure> {
        loop {
            let message = match &self.pulse {
                None => self.events.message().await,
                Some(pulse) => {
                    let mut message = pin!(self.events.message());
                    loop {
                        if let Ok(message) = timeout_at(pulse.deadline(), message.as_mut()).await {
                            break message;
                        }
                        if let Some(silence) = pulse.silence() {
                            return Err(Failure::Retry(Disconnect::Silent(silence)));
                        }
                    }
                }
            };
            if let Some(came) = self.check(message)? {
                return Ok(came);
            }
        }
    }

    /// What this is; nothing, if it was had from another stream.
    fn check(&mut self, message: Result<Option<Bytes>, Status>) -> Result<Option<Came>, Failure> {
        let violation = |violation| Failure::Retry(Disconnect::Violation(violation));
        let event = match message {
            Ok(Some(event)) => event,
            Ok(None) => return Err(Failure::Retry(Disconnect::Ended)),
            Err(status) if is_too_large(&status) => {
                return Err(Failure::Stop(Stopped::EventTooLarge {
                    after: self.last,
                    limit: self.max_event_bytes,
                }));
            }
            Err(status) => return Err(status.into()),
        };
        let after = self.last;
        let received = Received::parse(&event).map_err(|problem| {
            let problem = problem.to_string();
            violation(Violation::Event { after, problem })
        })?;
        let Ok(cursor) = Cursor::parse(received.cursor) else {
            let text = String::from_utf8_lossy(received.cursor).into_owned();
            return Err(violation(Violation::Cursor { after, text }));
        };
        if let Some(replay) = &mut self.replay {
            let is_end = replay.left == 0;
            replay
                .check(cursor, &received.kind, after)
                .map_err(violation)?;
            if is_end {
                self.replay = None;
                return Ok(Some(Came::Replayed(cursor)));
            }
            return Ok(Some(Came::Event(cursor, event)));
        }
        let is_position = received.kind == ReceivedKind::Position;
        if self.pulse.is_some() && is_position && cursor == after {
            return Ok(Some(Came::Heartbeat));
        }
        if cursor.epoch() != after.epoch() || Some(cursor.seq()) != after.seq().next() {
            return Err(violation(Violation::Order { after, cursor }));
        }
        self.last = cursor;
        if self.skip_to.is_some_and(|last| cursor <= last) {
            return Ok(None);
        }
        Ok(Some(Came::Event(cursor, event)))
    }
}

/// What comes before a stream's start.
struct Replay {
    left: u64,
    /// The last of them, or where the gateway stopped.
    after: Option<Cursor>,
}

impl Replay {
    /// Whether this is the next one; when nothing is left, whether it is the mark of the end, at
    /// the stream's start.
    fn check(
        &mut self,
        cursor: Cursor,
        kind: &ReceivedKind<'_>,
        start: Cursor,
    ) -> Result<(), Violation> {
        let broken = |what| Err(Violation::Replay { what });
        if self.left == 0 {
            return match kind {
                ReceivedKind::Position if cursor == start => Ok(()),
                ReceivedKind::Position => {
                    broken("its end has another cursor than the stream's start")
                }
                _ => broken("there are more than so many"),
            };
        }
        let same_stream = |other: &Cursor| other.epoch() == cursor.epoch();
        match kind {
            ReceivedKind::SessionInvalidation(_) => {}
            ReceivedKind::ClientEvent(_) => return broken("a client event is among them"),
            ReceivedKind::Position => return broken("there are fewer than so many"),
        }
        if !same_stream(&start) || cursor > start {
            return broken("one of them is not from before the stream's start");
        }
        if self
            .after
            .filter(same_stream)
            .is_some_and(|after| cursor <= after)
        {
            return broken("they are not in order");
        }
        self.left -= 1;
        self.after = Some(cursor);
        Ok(())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let info = error_info(&status).filter(|info| info.domain == DOMAIN);
        let status = Box::new(status);
        match status.code() {
            // Ended by an operator, say: no other gateway has the id.
            Code::Aborted if info.as_ref().is_some_and(|i| !i.is(ErrorReason::TakenOver)) => {
                Failure::Retry(Disconnect::Status(status))
            }
            Code::Aborted => Failure::Stop(Stopped::TakenOver(status)),
            Code::InvalidArgument | Code::Unimplemented => Failure::Stop(Stopped::Refused(status)),
            Code::OutOfRange => Failure::Retry(Disconnect::Lagged {
                // A proxy may keep the one and drop the other.
                missed: start::missed(status.metadata())
                    .or_else(|| info?.metadata.get("missed")?.parse().ok()),
                status,
            }),
            _ => Failure::Retry(Disconnect::Status(status)),
        }
    }
}

/// One attempt, from connecting to the server's response.
pub(super) async fn subscribe(
    settings: Builder,
    connector: Connector,
    requested: Option<Cursor>,
) -> Result<Subscribed, Failure> {
    let limit = settings.response_timeout;
    let attempt = async {
        let channel = connector.connect().await.map_err(|error| {
            // What does not change was checked when the gateway was built.
            Failure::Retry(Disconnect::Unreachable(error))
        })?;
        let max_message_bytes = settings.max_event_bytes.saturating_add(Cursor::FIELD_BYTES);
        let connection = channel.clone();
        let mut client = Grpc::new(channel).max_decoding_message_size(max_message_bytes);
        let request = GatewaySubscribeRequest {
            gateway_client_id: settings.id.clone(),
            cursor: requested.map_or_else(String::new, |cursor| cursor.to_string()),
        };
        let mut request = Request::new(request);
        if let Some(interval) = settings.heartbeat
            && let Ok(value) = MetadataValue::try_from(heartbeat::value(interval))
        {
            request.metadata_mut().insert(PUSH_HEARTBEAT, value);
        }
        if settings.replay_revocations {
            let value = MetadataValue::from_static(revocations::REPLAY);
            request.metadata_mut().insert(PUSH_REVOCATIONS, value);
        }
        if let Some(text) = &settings.instance
            && let Ok(value) = MetadataValue::try_from(text)
        {
            request.metadata_mut().insert(PUSH_INSTANCE, value);
        }
        let pulse = settings
            .heartbeat
            .map(|interval| Pulse::new(interval * MISSED_HEARTBEATS));
        if let Some(pulse) = pulse.clone() {
            request.extensions_mut().insert(pulse);
        }
        client
            .ready()
            .await
            .map_err(|error: tonic::codegen::StdError| {
                Status::unknown(format!("the connection is not ready: {error}"))
            })?;
        let path = PathAndQuery::from_static(path::SUBSCRIBE_PUSH);
        let response = client.server_streaming(request, path, Encoded).await?;
        let is_replay = settings.replay_revocations;
        let (start, missed) = Start::read(response.metadata(), requested, is_replay)
            .map_err(|violation| Failure::Stop(violation.into()))?;
        let sends_heartbeats = start.sends_heartbeats;
        Ok(Subscribed {
            missed,
            requested,
            stream: Box::new(Stream {
                events: response.into_inner(),
                connection,
                since: Instant::now(),
                last: start.cursor,
                max_event_bytes: settings.max_event_bytes,
                pulse: pulse.filter(|_| sends_heartbeats),
                replay: start.revocations.map(|announced| Replay {
                    left: announced.count,
                    // A place that this server has not come to is none.
                    after: requested.filter(|place| *place <= start.cursor),
                }),
                skip_to: None,
            }),
            start,
        })
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Retry(Disconnect::Timeout(limit))),
    }
}
