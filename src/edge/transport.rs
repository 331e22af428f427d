//! Serves the connections of each listener: gateways by [`Downlink`]s, producers by
//! [`Uplink`]s; and our settings for a tonic server that serves gateways.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use super::connection::{MAX_FIELD_BYTES, MAX_STREAMS};
use super::downlink::{self, Downlink};
use super::listener::Listener;
use super::stall::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, Watch};
use super::uplink::{self, Uplink};
use crate::engine::Engine;

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

/// How long producers are answered that the server is stopping, before their
/// connections end: a client that loses its connection under a call cannot tell
/// whether that was published.
const LAME_DUCK: Duration = Duration::from_millis(250);

/// Serves gateways until `stopping`, and then until the last connection ends.
pub(crate) async fn serve_gateways(
    listener: Listener,
    engine: Engine,
    watch: Watch,
    stopping: CancellationToken,
) {
    let hub = downlink::Hub::new(engine, watch.clone());
    let serving = TaskTracker::new();
    let incoming = listener.incoming(watch, stopping, Duration::ZERO);
    let mut incoming = pin!(incoming);
    while let Some(connection) = incoming.next().await {
        serving.spawn(Downlink::new(Arc::clone(&hub), connection));
    }
    // That was the last connection: it is `stopping` that ends them.
    hub.stop();
    serving.close();
    serving.wait().await;
}

/// Serves producers until `stopping`, and then until the last connection ends.
pub(crate) async fn serve_producers(
    listener: Listener,
    engine: Engine,
    watch: Watch,
    stopping: CancellationToken,
) {
    let hub = uplink::Hub::new(engine, watch.clone());
    let serving = TaskTracker::new();
    let stop = async {
        stopping.cancelled().await;
        hub.stop();
    };
    let serve = async {
        let incoming = listener.incoming(watch, stopping.clone(), LAME_DUCK);
        let mut incoming = pin!(incoming);
        while let Some(connection) = incoming.next().await {
            serving.spawn(Uplink::new(Arc::clone(&hub), connection));
        }
    };
    tokio::join!(stop, serve);
    hub.leave();
    serving.close();
    serving.wait().await;
}

/// The settings of HTTP/2 that we serve gateways with ourselves, for a tonic server
/// with a [`PushService`](super::PushService) on it.
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
/// at [`PushService`](super::PushService).
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
