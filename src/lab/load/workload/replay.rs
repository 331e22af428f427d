//! `replay`: receivers that take everything that a server has, at once.

use std::time::Duration;

use super::{Fleet, LoadError, Moment, Span, connect_publishers, with_publishers};
use crate::cursor::{Cursor, Seq};
use crate::lab::load::clock::now_ns;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::protocol::Begin;
use crate::lab::load::publishers::{Pace, Plan};
use crate::lab::load::target::Target;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Replay {
    /// How many receivers there are.
    pub receivers: usize,
    /// How many events are published before, as fast as they are accepted.
    pub events: u64,
    /// What they are: the shape, the batch, how many requests are under way.
    pub plan: Plan,
    /// For how long it is repeated; it is done once at least.
    pub duration: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Each time that all receivers took everything, connecting included.
    pub rounds: Vec<Span>,
    /// Events that were accepted.
    pub accepted: u64,
    /// Events that receivers got.
    pub deliveries: u64,
    /// Events of others that they got.
    pub foreign: u64,
    /// Events that a receiver did not get.
    pub lost: u64,
}

impl Replay {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: also if the server does not hold all the events.
    pub fn run<T: Target>(&self, target: &T, gauge: &Gauge) -> Result<ReplayReport, LoadError> {
        let plan = Plan {
            pace: Pace::Full,
            events: Some(self.events),
            ..self.plan.clone()
        };
        let mut fleet = Fleet::new(target, &plan, self.receivers, 1, gauge)?;
        let mut publishers = connect_publishers(target, 1)?;
        gauge.begin_accepting("filling the ring", self.events);
        let ((), published) = with_publishers(&mut publishers, &plan, gauge, || {
            while gauge.accepted() < self.events {
                if gauge.is_stopped() {
                    return Err(LoadError::Stopped);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })?;
        drop(publishers);
        let first = published.firsts.first().copied().flatten();
        let place = first.map(before);
        let begin = place.map_or(Begin::Oldest, Begin::After);

        let mut rounds = Vec::new();
        let mut lost = 0;
        let ends_ns = now_ns() + self.duration.as_nanos() as u64;
        while rounds.is_empty() || now_ns() < ends_ns && lost == 0 {
            fleet.check.rewind(place);
            gauge.begin_delivering("replaying", self.events * self.receivers as u64);
            let from = Moment::now(target.meter(), &fleet);
            for who in 0..self.receivers {
                fleet.receivers.connect(who, begin);
            }
            lost += fleet.catch_up(self.events)?;
            let to = Moment::now(target.meter(), &fleet);
            rounds.push(from.until(&to));
            for who in 0..self.receivers {
                fleet.receivers.cut(who);
            }
        }
        Ok(ReplayReport {
            rounds,
            accepted: published.accepted,
            deliveries: fleet.check.delivered(),
            foreign: fleet.check.foreign(),
            lost,
        })
    }
}

/// The position before an event.
fn before(event: Cursor) -> Cursor {
    Cursor::new(
        event.epoch(),
        Seq::new(event.seq().number().saturating_sub(1)),
    )
}
