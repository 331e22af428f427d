//! [`Publisher`]: the way by which the kit publishes, calls or a command.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Request, Status, Streaming};

use crate::client::{Connection, Connector, status_line};
use crate::contract::path;
use crate::contract::publisher::{PublishRequest, PublishResponse};
use crate::contract::push::PushEvent;
use crate::contract::push::push_event::Kind;
use crate::lab::conformance::promise::{Judged, broken, skipped};
use crate::lab::conformance::raw::Raw;

/// Stays below the 4 MiB that a gRPC server takes as one message.
const BATCH_BYTES: usize = 1 << 20;
/// Events of one request at most.
const BATCH_EVENTS: usize = 256;

/// How events are published.
pub(super) enum Publisher {
    /// `--publish-connect`.
    Calls(Calls),
    /// `--publish-command`: lines of JSON on its standard input.
    Command { line: String, child: Option<Child> },
}

/// Calls of `galaxy.push.publisher.v1.Publisher`.
#[derive(Clone)]
pub(super) struct Calls {
    connector: Connector,
    connection: Connection,
    patience: Duration,
}

impl Publisher {
    pub(super) fn command(line: String) -> Self {
        Publisher::Command { line, child: None }
    }

    /// Publishes these events in their order.
    pub(super) async fn publish(&mut self, events: &[PushEvent]) -> Judged {
        match self {
            Publisher::Calls(calls) => {
                for batch in batches(events) {
                    calls.publish(batch).await?;
                }
                Ok(())
            }
            Publisher::Command { line, child } => {
                if child.is_none() {
                    *child = Some(start(line)?);
                }
                let Some(stdin) = child.as_mut().and_then(|child| child.stdin.as_mut()) else {
                    return broken("the publishing command has no standard input");
                };
                let mut lines = String::new();
                for event in events {
                    lines += &json_line(event);
                    lines.push('\n');
                }
                let written = async {
                    stdin.write_all(lines.as_bytes()).await?;
                    stdin.flush().await
                };
                written.await.or_else(|error| {
                    broken(format!(
                        "the publishing command takes no more lines: {error}"
                    ))
                })
            }
        }
    }

    /// What only calls can do.
    pub(super) fn calls(&self) -> Judged<Calls> {
        match self {
            Publisher::Calls(calls) => Ok(calls.clone()),
            Publisher::Command { .. } => skipped("it needs --publish-connect"),
        }
    }

    /// After the server was started anew.
    pub(super) async fn reconnect(&mut self) -> Judged {
        match self {
            Publisher::Calls(calls) => {
                *calls = Calls::connect(&calls.connector, calls.patience).await?
            }
            // The next event starts it.
            Publisher::Command { child, .. } => *child = None,
        }
        Ok(())
    }
}

fn start(line: &str) -> Judged<Child> {
    let started = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    started.or_else(|error| broken(format!("the publishing command did not start: {error}")))
}

/// In requests of a size that every server takes.
pub(super) fn batches(events: &[PushEvent]) -> Vec<&[PushEvent]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, event) in events.iter().enumerate() {
        let length = event.encoded_len();
        if at > from && (bytes + length > BATCH_BYTES || at - from == BATCH_EVENTS) {
            batches.push(&events[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += length;
    }
    batches.push(&events[from..]);
    batches
}

impl Calls {
    pub(super) async fn connect(connector: &Connector, patience: Duration) -> Judged<Self> {
        match connector.connect().await {
            Ok(connection) => Ok(Calls {
                connector: connector.clone(),
                connection,
                patience,
            }),
            Err(error) => broken(format!("no connection to publish by: {error}")),
        }
    }

    /// Publishes one batch, which has to be accepted.
    pub(super) async fn publish(&self, events: &[PushEvent]) -> Judged<PublishResponse> {
        let request = PublishRequest {
            events: events.to_vec(),
        };
        match self
            .unary(path::PUBLISH, request.encode_to_vec().into())
            .await?
        {
            Ok(response) => Ok(response),
            Err(status) if super::kit::is_limit(&status) => {
                skipped(format!("the server has a limit: {}", status_line(&status)))
            }
            Err(status) => broken(format!(
                "publishing {} events was refused: {}",
                events.len(),
                status_line(&status)
            )),
        }
    }

    /// A unary call with a request of any bytes.
    pub(super) async fn unary<T: prost::Message + Default>(
        &self,
        method: &'static str,
        request: Bytes,
    ) -> Judged<Result<T, Status>> {
        unary(self.connection.clone(), method, request, self.patience).await
    }

    /// Opens `PublishStream`.
    async fn open_stream(
        &self,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = Grpc::new(self.connection.clone());
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static(path::PUBLISH_STREAM);
        let response = grpc.streaming(Request::new(requests), path, Raw).await?;
        Ok(response.into_inner())
    }

    /// `PublishStream` with these requests, each of which waits for the answer to the one before.
    pub(super) async fn publish_in_turn(&self, requests: Vec<Bytes>) -> Judged {
        let (sender, queue) = mpsc::channel(1);
        let mut queue = Some(ReceiverStream::new(queue));
        let mut opened = None;
        for (at, request) in requests.into_iter().enumerate() {
            // The headers may come with the first answer.
            let answered = async {
                // The queue is empty, and read by the call.
                let _ = sender.send(request).await;
                if let Some(queue) = queue.take() {
                    opened = Some(self.open_stream(queue).await?);
                }
                match &mut opened {
                    Some(responses) => responses.message().await,
                    None => Ok(None),
                }
            };
            match timeout(self.patience, answered).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return broken("PublishStream ended before its requests did"),
                Ok(Err(status)) => {
                    return broken(format!("PublishStream ended: {}", status_line(&status)));
                }
                Err(_) => {
                    return broken(format!(
                        "request {at} of a PublishStream that is open was not answered within {} seconds",
                        self.patience.as_secs()
                    ));
                }
            }
        }
        Ok(())
    }

    /// `PublishStream` with these requests, all sent at once: the responses.
    pub(super) async fn publish_stream(
        &self,
        requests: Vec<Bytes>,
    ) -> Judged<(Vec<PublishResponse>, Status)> {
        let mut responses = Vec::new();
        let call = async {
            let opened = self.open_stream(tokio_stream::iter(requests)).await;
            let mut opened = match opened {
                Ok(opened) => opened,
                Err(status) => return Ok(status),
            };
            loop {
                match opened.message().await {
                    Ok(Some(bytes)) => responses.push(decode(bytes)?),
                    Ok(None) => return Ok(Status::ok("")),
                    Err(status) => return Ok(status),
                }
            }
        };
        match timeout(self.patience, call).await {
            Ok(ended) => {
                let status = ended?;
                Ok((responses, status))
            }
            Err(_) => broken(format!(
                "PublishStream did not end within {} seconds",
                self.patience.as_secs()
            )),
        }
    }
}

async fn ready(grpc: &mut Grpc<Connection>) -> Result<(), Status> {
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(format!("there is no connection: {}", error)))
}

fn decode<T: prost::Message + Default>(bytes: Bytes) -> Judged<T> {
    T::decode(bytes).or_else(|error| broken(format!("a response is malformed: {error}")))
}

/// A unary call with a request of any bytes.
pub(super) async fn unary<T: prost::Message + Default>(
    connection: Connection,
    method: &'static str,
    request: Bytes,
    patience: Duration,
) -> Judged<Result<T, Status>> {
    let mut grpc = Grpc::new(connection);
    let call = async {
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static(method);
        grpc.unary(Request::new(request), path, Raw).await
    };
    match timeout(patience, call).await {
        Ok(Ok(response)) => Ok(Ok(decode(response.into_inner())?)),
        Ok(Err(status)) => Ok(Err(status)),
        Err(_) => broken(format!(
            "{method} was not answered within {} seconds",
            patience.as_secs()
        )),
    }
}

/// An event as `galaxy-push publish -` reads it.
fn json_line(event: &PushEvent) -> String {
    let mut fields = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            fields.insert(key.to_owned(), value.into());
        }
    };
    let object = match &event.kind {
        Some(Kind::ClientEvent(event)) => {
            text("user_id", &event.user_id);
            text("device_session_id", &event.device_session_id);
            text("kind", &event.kind);
            text("event_id", &event.event_id);
            text("request_id", &event.request_id);
            text("trace_id", &event.trace_id);
            // Base64 keeps the bytes, whatever they are.
            if !event.payload.is_empty() {
                fields.insert(
                    "payload_base64".to_owned(),
                    BASE64.encode(&event.payload).into(),
                );
            }
            json!({ "client_event": Value::Object(fields) })
        }
        Some(Kind::SessionInvalidation(invalidation)) => {
            text("user_id", &invalidation.user_id);
            text("device_session_id", &invalidation.device_session_id);
            text("reason", &invalidation.reason);
            json!({ "session_invalidation": Value::Object(fields) })
        }
        None => json!({}),
    };
    object.to_string()
}
