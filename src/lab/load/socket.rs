//! Connections over TCP or Unix sockets, that never block.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::clock::from_calendar_ns;
use super::tls::{Tls, TlsPeer};
use crate::config::Address;
use crate::tls::{ClientTls, TlsError};

/// Where to connect, its name resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A TCP address where TLS is spoken.
    Tls(SocketAddr, TlsPeer),
}

impl Endpoint {
    /// Resolves an address's host.
    ///
    /// # Errors
    ///
    /// Nothing has that name.
    pub fn resolve(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => Ok(Endpoint::Unix(path.clone())),
            Address::Tcp(at) => match at.to_socket_addrs()?.next() {
                Some(address) => Ok(Endpoint::Tcp(address)),
                None => Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the name has no address",
                )),
            },
        }
    }

    /// The same place over TLS, for a server on `host`. A Unix socket has no TLS.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: a file cannot be used, or no certificate can be for `host`.
    pub fn over_tls(self, tls: &ClientTls, host: &str) -> Result<Self, TlsError> {
        match self {
            Endpoint::Tcp(address) | Endpoint::Tls(address, _) => {
                Ok(Endpoint::Tls(address, TlsPeer::new(tls, host)?))
            }
            Endpoint::Unix(_) => Err(TlsError::Other("a Unix socket has no TLS".to_owned())),
        }
    }

    /// The same place for one client, which keeps what it learns of TLS to itself.
    pub(super) fn of_one_client(&self) -> Self {
        match self {
            Endpoint::Tls(address, peer) => Endpoint::Tls(*address, peer.of_one_client()),
            other => other.clone(),
        }
    }

    /// What an HTTP client calls a server there.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Endpoint::Tcp(address) | Endpoint::Tls(address, _) => address.to_string(),
            Endpoint::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Tls(address, _) => write!(f, "{address} (TLS)"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How long a connection may take that is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, or one that is being opened.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TcpStream, Box<Tls>),
}

impl Socket {
    /// Begins to connect. It is connected once it is writable and has no error.
    pub(super) fn begin(endpoint: &Endpoint) -> io::Result<Self> {
        let tcp = |address: &SocketAddr| {
            let stream = TcpStream::connect(*address)?;
            stream.set_nodelay(true)?;
            tell_times(&stream);
            io::Result::Ok(stream)
        };
        match endpoint {
            Endpoint::Tcp(address) => Ok(Socket::Tcp(tcp(address)?)),
            Endpoint::Tls(address, peer) => {
                Ok(Socket::Tls(tcp(address)?, Box::new(Tls::new(peer)?)))
            }
            Endpoint::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path)?)),
        }
    }

    /// Connects, and waits for it.
    pub(super) fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let tcp = |address: &SocketAddr| {
            let stream = std::net::TcpStream::connect_timeout(address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            io::Result::Ok(stream)
        };
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = tcp(address)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Tcp(TcpStream::from_std(stream)))
            }
            Endpoint::Tls(address, peer) => {
                let (mut stream, mut tls) = (tcp(address)?, Tls::new(peer)?);
                stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
                stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
                tls.shake_hands(&mut stream)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Tls(TcpStream::from_std(stream), Box::new(tls)))
            }
            Endpoint::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Unix(UnixStream::from_std(stream)))
            }
        }
    }

    /// Reads, and tells when the last of it was in the socket, where the system knows.
    pub(super) fn read_with_time(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
        match self {
            #[cfg(target_os = "linux")]
            Socket::Tcp(stream) => read_with_time(stream, buffer),
            #[cfg(target_os = "linux")]
            Socket::Tls(stream, tls) => tls.read(stream, buffer, |stream, buffer| {
                read_with_time(stream, buffer)
            }),
            _ => Ok((self.read(buffer)?, None)),
        }
    }

    /// Whether something waits to be written that the socket did not take.
    pub(super) fn wants_write(&self) -> bool {
        match self {
            Socket::Tcp(_) | Socket::Unix(_) => false,
            Socket::Tls(_, tls) => tls.wants_write(),
        }
    }

    /// Why it could not be connected, or was broken.
    pub(super) fn take_error(&self) -> io::Result<()> {
        let error = match self {
            Socket::Tcp(stream) | Socket::Tls(stream, _) => stream.take_error()?,
            Socket::Unix(stream) => stream.take_error()?,
        };
        error.map_or(Ok(()), Err)
    }

    /// Closes it the way of a power cut: what is under way is lost, and no port waits
    /// for the rest.
    pub(super) fn cut(self) {
        if let Socket::Tcp(stream) | Socket::Tls(stream, _) = &self {
            // If it fails, the connection is closed in order.
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

/// Has the system tell with each read when it got that.
#[cfg(target_os = "linux")]
fn tell_times(stream: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    // If it does not, times are missing.
    let _ = setsockopt(stream, sockopt::ReceiveTimestampns, &true);
}

#[cfg(not(target_os = "linux"))]
fn tell_times(_stream: &TcpStream) {}

#[cfg(target_os = "linux")]
fn read_with_time(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use nix::sys::time::TimeSpec;

    thread_local! {
        static CONTROL: std::cell::RefCell<Vec<u8>> =
            std::cell::RefCell::new(nix::cmsg_space!(TimeSpec));
    }
    CONTROL.with_borrow_mut(|control| {
        let mut buffers = [IoSliceMut::new(buffer)];
        let fd = stream.as_raw_fd();
        let read = recvmsg::<()>(fd, &mut buffers, Some(control), MsgFlags::empty())?;
        let time = read.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        let nanos = time.map(|time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64);
        Ok((read.bytes, nanos.map(from_calendar_ns)))
    })
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Tls(stream, tls) => {
                let read = tls.read(stream, buffer, |stream, buffer| {
                    Ok((stream.read(buffer)?, None))
                });
                read.map(|(bytes, _)| bytes)
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Tls(stream, tls) => tls.write(stream, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Tcp(_) | Socket::Unix(_) => Ok(()),
            Socket::Tls(stream, tls) => tls.flush(stream),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) | Socket::Tls(stream, _) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Source for Socket {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) | Socket::Tls(stream, _) => {
                stream.register(registry, token, interests)
            }
            Socket::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) | Socket::Tls(stream, _) => {
                stream.reregister(registry, token, interests)
            }
            Socket::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) | Socket::Tls(stream, _) => stream.deregister(registry),
            Socket::Unix(stream) => stream.deregister(registry),
        }
    }
}

/// Writes of `out` what the socket takes; what is left stays in it. Before it goes what the
/// socket [wants to write](Socket::wants_write).
pub(super) fn write_out(socket: &mut Socket, out: &mut Vec<u8>) -> io::Result<()> {
    if socket.wants_write() {
        socket.flush()?;
    }
    let mut written = 0;
    let result = loop {
        if written == out.len() {
            break Ok(());
        }
        match socket.write(&out[written..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    out.drain(..written);
    result
}
