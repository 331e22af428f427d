//! Where peers connect: TCP and unix sockets, up to a number of connections.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use tokio::net::{
    TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream, lookup_host,
};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Peer, Socket};
use super::stall::Watch;
use crate::config::Address;

/// Connections that the kernel completes before they are accepted, so that a
/// reconnect storm is not refused. The kernel caps it (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// How long accepting rests after it failed for want of resources: from, to.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// An address that is listened on: with the port that the kernel chose, if it
/// was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoundAddress::Tcp(address) => address.fmt(f),
            BoundAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket that accepts at most so many connections at a time.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: ListenSocket,
    address: BoundAddress,
    slots: Arc<Semaphore>,
    max_connections: u32,
}

/// How far the connections of a listener have come.
enum Incoming {
    Open(Listener),
    /// Only those are left that were in the queue.
    Closed {
        queued: std::vec::IntoIter<Connection>,
    },
}

#[derive(Debug)]
enum ListenSocket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Held for its drop.
        _file: SocketFile,
    },
}

impl Listener {
    /// Binds `address`, for at most `max_connections` at a time: whoever comes
    /// after them waits in the kernel's queue.
    pub(crate) async fn bind(address: &Address, max_connections: u32) -> io::Result<Self> {
        let (socket, address) = match address {
            Address::Tcp(address) => {
                let socket = bind_tcp(address).await?;
                let address = BoundAddress::Tcp(socket.local_addr()?);
                (ListenSocket::Tcp(socket), address)
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path).await?;
                let address = BoundAddress::Unix(path.clone());
                let socket = ListenSocket::Unix {
                    listener,
                    _file: file,
                };
                (socket, address)
            }
        };
        Ok(Listener {
            socket,
            address,
            slots: Arc::new(Semaphore::new(max_connections as usize)),
            max_connections,
        })
    }

    pub(crate) fn address(&self) -> &BoundAddress {
        &self.address
    }

    /// The connections, as they come; each is under `watch`.
    ///
    /// At `stopping` the socket is closed, and the stream ends when all
    /// connections have, or `lame_duck` later.
    pub(super) fn incoming(
        self,
        watch: Watch,
        stopping: CancellationToken,
        lame_duck: Duration,
    ) -> impl Stream<Item = Connection> + use<> {
        let slots = Arc::clone(&self.slots);
        let all = self.max_connections;
        unfold(Incoming::Open(self), move |incoming| {
            let (stopping, slots) = (stopping.clone(), Arc::clone(&slots));
            async move {
                let mut queued = match incoming {
                    Incoming::Open(listener) => {
                        let accepted = tokio::select! {
                            connection = listener.accept() => Ok(connection),
                            () = stopping.cancelled() => Err(()),
                        };
                        match accepted {
                            Ok(connection) => {
                                return Some((connection, Incoming::Open(listener)));
                            }
                            Err(()) => listener.close().into_iter(),
                        }
                    }
                    Incoming::Closed { queued } => queued,
                };
                if let Some(connection) = queued.next() {
                    return Some((connection, Incoming::Closed { queued }));
                }
                // Both an error and a permit mean that there is nobody to wait for.
                let _ = timeout(lame_duck, slots.acquire_many(all)).await;
                None
            }
        })
        .map(move |connection| {
            watch.add_link(Arc::clone(connection.link()));
            connection
        })
    }

    /// Closes the socket, and returns the connections that were in its queue: the
    /// kernel would reset them.
    fn close(self) -> Vec<Connection> {
        let mut queued = Vec::new();
        let mut close = |next: &dyn Fn() -> io::Result<(Socket, Peer)>| {
            // As often as there can be something in the queue.
            for _ in 0..BACKLOG {
                let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                    return;
                };
                let Ok((socket, peer)) = next() else {
                    return;
                };
                let slots = Arc::clone(&self.slots);
                queued.push(Connection::new(socket, peer, slots, slot));
            }
        };
        // Not tokio's own way to accept, which knows of what has come only after its
        // reactor has run again.
        match self.socket {
            ListenSocket::Tcp(listener) => {
                if let Ok(listener) = listener.into_std() {
                    close(&|| {
                        let (socket, peer) = listener.accept()?;
                        socket.set_nonblocking(true)?;
                        Ok(tcp(TcpStream::from_std(socket)?, peer))
                    });
                }
            }
            ListenSocket::Unix { listener, .. } => {
                if let Ok(listener) = listener.into_std() {
                    close(&|| {
                        let (socket, _) = listener.accept()?;
                        socket.set_nonblocking(true)?;
                        Ok(unix(UnixStream::from_std(socket)?))
                    });
                }
            }
        }
        queued
    }

    async fn accept(&self) -> Connection {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.expect("nobody closes this semaphore");
        let mut back_off = BACK_OFF.0;
        loop {
            let error = match self.socket.accept().await {
                Ok((socket, peer)) => {
                    return Connection::new(socket, peer, Arc::clone(&self.slots), slot);
                }
                Err(error) => error,
            };
            if is_about_one_connection(&error) {
                continue;
            }
            tracing::warn!(
                address = %self.address,
                "cannot accept connections, trying again in {back_off:?}: {error}"
            );
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
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

impl ListenSocket {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
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
}

fn tcp(socket: TcpStream, peer: SocketAddr) -> (Socket, Peer) {
    // One event is one small write, and must not wait for the peer's
    // acknowledgement of the one before. Should this fail, the peer has gone already.
    let _ = socket.set_nodelay(true);
    (Socket::Tcp(socket), Peer::Tcp(peer))
}

fn unix(socket: UnixStream) -> (Socket, Peer) {
    (Socket::Unix(socket), Peer::Unix)
}

/// Binds the first that works of the addresses that `HOST:PORT` stands for.
async fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        match listen_tcp(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Otherwise a restarted server could not bind while connections of the one
    // before are still in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::at(path)?;
    Ok((socket.listen(BACKLOG)?, file))
}

/// Removes the socket file that a server left behind which did not end by
/// itself. What is still in use, or is no socket, is left alone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let in_the_way = |what| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return in_the_way("the file exists and is no socket");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // A full queue is an answer too.
        Ok(_) | Err(_) => in_the_way("another process is listening on this socket"),
    }
}

/// A bound socket's file, removed in the end unless another has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(SocketFile {
            path: path.to_owned(),
            identity: identity(&fs::symlink_metadata(path)?),
        })
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
