//! `galaxy.push.publisher.v1.Publisher`: producers publish.
//!
//! A request's bytes are taken as they came ([`PublishCodec`]), checked in place,
//! and copied once, into the ring. tonic's generated service would decode them
//! into messages first, so this one is put together from the parts that
//! generated code is made of.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready as poll_ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tokio::task::coop;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tower::Service;

use super::codec::PublishCodec;
use super::connection::Call;
use super::flow::{Account, Flow, MeteredBody};
use super::intake::{Bounds, Intake};
use super::stall::Watch;
use super::status;
use super::subscribe::refuse_compression;
use crate::engine::{Engine, Published, Publisher};
use crate::event::{Event, parse_publish_request};

/// A request may be as large as gRPC allows by default, or hold one event of the
/// largest size. More would let one request take as much memory as the ring, for
/// nothing: `PublishStream` pipelines.
const MIN_REQUEST_BYTES: usize = 4 << 20;
/// What precedes an event in a request: a tag of one byte, a length of up to ten.
const EVENT_PREFIX_BYTES: usize = 11;
/// How long a request may take to arrive, from its first bytes to its last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// So many of the largest requests may be arriving at once.
const REQUESTS_ARRIVING: usize = 16;

const PUBLISH: &str = "/galaxy.push.publisher.v1.Publisher/Publish";
const PUBLISH_STREAM: &str = "/galaxy.push.publisher.v1.Publisher/PublishStream";

/// Puts producers' batches into an engine.
#[derive(Clone, Debug)]
pub(crate) struct PublisherService {
    door: Door,
    watch: Watch,
    bounds: Bounds,
    stopping: CancellationToken,
}

impl PublisherService {
    /// Publishes to `engine`; every answer is under `watch`. From `stopping` on,
    /// nobody is waited for.
    pub(crate) fn new(engine: &Engine, watch: Watch, stopping: CancellationToken) -> Self {
        let limits = engine.limits();
        let largest_event = limits.max_event_bytes + EVENT_PREFIX_BYTES;
        let max_message_bytes = largest_event.max(MIN_REQUEST_BYTES);
        PublisherService {
            door: Door {
                publisher: engine.publisher(),
                max_event_bytes: limits.max_event_bytes,
            },
            watch,
            bounds: Bounds {
                max_message_bytes,
                timeout: REQUEST_TIMEOUT,
                whole: false,
                budget: Arc::new(Semaphore::new(REQUESTS_ARRIVING * max_message_bytes)),
            },
            stopping,
        }
    }

    async fn publish(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (request, call) = self.admit(request, true)?;
        let mut grpc = self.grpc();
        let answer = tokio::select! {
            // First the call: once published, it is answered so.
            biased;
            answer = grpc.unary(PublishOne(self.door), request) => answer,
            () = self.stopping.cancelled() => return Err(status::stopping()),
        };
        Ok(answer.map(|body| Body::new(MeteredBody::new(body, Account::Link(call)))))
    }

    async fn publish_stream(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (request, call) = self.admit(request, false)?;
        let (flow, source) = Flow::new("PublishStream".into(), call);
        self.watch.add_flow(flow);
        let mut grpc = self.grpc();
        let answers = grpc
            .streaming(PublishEach(self.door, self.stopping), request)
            .await;
        Ok(answers.map(|body| Body::new(MeteredBody::new(body, Account::Own(source)))))
    }

    /// Bounds what the request may send, and counts the call.
    fn admit(
        &self,
        request: Request<Body>,
        whole: bool,
    ) -> Result<(Request<Intake>, Call), Status> {
        refuse_compression(request.headers())?;
        let call = Call::begin(request.extensions())?;
        let bounds = Bounds {
            whole,
            ..self.bounds.clone()
        };
        Ok((request.map(|body| Intake::new(body, bounds)), call))
    }

    fn grpc(&self) -> Grpc<PublishCodec> {
        Grpc::new(PublishCodec).max_decoding_message_size(self.bounds.max_message_bytes)
    }
}

/// The way into the ring.
#[derive(Clone, Debug)]
struct Door {
    publisher: Publisher,
    max_event_bytes: usize,
}

impl Door {
    /// Publishes one request: all of its events, or none. `events` is scratch.
    fn publish<'a>(
        &self,
        request: &'a [u8],
        events: &mut Vec<Event<'a>>,
    ) -> Result<Published, Status> {
        parse_publish_request(request, self.max_event_bytes, events)
            .map_err(|error| status::bad_request(&error))?;
        self.publisher
            .publish_batch(events)
            .map_err(|error| status::not_published(&error))
    }
}

/// The unary method.
struct PublishOne(Door);

impl UnaryService<Bytes> for PublishOne {
    type Response = Published;
    type Future = std::future::Ready<Result<tonic::Response<Published>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let published = self.0.publish(request.get_ref(), &mut Vec::new());
        ready(published.map(tonic::Response::new))
    }
}

/// The streaming method.
struct PublishEach(Door, CancellationToken);

impl StreamingService<Bytes> for PublishEach {
    type Response = Published;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(tonic::Response::new(Answers {
            door: self.0.clone(),
            requests: Some(request.into_inner()),
            stopping: Box::pin(self.1.clone().cancelled_owned()),
            events: Vec::new(),
        })))
    }
}

/// Answers requests in their order. A request is read only when its answer is
/// asked for, so a producer that does not take its answers is not read from.
struct Answers {
    door: Door,
    /// `None` after the last answer.
    requests: Option<Streaming<Bytes>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Kept for its allocation; empty between requests.
    events: Vec<Event<'static>>,
}

impl Stream for Answers {
    type Item = Result<Published, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(requests) = &mut this.requests else {
            return Poll::Ready(None);
        };
        // A producer that is always ahead must not keep its worker to itself.
        let budget = poll_ready!(coop::poll_proceed(cx));
        let answer = match Pin::new(requests).poll_next(cx) {
            Poll::Ready(Some(Ok(request))) => {
                let mut events = recycle(std::mem::take(&mut this.events));
                let answer = this.door.publish(&request, &mut events);
                this.events = recycle(events);
                Some(answer)
            }
            Poll::Ready(Some(Err(status))) => Some(Err(status)),
            Poll::Ready(None) => None,
            Poll::Pending => {
                poll_ready!(this.stopping.as_mut().poll(cx));
                Some(Err(status::stopping()))
            }
        };
        budget.made_progress();
        if !matches!(answer, Some(Ok(_))) {
            this.requests = None;
        }
        Poll::Ready(answer)
    }
}

/// The same allocation, for events of another request.
fn recycle<'a>(mut events: Vec<Event<'_>>) -> Vec<Event<'a>> {
    events.clear();
    events
        .into_iter()
        .map(|_| unreachable!("it was cleared"))
        .collect()
}

impl NamedService for PublisherService {
    const NAME: &'static str = "galaxy.push.publisher.v1.Publisher";
}

impl Service<Request<Body>> for PublisherService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let response = match request.uri().path() {
                PUBLISH => service.publish(request).await,
                PUBLISH_STREAM => service.publish_stream(request).await,
                _ => Err(Status::unimplemented("Publisher has no such method")),
            };
            Ok(response.unwrap_or_else(Status::into_http))
        })
    }
}
