//! [`Kit`]: what judges a server: gateways, a publisher, and events that it knows again.

use std::time::Duration;

use super::publisher::Publisher;
use super::stream::{Answer, Received, Stream, Subscribe, mark};
use tonic::{Code, Status};

use crate::client::{Connection, Connector, error_info, status_line};
use crate::contract::details::{ErrorInfo, ErrorReason};
use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};
use crate::cursor::Cursor;
use crate::lab::conformance::promise::{Judged, broken, ensure, skipped};

/// So that many events are published before a gateway that watches has to have them. A server
/// with a ring of as few as this is judged fairly.
const CHUNK_EVENTS: usize = 64;

/// Of one event, where much has to be published: a few of them fill a gateway's window.
pub(super) const LARGE_BYTES: usize = 16 << 10;
const LARGE_CHUNK: usize = 32;
/// What a gateway that reads nothing has not taken: the kit's own window is 8 MiB, and there are
/// sockets and buffers on the way.
const UNREAD_BYTES: usize = 24 << 20;
/// So many times [`Kit::publish_large`] is as much.
pub(super) const WINDOW_CHUNKS: usize = UNREAD_BYTES / LARGE_BYTES / LARGE_CHUNK;

/// Everything that judging a server needs.
pub(super) struct Kit {
    pub(super) gateways: Connector,
    /// The same without the token, where there is one.
    pub(super) strangers: Option<Connector>,
    pub(super) publisher: Publisher,
    /// After so many newer events, the server has dropped one from its ring.
    pub(super) ring_events: Option<u64>,
    /// Restarts the server.
    pub(super) restart: Option<String>,
    /// How long to wait for anything.
    pub(super) patience: Duration,
    /// What is in every id of this run, so that two runs do not meet.
    pub(super) run: String,
    /// Events and gateways so far.
    pub(super) count: u64,
}

/// A gateway that sees what is published, so that the kit knows the cursors of its events, and
/// when they are in the stream.
pub(super) struct Witness {
    pub(super) stream: Stream,
    /// The newest event in the stream.
    pub(super) head: Cursor,
}

impl Kit {
    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// An id that no gateway has had.
    pub(super) fn id(&mut self) -> String {
        let number = self.number();
        format!("conformance-{}-{number}", self.run)
    }

    pub(super) fn user(&self) -> String {
        format!("user-{}", self.run)
    }

    /// A ClientEvent.
    pub(super) fn event(&mut self) -> PushEvent {
        self.event_with(br#"{"from":"conformance"}"#.to_vec())
    }

    pub(super) fn event_with(&mut self, payload: Vec<u8>) -> PushEvent {
        let number = self.number();
        PushEvent {
            kind: Some(Kind::ClientEvent(ClientEvent {
                user_id: self.user(),
                device_session_id: String::new(),
                kind: "conformance".to_owned(),
                payload: payload.into(),
                event_id: format!("{}-{number}", self.run),
                request_id: String::new(),
                trace_id: String::new(),
            })),
            cursor: String::new(),
        }
    }

    pub(super) fn events(&mut self, count: usize) -> Vec<PushEvent> {
        (0..count).map(|_| self.event()).collect()
    }

    pub(super) fn invalidation(&mut self, user: &str, session: &str) -> PushEvent {
        let number = self.number();
        PushEvent {
            kind: Some(Kind::SessionInvalidation(SessionInvalidation {
                user_id: user.to_owned(),
                device_session_id: session.to_owned(),
                reason: format!("{}-{number}", self.run),
            })),
            cursor: String::new(),
        }
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Judged<Connection> {
        match self.gateways.connect().await {
            Ok(connection) => Ok(connection),
            Err(error) => broken(format!("no connection for a gateway: {error}")),
        }
    }

    /// Subscribes on a connection of its own.
    pub(super) async fn ask(&self, subscribe: &Subscribe) -> Judged<Answer> {
        Stream::open(self.connect().await?, subscribe, self.patience).await
    }

    /// The same, which has to be accepted.
    pub(super) async fn open(&self, subscribe: &Subscribe) -> Judged<Stream> {
        self.open_on(self.connect().await?, subscribe).await
    }

    pub(super) async fn open_on(
        &self,
        connection: Connection,
        subscribe: &Subscribe,
    ) -> Judged<Stream> {
        match Stream::open(connection, subscribe, self.patience).await? {
            Ok(stream) => Ok(stream),
            Err(status) if is_limit(&status) => {
                skipped(format!("the server has a limit: {}", status_line(&status)))
            }
            Err(status) => broken(format!(
                "subscribing as {:?} with the cursor {:?} was refused: {}",
                subscribe.id,
                subscribe.cursor,
                status_line(&status)
            )),
        }
    }

    /// A new gateway, with this cursor.
    pub(super) async fn subscribe(&mut self, cursor: impl ToString) -> Judged<Stream> {
        let id = self.id();
        self.open(&Subscribe::new(id, cursor.to_string())).await
    }

    /// A new gateway that has processed nothing.
    pub(super) async fn fresh(&mut self) -> Judged<Stream> {
        self.subscribe("").await
    }

    /// The gateway that sees what is published; one event, so that there is a head.
    pub(super) async fn witness(&mut self) -> Judged<Witness> {
        let mut stream = self.fresh().await?;
        let event = self.event();
        self.publisher.publish(std::slice::from_ref(&event)).await?;
        let received = stream.next().await?;
        ensure!(
            received.mark() == mark(&event),
            "a stream without a cursor began with an event that was published before it"
        );
        Ok(Witness {
            head: received.cursor,
            stream,
        })
    }

    /// Publishes, and waits until the witness has them: as it has received them.
    pub(super) async fn publish(
        &mut self,
        witness: &mut Witness,
        events: &[PushEvent],
    ) -> Judged<Vec<Received>> {
        let mut all = Vec::with_capacity(events.len());
        for chunk in events.chunks(CHUNK_EVENTS) {
            self.publisher.publish(chunk).await?;
            all.extend(witness.expect(chunk).await?);
        }
        Ok(all)
    }

    /// So many events, as [`publish`](Self::publish).
    pub(super) async fn publish_some(
        &mut self,
        witness: &mut Witness,
        count: usize,
    ) -> Judged<Vec<Received>> {
        let events = self.events(count);
        self.publish(witness, &events).await
    }

    /// Publishes so much that a gateway which reads nothing can take no more.
    pub(super) async fn fill_window(&mut self, witness: &mut Witness) -> Judged<Vec<Received>> {
        let mut published = Vec::new();
        for _ in 0..WINDOW_CHUNKS {
            published.extend(self.publish_large(witness).await?);
        }
        Ok(published)
    }

    /// Some large events.
    pub(super) async fn publish_large(&mut self, witness: &mut Witness) -> Judged<Vec<Received>> {
        let events: Vec<_> = (0..LARGE_CHUNK)
            .map(|_| self.event_with(vec![b'x'; LARGE_BYTES]))
            .collect();
        self.publish(witness, &events).await
    }

    /// Publishes so much that the server has dropped everything before: how many events.
    pub(super) async fn turn_ring(&mut self, witness: &mut Witness) -> Judged<u64> {
        let Some(ring) = self.ring_events else {
            return skipped("it needs --ring-events");
        };
        let count = ring * 2;
        for _ in 0..count / CHUNK_EVENTS as u64 + 1 {
            self.publish_some(witness, CHUNK_EVENTS).await?;
        }
        Ok((count / CHUNK_EVENTS as u64 + 1) * CHUNK_EVENTS as u64)
    }
}

impl Witness {
    /// These events come next, as they were published.
    pub(super) async fn expect(&mut self, events: &[PushEvent]) -> Judged<Vec<Received>> {
        let received = expect(&mut self.stream, events).await?;
        if let Some(last) = received.last() {
            self.head = last.cursor;
        }
        Ok(received)
    }
}

/// Whether a status says that there is too much, rather than that something is wrong.
pub(super) fn is_limit(status: &Status) -> bool {
    let is_too_large = |info: &ErrorInfo| info.is(ErrorReason::EventTooLarge);
    status.code() == Code::ResourceExhausted
        || error_info(status).as_ref().is_some_and(is_too_large)
}

/// These events come next on a stream, as they were published.
pub(super) async fn expect(stream: &mut Stream, events: &[PushEvent]) -> Judged<Vec<Received>> {
    let mut all = Vec::with_capacity(events.len());
    for event in events {
        let received = stream.next().await?;
        let wanted = PushEvent {
            cursor: received.event.cursor.clone(),
            ..event.clone()
        };
        ensure!(
            received.event == wanted,
            "published was {:?}, and the event {} is {:?}",
            event.kind,
            received.cursor,
            received.event.kind
        );
        all.push(received);
    }
    Ok(all)
}

/// A stream goes on with exactly these events, byte for byte.
pub(super) async fn same(stream: &mut Stream, events: &[Received]) -> Judged {
    for wanted in events {
        let received = stream.next().await?;
        ensure!(
            received.cursor == wanted.cursor,
            "expected the event {}, and {} came",
            wanted.cursor,
            received.cursor
        );
        ensure!(
            received.bytes == wanted.bytes,
            "the event {} has other bytes than another gateway has received",
            wanted.cursor
        );
    }
    Ok(())
}
