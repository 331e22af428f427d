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
use super::connection::Call;
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

/// `SubscribePush` out of an [`Engine`], for any tonic server.
///
/// It stands beside your own services like any generated one, behind interceptors
/// and TLS too. Events, metadata and statuses are those of
/// [`server::Server`](crate::server::Server), and here as there a stream's events
/// go from the ring to HTTP/2 without being copied.
///
/// ```no_run
/// use galaxy_push::edge::{PushService, for_gateways};
/// use galaxy_push::engine::Engine;
/// use tonic::transport::Server;
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder().build()?;
/// for_gateways(Server::builder())
///     .add_service(PushService::new(engine.clone()))
///     // .add_service(your own)
///     .serve_with_shutdown("127.0.0.1:50051".parse()?, async {
///         let _ = tokio::signal::ctrl_c().await;
///         engine.close();
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// `examples/embed.rs` is a whole backend.
///
/// # Stopping
///
/// Close the engine ([`Engine::close`]), then let tonic shut down: every stream
/// delivers what was published before and ends with `UNAVAILABLE`. tonic waits for
/// that without an end, so give it a time of your own; a gateway that takes nothing
/// would hold it up for good. It also closes a socket without waiting for the peer,
/// and a peer that was sending just then may lose the last events to the reset. A
/// gateway finds out when it next subscribes: its cursor is of another epoch.
///
/// # Gateways that take nothing
///
/// Without a socket of its own, the service can end no stream whose gateway has
/// stopped reading: HTTP/2 asks such a stream for nothing, not even for its end.
/// Publishers and other gateways do not notice. It costs memory, which comes on top
/// of the ring's and shows in [`Stats::pinned_bytes`](crate::engine::Stats):
///
/// - one such stream holds up to three batches of [`DEFAULT_MAX_BATCH_BYTES`] (or
///   of one event that is larger) and hyper's send buffer of 400 KiB, in whole
///   [segments](crate::engine::Limits::segment_bytes): with the default settings at
///   most 1.5 MiB, or twice that where events are so large that segments stay half
///   empty;
/// - there can be `max_subscribers` of them, and as many that were taken over and
///   have not let go yet.
///
/// So set `max_subscribers` to what the deployment has: 50 gateways that take
/// nothing, each of them taken over once, hold 150 MiB.
///
/// A gateway that is gone, or stopped as a whole, does not answer pings, and
/// [`for_gateways`](super::for_gateways) has its streams ended. Should its socket be
/// full, the connection and the segment that was being written to it stay until the
/// kernel gives up. A gateway that answers pings and reads no events keeps its stream
/// as long as its connection. Where that may happen, bound it in time with tonic's
/// [`max_connection_age`](tonic::transport::Server::max_connection_age) and
/// [`max_connection_age_grace`](tonic::transport::Server::max_connection_age_grace):
/// together they cut every connection now and then, and gateways resume by cursor.
/// Or use [`server::Server`](crate::server::Server), which has listeners of its own:
/// it cuts a gateway that takes nothing for `stall_timeout`, limits memory and
/// connections, and waits for peers to receive the last events.
///
/// [`DEFAULT_MAX_BATCH_BYTES`]: crate::engine::DEFAULT_MAX_BATCH_BYTES
#[derive(Clone, Debug)]
pub struct PushService {
    engine: Engine,
    bounds: Bounds,
    /// `None` on a server that is not ours.
    watch: Option<Watch>,
    stopping: CancellationToken,
}

impl PushService {
    /// Serves `engine`.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        PushService {
            engine,
            bounds: Bounds {
                max_message_bytes: MAX_REQUEST_BYTES,
                timeout: REQUEST_TIMEOUT,
                whole: true,
                budget: Arc::new(Semaphore::new(REQUEST_BUDGET_BYTES)),
            },
            watch: None,
            stopping: CancellationToken::new(),
        }
    }

    /// The same on our own listener: every stream is under `watch`. From `stopping`
    /// on, requests that have not arrived are refused.
    pub(crate) fn watched(self, watch: Watch, stopping: CancellationToken) -> Self {
        PushService {
            watch: Some(watch),
            stopping,
            ..self
        }
    }

    async fn subscribe(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        refuse_compression(&head.headers)?;
        let watched = match self.watch {
            Some(watch) => Some((watch, Call::begin(&head.extensions)?)),
            None => None,
        };
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

        let peer = watched.as_ref().map(|(_, call)| call.link().peer());
        let peer = peer.map(tracing::field::display);
        tracing::debug!(gateway = id, peer, start = ?subscriber.start(), "subscribed");
        let source = watched.map(|(watch, call)| {
            let name = format!("gateway {id:?}").into_boxed_str();
            let (flow, source) = Flow::new(name, call);
            watch.add_flow(flow);
            source
        });
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
fn respond(subscriber: Subscriber, source: Option<Source>) -> Response<Body> {
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
