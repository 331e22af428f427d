//! `publish`: publishers, as fast as they are accepted, and nobody who receives.

use std::time::Duration;

use super::{Fleet, LoadError, Moment, Span, connect_publishers, with_publishers};
use crate::lab::load::clock::now_ns;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::latency::Latency;
use crate::lab::load::publishers::{Pace, Plan};
use crate::lab::load::target::Target;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Publish {
    /// How many publishers there are.
    pub publishers: usize,
    /// What they publish; the pace is [`Pace::Full`] whatever it says.
    pub plan: Plan,
    /// How long it runs before anything is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub duration: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublishReport {
    /// The measured time.
    pub span: Span,
    /// From writing a request until its response was there, with as many others under
    /// way as are allowed.
    pub round_trip: Latency,
    /// Events that were accepted, warm-up included.
    pub accepted: u64,
}

impl Publish {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn run<T: Target>(&self, target: &T, gauge: &Gauge) -> Result<PublishReport, LoadError> {
        let plan = Plan {
            pace: Pace::Full,
            ..self.plan.clone()
        };
        let mut fleet = Fleet::new(target, &plan, 0, self.publishers, gauge)?;
        let mut publishers = connect_publishers(target, self.publishers)?;
        let meter = target.meter();
        let ((from, to), mut published) = with_publishers(&mut publishers, &plan, gauge, || {
            let from_ns = now_ns() + self.warm_up.as_nanos() as u64;
            let to_ns = from_ns + self.duration.as_nanos() as u64;
            gauge.begin_until("warming up", from_ns);
            fleet.until(from_ns)?;
            gauge.begin_phase(1);
            gauge.begin_until("measuring", to_ns);
            let from = Moment::now(meter, &fleet);
            fleet.until(to_ns)?;
            Ok((from, Moment::now(meter, &fleet)))
        })?;
        Ok(PublishReport {
            span: from.until(&to),
            round_trip: published.round_trips.pop().unwrap_or_default(),
            accepted: published.accepted,
        })
    }
}
