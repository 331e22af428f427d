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
/// What is read at once from a peer whose records hold next to nothing: each costs as much as
/// one that is full.
const SPARSE_READ_BYTES: usize = 16 << 10;
/// How often one call reads while no data comes of it: a long record may arrive in parts.
const READS: usize = 4;
/// How many bytes of records each byte of data pays for. The shortest frames of HTTP/2, in
/// records of their own, need four.
const BYTES_PAID: usize = 8;
/// How many bytes of records may be unpaid before the connection ends. Until then they have
/// taken some ten milliseconds.
const MAX_UNPAID_BYTES: usize = 256 << 10;
/// How much of a turn a byte of records takes that holds no data: a record without any takes
/// as long as some hundreds of bytes of data.
const OVERHEAD_COST: usize = 16;

thread_local! {
    /// What sockets are read into.
    static CIPHERTEXT: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The keys of a connection, and what is on its way through them.
#[derive(Debug)]
pub(super) struct TlsSession {
    connection: ServerConnection,
    /// Bytes of records that were not [paid](BYTES_PAID) for by data.
    unpaid_bytes: usize,
    /// Bytes of records, and of data, that were read since [`take_cost`](Self::take_cost).
    encrypted_bytes: usize,
    data_bytes: usize,
    /// The last records that were read held little.
    is_sparse: bool,
}

impl TlsSession {
    /// Of a connection whose handshake is complete.
    pub(super) fn new(mut connection: ServerConnection) -> Self {
        // What it has to hold is bounded by what `encrypt` gives it.
        connection.set_buffer_limit(None);
        TlsSession {
            connection,
            unpaid_bytes: 0,
            encrypted_bytes: 0,
            data_bytes: 0,
            is_sparse: false,
        }
    }

    /// Reads from the socket, and decrypts. Nothing is the end.
    ///
    /// Empty records, one-byte records and key updates cost far more to take than to send. So
    /// a call reads a few times at most, whatever comes of it, and a peer that sends little
    /// else loses the connection.
    pub(super) fn poll_read(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What came with the end of the handshake.
        if self.take(buf)? || !buf.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..READS {
            let polled = CIPHERTEXT.with_borrow_mut(|memory| {
                // What is decrypted is shorter.
                let mut room = memory.len().min(buf.remaining());
                if self.is_sparse {
                    room = room.min(SPARSE_READ_BYTES);
                }
                let mut arrived = ReadBuf::new(&mut memory[..room]);
                ready!(stream.poll_read(cx, &mut arrived))?;
                if arrived.filled().is_empty() {
                    return Poll::Ready(io::Result::Ok(true));
                }
                Poll::Ready(self.decrypt(stream, arrived.filled(), buf))
            });
            if ready!(polled)? || !buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        // Others have a turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// How much of a turn was read since the last time.
    pub(super) fn take_cost(&mut self) -> usize {
        let encrypted_bytes = std::mem::take(&mut self.encrypted_bytes);
        let overhead_bytes = encrypted_bytes.saturating_sub(std::mem::take(&mut self.data_bytes));
        encrypted_bytes.max(overhead_bytes * OVERHEAD_COST)
    }

    /// Decrypts what has arrived. Returns whether that was the end.
    fn decrypt(
        &mut self,
        stream: &Stream,
        mut arrived: &[u8],
        buf: &mut ReadBuf<'_>,
    ) -> io::Result<bool> {
        let mut has_ended = false;
        let (arrived_bytes, held_bytes) = (arrived.len(), buf.filled().len());
        self.encrypted_bytes += arrived_bytes;
        self.unpaid_bytes += arrived_bytes;
        while !arrived.is_empty() && !has_ended {
            if self.connection.read_tls(&mut arrived)? == 0 {
                // The peer's `close_notify` has come; what follows it is ignored (RFC 8446,
                // 6.1). The end is told when what came before it is taken.
                break;
            }
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
        self.is_sparse = (buf.filled().len() - held_bytes) * 2 < arrived_bytes;
        if self.unpaid_bytes > MAX_UNPAID_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many TLS records with too little data in them",
            ));
        }
        Ok(has_ended)
    }

    /// Takes what is decrypted. Returns whether nothing follows it.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        while buf.remaining() > 0 {
            match self.connection.reader().read(buf.initialize_unfilled()) {
                Ok(0) => return Ok(true),
                Ok(bytes) => {
                    buf.advance(bytes);
                    self.data_bytes += bytes;
                    self.unpaid_bytes = self.unpaid_bytes.saturating_sub(bytes * BYTES_PAID);
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;

    const RECORD_BYTES: usize = 16 << 10;

    /// Both ends, after their handshake.
    fn connected() -> (ClientConnection, TlsSession) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = crate::tls::provider();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            server.read_tls(&mut &written(&mut client)[..]).unwrap();
            server.process_new_packets().unwrap();
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            let mut answer = &answer[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        (client, TlsSession::new(server))
    }

    /// What a client has to send.
    fn written(client: &mut ClientConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    #[tokio::test]
    async fn what_follows_the_end_is_ignored_also_where_there_is_no_room_for_more() {
        let (mut client, mut session) = connected();
        client.writer().write_all(&[7; RECORD_BYTES]).unwrap();
        client.send_close_notify();
        let mut bytes = written(&mut client);
        // More than rustls takes at a time.
        bytes.extend([0; 8000]);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = Stream::Unix(ours);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut memory = vec![0; 2 * RECORD_BYTES];

        // All of the record but its last byte.
        let (part, rest) = bytes.split_at(bytes.len() - 8000 - 25);
        theirs.write_all(part).await.unwrap();
        tokio::task::yield_now().await;
        let mut buf = ReadBuf::new(&mut memory);
        assert!(session.poll_read(&stream, &mut cx, &mut buf).is_pending());
        theirs.write_all(rest).await.unwrap();
        tokio::task::yield_now().await;
        // It fills this to the last byte, and the end is in the same read.
        let mut buf = ReadBuf::new(&mut memory[..RECORD_BYTES]);
        let polled = session.poll_read(&stream, &mut cx, &mut buf);
        assert!(matches!(polled, Poll::Ready(Ok(()))), "{polled:?}");
        assert_eq!(buf.filled(), [7; RECORD_BYTES]);
        let mut buf = ReadBuf::new(&mut memory);
        let polled = session.poll_read(&stream, &mut cx, &mut buf);
        assert!(matches!(polled, Poll::Ready(Ok(()))), "{polled:?}");
        assert!(buf.filled().is_empty(), "the end");
    }
}
