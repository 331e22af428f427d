//! Finds peers that take nothing, or are gone.
//!
//! A gateway that stops reading costs no publisher any time, but what was queued for it
//! stays in memory after the ring has moved on. So one task looks at all connections and
//! all [tracked](super::in_flight) streams now and then, and remembers since when each has
//! been waiting without any progress:
//!
//! | what | how long | then |
//! |---|---|---|
//! | a stream of which nothing is written, though its socket takes bytes | the stall timeout | its driver is told, and ends that stream alone |
//! | a connection whose socket is full | the stall timeout | it is cut |
//! | a connection from which nothing is read | [`KEEPALIVE_INTERVAL`] | it is sent a ping, and cut [`KEEPALIVE_TIMEOUT`] later |
//! | a connection without a handshake | [`HANDSHAKE_TIMEOUT`] | it is cut |
//! | a connection that does not close after its last byte | the linger timeout | it is cut |
//!
//! Two things are done earlier when resources run out. Above the limit of pinned memory,
//! streams end however short their stall, the longest first. When a listener has no
//! connection slot left, connections without an open stream are cut.
//!
//! A stream that waits for events has nothing queued, so it never stalls. Publishing does
//! nothing for all this.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::handle::{Handle, Phase};
use super::in_flight::Tracked;
use crate::config::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::service::{Cut, Stall};

/// How long a peer may take for HTTP/2's handshake: a few round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without a stream is left alone on a crowded listener: enough for
/// a client to connect, and then to call.
const CROWDED_IDLE: Duration = Duration::from_secs(5);
/// How many connections without a stream are cut at a time.
const CROWDED_CUTS: usize = 64;
/// The pause between two looks at the pinned memory; stalls are looked for less often.
/// What is pinned grows as fast as is published, so this is how far above its limit it can
/// come: some megabytes.
const TICK: Duration = Duration::from_millis(10);
/// How long a stream must have been stalled to end early when too much is pinned.
const STALLED: Duration = Duration::from_millis(50);
/// The longest pause between two looks for stalls.
const SCAN: Duration = Duration::from_secs(1);

/// How long peers may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// How long a peer may take nothing of what is queued for it.
    pub(crate) stall: Duration,
    /// How long a connection may take to close after our last byte.
    pub(crate) linger: Duration,
    /// How much memory may be held that the ring has moved on from, in bytes.
    pub(crate) max_pinned_bytes: u64,
}

/// Everything that is being watched. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Watched>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    connections: Vec<WatchedConnection>,
    streams: Vec<WatchedStream>,
}

#[derive(Debug)]
struct WatchedConnection {
    handle: Arc<Handle>,
    stuck: Stopwatch<(Phase, u64)>,
    idle: Stopwatch<u64>,
    silent: Stopwatch<u64>,
    pinged: bool,
}

#[derive(Debug)]
struct WatchedStream {
    stream: Arc<Tracked>,
    stuck: Stopwatch<u64>,
}

/// Since when a mark has not changed.
#[derive(Debug)]
struct Stopwatch<M> {
    mark: Option<(M, Instant)>,
}

impl<M: PartialEq> Stopwatch<M> {
    fn new() -> Self {
        Stopwatch { mark: None }
    }

    /// How long the mark has been this one; `None` if there is none.
    fn look(&mut self, mark: Option<M>, now: Instant) -> Option<Duration> {
        match (&self.mark, mark) {
            (_, None) => {
                self.mark = None;
                None
            }
            (Some((old, since)), Some(new)) if *old == new => Some(now - *since),
            (_, Some(new)) => {
                self.mark = Some((new, now));
                Some(Duration::ZERO)
            }
        }
    }

    /// How long the mark that was looked at last had been the same then.
    fn lasted(&self, now: Instant) -> Option<Duration> {
        self.mark.as_ref().map(|(_, since)| now - *since)
    }
}

impl Watchdog {
    pub(super) fn watch(&self, handle: Arc<Handle>) {
        self.lock().connections.push(WatchedConnection {
            handle,
            stuck: Stopwatch::new(),
            idle: Stopwatch::new(),
            silent: Stopwatch::new(),
            pinged: false,
        });
        self.shared.arrived.notify_one();
    }

    /// Tracks a stream of a watched connection until it ends.
    pub(super) fn track(&self, handle: &Arc<Handle>) -> Arc<Tracked> {
        let stream = Arc::new(Tracked::new(Arc::clone(handle)));
        self.lock().streams.push(WatchedStream {
            stream: Arc::clone(&stream),
            stuck: Stopwatch::new(),
        });
        stream
    }

    /// Wakes every driver, to look at what has changed for all of them.
    pub(super) fn wake_all(&self) {
        for watched in &self.lock().connections {
            watched.handle.wake();
        }
    }

    /// Cuts every connection without a handshake: a stop does not wait for it.
    pub(crate) fn cut_handshakes(&self) {
        for watched in &self.lock().connections {
            if watched.handle.phase() == Phase::Handshake {
                watched.handle.cut(Cut::Stopping);
            }
        }
    }

    /// Cuts every connection; returns how many were open.
    pub(crate) fn cut_all(&self) -> usize {
        let watched = self.lock();
        let open = watched
            .connections
            .iter()
            .filter(|watched| watched.handle.phase() != Phase::Closed);
        open.map(|watched| watched.handle.cut(Cut::Stopping))
            .count()
    }

    /// Watches until it is dropped. `timeouts` may change with every look. `pinned_bytes`
    /// tells how much memory is held that the ring has moved on from.
    pub(crate) async fn run(self, timeouts: impl Fn() -> Timeouts, pinned_bytes: impl Fn() -> u64) {
        let mut next_scan = Instant::now();
        loop {
            let now = Instant::now();
            let timeouts = timeouts();
            let scan_every = (timeouts.stall / 4).clamp(TICK, SCAN);
            let pinned_bytes = pinned_bytes();
            {
                let mut watched = self.lock();
                let limit = timeouts.max_pinned_bytes;
                // From half of it on, so that it is known which streams stall.
                if pinned_bytes > limit / 2 || now >= next_scan {
                    watched.scan(timeouts, now);
                    next_scan = now + scan_every;
                }
                if pinned_bytes > limit {
                    watched.relieve(pinned_bytes, limit, now);
                }
            }
            if self.is_idle() {
                self.shared.arrived.notified().await;
            } else {
                sleep(TICK).await;
            }
        }
    }

    /// Reports every tracked stream, whether or not it stalls.
    #[cfg(test)]
    pub(super) fn report_all(&self, stall: Stall) {
        for watched in &self.lock().streams {
            watched.stream.report(stall);
        }
    }

    fn is_idle(&self) -> bool {
        let watched = self.lock();
        watched.connections.is_empty() && watched.streams.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing is half done where this could panic.
        let watched = self.shared.watched.lock();
        watched.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Forgets what has ended, and reports what has been stuck for too long.
    fn scan(&mut self, timeouts: Timeouts, now: Instant) {
        let mut crowded = Vec::new();
        self.connections.retain_mut(|watched| {
            let handle = &watched.handle;
            let phase = handle.phase();
            let (mark, limit, why, what) = match phase {
                Phase::Handshake => (Some(0), HANDSHAKE_TIMEOUT, Cut::Late, "handshake timeout"),
                Phase::Serving => (
                    handle.write_block(),
                    timeouts.stall,
                    Cut::Stalled,
                    "its socket is full: the peer reads nothing",
                ),
                Phase::Closing => (
                    Some(0),
                    timeouts.linger,
                    Cut::Late,
                    "the peer did not close after our end of the connection",
                ),
                Phase::Closed => return false,
            };
            let cut_after = |stuck: Option<Duration>, limit: Duration, why, what| {
                if stuck.is_some_and(|stuck| stuck >= limit) && !handle.is_cut() {
                    tracing::info!(peer = %handle.peer(), after = ?limit, "connection cut: {what}");
                    handle.cut(why);
                }
            };
            let stuck = watched.stuck.look(mark.map(|mark| (phase, mark)), now);
            cut_after(stuck, limit, why, what);
            let silent = watched.silent.look(Some(handle.reads()), now);
            let limit = KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT;
            cut_after(silent, limit, Cut::KeepaliveTimeout, "keepalive timeout");
            let ping_is_due = silent.is_some_and(|silent| silent >= KEEPALIVE_INTERVAL);
            if ping_is_due && !watched.pinged {
                handle.request_ping();
            }
            watched.pinged = ping_is_due;
            let idle = handle.idle().filter(|_| phase == Phase::Serving);
            let idle = watched.idle.look(idle, now);
            if idle.is_some_and(|idle| idle >= CROWDED_IDLE) && handle.is_crowded() {
                crowded.push((idle, Arc::clone(handle)));
            }
            true
        });
        crowded.sort_unstable_by_key(|(idle, _)| Reverse(*idle));
        for (_, handle) in crowded.into_iter().take(CROWDED_CUTS) {
            tracing::info!(
                peer = %handle.peer(),
                "connection cut: it has no open stream, and the listener is at its connection limit"
            );
            handle.cut(Cut::Crowded);
        }

        self.streams.retain_mut(|watched| {
            let stream = &watched.stream;
            let stuck = watched.stuck.look(stream.progress(), now);
            if let Some(lasted) = stuck
                && lasted >= timeouts.stall
            {
                stream.report(Stall {
                    lasted,
                    pinned_bytes: None,
                });
            }
            !stream.has_ended()
        });
    }

    /// Ends streams that have been stalled the longest, in proportion to how much is too
    /// much.
    ///
    /// What one stream holds others may hold too, so what ending it frees is known only
    /// afterwards: then the next round follows, if it was not enough.
    fn relieve(&self, pinned_bytes: u64, limit_bytes: u64, now: Instant) {
        if self.streams.iter().any(|watched| watched.is_letting_go()) {
            // The last round is still letting go.
            return;
        }
        let mut stalled: Vec<_> = self
            .streams
            .iter()
            .filter_map(|watched| Some((watched.stuck.lasted(now)?, &watched.stream)))
            // Not those that merely have something queued just now.
            .filter(|(lasted, _)| *lasted >= STALLED)
            .collect();
        let share = (pinned_bytes - limit_bytes) as f64 / pinned_bytes as f64;
        let ends = (stalled.len() as f64 * share).ceil() as usize;
        stalled.sort_unstable_by_key(|(lasted, _)| Reverse(*lasted));
        for (lasted, stream) in stalled.into_iter().take(ends) {
            let handle = stream.handle();
            if handle.write_block().is_some() {
                // A status would stand behind what its socket does not take.
                tracing::warn!(
                    peer = %handle.peer(),
                    "connection cut: its socket is full, a stream took nothing for {lasted:?},                      and {pinned_bytes} bytes are pinned",
                );
                handle.cut(Cut::Stalled);
            } else {
                stream.report(Stall {
                    lasted,
                    pinned_bytes: Some(pinned_bytes),
                });
            }
        }
    }
}

impl WatchedStream {
    /// Whether its end was asked for, and has not come.
    fn is_letting_go(&self) -> bool {
        self.stream.handle().is_cut() || self.stream.is_reported()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncWriteExt, ReadBuf};
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::access::Peer;
    use crate::transport::in_flight::InFlight;
    use crate::transport::socket::{Socket, Stream};

    const TIMEOUTS: Timeouts = Timeouts {
        stall: Duration::from_secs(30),
        linger: Duration::from_secs(3),
        max_pinned_bytes: 1 << 20,
    };
    /// More than a timeout, by no more than a look late.
    const A_LOOK: Duration = Duration::from_millis(1100);

    /// A listener's slots, and the watchdog over its connections.
    struct Harness {
        watchdog: Watchdog,
        slots: Arc<Semaphore>,
        pinned_bytes: Arc<AtomicU64>,
    }

    impl Harness {
        fn start(slots: usize) -> Self {
            let watchdog = Watchdog::default();
            let pinned_bytes = Arc::new(AtomicU64::new(0));
            let pinned = Arc::clone(&pinned_bytes);
            let run = watchdog
                .clone()
                .run(|| TIMEOUTS, move || pinned.load(Ordering::Relaxed));
            tokio::spawn(run);
            Harness {
                watchdog,
                slots: Arc::new(Semaphore::new(slots)),
                pinned_bytes,
            }
        }

        fn connect(&self) -> (Socket, UnixStream) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let slot = Arc::clone(&self.slots).try_acquire_owned().unwrap();
            let socket = Socket::new(Stream::Unix(ours), Peer::Unix { uid: None }.into(), slot);
            self.watchdog.watch(Arc::clone(socket.handle()));
            (socket, theirs)
        }

        /// A connection that has completed its handshake, and is read from until it ends.
        fn serve(&self) -> (Arc<Handle>, JoinHandle<()>, UnixStream) {
            let (mut socket, theirs) = self.connect();
            let handle = Arc::clone(socket.handle());
            handle.enter(Phase::Serving);
            let reading = tokio::spawn(async move {
                let handle = Arc::clone(socket.handle());
                loop {
                    let mut memory = [0; 100];
                    let mut buf = ReadBuf::new(&mut memory);
                    let read = poll_fn(|cx| {
                        handle.register(cx.waker());
                        handle.take_wakeup();
                        socket.poll_read(&mut buf)
                    });
                    if read.await.is_err() || buf.filled().is_empty() {
                        return;
                    }
                }
            });
            (handle, reading, theirs)
        }

        /// A stream that has bytes queued.
        fn queue(&self, handle: &Arc<Handle>) -> InFlight {
            handle.stream_opened();
            let mut in_flight = InFlight::default();
            in_flight.queue(5);
            in_flight.blocked(|| self.watchdog.track(handle));
            in_flight
        }
    }

    /// Sends something, and waits until it is read.
    async fn speak(theirs: &mut UnixStream, handle: &Handle) {
        let before = handle.reads();
        theirs.write_all(b"alive").await.unwrap();
        while handle.reads() == before {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_without_a_handshake_is_cut_in_time() {
        let harness = Harness::start(10);
        let (socket, _theirs) = harness.connect();
        sleep(HANDSHAKE_TIMEOUT).await;
        assert!(!socket.handle().is_cut());
        sleep(A_LOOK).await;
        assert!(socket.handle().is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_and_then_cut() {
        let harness = Harness::start(10);
        let (handle, serving, mut theirs) = harness.serve();
        sleep(A_LOOK + KEEPALIVE_INTERVAL + A_LOOK).await;
        assert!(
            handle.take_ping_request() && !handle.take_ping_request(),
            "once"
        );
        speak(&mut theirs, &handle).await;
        sleep(KEEPALIVE_TIMEOUT).await;
        assert!(!handle.is_cut(), "it has answered");
        sleep(KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT).await;
        serving.await.unwrap();
        assert!(handle.take_ping_request() && handle.is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_is_cut_after_the_linger() {
        let harness = Harness::start(10);
        let (mut socket, _theirs) = harness.connect();
        let handle = Arc::clone(socket.handle());
        let closing = tokio::spawn(async move { poll_fn(|cx| socket.poll_shutdown(cx)).await });
        sleep(TIMEOUTS.linger).await;
        assert!(!handle.is_cut());
        sleep(A_LOOK).await;
        closing.await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_stays_full_is_cut_and_one_that_moves_is_not() {
        let harness = Harness::start(10);
        let (handle, _serving, mut theirs) = harness.serve();
        for _ in 0..5 {
            handle.toggle_write_block(); // it is full
            sleep(TIMEOUTS.stall / 2).await;
            handle.toggle_write_block(); // and takes some
            speak(&mut theirs, &handle).await;
        }
        assert!(!handle.is_cut());
        handle.toggle_write_block();
        sleep(TIMEOUTS.stall / 2).await;
        speak(&mut theirs, &handle).await;
        sleep(TIMEOUTS.stall / 2 + 2 * A_LOOK).await;
        assert!(handle.is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_cut_only_to_make_room() {
        let harness = Harness::start(3);
        let (idle, idle_reading, mut theirs) = harness.serve();
        let (busy, _reading, mut theirs_too) = harness.serve();
        busy.stream_opened();
        for _ in 0..100 {
            sleep(KEEPALIVE_INTERVAL).await;
            speak(&mut theirs, &idle).await;
            speak(&mut theirs_too, &busy).await;
        }
        assert!(!idle.is_cut(), "there is room for one more");

        let (new, _its_peer) = harness.connect();
        sleep(A_LOOK).await;
        idle_reading.await.unwrap();
        assert!(idle.is_cut());
        assert!(!busy.is_cut() && !new.handle().is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_is_forgotten() {
        let harness = Harness::start(1);
        let (handle, serving, theirs) = harness.serve();
        let in_flight = harness.queue(&handle);
        drop(theirs);
        serving.await.unwrap();
        sleep(A_LOOK).await;
        assert!(!harness.watchdog.is_idle(), "something is still queued");
        drop(in_flight);
        sleep(A_LOOK).await;
        assert!(harness.watchdog.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_stalls_when_nothing_is_written_and_its_connection_is_not_cut() {
        let harness = Harness::start(1);
        let (handle, _serving, mut theirs) = harness.serve();
        let mut in_flight = harness.queue(&handle);
        // As long as some of it goes now and then, it is not stalled.
        for _ in 0..10 {
            sleep(TIMEOUTS.stall * 2 / 3).await;
            speak(&mut theirs, &handle).await;
            in_flight.queue(5);
            in_flight.written(5);
            in_flight.blocked(|| panic!("it is tracked"));
        }
        assert_eq!(in_flight.take_stall(), None);
        sleep(TIMEOUTS.stall + A_LOOK).await;
        let stall = in_flight.take_stall().unwrap();
        assert!(
            stall.lasted >= TIMEOUTS.stall && stall.pinned_bytes.is_none(),
            "{stall:?}"
        );
        assert!(!handle.is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn when_too_much_is_pinned_the_longest_stalled_streams_end_first() {
        let harness = Harness::start(2);
        let (handle, _reading, _theirs) = harness.serve();
        let (full, _reading_too, _theirs_too) = harness.serve();
        let long = harness.queue(&handle);
        // Above half of the limit, it is looked at often.
        harness
            .pinned_bytes
            .store(TIMEOUTS.max_pinned_bytes, Ordering::Relaxed);
        sleep(2 * STALLED).await;
        let short = harness.queue(&handle);
        sleep(2 * STALLED).await;
        assert_eq!((long.take_stall(), short.take_stall()), (None, None));
        // Half of it is too much: so half of the streams.
        harness
            .pinned_bytes
            .store(2 * TIMEOUTS.max_pinned_bytes, Ordering::Relaxed);
        sleep(2 * TICK).await;
        let stall = long.take_stall().unwrap();
        assert_eq!(stall.pinned_bytes, Some(2 * TIMEOUTS.max_pinned_bytes));
        assert!(stall.lasted < TIMEOUTS.stall);
        assert_eq!(short.take_stall(), None);
        drop(long);

        // Where the socket takes no status either, the connection is cut.
        drop(short);
        full.toggle_write_block();
        let _behind_it = harness.queue(&full);
        sleep(3 * STALLED).await;
        assert!(full.is_cut() && !handle.is_cut());
    }
}
