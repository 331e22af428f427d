//! `idle`: receivers that are subscribed, and nothing is published.

use std::io;
use std::time::Duration;

use super::{Fleet, LoadError, Moment, Span};
use crate::lab::load::clock::now_ns;
use crate::lab::load::event::Shape;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::protocol::Begin;
use crate::lab::load::publishers::{Pace, Plan};
use crate::lab::load::target::Target;
use crate::lab::load::usage::Meter;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Idle {
    /// How many receivers there are.
    pub receivers: usize,
    /// How long nothing happens, before their memory is read.
    pub duration: Duration,
    /// Whether all of them are cut after that, and connect once more.
    pub reconnect: bool,
}

/// What was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdleReport {
    /// Resident memory of the server before the first one connected.
    pub before_bytes: u64,
    /// And with all of them.
    pub after_bytes: u64,
    /// How long it took until all were subscribed.
    pub connected: Duration,
    /// How long it took until all were subscribed once more.
    pub reconnected: Option<Duration>,
    /// The time in which nothing happened.
    pub span: Span,
}

impl Idle {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: also if the target's process is not known.
    pub fn run<T: Target>(&self, target: &T, gauge: &Gauge) -> Result<IdleReport, LoadError> {
        let unreadable = |error| LoadError::System("cannot read the server's memory", error);
        let no_process = || unreadable(io::Error::other("its process is not known"));
        let meter: Meter = target.meter().ok_or_else(no_process)?;
        let plan = Plan {
            shape: Shape::with_payload(0),
            batch: 1,
            pace: Pace::Full,
            in_flight: 1,
            events: None,
        };
        let mut fleet = Fleet::new(target, &plan, self.receivers, 0, gauge)?;
        let before_bytes = meter.memory_bytes().map_err(unreadable)?;
        let begun_ns = now_ns();
        fleet.connect_all(Begin::Head)?;
        let connected_ns = now_ns();
        let ends_ns = connected_ns + self.duration.as_nanos() as u64;
        gauge.begin_until("idling", ends_ns);
        let from = Moment::now(Some(meter), &fleet);
        fleet.until(ends_ns)?;
        let to = Moment::now(Some(meter), &fleet);
        let after_bytes = meter.memory_bytes().map_err(unreadable)?;
        let reconnected = if self.reconnect {
            let begun_ns = now_ns();
            for who in 0..fleet.receivers.len() {
                fleet.cut(who);
            }
            fleet.connect_all(Begin::Head)?;
            Some(Duration::from_nanos(now_ns() - begun_ns))
        } else {
            None
        };
        Ok(IdleReport {
            before_bytes,
            after_bytes,
            reconnected,
            connected: Duration::from_nanos(connected_ns - begun_ns),
            span: from.until(&to),
        })
    }
}
