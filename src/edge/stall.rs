//! Finds the peers that take nothing, and cuts them.
//!
//! A gateway that stops reading costs no publisher any time, but what was given
//! to its connection stays in memory after the ring has moved on. So one task
//! looks at all connections and all flows now and then, and remembers since when
//! each has been waiting without any progress:
//!
//! - a connection whose peer does not complete the handshake, whose socket has
//!   been full for the whole stall timeout, or that does not end after its last
//!   byte;
//! - a connection whose peer says nothing at all, even when it is asked for a sign of
//!   life;
//! - a [`Flow`] of which nothing has gone for the whole stall timeout. A stream
//!   that waits for events has nothing under way, so it is never stalled.
//!
//! Two things are done earlier when resources run out: above the limit of pinned
//! memory, flows are cut however short their stall, the longest first; and when
//! a listener has no connection slot left, so are connections without a call.
//!
//! Cutting is by connection, since HTTP/2 offers a stream that waits for the
//! peer's window no other way out. Publishing does nothing for all this.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::connection::{Link, Phase};
use super::flow::Flow;
use crate::engine::Engine;

/// Peers that are gone without a word are found by pings that go unanswered:
/// after the interval and the timeout together. Gateways may sit behind NATs and
/// balancers that forget idle connections, some after less than a minute.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a peer may take for HTTP/2's handshake: a few round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without a call is left alone on a crowded listener:
/// enough for a client to connect, and then to call.
const CROWDED_IDLE: Duration = Duration::from_secs(5);
/// How many connections without a call go at a time.
const CROWDED_CUTS: usize = 64;
/// The pause between two looks at the pinned memory; stalls are looked for less
/// often. What is pinned grows as fast as is published, so this is how far above its
/// limit it can come: some megabytes.
const TICK: Duration = Duration::from_millis(10);
/// What takes nothing for so long counts as stalled when there is too much.
const STUCK: Duration = Duration::from_millis(50);
/// The longest pause between two looks for stalls.
const SCAN: Duration = Duration::from_secs(1);

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long a peer may take nothing of what waits for it.
    pub(crate) stall_timeout: Duration,
    /// How long a connection may take to end after our last byte.
    pub(crate) linger: Duration,
    /// How much memory may be held that the ring has moved on from, in bytes.
    pub(crate) max_pinned_bytes: u64,
}

/// Everything that is being watched. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Watched>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    links: Vec<WatchedLink>,
    flows: Vec<WatchedFlow>,
}

#[derive(Debug)]
struct WatchedLink {
    link: Arc<Link>,
    stuck: Standstill<(Phase, u64)>,
    /// The same for its short answers.
    unanswered: Standstill<u64>,
    idle: Standstill<u64>,
    silent: Standstill<u64>,
    asked: bool,
}

#[derive(Debug)]
struct WatchedFlow {
    flow: Arc<Flow>,
    stuck: Standstill<u64>,
}

/// Since when a mark has not changed.
#[derive(Debug)]
struct Standstill<M> {
    mark: Option<(M, Instant)>,
}

impl<M: PartialEq> Standstill<M> {
    fn new() -> Self {
        Standstill { mark: None }
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
}

impl Watch {
    pub(super) fn add_link(&self, link: Arc<Link>) {
        self.lock().links.push(WatchedLink {
            link,
            stuck: Standstill::new(),
            unanswered: Standstill::new(),
            idle: Standstill::new(),
            silent: Standstill::new(),
            asked: false,
        });
        self.shared.arrived.notify_one();
    }

    pub(super) fn add_flow(&self, flow: Arc<Flow>) {
        self.lock().flows.push(WatchedFlow {
            flow,
            stuck: Standstill::new(),
        });
    }

    /// Wakes whoever serves a connection, to look at what has changed for all of them.
    pub(super) fn wake_all(&self) {
        for watched in &self.lock().links {
            watched.link.wake();
        }
    }

    /// Cuts every connection without a handshake: nobody waits for it.
    pub(crate) fn cut_unready(&self) {
        for watched in &self.lock().links {
            if watched.link.phase() == Phase::Handshake {
                watched.link.cut();
            }
        }
    }

    /// Cuts every connection; says how many there still were.
    pub(crate) fn cut_all(&self) -> usize {
        let watched = self.lock();
        let open = watched
            .links
            .iter()
            .filter(|watched| watched.link.phase() != Phase::Closed);
        open.map(|watched| watched.link.cut()).count()
    }

    /// Watches until it is dropped.
    pub(crate) async fn run(self, engine: Engine, patience: Patience) {
        let scan_every = (patience.stall_timeout / 4).clamp(TICK, SCAN);
        let mut next_scan = Instant::now();
        loop {
            let now = Instant::now();
            let pinned_bytes = engine.stats().pinned_bytes;
            {
                let mut watched = self.lock();
                let limit = patience.max_pinned_bytes;
                // From half of it on, so that it is known who is stalled.
                if pinned_bytes > limit / 2 || now >= next_scan {
                    watched.scan(patience, now);
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

    fn is_idle(&self) -> bool {
        let watched = self.lock();
        watched.links.is_empty() && watched.flows.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing is half done where this could panic.
        let watched = self.shared.watched.lock();
        watched.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Forgets what has ended, and cuts what has been stuck for too long.
    fn scan(&mut self, patience: Patience, now: Instant) {
        let mut crowded = Vec::new();
        self.links.retain_mut(|watched| {
            let link = &watched.link;
            let phase = link.phase();
            let (mark, limit, what) = match phase {
                Phase::Handshake => (Some(0), HANDSHAKE_TIMEOUT, "no HTTP/2 handshake"),
                Phase::Serving => (link.jam(), patience.stall_timeout, "its socket is full"),
                Phase::Closing => (Some(0), patience.linger, "it does not close"),
                Phase::Closed => return false,
            };
            let cut_after = |stuck: Option<Duration>, limit: Duration, what| {
                if stuck.is_some_and(|stuck| stuck >= limit) && !link.is_cut() {
                    tracing::info!(peer = %link.peer(), after = ?limit, "connection cut: {what}");
                    link.cut();
                }
            };
            let stuck = watched.stuck.look(mark.map(|mark| (phase, mark)), now);
            cut_after(stuck, limit, what);
            let unanswered = watched.unanswered.look(link.answers().under_way(), now);
            cut_after(unanswered, patience.stall_timeout, "it takes no answers");
            let silent = watched.silent.look(link.silence(), now);
            cut_after(
                silent,
                KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT,
                "it is silent",
            );
            let to_ask = silent.is_some_and(|silent| silent >= KEEPALIVE_INTERVAL);
            if to_ask && !watched.asked {
                link.ask();
            }
            watched.asked = to_ask;
            let idle = link.idle().filter(|_| phase == Phase::Serving);
            let idle = watched.idle.look(idle, now);
            if idle.is_some_and(|idle| idle >= CROWDED_IDLE) && link.is_crowded() {
                crowded.push((idle, Arc::clone(link)));
            }
            true
        });
        crowded.sort_unstable_by_key(|(idle, _)| Reverse(*idle));
        for (_, link) in crowded.into_iter().take(CROWDED_CUTS) {
            tracing::info!(peer = %link.peer(), "idle connection cut: the listener is full");
            link.cut();
        }

        self.flows.retain_mut(|watched| {
            let flow = &watched.flow;
            let stuck = watched.stuck.look(flow.meter().under_way(), now);
            if stuck.is_some_and(|stuck| stuck >= patience.stall_timeout) && !flow.link().is_cut() {
                tracing::warn!(
                    peer = %flow.link().peer(),
                    "connection cut: {} took nothing for {:?}",
                    flow.name(),
                    patience.stall_timeout,
                );
                flow.link().cut();
            }
            !flow.is_finished()
        });
    }

    /// Cuts flows that have been stuck the longest, in proportion to how much is
    /// too much.
    ///
    /// What one flow holds others may hold too, so what cutting it frees is known
    /// only afterwards: then the next round follows, if it was not enough.
    fn relieve(&self, pinned_bytes: u64, limit_bytes: u64, now: Instant) {
        if self
            .flows
            .iter()
            .any(|watched| watched.flow.link().is_cut())
        {
            // The last round is still letting go.
            return;
        }
        let mut stuck: Vec<_> = self
            .flows
            .iter()
            .filter_map(|watched| {
                let (_, since) = watched.stuck.mark.as_ref()?;
                Some((now - *since, &watched.flow))
            })
            // Not those that merely have something under way just now.
            .filter(|(stuck, _)| *stuck >= STUCK)
            .collect();
        let share = (pinned_bytes - limit_bytes) as f64 / pinned_bytes as f64;
        let cuts = (stuck.len() as f64 * share).ceil() as usize;
        stuck.sort_unstable_by_key(|(stuck, _)| Reverse(*stuck));
        for (stuck, flow) in stuck.iter().take(cuts) {
            tracing::warn!(
                peer = %flow.link().peer(),
                "connection cut: {} took nothing for {stuck:?}, and {pinned_bytes} bytes are pinned",
                flow.name(),
            );
            flow.link().cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::connection::{Connection, Peer, Socket};
    use crate::edge::flow::{Account, Load};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    const PATIENCE: Patience = Patience {
        stall_timeout: Duration::from_secs(30),
        linger: Duration::from_secs(3),
        max_pinned_bytes: 1 << 20,
    };
    /// More than a timeout, by no more than a look late.
    const A_LOOK: Duration = Duration::from_millis(1100);

    /// A listener's slots, and the watch over its connections.
    struct Guarded {
        watch: Watch,
        slots: Arc<Semaphore>,
    }

    impl Guarded {
        fn start(slots: usize) -> Self {
            let watch = Watch::default();
            let engine = Engine::builder().build().unwrap();
            tokio::spawn(watch.clone().run(engine, PATIENCE));
            let slots = Arc::new(Semaphore::new(slots));
            Guarded { watch, slots }
        }

        fn connect(&self) -> (Connection, UnixStream) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let slot = Arc::clone(&self.slots).try_acquire_owned().unwrap();
            let slots = Arc::clone(&self.slots);
            let connection = Connection::new(Socket::Unix(ours), Peer::Unix, slots, slot);
            self.watch.add_link(Arc::clone(connection.link()));
            (connection, theirs)
        }

        /// One that has completed its handshake, and is read from.
        async fn serve(&self) -> (Arc<Link>, JoinHandle<()>, UnixStream) {
            let (mut connection, mut theirs) = self.connect();
            let link = Arc::clone(connection.link());
            let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            theirs.write_all(opening).await.unwrap();
            let mut read = [0; 33];
            connection.read_exact(&mut read).await.unwrap();
            assert_eq!(link.phase(), Phase::Serving);
            let reading =
                tokio::spawn(
                    async move { while let Ok(1..) = connection.read(&mut [0; 100]).await {} },
                );
            (link, reading, theirs)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_without_a_handshake_is_cut_in_time() {
        let guarded = Guarded::start(10);
        let (connection, _theirs) = guarded.connect();
        sleep(HANDSHAKE_TIMEOUT).await;
        assert!(!connection.link().is_cut());
        sleep(A_LOOK).await;
        assert!(connection.link().is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_asked_for_a_sign_of_life_and_then_cut() {
        let guarded = Guarded::start(10);
        let (link, serving, mut theirs) = guarded.serve().await;
        let (unwatched, _serving, _theirs) = guarded.serve().await;
        link.watch_silence();
        sleep(A_LOOK + KEEPALIVE_INTERVAL + A_LOOK).await;
        assert!(link.is_asked() && !link.is_asked(), "once");
        theirs.write_all(b"a sign").await.unwrap();
        sleep(KEEPALIVE_TIMEOUT).await;
        assert!(!link.is_cut(), "it has answered");
        sleep(KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT).await;
        serving.await.unwrap();
        assert!(link.is_asked() && link.is_cut());
        assert!(!unwatched.is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_is_cut_after_the_linger() {
        let guarded = Guarded::start(10);
        let (mut connection, _theirs) = guarded.connect();
        let link = Arc::clone(connection.link());
        let closing = tokio::spawn(async move { connection.shutdown().await });
        sleep(PATIENCE.linger).await;
        assert!(!link.is_cut());
        sleep(A_LOOK).await;
        closing.await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_cut_only_to_make_room() {
        let guarded = Guarded::start(3);
        let (idle, served, _theirs) = guarded.serve().await;
        let (busy, _serving, _theirs_too) = guarded.serve().await;
        let _call = busy.begin_call();
        sleep(Duration::from_secs(3600)).await;
        assert!(!idle.is_cut(), "there is room for one more");

        let (new, _its_peer) = guarded.connect();
        sleep(A_LOOK).await;
        served.await.unwrap();
        assert!(idle.is_cut());
        assert!(!busy.is_cut() && !new.link().is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_is_forgotten() {
        let guarded = Guarded::start(1);
        let (link, serving, theirs) = guarded.serve().await;
        let (flow, source) = Flow::new("flow".into(), link.begin_call());
        guarded.watch.add_flow(flow);
        let mut load = Load::new(Account::Own(source));
        load.give(5);
        load.wait();
        drop(theirs);
        serving.await.unwrap();
        sleep(A_LOOK).await;
        assert!(!guarded.watch.is_idle(), "a piece is still under way");
        drop(load);
        sleep(A_LOOK).await;
        assert!(guarded.watch.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_is_stalled_when_nothing_goes_not_when_nothing_comes() {
        let guarded = Guarded::start(1);
        let (link, _serving, _theirs) = guarded.serve().await;
        let (flow, source) = Flow::new("flow".into(), link.begin_call());
        guarded.watch.add_flow(flow);
        sleep(PATIENCE.stall_timeout * 3).await;
        assert!(!link.is_cut(), "nothing is under way");

        // As long as some of it goes now and then, it is not stalled.
        let mut load = Load::new(Account::Own(source));
        load.give(5);
        load.wait();
        for _ in 0..10 {
            sleep(PATIENCE.stall_timeout * 2 / 3).await;
            load.give(5);
            load.go(5);
            load.wait();
        }
        assert!(!link.is_cut(), "some of it went");
        sleep(PATIENCE.stall_timeout + A_LOOK).await;
        assert!(link.is_cut());
    }
}
