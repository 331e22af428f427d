//! [`Stream`]: a subscription as a gateway sees it, down to its bytes.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status, Streaming};

use crate::client::{Connection, status_line};
use crate::contract::metadata::{PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON, PUSH_START_CURSOR};
use crate::contract::path;
use crate::contract::push::push_event::Kind;
use crate::contract::push::{GatewaySubscribeRequest, PushEvent};
use crate::cursor::Cursor;
use crate::lab::conformance::promise::{Judged, broken, ensure};
use crate::lab::conformance::raw::Raw;

/// How a gateway subscribes.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscribe {
    pub(super) id: String,
    pub(super) cursor: String,
    /// Request metadata.
    pub(super) metadata: Vec<(&'static str, String)>,
}

impl Subscribe {
    pub(super) fn new(id: impl Into<String>, cursor: impl Into<String>) -> Self {
        Subscribe {
            id: id.into(),
            cursor: cursor.into(),
            metadata: Vec::new(),
        }
    }

    pub(super) fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// As it came.
    pub(super) bytes: Bytes,
    /// What it says.
    pub(super) event: PushEvent,
    /// Its cursor.
    pub(super) cursor: Cursor,
}

impl Received {
    fn read(bytes: Bytes) -> Judged<Self> {
        let event = match PushEvent::decode(bytes.clone()) {
            Ok(event) => event,
            Err(error) => return broken(format!("a message is not a PushEvent: {error}")),
        };
        let cursor = match event.cursor.parse() {
            Ok(cursor) => cursor,
            Err(error) => {
                return broken(format!(
                    "an event's cursor {:?} is malformed: {error}",
                    event.cursor
                ));
            }
        };
        Ok(Received {
            bytes,
            event,
            cursor,
        })
    }

    /// The `event_id` of a ClientEvent, the `reason` of a SessionInvalidation: by them the kit
    /// knows its own events again.
    pub(super) fn mark(&self) -> &str {
        mark(&self.event)
    }

    pub(super) fn has_kind(&self) -> bool {
        self.event.kind.is_some()
    }
}

/// See [`Received::mark`].
pub(super) fn mark(event: &PushEvent) -> &str {
    match &event.kind {
        Some(Kind::ClientEvent(event)) => &event.event_id,
        Some(Kind::SessionInvalidation(invalidation)) => &invalidation.reason,
        None => "",
    }
}

/// What comes next on a stream: a message, or the end with its status, `OK` where it ends without
/// an error.
pub(super) type Next = Result<Received, Status>;

/// An open subscription.
pub(super) struct Stream {
    /// The response's initial metadata.
    pub(super) metadata: MetadataMap,
    messages: Streaming<Bytes>,
    patience: Duration,
    /// The cursor of the newest message with a kind.
    last: Option<Cursor>,
}

/// What a server answers to a subscription.
pub(super) type Answer = Result<Stream, Status>;

impl Stream {
    /// Subscribes, and waits for the response's headers.
    pub(super) async fn open(
        connection: Connection,
        subscribe: &Subscribe,
        patience: Duration,
    ) -> Judged<Answer> {
        let message = GatewaySubscribeRequest {
            gateway_client_id: subscribe.id.clone(),
            cursor: subscribe.cursor.clone(),
        };
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        for (key, value) in &subscribe.metadata {
            let Ok(value) = value.parse() else {
                return broken(format!("the kit cannot send {key}: {value:?}"));
            };
            request.metadata_mut().insert(*key, value);
        }
        let mut grpc = Grpc::new(connection);
        let opened = timeout(patience, async {
            grpc.ready().await.map_err(|error| {
                Status::unavailable(format!("there is no connection: {}", error))
            })?;
            let path = PathAndQuery::from_static(path::SUBSCRIBE_PUSH);
            grpc.server_streaming(request, path, Raw).await
        });
        match opened.await {
            Err(_) => broken(format!(
                "no response headers within {} seconds, subscribing as {:?} with the cursor {:?}",
                patience.as_secs(),
                subscribe.id,
                subscribe.cursor
            )),
            Ok(Err(status)) => Ok(Err(status)),
            Ok(Ok(response)) => {
                let (metadata, messages, _) = response.into_parts();
                Ok(Ok(Stream {
                    metadata,
                    messages,
                    patience,
                    last: None,
                }))
            }
        }
    }

    /// The next message or the end, whatever it is.
    pub(super) async fn any(&mut self) -> Judged<Next> {
        match timeout(self.patience, self.messages.message()).await {
            Err(_) => broken(format!(
                "nothing came within {} seconds, after {}",
                self.patience.as_secs(),
                self.place()
            )),
            Ok(Ok(Some(bytes))) => {
                let received = Received::read(bytes)?;
                if received.has_kind() {
                    self.last = Some(received.cursor);
                }
                Ok(Ok(received))
            }
            Ok(Ok(None)) => Ok(Err(Status::new(Code::Ok, ""))),
            Ok(Err(status)) => Ok(Err(status)),
        }
    }

    /// The next event. Its cursor has to be greater than the one before it.
    pub(super) async fn next(&mut self) -> Judged<Received> {
        let before = self.last;
        match self.any().await? {
            Ok(received) => {
                ensure!(
                    received.has_kind(),
                    "a message without a kind came, which this gateway has not asked for, after {}",
                    self.place()
                );
                if let Some(before) = before {
                    ensure!(
                        received.cursor > before,
                        "the cursor {} came after {before}",
                        received.cursor
                    );
                }
                Ok(received)
            }
            Err(status) => broken(format!(
                "the stream ended after {}: {}",
                self.place(),
                status_line(&status)
            )),
        }
    }

    /// The next events.
    pub(super) async fn take(&mut self, count: usize) -> Judged<Vec<Received>> {
        let mut received = Vec::with_capacity(count);
        for _ in 0..count {
            received.push(self.next().await?);
        }
        Ok(received)
    }

    /// Everything up to the end, which has to come.
    pub(super) async fn end(&mut self) -> Judged<(Vec<Received>, Status)> {
        let mut received = Vec::new();
        loop {
            match self.any().await? {
                Ok(message) => received.push(message),
                Err(status) => return Ok((received, status)),
            }
        }
    }

    fn place(&self) -> String {
        match self.last {
            Some(cursor) => format!("the event {cursor}"),
            None => "the stream's headers".to_owned(),
        }
    }

    /// A value of the response's initial metadata.
    pub(super) fn header(&self, key: &str) -> Judged<&str> {
        match text(&self.metadata, key) {
            Some(value) => Ok(value),
            None => broken(format!("the response's initial metadata has no {key}")),
        }
    }

    /// Where it starts.
    pub(super) fn start_cursor(&self) -> Judged<Cursor> {
        let text = self.header(PUSH_START_CURSOR)?;
        text.parse().or_else(|error| {
            broken(format!(
                "{PUSH_START_CURSOR} {text:?} is malformed: {error}"
            ))
        })
    }

    /// It has to be announced so.
    pub(super) fn expect(&self, resume: &str, reason: &str) -> Judged {
        let said = (self.header(PUSH_RESUME)?, self.header(PUSH_RESUME_REASON)?);
        ensure!(
            said == (resume, reason),
            "the stream is {} ({}), expected {resume} ({reason})",
            said.0,
            said.1
        );
        Ok(())
    }

    /// It has to start `fresh`, after this event, for this reason.
    pub(super) fn expect_fresh(&self, reason: &str, head: Cursor) -> Judged {
        self.expect("fresh", reason)?;
        let start = self.start_cursor()?;
        ensure!(
            start == head,
            "a fresh stream starts at {start}, and the newest event is {head}"
        );
        Ok(())
    }

    /// `push-missed` of the initial metadata.
    pub(super) fn missed(&self) -> Judged<u64> {
        number(PUSH_MISSED, self.header(PUSH_MISSED)?)
    }
}

/// A value of metadata, as text.
pub(super) fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}

/// A decimal number of metadata.
pub(super) fn number(key: &str, value: &str) -> Judged<u64> {
    value
        .parse()
        .or_else(|_| broken(format!("{key} is {value:?}, which is not a decimal number")))
}
