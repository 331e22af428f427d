//! The listener, and the thread that it and the telemetry have.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use super::connections::{Connection, Connections};
use super::facts::Facts;
use super::hosts::Hosts;
use super::routes::{App, router};
use super::socket::{Socket, Stream};
use crate::access::{Authenticator, ClientCertificate, Peer};
use crate::activation::{InheritedSocket, StdListener};
use crate::config::Address;
use crate::listening::{BoundAddress, SocketFile, bind_tcp, bind_unix};
use crate::telemetry::{HandshakeResult, Telemetry};
use crate::tls::ServerTls;

/// How many connections there may be at a time.
pub(crate) const MAX_CONNECTIONS: u32 = 64;
/// Connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 64;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the headers of a request may take; over HTTP/1.1 also until they begin to come.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of a request's headers: a bearer token may have 8 KiB.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// The most requests at once on a connection.
const MAX_REQUESTS: u32 = 32;
/// How often an HTTP/2 connection is asked whether it is alive, and how long it may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How often the audit log is asked for what it has counted.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long answers that are under way have at the stop.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// How long accepting pauses after it failed for want of resources.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Peers that are told that there are too many connections: so many at once, for so long.
const MAX_REFUSALS: usize = 16;
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// By how much the thread is nicer than those that deliver: more than those of handshakes.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// How long a connection waits for the place of one that was cut, until another one is.
const STILL_WAITS: Duration = Duration::from_millis(20);
/// How often answers that nobody asks for any more are let go of.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// What a peer is told for which there is no place.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    content-length: 71\r\n\
    \r\n\
    {\"error\":\"TOO_MANY_CONNECTIONS\",\"message\":\"64 connections are at work\"}";

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: BoundSocket,
    address: BoundAddress,
    slots: Arc<Semaphore>,
}

/// Sockets that no runtime knows of yet.
#[derive(Debug)]
enum BoundSocket {
    Tcp(std::net::TcpListener),
    /// With its file, if that is ours to remove.
    Unix(std::os::unix::net::UnixListener, Option<SocketFile>),
}

impl Bound {
    /// Takes a socket that somebody else has bound.
    pub(crate) fn inherit(socket: InheritedSocket) -> io::Result<Self> {
        let (socket, address) = match socket.listener {
            StdListener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let address = BoundAddress::Tcp(listener.local_addr()?);
                (BoundSocket::Tcp(listener), address)
            }
            StdListener::Unix(listener, path) => {
                listener.set_nonblocking(true)?;
                (BoundSocket::Unix(listener, None), BoundAddress::Unix(path))
            }
        };
        Ok(Self::of(socket, address))
    }

    fn of(socket: BoundSocket, address: BoundAddress) -> Self {
        Bound {
            socket,
            address,
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)),
        }
    }

    /// Binds `address`.
    pub(crate) async fn bind(address: &Address) -> io::Result<Self> {
        let (socket, address) = match address {
            Address::Tcp(address) => {
                let listener = bind_tcp(address, BACKLOG).await?;
                let address = BoundAddress::Tcp(listener.local_addr()?);
                (BoundSocket::Tcp(listener.into_std()?), address)
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path, BACKLOG).await?;
                let address = BoundAddress::Unix(path.clone());
                (BoundSocket::Unix(listener.into_std()?, Some(file)), address)
            }
        };
        Ok(Self::of(socket, address))
    }

    pub(crate) fn address(&self) -> &BoundAddress {
        &self.address
    }

    /// Whether TLS can be spoken there.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.socket, BoundSocket::Tcp(_))
    }

    /// How many connections are open, for as long as that is of interest.
    pub(crate) fn connections(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let slots = Arc::clone(&self.slots);
        move || (MAX_CONNECTIONS as usize).saturating_sub(slots.available_permits()) as u64
    }
}

/// What the admin thread is for.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where operators are listened for, if anywhere.
    pub(crate) bound: Option<Bound>,
    pub(crate) telemetry: Telemetry,
    pub(crate) facts: Facts,
    /// `None`: whoever reaches the listener may do everything.
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    /// For a listener of TCP.
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) hosts: Arc<Hosts>,
}

/// The admin thread. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct Admin {
    stopping: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Admin {
    /// Starts it.
    pub(crate) fn start(settings: Settings) -> io::Result<Self> {
        let stopping = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stop = stopping.clone();
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                step_back();
                run(&runtime, settings, stop);
                // What is left of connections ends with it.
                drop(runtime);
                // It may be that nobody waits.
                let _ = end.send(());
            })?;
        Ok(Admin { stopping, ended })
    }

    /// Ends it, and waits for that.
    pub(crate) async fn stop(mut self) {
        self.stopping.cancel();
        // An error is its end, too.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// On Linux a nice value is a thread's own; elsewhere it would be the process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        // Should it fail, it shares the processors evenly with those that deliver.
        let _ = rustix::process::nice(NICER);
    }
}

fn run(runtime: &Runtime, settings: Settings, stopping: CancellationToken) {
    let Settings {
        bound,
        telemetry,
        facts,
        authenticator,
        tls,
        hosts,
    } = settings;
    runtime.block_on(async {
        tokio::spawn(telemetry.clone().run());
        let Some(bound) = bound else {
            stopping.cancelled().await;
            return;
        };
        let address = bound.address.clone();
        let app = App::new(telemetry.clone(), facts, authenticator, hosts);
        tokio::spawn(Arc::clone(&app.followers).run());
        let tidied = Arc::clone(&app);
        tokio::spawn(async move {
            loop {
                sleep(TIDY_INTERVAL).await;
                tidied.views.drop_old();
            }
        });
        match Listener::of(bound, &app, tls) {
            Ok(listener) => listener.run(&stopping).await,
            Err(error) => {
                tracing::error!(%address, "cannot listen for operators: {error}");
                stopping.cancelled().await;
            }
        }
    });
    // What was published last: nothing more is.
    telemetry.log_all_invalidations();
}

/// A socket that is listened on.
struct Listener {
    socket: ListenSocket,
    address: BoundAddress,
    app: Arc<App>,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    connections: Connections,
    refusals: Arc<Semaphore>,
}

enum ListenSocket {
    Tcp(TcpListener),
    /// The file is held for its drop.
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "held for its drop")] Option<SocketFile>,
    ),
}

/// What all connections share.
struct Shared {
    app: Arc<App>,
    router: Router,
    http: auto::Builder<TokioExecutor>,
    tls: Option<Arc<ServerTls>>,
}

impl Listener {
    fn of(bound: Bound, app: &Arc<App>, tls: Option<Arc<ServerTls>>) -> io::Result<Self> {
        let (socket, tls) = match bound.socket {
            BoundSocket::Tcp(listener) => {
                (ListenSocket::Tcp(TcpListener::from_std(listener)?), tls)
            }
            BoundSocket::Unix(listener, file) => {
                let listener = UnixListener::from_std(listener)?;
                (ListenSocket::Unix(listener, file), None)
            }
        };
        Ok(Listener {
            socket,
            address: bound.address,
            app: Arc::clone(app),
            shared: Arc::new(Shared {
                app: Arc::clone(app),
                router: router(app),
                http: http(),
                tls,
            }),
            slots: bound.slots,
            connections: Connections::default(),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        })
    }

    /// Serves whoever connects, until the stop.
    async fn run(self, stopping: &CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut report = interval(REPORT_INTERVAL);
        loop {
            tokio::select! {
                accepted = self.accept() => match accepted {
                    Ok((stream, peer)) => self.begin(stream, peer, &mut tasks),
                    Err(error) => {
                        tracing::warn!(
                            address = %self.address,
                            "cannot accept operators' connections, trying again: {error}"
                        );
                        sleep(BACK_OFF).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
                _ = report.tick() => self.app.access.report(),
                () = stopping.cancelled() => break,
            }
        }
        let Listener { socket, app, .. } = self;
        drop(socket);
        app.stopping.cancel();
        let _ = timeout(LAST_ANSWERS, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        loop {
            let accepted = match &self.socket {
                ListenSocket::Tcp(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer)))
                }
                ListenSocket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                    let uid = stream.peer_cred().ok().map(|of| of.uid());
                    (Stream::Unix(stream), Peer::Unix { uid })
                }),
            };
            use io::ErrorKind as E;
            match accepted {
                // Only the connection that was about to be accepted is at fault.
                Err(error)
                    if matches!(
                        error.kind(),
                        E::ConnectionAborted | E::ConnectionReset | E::Interrupted
                    ) => {}
                other => return other,
            }
        }
    }

    /// Has a connection served, in the place of an idle one where there is no other.
    fn begin(&self, stream: Stream, peer: Peer, tasks: &mut JoinSet<()>) {
        let shared = Arc::clone(&self.shared);
        let socket = Socket::new(stream);
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            let open = self.connections.open();
            open.has_place();
            tasks.spawn(async move {
                serve(&shared, open.connection(), socket, peer).await;
                drop((open, slot));
            });
        } else if self.connections.make_room() {
            let open = self.connections.open();
            let slots = Arc::clone(&self.slots);
            tasks.spawn(async move {
                // The one that was cut gives its slot back at once.
                let acquired = slots.acquire_owned();
                let mut acquired = pin!(acquired);
                let slot: Option<OwnedSemaphorePermit> = loop {
                    tokio::select! {
                        slot = &mut acquired => break slot.ok(),
                        () = open.connection().cut() => break None,
                        () = sleep(STILL_WAITS) => open.still_waits(),
                    }
                };
                if slot.is_some() {
                    open.has_place();
                    serve(&shared, open.connection(), socket, peer).await;
                }
                drop((open, slot));
            });
        } else if shared.tls.is_none()
            && let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned()
        {
            tasks.spawn(async move {
                let _ = timeout(REFUSAL_LINGER, refuse(socket)).await;
                drop(place);
            });
        }
    }
}

/// Tells a peer that there are too many, and waits until it has read that: a socket that is
/// closed with something unread answers with a reset, which may overtake what was written.
async fn refuse(mut socket: Socket) {
    if socket.write_all(TOO_MANY).await.is_ok() && socket.shutdown().await.is_ok() {
        let mut scrap = [0; 1024];
        while let Ok(1..) = socket.read(&mut scrap).await {}
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(MAX_HEADER_BYTES)
        .max_local_error_reset_streams(MAX_REQUESTS as usize)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    http
}

/// Serves one connection until it ends, is idle for long, or has to make room.
async fn serve(shared: &Shared, connection: &Arc<Connection>, socket: Socket, peer: Peer) {
    let served = async {
        let Some(tls) = &shared.tls else {
            let caller = Caller {
                peer,
                certificate: None,
            };
            return serve_http(shared, connection, socket, caller).await;
        };
        if let Some((stream, certificate)) = shake_hands(shared, tls, socket, peer).await {
            let caller = Caller { peer, certificate };
            serve_http(shared, connection, stream, caller).await;
        }
    };
    tokio::select! {
        () = served => {}
        () = connection.cut() => {}
    }
}

type TlsStream = tokio_rustls::server::TlsStream<Socket>;

/// The handshake. `None` where it failed.
async fn shake_hands(
    shared: &Shared,
    tls: &ServerTls,
    socket: Socket,
    peer: Peer,
) -> Option<(TlsStream, Option<Arc<ClientCertificate>>)> {
    let (config, ca_revision) = tls.current_of_admin();
    let shaken = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket)).await;
    let counts = shared.app.telemetry.handshakes();
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            counts.ended(HandshakeResult::Failed, false);
            tracing::debug!(%peer, "the TLS handshake of an operator failed: {error}");
            return None;
        }
        Err(_) => {
            counts.ended(HandshakeResult::Timeout, false);
            return None;
        }
    };
    let (_, session) = stream.get_ref();
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    counts.ended(HandshakeResult::Ok, is_resumed);
    let certificate = session
        .peer_certificates()
        .map(ClientCertificate::of_chain)
        .transpose();
    let certificate = certificate
        .inspect_err(|error| tracing::debug!(%peer, "the certificate of an operator: {error}"))
        .ok()?;
    if let Some(certificate) = &certificate
        && !is_resumed
    {
        // Else a ticket has brought it back, and whoever asks for it looks at it again.
        certificate.set_trusted_by(ca_revision);
    }
    Some((stream, certificate.map(Arc::new)))
}

async fn serve_http<S>(shared: &Shared, connection: &Arc<Connection>, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let router = TowerToHyperService::new(shared.router.clone());
    let service = service_fn(|mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        let under_way = connection.begin_request();
        let answer = router.call(request);
        async move {
            let answer: Result<_, Infallible> = answer.await;
            answer.map(|answer| answer.map(|body| under_way.until_end_of(body)))
        }
    });
    let served = shared.http.serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended: Option<()> = tokio::select! {
        // An error is the peer's, or that of the way to it.
        _ = served.as_mut() => Some(()),
        () = shared.app.stopping.cancelled() => None,
        () = connection.idle_too_long() => None,
    };
    if ended.is_none() {
        served.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWERS, served).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api;

    #[test]
    fn what_a_peer_is_told_for_which_there_is_no_place_is_an_answer() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())));
        let error: api::Error = serde_json::from_str(body).unwrap();
        assert_eq!(error.error, "TOO_MANY_CONNECTIONS");
        assert!(error.message.starts_with(&format!("{MAX_CONNECTIONS} ")));
    }
}
