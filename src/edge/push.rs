//! `galaxy.backend.push.v1.Push`: gateways subscribe.
//!
//! The service is written against HTTP instead of tonic's generated trait, so
//! that a response's body can be [`PushBody`]; tonic's own encodes each message
//! into a buffer of its own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use prost::Message;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::NamedService;
use tower::Service;

use super::body::PushBody;
use super::codec::RawDecoder;
use super::connection::Link;
use super::flow::{Flow, Source};
use super::gateway_id;
use super::intake::{Bounds, Intake};
use super::stall::Watch;
use super::status;
use crate::engine::{Engine, Resume, Start, Subscriber};
use crate::proto::push::GatewaySubscribeRequest;

/// Room for the longest id and far more than a cursor.
const MAX_REQUEST_BYTES: usize = 4 << 10;
/// How long a request may take to arrive in full.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of all requests that are larger than one frame, which no honest one is.
const REQUEST_BUDGET_BYTES: usize = 1 << 20;

const PATH: &str = "/galaxy.backend.push.v1.Push/SubscribePush";

/// Answers subscriptions out of an engine.
#[derive(Clone, Debug)]
pub(crate) struct PushService {
    engine: Engine,
    watch: Watch,
    bounds: Bounds,
    stopping: CancellationToken,
}

impl PushService {
    /// Serves `engine`; every stream is under `watch`. From `stopping` on,
    /// requests that have not arrived are refused.
    pub(crate) fn new(engine: Engine, watch: Watch, stopping: CancellationToken) -> Self {
        PushService {
            engine,
            watch,
            bounds: Bounds {
                max_message_bytes: MAX_REQUEST_BYTES,
                timeout: REQUEST_TIMEOUT,
                whole: true,
                budget: Arc::new(Semaphore::new(REQUEST_BUDGET_BYTES)),
            },
            stopping,
        }
    }

    async fn subscribe(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        refuse_compression(&head.headers)?;
        let Some(link) = head.extensions.get::<Arc<Link>>() else {
            return Err(Status::internal(
                "the listener left no link to its connection",
            ));
        };
        let call = link.begin_call();
        let body = Intake::new(body, self.bounds.clone());
        let request = tokio::select! {
            biased;
            request = read_one(body) => request?,
            () = self.stopping.cancelled() => return Err(status::stopping()),
        };
        let id = request.gateway_client_id;
        gateway_id::check(&id).map_err(status::bad_gateway_id)?;
        let subscriber = self
            .engine
            .subscribe(&id, &request.cursor)
            .map_err(status::not_subscribed)?;

        tracing::debug!(gateway = id, peer = %link.peer(), start = ?subscriber.start(), "subscribed");
        let name = format!("gateway {id:?}").into_boxed_str();
        let (flow, source) = Flow::new(name, call);
        self.watch.add_flow(flow);
        Ok(respond(subscriber, source))
    }
}

/// The request's one message. More or fewer is a violation of the method's
/// cardinality, for which gRPC has its status.
async fn read_one(body: Intake) -> Result<GatewaySubscribeRequest, Status> {
    let limit = Some(MAX_REQUEST_BYTES);
    let mut messages = Streaming::new_request(RawDecoder, body, None, limit);
    let cardinality =
        |found| Status::unimplemented(format!("SubscribePush takes one request message, {found}"));
    let Some(message) = messages.message().await? else {
        return Err(cardinality("none was sent"));
    };
    if messages.message().await?.is_some() {
        return Err(cardinality("several were sent"));
    }
    GatewaySubscribeRequest::decode(message).map_err(|error| {
        Status::invalid_argument(format!("not a GatewaySubscribeRequest: {error}"))
    })
}

/// No compression was offered, and without it there is nothing to decode.
pub(super) fn refuse_compression(headers: &http::HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => {
            let mut status = Status::unimplemented("requests must not be compressed");
            status.metadata_mut().insert(
                "grpc-accept-encoding",
                tonic::metadata::MetadataValue::from_static("identity"),
            );
            Err(status)
        }
        _ => Ok(()),
    }
}

/// The response's head; hyper sends it at once, before it asks the body for
/// anything.
fn respond(subscriber: Subscriber, source: Source) -> Response<Body> {
    let Start { resume, cursor } = *subscriber.start();
    let (word, reason, missed) = describe(resume);
    let mut response = Response::new(Body::new(PushBody::new(subscriber, source)));
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("push-resume", HeaderValue::from_static(word));
    headers.insert("push-resume-reason", HeaderValue::from_static(reason));
    if let Ok(cursor) = HeaderValue::from_str(cursor.to_text().as_str()) {
        headers.insert("push-start-cursor", cursor);
    }
    if let Some(missed) = missed {
        headers.insert(status::PUSH_MISSED, missed.into());
    }
    response
}

/// `push-resume`, `push-resume-reason` and `push-missed`.
fn describe(resume: Resume) -> (&'static str, &'static str, Option<u64>) {
    match resume {
        Resume::Resumed => ("resumed", "requested", None),
        Resume::NoCursor => ("fresh", "no-cursor", None),
        Resume::Expired { missed } => ("fresh", "expired", Some(missed)),
        Resume::Ahead => ("fresh", "ahead", None),
        Resume::OtherEpoch => ("fresh", "other-epoch", None),
        Resume::Malformed => ("fresh", "malformed", None),
    }
}

impl NamedService for PushService {
    const NAME: &'static str = "galaxy.backend.push.v1.Push";
}

impl Service<Request<Body>> for PushService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let response = if request.uri().path() == PATH {
                service.subscribe(request).await
            } else {
                Err(Status::unimplemented("Push has no such method"))
            };
            Ok(response.unwrap_or_else(Status::into_http))
        })
    }
}
