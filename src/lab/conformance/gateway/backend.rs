//! [`Backend`]: a server of the contract that does nothing by itself. Each subscription is an
//! [`Arrival`], which the kit answers as it likes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::super::promise::{Judged, broken};
use crate::command::Failure;
use crate::contract::gateway::gateway_server::{Gateway, GatewayServer};
use crate::contract::gateway::{ReportRequest, ReportResponse};
use crate::contract::push::push_server::{Push, PushServer};
use crate::contract::push::{GatewaySubscribeRequest, PushEvent};

/// What gateways have done, in its order.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub(super) reports: Reports,
}

/// A subscription that waits for its answer.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) id: String,
    pub(super) cursor: String,
    pub(super) metadata: MetadataMap,
    pub(super) at: Instant,
    answer: oneshot::Sender<Result<Response<Messages>, Status>>,
}

/// A stream that a gateway reads.
#[derive(Debug)]
pub(super) struct Open {
    outgoing: Arc<Mutex<Outgoing>>,
    gone: watch::Receiver<bool>,
    heartbeats: Option<AbortHandle>,
}

#[derive(Debug)]
struct Outgoing {
    messages: mpsc::UnboundedSender<Result<PushEvent, Status>>,
    /// The cursor of the newest message: what a heartbeat says.
    position: String,
}

/// What gateways have reported as enforced.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    inner: Arc<Mutex<ReportsInner>>,
}

#[derive(Debug, Default)]
struct ReportsInner {
    /// All of them.
    received: Vec<ReportRequest>,
    /// What they are answered with; none are taken while it is empty.
    head: String,
}

impl Reports {
    /// From now on, reports are answered with this.
    pub(super) fn set_head(&self, head: &str) {
        head.clone_into(&mut self.lock().head);
    }

    pub(super) fn all(&self) -> Vec<ReportRequest> {
        self.lock().received.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ReportsInner> {
        lock(&self.inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend {
    /// Listens; must be called in a runtime.
    pub(super) async fn start(listen: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("cannot listen on {listen}: {error}"))
        };
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let reports = Reports::default();
        let serving = Server::builder()
            .add_service(PushServer::new(Subscriptions { arrivals: sender }))
            .add_service(GatewayServer::new(reports.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(serving);
        Ok(Backend {
            address,
            arrivals,
            reports,
        })
    }
}

struct Subscriptions {
    arrivals: mpsc::UnboundedSender<Arrival>,
}

#[tonic::async_trait]
impl Push for Subscriptions {
    type SubscribePushStream = Messages;

    async fn subscribe_push(
        &self,
        request: Request<GatewaySubscribeRequest>,
    ) -> Result<Response<Messages>, Status> {
        let (answer, answered) = oneshot::channel();
        let (metadata, _, message) = request.into_parts();
        let arrival = Arrival {
            id: message.gateway_client_id,
            cursor: message.cursor,
            metadata,
            at: Instant::now(),
            answer,
        };
        let over = || Status::unavailable("the conformance kit has ended");
        self.arrivals.send(arrival).map_err(|_| over())?;
        answered.await.map_err(|_| over())?
    }
}

#[tonic::async_trait]
impl Gateway for Reports {
    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let mut inner = self.lock();
        inner.received.push(request.into_inner());
        let head_cursor = inner.head.clone();
        if head_cursor.is_empty() {
            return Err(Status::failed_precondition("there is no stream"));
        }
        Ok(Response::new(ReportResponse { head_cursor }))
    }
}

impl Arrival {
    /// Whether the gateway still waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.answer.is_closed()
    }

    /// A value of the request's metadata.
    pub(super) fn header(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.to_str().ok()
    }

    pub(super) fn refuse(self, status: Status) {
        // Whoever has gone needs no answer.
        let _ = self.answer.send(Err(status));
    }

    /// Opens the stream with this initial metadata.
    pub(super) fn accept(self, headers: &[(&'static str, String)]) -> Judged<Open> {
        let (messages, queue) = mpsc::unbounded_channel();
        let (leave, gone) = watch::channel(false);
        let mut response = Response::new(Messages { queue, gone: leave });
        for (key, value) in headers {
            match value.parse() {
                Ok(value) => response.metadata_mut().insert(*key, value),
                Err(_) => return broken(format!("the kit cannot send {key}: {value:?}")),
            };
        }
        let _ = self.answer.send(Ok(response));
        let outgoing = Outgoing {
            messages,
            position: String::new(),
        };
        Ok(Open {
            outgoing: Arc::new(Mutex::new(outgoing)),
            gone,
            heartbeats: None,
        })
    }
}

impl Open {
    /// Sends a message. A gateway that has left the stream does not get it.
    pub(super) fn send(&self, message: PushEvent) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.position.clone_from(&message.cursor);
        let _ = outgoing.messages.send(Ok(message));
    }

    /// From now on, heartbeats come at this interval, from this position on.
    pub(super) fn beat(&mut self, interval: Duration, position: String) {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.position.is_empty() {
            outgoing.position = position;
        }
        drop(outgoing);
        let outgoing = Arc::downgrade(&self.outgoing);
        let beating = tokio::spawn(async move {
            loop {
                sleep(interval).await;
                let Some(outgoing) = outgoing.upgrade() else {
                    return;
                };
                let outgoing = lock(&outgoing);
                let heartbeat = PushEvent {
                    kind: None,
                    cursor: outgoing.position.clone(),
                };
                let _ = outgoing.messages.send(Ok(heartbeat));
            }
        });
        self.heartbeats = Some(beating.abort_handle());
    }

    /// Nothing more comes by itself.
    pub(super) fn silence(&mut self) {
        if let Some(heartbeats) = self.heartbeats.take() {
            heartbeats.abort();
        }
    }

    /// Ends the stream, after what was sent.
    pub(super) async fn end(mut self, status: Status) {
        self.silence();
        let _ = lock(&self.outgoing).messages.send(Err(status));
        // What is queued goes out first.
        let _ = timeout(Duration::from_secs(10), self.gone.wait_for(|gone| *gone)).await;
    }

    pub(super) fn is_open(&self) -> bool {
        !*self.gone.borrow()
    }

    /// Waits until the gateway has left it.
    pub(super) async fn left(&mut self) {
        // An error: the stream is gone as well.
        let _ = self.gone.wait_for(|gone| *gone).await;
    }
}

/// The messages of a response.
#[derive(Debug)]
pub(super) struct Messages {
    queue: mpsc::UnboundedReceiver<Result<PushEvent, Status>>,
    gone: watch::Sender<bool>,
}

impl Stream for Messages {
    type Item = Result<PushEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(cx)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.gone.send_replace(true);
    }
}
