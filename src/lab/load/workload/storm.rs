//! `storm`: all receivers are cut at once, and all of them come back.

use std::time::Duration;

use super::{Fleet, LoadError, Moment, Span, connect_publishers, with_publishers};
use crate::lab::load::clock::now_ns;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::latency::{Latency, Windows};
use crate::lab::load::protocol::{Begin, Consumer};
use crate::lab::load::publishers::Plan;
use crate::lab::load::target::Target;

/// The phases of publishing.
const QUIET: usize = 0;
const STORMY: usize = 1;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Storm {
    /// How many receivers there are.
    pub receivers: usize,
    /// How many publishers share the rate.
    pub publishers: usize,
    /// What they publish, all the time.
    pub plan: Plan,
    /// How long nothing happens before the first storm, so that there is something to
    /// compare with; and half as long between two.
    pub quiet: Duration,
    /// For how long storms are begun; there is one at least.
    pub duration: Duration,
}

/// One storm.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct StormRound {
    /// How long it took until all were subscribed again.
    pub subscribed_seconds: f64,
    /// How long it took until each had everything up to the newest event of the moment
    /// when the last one was subscribed.
    pub whole_seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StormReport {
    /// How long it took until all were subscribed the first time.
    pub connected: Duration,
    /// Each storm.
    pub rounds: Vec<StormRound>,
    /// All storms together: what they cost.
    pub storms: Span,
    /// From when a request was due until its response was there, while nothing else happened.
    pub quiet: Latency,
    /// The same, in storms.
    pub stormy: Latency,
    /// Of deliveries, all the time: of those that came late, being cut off is part.
    pub latency: Latency,
    /// Events that were accepted.
    pub accepted: u64,
    /// Events that receivers got.
    pub deliveries: u64,
    /// Events of others that they got.
    pub foreign: u64,
    /// Events that were accepted, and that a receiver did not get.
    pub lost: u64,
}

impl Storm {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: also for a receiver that is not resumed where it was.
    pub fn run<T: Target>(&self, target: &T, gauge: &Gauge) -> Result<StormReport, LoadError> {
        let mut fleet = Fleet::new(target, &self.plan, self.receivers, self.publishers, gauge)?;
        let begun_ns = now_ns();
        fleet.connect_all(Begin::Head)?;
        let connected = Duration::from_nanos(now_ns() - begun_ns);
        let mut publishers = connect_publishers(target, self.publishers)?;
        let meter = target.meter();
        let mut rounds = Vec::new();
        let mut storms = Span::default();
        fleet.check.measure(Windows::of(0..u64::MAX, 1));
        let ((), mut published) = with_publishers(&mut publishers, &self.plan, gauge, || {
            let quiet_ns = self.quiet.as_nanos() as u64;
            let mut calm_until_ns = now_ns() + quiet_ns;
            let ends_ns = calm_until_ns + self.duration.as_nanos() as u64;
            loop {
                gauge.begin_phase(QUIET);
                gauge.begin_until("quiet", calm_until_ns);
                fleet.until(calm_until_ns)?;
                if !rounds.is_empty() && now_ns() >= ends_ns {
                    return Ok(());
                }
                gauge.begin_phase(STORMY);
                gauge.begin_stage("storm");
                let from = Moment::now(meter, &fleet);
                rounds.push(storm(&mut fleet)?);
                storms.add(&from.until(&Moment::now(meter, &fleet)));
                calm_until_ns = now_ns() + quiet_ns / 2;
            }
        })?;
        gauge.begin_stage("catching up");
        let lost = fleet.catch_up(published.accepted)?;
        published.round_trips.resize_with(2, Latency::default);
        Ok(StormReport {
            connected,
            rounds,
            storms,
            stormy: published.round_trips.swap_remove(STORMY),
            quiet: published.round_trips.swap_remove(QUIET),
            latency: fleet.check.latencies().all(),
            accepted: published.accepted,
            deliveries: fleet.check.delivered(),
            foreign: fleet.check.foreign(),
            lost,
        })
    }
}

/// Cuts all of them, and waits until all are whole again.
fn storm<C: Consumer>(fleet: &mut Fleet<C>) -> Result<StormRound, LoadError> {
    let begun_ns = now_ns();
    for who in 0..fleet.receivers.len() {
        fleet.cut(who);
    }
    for who in 0..fleet.receivers.len() {
        fleet.reconnect(who);
    }
    let all = fleet.receivers.len();
    fleet.while_it_moves("all receivers are subscribed again", |check| {
        check.started() == all
    })?;
    let subscribed_ns = now_ns();
    let head = fleet.gauge.accepted();
    fleet.while_it_moves("all receivers have what they missed", |check| {
        check.missing(head) == 0
    })?;
    Ok(StormRound {
        subscribed_seconds: (subscribed_ns - begun_ns) as f64 / 1e9,
        whole_seconds: (now_ns() - begun_ns) as f64 / 1e9,
    })
}
