//! What carries a connection's bytes: a TCP or a unix socket, used without `&mut`.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A peer that has gone is an error, and no signal. (Where there is no flag for it, the
/// runtime has told the socket.)
#[cfg(not(target_vendor = "apple"))]
pub(super) const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const SEND: SendFlags = SendFlags::empty();

/// A socket that the runtime knows.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Reads what is there; nothing is the end.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_ready(Interest::READABLE, cx))?;
            let room = buf.initialize_unfilled();
            let read = self.transfer(Interest::READABLE, room.len(), || {
                recv(self, &mut *room, RecvFlags::empty()).map(|(bytes, _)| bytes)
            });
            if let Some(read) = read {
                return Poll::Ready(read.map(|bytes| buf.advance(bytes)));
            }
        }
    }

    /// Writes what the system takes at once, past the runtime.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.send(slices) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    /// Writes, or has the task woken when the system takes more.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        loop {
            ready!(self.poll_ready(Interest::WRITABLE, cx))?;
            let written = self.transfer(Interest::WRITABLE, bytes, || self.send(slices));
            if let Some(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    /// Ends what we send.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        match shutdown(self, Shutdown::Write) {
            // The peer was faster.
            Err(Errno::NOTCONN) => Ok(()),
            shut => Ok(shut?),
        }
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        match slices {
            [bytes] => send(self, bytes, SEND),
            _ => sendmsg(self, slices, &mut SendAncillaryBuffer::default(), SEND),
        }
    }

    fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self, interest.is_readable()) {
            (Stream::Tcp(stream), true) => stream.poll_read_ready(cx),
            (Stream::Tcp(stream), false) => stream.poll_write_ready(cx),
            (Stream::Unix(stream), true) => stream.poll_read_ready(cx),
            (Stream::Unix(stream), false) => stream.poll_write_ready(cx),
        }
    }

    /// Moves up to `wanted` bytes. `None` where the runtime was wrong, and the socket is not
    /// ready: to be asked again.
    ///
    /// When less was moved, the socket has no more. The runtime is told so, as if another
    /// call had found out: it saves that call.
    fn transfer(
        &self,
        interest: Interest,
        wanted: usize,
        mut transfer: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let mut moved = None;
        let transfer = || {
            let bytes = loop {
                match transfer() {
                    Err(Errno::INTR) => {}
                    done => break done?,
                }
            };
            moved = Some(bytes);
            if bytes > 0 && bytes < wanted {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        };
        let done = match self {
            Stream::Tcp(stream) => stream.try_io(interest, transfer),
            Stream::Unix(stream) => stream.try_io(interest, transfer),
        };
        match (moved, done) {
            (Some(bytes), _) => Some(Ok(bytes)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            (None, done) => Some(done.map(|()| 0)),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}
