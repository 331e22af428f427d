//! What was measured, in the form that `--json` prints.

use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::plan::{Bench, Run, Work};
use crate::command::Failure;
use crate::lab::load::workload::{
    IdleReport, LiveReport, Mix, PublishReport, ReplayReport, SoakReport, Span, StormReport,
    StormRound,
};
use crate::lab::load::{Gauge, Latency, Meter, Pace};

/// A bench, with all of its runs.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) workload: &'static str,
    pub(super) version: &'static str,
    /// When it began, in UTC.
    pub(super) at: String,
    pub(super) command: String,
    pub(super) machine: Machine,
    /// What gateways offer.
    pub(super) frame_bytes: u32,
    pub(super) window_bytes: u32,
    pub(super) runs: Vec<Measured>,
    /// Events lost in all runs together.
    pub(super) lost: u64,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
}

/// One run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    pub(super) gateways: usize,
    /// Others, which never read.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) stalled: usize,
    #[serde(rename = "producers")]
    pub(super) publishers: usize,
    pub(super) batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<f64>,
    pub(super) payload_bytes: usize,
    pub(super) server: String,
    /// Events that were accepted.
    pub(super) events: u64,
    /// Events that gateways got, all together.
    pub(super) deliveries: u64,
    /// Accepted, and not received by a gateway that was there.
    pub(super) lost: u64,
    /// Of other publishers than the bench's.
    pub(super) foreign: u64,
    /// How long was measured.
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deliveries_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_per_second: Option<f64>,
    /// From when an event was due until a gateway had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Times>,
    /// From when an event was sent until it was in a gateway's socket: the server's part of
    /// that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_delay: Option<Times>,
    /// From when a request was due until its response was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) publish_round_trip: Option<Times>,
    /// The same, while gateways were coming back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) publish_round_trip_in_storms: Option<Times>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_cost: Option<ServerCost>,
    pub(super) generator: Generator,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<IdleMemory>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rounds: Vec<Span>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) storms: Vec<StormRound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) soak: Option<Soaked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connected_seconds: Option<f64>,
    pub(super) samples: Vec<Sample>,
}

/// The figures of one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    /// Since the run began.
    pub(super) seconds: f64,
    pub(super) events: u64,
    pub(super) deliveries: u64,
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_cpu_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_memory_bytes: Option<u64>,
}

impl Sample {
    pub(super) fn take(begun: Instant, gauge: &Gauge, server: Option<Meter>) -> Self {
        Sample {
            seconds: begun.elapsed().as_secs_f64(),
            events: gauge.accepted(),
            deliveries: gauge.delivered(),
            bytes: gauge.delivered_bytes(),
            server_cpu_ns: server.and_then(|meter| meter.cpu_ns().ok()),
            server_memory_bytes: server.and_then(|meter| meter.memory_estimate_bytes().ok()),
        }
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a soak has seen.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Soaked {
    pub(super) steady: usize,
    pub(super) slow: usize,
    pub(super) stalled: usize,
    pub(super) flapping: usize,
    pub(super) rivals: usize,
    /// Violated guarantees: how many, and the first of them in words.
    pub(super) violations: u64,
    pub(super) first_violations: Vec<String>,
    pub(super) streams: u64,
    pub(super) resumed: u64,
    pub(super) expired: u64,
    pub(super) lagged: u64,
    pub(super) taken_over: u64,
    pub(super) cut_by_server: u64,
    /// Events that gateways were told that they missed: at the end of a stream, and
    /// again at the start of the next.
    pub(super) announced_missed: u64,
    /// Events that could not be compared with what was published.
    pub(super) unverified: u64,
}

impl Soaked {
    fn new(mix: Mix, report: &SoakReport) -> Self {
        let summary = &report.history.summary;
        let violations = report.history.violations.iter();
        Soaked {
            steady: mix.steady,
            slow: mix.slow,
            stalled: mix.stalled,
            flapping: mix.flapping,
            rivals: mix.rivals,
            violations: report.history.found,
            first_violations: violations.map(ToString::to_string).collect(),
            streams: summary.streams,
            resumed: summary.resumed,
            expired: summary.expired,
            lagged: summary.lagged,
            taken_over: summary.taken_over,
            cut_by_server: report.cut_by_server,
            announced_missed: summary.missed_events,
            unverified: summary.unverified_events,
        }
    }
}

/// Percentiles, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Times {
    pub(super) count: u64,
    pub(super) mean_ns: f64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p99_9_ns: u64,
    pub(super) max_ns: u64,
    /// For a plot: percent, and the time.
    pub(super) curve: Vec<(f64, u64)>,
}

/// What the server used while it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ServerCost {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ns_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ns_per_event: Option<f64>,
    /// In storms, all that it did then for each gateway that came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ns_per_reconnect: Option<f64>,
    /// How many processors it kept busy.
    pub(super) cores: f64,
    pub(super) switches_per_second: f64,
    pub(super) memory_bytes: u64,
}

/// What the load generator itself used.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Generator {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ns_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ns_per_event: Option<f64>,
    pub(super) cores: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deliveries_per_read: Option<f64>,
    /// How long after they were due it sent requests: part of every latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) late: Option<Times>,
}

/// Resident memory of a server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct IdleMemory {
    pub(super) before_bytes: u64,
    pub(super) after_bytes: u64,
    pub(super) bytes_per_gateway: f64,
}

impl Times {
    /// `None`: nothing was recorded.
    pub(super) fn of(latency: &Latency) -> Option<Self> {
        if latency.count() == 0 {
            return None;
        }
        Some(Times {
            count: latency.count(),
            mean_ns: latency.mean_ns(),
            p50_ns: latency.percentile_ns(50.0),
            p90_ns: latency.percentile_ns(90.0),
            p99_ns: latency.percentile_ns(99.0),
            p99_9_ns: latency.percentile_ns(99.9),
            max_ns: latency.max_ns(),
            curve: curve(latency),
        })
    }
}

/// The percentiles that a plot shows: ever closer to 100, as far as there are times.
fn curve(latency: &Latency) -> Vec<(f64, u64)> {
    // Each step of 1 is a nine more.
    let nines = (latency.count() as f64).log10().clamp(1.0, 5.0);
    let steps = (nines * 20.0) as u32;
    (0..=steps)
        .map(|step| {
            let percent = 100.0 * (1.0 - 10_f64.powf(-f64::from(step) / 20.0));
            (percent, latency.percentile_ns(percent))
        })
        .collect()
}

impl Outcome {
    pub(super) fn new(bench: &Bench) -> Self {
        Outcome {
            workload: bench.runs.first().map_or("", |run| run.work.name()),
            version: env!("CARGO_PKG_VERSION"),
            at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::this(),
            frame_bytes: bench.offer.frame_bytes,
            window_bytes: bench.offer.window_bytes,
            runs: Vec::new(),
            lost: 0,
        }
    }

    pub(super) fn add(&mut self, measured: Measured) {
        self.lost += measured.lost;
        self.runs.push(measured);
    }

    /// Losing an event is a failure, and so is any other violated guarantee.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let soaks = self.runs.iter().filter_map(|run| run.soak.as_ref());
        let violations: u64 = soaks.clone().map(|soak| soak.violations).sum();
        if violations > 0 {
            let first = soaks.flat_map(|soak| &soak.first_violations).next();
            let first = first.map_or("", String::as_str);
            return Err(Failure::failed(format!(
                "{violations} guarantees were violated; the first: {first}"
            )));
        }
        match self.lost {
            0 => Ok(()),
            lost => Err(Failure::failed(format!(
                "{lost} events were accepted and did not come to every gateway"
            ))),
        }
    }
}

impl Machine {
    fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        Machine {
            processor: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

impl Measured {
    /// What is known of a run before it runs.
    fn new(run: &Run) -> Self {
        Measured {
            gateways: run.gateways,
            stalled: run.connections() - run.gateways,
            publishers: run.publishers,
            batch: run.plan.batch,
            rate: match run.plan.pace {
                Pace::PerSecond(rate) => Some(rate),
                Pace::Full => None,
            },
            payload_bytes: run.payload_bytes,
            ..Measured::default()
        }
    }

    fn with_span(mut self, span: &Span) -> Self {
        let some = |per_second: f64| (per_second > 0.0).then_some(per_second);
        self.seconds = span.seconds;
        self.events_per_second = some(span.per_second(span.accepted));
        self.deliveries_per_second = some(span.per_second(span.deliveries));
        self.bytes_per_second = some(span.per_second(span.bytes));
        let per_event = |cpu: Option<u64>| {
            // Where events are delivered, most of it is for that.
            let events = (span.deliveries == 0 && span.accepted > 0).then_some(span.accepted)?;
            Some(cpu? as f64 / events as f64)
        };
        let cores = |cpu: Option<u64>| cpu.map_or(0.0, |cpu| span.per_second(cpu) / 1e9);
        self.server_cost = span.server_cpu_ns.map(|_| ServerCost {
            cpu_ns_per_delivery: span.per_delivery(span.server_cpu_ns),
            cpu_ns_per_event: per_event(span.server_cpu_ns),
            cpu_ns_per_reconnect: None,
            cores: cores(span.server_cpu_ns),
            switches_per_second: span.per_second(span.server_switches.unwrap_or(0)),
            memory_bytes: span.server_memory_bytes.unwrap_or(0),
        });
        self.generator = Generator {
            cpu_ns_per_delivery: span.per_delivery(span.own_cpu_ns),
            cpu_ns_per_event: per_event(span.own_cpu_ns),
            cores: cores(span.own_cpu_ns),
            deliveries_per_read: (span.deliveries > 0 && span.reads > 0)
                .then(|| span.deliveries as f64 / span.reads as f64),
            late: None,
        };
        self
    }

    pub(super) fn live(run: &Run, report: &LiveReport) -> Self {
        let mut measured = Measured::new(run).with_span(&report.span);
        measured.events = report.accepted;
        measured.deliveries = report.deliveries;
        measured.lost = report.lost;
        measured.foreign = report.foreign;
        measured.latency = Times::of(&report.latencies.all());
        measured.server_delay = Times::of(&report.server_delays.all());
        measured.generator.late = Times::of(&report.lateness);
        measured
    }

    /// The figures of a replay are those of its median round.
    pub(super) fn replay(run: &Run, report: ReplayReport) -> Self {
        let mut rounds: Vec<&Span> = report.rounds.iter().collect();
        rounds.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let span = rounds.get(rounds.len() / 2).copied().copied();
        let mut measured = Measured::new(run).with_span(&span.unwrap_or_default());
        measured.events = report.accepted;
        measured.deliveries = report.deliveries;
        measured.lost = report.lost;
        measured.foreign = report.foreign;
        if let Some(cost) = &mut measured.server_cost {
            cost.cpu_ns_per_delivery = median(&report.rounds, |round| round.server_cpu_ns);
        }
        measured.generator.cpu_ns_per_delivery = median(&report.rounds, |round| round.own_cpu_ns);
        measured.rounds = report.rounds;
        measured
    }

    pub(super) fn storm(run: &Run, report: StormReport) -> Self {
        let mut measured = Measured::new(run).with_span(&report.storms);
        measured.events = report.accepted;
        measured.deliveries = report.deliveries;
        measured.lost = report.lost;
        measured.foreign = report.foreign;
        measured.latency = Times::of(&report.latency);
        measured.publish_round_trip = Times::of(&report.quiet);
        measured.publish_round_trip_in_storms = Times::of(&report.stormy);
        measured.connected_seconds = Some(report.connected.as_secs_f64());
        let reconnects = (run.gateways * report.rounds.len()) as f64;
        if let (Some(cost), Some(cpu)) = (&mut measured.server_cost, report.storms.server_cpu_ns) {
            cost.cpu_ns_per_reconnect = Some(cpu as f64 / reconnects);
        }
        measured.storms = report.rounds;
        measured
    }

    pub(super) fn publish(run: &Run, report: &PublishReport) -> Self {
        let mut measured = Measured::new(run).with_span(&report.span);
        measured.events = report.accepted;
        measured.publish_round_trip = Times::of(&report.round_trip);
        measured
    }

    pub(super) fn soak(run: &Run, report: &SoakReport) -> Self {
        let mut measured = Measured::new(run).with_span(&report.span);
        measured.events = report.accepted;
        measured.deliveries = report.deliveries;
        measured.latency = Times::of(&report.latency);
        measured.publish_round_trip = Times::of(&report.round_trip);
        if let Work::Soak { mix, .. } = run.work {
            measured.soak = Some(Soaked::new(mix, report));
        }
        measured
    }

    pub(super) fn idle(run: &Run, report: &IdleReport) -> Self {
        let mut measured = Measured::new(run).with_span(&report.span);
        let grown = report.after_bytes as f64 - report.before_bytes as f64;
        measured.memory = Some(IdleMemory {
            before_bytes: report.before_bytes,
            after_bytes: report.after_bytes,
            bytes_per_gateway: grown / run.gateways as f64,
        });
        measured.connected_seconds = Some(report.connected.as_secs_f64());
        measured
    }
}

/// The median of so much for each delivery.
fn median(rounds: &[Span], what: impl Fn(&Span) -> Option<u64>) -> Option<f64> {
    let mut values: Vec<f64> = rounds
        .iter()
        .filter_map(|round| round.per_delivery(what(round)))
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
