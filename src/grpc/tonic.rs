//! `galaxy.backend.push.v1.Push` as a service, for a server that is not ours.
//!
//! The service is written against HTTP instead of tonic's generated trait, so
//! that a response's body can be [`PushBody`]; tonic's own encodes each message
//! into a buffer of its own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::task::coop;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};
use tower::Service;

use super::authorization::AccessControl;
use super::gateways::Gateways;
use super::message::{self, Next};
use super::router::{Methods, Origin};
use super::subscribe::{self, Frames, MAX_REQUEST_BYTES, Subscription};
use super::{MAX_FIELD_BYTES, MAX_STREAMS, status};
use crate::access::{AccessError, Authenticator, ClientCertificate, Peer};
use crate::config::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::contract::{MESSAGE_PREFIX_BYTES, path};
use crate::engine::Engine;
use crate::service::Caller;
use crate::spans::Parent;
use crate::telemetry::Telemetry;

/// Streams that the peer opened and reset before they were looked at
/// (CVE-2023-44487), and streams that we reset for the peer's errors: more of
/// them end the connection.
const MAX_PENDING_ACCEPT_RESETS: usize = 20;
const MAX_LOCAL_ERROR_RESETS: usize = 256;

/// A gateway sends one request of a few hundred bytes per call.
const GATEWAY_STREAM_WINDOW: u32 = 16 << 10;

/// All calls of a connection together: the most that may have to be held unread.
///
/// Half of it is also how much h2 tolerates of unread small DATA frames, of which
/// each weighs what it lacks of 256 bytes; above, it ends the connection. So the
/// windows of calls must stay well below it: so far that a proxy may subscribe all its
/// gateways at once.
const GATEWAY_CONNECTION_WINDOW: u32 = 1 << 20;

/// `SubscribePush` out of an [`Engine`], for any tonic server.
///
/// It stands beside your own services like any generated one, behind interceptors
/// and TLS too. Events, metadata and statuses are those of
/// [`server::Server`](crate::server::Server), and here as there a stream's events
/// go from the ring to HTTP/2 without being copied.
///
/// ```no_run
/// use galaxy_push::grpc::{PushService, for_gateways};
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
/// # Who may subscribe
///
/// Everybody who reaches it, unless it has an [authenticator](Self::with_authenticator). That
/// is shown the request's `authorization` field, the peer's address and its certificate, as
/// tonic knows them for TCP and unix sockets, with its own TLS or without. Behind another TLS,
/// or an acceptor of your own, have a layer insert an `Arc<ClientCertificate>` and a [`Peer`]
/// into the request's extensions; they count before what tonic knows. Insert only what your
/// TLS has verified.
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
/// [`for_gateways`](for_gateways) has its streams ended. Should its socket be
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
    telemetry: Telemetry,
    access: Option<AccessControl>,
}

impl PushService {
    /// Serves `engine`.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        PushService {
            telemetry: Telemetry::of(&engine),
            access: None,
        }
    }

    /// Serves only those whom this lets in, under the ids that it grants. Streams end when
    /// their credential does, as they do at [`server::Server`](crate::server::Server).
    ///
    /// Clones count a principal's streams together.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Arc<dyn Authenticator>) -> Self {
        let access = Some(AccessControl::new(authenticator, &self.telemetry));
        PushService { access, ..self }
    }

    /// Who calls, where it matters.
    fn authorize(&self, head: &Parts) -> Result<Origin, Status> {
        let caller = caller(&head.extensions)?;
        let peer = caller.peer;
        let authorization = match &self.access {
            None => None,
            Some(access) => {
                access.run_once();
                Some(access.authorize(&caller, &head.headers)?)
            }
        };
        Ok(Origin {
            peer,
            authorization,
            // Whoever serves it traces it.
            parent: Parent::none(),
        })
    }

    async fn subscribe(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        status::refuse_compression(&head.headers)?;
        let origin = self.authorize(&head)?;
        let options = subscribe::Options::read(&head.headers)?;
        let limit = Gateways::REQUEST_TIMEOUT;
        let collected = timeout(limit, collect(body)).await;
        let body = collected.map_err(|_| status::request_timeout(limit))??;
        let message = only_message(&body, true)?;
        let engine = self.telemetry.engine();
        if let Some(cursor) = subscribe::ahead(engine, message) {
            subscribe::catch_up(engine.clone(), cursor).await;
        }
        let subscription = Subscription::start(&self.telemetry, message, origin, &options)?;
        Ok(respond(subscription))
    }
}

/// Who is at the other end, as far as tonic or a layer says.
fn caller(extensions: &Extensions) -> Result<Caller, Status> {
    let tcp = extensions.get::<TcpConnectInfo>();
    let unix = extensions.get::<UdsConnectInfo>();
    let peer = if let Some(peer) = extensions.get::<Peer>() {
        *peer
    } else if let Some(address) = tcp.and_then(TcpConnectInfo::remote_addr) {
        Peer::Tcp(address)
    } else if let Some(unix) = unix {
        let uid = unix.peer_cred.map(|credentials| credentials.uid());
        Peer::Unix { uid }
    } else {
        Peer::Unknown
    };
    let inserted = extensions.get::<Arc<ClientCertificate>>();
    let certificate = match inserted {
        Some(certificate) => Some(Arc::clone(certificate)),
        None => verified_certificate(extensions)?.map(Arc::new),
    };
    Ok(Caller { peer, certificate })
}

/// The certificate that tonic's own TLS has verified, if the client has shown one.
fn verified_certificate(extensions: &Extensions) -> Result<Option<ClientCertificate>, Status> {
    let over_tcp = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let over_unix = extensions.get::<TlsConnectInfo<UdsConnectInfo>>();
    let chain = over_tcp
        .and_then(TlsConnectInfo::peer_certs)
        .or_else(|| over_unix.and_then(TlsConnectInfo::peer_certs));
    let Some(certificate) = chain.as_ref().and_then(|chain| chain.first()) else {
        return Ok(None);
    };
    ClientCertificate::parse(certificate)
        .map(Some)
        .map_err(|error| status::access(&AccessError::Malformed(error.to_string())))
}

/// A request's body, which is not longer than one message may be.
async fn collect(mut body: Body) -> Result<Vec<u8>, Status> {
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            collected.extend_from_slice(&data);
            if collected.len() > MESSAGE_PREFIX_BYTES + MAX_REQUEST_BYTES {
                only_message(&collected, false)?;
            }
        }
    }
    Ok(collected)
}

/// The only message of a body; none of one that is not complete.
fn only_message(body: &[u8], is_complete: bool) -> Result<&[u8], Status> {
    let next = message::only(body, is_complete, MAX_REQUEST_BYTES, subscribe::NAME)?;
    Ok(match next {
        Next::Message(bytes) => &body[MESSAGE_PREFIX_BYTES..][..bytes],
        Next::Part { .. } | Next::Nothing | Next::End => &[],
    })
}

/// The response's head; hyper sends it at once, before it asks the body for anything.
fn respond(subscription: Subscription) -> Response<Body> {
    let fields = subscription.response_fields();
    let mut response = Response::new(Body::new(PushBody::new(subscription)));
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
            let response = if request.uri().path() == path::SUBSCRIBE_PUSH {
                service.subscribe(request).await
            } else {
                Err(status::unknown_method("Push", Gateways::PATHS))
            };
            Ok(response.unwrap_or_else(Status::into_http))
        })
    }
}

/// One stream. A batch becomes one piece of data without being copied; h2 cuts
/// it into DATA frames.
#[derive(Debug)]
struct PushBody {
    /// `None` once the trailers are out.
    subscription: Option<Subscription>,
}

impl PushBody {
    fn new(subscription: Subscription) -> Self {
        PushBody {
            subscription: Some(subscription),
        }
    }
}

impl http_body::Body for PushBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(subscription) = &mut this.subscription else {
            return Poll::Ready(None);
        };
        // hyper asks for as long as the peer's window lasts; without a budget, one
        // fast gateway that is far behind would keep its worker to itself.
        let budget = ready!(coop::poll_proceed(cx));
        let received = ready!(subscription.poll_next(cx));
        budget.made_progress();
        Poll::Ready(Some(match received {
            Ok(Frames::Events(batch)) => Ok(Frame::data(batch.into_bytes())),
            Ok(Frames::Missed(frames)) => Ok(Frame::data(frames.into())),
            Ok(Frames::Position(frame)) => Ok(Frame::data(Bytes::copy_from_slice(&frame))),
            Err(status) => {
                this.subscription = None;
                Ok(Frame::trailers(status::trailers(&status)))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.subscription.is_none()
    }
}

/// The settings of HTTP/2 that we serve gateways with ourselves, for a tonic server
/// with a [`PushService`] on it.
///
/// | setting | value | if it were not set |
/// |---|---|---|
/// | keepalive interval and timeout | 20 s each | a gateway that is gone without a word keeps its stream until the kernel gives up |
/// | stream window | 16 KiB | 1 MiB |
/// | connection window: what may have to be held unread | 1 MiB | the same |
/// | concurrent streams | 256 | no limit |
/// | header list | 16 KiB | the same |
/// | streams reset by the peer, or for its errors | 20, 256 | 20, no limit |
///
/// What is set after this wins: `for_gateways(builder).initial_stream_window_size(…)`.
/// The stream window holds for the server's other services as well: one that takes
/// long requests, such as uploads, wants a larger one, up to a quarter of the
/// connection's.
///
/// What they mean for gateways that take nothing, and what they leave open, is told
/// at [`PushService`].
///
/// Nothing of this is about what is sent to gateways; there, the gateway's settings
/// count. 1 MiB frames and windows of some megabytes, as
/// [`client::connect`](crate::client::connect) offers them, cost a server the least.
/// `TCP_NODELAY` is tonic's default where it listens itself; with
/// [`TcpIncoming`](tonic::transport::server::TcpIncoming), set it there.
#[must_use]
pub fn for_gateways<L>(server: Server<L>) -> Server<L> {
    server
        .initial_stream_window_size(GATEWAY_STREAM_WINDOW)
        .initial_connection_window_size(GATEWAY_CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_FIELD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_ACCEPT_RESETS))
        // hyper would set no limit at all if tonic passed none on.
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_ERROR_RESETS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::event::Event;
    use http_body::Body;
    use std::future::poll_fn;

    /// A `PushEvent` with the smallest client event.
    const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";

    fn body(engine: &Engine) -> PushBody {
        // One event a batch, so that there are many.
        let request = b"\x0a\x07gateway";
        let origin = Origin {
            peer: Peer::Unknown,
            authorization: None,
            parent: Parent::none(),
        };
        let telemetry = Telemetry::of(engine);
        let subscription =
            Subscription::start(&telemetry, request, origin, &subscribe::Options::default())
                .unwrap();
        PushBody::new(subscription.max_batch_bytes(1))
    }

    #[tokio::test]
    async fn a_body_that_is_always_ready_yields_now_and_then() {
        let engine = Engine::builder().build().unwrap();
        let mut body = body(&engine);
        let event = Event::parse(EVENT).unwrap();
        let count = 10_000;
        engine
            .publisher()
            .publish_batch(&vec![event; 4000])
            .unwrap();
        engine
            .publisher()
            .publish_batch(&vec![event; 4000])
            .unwrap();
        engine
            .publisher()
            .publish_batch(&vec![event; 2000])
            .unwrap();
        let mut taken = 0;
        let mut yields = 0;
        while taken < count {
            poll_fn(|cx| {
                loop {
                    match Pin::new(&mut body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(_))) => taken += 1,
                        Poll::Ready(other) => panic!("{other:?}"),
                        Poll::Pending => return Poll::Ready(()),
                    }
                    if taken == count {
                        return Poll::Ready(());
                    }
                }
            })
            .await;
            yields += 1;
            tokio::task::yield_now().await;
        }
        assert!(yields > 10, "{yields}");
    }

    #[tokio::test]
    async fn after_the_trailers_there_is_nothing() {
        let engine = Engine::builder().build().unwrap();
        let mut body = body(&engine);
        engine.close();
        assert!(!body.is_end_stream());
        let mut next = async || poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let trailers = next().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert!(next().await.is_none());
        assert!(body.is_end_stream());
    }
}
