//! What is measured: who publishes what when, who receives it, and what is counted.
//!
//! A workload is driven by the thread that calls it, which is the receivers' thread;
//! publishers get one of their own for as long as they publish.

mod idle;
mod live;
mod publish;
mod replay;
mod soak;
mod storm;

use std::io;
use std::thread;
use std::time::Duration;

pub use idle::{Idle, IdleReport};
pub use live::{Live, LiveReport};
pub use publish::{Publish, PublishReport};
pub use replay::{Replay, ReplayReport};
pub use soak::{Mix, Soak, SoakReport};
pub use storm::{Storm, StormReport, StormRound};

use super::clock::now_ns;
use super::delivery_check::DeliveryCheck;
use super::gauge::Gauge;
use super::protocol::{Begin, Consumer, Publisher};
use super::publishers::{Plan, PublishObserver, Published, PublisherError, Publishers};
use super::receivers::Receivers;
use super::target::Target;
use super::usage::{Meter, Usage};

/// How long a turn of the receivers waits for something to happen.
const TURN: Duration = Duration::from_millis(20);
/// How long nothing may happen where something must.
const STANDSTILL_NS: u64 = 15_000_000_000;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A publisher could not go on.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
    /// A receiver could not go on, or something is wrong with what it got.
    #[error("{0}")]
    Receiver(String),
    /// Nothing happens any more.
    #[error("{0}")]
    Standstill(String),
    /// The system does not let it.
    #[error("{0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// Somebody wanted it to end.
    #[error("stopped before the end")]
    Stopped,
}

/// Receivers with their check.
struct Fleet<C> {
    receivers: Receivers<C>,
    check: DeliveryCheck,
    gauge: Gauge,
}

impl<C: Consumer> Fleet<C> {
    fn new<T: Target<Consumer = C>>(
        target: &T,
        plan: &Plan,
        receivers: usize,
        publishers: usize,
        gauge: &Gauge,
    ) -> Result<Self, LoadError> {
        let consumers = (0..receivers).map(|who| target.consumer(who));
        Fleet::of(target, consumers, plan, publishers, gauge)
    }

    fn of<T: Target<Consumer = C>>(
        target: &T,
        consumers: impl ExactSizeIterator<Item = C>,
        plan: &Plan,
        publishers: usize,
        gauge: &Gauge,
    ) -> Result<Self, LoadError> {
        let receivers = consumers.len();
        Ok(Fleet {
            receivers: Receivers::new(&target.consumers_at(), consumers)
                .map_err(|error| LoadError::System("cannot wait for sockets", error))?,
            check: DeliveryCheck::new(plan.shape.clone(), receivers, publishers),
            gauge: gauge.clone(),
        })
    }

    /// One turn of the receivers.
    fn turn(&mut self, patience: Duration) -> Result<(), LoadError> {
        if self.gauge.is_stopped() {
            return Err(LoadError::Stopped);
        }
        self.receivers
            .turn(patience, &mut self.check)
            .map_err(|error| LoadError::System("cannot wait for sockets", error))?;
        self.gauge
            .set_delivered(self.check.delivered(), self.receivers.received_bytes());
        match self.check.errors().first() {
            Some(complaint) => Err(LoadError::Receiver(complaint.to_owned())),
            None => Ok(()),
        }
    }

    /// Turns until this time.
    fn until(&mut self, then_ns: u64) -> Result<(), LoadError> {
        loop {
            let left = then_ns.saturating_sub(now_ns());
            if left == 0 {
                return Ok(());
            }
            self.turn(TURN.min(Duration::from_nanos(left)))?;
        }
    }

    /// Turns until `is_done`, which must come nearer all the time.
    fn while_it_moves(
        &mut self,
        what: &str,
        is_done: impl Fn(&DeliveryCheck) -> bool,
    ) -> Result<(), LoadError> {
        let mut seen = 0;
        let mut seen_ns = now_ns();
        while !is_done(&self.check) {
            self.turn(TURN)?;
            let moved = self.receivers.received_bytes();
            if moved != seen {
                (seen, seen_ns) = (moved, now_ns());
            } else if now_ns() - seen_ns > STANDSTILL_NS {
                return Err(LoadError::Standstill(format!(
                    "for {} seconds nothing has come, while waiting until {what}",
                    STANDSTILL_NS / 1_000_000_000
                )));
            }
        }
        Ok(())
    }

    /// Connects all of them, and waits until all are subscribed.
    fn connect_all(&mut self, begin: Begin) -> Result<(), LoadError> {
        self.gauge.begin_stage("connecting");
        for who in 0..self.receivers.len() {
            self.receivers.connect(who, begin);
        }
        let all = self.receivers.len();
        self.while_it_moves("all receivers are subscribed", |check| {
            check.started() == all
        })
    }

    /// Cuts a receiver off.
    fn cut(&mut self, who: usize) {
        self.receivers.cut(who);
        self.check.disconnected(who);
    }

    /// Lets a receiver come back, to go on where it was.
    fn reconnect(&mut self, who: usize) {
        let place = self.check.cursor(who);
        let begin = place.map_or(Begin::Head, Begin::After);
        self.check.disconnected(who);
        self.receivers.connect(who, begin);
    }

    /// Waits until each of them has got so many events. Returns how many are missing
    /// when nothing comes any more.
    fn catch_up(&mut self, each: u64) -> Result<u64, LoadError> {
        let before = self.check.delivered();
        let missing = self.check.missing(each);
        let caught_up = self.while_it_moves("all receivers have everything", |check| {
            check.delivered() - before >= missing && check.missing(each) == 0
        });
        match caught_up {
            Ok(()) => Ok(0),
            Err(LoadError::Standstill(_)) => Ok(self.check.missing(each)),
            Err(error) => Err(error),
        }
    }
}

/// Runs the publishers on a thread of their own while `meanwhile` runs on this one, and
/// then lets them end.
fn with_publishers<P: Publisher + Send, R>(
    publishers: &mut Publishers<P>,
    plan: &Plan,
    gauge: &Gauge,
    meanwhile: impl FnOnce() -> Result<R, LoadError>,
) -> Result<(R, Published), LoadError> {
    with_watched_publishers(publishers, plan, gauge, &mut (), meanwhile)
}

/// The same, with somebody who looks on.
fn with_watched_publishers<P: Publisher + Send, O: PublishObserver + Send, R>(
    publishers: &mut Publishers<P>,
    plan: &Plan,
    gauge: &Gauge,
    observer: &mut O,
    meanwhile: impl FnOnce() -> Result<R, LoadError>,
) -> Result<(R, Published), LoadError> {
    gauge.let_publishers_begin();
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let outcome = publishers.run(plan, gauge, observer);
            if outcome.is_err() {
                // Nobody is to wait for what will not be published.
                gauge.fail();
            }
            outcome
        });
        let done = meanwhile();
        gauge.end_publishers();
        let published = publishing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Why they ended says more than that this side was stopped.
        match (done, published) {
            (Err(LoadError::Stopped) | Ok(_), Err(error)) => Err(error.into()),
            (done, published) => Ok((done?, published?)),
        }
    })
}

/// Connects the publishers of a target.
fn connect_publishers<T: Target>(
    target: &T,
    publishers: usize,
) -> Result<Publishers<T::Publisher>, LoadError> {
    let members = (0..publishers).map(|who| target.publisher(who));
    Ok(Publishers::connect(&target.publishers_at(), members)?)
}

/// What server and generator have used between two moments.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at_ns: u64,
    server: Option<Usage>,
    own: Option<Usage>,
    accepted: u64,
    delivered: u64,
    received_bytes: u64,
    reads: u64,
}

impl Moment {
    fn now<C: Consumer>(server: Option<Meter>, fleet: &Fleet<C>) -> Self {
        Moment::of(
            server,
            fleet.gauge.accepted(),
            fleet.check.delivered(),
            fleet.receivers.received_bytes(),
            fleet.receivers.reads(),
        )
    }

    fn of(
        server: Option<Meter>,
        accepted: u64,
        delivered: u64,
        received_bytes: u64,
        reads: u64,
    ) -> Self {
        Moment {
            server: server.and_then(|meter| meter.read().ok()),
            own: Meter::of_self().read().ok(),
            at_ns: now_ns(),
            accepted,
            delivered,
            received_bytes,
            reads,
        }
    }

    /// What happened from this moment until that one.
    fn until(&self, then: &Moment) -> Span {
        let usage = |from: Option<Usage>, to: Option<Usage>| {
            let (from, to) = (from?, to?);
            Some((
                to.cpu_ns.saturating_sub(from.cpu_ns),
                to.switches.saturating_sub(from.switches),
            ))
        };
        let server = usage(self.server, then.server);
        Span {
            seconds: then.at_ns.saturating_sub(self.at_ns) as f64 / 1e9,
            accepted: then.accepted - self.accepted,
            deliveries: then.delivered - self.delivered,
            bytes: then.received_bytes - self.received_bytes,
            reads: then.reads - self.reads,
            server_cpu_ns: server.map(|(cpu, _)| cpu),
            server_switches: server.map(|(_, switches)| switches),
            own_cpu_ns: usage(self.own, then.own).map(|(cpu, _)| cpu),
            server_memory_bytes: then.server.map(|usage| usage.memory_bytes),
        }
    }
}

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Span {
    /// How long it was.
    pub seconds: f64,
    /// Events that were accepted.
    pub accepted: u64,
    /// Events that receivers got, all together.
    pub deliveries: u64,
    /// Bytes that they got, framing included.
    pub bytes: u64,
    /// System calls with which they got them.
    pub reads: u64,
    /// Processor time of the server.
    pub server_cpu_ns: Option<u64>,
    /// How often a thread of the server gave up its processor.
    pub server_switches: Option<u64>,
    /// Processor time of the load generator.
    pub own_cpu_ns: Option<u64>,
    /// The server's resident memory at the end.
    pub server_memory_bytes: Option<u64>,
}

impl Span {
    /// Takes in another one. Memory is that of the last. What one of them does not know,
    /// both together do not.
    pub fn add(&mut self, other: &Span) {
        let is_first = self.seconds == 0.0;
        let sum = |a: Option<u64>, b: Option<u64>| if is_first { b } else { Some(a? + b?) };
        self.seconds += other.seconds;
        self.accepted += other.accepted;
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.server_cpu_ns = sum(self.server_cpu_ns, other.server_cpu_ns);
        self.server_switches = sum(self.server_switches, other.server_switches);
        self.own_cpu_ns = sum(self.own_cpu_ns, other.own_cpu_ns);
        self.server_memory_bytes = other.server_memory_bytes;
    }

    /// So much for each delivery.
    #[must_use]
    pub fn per_delivery(&self, what: Option<u64>) -> Option<f64> {
        let what = what? as f64;
        (self.deliveries > 0).then(|| what / self.deliveries as f64)
    }

    /// So many in a second.
    #[must_use]
    pub fn per_second(&self, what: u64) -> f64 {
        if self.seconds > 0.0 {
            what as f64 / self.seconds
        } else {
            0.0
        }
    }
}
