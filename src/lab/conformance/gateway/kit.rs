//! [`Kit`]: what judges a gateway: a backend with a stream of events, processes, sessions.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tonic::Status;

use super::backend::{Arrival, Backend, Open};
use super::process::{Output, Process};
use crate::contract::heartbeat;
use crate::contract::metadata::{
    PUSH_HEAD_CURSOR, PUSH_HEARTBEAT, PUSH_INSTANCE, PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON,
    PUSH_REVOCATIONS, PUSH_REVOCATIONS_COUNT, PUSH_START_CURSOR,
};
use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};
use crate::contract::start::{Reason, Resume};
use crate::cursor::{Cursor, Epoch, Seq};
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

/// What the gateway may need for processing what it was sent, where nothing shows that it has.
const SETTLE: Duration = Duration::from_millis(700);
/// How often a command that has ended is started again at most: supervisors wait too.
const RESTART: Duration = Duration::from_millis(200);

/// Everything that judging a gateway needs.
pub(super) struct Kit {
    pub(super) backend: Backend,
    pub(super) gateway_command: Option<String>,
    pub(super) session_command: Option<String>,
    pub(super) revalidates: bool,
    /// It was told to stop, and has: nobody has started it again.
    pub(super) has_stopped: bool,
    /// Whether sessions outlive the stream, where that is known.
    pub(super) keeps_sessions: Option<bool>,
    pub(super) token_file: Option<PathBuf>,
    /// How long to wait for anything.
    pub(super) patience: Duration,
    pub(super) run: String,
    pub(super) count: u64,
    pub(super) gateway: Option<Process>,
    /// The stream that the gateway has.
    pub(super) live: Option<Live>,
    pub(super) epoch: Epoch,
    /// All events of the epoch: the first has sequence 1.
    pub(super) log: Vec<PushEvent>,
}

/// An open stream, and how it began.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) open: Open,
    /// The `gateway_client_id`.
    pub(super) id: String,
    /// Its `push-instance`.
    pub(super) instance: String,
    /// The heartbeat interval that the gateway has asked for, as text.
    pub(super) heartbeat: Option<String>,
}

/// A client's session at the gateway.
pub(super) struct Session {
    pub(super) user: String,
    pub(super) id: String,
    pub(super) output: Output,
    /// Ends it.
    _process: Process,
}

/// How a stream begins that does not resume.
pub(super) struct Fresh {
    pub(super) reason: Reason,
    /// `push-missed`.
    pub(super) missed: Option<u64>,
    /// `push-revocations`, for gateways that have asked for it, and what is replayed.
    pub(super) revocations: Option<(&'static str, Vec<PushEvent>)>,
}

impl Kit {
    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// A text that is nowhere else.
    pub(super) fn mark(&mut self) -> String {
        let number = self.number();
        format!("{}m{number}m", self.run)
    }

    // Events.

    /// The newest event, or the position before the first.
    pub(super) fn head(&self) -> Cursor {
        Cursor::new(self.epoch, Seq::new(self.log.len() as u64))
    }

    /// Takes an event into the log: it has a cursor then.
    pub(super) fn append(&mut self, kind: Kind) -> PushEvent {
        let cursor = Cursor::new(self.epoch, Seq::new(self.log.len() as u64 + 1));
        let event = PushEvent {
            kind: Some(kind),
            cursor: cursor.to_string(),
        };
        self.log.push(event.clone());
        self.backend.reports.set_head(&event.cursor);
        event
    }

    /// A ClientEvent for a user, or one of its sessions; and the mark in its payload.
    pub(super) fn client_event(&mut self, user: &str, session: &str) -> (PushEvent, String) {
        let mark = self.mark();
        let event = self.append(client_event(user, session, &mark, ""));
        (event, mark)
    }

    /// One for nobody who is there.
    pub(super) fn any_event(&mut self) -> PushEvent {
        let user = self.mark();
        self.client_event(&user, "").0
    }

    /// A SessionInvalidation; its reason is a mark.
    pub(super) fn invalidation(&mut self, user: &str, session: &str) -> (PushEvent, String) {
        let reason = self.mark();
        let event = self.append(Kind::SessionInvalidation(SessionInvalidation {
            user_id: user.to_owned(),
            device_session_id: session.to_owned(),
            reason: reason.clone(),
        }));
        (event, reason)
    }

    /// The backend is born again: another epoch, which has no events.
    pub(super) fn new_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.log.clear();
        self.backend.reports.set_head(&self.head().to_string());
    }

    // The gateway.

    /// Starts the gateway, where there is a command for it.
    pub(super) fn start_gateway(&mut self) -> Judged {
        if let Some(line) = &self.gateway_command {
            let address = self.backend.address.to_string();
            let mut variables = vec![("CONFORMANCE_CONNECT", address.as_str())];
            let token_file = self.token_file.as_ref().map(|path| path.to_string_lossy());
            if let Some(path) = &token_file {
                variables.push(("CONFORMANCE_TOKEN_FILE", path));
            }
            self.gateway = Some(Process::start(line, &variables, true)?);
        }
        Ok(())
    }

    /// Kills the gateway, and starts it again.
    pub(super) async fn kill_gateway(&mut self) -> Judged {
        let Some(gateway) = &mut self.gateway else {
            return skipped("it needs --gateway-command");
        };
        gateway.kill().await;
        self.live = None;
        self.drop_arrivals();
        self.start_gateway()
    }

    /// What the gateway has written.
    pub(super) fn gateway_output(&self) -> Judged<Output> {
        match &self.gateway {
            Some(gateway) => Ok(gateway.output().clone()),
            None => skipped("it needs --gateway-command"),
        }
    }

    /// The end of what it has written, for a report.
    fn last_words(&self) -> String {
        let Some(gateway) = &self.gateway else {
            return String::new();
        };
        gateway.output().with(|text| {
            let lines: Vec<_> = text.lines().rev().take(3).collect();
            let mut words = String::new();
            for line in lines.iter().rev() {
                let _ = write!(words, "; it wrote: {line}");
            }
            words
        })
    }

    /// Subscriptions that nobody has answered and whose gateway has gone.
    fn drop_arrivals(&mut self) {
        while self.backend.arrivals.try_recv().is_ok() {}
    }

    /// The next subscription, within the time. A gateway that has ended by itself is started again.
    pub(super) async fn arrival_within(&mut self, limit: Duration) -> Judged<Option<Arrival>> {
        self.wait_for_arrival(limit, true).await
    }

    async fn wait_for_arrival(
        &mut self,
        limit: Duration,
        restarts: bool,
    ) -> Judged<Option<Arrival>> {
        let until = Instant::now() + limit;
        loop {
            let wait = until.saturating_duration_since(Instant::now()).min(RESTART);
            match timeout(wait, self.backend.arrivals.recv()).await {
                Ok(Some(arrival)) if arrival.is_waiting() => return Ok(Some(arrival)),
                Ok(Some(_)) => {}
                Ok(None) => return broken("the kit's backend has ended"),
                Err(_) if Instant::now() >= until => return Ok(None),
                Err(_) => {
                    if restarts && self.gateway.as_mut().is_some_and(Process::has_ended) {
                        self.start_gateway()?;
                    }
                }
            }
        }
    }

    /// The next subscription, which has to come.
    pub(super) async fn arrival(&mut self) -> Judged<Arrival> {
        match self.arrival_within(self.patience).await? {
            Some(arrival) => {
                self.has_stopped = false;
                Ok(arrival)
            }
            None if self.has_stopped => {
                skipped("the gateway has stopped, as it may, and nobody has started it again")
            }
            None => broken(format!(
                "the gateway did not subscribe within {} seconds{}",
                self.patience.as_secs(),
                self.last_words()
            )),
        }
    }

    /// After it was told to stop or to back off: it comes back, or is started again, or has stopped.
    pub(super) async fn comes_back(&mut self) -> Judged {
        if let Some(arrival) = self.arrival_within(self.patience).await? {
            self.live = Some(self.serve(arrival).await?);
        } else if self.gateway.is_some() {
            self.kill_gateway().await?;
            self.live().await?;
        } else {
            self.has_stopped = true;
        }
        Ok(())
    }

    /// Whether sessions outlive a stream that ends and resumes. A gateway may also serve nobody until
    /// it has the next one.
    pub(super) async fn keeps_sessions(&mut self) -> Judged<bool> {
        if let Some(known) = self.keeps_sessions {
            return Ok(known);
        }
        let user = self.user();
        let session = self.session(&user).await?;
        self.progress(1).await?;
        self.end(Status::unavailable("the server is stopping"))
            .await;
        self.live().await?;
        let (event, mark) = self.client_event(&user, "");
        self.send([event]).await?;
        let mut output = session.output.clone();
        let kept = output.wait_for(&mark, self.patience).await;
        self.keeps_sessions = Some(kept);
        Ok(kept)
    }

    /// Subscriptions that come within this time, each of them answered so. A gateway that ends
    /// meanwhile is started again later: to stop is one way to back off.
    pub(super) async fn arrivals_in(
        &mut self,
        window: Duration,
        mut answer: impl AsyncFnMut(&mut Kit, Arrival) -> Judged,
    ) -> Judged<usize> {
        let until = Instant::now() + window;
        let mut count = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(arrival) = self.wait_for_arrival(left, false).await? else {
                return Ok(count);
            };
            count += 1;
            answer(self, arrival).await?;
        }
    }

    /// Answers as a server does: the stream resumes where it can.
    pub(super) async fn serve(&mut self, arrival: Arrival) -> Judged<Live> {
        let wanted = arrival.cursor.parse::<Cursor>();
        let reason = match wanted {
            Ok(cursor) if cursor.epoch() != self.epoch => Reason::OtherEpoch,
            Ok(cursor) if cursor > self.head() => Reason::Ahead,
            Ok(cursor) => return self.resume(arrival, cursor).await,
            Err(_) if arrival.cursor.is_empty() => Reason::NoCursor,
            Err(_) => Reason::Malformed,
        };
        let fresh = Fresh {
            reason,
            missed: None,
            revocations: Some(("partial", Vec::new())),
        };
        self.serve_fresh(arrival, fresh).await
    }

    async fn resume(&mut self, arrival: Arrival, cursor: Cursor) -> Judged<Live> {
        let mut headers = vec![
            (PUSH_RESUME, Resume::Resumed.to_string()),
            (PUSH_RESUME_REASON, Reason::Requested.to_string()),
            (PUSH_START_CURSOR, cursor.to_string()),
        ];
        if arrival.header(PUSH_REVOCATIONS).is_some() {
            headers.push((PUSH_HEAD_CURSOR, self.head().to_string()));
        }
        let mut live = accept(arrival, headers)?;
        let processed = usize::try_from(cursor.seq().number()).unwrap_or(usize::MAX);
        for event in self.log.iter().skip(processed) {
            live.open.send(event.clone());
        }
        live.beat(cursor.to_string());
        Ok(live)
    }

    /// Answers with a stream that starts after the head.
    pub(super) async fn serve_fresh(&mut self, arrival: Arrival, fresh: Fresh) -> Judged<Live> {
        let start = self.head().to_string();
        let mut headers = vec![
            (PUSH_RESUME, Resume::Fresh.to_string()),
            (PUSH_RESUME_REASON, fresh.reason.to_string()),
            (PUSH_START_CURSOR, start.clone()),
        ];
        if let Some(missed) = fresh.missed {
            headers.push((PUSH_MISSED, missed.to_string()));
        }
        let replay = fresh
            .revocations
            .filter(|_| arrival.header(PUSH_REVOCATIONS).is_some());
        if let Some((completeness, missed)) = &replay {
            headers.push((PUSH_REVOCATIONS, (*completeness).to_owned()));
            headers.push((PUSH_REVOCATIONS_COUNT, missed.len().to_string()));
        }
        let mut live = accept(arrival, headers)?;
        if let Some((_, missed)) = replay {
            for event in missed {
                live.open.send(event);
            }
            live.open.send(mark_at(start.clone()));
        }
        live.beat(start);
        Ok(live)
    }

    /// Sees to it that the gateway has a stream in good order.
    pub(super) async fn live(&mut self) -> Judged<&Live> {
        loop {
            // A renewal, or one that came back meanwhile.
            while let Some(arrival) = self.arrival_within(Duration::ZERO).await? {
                let live = self.serve(arrival).await?;
                self.live = Some(live);
            }
            if self.live.as_ref().is_none_or(|live| !live.open.is_open()) {
                let arrival = self.arrival().await?;
                let live = self.serve(arrival).await?;
                self.live = Some(live);
                continue;
            }
            break;
        }
        match &self.live {
            Some(live) => Ok(live),
            None => broken("there is no stream"),
        }
    }

    /// Sends these events on the gateway's stream. Those that it has left are in the log: it
    /// receives them with the next one.
    pub(super) async fn send(&mut self, events: impl IntoIterator<Item = PushEvent>) -> Judged {
        let Some(live) = &self.live else {
            return broken("there is no stream");
        };
        for event in events {
            live.open.send(event);
        }
        Ok(())
    }

    /// Events for nobody, of which the last is the gateway's position then.
    pub(super) async fn progress(&mut self, count: usize) -> Judged<Vec<PushEvent>> {
        self.live().await?;
        let events: Vec<_> = (0..count).map(|_| self.any_event()).collect();
        self.send(events.clone()).await?;
        self.settle().await;
        Ok(events)
    }

    /// Waits for what cannot be seen.
    pub(super) async fn settle(&self) {
        sleep(SETTLE).await;
    }

    /// Ends the gateway's stream.
    pub(super) async fn end(&mut self, status: Status) {
        if let Some(live) = self.live.take() {
            live.open.end(status).await;
        }
    }

    /// The gateway leaves its stream, which it has to.
    pub(super) async fn leaves(&mut self, limit: Duration) -> Judged<bool> {
        let Some(live) = &mut self.live else {
            return broken("there is no stream");
        };
        let left = timeout(limit, live.open.left()).await.is_ok();
        if left {
            self.live = None;
        }
        Ok(left)
    }

    // Sessions.

    /// Opens a session of this user: the gateway streams its events to it.
    pub(super) async fn session(&mut self, user: &str) -> Judged<Session> {
        let Some(line) = self.session_command.clone() else {
            return skipped("it needs --session-command");
        };
        // The gateway may refuse sessions while it has no stream.
        self.live().await?;
        let wanted = format!("session-{}", self.mark());
        let until = Instant::now() + self.patience;
        loop {
            let variables = [
                ("CONFORMANCE_USER", user),
                ("CONFORMANCE_SESSION", wanted.as_str()),
            ];
            let process = Process::start(&line, &variables, false)?;
            let mut output = process.output().clone();
            // A whole line.
            if output.wait_for("\n", self.patience).await {
                let id = output.with(|text| {
                    let first = text.lines().next().unwrap_or_default();
                    first
                        .strip_prefix("session: ")
                        .map(|id| id.trim().to_owned())
                });
                return Ok(Session {
                    user: user.to_owned(),
                    id: id.unwrap_or_else(|| wanted.clone()),
                    output,
                    _process: process,
                });
            }
            ensure!(
                Instant::now() < until,
                "the session command wrote nothing: no session could be opened within {} seconds{}",
                self.patience.as_secs(),
                self.last_words()
            );
            sleep(RESTART).await;
        }
    }

    /// A user that nobody was.
    pub(super) fn user(&mut self) -> String {
        format!("user-{}", self.mark())
    }

    /// The session receives this.
    pub(super) async fn receives(&self, session: &Session, mark: &str) -> Judged {
        let mut output = session.output.clone();
        ensure!(
            output.wait_for(mark, self.patience).await,
            "an event for the user {} did not arrive at the session {} within {} seconds",
            session.user,
            session.id,
            self.patience.as_secs()
        );
        Ok(())
    }

    /// The session ends.
    pub(super) async fn ends(&self, session: &Session, why: &str) -> Judged {
        let mut output = session.output.clone();
        ensure!(
            output.ended(self.patience).await,
            "the session {} of the user {} was still open {} seconds after {why}",
            session.id,
            session.user,
            self.patience.as_secs()
        );
        Ok(())
    }
}

impl Live {
    /// Sends heartbeats, where the gateway has asked for them.
    fn beat(&mut self, position: String) {
        if let Some(interval) = self.heartbeat.as_deref().and_then(interval) {
            self.open.beat(interval, position);
        }
    }
}

/// The interval of `push-heartbeat` that the gateway has asked for, if it is one.
pub(super) fn interval(text: &str) -> Option<Duration> {
    heartbeat::parse(text).ok()
}

fn accept(arrival: Arrival, mut headers: Vec<(&'static str, String)>) -> Judged<Live> {
    let heartbeat = arrival.header(PUSH_HEARTBEAT).map(str::to_owned);
    if let Some(interval) = heartbeat.as_ref().filter(|text| interval(text).is_some()) {
        headers.push((PUSH_HEARTBEAT, interval.clone()));
    }
    let id = arrival.id.clone();
    let instance = arrival.header(PUSH_INSTANCE).unwrap_or_default().to_owned();
    Ok(Live {
        open: arrival.accept(&headers)?,
        id,
        instance,
        heartbeat,
    })
}

/// A ClientEvent whose payload has the mark in it, and so much more text.
pub(super) fn client_event(user: &str, session: &str, mark: &str, more: &str) -> Kind {
    Kind::ClientEvent(ClientEvent {
        user_id: user.to_owned(),
        device_session_id: session.to_owned(),
        kind: "conformance".to_owned(),
        payload: format!(r#"{{"mark":"{mark}","more":"{more}"}}"#).into(),
        // Whoever looks for the mark finds the payload alone.
        event_id: mark.chars().rev().collect(),
        request_id: String::new(),
        trace_id: String::new(),
    })
}

/// A message without a kind.
pub(super) fn mark_at(cursor: impl Into<String>) -> PushEvent {
    PushEvent {
        kind: None,
        cursor: cursor.into(),
    }
}
