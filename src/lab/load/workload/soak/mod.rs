//! `soak`: a steady rate for a long time, to gateways of all kinds, with a record of
//! every stream.
//!
//! Beside steady gateways there are those that read too slowly for the rate, those that
//! stop reading for a while, those that leave and come back, and pairs that take one
//! id from each other. [`History`](crate::lab::history::History) judges what each of them
//! was told and got: that a gateway is cut off, lagged or replaced is allowed; that it
//! misses an event without being told is not.

mod crowd;
mod gateway;
mod publishing;

use std::time::Duration;

use super::{Fleet, LoadError, Span, connect_publishers, with_watched_publishers};
use crate::cursor::Cursor;
use crate::lab::history::{History, Report, Terms};
use crate::lab::load::clock::now_ns;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::latency::Latency;
use crate::lab::load::protocol::Begin;
use crate::lab::load::publishers::Plan;
use crate::lab::load::target::GalaxyPush;
use crowd::Crowd;
use publishing::Publishing;

/// How many gateways of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// They take what comes.
    pub steady: usize,
    /// They read too slowly for the rate.
    pub slow: usize,
    /// They stop reading for a while, again and again.
    pub stalled: usize,
    /// They disconnect without notice and reconnect, again and again.
    pub flapping: usize,
    /// Pairs that share an id, and take it from each other.
    pub rivals: usize,
}

impl Mix {
    /// How many gateways that is.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.steady + self.slow + self.stalled + self.flapping + 2 * self.rivals
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Soak {
    /// Who receives.
    pub mix: Mix,
    /// How many publishers share the rate.
    pub publishers: usize,
    /// What they publish.
    pub plan: Plan,
    /// How long it goes on.
    pub duration: Duration,
    /// How long a stalled gateway stops reading.
    pub stall: Duration,
    /// How many of the newest events the server surely keeps.
    pub retained_events: u64,
    /// Whether others may publish meanwhile. Their events cannot be compared.
    pub other_publishers: bool,
}

/// What was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SoakReport {
    /// All of the time but the end.
    pub span: Span,
    /// Of the steady gateways.
    pub latency: Latency,
    /// From when a request was due until its response was there.
    pub round_trip: Latency,
    /// Events that were accepted.
    pub accepted: u64,
    /// Events that gateways got, all together.
    pub deliveries: u64,
    /// Streams that the server ended because they took nothing, and connections that it cut
    /// because their sockets did.
    pub cut_by_server: u64,
    /// What the record shows.
    pub history: Report,
}

impl Soak {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: also for a steady gateway that is cut off. Broken promises are no
    /// error here: they are in the report.
    pub fn run(&self, target: &GalaxyPush, gauge: &Gauge) -> Result<SoakReport, LoadError> {
        let terms = Terms::default()
            .retained_events(self.retained_events)
            .other_publishers(self.other_publishers);
        let history = History::new(match self.head(target, gauge)? {
            Some(head) => terms.after(head),
            None => terms,
        });
        let mut crowd = Crowd::new(self, target, &history, gauge)?;
        crowd.connect_all()?;
        let mut publishers = connect_publishers(target, self.publishers)?;
        let mut publishing = Publishing::new(&history, self.publishers);
        let meter = crate::lab::load::target::Target::meter(target);
        let ((from, to), published) =
            with_watched_publishers(&mut publishers, &self.plan, gauge, &mut publishing, || {
                let ends_ns = now_ns() + self.duration.as_nanos() as u64;
                gauge.begin_until("soaking", ends_ns);
                let from = crowd.moment(meter);
                crowd.until(ends_ns)?;
                Ok((from, crowd.moment(meter)))
            })?;
        drop(publishing);
        gauge.begin_stage("catching up");
        crowd.catch_up(published.newest)?;
        let mut round_trip = Latency::default();
        published
            .round_trips
            .iter()
            .for_each(|own| round_trip.add(own));
        let done = crowd.end();
        Ok(SoakReport {
            span: from.until(&to),
            latency: done.latency,
            round_trip,
            accepted: published.accepted,
            deliveries: done.deliveries,
            cut_by_server: done.cut_by_server,
            history: history.check(),
        })
    }

    /// The newest event that there is before anybody begins.
    fn head(&self, target: &GalaxyPush, gauge: &Gauge) -> Result<Option<Cursor>, LoadError> {
        let mut probe = Fleet::new(target, &self.plan, 1, 0, gauge)?;
        probe.connect_all(Begin::Head)?;
        Ok(probe.check.cursor(0))
    }
}
