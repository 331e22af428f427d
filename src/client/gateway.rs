//! [`Gateway`]: one subscription that outlives its connections.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::builder::{Builder, OnTakeover};
use super::channel::Connection;
use super::item::{Disconnect, Gap, Item, Stopped};
use super::start::Start;
use super::stats::Stats;
use super::status::retry_delay;
use super::stream::{Came, Failure, Stream, Subscribed, subscribe};
use super::targets::Targets;
use super::violation::Violation;
use crate::config::Address;
use crate::contract::gateway::ReportRequest;
use crate::contract::gateway::gateway_client::GatewayClient;
use crate::contract::push::PushEvent;
use crate::contract::start::Resume;
use crate::cursor::Cursor;

/// The longest wait that a server can ask for: one that is wrong must not send a gateway away
/// for good.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5 * 60);
/// When a renewal is tried again that has failed, or would come in the middle of a replay.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// So long after an attempt to renew that has failed, the server may still come to it.
const LATE_RENEWAL: Duration = Duration::from_secs(60);

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
///         Ok(Item::Replayed { cursor }) => gateway.processed(cursor), // and persist it
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
    targets: Targets,
    /// Where a new subscription goes on: the last processed event, or the start
    /// of a stream of which none is processed yet.
    processed: Option<Cursor>,
    /// The last event that was handed out since the last fresh start: what can
    /// be processed ends here.
    handed_out: Option<Cursor>,
    /// Where a stream started whose missed invalidations are not all processed. The position is
    /// still the one before; a later fresh start is a gap from here all the same.
    unfinished: Option<Cursor>,
    /// Whether the position has moved since the last subscription began.
    has_progressed: bool,
    /// An attempt to renew a stream has failed, and may still take the id, until then.
    may_be_ours_until: Option<Instant>,
    state: State,
    /// Of a gateway that has stopped.
    last_connection: Option<Connection>,
    /// What is to be told before anything else happens.
    told_next: VecDeque<Item>,
    stats: Stats,
}

/// What happens, with events as they came.
#[derive(Debug)]
pub(crate) enum Encoded {
    /// Not an event.
    Item(Item),
    Event {
        cursor: Cursor,
        /// The `PushEvent`.
        event: Bytes,
    },
    Heartbeat,
}

/// An attempt to subscribe. It is kept between calls of `next`, so that a caller who often stops
/// waiting does not start it over each time.
type Attempt = Pin<Box<dyn Future<Output = Result<Subscribed, Failure>> + Send>>;

enum State {
    Waiting {
        until: Instant,
    },
    Subscribing(Attempt),
    Streaming(Box<Stream>, Renewal),
    /// The stream has ended before the one that was to take its place had begun. This was its
    /// last event.
    Renewing(Attempt, Cursor),
    Stopped(Stopped),
}

/// When another stream takes the place of one that goes on.
enum Renewal {
    Never,
    At(Instant),
    UnderWay(Attempt),
}

/// What happened while a stream went on.
enum Happened {
    Came(Result<Came, Failure>),
    RenewalDue,
    Renewed(Result<Subscribed, Failure>),
}

impl Gateway {
    /// A gateway that will subscribe as `id` (1 to 256 bytes, no control
    /// characters) at `address`. One id, one stream: a second subscription with
    /// the same id ends the first.
    #[must_use]
    pub fn builder(id: impl Into<String>, address: Address) -> Builder {
        Builder::new(id.into(), address)
    }

    pub(super) fn new(settings: Builder) -> Self {
        Gateway {
            targets: Targets::new(settings.connectors()),
            processed: settings.cursor,
            handed_out: settings.cursor,
            unfinished: None,
            has_progressed: false,
            may_be_ours_until: None,
            state: State::Waiting {
                until: Instant::now(),
            },
            last_connection: None,
            told_next: VecDeque::new(),
            stats: Stats::default(),
            settings,
        }
    }

    /// Where the next subscription would go on: the last processed event, or
    /// the start of a stream of which none is processed yet.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.processed
    }

    /// Where it is subscribed, or tries to be.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.targets.current().address()
    }

    /// Reports, on the stream's connection or that of the last one, that all up to this cursor is enforced, with a lease; zero
    /// says that this process serves nobody any more. The answer is the head. `None` if there is no
    /// connection.
    pub(crate) fn report(
        &self,
        enforced: Cursor,
        lease: Duration,
    ) -> Option<impl Future<Output = Result<Cursor, Status>> + Send + use<>> {
        let connection = match &self.state {
            State::Streaming(stream, _) => stream.connection().clone(),
            State::Stopped(_) => self.last_connection.clone()?,
            _ => return None,
        };
        let mut client = GatewayClient::new(connection);
        let request = ReportRequest {
            gateway_client_id: self.settings.id.clone(),
            instance: self.settings.instance.clone().unwrap_or_default(),
            enforced_cursor: enforced.to_string(),
            lease_ms: u32::try_from(lease.as_millis()).unwrap_or(u32::MAX),
        };
        let mut limit = self.settings.response_timeout;
        if !lease.is_zero() {
            // There is time for others within the lease.
            limit = limit.min(lease / 4);
        }
        Some(async move {
            let answer = tokio::time::timeout(limit, client.report(request)).await;
            let answer = answer.map_err(|_| {
                Status::deadline_exceeded(format!("the report was not answered within {limit:?}"))
            })??;
            let head = Cursor::parse(answer.into_inner().head_cursor.as_bytes());
            head.map_err(|error| Status::internal(format!("the head in the answer: {error}")))
        })
    }

    /// What has happened so far, in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Subscribes anew, and changes over once the new stream has begun: no event is missed, none
    /// comes twice, and none waits for a connection. The new connection reads the files of
    /// certificates and tokens again.
    ///
    /// It happens while [`next`](Self::next) is awaited. If it fails, the stream goes on, and it is
    /// tried again after some seconds. Without a stream it does nothing: the next subscription is
    /// a new one in any case.
    pub fn renew(&mut self) {
        if let State::Streaming(_, renewal @ (Renewal::Never | Renewal::At(_))) = &mut self.state {
            *renewal = Renewal::At(Instant::now());
        }
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
            self.has_progressed = true;
            if self.unfinished.is_some_and(|start| cursor >= start) {
                self.unfinished = None;
            }
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
            match self.next_encoded().await? {
                Encoded::Item(item) => return Ok(item),
                Encoded::Heartbeat => {}
                Encoded::Event { cursor, event } => match PushEvent::decode(event) {
                    Ok(event) => return Ok(Item::Event { cursor, event }),
                    Err(error) => self.undecodable(cursor, &error),
                },
            }
        }
    }

    /// The same, with events as they came, and with heartbeats.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`next`](Self::next).
    pub(crate) async fn next_encoded(&mut self) -> Result<Encoded, Stopped> {
        loop {
            if let Some(item) = self.told_next.pop_front() {
                return Ok(Encoded::Item(item));
            }
            match &mut self.state {
                State::Waiting { until } => {
                    sleep_until(*until).await;
                    self.state = State::Subscribing(self.attempt(self.processed));
                }
                State::Subscribing(attempt) => match attempt.as_mut().await {
                    Ok(subscribed) => self.subscribed(subscribed),
                    Err(failure) => self.failed(failure),
                },
                State::Renewing(attempt, last) => {
                    let last = *last;
                    match attempt.as_mut().await {
                        Ok(subscribed) => self.renewed(subscribed, last),
                        Err(failure) => self.failed(failure),
                    }
                }
                State::Streaming(stream, renewal) => {
                    // By turns: a stream that always has something must not hold up its renewal.
                    let happened = tokio::select! {
                        came = stream.next() => Happened::Came(came),
                        happened = renewal.next() => happened,
                    };
                    match happened {
                        Happened::Came(Ok(came)) => return Ok(self.came(came)),
                        Happened::Came(Err(cause)) => self.stream_ended(cause),
                        Happened::RenewalDue => self.begin_renewal(),
                        Happened::Renewed(renewed) => self.renewal_done(renewed),
                    }
                }
                State::Stopped(stopped) => return Err(stopped.clone()),
            }
        }
    }

    /// An attempt where the next one is to be made.
    fn attempt(&mut self, cursor: Option<Cursor>) -> Attempt {
        self.stats.attempts += 1;
        let connector = self.targets.current().clone();
        tracing::debug!(address = %connector.address(), cursor = cursor.map(tracing::field::display), "subscribing");
        Box::pin(subscribe(self.settings.clone(), connector, cursor))
    }

    fn came(&mut self, came: Came) -> Encoded {
        let (Came::Event(cursor, _) | Came::Replayed(cursor)) = came else {
            return Encoded::Heartbeat;
        };
        self.handed_out = match self.handed_out {
            // Repeats after a reconnect are below it.
            Some(last) if last.epoch() == cursor.epoch() => Some(last.max(cursor)),
            _ => Some(cursor),
        };
        match came {
            Came::Event(_, event) => {
                self.stats.events += 1;
                Encoded::Event { cursor, event }
            }
            _ => Encoded::Item(Item::Replayed { cursor }),
        }
    }

    /// An event cannot be decoded: its stream has broken its promise.
    pub(crate) fn undecodable(&mut self, cursor: Cursor, problem: &dyn fmt::Display) {
        let violation = Violation::Undecodable {
            cursor,
            problem: problem.to_string(),
        };
        self.stream_ended(Failure::Retry(Disconnect::Violation(violation)));
    }

    fn subscribed(&mut self, subscribed: Subscribed) {
        let Subscribed {
            start,
            missed,
            requested,
            stream,
        } = subscribed;
        self.accepted(&start);
        if start.resume == Resume::Fresh {
            let unfinished = self.unfinished.take();
            if requested.is_some() {
                if missed != Some(0) {
                    self.gap(missed, &start);
                }
            } else if let Some(before) = unfinished.filter(|before| *before != start.cursor) {
                // It has asked for nothing, and yet had a place: where its stream started.
                let is_later = before.epoch() == start.cursor.epoch() && before < start.cursor;
                let missed = start.cursor.seq().number()
                    - before.seq().number().min(start.cursor.seq().number());
                self.gap(Some(missed).filter(|_| is_later), &start);
            }
            if start.revocations.is_some_and(|missed| missed.count > 0) {
                // Who comes back before these are processed is to be told them again. A place
                // beyond the start is none.
                self.handed_out = None;
                let is_behind = |place: &Cursor| {
                    place.epoch() != start.cursor.epoch() || *place <= start.cursor
                };
                self.processed = self.processed.filter(is_behind);
                self.unfinished = Some(start.cursor);
            } else {
                // From here on the old position is lost, and a reconnect before the
                // first event must not begin at some later head.
                self.processed = Some(start.cursor);
                self.handed_out = Some(start.cursor);
            }
        }
        self.told_next.push_back(Item::Connected(start));
        self.stream_begins(stream);
    }

    fn gap(&mut self, missed: Option<u64>, start: &Start) {
        self.stats.gaps += 1;
        self.stats.missed_events += missed.unwrap_or(0);
        self.told_next.push_back(Item::Gap(Gap {
            missed,
            reason: start.reason.clone(),
        }));
    }

    /// The server has accepted the subscription.
    fn accepted(&mut self, start: &Start) {
        self.stats.subscriptions += 1;
        match start.resume {
            Resume::Resumed => self.stats.resumed += 1,
            Resume::Fresh => self.stats.fresh += 1,
        }
        tracing::debug!(
            address = %self.address(),
            resume = %start.resume,
            reason = %start.reason,
            cursor = %start.cursor,
            "subscribed"
        );
    }

    fn stream_begins(&mut self, stream: Box<Stream>) {
        self.has_progressed = false;
        let renewal = match self.settings.renew_every {
            // Sooner by chance: a fleet that was started together is not renewed together.
            Some(interval) => {
                Renewal::At(Instant::now() + interval.mul_f64(rand::random_range(0.9..=1.0)))
            }
            None => Renewal::Never,
        };
        self.state = State::Streaming(stream, renewal);
    }

    fn stream_ended(&mut self, cause: Failure) {
        if !matches!(self.state, State::Streaming(..)) {
            return;
        }
        let State::Streaming(stream, renewal) = std::mem::replace(
            &mut self.state,
            State::Waiting {
                until: Instant::now(),
            },
        ) else {
            return;
        };
        self.credit(stream.lasted());
        let taken_by = cause.taken_over_by();
        match renewal {
            // Ended by it, mostly. Whatever it was: an attempt is under way. But another
            // process that has taken the id is not to lose it to that.
            Renewal::UnderWay(attempt)
                if taken_by
                    .as_ref()
                    .is_none_or(|by| by.may_be(&self.settings.instance)) =>
            {
                self.state = State::Renewing(attempt, stream.reached());
            }
            _ => {
                let until = self.may_be_ours_until;
                let is_ours = until.is_some_and(|until| Instant::now() < until)
                    && taken_by.is_some_and(|by| by.may_be(&self.settings.instance));
                self.failed(if is_ours { cause.again() } else { cause });
                if matches!(self.state, State::Stopped(_)) {
                    self.last_connection = Some(stream.connection().clone());
                }
            }
        }
    }

    /// Waits are short again, and other servers worth a try, after a stream that was good for
    /// something. A server that accepts and drops must not be hammered.
    fn credit(&mut self, lasted: Duration) {
        if self.has_progressed || lasted >= self.settings.backoff.max() {
            self.settings.backoff.reset();
            self.targets.succeeded();
        }
    }

    /// Begins another stream beside the one that goes on, where that will have come to.
    fn begin_renewal(&mut self) {
        let State::Streaming(stream, _) = &self.state else {
            return;
        };
        let renewal = if stream.is_replay() {
            Renewal::At(Instant::now() + RENEWAL_PAUSE)
        } else {
            let reached = stream.reached();
            Renewal::UnderWay(self.attempt(Some(reached)))
        };
        if let State::Streaming(_, under_way) = &mut self.state {
            *under_way = renewal;
        }
    }

    fn renewal_done(&mut self, renewed: Result<Subscribed, Failure>) {
        let State::Streaming(stream, renewal) = &mut self.state else {
            return;
        };
        match renewed {
            Ok(subscribed) => {
                let (reached, lasted) = (stream.reached(), stream.lasted());
                self.credit(lasted);
                self.renewed(subscribed, reached);
            }
            Err(failure) => {
                let asked = failure
                    .retry_delay()
                    .unwrap_or_default()
                    .min(MAX_RETRY_DELAY);
                let pause = RENEWAL_PAUSE
                    .mul_f64(rand::random_range(1.0..=2.0))
                    .max(asked);
                *renewal = Renewal::At(Instant::now() + pause);
                if failure.is_unknown() {
                    self.may_be_ours_until = Some(Instant::now() + LATE_RENEWAL);
                }
                self.stats.failed_renewals += 1;
                tracing::debug!(%failure, "not renewed: the stream goes on");
            }
        }
    }

    /// Changes over to a new stream. The one before it has come to `last`.
    fn renewed(&mut self, mut subscribed: Subscribed, last: Cursor) {
        self.stats.renewals += 1;
        if subscribed.start.resume == Resume::Fresh {
            let start = subscribed.start.cursor;
            if start.epoch() == last.epoch() && start >= last {
                // The older stream has brought some of it meanwhile.
                subscribed.missed = Some(start.seq().number() - last.seq().number());
            }
            return self.subscribed(subscribed);
        }
        self.accepted(&subscribed.start);
        subscribed.stream.skip_to(last);
        self.stream_begins(subscribed.stream);
    }

    fn failed(&mut self, failure: Failure) {
        let cause = match failure {
            Failure::Stop(Stopped::TakenOver(status))
                if self.settings.on_takeover == OnTakeover::Retry =>
            {
                Disconnect::TakenOver(status)
            }
            Failure::Stop(stopped) => {
                tracing::debug!(%stopped, "stopped");
                self.state = State::Stopped(stopped);
                return;
            }
            Failure::Retry(cause) => cause,
        };
        self.stats.disconnects += 1;
        self.stats.violations += u64::from(matches!(cause, Disconnect::Violation(_)));
        let asked = cause.status().and_then(retry_delay).unwrap_or_default();
        let asked = asked.min(MAX_RETRY_DELAY);
        let next = match cause.is_of_one_server() {
            true => self.targets.elsewhere(asked, &mut self.settings.backoff),
            false => None,
        };
        let retry_in = match next {
            Some((retry_in, has_moved)) => {
                self.stats.failovers += u64::from(has_moved);
                retry_in
            }
            None => self.settings.backoff.wait().max(asked),
        };
        tracing::debug!(%cause, ?retry_in, next = %self.address(), "disconnected");
        self.state = State::Waiting {
            until: Instant::now() + retry_in,
        };
        self.told_next
            .push_back(Item::Disconnected { cause, retry_in });
    }
}

impl Renewal {
    async fn next(&mut self) -> Happened {
        match self {
            Renewal::Never => pending().await,
            Renewal::At(due) => {
                sleep_until(*due).await;
                Happened::RenewalDue
            }
            Renewal::UnderWay(attempt) => Happened::Renewed(attempt.as_mut().await),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Waiting { until } => f.debug_struct("Waiting").field("until", until).finish(),
            State::Subscribing(_) => f.write_str("Subscribing"),
            State::Renewing(_, last) => f.debug_tuple("Renewing").field(last).finish(),
            State::Streaming(stream, _) => f
                .debug_struct("Streaming")
                .field("last", &stream.last())
                .finish(),
            State::Stopped(stopped) => f.debug_tuple("Stopped").field(stopped).finish(),
        }
    }
}
