//! [`connect`]: one HTTP/2 connection to an [`Address`], set up for streams
//! that carry much in one direction.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::status::chain;
use crate::config::{Address, ParseAddressError};

/// The server writes one DATA frame per system call: with the 16 KiB that
/// HTTP/2 starts with, a burst costs it sixty times as many.
const FRAME_BYTES: u32 = 1 << 20;
/// What may be under way and unread. It bounds this side's memory as well.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Far more than the one stream may use, because half of it is what h2 tolerates
/// of unread small DATA frames, of which each weighs what it lacks of 256 bytes.
/// At low rates every event comes in a frame of its own, so a caller that pauses
/// would lose its connection over a few ten thousand of them.
const CONNECTION_WINDOW_BYTES: u32 = 128 << 20;

/// A frame with little more than a cursor in it.
const SMALL_FRAME_BYTES: u32 = 48;
const _: () = assert!(
    CONNECTION_WINDOW_BYTES / 2
        > STREAM_WINDOW_BYTES / SMALL_FRAME_BYTES * (256 - SMALL_FRAME_BYTES),
    "a stream's window full of small frames must stay within h2's budget"
);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is noticed after the sum of these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a connection: 1 MiB frames, large flow-control windows, and HTTP/2
/// keepalive, so that a silent stream over a dead connection is noticed.
///
/// # Errors
///
/// The address is malformed, or no server accepts a connection there within five seconds.
pub async fn connect(address: &Address) -> Result<Channel, ConnectError> {
    address.check()?;
    let connected = match address {
        Address::Tcp(at) => {
            let uri: Uri = format!("http://{at}")
                .parse()
                .map_err(|error| ConnectError::unreachable(address, &error))?;
            endpoint(uri).connect().await
        }
        Address::Unix(path) => {
            let path = path.clone();
            // The host only fills the `:authority` header.
            endpoint(Uri::from_static("http://localhost"))
                .connect_with_connector(tower::service_fn(move |_| open_unix(path.clone())))
                .await
        }
    };
    connected.map_err(|error| ConnectError::unreachable(address, &error))
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

async fn open_unix(path: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(path).await.map(TokioIo::new)
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address has not the form of one.
    #[error("the address is malformed: {0}")]
    Address(#[from] ParseAddressError),
    /// No server is there, or it does not speak HTTP/2.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system or the transport says.
        reason: String,
    },
}

impl ConnectError {
    fn unreachable(address: &Address, error: &(dyn std::error::Error + 'static)) -> Self {
        ConnectError::Unreachable {
            address: address.to_string(),
            // The transport's own word for it is only that it did not work.
            reason: chain(error.source().unwrap_or(error)),
        }
    }
}
