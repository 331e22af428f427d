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

/// How long a peer may take for HTTP/2's handshake: a few round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without a call is left alone on a crowded listener:
/// enough for a client to connect, and then to call.
const CROWDED_IDLE: Duration = Duration::from_secs(5);
/// How many connections without a call go at a time.
const CROWDED_CUTS: usize = 64;
/// The pause between two looks at the pinned memory; stalls are looked for less
/// often.
const TICK: Duration = Duration::from_millis(100);
/// The same while there is too much, for what was cut to let go of it.
const RELIEF_TICK: Duration = Duration::from_millis(10);
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
    /// How many flows were cut at the last look for too much pinned memory.
    relief: usize,
}

#[derive(Debug)]
struct WatchedLink {
    link: Arc<Link>,
    stuck: Standstill<(Phase, u64)>,
    idle: Standstill<u64>,
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
            idle: Standstill::new(),
        });
        self.shared.arrived.notify_one();
    }

    pub(super) fn add_flow(&self, flow: Arc<Flow>) {
        self.lock().flows.push(WatchedFlow {
            flow,
            stuck: Standstill::new(),
        });
    }

    /// Cuts every connection that is not serving: nobody waits for it.
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
        let scan_every = (patience.stall_timeout / 4).clamp(TICK / 2, SCAN);
        let mut next_scan = Instant::now();
        loop {
            let now = Instant::now();
            let pinned_bytes = engine.stats().pinned_bytes;
            let tick = {
                let mut watched = self.lock();
                let relieve = pinned_bytes > patience.max_pinned_bytes;
                if relieve || now >= next_scan {
                    watched.scan(patience, now);
                    next_scan = now + scan_every;
                }
                if relieve && watched.relieve(pinned_bytes, now) {
                    RELIEF_TICK
                } else {
                    watched.relief = 0;
                    TICK.min(scan_every)
                }
            };
            if self.is_idle() {
                self.shared.arrived.notified().await;
            } else {
                sleep(tick).await;
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
            let (mark, limit, what) = match link.phase() {
                Phase::Handshake => (Some(0), HANDSHAKE_TIMEOUT, "no HTTP/2 handshake"),
                Phase::Serving => (link.jam(), patience.stall_timeout, "its socket is full"),
                Phase::Closing => (Some(0), patience.linger, "it does not close"),
                Phase::Closed => return false,
            };
            let phase = link.phase();
            let stuck = watched.stuck.look(mark.map(|mark| (phase, mark)), now);
            if stuck.is_some_and(|stuck| stuck >= limit) && !link.is_cut() {
                tracing::info!(peer = %link.peer(), after = ?limit, "connection cut: {what}");
                link.cut();
            }
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
            let gone = flow.under_way().map(|(_, gone)| gone);
            let stuck = watched.stuck.look(gone, now);
            if stuck.is_some_and(|stuck| stuck >= patience.stall_timeout) && !flow.link().is_cut() {
                tracing::warn!(
                    peer = %flow.link().peer(),
                    "connection cut: {} took nothing for {:?}",
                    flow.name(),
                    patience.stall_timeout,
                );
                flow.link().cut();
            }
            !flow.is_finished() && flow.link().phase() != Phase::Closed
        });
    }

    /// Cuts flows that have been stuck the longest; says whether there were any.
    ///
    /// Many flows may pin the same memory, so that one's going frees nothing:
    /// as long as it is not enough, each round cuts twice as many.
    fn relieve(&mut self, pinned_bytes: u64, now: Instant) -> bool {
        let mut stuck: Vec<_> = self
            .flows
            .iter()
            .filter(|watched| !watched.flow.link().is_cut())
            .filter_map(|watched| {
                let (_, since) = watched.stuck.mark.as_ref()?;
                Some((now - *since, &watched.flow))
            })
            .collect();
        self.relief = (self.relief * 2).max(1);
        stuck.sort_unstable_by_key(|(stuck, _)| Reverse(*stuck));
        for (stuck, flow) in stuck.iter().take(self.relief) {
            tracing::warn!(
                peer = %flow.link().peer(),
                "connection cut: {} took nothing for {stuck:?}, and {pinned_bytes} bytes are pinned",
                flow.name(),
            );
            flow.link().cut();
        }
        !stuck.is_empty()
    }
}
