//! The figures of the last ten minutes, one set a second.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::Telemetry;
use super::count::lock;
use super::delays::Counted;
use super::gateways::Delivered;
use super::publishing::Published;
use crate::engine::Stats;

/// The time between two points.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// How many are kept.
const KEPT: usize = 600;
/// What rates are worked out over.
const RATE_SECONDS: usize = 10;
/// While fewer gateways than this are subscribed, ten events a second are sampled; else four.
const FEW_GATEWAYS: usize = 200;

/// The figures of one interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// When it ended.
    pub(crate) at: SystemTime,
    pub(crate) published_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) delivered_bytes_per_second: f64,
    /// From publishing until the socket took it, in seconds.
    pub(crate) delay_p50: Option<f64>,
    pub(crate) delay_p99: Option<f64>,
    pub(crate) gateways: usize,
    pub(crate) gateways_behind: usize,
    pub(crate) ring: Stats,
    pub(crate) oldest_age: Option<Duration>,
}

/// How fast it goes, over some seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) published_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) delivered_bytes_per_second: f64,
    pub(crate) delay_p50: Option<f64>,
    pub(crate) delay_p99: Option<f64>,
    pub(crate) delay_samples: u64,
}

/// What was counted at some moment.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    published: Published,
    delivered: Delivered,
    delays: Counted,
}

impl Look {
    fn now(telemetry: &Telemetry) -> Self {
        Look {
            at: Instant::now(),
            published: telemetry.published(),
            delivered: telemetry.delivered(),
            delays: telemetry.delivery_delays().counted(),
        }
    }

    fn rates_since(&self, earlier: &Look) -> Rates {
        let seconds = (self.at - earlier.at).as_secs_f64().max(1e-3);
        let events = |of: &Published| of.client_events + of.session_invalidations;
        let published = events(&self.published) - events(&earlier.published);
        let delivered = self.delivered.events - earlier.delivered.events;
        let bytes = self.delivered.bytes - earlier.delivered.bytes;
        let delays = self.delays.since(&earlier.delays);
        Rates {
            published_per_second: published as f64 / seconds,
            deliveries_per_second: delivered as f64 / seconds,
            delivered_bytes_per_second: bytes as f64 / seconds,
            delay_p50: delays.percentile(0.5),
            delay_p99: delays.percentile(0.99),
            delay_samples: delays.count(),
        }
    }
}

/// The points, and the looks that rates are worked out from.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    points: VecDeque<Point>,
    looks: VecDeque<Look>,
}

impl History {
    /// The points, the oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        lock(&self.0).points.iter().copied().collect()
    }

    pub(super) fn newest(&self) -> Option<Point> {
        lock(&self.0).points.back().copied()
    }

    /// How fast it went of late.
    pub(super) fn rates(&self) -> Rates {
        let kept = lock(&self.0);
        match (kept.looks.back(), kept.looks.front()) {
            (Some(newest), Some(oldest)) if newest.at > oldest.at => newest.rates_since(oldest),
            _ => Rates::default(),
        }
    }

    fn push(
        &self,
        look: Look,
        gateways: usize,
        gateways_behind: usize,
        ring: Stats,
        oldest_age: Option<Duration>,
    ) {
        let mut kept = lock(&self.0);
        if let Some(before) = kept.looks.back() {
            let rates = look.rates_since(before);
            let point = Point {
                at: SystemTime::now(),
                published_per_second: rates.published_per_second,
                deliveries_per_second: rates.deliveries_per_second,
                delivered_bytes_per_second: rates.delivered_bytes_per_second,
                delay_p50: rates.delay_p50,
                delay_p99: rates.delay_p99,
                gateways,
                gateways_behind,
                ring,
                oldest_age,
            };
            if kept.points.len() == KEPT {
                kept.points.pop_front();
            }
            kept.points.push_back(point);
        }
        if kept.looks.len() > RATE_SECONDS {
            kept.looks.pop_front();
        }
        kept.looks.push_back(look);
    }
}

impl Telemetry {
    /// Takes a look every second, has events sampled, and logs what was counted, until it is
    /// dropped.
    pub(crate) async fn run(self) {
        self.shared.log.will_be_reported();
        let mut next_look = Instant::now();
        let mut looked_at = Instant::now();
        loop {
            self.shared.delays.want();
            self.shared.enforcements.want();
            let few = self.engine().stats().subscribers < FEW_GATEWAYS;
            let times_per_second = if few { 10 } else { 4 };
            self.shared.spans.refill(times_per_second);
            self.log_invalidations();
            let now = Instant::now();
            if now >= next_look {
                next_look = now + INTERVAL;
                self.look(now - looked_at);
                looked_at = now;
                self.shared.log.report(now);
            }
            tokio::time::sleep(Duration::from_secs(1) / times_per_second).await;
        }
    }

    fn look(&self, ago: Duration) {
        let gateways = self.gateways();
        let mut behind = 0;
        for gateway in &gateways {
            gateway.look(ago);
            behind += usize::from(self.lag(gateway).is_behind());
        }
        let ring = self.engine().stats();
        let look = Look::now(self);
        let oldest_age = self.engine().oldest_age();
        self.shared
            .history
            .push(look, gateways.len(), behind, ring, oldest_age);
    }
}
