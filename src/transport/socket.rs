//! One accepted socket: TCP, with or without TLS, or unix; read and written without a copy of
//! its own.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::ReadBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handle::{Handle, Phase};
use super::send_queue;
pub(super) use super::stream::Stream;
use super::tls_session::TlsSession;
use super::wire::Wire;
use crate::service::Caller;

/// As little as this is copied into one piece: to hand the system two pieces costs more.
const COPIED_BYTES: usize = 4 << 10;

thread_local! {
    static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A socket that notes on its [`Handle`] how it is doing, and breaks when that is cut.
#[derive(Debug)]
pub(super) struct Socket {
    wire: Arc<Wire>,
    handle: Arc<Handle>,
    tls: Option<Box<TlsSession>>,
    /// Whether short writes may be [queued](send_queue).
    queues: bool,
    /// What the socket did not take of a write that was queued.
    left: Vec<u8>,
    /// The last write took less than it was given.
    full: bool,
    /// The last write took nothing.
    blocked: bool,
    /// Counts this connection against its listener's limit.
    _slot: OwnedSemaphorePermit,
}

impl Socket {
    /// A socket that holds one of its listener's `slots`.
    pub(super) fn new(stream: Stream, caller: Caller, slot: OwnedSemaphorePermit) -> Self {
        let slots: Arc<Semaphore> = Arc::clone(slot.semaphore());
        let handle = Arc::new(Handle::new(caller, slots));
        Socket {
            wire: Arc::new(Wire::new(stream, Arc::clone(&handle))),
            handle,
            tls: None,
            queues: true,
            left: Vec::new(),
            full: false,
            blocked: false,
            _slot: slot,
        }
    }

    /// With TLS, whose handshake is complete.
    pub(super) fn with_tls(mut self, tls: TlsSession) -> Self {
        self.tls = Some(Box::new(tls));
        self
    }

    /// From here on short writes may be [queued](send_queue), or not.
    pub(super) fn set_queues(&mut self, queues: bool) {
        self.queues = queues;
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The error that ends a connection that was cut.
    fn check_cut(&self) -> io::Result<()> {
        if !self.handle.is_cut() {
            return Ok(());
        }
        if let Stream::Tcp(stream) = self.wire.stream() {
            // Otherwise the kernel would keep offering a dead or stopped peer what is in
            // its send buffer, long after the process let go of it. Should this fail, the
            // socket is closed all the same.
            let _ = stream.set_zero_linger();
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the connection was cut",
        ))
    }

    /// Reads. When it is pending, readable bytes will set the handle's wake flag.
    pub(super) fn poll_read(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_cut()?;
        let waker = Waker::from(Arc::clone(&self.handle));
        let stream = self.wire.stream();
        let mut cx = Context::from_waker(&waker);
        let polled = match &mut self.tls {
            None => stream.poll_read(&mut cx, buf),
            Some(tls) => tls.poll_read(stream, &mut cx, buf),
        };
        if polled.is_ready() {
            self.handle.has_read();
        }
        polled
    }

    /// How much of a turn it took to read so many bytes: with TLS, small records take more.
    pub(super) fn take_read_cost(&mut self, bytes: usize) -> usize {
        match &mut self.tls {
            None => bytes,
            Some(tls) => tls.take_cost().max(bytes),
        }
    }

    /// Writes, past the runtime for as long as the socket takes everything: what the
    /// runtime knows of it lies in memory of its own, which with many connections has left
    /// the caches. What is short may be [queued](send_queue) instead.
    ///
    /// When it is pending, the task of `cx` is woken when the socket takes more, and by a
    /// cut.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        if self.tls.is_some() {
            return self.poll_write_encrypted(cx, slices);
        }
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if self.queues && !self.full && send_queue::push(&self.wire, slices) {
            return Poll::Ready(Ok(bytes));
        }
        // Nobody's short write waits for a long one.
        send_queue::submit();
        if slices.len() == 1 || bytes > COPIED_BYTES {
            return self.poll_write_now(cx, slices);
        }
        COPY.with_borrow_mut(|copy| {
            copy.clear();
            for slice in slices {
                copy.extend_from_slice(slice);
            }
            self.poll_write_now(cx, &[IoSlice::new(copy)])
        })
    }

    /// Writes what is queued or left of earlier writes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut()?;
        if !self.wire.is_idle() {
            if self.wire.is_queued() {
                send_queue::submit();
                if self.wire.is_queued() {
                    // By another thread.
                    self.handle.register(cx.waker());
                    if self.wire.awaits() {
                        return Poll::Pending;
                    }
                }
            }
            self.left = self.wire.take_left()?;
            self.full |= !self.left.is_empty();
        }
        while !self.left.is_empty() {
            let left = std::mem::take(&mut self.left);
            let polled = self.poll_write_now(cx, &[IoSlice::new(&left)]);
            self.left = left;
            let written = ready!(polled)?;
            self.left.drain(..written);
            if self.left.is_empty() {
                self.left = Vec::new();
            }
        }
        match &self.tls {
            Some(tls) if tls.has_left() => self.poll_flush_encrypted(cx, false),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Encrypts, and writes as much of that as the socket takes; the rest comes first next
    /// time.
    #[inline(never)]
    fn poll_write_encrypted(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(tls) = &mut self.tls else {
            return Poll::Ready(Ok(0));
        };
        let mut bytes = tls.encrypt(slices)?;
        if bytes == 0 && tls.has_left() {
            // New keys come first.
            ready!(self.poll_flush_encrypted(cx, false))?;
            bytes = self.tls.as_mut().map_or(Ok(0), |tls| tls.encrypt(slices))?;
        }
        match self.poll_flush_encrypted(cx, true) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes)),
        }
    }

    /// Writes what is encrypted. It may be [queued](send_queue) where nothing is yet.
    #[inline(never)]
    fn poll_flush_encrypted(
        &mut self,
        cx: &mut Context<'_>,
        may_queue: bool,
    ) -> Poll<io::Result<()>> {
        let Some(mut tls) = self.tls.take() else {
            return Poll::Ready(Ok(()));
        };
        let polled = tls.poll_flush(|slices| {
            let bytes = slices.iter().map(|slice| slice.len()).sum();
            let may_queue = may_queue && self.queues && !self.full;
            if may_queue && send_queue::push(&self.wire, slices) {
                return Poll::Ready(Ok(bytes));
            }
            send_queue::submit();
            self.poll_write_now(cx, slices)
        });
        self.tls = Some(tls);
        polled
    }

    fn poll_write_now(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.write(cx, slices);
        if self.blocked != polled.is_pending() {
            self.blocked = polled.is_pending();
            self.handle.toggle_write_block();
        }
        self.unless_cut(cx, polled)
    }

    /// There is nothing to write: whether the socket would take it does not matter.
    pub(super) fn has_nothing_to_write(&mut self) {
        if self.blocked {
            self.blocked = false;
            self.handle.toggle_write_block();
        }
    }

    /// Whether something is left of a write that was queued.
    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
            || !(self.wire.is_idle() || self.wire.is_queued())
            || self.tls.as_ref().is_some_and(|tls| tls.has_left())
    }

    fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = self.wire.stream();
        if !self.full {
            let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
            match stream.try_write(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(written) => {
                    self.full = written < bytes;
                    return Poll::Ready(Ok(written));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // Asks the system again, and has it wake us when that takes more.
        let polled = stream.poll_write(cx, slices);
        self.full = polled.is_pending();
        polled
    }

    /// Passes on what the socket said; where it would have the task wait, makes sure that
    /// a cut wakes it.
    fn unless_cut<T>(
        &self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            self.handle.register(cx.waker());
            self.check_cut()?;
        }
        polled
    }

    /// Shuts our side down, then reads and drops whatever still arrives until the peer
    /// closes too.
    ///
    /// A socket that is closed while the peer still sends (its window updates, at the
    /// least) answers with a reset, and a reset throws away what the peer has not received
    /// yet: the very events that a graceful stop waited for.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut()?;
        if self.handle.phase() != Phase::Closing {
            if let Some(tls) = &mut self.tls {
                // Only the first time has it an effect.
                tls.close();
            }
            ready!(self.poll_flush(cx))?;
            self.wire.stream().shut_down()?;
            self.handle.enter(Phase::Closing);
        }
        let mut scrap = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scrap);
            let polled = self.wire.stream().poll_read(cx, &mut buf);
            match ready!(self.unless_cut(cx, polled)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The end, or an error: there is nothing left to wait for.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.handle.enter(Phase::Closed);
        self.handle.forget_task();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::service::Cut;
    use crate::transport::test_support::{Wakes, pair};

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// Writes one slice as far as the socket takes it at once.
    fn write(socket: &mut Socket, bytes: &[u8]) -> Poll<io::Result<usize>> {
        socket.poll_write(&mut noop(), &[IoSlice::new(bytes)])
    }

    /// What there is to read.
    fn read(socket: &mut Socket) -> Option<Vec<u8>> {
        let mut memory = [0; 8];
        let mut buf = ReadBuf::new(&mut memory);
        match socket.poll_read(&mut buf) {
            Poll::Pending => None,
            Poll::Ready(read) => {
                read.unwrap();
                Some(buf.filled().to_vec())
            }
        }
    }

    #[tokio::test]
    async fn a_cut_breaks_reads_and_writes_and_wakes_a_task_that_waits() {
        let (mut socket, _peer) = pair();
        let handle = Arc::clone(socket.handle());
        while write(&mut socket, &[0; 1 << 16]).is_ready() {}
        let writing = tokio::spawn(async move {
            let chunk = [0; 1 << 16];
            poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(&chunk)])).await
        });
        tokio::task::yield_now().await;
        handle.cut(Cut::Late);
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(handle.phase(), Phase::Closed);
    }

    #[tokio::test]
    async fn a_full_socket_is_a_write_block_until_it_takes_bytes_again() {
        let (mut socket, mut peer) = pair();
        let handle = Arc::clone(socket.handle());
        let chunk = vec![0; 1 << 20];
        while handle.write_block().is_none() {
            let written = write(&mut socket, &chunk);
            assert!(written.is_pending() || matches!(written, Poll::Ready(Ok(1..))));
        }
        let block = handle.write_block();
        assert!(write(&mut socket, &chunk).is_pending());
        assert_eq!(handle.write_block(), block, "the same block as before");

        let drained = tokio::spawn(async move {
            let mut sink = vec![0; 4 << 20];
            while peer.read(&mut sink).await.unwrap() > 0 {}
        });
        poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(b"more")]))
            .await
            .unwrap();
        assert_eq!(handle.write_block(), None);
        drop(socket);
        drained.await.unwrap();
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_the_peer_and_drops_what_it_still_sends() {
        let (mut socket, mut peer) = pair();
        let handle = Arc::clone(socket.handle());
        let closing = tokio::spawn(async move {
            poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(b"last bytes")]))
                .await
                .unwrap();
            poll_fn(|cx| socket.poll_shutdown(cx)).await.unwrap();
        });
        let mut received = String::new();
        peer.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "last bytes");
        assert_eq!(handle.phase(), Phase::Closing);
        peer.write_all(&[0; 10_000]).await.unwrap();
        assert!(!closing.is_finished());
        drop(peer);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_ends_a_shutdown_that_waits_for_the_peer() {
        let (mut socket, _peer) = pair();
        let handle = Arc::clone(socket.handle());
        let closing = tokio::spawn(async move { poll_fn(|cx| socket.poll_shutdown(cx)).await });
        while handle.phase() != Phase::Closing {
            tokio::task::yield_now().await;
        }
        handle.cut(Cut::Late);
        closing.await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn readable_bytes_and_the_end_set_the_wake_flag() {
        let (mut socket, mut peer) = pair();
        let handle = Arc::clone(socket.handle());
        let wakes = Arc::new(Wakes::default());
        handle.register(&wakes.waker());
        assert!(handle.take_wakeup(), "the first time");
        for word in [&b"word"[..], b""] {
            assert_eq!(read(&mut socket), None);
            let before = wakes.count();
            peer.write_all(word).await.unwrap();
            if word.is_empty() {
                peer.shutdown().await.unwrap();
            }
            while wakes.count() == before {
                tokio::task::yield_now().await;
            }
            assert!(handle.take_wakeup());
            assert_eq!(read(&mut socket).as_deref(), Some(word));
        }
    }

    #[tokio::test]
    async fn a_handle_keeps_no_task_whose_socket_has_gone() {
        let (socket, _peer) = pair();
        let handle = Arc::clone(socket.handle());
        let wakes = Arc::new(Wakes::default());
        handle.register(&wakes.waker());
        assert_eq!(Arc::strong_count(&wakes), 2);
        drop(socket);
        assert_eq!(Arc::strong_count(&wakes), 1);
    }
}
