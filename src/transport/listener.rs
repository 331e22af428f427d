//! Where peers connect: TCP and unix sockets, up to a number of connections.
//!
//! A peer that comes when the limit is reached is told so (GOAWAY, with the reason as its
//! debug data) and not left waiting. The same where file descriptors have run out: one is
//! kept in reserve for it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{accept, acceptfrom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::handshakes::{HandshakeThreads, Handshakes};
use super::limited_log::LimitedLog;
use super::socket::{Socket, Stream};
use super::watchdog::Watchdog;
use crate::access::Peer;
use crate::activation::{InheritedSocket, StdListener};
use crate::config::Address;
use crate::http2::frame::{self, Reason};
pub use crate::listening::BoundAddress;
use crate::listening::{SocketFile, bind_tcp, bind_unix};
use crate::telemetry::Handshakes as HandshakeCounts;
use crate::tls::ServerTls;

/// Connections that the kernel completes before they are accepted, so that a reconnect
/// storm is not refused. The kernel caps it (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// How long accepting pauses after it failed for want of resources: from, to.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long a refused peer has to read why, and to close.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// How many refused peers are lingered for at a time; further ones are closed at once.
const MAX_REFUSALS: usize = 64;

/// How many connections a listener takes at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimit {
    pub(crate) connections: u32,
    /// The setting that it comes from, for the log.
    pub(crate) set_by: &'static str,
}

/// A bound socket that accepts at most so many connections at a time.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: ListenSocket,
    address: BoundAddress,
    /// Somebody else has bound it, and goes on listening when this ends.
    is_inherited: bool,
    slots: Arc<Semaphore>,
    limit: ConnectionLimit,
    /// A file descriptor to refuse peers with when there is no other.
    reserve: Option<File>,
    refusals: Refusals,
    /// With TLS.
    handshakes: Option<Handshakes>,
}

#[derive(Debug)]
enum ListenSocket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Held for its drop; none of a socket that somebody else has bound.
        _file: Option<SocketFile>,
    },
}

impl Listener {
    /// Binds `address`.
    pub(crate) async fn bind(address: &Address, limit: ConnectionLimit) -> io::Result<Self> {
        let (socket, address) = match address {
            Address::Tcp(address) => {
                let socket = bind_tcp(address, BACKLOG).await?;
                let address = BoundAddress::Tcp(socket.local_addr()?);
                (ListenSocket::Tcp(socket), address)
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path, BACKLOG).await?;
                let address = BoundAddress::Unix(path.clone());
                let socket = ListenSocket::Unix {
                    listener,
                    _file: Some(file),
                };
                (socket, address)
            }
        };
        Ok(Listener::of(socket, address, limit))
    }

    /// Takes a socket that somebody else has bound. Must be called inside a runtime.
    pub(crate) fn inherit(socket: InheritedSocket, limit: ConnectionLimit) -> io::Result<Self> {
        let (socket, address) = match socket.listener {
            StdListener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let address = BoundAddress::Tcp(listener.local_addr()?);
                (ListenSocket::Tcp(TcpListener::from_std(listener)?), address)
            }
            StdListener::Unix(listener, path) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                let socket = ListenSocket::Unix {
                    listener,
                    _file: None,
                };
                (socket, BoundAddress::Unix(path))
            }
        };
        Ok(Listener {
            is_inherited: true,
            ..Listener::of(socket, address, limit)
        })
    }

    fn of(socket: ListenSocket, address: BoundAddress, limit: ConnectionLimit) -> Self {
        Listener {
            socket,
            address,
            is_inherited: false,
            slots: Arc::new(Semaphore::new(limit.connections as usize)),
            limit,
            reserve: open_reserve(),
            refusals: Refusals::default(),
            handshakes: None,
        }
    }

    /// The same, with TLS. A unix socket stays as it is.
    pub(crate) fn with_tls(
        self,
        tls: Arc<ServerTls>,
        threads: &HandshakeThreads,
        counts: HandshakeCounts,
    ) -> Self {
        Listener {
            handshakes: match self.socket {
                ListenSocket::Tcp(_) => threads.of_listener(tls, self.limit.connections, counts),
                ListenSocket::Unix { .. } => None,
            },
            ..self
        }
    }

    pub(crate) fn address(&self) -> &BoundAddress {
        &self.address
    }

    /// How many connections are open, for as long as that is of interest.
    pub(crate) fn connections(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let (slots, all) = (Arc::clone(&self.slots), self.limit.connections as usize);
        move || all.saturating_sub(slots.available_permits()) as u64
    }

    /// The most that may be.
    pub(crate) fn max_connections(&self) -> u64 {
        u64::from(self.limit.connections)
    }

    /// Has every connection that is accepted served, and watched by the `watchdog`.
    ///
    /// At `stopping` the listening socket is closed; then this returns when all
    /// connections have ended, or `lame_duck` later.
    pub(super) async fn run(
        mut self,
        watchdog: &Watchdog,
        stopping: &CancellationToken,
        lame_duck: Duration,
        mut serve: impl FnMut(Socket),
    ) {
        let slots = Arc::clone(&self.slots);
        let all = self.limit.connections;
        let mut serve = |socket: Socket| {
            watchdog.watch(Arc::clone(socket.handle()));
            serve(socket);
        };
        loop {
            tokio::select! {
                socket = self.accept() => serve(socket),
                () = stopping.cancelled() => break,
            }
        }
        self.close().into_iter().for_each(serve);
        // Both an error and a permit mean that there is nobody to wait for.
        let _ = timeout(lame_duck, slots.acquire_many(all)).await;
    }

    /// The next connection for which there is a slot, and with TLS the next one whose
    /// handshake is complete. Those for which there is no slot are refused.
    async fn accept(&mut self) -> Socket {
        let mut back_off = BACK_OFF.0;
        loop {
            let accepted = match &mut self.handshakes {
                None => self.socket.accept().await,
                Some(handshakes) => {
                    let has_room = handshakes.has_room();
                    tokio::select! {
                        ended = handshakes.next(&self.address) => match ended {
                            Some(socket) => return socket,
                            None => continue,
                        },
                        accepted = self.socket.accept(), if has_room => accepted,
                    }
                }
            };
            let error = match accepted {
                Ok((stream, peer)) => match Arc::clone(&self.slots).try_acquire_owned() {
                    Ok(slot) => match (stream, peer, &mut self.handshakes) {
                        (Stream::Tcp(stream), Peer::Tcp(peer), Some(handshakes)) => {
                            match handshakes.begin(stream, peer, slot) {
                                Ok(()) => continue,
                                Err(error) => error,
                            }
                        }
                        (stream, peer, _) => return Socket::new(stream, peer.into(), slot),
                    },
                    Err(_) => {
                        let ConnectionLimit {
                            connections,
                            set_by,
                        } = self.limit;
                        self.refusals.log(&self.address, || {
                            format!("{connections} connections are open, the limit ({set_by})")
                        });
                        let text = format!("too many connections: the limit is {connections}");
                        let farewell = self.farewell(&text);
                        self.refusals.refuse(stream, farewell);
                        continue;
                    }
                },
                Err(error) => error,
            };
            if is_about_one_connection(&error) {
                continue;
            }
            if is_out_of_files(&error) && self.refuse_without_files() > 0 {
                self.refusals.log(&self.address, || {
                    format!("the limit of open files is reached: {error}")
                });
            } else {
                tracing::warn!(
                    address = %self.address,
                    "cannot accept connections, trying again in {back_off:?}: {error}"
                );
            }
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    /// Refuses whoever waits in the kernel's queue, with the file descriptor that is kept
    /// in reserve. Returns how many peers that were.
    fn refuse_without_files(&mut self) -> usize {
        drop(self.reserve.take());
        let mut refused = 0;
        let farewell = self.farewell("the server has no file descriptor left");
        for _ in 0..BACKLOG {
            let accepted = self.socket.accept_now();
            let Ok(mut stream) = accepted else { break };
            // One write and one read, of which neither waits: all that can be done with
            // one descriptor for everybody.
            stream.say_goodbye(&farewell);
            refused += 1;
        }
        self.reserve = open_reserve();
        refused
    }

    /// What a peer is told for which there is no place.
    fn farewell(&self, text: &str) -> Vec<u8> {
        match self.handshakes {
            None => farewell(text),
            Some(_) => INTERNAL_ERROR_ALERT.to_vec(),
        }
    }

    /// Closes the socket, and returns the connections that were in its queue: the kernel
    /// would reset them. With TLS it may: nothing was said to them yet. Those in the queue of
    /// an inherited socket are the next server's.
    fn close(self) -> Vec<Socket> {
        let mut queued = Vec::new();
        if self.is_inherited || self.handshakes.is_some() {
            return queued;
        }
        // As often as there can be something in the queue.
        for _ in 0..BACKLOG {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                break;
            };
            let Ok((stream, peer)) = self.socket.accept_now().and_then(StdStream::registered)
            else {
                break;
            };
            queued.push(Socket::new(stream, peer.into(), slot));
        }
        queued
    }
}

fn open_reserve() -> Option<File> {
    // Without one, peers wait in the kernel's queue until there is a descriptor again.
    File::open("/dev/null").ok()
}

/// Peers that are told that there are too many.
#[derive(Debug, Default)]
struct Refusals {
    lingering: JoinSet<()>,
    log: LimitedLog,
}

impl Refusals {
    /// Tells a peer that there are as many connections as are allowed.
    fn refuse(&mut self, stream: Stream, farewell: Vec<u8>) {
        while self.lingering.try_join_next().is_some() {}
        if self.lingering.len() < MAX_REFUSALS {
            let linger = async move {
                match stream {
                    Stream::Tcp(stream) => say_goodbye(stream, &farewell).await,
                    Stream::Unix(stream) => say_goodbye(stream, &farewell).await,
                }
            };
            self.lingering.spawn(async {
                let _ = timeout(REFUSAL_LINGER, linger).await;
            });
        }
    }

    /// Logs a refusal, or counts it if one was logged just now.
    fn log(&mut self, address: &BoundAddress, why: impl FnOnce() -> String) {
        self.log.log(|connections| {
            tracing::warn!(%address, connections, "connections refused: {}", why());
        });
    }
}

/// The same in TLS: a fatal alert, `internal_error` (RFC 8446, 6; before a handshake it is not
/// encrypted). There is none that says more.
const INTERNAL_ERROR_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// A server's preface, and GOAWAY.
fn farewell(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_settings(&mut bytes, &[]);
    frame::write_go_away(&mut bytes, 0, Reason::EnhanceYourCalm, text);
    bytes
}

/// Writes, and waits for the peer to close: a socket that is closed with something unread
/// answers with a reset, which may overtake what was written.
async fn say_goodbye(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
) {
    // A peer that has gone needs no goodbye.
    if stream.write_all(bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut scrap = [0; 1024];
        while let Ok(1..) = stream.read(&mut scrap).await {}
    }
}

/// A connection that no runtime knows of yet.
enum StdStream {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl StdStream {
    /// Makes the runtime know of it.
    fn registered(self) -> io::Result<(Stream, Peer)> {
        match self {
            StdStream::Tcp(stream, peer) => Ok(tcp(TcpStream::from_std(stream)?, peer)),
            StdStream::Unix(stream) => Ok(unix(UnixStream::from_std(stream)?)),
        }
    }

    /// Writes what the system takes, and reads what has arrived, without waiting.
    fn say_goodbye(&mut self, bytes: &[u8]) {
        let mut scrap = [0; 1024];
        // A peer that has gone needs no goodbye.
        match self {
            StdStream::Tcp(stream, _) => {
                let _ = stream.write(bytes);
                let _ = stream.read(&mut scrap);
                let _ = stream.shutdown(Shutdown::Write);
            }
            StdStream::Unix(stream) => {
                let _ = stream.write(bytes);
                let _ = stream.read(&mut scrap);
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }
}

/// Whether only the connection that was about to be accepted is at fault. All
/// else (no file descriptors, no memory) would fail again at once.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::ConnectionAborted
            | E::ConnectionReset
            | E::ConnectionRefused
            | E::Interrupted
            | E::TimedOut
            | E::HostUnreachable
            | E::NetworkUnreachable
            | E::NetworkDown
    )
}

/// Whether there is no file descriptor left for another connection.
fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl ListenSocket {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            ListenSocket::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(tcp(socket, peer))
            }
            ListenSocket::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok(unix(socket))
            }
        }
    }

    /// Accepts what is in the kernel's queue. Not tokio's own way, which knows of what has
    /// come only after its reactor has run again.
    fn accept_now(&self) -> io::Result<StdStream> {
        let stream = match self {
            ListenSocket::Tcp(listener) => {
                let (socket, peer) = acceptfrom(listener)?;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
                StdStream::Tcp(socket.into(), peer)
            }
            ListenSocket::Unix { listener, .. } => StdStream::Unix(accept(listener)?.into()),
        };
        match &stream {
            StdStream::Tcp(stream, _) => {
                stream.set_nonblocking(true)?;
                fcntl_setfd(stream, FdFlags::CLOEXEC)?;
            }
            StdStream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                fcntl_setfd(stream, FdFlags::CLOEXEC)?;
            }
        }
        Ok(stream)
    }
}

fn tcp(socket: TcpStream, peer: SocketAddr) -> (Stream, Peer) {
    // One event is one small write, and must not wait for the peer's
    // acknowledgement of the one before. Should this fail, the peer has gone already.
    let _ = socket.set_nodelay(true);
    (Stream::Tcp(socket), Peer::Tcp(peer))
}

fn unix(socket: UnixStream) -> (Stream, Peer) {
    let uid = socket.peer_cred().ok().map(|of| of.uid());
    (Stream::Unix(socket), Peer::Unix { uid })
}
