//! One row with one server: from work to figures.

use std::time::Duration;

use galaxy_push::lab::load::http2::Offer;
use galaxy_push::lab::load::workload::{
    Idle, IdleReport, Live, LiveReport, LoadError, Publish, PublishReport, Replay, ReplayReport,
    Span, Storm, StormReport,
};
use galaxy_push::lab::load::{Gauge, Latency, Pace, Plan, Shape, Target};

use crate::row::{Size, Work};
use crate::server::Server;
use crate::standstill::{Standstills, Watcher};
use crate::system::System;
use crate::target::{Job, run};

/// What was measured, in one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) measure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

impl Figure {
    fn new(measure: &'static str, unit: &'static str, value: f64) -> Self {
        Figure {
            measure,
            unit,
            value,
        }
    }

    fn nanos(measure: &'static str, value: f64) -> Self {
        Figure::new(measure, "ns", value)
    }
}

/// How many requests a publisher may have in flight at a steady rate: so many that it is
/// not the publisher who waits.
const IN_FLIGHT: usize = 1 << 14;

/// While `storm` and its connections come and go: as many deliveries as `fan-out` has.
const STORM_PER_SECOND: f64 = 20.0;

/// How many events may be in flight in `publish`, in at least so many requests.
const PIPELINED: (usize, usize) = (1024, 32);

/// Latencies are told apart for parts of this length. Those count in which the machine did
/// not stand still, nor in so much time before or after.
const WINDOW: Duration = Duration::from_millis(100);

/// How many events a request has where no row is about that, and how many such requests
/// are under way while a server is filled.
const FILL: (usize, usize) = (100, 32);

/// Runs a row's work with a server that has just been started.
pub(crate) fn measure(
    work: Work,
    size: &Size,
    system: System,
    server: &Server,
) -> Result<Vec<Figure>, LoadError> {
    let offer = Offer::default();
    match work {
        Work::Replay { frame_bytes } => {
            let offer = Offer {
                frame_bytes,
                ..offer
            };
            let replay = Replay {
                receivers: size.replay_gateways,
                events: size.replay_events,
                plan: plan(FILL.0, Pace::Full, FILL.1),
                duration: size.replay,
            };
            let report = run(&replay, system, server, offer)?;
            all_came(report.lost)?;
            Ok(replayed(&report))
        }
        Work::Live {
            per_second,
            gateways,
        } => {
            let windows = size.live.as_nanos().div_ceil(WINDOW.as_nanos());
            let live = Live {
                windows: windows as usize,
                ..live(per_second, gateways, size)
            };
            let mut lived = Lived::default();
            let enough = size.live;
            for _ in 0..size.tries {
                let watcher = Watcher::start();
                let report = run(&live, system, server, offer)?;
                let standstills = watcher.and_then(Watcher::finish);
                all_came(report.lost)?;
                lived.add(&report, standstills.as_ref());
                if standstills.is_none() || lived.quiet >= enough {
                    break;
                }
            }
            Ok(lived.figures(enough / 4))
        }
        Work::Single {
            per_second,
            gateways,
        } => {
            // A window for each event: nothing else is due in it.
            let windows = size.live.as_secs_f64() * f64::from(per_second);
            let live = Live {
                windows: windows as usize,
                ..live(per_second, gateways, size)
            };
            let report = run(&live, system, server, offer)?;
            all_came(report.lost)?;
            Ok(first_and_last(&report))
        }
        Work::FanOut {
            per_second,
            gateways,
        } => {
            let live = Live {
                duration: size.fan_out,
                ..live(per_second, gateways, size)
            };
            let report = run(&live, system, server, offer)?;
            all_came(report.lost)?;
            Ok(cost(&report.span).into_iter().collect())
        }
        Work::Stalled {
            per_second,
            gateways,
            stalled,
        } => {
            let live = live(per_second, gateways, size);
            let without = run(&live, system, server, offer)?;
            all_came(without.lost)?;
            let live = Live {
                stalled,
                // Until all that may be under way to them is.
                warm_up: size.warm_up * 4,
                ..live
            };
            let with = run(&live, system, server, offer)?;
            all_came(with.lost)?;
            Ok(beside(&without.latencies.all(), &with.latencies.all()))
        }
        Work::Idle { gateways } => {
            let idle = Idle {
                receivers: gateways,
                duration: size.idle,
                reconnect: false,
            };
            run(&idle, system, server, offer).map(|report| idled(&report, gateways))
        }
        // It has no events. What it costs to come back is what it costs to connect once
        // more.
        Work::Storm { gateways } if system == System::Handshake => {
            let connect = Idle {
                receivers: gateways,
                duration: Duration::ZERO,
                reconnect: true,
            };
            run(&connect, system, server, offer).map(|report| {
                let taken = report.reconnected.unwrap_or(report.connected);
                vec![Figure::nanos("time to whole", taken.as_nanos() as f64)]
            })
        }
        Work::Storm { gateways } => {
            let storm = Storm {
                receivers: gateways,
                publishers: 1,
                plan: plan(1, Pace::PerSecond(STORM_PER_SECOND), IN_FLIGHT),
                quiet: size.live,
                duration: size.storm,
            };
            let report = run(&storm, system, server, offer)?;
            all_came(report.lost)?;
            Ok(stormed(&report))
        }
        Work::Publish { batch } => {
            let (events, requests) = PIPELINED;
            let publish = Publish {
                publishers: 1,
                plan: plan(batch, Pace::Full, requests.max(events / batch)),
                warm_up: size.fill,
                duration: size.publish,
            };
            run(&publish, system, server, offer).map(|report| published(&report))
        }
    }
}

fn live(per_second: u32, gateways: usize, size: &Size) -> Live {
    Live {
        receivers: gateways,
        stalled: 0,
        publishers: 1,
        plan: plan(1, Pace::PerSecond(per_second.into()), IN_FLIGHT),
        warm_up: size.warm_up,
        duration: size.live,
        windows: 1,
    }
}

/// What loses events is not compared.
fn all_came(lost: u64) -> Result<(), LoadError> {
    match lost {
        0 => Ok(()),
        _ => Err(LoadError::Receiver(format!("{lost} events were lost"))),
    }
}

fn plan(batch: usize, pace: Pace, in_flight: usize) -> Plan {
    Plan {
        shape: Shape::with_payload(Shape::DEFAULT_PAYLOAD_BYTES),
        batch,
        pace,
        in_flight,
        events: None,
    }
}

impl Job for Replay {
    type Report = ReplayReport;

    fn run<T: Target>(&self, target: &T) -> Result<ReplayReport, LoadError> {
        Replay::run(self, target, &Gauge::default())
    }
}

fn replayed(report: &ReplayReport) -> Vec<Figure> {
    let of_each = report.rounds.iter();
    let costs = of_each.filter_map(|span| span.per_delivery(span.server_cpu_ns));
    let mut figures = Vec::new();
    figures.extend(median(costs.collect()).map(|cost| Figure::nanos("CPU/delivery", cost)));
    figures
}

impl Job for Live {
    type Report = LiveReport;

    fn run<T: Target>(&self, target: &T) -> Result<LiveReport, LoadError> {
        Live::run(self, target, &Gauge::default())
    }
}

fn cost(span: &Span) -> Option<Figure> {
    let cost = span.per_delivery(span.server_cpu_ns)?;
    Some(Figure::nanos("CPU/delivery", cost))
}

/// What came of one run or more.
#[derive(Debug, Default)]
struct Lived {
    span: Span,
    /// Of the time in which the machine did not stand still, if that is known.
    latency: Latency,
    /// The server's part of that.
    server_delay: Latency,
    /// How long that was.
    quiet: Duration,
    is_watched: bool,
}

impl Lived {
    fn add(&mut self, report: &LiveReport, standstills: Option<&Standstills>) {
        self.span.add(&report.span);
        self.is_watched |= standstills.is_some();
        let of_server = report.server_delays.iter().map(|(_, delay)| delay);
        for ((window, latency), delay) in report.latencies.iter().zip(of_server) {
            let margin = WINDOW.as_nanos() as u64;
            let around = window.start.saturating_sub(margin)..window.end.saturating_add(margin);
            if standstills.is_none_or(|some| !some.touch(&around)) {
                self.latency.add(latency);
                self.server_delay.add(delay);
                self.quiet += Duration::from_nanos(window.end - window.start);
            }
        }
    }

    /// Latencies only if it was quiet for as long as this.
    fn figures(&self, at_least: Duration) -> Vec<Figure> {
        let mut figures: Vec<_> = cost(&self.span).into_iter().collect();
        if self.quiet >= at_least {
            for (measure, percent) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
                let nanos = self.latency.percentile_ns(percent) as f64;
                figures.push(Figure::nanos(measure, nanos));
            }
            for (measure, percent) in [("p50 in the server", 50.0), ("p99 in the server", 99.0)] {
                if self.server_delay.count() > 0 {
                    let nanos = self.server_delay.percentile_ns(percent) as f64;
                    figures.push(Figure::nanos(measure, nanos));
                }
            }
        }
        if self.is_watched {
            figures.push(Figure::nanos("quiet for", self.quiet.as_nanos() as f64));
        }
        figures
    }
}

/// When the first and the last gateway had an event, of most events.
fn first_and_last(report: &LiveReport) -> Vec<Figure> {
    let events = report.latencies.iter().map(|(_, latency)| latency);
    let events: Vec<_> = events.filter(|latency| latency.count() > 0).collect();
    let of = |time: fn(&Latency) -> u64| median(events.iter().map(|of| time(of) as f64).collect());
    let first = of(|latency| latency.percentile_ns(0.0));
    let last = of(Latency::max_ns);
    let figures = [("first", first), ("last", last)];
    let figures = figures.into_iter();
    figures
        .filter_map(|(measure, nanos)| Some(Figure::nanos(measure, nanos?)))
        .collect()
}

/// The latency with the others, and how many times that without them.
fn beside(without: &Latency, with: &Latency) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (measure, factor, percent) in [
        ("p50", "p50 / without", 50.0),
        ("p99", "p99 / without", 99.0),
    ] {
        let [without, with] = [without, with].map(|latency| latency.percentile_ns(percent) as f64);
        figures.push(Figure::nanos(measure, with));
        if without > 0.0 {
            figures.push(Figure::new(factor, "times", with / without));
        }
    }
    figures
}

impl Job for Idle {
    type Report = IdleReport;

    fn run<T: Target>(&self, target: &T) -> Result<IdleReport, LoadError> {
        Idle::run(self, target, &Gauge::default())
    }
}

fn idled(report: &IdleReport, gateways: usize) -> Vec<Figure> {
    let all_bytes = report.after_bytes.saturating_sub(report.before_bytes);
    let each_bytes = all_bytes as f64 / gateways as f64;
    vec![Figure::new("memory/gateway", "bytes", each_bytes)]
}

impl Job for Storm {
    type Report = StormReport;

    fn run<T: Target>(&self, target: &T) -> Result<StormReport, LoadError> {
        Storm::run(self, target, &Gauge::default())
    }
}

fn stormed(report: &StormReport) -> Vec<Figure> {
    let whole = report.rounds.iter().map(|round| round.whole_seconds * 1e9);
    let mut figures = Vec::new();
    figures.extend(median(whole.collect()).map(|nanos| Figure::nanos("time to whole", nanos)));
    let p99 = |latency: &Latency| latency.percentile_ns(99.0) as f64;
    let (quiet, stormy) = (p99(&report.quiet), p99(&report.stormy));
    figures.push(Figure::nanos("publish p99", stormy));
    if quiet > 0.0 {
        figures.push(Figure::new("publish p99 / quiet", "times", stormy / quiet));
    }
    figures
}

impl Job for Publish {
    type Report = PublishReport;

    fn run<T: Target>(&self, target: &T) -> Result<PublishReport, LoadError> {
        Publish::run(self, target, &Gauge::default())
    }
}

fn published(report: &PublishReport) -> Vec<Figure> {
    let span = &report.span;
    let mut figures = vec![Figure::new(
        "events/s",
        "/s",
        span.per_second(span.accepted),
    )];
    if let Some(nanos) = span.server_cpu_ns
        && span.accepted > 0
    {
        let each = nanos as f64 / span.accepted as f64;
        figures.push(Figure::nanos("CPU/event", each));
    }
    figures
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
