//! `galaxy.backend.push.v1.Push` as a service, for a server that is not ours.
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

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::NamedService;
use tower::Service;

use super::body::PushBody;
use super::codec::RawDecoder;
use super::intake::{Bounds, Intake};
use super::subscribe::{self, MAX_REQUEST_BYTES};
use crate::engine::{Engine, Subscriber};

/// How long a request may take to arrive in full.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of all requests that are larger than one frame, which no honest one is.
const REQUEST_BUDGET_BYTES: usize = 1 << 20;

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
                budget: Arc::new(Semaphore::new(REQUEST_BUDGET_BYTES)),
            },
        }
    }

    async fn subscribe(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        subscribe::refuse_compression(&head.headers)?;
        let message = read_one(Intake::new(body, self.bounds.clone())).await?;
        let (subscriber, id) = subscribe::subscribe(&self.engine, &message)?;
        tracing::debug!(gateway = id, start = ?subscriber.start(), "subscribed");
        Ok(respond(subscriber))
    }
}

/// The request's one message. More or fewer is a violation of the method's
/// cardinality.
async fn read_one(body: Intake) -> Result<Bytes, Status> {
    let limit = Some(MAX_REQUEST_BYTES);
    let mut messages = Streaming::new_request(RawDecoder, body, None, limit);
    let Some(message) = messages.message().await? else {
        return Err(subscribe::not_one_message("none was sent"));
    };
    if messages.message().await?.is_some() {
        return Err(subscribe::not_one_message("several were sent"));
    }
    Ok(message)
}

/// The response's head; hyper sends it at once, before it asks the body for
/// anything.
fn respond(subscriber: Subscriber) -> Response<Body> {
    let fields = subscribe::response_fields(subscriber.start());
    let mut response = Response::new(Body::new(PushBody::new(subscriber)));
    *response.headers_mut() = fields;
    response
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
            let response = if request.uri().path() == subscribe::PATH {
                service.subscribe(request).await
            } else {
                Err(Status::unimplemented("Push has no such method"))
            };
            Ok(response.unwrap_or_else(Status::into_http))
        })
    }
}
