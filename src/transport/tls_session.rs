//! TLS of an accepted connection, after its handshake.
//!
//! What is written is encrypted from where it lies, record by record, and goes to the socket
//! from there; what is read is decrypted into the driver's own buffer. Between a read and a
//! write a connection holds what has arrived of a record, and no more than
//! [`MAX_ENCRYPTED_BYTES`] that its socket did not take.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read as _, Write};
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use smallvec::SmallVec;
use tokio::io::ReadBuf;

use super::stream::Stream;

/// What is encrypted at once: four of TLS's longest records (RFC 8446, 5.1).
const MAX_ENCRYPTED_BYTES: usize = 64 << 10;
/// What is read at once.
const READ_BYTES: usize = 256 << 10;

thread_local! {
    /// What sockets are read into.
    static CIPHERTEXT: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The keys of a connection, and what is on its way through them.
#[derive(Debug)]
pub(super) struct TlsSession {
    connection: ServerConnection,
}

impl TlsSession {
    /// Of a connection whose handshake is complete.
    pub(super) fn new(mut connection: ServerConnection) -> Self {
        // What it has to hold is bounded by what `encrypt` gives it.
        connection.set_buffer_limit(None);
        TlsSession { connection }
    }

    /// Reads from the socket, and decrypts. Nothing is the end.
    pub(super) fn poll_read(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What came with the end of the handshake.
        let mut has_ended = self.take(buf)?;
        while buf.filled().is_empty() && !has_ended {
            let polled = CIPHERTEXT.with_borrow_mut(|memory| {
                // What is decrypted is shorter.
                let room = memory.len().min(buf.remaining());
                let mut arrived = ReadBuf::new(&mut memory[..room]);
                ready!(stream.poll_read(cx, &mut arrived))?;
                if arrived.filled().is_empty() {
                    return Poll::Ready(io::Result::Ok(true));
                }
                Poll::Ready(self.decrypt(stream, arrived.filled(), buf))
            });
            has_ended = ready!(polled)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts what has arrived. Returns whether that was the end.
    fn decrypt(
        &mut self,
        stream: &Stream,
        mut arrived: &[u8],
        buf: &mut ReadBuf<'_>,
    ) -> io::Result<bool> {
        let mut has_ended = false;
        while !arrived.is_empty() && !has_ended {
            self.connection.read_tls(&mut arrived)?;
            if let Err(error) = self.connection.process_new_packets() {
                // The alert that says why. The connection ends, whether or not the socket
                // takes it.
                let _ = self
                    .connection
                    .write_tls(&mut Sink(|slices: &[IoSlice<'_>]| {
                        Poll::Ready(stream.try_write(slices))
                    }));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            // At once: no more is taken while there are 16 KiB of it.
            has_ended = self.take(buf)?;
        }
        Ok(has_ended)
    }

    /// Takes what is decrypted. Returns whether nothing follows it.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        while buf.remaining() > 0 {
            match self.connection.reader().read(buf.initialize_unfilled()) {
                Ok(0) => return Ok(true),
                Ok(bytes) => buf.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Encrypts as much of this as is written at once. Returns how much that is.
    pub(super) fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut room = MAX_ENCRYPTED_BYTES;
        let mut taken: SmallVec<[IoSlice<'_>; 16]> = SmallVec::new();
        for slice in slices {
            let bytes = slice.len().min(room);
            if bytes == 0 {
                break;
            }
            taken.push(IoSlice::new(&slice[..bytes]));
            room -= bytes;
        }
        self.connection.writer().write_vectored(&taken)
    }

    /// Whether there is something to be written to the socket.
    pub(super) fn has_left(&self) -> bool {
        self.connection.wants_write()
    }

    /// Gives what is to be written to `write`, until that has taken all of it.
    pub(super) fn poll_flush(
        &mut self,
        write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut sink = Sink(write);
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut sink) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that nothing follows, with the next flush.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

/// What takes ciphertext, as a `Write`.
struct Sink<F>(F);

impl<F: FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.0)(slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
