//! [`Wire`]: the bytes of a connection, whatever carries them, with errors that say what to do.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::tls::HandshakeError;

/// An open connection.
#[derive(Debug)]
pub(super) struct Wire {
    carrier: Carrier,
    /// Whether the server has said anything, beyond a TLS handshake.
    has_received: bool,
    notes: Notes,
}

/// What a connection notes for its calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Why the server has refused the connection, after it was opened. hyper forgets it where
    /// the connection ends before its first request: that request is then only "canceled".
    refusal: Mutex<Option<HandshakeError>>,
    received_bytes: AtomicU64,
}

impl Notes {
    fn refusal(&self) -> MutexGuard<'_, Option<HandshakeError>> {
        self.0
            .refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it was refused.
    pub(super) fn known(&self) -> Option<HandshakeError> {
        self.refusal().clone()
    }

    /// How much it has brought, of whatever stream.
    pub(super) fn received_bytes(&self) -> u64 {
        self.0.received_bytes.load(Ordering::Relaxed)
    }

    /// Begins anew, with a new connection.
    pub(super) fn forget(&self) {
        *self.refusal() = None;
    }

    /// Keeps the first reason: what follows is its consequence.
    fn note(&self, reason: &HandshakeError) {
        self.refusal().get_or_insert_with(|| reason.clone());
    }
}

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The first byte of an alert of TLS. As the first byte of HTTP/2 it would begin a SETTINGS
/// frame of more than a megabyte, which no server sends.
const TLS_ALERT: u8 = 0x15;

impl Wire {
    pub(super) fn tcp(stream: TcpStream, notes: Notes) -> Self {
        Wire::new(Carrier::Tcp(stream), notes)
    }

    pub(super) fn unix(stream: UnixStream, notes: Notes) -> Self {
        Wire::new(Carrier::Unix(stream), notes)
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, notes: Notes) -> Self {
        Wire::new(Carrier::Tls(Box::new(stream)), notes)
    }

    fn new(carrier: Carrier, notes: Notes) -> Self {
        notes.forget();
        Wire {
            carrier,
            has_received: false,
            notes,
        }
    }

    /// An error with this meaning.
    fn refused(&self, kind: io::ErrorKind, meaning: HandshakeError) -> io::Error {
        self.notes.note(&meaning);
        io::Error::new(kind, meaning)
    }

    /// What an error of this connection means.
    ///
    /// With TLS 1.3 the client's handshake is done before the server has looked at the client's
    /// certificate, so that a refusal comes where the server's first words should be.
    fn explain(&self, error: io::Error) -> io::Error {
        if !matches!(self.carrier, Carrier::Tls(_)) {
            return error;
        }
        let is_cut = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        );
        match HandshakeError::within(&error) {
            Some(meaning) => self.refused(error.kind(), meaning),
            None if is_cut && !self.has_received => {
                self.refused(error.kind(), HandshakeError::ClosedAfter)
            }
            None => error,
        }
    }

    /// What a failed write means. The server may have said why before it closed the connection.
    fn explain_write(&mut self, error: io::Error, cx: &mut Context<'_>) -> io::Error {
        if let Carrier::Tls(stream) = &mut self.carrier
            && !self.has_received
        {
            let mut byte = [0];
            let read = Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
            if let Poll::Ready(Err(said)) = read
                && HandshakeError::within(&said).is_some()
            {
                return self.explain(said);
            }
        }
        self.explain(error)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut wire.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Carrier::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Carrier::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let Err(error) = ready!(read) {
            return Poll::Ready(Err(wire.explain(error)));
        }
        let received = buffer.filled().get(before..).unwrap_or_default();
        // Relaxed, here and where it is read: nothing else is read because of it.
        let noted = &wire.notes.0.received_bytes;
        noted.fetch_add(received.len() as u64, Ordering::Relaxed);
        if !wire.has_received {
            match (received.first(), &wire.carrier) {
                (Some(&TLS_ALERT), Carrier::Tcp(_)) => {
                    let meaning = HandshakeError::OnlyTls;
                    return Poll::Ready(Err(wire.refused(io::ErrorKind::InvalidData, meaning)));
                }
                (None, Carrier::Tls(_)) if buffer.remaining() > 0 => {
                    let meaning = HandshakeError::ClosedAfter;
                    return Poll::Ready(Err(wire.refused(io::ErrorKind::UnexpectedEof, meaning)));
                }
                _ => {}
            }
            wire.has_received = !received.is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let written = match &mut wire.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Carrier::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Carrier::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        Poll::Ready(ready!(written).map_err(|error| wire.explain_write(error, cx)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let written = match &mut wire.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Carrier::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Carrier::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        Poll::Ready(ready!(written).map_err(|error| wire.explain_write(error, cx)))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.is_write_vectored(),
            Carrier::Unix(stream) => stream.is_write_vectored(),
            Carrier::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let flushed = match &mut wire.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        Poll::Ready(ready!(flushed).map_err(|error| wire.explain_write(error, cx)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
