//! An accepted socket whose peer has to take what is written.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};

/// For so long nothing may be written to a peer: it has not taken most of what the system
/// keeps for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// So much the system keeps for a peer that reads slowly. A page that does not read is so far
/// behind at most.
const SEND_BUFFER_BYTES: usize = 128 << 10;

/// A socket whose writes fail when they have been stuck for long.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    /// Until when a write that is stuck may be.
    stuck: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        // Should any of this fail, it is only slower.
        let _ = match &stream {
            Stream::Tcp(tcp) => {
                let _ = tcp.set_nodelay(true);
                set_socket_send_buffer_size(tcp, SEND_BUFFER_BYTES)
            }
            Stream::Unix(unix) => set_socket_send_buffer_size(unix, SEND_BUFFER_BYTES),
        };
        Socket {
            stream,
            stuck: None,
        }
    }

    /// Passes on what the stream said, unless it has been pending for too long.
    fn unless_stuck<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Calls the method of whichever stream it is.
macro_rules! either {
    ($socket:expr, $method:ident($($argument:expr),*)) => {
        match &mut $socket.stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = either!(self, poll_write(cx, bytes));
        self.unless_stuck(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps nothing back: it says nothing of whether the peer reads.
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_breaks_the_socket_and_a_slow_one_does_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(ours));
        let writing = tokio::spawn(async move {
            let mut written = 0;
            loop {
                match socket.write(&[0; 4096]).await {
                    Ok(bytes) => written += bytes,
                    Err(error) => return (written, error.kind()),
                }
            }
        });
        let mut read = 0;
        let mut some = vec![0; 2 * SEND_BUFFER_BYTES];
        for _ in 0..10 {
            sleep(STALL_TIMEOUT * 9 / 10).await;
            // All there is: the system lets more be written only when most has been read.
            read += theirs.read(&mut some).await.unwrap();
            while let Ok(bytes) = theirs.try_read(&mut some) {
                read += bytes;
            }
        }
        assert!(!writing.is_finished());
        let (written, kind) = writing.await.unwrap();
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(written > read);
    }
}
