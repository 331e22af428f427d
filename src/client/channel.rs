//! [`Connector`]: one HTTP/2 connection to an [`Address`], set up for streams
//! that carry much in one direction; over TLS and with a token, where it is told to.

use std::error::Error as StdError;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint, Uri};

use super::guard;
use super::pulse::Pulse;
use super::status::chain;
use super::token::{TokenError, TokenFile};
use super::wire::{Notes, Wire};
use crate::config::{Address, ParseAddressError};
use crate::tls::{ALPN_H2, ClientTls, HandshakeError, Loaded, TlsError};

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

/// Opens a connection in plaintext and without a credential: 1 MiB frames, large flow-control
/// windows, and HTTP/2 keepalive, so that a silent stream over a dead connection is noticed.
/// [`Connector`] opens others.
///
/// # Errors
///
/// The address is malformed, or no server accepts a connection there within five seconds.
pub async fn connect(address: &Address) -> Result<Channel, ConnectError> {
    let connector = Connector::new(address.clone());
    Ok(connector.connect().await?.channel)
}

/// How to connect to a server: where it is, whom to trust, and what to show.
///
/// ```no_run
/// use galaxy_push::client::Connector;
/// use galaxy_push::contract::publisher::publisher_client::PublisherClient;
/// use galaxy_push::tls::ClientTls;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connection = Connector::new("push.example:50052".parse()?)
///     .tls(ClientTls::new().ca("ca.pem"))
///     .token_file("/run/secrets/push-token")
///     .connect()
///     .await?;
/// let producer = PublisherClient::new(connection);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    address: Address,
    tls: Option<Arc<Tls>>,
    token: Option<Arc<TokenFile>>,
    allow_plaintext_token: bool,
}

/// TLS, and what its files held when they were read last.
#[derive(Debug)]
struct Tls {
    settings: ClientTls,
    loaded: Mutex<Option<Arc<Loaded>>>,
}

impl Connector {
    /// Connects to `address`, in plaintext and without a credential.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Connector {
            address,
            tls: None,
            token: None,
            allow_plaintext_token: false,
        }
    }

    /// The same, to another address.
    #[must_use]
    pub fn at(self, address: Address) -> Self {
        Connector { address, ..self }
    }

    /// Connects over TLS. Default: in plaintext. A Unix socket has no TLS: the two together
    /// are refused.
    #[must_use]
    pub fn tls(self, tls: ClientTls) -> Self {
        let tls = Tls {
            settings: tls,
            loaded: Mutex::new(None),
        };
        Connector {
            tls: Some(Arc::new(tls)),
            ..self
        }
    }

    /// Sends the bearer token in this file with every call, as `authorization: Bearer …`.
    /// Default: none.
    ///
    /// The file holds the token and nothing else; space around it does not count. It is read
    /// again with each connection, and for a call where the last look is a second old: a
    /// token may be renewed by replacing the file.
    #[must_use]
    pub fn token_file(self, path: impl Into<PathBuf>) -> Self {
        Connector {
            token: Some(Arc::new(TokenFile::new(path.into()))),
            ..self
        }
    }

    /// Whether a token may be sent in plaintext to another machine, where everyone on the
    /// way can read it. Default: no; it is sent over TLS, to this machine, and over a Unix
    /// socket. Sensible where something else encrypts, such as a mesh or a tunnel.
    #[must_use]
    pub fn allow_plaintext_token(self, allowed: bool) -> Self {
        Connector {
            allow_plaintext_token: allowed,
            ..self
        }
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The value of `authorization` that each call carries, from the token's file.
    #[cfg(feature = "bench")]
    pub(crate) fn authorization(&self) -> Result<Option<http::HeaderValue>, TokenError> {
        self.token.as_ref().map(|token| token.load()).transpose()
    }

    /// Checks the settings, and reads the files.
    ///
    /// # Errors
    ///
    /// Each one of [`connect`](Self::connect) that is known without a connection.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.check_settings()?;
        if let Some(tls) = &self.tls {
            tls.load()?;
        }
        if let Some(token) = &self.token {
            token.load()?;
        }
        Ok(())
    }

    fn check_settings(&self) -> Result<(), ConnectError> {
        self.address.check()?;
        match (self.address.host(), &self.tls) {
            (None, Some(_)) => return Err(ConnectError::TlsOverUnix),
            (Some(host), Some(tls)) => {
                tls.settings.name_of(host)?;
            }
            (Some(host), None) if !is_of_this_machine(host) => self.check_plaintext_token()?,
            _ => {}
        }
        Ok(())
    }

    /// For a connection in plaintext to another machine.
    fn check_plaintext_token(&self) -> Result<(), ConnectError> {
        if self.token.is_some() && !self.allow_plaintext_token {
            return Err(ConnectError::PlaintextToken {
                address: self.address.to_string(),
            });
        }
        Ok(())
    }

    /// Opens a connection: 1 MiB frames, large flow-control windows, and HTTP/2 keepalive,
    /// so that a silent stream over a dead connection is noticed. If it breaks, the next call
    /// opens another one, and reads the files again.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: a setting or a file is wrong, no server accepts a connection there
    /// within five seconds, or the TLS handshake fails. A server may refuse a client's
    /// certificate only after the handshake (with TLS 1.3): then the first call fails.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.check_settings()?;
        if let Some(token) = &self.token {
            token.read().await?;
        }
        let uri = |text: String| {
            text.parse::<Uri>()
                .map_err(|error| ConnectError::unreachable(&self.address, &error))
        };
        let authority = match (&self.address, &self.tls) {
            // The host only fills the `:authority` header.
            (Address::Unix(_), _) => "localhost".to_owned(),
            (Address::Tcp(at), Some(tls)) => match tls.settings.set_server_name() {
                Some(name) => with_host(at, name),
                None => at.clone(),
            },
            (Address::Tcp(at), None) => at.clone(),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // The scheme of the endpoint itself would ask for tonic's own TLS.
        let to_connect = match &self.address {
            Address::Tcp(at) => uri(format!("http://{at}"))?,
            Address::Unix(_) => Uri::from_static("http://localhost"),
        };
        let endpoint = endpoint(to_connect).origin(uri(format!("{scheme}://{authority}"))?);
        let connector = self.clone();
        let notes = Notes::default();
        let noted = notes.clone();
        let opened = endpoint
            .connect_with_connector(tower::service_fn(move |uri| {
                let (connector, notes) = (connector.clone(), noted.clone());
                async move { connector.open(uri, notes).await.map(TokioIo::new) }
            }))
            .await;
        match opened {
            Ok(channel) => Ok(Connection {
                channel,
                token: self.token.clone(),
                address: self.address.clone(),
                notes,
            }),
            Err(error) => Err(ConnectError::within(&error)
                .unwrap_or_else(|| ConnectError::unreachable(&self.address, &error))),
        }
    }

    /// Opens the bytes' way to the server.
    async fn open(&self, uri: Uri, notes: Notes) -> Result<Wire, ConnectError> {
        let unreachable = |error: &(dyn StdError + 'static)| ConnectError::Unreachable {
            address: self.address.to_string(),
            reason: chain(error),
        };
        let host = match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                return match stream {
                    Ok(stream) => Ok(Wire::unix(stream, notes)),
                    Err(error) => Err(unreachable(&error)),
                };
            }
            Address::Tcp(_) => self.address.host().unwrap_or_default(),
        };
        // The files first: a server need not wait for this side's disk.
        let tls = match &self.tls {
            None => None,
            Some(tls) => Some((tls.reload().await?, tls.settings.name_of(host)?)),
        };
        if let Some(token) = &self.token {
            token.read().await?;
        }
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let stream = tcp
            .call(uri)
            .await
            .map_err(|error| unreachable(&error))?
            .into_inner();
        match tls {
            Some((loaded, name)) => {
                let connector = TlsConnector::from(Arc::clone(loaded.config()));
                let tls_error = |reason| ConnectError::Tls {
                    address: self.address.to_string(),
                    reason,
                };
                let stream = connector
                    .connect(name, stream)
                    .await
                    .map_err(|error| tls_error(HandshakeError::of_handshake(&error)))?;
                if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
                    return Err(tls_error(HandshakeError::NoHttp2));
                }
                Ok(Wire::tls(stream, notes))
            }
            None => {
                if !is_loopback(&stream) {
                    self.check_plaintext_token()?;
                }
                Ok(Wire::tcp(stream, notes))
            }
        }
    }
}

impl Tls {
    fn load(&self) -> Result<Arc<Loaded>, TlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.settings.load(loaded.as_ref())?;
        *loaded = Some(Arc::clone(&now));
        Ok(now)
    }

    /// As [`load`](Self::load), on a thread that may wait for a disk.
    async fn reload(self: &Arc<Self>) -> Result<Arc<Loaded>, TlsError> {
        let tls = Arc::clone(self);
        match tokio::task::spawn_blocking(move || tls.load()).await {
            Ok(loaded) => loaded,
            Err(error) => Err(TlsError::Other(error.to_string())),
        }
    }
}

/// `HOST:PORT` with another host.
fn with_host(at: &str, host: &str) -> String {
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    match at.rsplit_once(':') {
        Some((_, port)) if is_bare_ipv6 => format!("[{host}]:{port}"),
        Some((_, port)) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether this host can only be this machine. What `localhost` really leads to is looked at
/// once it is connected.
fn is_of_this_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn is_loopback(stream: &TcpStream) -> bool {
    stream
        .peer_addr()
        .is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
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

/// A connection to a server, for tonic's clients: it adds the token to every call. Clones
/// share it.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    token: Option<Arc<TokenFile>>,
    address: Address,
    notes: Notes,
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel
            .poll_ready(cx)
            .map_err(|error| explain(error, &self.notes, &self.address))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The channel that is ready makes the call; its clone may not be.
        let next = self.channel.clone();
        let mut ready = std::mem::replace(&mut self.channel, next);
        let token = self.token.clone();
        let (notes, address) = (self.notes.clone(), self.address.clone());
        Box::pin(async move {
            if let Some(token) = token {
                let value = token.authorization().await.map_err(|error| {
                    // What a caller gets to see, as from a server.
                    Status::unauthenticated(error.to_string())
                })?;
                let headers = request.headers_mut();
                headers.insert(http::header::AUTHORIZATION, value);
            }
            let pulse = request.extensions_mut().remove::<Pulse>();
            let response = ready.call(request).await;
            response
                .map(guard::readable)
                .map(|response| match pulse {
                    Some(pulse) => pulse.watch(response, notes.clone()),
                    None => response,
                })
                .map_err(|error| explain(error, &notes, &address))
        })
    }
}

/// The error of a call over a connection that the server has refused says why.
fn explain(
    error: tonic::transport::Error,
    notes: &Notes,
    address: &Address,
) -> Box<dyn StdError + Send + Sync> {
    let Some(reason) = notes.known() else {
        return error.into();
    };
    let error = ConnectError::Tls {
        address: address.to_string(),
        reason,
    };
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status.into()
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
    /// A server is there, and there is no TLS connection with it.
    #[error("cannot connect to {address}: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        reason: HandshakeError,
    },
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The token's file cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// TLS was asked for over a Unix socket.
    #[error("a Unix socket has no TLS: leave TLS out, or connect to HOST:PORT")]
    TlsOverUnix,
    /// A token would be sent in plaintext to another machine.
    #[error(
        "the token would go to {address} in plaintext, where everyone on the way can read it: use TLS (--tls), or allow it (--allow-plaintext-token)"
    )]
    PlaintextToken {
        /// Where.
        address: String,
    },
}

impl ConnectError {
    fn unreachable(address: &Address, error: &(dyn StdError + 'static)) -> Self {
        ConnectError::Unreachable {
            address: address.to_string(),
            // The transport's own word for it is only that it did not work.
            reason: chain(error.source().unwrap_or(error)),
        }
    }

    /// The one among an error's causes, where there is one.
    fn within(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(found) = cause.downcast_ref::<ConnectError>() {
                return Some(found.clone());
            }
            next = cause.source();
        }
        None
    }

    /// Whether a setting or a file is wrong, rather than the connection.
    #[must_use]
    pub fn is_of_settings(&self) -> bool {
        !matches!(
            self,
            ConnectError::Unreachable { .. } | ConnectError::Tls { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, tls: bool, token: bool, allowed: bool) -> Result<(), ConnectError> {
        let mut connector = Connector::new(address.parse().unwrap()).allow_plaintext_token(allowed);
        if tls {
            connector = connector.tls(ClientTls::new());
        }
        if token {
            connector = connector.token_file("token");
        }
        connector.check_settings()
    }

    #[test]
    fn a_token_goes_in_plaintext_to_this_machine_alone() {
        for here in [
            "127.0.0.1:1",
            "127.8.9.1:1",
            "[::1]:1",
            "localhost:1",
            "LocalHost:1",
            "unix:/s",
        ] {
            assert_eq!(check(here, false, true, false), Ok(()), "{here}");
        }
        for elsewhere in [
            "10.0.0.1:1",
            "0.0.0.0:1",
            "[2001:db8::1]:1",
            "push.example:1",
            "localhost.example:1",
        ] {
            assert_eq!(
                check(elsewhere, false, true, false),
                Err(ConnectError::PlaintextToken {
                    address: elsewhere.to_owned()
                })
            );
            assert_eq!(check(elsewhere, false, true, true), Ok(()), "{elsewhere}");
            assert_eq!(check(elsewhere, true, true, false), Ok(()), "{elsewhere}");
            assert_eq!(check(elsewhere, false, false, false), Ok(()), "{elsewhere}");
        }
    }

    #[test]
    fn tls_needs_a_name_and_no_unix_socket() {
        assert_eq!(
            check("unix:/s", true, false, false),
            Err(ConnectError::TlsOverUnix)
        );
        for address in ["a.example:1", "127.0.0.1:1", "[::1]:1"] {
            assert_eq!(check(address, true, false, false), Ok(()), "{address}");
        }
        assert!(matches!(
            check("a..b:1", true, false, false),
            Err(ConnectError::Files(TlsError::ServerName { .. }))
        ));
    }

    #[test]
    fn a_set_name_replaces_the_host() {
        assert_eq!(with_host("10.0.0.1:5", "a.example"), "a.example:5");
        assert_eq!(with_host("[::1]:5", "a.example"), "a.example:5");
        assert_eq!(with_host("a:5", "::1"), "[::1]:5");
    }
}
