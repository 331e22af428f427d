//! One accepted connection: the socket, and the [`Link`] by which the rest of the edge
//! sees whether it moves, and cuts it.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::flow::Meter;

/// The length of HTTP/2's client preface and of a frame's header (RFC 9113).
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("a unix socket"),
        }
    }
}

/// Calls at a time on one connection. A peer needs one or a few, a proxy that carries many
/// peers opens as many connections as it needs.
pub(super) const MAX_STREAMS: u32 = 256;
/// All headers of one request together. Ours fit into a few hundred bytes; tokens and
/// tracing headers take the rest.
pub(super) const MAX_FIELD_BYTES: u32 = 16 << 10;

/// How far the end of a connection has come, for the task that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    No,
    /// Nothing more is read; what is left is written.
    LastWords,
    /// All was written; the peer has yet to close.
    Closing,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The peer has yet to complete its preface and its SETTINGS.
    Handshake,
    Serving,
    /// Our side is finished; what was written is on its way to the peer.
    Closing,
    Closed,
}

/// What can be known of a connection, and done to it, without owning it.
#[derive(Debug)]
pub(super) struct Link {
    peer: Peer,
    /// The listener's free connection slots, this one's not among them.
    slots: Arc<Semaphore>,
    phase: AtomicU8,
    /// Counts the changes between a socket that takes bytes (even) and one that
    /// is full (odd).
    jams: AtomicU64,
    calls: AtomicUsize,
    calls_begun: AtomicU64,
    /// The short answers that are under way.
    answers: Arc<Meter>,
    cut: AtomicBool,
    /// How often something was read.
    heard: AtomicU64,
    /// Whether whoever serves the connection asks a silent peer for a sign of life.
    asks: AtomicBool,
    /// Whether it is to ask now.
    ask: AtomicBool,
    /// The task was woken by the link and has not looked why.
    news: AtomicBool,
    /// The task that serves the connection. It stays here when it is woken (an
    /// `AtomicWaker` would be empty then), so that who knows of no news need not come back.
    task: Mutex<Option<Waker>>,
}

impl Link {
    fn new(peer: Peer, slots: Arc<Semaphore>) -> Self {
        Link {
            peer,
            slots,
            phase: AtomicU8::new(Phase::Handshake as u8),
            jams: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            calls_begun: AtomicU64::new(0),
            answers: Arc::default(),
            cut: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            asks: AtomicBool::new(false),
            ask: AtomicBool::new(false),
            news: AtomicBool::new(true),
            task: Mutex::default(),
        }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether the listener has no slot left for a further connection.
    pub(super) fn is_crowded(&self) -> bool {
        self.slots.available_permits() == 0
    }

    pub(super) fn phase(&self) -> Phase {
        // Relaxed, here and below: each of these is looked at on its own, by a
        // monitor that comes back.
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Handshake,
            1 => Phase::Serving,
            2 => Phase::Closing,
            _ => Phase::Closed,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// While the socket is full: a number that stays the same for as long as
    /// it has been full without a pause.
    pub(super) fn jam(&self) -> Option<u64> {
        let jams = self.jams.load(Ordering::Relaxed);
        (jams % 2 == 1).then_some(jams)
    }

    /// While no call is in progress: a number that stays the same for as long
    /// as none has begun.
    pub(super) fn idle(&self) -> Option<u64> {
        let begun = self.calls_begun.load(Ordering::Relaxed);
        (self.calls.load(Ordering::Relaxed) == 0).then_some(begun)
    }

    pub(super) fn answers(&self) -> &Arc<Meter> {
        &self.answers
    }

    /// Counts a call, until what this returns is dropped.
    pub(super) fn begin_call(self: &Arc<Self>) -> Call {
        self.calls_begun.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(self))
    }

    /// Ends the connection at once, whatever it is doing: its task is woken and
    /// finds the socket broken, and the kernel forgets what it still held.
    pub(super) fn cut(&self) {
        // Release: pairs with the Acquire in `Connection::broken`. A task that
        // registers after this wake-up sees the flag; one that registered
        // before is woken.
        self.cut.store(true, Ordering::Release);
        self.wake();
    }

    /// Where silence is watched: a number that stays the same for as long as nothing
    /// was read.
    pub(super) fn silence(&self) -> Option<u64> {
        let asks = self.asks.load(Ordering::Relaxed);
        asks.then(|| self.heard.load(Ordering::Relaxed))
    }

    /// Whoever serves the connection will look at [`is_asked`](Self::is_asked).
    pub(super) fn watch_silence(&self) {
        self.asks.store(true, Ordering::Relaxed);
    }

    /// Asks the peer for a sign of life, by whoever serves the connection.
    pub(super) fn ask(&self) {
        // Relaxed: the task sees it by the wake-up, which it registers for before it
        // looks.
        self.ask.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether the peer is to be asked for a sign of life; says so once.
    pub(super) fn is_asked(&self) -> bool {
        self.ask.load(Ordering::Relaxed) && self.ask.swap(false, Ordering::Relaxed)
    }

    /// Has whoever [wakes](Self::wake) the task that serves the connection find this
    /// waker, also while it waits for nothing from the socket.
    pub(super) fn register(&self, waker: &Waker) {
        let mut task = self.task();
        if task.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        let old = task.replace(waker.clone());
        // Dropped without the lock: it is code of others.
        drop(task);
        drop(old);
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task that serves the connection, once it is registered.
    pub(super) fn wake(&self) {
        // A swap, for the Release of everybody who has set it to reach `take_news`, and not
        // only the last one's.
        self.news.swap(true, Ordering::Release);
        self.wake_task();
    }

    fn wake_task(&self) {
        let task = self.task().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Whether whoever serves the connection was [woken](Self::wake) since the last call:
    /// not for an event, but because of the connection. (Also the first time.)
    ///
    /// For who has [registered](Self::register) before: whoever wakes sets the mark first.
    /// So who found no waker here, or an older one, has a mark that is seen now; and who
    /// sets one from now on finds the waker. While there is nothing new, that costs one
    /// load.
    pub(super) fn take_news(&self) -> bool {
        // Acquire: pairs with the swap in `wake`. What there is to see was done before.
        self.news.load(Ordering::Acquire) && self.news.swap(false, Ordering::AcqRel)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

impl Wake for Link {
    fn wake(self: Arc<Self>) {
        Link::wake(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Link::wake(self);
    }
}

/// A call in progress on a connection.
#[derive(Debug)]
pub(super) struct Call(Arc<Link>);

impl Call {
    pub(super) fn link(&self) -> &Link {
        &self.0
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket, which notes on its [`Link`] how it is doing.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    link: Arc<Link>,
    handshake: Handshake,
    /// The socket took less than it was given, the last time.
    full: bool,
    /// It took nothing.
    jammed: bool,
    /// Counts this connection against its listener's limit.
    _slot: OwnedSemaphorePermit,
}

/// A peer that has gone is an error, and no signal. (Where there is no flag for it, the
/// runtime has told the socket.)
#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND: SendFlags = SendFlags::empty();

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        peer: Peer,
        slots: Arc<Semaphore>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Connection {
            socket,
            link: Arc::new(Link::new(peer, slots)),
            handshake: Handshake::default(),
            full: false,
            jammed: false,
            _slot: slot,
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The error that ends a connection that was cut.
    fn broken(&self) -> io::Result<()> {
        if !self.link.is_cut() {
            return Ok(());
        }
        if let Socket::Tcp(socket) = &self.socket {
            // Otherwise the kernel would keep offering a dead or stopped peer
            // what is in its send buffer, long after the process let go of it.
            // Should this fail, the socket is closed all the same.
            let _ = socket.set_zero_linger();
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the connection was cut",
        ))
    }

    /// Reads. When there is nothing to read, there will be [news](Link::take_news).
    pub(super) fn poll_hear(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.broken()?;
        let waker = Waker::from(Arc::clone(&self.link));
        self.read(&mut Context::from_waker(&waker), buf)
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.socket.poll_read(cx, buf);
        if polled.is_ready() {
            // Relaxed, and no read-modify-write: nobody else writes it.
            let heard = self.link.heard.load(Ordering::Relaxed);
            self.link.heard.store(heard + 1, Ordering::Relaxed);
            if self.handshake.advance(&buf.filled()[before..]) {
                self.link.enter(Phase::Serving);
            }
        }
        polled
    }

    /// Passes on what the socket said; where it would have the task wait, makes
    /// sure that a cut wakes it.
    fn unless_cut<T>(
        &self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            self.link.register(cx.waker());
            self.broken()?;
        }
        polled
    }

    /// Writes, past the runtime for as long as the socket takes everything: what the
    /// runtime knows of it is in memory of its own, which with many connections has left
    /// the caches, and is waited for.
    fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.full {
            let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
            match self.socket.write_now(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(written) => {
                    self.full = written < bytes;
                    return Poll::Ready(Ok(written));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // Asks the system again, and has it wake us when that takes more.
        let polled = self.socket.poll_write(cx, slices);
        self.full = polled.is_pending();
        polled
    }

    fn note_write(&mut self, jammed: bool) {
        if self.jammed != jammed {
            self.jammed = jammed;
            self.link.jams.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.broken()?;
        let polled = self.read(cx, buf);
        self.unless_cut(cx, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.broken()?;
        let polled = self.write(cx, slices);
        self.note_write(polled.is_pending());
        self.unless_cut(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of their own to flush.
        Poll::Ready(self.broken())
    }

    /// Finishes our side, then reads and drops whatever still arrives until the
    /// peer closes too.
    ///
    /// A socket that is closed while the peer still sends (its window updates,
    /// at the least) answers with a reset, and a reset throws away what the peer
    /// has not received yet: the very events that a graceful stop waited for.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.broken()?;
        if self.link.phase() != Phase::Closing {
            ready!(self.socket.poll_shutdown(cx))?;
            self.link.enter(Phase::Closing);
        }
        let mut scrap = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scrap);
            let polled = self.socket.poll_read(cx, &mut buf);
            match ready!(self.unless_cut(cx, polled)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The end, or an error: there is nothing left to wait for.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.enter(Phase::Closed);
        // The link may be looked at for longer; the task's memory is not kept for it.
        let task = self.link.task().take();
        drop(task);
    }
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }

    /// Writes what the system takes at once.
    fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        };
        loop {
            let sent = match slices {
                [bytes] => send(socket, bytes, SEND),
                _ => sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SEND),
            };
            match sent {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// Follows the first bytes of a connection to the end of the peer's first
/// frame, which must be its SETTINGS; [`http2`](crate::http2) checks what is in them.
#[derive(Debug)]
struct Handshake {
    head: [u8; PREFACE_BYTES + FRAME_HEADER_BYTES],
    seen: usize,
    /// Where the first frame ends, once its header is there.
    end: usize,
}

impl Default for Handshake {
    fn default() -> Self {
        Handshake {
            head: [0; PREFACE_BYTES + FRAME_HEADER_BYTES],
            seen: 0,
            end: usize::MAX,
        }
    }
}

impl Handshake {
    /// Takes the next bytes; says whether they complete the handshake.
    fn advance(&mut self, bytes: &[u8]) -> bool {
        if self.seen >= self.end {
            return false;
        }
        if let Some(missing) = self.head.get_mut(self.seen..) {
            let n = missing.len().min(bytes.len());
            missing[..n].copy_from_slice(&bytes[..n]);
        }
        self.seen += bytes.len();
        if self.seen >= self.head.len() {
            let [.., a, b, c, _, _, _, _, _, _] = self.head;
            let payload = u32::from_be_bytes([0, a, b, c]) as usize;
            self.end = self.head.len() + payload;
        }
        self.seen >= self.end
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::edge::rig::{Wakes, pair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A preface and a SETTINGS frame with one setting.
    fn opening() -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 4, 0, 1, 0, 0]);
        bytes
    }

    #[test]
    fn the_handshake_ends_with_the_settings_however_they_arrive() {
        let opening = opening();
        for size in 1..=opening.len() {
            let mut handshake = Handshake::default();
            let mut complete_at = None;
            for (i, piece) in opening.chunks(size).enumerate() {
                if handshake.advance(piece) {
                    assert_eq!(complete_at.replace(i), None, "said twice");
                }
            }
            let last = opening.len().div_ceil(size) - 1;
            assert_eq!(complete_at, Some(last), "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_cut_wakes_a_task_that_waits_to_read() {
        let (mut connection, _theirs) = pair();
        let link = Arc::clone(connection.link());
        let reading = tokio::spawn(async move { connection.read_u8().await });
        tokio::task::yield_now().await;
        link.cut();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(link.phase(), Phase::Closed);
    }

    #[tokio::test]
    async fn a_full_socket_is_a_jam_until_it_takes_bytes_again() {
        let (mut connection, mut theirs) = pair();
        let link = Arc::clone(connection.link());
        let chunk = vec![0; 1 << 20];
        while link.jam().is_none() {
            let write = Pin::new(&mut connection).poll_write(&mut noop(), &chunk);
            assert!(write.is_pending() || matches!(write, Poll::Ready(Ok(1..))));
        }
        let jam = link.jam();
        assert!(
            Pin::new(&mut connection)
                .poll_write(&mut noop(), &chunk)
                .is_pending()
        );
        assert_eq!(link.jam(), jam, "the same jam as before");

        let drained = tokio::spawn(async move {
            let mut sink = vec![0; 4 << 20];
            while theirs.read(&mut sink).await.unwrap() > 0 {}
        });
        connection.write_all(b"more").await.unwrap();
        assert_eq!(link.jam(), None);
        drop(connection);
        drained.await.unwrap();
    }

    #[tokio::test]
    async fn closing_waits_for_the_peer_and_drops_what_it_still_sends() {
        let (mut connection, mut theirs) = pair();
        let link = Arc::clone(connection.link());
        let closing = tokio::spawn(async move {
            connection.write_all(b"last words").await.unwrap();
            connection.shutdown().await.unwrap();
        });
        let mut received = String::new();
        theirs.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "last words");
        assert_eq!(link.phase(), Phase::Closing);
        theirs.write_all(&[0; 10_000]).await.unwrap();
        assert!(!closing.is_finished());
        drop(theirs);
        closing.await.unwrap();
    }

    /// Waits for news, of a task of its own.
    fn news(link: &Arc<Link>) -> JoinHandle<()> {
        let link = Arc::clone(link);
        tokio::spawn(poll_fn(move |cx| {
            link.register(cx.waker());
            if link.take_news() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
    }

    #[tokio::test]
    async fn news_are_told_once_and_whoever_waits_for_them_is_woken() {
        let (connection, _theirs) = pair();
        let link = connection.link();
        news(link).await.unwrap(); // the first time
        for tell in [Link::wake, Link::ask, Link::cut] {
            let waiting = news(link);
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "told twice");
            tell(link);
            waiting.await.unwrap();
        }
    }

    #[test]
    fn whoever_is_woken_for_news_that_it_has_taken_is_woken_for_the_next() {
        let wakes = Arc::new(Wakes::default());
        let link = Link::new(Peer::Unix, Arc::new(Semaphore::new(0)));
        link.register(&wakes.waker());
        assert!(link.take_news(), "the first time");
        // Somebody wakes it, and is slow.
        link.news.store(true, Ordering::Release);
        assert!(link.take_news());
        link.wake_task();
        assert!(!link.take_news());
        assert_eq!(wakes.count(), 1);
        link.wake();
        assert_eq!(wakes.count(), 2);
        assert!(link.take_news());
    }

    #[tokio::test]
    async fn a_link_keeps_no_task_whose_connection_has_ended() {
        let (connection, _theirs) = pair();
        let link = Arc::clone(connection.link());
        let wakes = Arc::new(Wakes::default());
        link.register(&wakes.waker());
        assert_eq!(Arc::strong_count(&wakes), 2);
        drop(connection);
        assert_eq!(Arc::strong_count(&wakes), 1);
    }

    #[tokio::test]
    async fn what_the_peer_says_is_news() {
        let (mut connection, mut theirs) = pair();
        news(connection.link()).await.unwrap(); // the first time
        for word in [&b"word"[..], b""] {
            assert_eq!(hear(&mut connection), None);
            let waiting = news(connection.link());
            theirs.write_all(word).await.unwrap();
            if word.is_empty() {
                theirs.shutdown().await.unwrap();
            }
            waiting.await.unwrap();
            assert_eq!(hear(&mut connection).as_deref(), Some(word));
        }
    }

    /// What there is to hear.
    fn hear(connection: &mut Connection) -> Option<Vec<u8>> {
        let mut memory = [0; 8];
        let mut buf = ReadBuf::new(&mut memory);
        match connection.poll_hear(&mut buf) {
            Poll::Pending => None,
            Poll::Ready(heard) => {
                heard.unwrap();
                Some(buf.filled().to_vec())
            }
        }
    }

    fn noop() -> Context<'static> {
        Context::from_waker(std::task::Waker::noop())
    }
}
