//! [`Gateway`]: one subscription that outlives its connections.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use super::backoff::Backoff;
use super::channel::{ConnectError, Connection, Connector};
use super::item::{Disconnect, Gap, Item, Stopped};
use super::pulse::Pulse;
use super::start::{self, Start};
use super::status::{error_info, is_too_large, retry_delay};
use super::violation::Violation;
use crate::config::{Address, Config};
use crate::contract::details::{DOMAIN, ErrorReason};
use crate::contract::gateway_id::{self, GatewayIdError};
use crate::contract::heartbeat::{self, HeartbeatError};
use crate::contract::metadata::{PUSH_HEARTBEAT, PUSH_REVOCATIONS};
use crate::contract::push::push_client::PushClient;
use crate::contract::push::push_event::Kind;
use crate::contract::push::{GatewaySubscribeRequest, PushEvent};
use crate::contract::revocations;
use crate::contract::start::Resume;
use crate::cursor::Cursor;
use crate::tls::ClientTls;

/// The longest wait that a server can ask for: one that is wrong must not send a gateway away
/// for good.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5 * 60);

/// A stream that is to show that it lives may be quiet for so many intervals.
const MISSED_HEARTBEATS: u32 = 2;

/// A subscription under one gateway id, kept up across connections.
///
/// ```no_run
/// use galaxy_push::client::{Gateway, Item, Stopped};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mut gateway = Gateway::builder("gateway-7", "127.0.0.1:50051".parse()?)
///     .cursor(None) // or what an earlier run persisted
///     .build()?;
/// let stopped: Stopped = loop {
///     match gateway.next().await {
///         Ok(Item::Gap(gap)) => println!("missed {:?} events: {}", gap.missed, gap.reason),
///         Ok(Item::Connected(start)) => println!("persist {}", start.cursor),
///         Ok(Item::Event { cursor, event }) => {
///             println!("{event:?}; then persist {cursor}");
///             gateway.processed(cursor);
///         }
///         Ok(Item::Disconnected { cause, retry_in }) => println!("{cause}, again in {retry_in:?}"),
///         Ok(_) => {}
///         Err(stopped) => break stopped,
///     }
/// };
/// # Err(stopped.into())
/// # }
/// ```
#[derive(Debug)]
pub struct Gateway {
    settings: Builder,
    /// Where a new subscription goes on: the last processed event, or the start
    /// of a stream of which none is processed yet.
    processed: Option<Cursor>,
    /// The last event that was handed out since the last fresh start: what can
    /// be processed ends here.
    handed_out: Option<Cursor>,
    state: State,
    /// What is to be told before anything else happens.
    told_next: VecDeque<Item>,
}

enum State {
    Waiting {
        until: Instant,
    },
    /// The attempt is kept between calls of `next`, so that a caller who often
    /// stops waiting does not start it over each time.
    Subscribing(Pin<Box<dyn Future<Output = Result<Subscribed, Failure>> + Send>>),
    Streaming(Box<Stream>),
    Stopped(Stopped),
}

/// An accepted subscription.
struct Subscribed {
    start: Start,
    missed: Option<u64>,
    requested: Option<Cursor>,
    stream: Stream,
}

struct Stream {
    events: Streaming<PushEvent>,
    /// Held because the connection may end with its last handle.
    _connection: PushClient<Connection>,
    since: Instant,
    last: Cursor,
    max_event_bytes: usize,
    /// Where the server sends heartbeats.
    pulse: Option<Pulse>,
    /// While it lasts.
    replay: Option<Replay>,
}

enum Failure {
    Retry(Disconnect),
    Stop(Stopped),
}

/// What to do when a newer subscription takes the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTakeover {
    /// Stop, with [`Stopped::TakenOver`].
    #[default]
    Stop,
    /// Wait and take the id back. Sensible only where the other is known to
    /// stop.
    Retry,
}

/// How a [`Gateway`] subscribes. Made by [`Gateway::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    id: String,
    connector: Connector,
    cursor: Option<Cursor>,
    backoff: Backoff,
    on_takeover: OnTakeover,
    response_timeout: Duration,
    max_event_bytes: usize,
    heartbeat: Option<Duration>,
    replay_revocations: bool,
}

impl Builder {
    /// Where to go on: the cursor that an earlier run persisted. Default
    /// `None`: begin with whatever is published next.
    #[must_use]
    pub fn cursor(mut self, cursor: Option<Cursor>) -> Self {
        self.cursor = cursor;
        self
    }

    /// How long to wait between attempts. Default [`Backoff::default`]. Where the server asks
    /// for a longer wait (`google.rpc.RetryInfo`), it gets it, up to five minutes.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// What to do when another subscription takes the id. Default
    /// [`OnTakeover::Stop`].
    #[must_use]
    pub fn on_takeover(mut self, on_takeover: OnTakeover) -> Self {
        self.on_takeover = on_takeover;
        self
    }

    /// How long one attempt may take, from connecting to the server's response.
    /// Default 10 seconds. The server responds at once, so only the network's delay
    /// matters. A stream may be silent for any time.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Has the server show that a quiet stream lives: after so long without an event it sends
    /// a heartbeat. From 1 second to 5 minutes. Default: none.
    ///
    /// A heartbeat is no item. It keeps proxies from cutting a quiet stream, and it comes all
    /// the way from the server, which a proxy's answer to an HTTP/2 PING does not: a stream
    /// that brings nothing, not even a part of an event, for two intervals is dropped
    /// ([`Disconnect::Silent`]), and subscribed anew. A server that has no heartbeats is not
    /// held to them.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// Whether a stream that cannot resume is to begin with the session invalidations that were
    /// missed: the newest of each user and session, as events, before anything else. Default: no.
    ///
    /// [`Start::revocations`] says whether they are all there. The gateway's position stays where
    /// it was until they are [processed](Gateway::processed), so that none is missed if the stream
    /// ends among them.
    #[must_use]
    pub fn replay_revocations(mut self, wanted: bool) -> Self {
        self.replay_revocations = wanted;
        self
    }

    /// How large one event may be, in bytes without its cursor: at least what the server
    /// is configured for (`--max-event-bytes`). Default
    /// [`Config::MAX_PORTABLE_EVENT_BYTES`], which is what a server takes unless it is
    /// told to allow large events. A larger event stops the gateway.
    #[must_use]
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Connects over TLS. Default: in plaintext. A Unix socket has no TLS: the two together
    /// are refused.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.connector = self.connector.tls(tls);
        self
    }

    /// Sends the bearer token in this file with the subscription. The file is read again
    /// with each attempt. Default: none. See [`Connector::token_file`].
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.connector = self.connector.token_file(path);
        self
    }

    /// Whether the token may be sent in plaintext to another machine. Default: no. See
    /// [`Connector::allow_plaintext_token`].
    #[must_use]
    pub fn allow_plaintext_token(mut self, allowed: bool) -> Self {
        self.connector = self.connector.allow_plaintext_token(allowed);
        self
    }

    /// How to connect, all at once: instead of the address, [`tls`](Self::tls) and
    /// [`token_file`](Self::token_file).
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// The gateway. It connects when it is first asked for an item.
    ///
    /// # Errors
    ///
    /// An id or a [`heartbeat`](Self::heartbeat) that no server accepts, an address that is
    /// none, or a file of [`tls`](Self::tls) or [`token_file`](Self::token_file) that cannot be
    /// used.
    pub fn build(self) -> Result<Gateway, BuildError> {
        gateway_id::check(&self.id)?;
        if let Some(interval) = self.heartbeat
            && !heartbeat::is_allowed(&interval)
        {
            return Err(BuildError::Heartbeat(HeartbeatError::Range));
        }
        self.connector.check()?;
        Ok(Gateway {
            processed: self.cursor,
            handed_out: self.cursor,
            state: State::Waiting {
                until: Instant::now(),
            },
            told_next: VecDeque::new(),
            settings: self,
        })
    }
}

/// Why there is no gateway with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No server accepts the id.
    #[error(transparent)]
    Id(#[from] GatewayIdError),
    /// No server accepts the heartbeat's interval.
    #[error("the interval of heartbeats is {0}")]
    Heartbeat(HeartbeatError),
    /// It could not connect with these settings and files.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Gateway {
    /// A gateway that will subscribe as `id` (1 to 256 bytes, no control
    /// characters) at `address`. One id, one stream: a second subscription with
    /// the same id ends the first.
    #[must_use]
    pub fn builder(id: impl Into<String>, address: Address) -> Builder {
        Builder {
            id: id.into(),
            connector: Connector::new(address),
            cursor: None,
            backoff: Backoff::default(),
            on_takeover: OnTakeover::default(),
            response_timeout: Duration::from_secs(10),
            max_event_bytes: Config::MAX_PORTABLE_EVENT_BYTES,
            heartbeat: None,
            replay_revocations: false,
        }
    }

    /// Where the next subscription would go on: the last processed event, or
    /// the start of a stream of which none is processed yet.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.processed
    }

    /// This event and all before it are processed: never ask for them again.
    ///
    /// What is behind the last processed event, was not handed out, or belongs
    /// to a stream that a fresh start has replaced changes nothing.
    pub fn processed(&mut self, cursor: Cursor) {
        let same_stream = |other: &Cursor| other.epoch() == cursor.epoch();
        let handed_out = self
            .handed_out
            .filter(same_stream)
            .is_some_and(|last| cursor <= last);
        // Before a replay is processed, the position may be one of another stream, or none.
        let forward = self
            .processed
            .filter(same_stream)
            .is_none_or(|last| cursor > last);
        if handed_out && forward {
            self.processed = Some(cursor);
        }
    }

    /// Waits for the next thing to happen.
    ///
    /// # Errors
    ///
    /// [`Stopped`], when there is no sense in trying again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost when the future is dropped, and an attempt
    /// to connect goes on in the next call.
    pub async fn next(&mut self) -> Result<Item, Stopped> {
        loop {
            if let Some(item) = self.told_next.pop_front() {
                return Ok(item);
            }
            match &mut self.state {
                State::Waiting { until } => {
                    tokio::time::sleep_until(*until).await;
                    self.state = State::Subscribing(Box::pin(subscribe(
                        self.settings.clone(),
                        self.processed,
                    )));
                }
                State::Subscribing(attempt) => match attempt.as_mut().await {
                    Ok(subscribed) => self.subscribed(subscribed),
                    Err(failure) => self.failed(failure),
                },
                State::Streaming(stream) => match stream.next().await {
                    Ok((cursor, event)) => {
                        // Repeats after a reconnect are below it.
                        self.handed_out = self.handed_out.max(Some(cursor));
                        return Ok(match event {
                            Some(event) => Item::Event { cursor, event },
                            None => Item::Replayed { cursor },
                        });
                    }
                    Err(cause) => {
                        self.settings.backoff.stream_lasted(stream.since.elapsed());
                        self.failed(cause);
                    }
                },
                State::Stopped(stopped) => return Err(stopped.clone()),
            }
        }
    }

    fn subscribed(&mut self, subscribed: Subscribed) {
        let Subscribed {
            start,
            missed,
            requested,
            stream,
        } = subscribed;
        if start.resume == Resume::Fresh {
            if requested.is_some() {
                self.told_next.push_back(Item::Gap(Gap {
                    missed,
                    reason: start.reason.clone(),
                }));
            }
            if start.revocations.is_some() {
                // Who comes back before these are processed is to be told them again.
                self.handed_out = None;
            } else {
                // From here on the old position is lost, and a reconnect before the
                // first event must not begin at some later head.
                self.processed = Some(start.cursor);
                self.handed_out = Some(start.cursor);
            }
        }
        self.told_next.push_back(Item::Connected(start));
        self.state = State::Streaming(Box::new(stream));
    }

    fn failed(&mut self, failure: Failure) {
        let cause = match failure {
            Failure::Stop(Stopped::TakenOver(status))
                if self.settings.on_takeover == OnTakeover::Retry =>
            {
                Disconnect::TakenOver(status)
            }
            Failure::Stop(stopped) => {
                self.state = State::Stopped(stopped);
                return;
            }
            Failure::Retry(cause) => cause,
        };
        let asked = cause.status().and_then(retry_delay).unwrap_or_default();
        let wait = self.settings.backoff.wait();
        let retry_in = wait.max(asked.min(MAX_RETRY_DELAY));
        self.state = State::Waiting {
            until: Instant::now() + retry_in,
        };
        self.told_next
            .push_back(Item::Disconnected { cause, retry_in });
    }
}

impl Stream {
    /// The next event, checked to be the next one; `None` where a replay has ended.
    async fn next(&mut self) -> Result<(Cursor, Option<PushEvent>), Failure> {
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
            if let Some(event) = self.check(message)? {
                return Ok(event);
            }
        }
    }

    /// The event that this is, if it is one and the next.
    fn check(
        &mut self,
        message: Result<Option<PushEvent>, Status>,
    ) -> Result<Option<(Cursor, Option<PushEvent>)>, Failure> {
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
        let Ok(cursor) = Cursor::parse(event.cursor.as_bytes()) else {
            let text = event.cursor;
            return Err(violation(Violation::Cursor { after, text }));
        };
        if let Some(replay) = &mut self.replay {
            let is_end = replay.left == 0;
            replay.check(cursor, &event, after).map_err(violation)?;
            if is_end {
                self.replay = None;
            }
            return Ok(Some((cursor, Some(event).filter(|_| !is_end))));
        }
        if self.pulse.is_some() && event.kind.is_none() && cursor == after {
            // A heartbeat.
            return Ok(None);
        }
        if cursor.epoch() != after.epoch() || Some(cursor.seq()) != after.seq().next() {
            return Err(violation(Violation::Order { after, cursor }));
        }
        self.last = cursor;
        Ok(Some((cursor, Some(event))))
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
    fn check(&mut self, cursor: Cursor, event: &PushEvent, start: Cursor) -> Result<(), Violation> {
        let broken = |what| Err(Violation::Replay { what });
        if self.left == 0 {
            return match &event.kind {
                None if cursor == start => Ok(()),
                None => broken("its end has another cursor than the stream's start"),
                Some(_) => broken("there are more than so many"),
            };
        }
        let same_stream = |other: &Cursor| other.epoch() == cursor.epoch();
        match event.kind {
            Some(Kind::SessionInvalidation(_)) => {}
            Some(Kind::ClientEvent(_)) => return broken("a client event is among them"),
            None => return broken("there are fewer than so many"),
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
async fn subscribe(settings: Builder, requested: Option<Cursor>) -> Result<Subscribed, Failure> {
    let limit = settings.response_timeout;
    let attempt = async {
        let channel = settings.connector.connect().await.map_err(|error| {
            // What does not change was checked when the gateway was built.
            Failure::Retry(Disconnect::Unreachable(error))
        })?;
        let max_message_bytes = settings.max_event_bytes.saturating_add(Cursor::FIELD_BYTES);
        let mut client = PushClient::new(channel).max_decoding_message_size(max_message_bytes);
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
        let pulse = settings
            .heartbeat
            .map(|interval| Pulse::new(interval * MISSED_HEARTBEATS));
        if let Some(pulse) = pulse.clone() {
            request.extensions_mut().insert(pulse);
        }
        let response = client.subscribe_push(request).await?;
        let is_replay = settings.replay_revocations;
        let (start, missed) = Start::read(response.metadata(), requested, is_replay)
            .map_err(|violation| Failure::Stop(violation.into()))?;
        let sends_heartbeats = response.metadata().contains_key(PUSH_HEARTBEAT);
        Ok(Subscribed {
            missed,
            requested,
            stream: Stream {
                events: response.into_inner(),
                _connection: client,
                since: Instant::now(),
                last: start.cursor,
                max_event_bytes: settings.max_event_bytes,
                pulse: pulse.filter(|_| sends_heartbeats),
                replay: start.revocations.map(|announced| Replay {
                    left: announced.count,
                    after: requested,
                }),
            },
            start,
        })
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Retry(Disconnect::Timeout(limit))),
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Waiting { until } => f.debug_struct("Waiting").field("until", until).finish(),
            State::Subscribing(_) => f.write_str("Subscribing"),
            State::Streaming(stream) => f
                .debug_struct("Streaming")
                .field("last", &stream.last)
                .finish(),
            State::Stopped(stopped) => f.debug_tuple("Stopped").field(stopped).finish(),
        }
    }
}
