//! How HTTP/2 is spoken on each listener: tonic's transport, with every limit
//! set on purpose.

use std::future::pending;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::{Error, Server};

use super::listener::Listener;
use super::publisher::PublisherService;
use super::push::PushService;
use super::stall::Watch;

/// Peers that are gone without a word are found by pings that go unanswered:
/// after the interval and the timeout together. Gateways may sit behind NATs and
/// balancers that forget idle connections, some after less than a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// All headers of one request together. Ours fit into a few hundred bytes;
/// tokens and tracing headers take the rest.
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;

/// Calls at a time on one connection. A gateway needs one, a proxy that carries
/// many gateways opens as many connections as it needs.
const MAX_CONCURRENT_STREAMS: u32 = 256;

/// Streams that the peer opened and reset before they were looked at
/// (CVE-2023-44487), and streams that we reset for the peer's errors: more of
/// them end the connection.
const MAX_PENDING_ACCEPT_RESETS: usize = 20;
const MAX_LOCAL_ERROR_RESETS: usize = 256;

/// A gateway sends one request of a few hundred bytes per call.
const GATEWAY_STREAM_WINDOW: u32 = 16 << 10;

/// What a producer may send ahead of us on one call: enough to keep a fast link
/// busy.
const PRODUCER_STREAM_WINDOW: u32 = 256 << 10;

/// All calls of a connection together: the most that may have to be held unread.
///
/// Half of it is also how much h2 tolerates of unread small DATA frames, of which
/// each weighs what it lacks of 256 bytes; above, it ends the connection. So the
/// windows of calls must stay well below it: so far that a producer may fill its
/// call's window with requests of 30 bytes, each in a frame of its own, and a proxy
/// may subscribe all its gateways at once.
const GATEWAY_CONNECTION_WINDOW: u32 = 1 << 20;
const PRODUCER_CONNECTION_WINDOW: u32 = 4 << 20;

/// How long producers are answered that the server is stopping, before their
/// connections end: a client that loses its connection under a call cannot tell
/// whether that was published.
const LAME_DUCK: Duration = Duration::from_millis(250);

/// Serves gateways until `stopping`, and then until the last connection ends.
///
/// It is the end of the incoming connections that stops tonic. The signal never
/// comes; without one, tonic would not end what it has accepted gracefully.
pub(crate) async fn serve_gateways(
    listener: Listener,
    push: PushService,
    watch: Watch,
    stopping: CancellationToken,
) -> Result<(), Error> {
    transport()
        .initial_stream_window_size(GATEWAY_STREAM_WINDOW)
        .initial_connection_window_size(GATEWAY_CONNECTION_WINDOW)
        .add_service(push)
        .serve_with_incoming_shutdown(
            listener.incoming(watch, stopping, Duration::ZERO),
            pending(),
        )
        .await
}

/// Serves producers until `stopping`, and then until the last connection ends.
pub(crate) async fn serve_producers(
    listener: Listener,
    publisher: PublisherService,
    watch: Watch,
    stopping: CancellationToken,
) -> Result<(), Error> {
    transport()
        .initial_stream_window_size(PRODUCER_STREAM_WINDOW)
        .initial_connection_window_size(PRODUCER_CONNECTION_WINDOW)
        .add_service(publisher)
        .serve_with_incoming_shutdown(listener.incoming(watch, stopping, LAME_DUCK), pending())
        .await
}

fn transport() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_ACCEPT_RESETS))
        // hyper would set no limit at all if tonic passed none on.
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_ERROR_RESETS))
}
