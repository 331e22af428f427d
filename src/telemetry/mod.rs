//! What is known of a running server: counters, the gateways that are subscribed, what has
//! happened of late, and the log of it.
//!
//! | file | what is in it |
//! |---|---|
//! | `gateways` | who is subscribed, and what was delivered to each |
//! | `publishing` | what was published, by connection |
//! | `ends` | why streams end; the last thousand |
//! | `enforcement` | what gateways have reported of invalidations, and who waits for it |
//! | `invalidations` | the last thousand session invalidations, and their log |
//! | `log` | the log of streams |
//! | `delays` | how long deliveries take, from a sample |
//! | `history` | figures of the last ten minutes; the task that gathers them |
//! | `listeners`, `reloads` | handshakes; files that were read again |
//! | `start` | the contract's words for where a stream starts |
//! | `count` | counters |
//!
//! Nothing is counted by an atomic that threads share for each event or each delivery: a
//! stream and a publishers' connection count for themselves, and whoever looks adds up.
//! Sums never go back. Memory is bounded: a gateway takes some half a KiB for as
//! long as it is subscribed, and the rest is rings of a fixed length.
//!
//! It knows the engine, and nothing of sockets or of HTTP.

#![forbid(unsafe_code)]

mod count;
mod delays;
mod ends;
mod enforcement;
mod gateways;
mod history;
mod invalidations;
mod listeners;
mod log;
mod publishing;
mod reloads;
mod start;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use smallvec::SmallVec;
use tonic::Code;

pub(crate) use self::delays::Histogram;
pub(crate) use self::ends::{Cause, Ended};
pub(crate) use self::enforcement::{Enforcement, MissingReason, Waited};
pub(crate) use self::gateways::{Arrival, Delivered, Gateway, Lag, Stream, Successor};
pub(crate) use self::history::{INTERVAL as HISTORY_INTERVAL, Point, Rates};
pub(crate) use self::invalidations::Invalidation;
pub(crate) use self::listeners::{HandshakeResult, Handshakes};
pub(crate) use self::publishing::{Begun, Method, Published, Publishing};
pub(crate) use self::reloads::Reloads;
pub(crate) use self::start::{STARTS, completeness, describe};

use self::count::{Labelled, SharedCount};
use self::delays::Delays;
use self::ends::RecentEnds;
use self::enforcement::Enforcements;
use self::gateways::Gateways;
use self::history::History;
use self::invalidations::{Invalidations, LOGGED_AT_ONCE};
use self::log::StreamLog;
use self::publishing::Publishers;
use crate::access::Peer;
#[cfg(any(test, feature = "tonic-service"))]
use crate::config::Config;
use crate::contract::revocations::Completeness;
use crate::engine::{Engine, Replay, Start, Subscriber};
use crate::freshness::Freshness;
use crate::spans::{Parent, Spans};

/// What is known of a server. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(crate) struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    freshness: Freshness,
    started_at: SystemTime,
    started: Instant,
    gateways: Arc<Gateways>,
    publishers: Publishers,
    /// By their place in [`STARTS`].
    starts: [SharedCount; STARTS.len()],
    ends: Labelled<Cause>,
    missed: SharedCount,
    replays: Labelled<&'static str>,
    replayed: SharedCount,
    recent_ends: RecentEnds,
    invalidations: Invalidations,
    enforcements: Enforcements,
    delays: Delays,
    history: History,
    log: StreamLog,
    spans: Spans,
    auth_failures: Labelled<&'static str>,
    handshakes: Handshakes,
    reloads: Reloads,
}

impl Telemetry {
    /// Of a server whose engine that is, and which is as fresh as this. `delay_bounds` are the bounds of its histograms.
    /// Gateways may report with leases up to `max_lease`.
    pub(crate) fn new(
        engine: &Engine,
        freshness: Freshness,
        delay_bounds: &[Duration],
        max_lease: Duration,
        spans: Spans,
    ) -> Self {
        let max_subscribers = engine.limits().max_subscribers;
        Telemetry {
            shared: Arc::new(Shared {
                engine: engine.clone(),
                freshness,
                started_at: SystemTime::now(),
                started: Instant::now(),
                gateways: Arc::new(Gateways::new()),
                publishers: Publishers::new(delay_bounds),
                starts: Default::default(),
                ends: Labelled::default(),
                missed: SharedCount::default(),
                replays: Labelled::default(),
                replayed: SharedCount::default(),
                recent_ends: RecentEnds::default(),
                invalidations: Invalidations::default(),
                enforcements: Enforcements::new(delay_bounds, max_subscribers, max_lease),
                delays: Delays::new(delay_bounds),
                history: History::default(),
                log: StreamLog::new(),
                spans,
                auth_failures: Labelled::default(),
                handshakes: Handshakes::default(),
                reloads: Reloads::default(),
            }),
        }
    }

    /// The same, with the bounds that are the default.
    #[cfg(any(test, feature = "tonic-service"))]
    pub(crate) fn of(engine: &Engine) -> Self {
        let config = Config::default();
        let bounds = &config.delay_bounds;
        let freshness = Freshness::default();
        Self::new(engine, freshness, bounds, config.max_lease, Spans::off())
    }

    /// Until when the server knows what was published.
    pub(crate) fn freshness(&self) -> &Freshness {
        &self.shared.freshness
    }

    // What happens.

    /// A gateway is about to subscribe: whoever it takes the id from is told who it is.
    pub(crate) fn arriving(&self, id: &str, who: Successor) -> Arrival {
        self.shared.gateways.arriving(id, who)
    }

    /// A gateway has subscribed.
    pub(crate) fn subscribed(
        &self,
        subscriber: &Subscriber,
        replay: Option<&Replay>,
        arrival: &Arrival,
        parent: &Parent,
    ) -> Stream {
        Stream::begin(self, subscriber, replay, arrival, parent)
    }

    /// The same, of somebody of whom nothing is known.
    #[cfg(test)]
    pub(crate) fn subscribed_unknown(&self, subscriber: &Subscriber) -> Stream {
        let who = Successor {
            peer: Peer::Unknown,
            principal: None,
            instance: None,
        };
        let arrival = self.arriving(subscriber.ender().gateway_id(), who);
        self.subscribed(subscriber, None, &arrival, &Parent::none())
    }

    /// A subscription was refused, by this status in words.
    pub(crate) fn refused(&self, id: &str, peer: Peer, principal: Option<Arc<str>>, why: &str) {
        self.shared.ended(Ended {
            at: SystemTime::now(),
            id: id.into(),
            peer,
            principal,
            cause: Cause::Refused,
            detail: why.to_owned(),
            lasted: Duration::ZERO,
            position: None,
            events: 0,
            bytes: 0,
            missed: 0,
        });
    }

    /// A publishers' connection has begun.
    pub(crate) fn publishing(&self) -> Publishing {
        Publishing::begin(self)
    }

    /// A credential was refused, or a grant was missing, for this reason.
    pub(crate) fn auth_failed(&self, reason: &'static str) {
        self.shared.auth_failures.add(reason, 1);
    }

    /// What is traced.
    pub(crate) fn spans(&self) -> &Spans {
        &self.shared.spans
    }

    /// Where handshakes are counted.
    pub(crate) fn handshakes(&self) -> &Handshakes {
        &self.shared.handshakes
    }

    /// Where reloads are noted.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.shared.reloads
    }

    /// Logs the session invalidations that are to be logged, or so many of them.
    pub(crate) fn log_invalidations(&self) {
        self.shared.invalidations.log(LOGGED_AT_ONCE);
    }

    /// Logs all session invalidations that are to be logged.
    pub(crate) fn log_all_invalidations(&self) {
        self.shared.invalidations.log(usize::MAX);
    }

    // What is known.

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn started_at(&self) -> SystemTime {
        self.shared.started_at
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// All gateways that are subscribed, in no order.
    pub(crate) fn gateways(&self) -> Vec<Arc<Gateway>> {
        self.shared.gateways.all()
    }

    /// The gateway of this id; several while one takes over from another.
    pub(crate) fn gateway(&self, id: &str) -> SmallVec<[Arc<Gateway>; 1]> {
        self.shared.gateways.find(id)
    }

    /// How far a gateway is from the head.
    pub(crate) fn lag(&self, gateway: &Gateway) -> Lag {
        let engine = &self.shared.engine;
        let position = gateway.deliveries().position;
        let head = engine.head().seq().number();
        let events = head.saturating_sub(position.seq().number());
        let waited = match events {
            0 => Duration::ZERO,
            _ => {
                let age = |seq| engine.age_of_next(seq);
                // Where it has left the ring, it has waited for longer than what is there.
                age(position.seq())
                    .or_else(|| engine.oldest_age())
                    .unwrap_or_default()
            }
        };
        Lag {
            position,
            events,
            waited,
        }
    }

    /// What was published since the start.
    pub(crate) fn published(&self) -> Published {
        self.shared.publishers.published()
    }

    /// Publish requests that were refused, by method and status code.
    pub(crate) fn refused_requests(&self) -> Vec<(Method, Code, u64)> {
        self.shared.publishers.refused()
    }

    /// What was delivered since the start.
    pub(crate) fn delivered(&self) -> Delivered {
        self.shared.gateways.delivered()
    }

    /// How often subscriptions began, by their place in [`STARTS`].
    pub(crate) fn starts(&self) -> [u64; STARTS.len()] {
        std::array::from_fn(|at| self.shared.starts[at].get())
    }

    /// How many streams have ended for this cause.
    pub(crate) fn ends(&self, cause: Cause) -> u64 {
        self.shared.ends.all().get(&cause).copied().unwrap_or(0)
    }

    /// Events that gateways were told they have missed.
    pub(crate) fn missed(&self) -> u64 {
        self.shared.missed.get()
    }

    /// How many streams began with a replay of invalidations that was so complete.
    pub(crate) fn replays(&self, completeness: Completeness) -> u64 {
        let all = self.shared.replays.all();
        all.get(completeness.as_str()).copied().unwrap_or(0)
    }

    /// How many invalidations those replays had.
    pub(crate) fn replayed(&self) -> u64 {
        self.shared.replayed.get()
    }

    /// Streams that have ended of late, the newest first.
    pub(crate) fn recent_ends(&self) -> Vec<Arc<Ended>> {
        self.shared.recent_ends.newest()
    }

    /// The same, of those that came after so many others; at most `most`. Also how many
    /// there have been by then.
    pub(crate) fn ends_since(&self, count: u64, most: usize) -> (Vec<Arc<Ended>>, u64) {
        self.shared.recent_ends.since(count, most)
    }

    /// Changes with each end.
    pub(crate) fn ends_revision(&self) -> u64 {
        self.shared.recent_ends.count()
    }

    /// Session invalidations that were published last, the newest first.
    pub(crate) fn recent_invalidations(&self) -> Vec<Arc<Invalidation>> {
        self.shared.invalidations.newest()
    }

    /// The newest of them.
    pub(crate) fn newest_invalidation(&self) -> Option<Arc<Invalidation>> {
        self.shared.invalidations.last()
    }

    /// Refused credentials and missing grants, by reason.
    pub(crate) fn auth_failures(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.shared.auth_failures.all()
    }

    /// From publishing until the socket took it, sampled.
    pub(crate) fn delivery_delays(&self) -> &Histogram {
        self.shared.delays.histogram()
    }

    /// How long publish requests took, sampled.
    pub(crate) fn publish_durations(&self) -> &Histogram {
        self.shared.publishers.durations()
    }

    /// Figures of the last ten minutes, the oldest first.
    pub(crate) fn history(&self) -> Vec<Point> {
        self.shared.history.points()
    }

    /// The newest of them.
    pub(crate) fn newest_point(&self) -> Option<Point> {
        self.shared.history.newest()
    }

    /// How fast it went in the last ten seconds.
    pub(crate) fn rates(&self) -> Rates {
        self.shared.history.rates()
    }
}

impl Shared {
    fn count_start(&self, start: &Start, replay: Option<&Replay>) {
        if let Some(replay) = replay {
            self.replays.add(completeness(replay).as_str(), 1);
            self.replayed.add(replay.left());
        }
        let (resume, reason, missed) = describe(start.resume);
        let same = |of: &&(_, _)| **of == (resume, reason.clone());
        if let Some((at, _)) = STARTS.iter().enumerate().find(|(_, of)| same(of)) {
            self.starts[at].add(1);
        }
        self.missed.add(missed.unwrap_or(0));
    }

    fn ended(&self, ended: Ended) {
        self.ends.add(ended.cause, 1);
        if ended.cause == Cause::Lapped {
            self.missed.add(ended.missed);
        }
        self.log.ended(&ended);
        self.recent_ends.push(ended);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.invalidations.log(usize::MAX);
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("engine", &self.shared.engine)
            .finish_non_exhaustive()
    }
}
