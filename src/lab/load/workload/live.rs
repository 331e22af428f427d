//! `live`: events at a steady rate, to many receivers.

use std::time::Duration;

use super::{Fleet, LoadError, Moment, Span, connect_publishers, with_publishers};
use crate::lab::load::clock::now_ns;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::latency::{Latency, Windows};
use crate::lab::load::protocol::Begin;
use crate::lab::load::publishers::Plan;
use crate::lab::load::target::Target;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Live {
    /// How many receivers there are.
    pub receivers: usize,
    /// How many more there are, which are subscribed and then never read.
    pub stalled: usize,
    /// How many publishers share the rate.
    pub publishers: usize,
    /// What they publish.
    pub plan: Plan,
    /// How long it runs before anything is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub duration: Duration,
    /// Into how many parts that time is divided, of which latencies are told apart.
    pub windows: usize,
}

/// What was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LiveReport {
    /// The measured time.
    pub span: Span,
    /// Of the events that were due in it.
    pub latencies: Windows,
    /// The server's part of those: from sending an event until it was in a receiver's
    /// socket. Empty where the system does not tell.
    pub server_delays: Windows,
    /// How late the generator itself sent requests.
    pub lateness: Latency,
    /// Events that were accepted, warm-up included.
    pub accepted: u64,
    /// Events that receivers got, warm-up included.
    pub deliveries: u64,
    /// Events of others that they got.
    pub foreign: u64,
    /// Events that were accepted, and that a receiver did not get.
    pub lost: u64,
}

impl Live {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: also for a stream that ends or has a hole.
    pub fn run<T: Target>(&self, target: &T, gauge: &Gauge) -> Result<LiveReport, LoadError> {
        let mut fleet = Fleet::new(target, &self.plan, self.receivers, self.publishers, gauge)?;
        // Numbered after the others. Once they are subscribed nobody gives them another
        // turn; they stay connected until all is published.
        let stalling = (0..self.stalled).map(|n| target.stalling_consumer(self.receivers + n));
        let mut stalled = Fleet::of(target, stalling, &self.plan, self.publishers, gauge)?;
        stalled.connect_all(Begin::Head)?;
        fleet.connect_all(Begin::Head)?;
        let mut publishers = connect_publishers(target, self.publishers)?;
        let meter = target.meter();
        let (moments, published) = with_publishers(&mut publishers, &self.plan, gauge, || {
            let from_ns = now_ns() + self.warm_up.as_nanos() as u64;
            let to_ns = from_ns + self.duration.as_nanos() as u64;
            fleet
                .check
                .measure(Windows::of(from_ns..to_ns, self.windows));
            gauge.begin_until("warming up", from_ns);
            fleet.until(from_ns)?;
            let from = Moment::now(meter, &fleet);
            gauge.begin_until("measuring", to_ns);
            fleet.until(to_ns)?;
            Ok((from, Moment::now(meter, &fleet)))
        })?;
        gauge.begin_stage("catching up");
        drop(stalled);
        let lost = fleet.catch_up(published.accepted)?;
        let (from, to) = moments;
        Ok(LiveReport {
            span: from.until(&to),
            latencies: fleet.check.latencies().clone(),
            server_delays: fleet.check.server_delays().clone(),
            lateness: published.lateness,
            accepted: published.accepted,
            deliveries: fleet.check.delivered(),
            foreign: fleet.check.foreign(),
            lost,
        })
    }
}
