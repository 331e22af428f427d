//! What is to be run: flags that were checked together.

use std::time::Duration;

use super::args::{
    EventArgs, GatewayArgs, MAX_GATEWAYS, Output, PublisherArgs, ServerArgs, Soak, Workload,
};
use crate::command::Failure;
use crate::config::Config;
use crate::lab::load::http2::Offer;
use crate::lab::load::workload::Mix;
use crate::lab::load::{Pace, Plan, Shape, Stamp};

/// A bench, checked.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) server: ServerArgs,
    pub(super) output: Output,
    pub(super) offer: Offer,
    /// One run for each.
    pub(super) runs: Vec<Run>,
    /// How many events a ring must hold.
    pub(super) kept: Option<u64>,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) work: Work,
    pub(super) gateways: usize,
    pub(super) publishers: usize,
    pub(super) plan: Plan,
    pub(super) payload_bytes: usize,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// What is done in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Live { stalled: usize },
    Replay { events: u64 },
    Storm { quiet: Duration },
    Publish,
    Idle,
    Soak { mix: Mix, stall: Duration },
}

impl Work {
    pub(super) fn name(self) -> &'static str {
        match self {
            Work::Live { .. } => "live",
            Work::Replay { .. } => "replay",
            Work::Storm { .. } => "storm",
            Work::Publish => "publish",
            Work::Idle => "idle",
            Work::Soak { .. } => "soak",
        }
    }
}

impl Workload {
    /// Checks what has to be checked together.
    pub(super) fn into_bench(self) -> Result<Bench, Failure> {
        match self {
            Workload::Live(args) => {
                // Fits, by its limit.
                let stalled = args.stalled as usize;
                let work = Work::Live { stalled };
                let run = Run {
                    warm_up: args.time.warm_up,
                    duration: args.time.duration,
                    ..paced(work, args.rate, &args.events, &args.publishers)?
                };
                let mut bench = bench(&args.gateways, 100, &run, args.server, args.output)?;
                if let Some(deliveries) = args.delivery_rate {
                    for run in &mut bench.runs {
                        run.plan.pace = Pace::PerSecond(deliveries / run.gateways as f64);
                    }
                }
                Ok(bench)
            }
            Workload::Replay(args) => {
                let events = args.events;
                let work = Work::Replay { events };
                let mut run = Run::new(work, args.shape.payload, args.shape.batch.unwrap_or(100))?;
                run.publishers = 1;
                run.duration = args.time.duration;
                Ok(Bench {
                    kept: Some(events),
                    ..bench(&args.gateways, 8, &run, args.server, args.output)?
                })
            }
            Workload::Storm(args) => {
                let work = Work::Storm { quiet: args.quiet };
                let run = Run {
                    duration: args.time.duration,
                    ..paced(work, args.rate, &args.events, &args.publishers)?
                };
                bench(&args.gateways, 1000, &run, args.server, args.output)
            }
            Workload::Publish(args) => {
                let batches = match args.batch.as_slice() {
                    [] => &[1, 10, 100],
                    batches => batches,
                };
                let mut runs = Vec::new();
                for batch in batches {
                    let mut run = Run::new(Work::Publish, args.payload, *batch)?;
                    run.publishers = args.publishers.publishers as usize;
                    run.plan.in_flight = args.publishers.in_flight as usize;
                    run.warm_up = args.time.warm_up;
                    run.duration = args.time.duration;
                    runs.push(run);
                }
                Ok(Bench {
                    offer: Offer::default(),
                    runs,
                    server: args.server,
                    output: args.output,
                    kept: None,
                })
            }
            Workload::Idle(args) => {
                if args.server.connect.is_some() && args.server.server_pid.is_none() {
                    return Err(Failure::usage(
                        "--server-pid is missing: idle reads the memory of that process",
                    ));
                }
                let mut run = Run::new(Work::Idle, 0, 1)?;
                run.duration = args.time.duration;
                bench(&args.gateways, 1000, &run, args.server, args.output)
            }
            Workload::Soak(args) => args.into_bench(),
        }
    }
}

/// One run for each number of gateways.
fn bench(
    gateways: &GatewayArgs,
    default: usize,
    run: &Run,
    server: ServerArgs,
    output: Output,
) -> Result<Bench, Failure> {
    Ok(Bench {
        offer: gateways.offer()?,
        runs: gateways.runs(default, run)?,
        server,
        output,
        kept: None,
    })
}

/// A run with a steady rate.
fn paced(
    work: Work,
    rate: f64,
    events: &EventArgs,
    publishers: &PublisherArgs,
) -> Result<Run, Failure> {
    let mut run = Run::new(work, events.payload, events.batch.unwrap_or(1))?;
    run.publishers = publishers.publishers as usize;
    run.plan.in_flight = publishers.in_flight as usize;
    run.plan.pace = Pace::PerSecond(rate);
    Ok(run)
}

impl Run {
    fn new(work: Work, payload: usize, batch: usize) -> Result<Self, Failure> {
        let (shape, payload_bytes) = shape(payload)?;
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(Failure::usage(format!(
                "--batch: {batch} is not from 1 to {MAX_BATCH}"
            )));
        }
        Ok(Run {
            work,
            gateways: 0,
            publishers: 0,
            plan: Plan {
                shape,
                batch,
                pace: Pace::Full,
                in_flight: DEFAULT_IN_FLIGHT,
                events: None,
            },
            payload_bytes,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
        })
    }

    /// All gateways, also those that never read.
    pub(super) fn connections(&self) -> usize {
        match self.work {
            Work::Live { stalled } => self.gateways + stalled,
            _ => self.gateways,
        }
    }
}

/// The stall timeout, and the ring, of a server that is started to soak.
const SOAK_STALL_TIMEOUT: Duration = Duration::from_secs(5);
const SOAK_RING_BYTES: u64 = 8 << 20;

impl Soak {
    fn into_bench(mut self) -> Result<Bench, Failure> {
        let server = &mut self.server;
        if server.connect.is_none() {
            server.stall_timeout.get_or_insert(SOAK_STALL_TIMEOUT);
            server.max_bytes.get_or_insert(SOAK_RING_BYTES);
        }
        let timeout = server.stall_timeout;
        let timeout = timeout.unwrap_or(crate::config::Config::default().stall_timeout);
        let work = Work::Soak {
            mix: Mix::default(),
            stall: timeout.saturating_mul(2),
        };
        let run = Run {
            duration: self.duration,
            ..paced(work, self.rate, &self.events, &self.publishers)?
        };
        let mut runs = self.gateways.runs(100, &run)?;
        for run in &mut runs {
            if let Work::Soak { mix, .. } = &mut run.work {
                *mix = self.mix(run.gateways)?;
            }
        }
        Ok(Bench {
            offer: self.gateways.offer()?,
            runs,
            server: self.server,
            output: self.output,
            kept: None,
        })
    }

    /// So many gateways, of all kinds.
    fn mix(&self, gateways: usize) -> Result<Mix, Failure> {
        let share = |number: Option<usize>, one_in: usize| number.unwrap_or(gateways / one_in);
        let mut mix = Mix {
            steady: 0,
            slow: share(self.slow, 10),
            stalled: share(self.stalled, 10),
            flapping: share(self.flapping, 5),
            rivals: share(self.rivals, 50),
        };
        let steady = gateways
            .checked_sub(mix.gateways())
            .filter(|steady| *steady > 0);
        mix.steady = steady.ok_or_else(|| {
            Failure::usage(format!(
                "--gateways: of {gateways} there must be at least one that is not slow, \
                 stalled, flapping or a rival"
            ))
        })?;
        Ok(mix)
    }
}

const MAX_BATCH: usize = 4096;
const DEFAULT_IN_FLIGHT: usize = 64;
/// What an event takes in the ring besides its frame, and the frame besides the
/// payload, generously.
pub(super) const AROUND_PAYLOAD_BYTES: u64 = 128;
const MAX_PAYLOAD_BYTES: usize = Config::MAX_EVENT_BYTES - AROUND_PAYLOAD_BYTES as usize;

impl GatewayArgs {
    /// The run once for each number of gateways.
    fn runs(&self, default: usize, run: &Run) -> Result<Vec<Run>, Failure> {
        let numbers = match self.gateways.as_slice() {
            [] => &[default],
            numbers => numbers,
        };
        if let Some(number) = numbers.iter().find(|n| !(1..=MAX_GATEWAYS).contains(*n)) {
            return Err(Failure::usage(format!(
                "--gateways: {number} is not from 1 to {MAX_GATEWAYS}"
            )));
        }
        let with = |gateways: &usize| Run {
            gateways: *gateways,
            ..run.clone()
        };
        Ok(numbers.iter().map(with).collect())
    }

    fn offer(&self) -> Result<Offer, Failure> {
        let within = |flag, bytes: u64, (least, most): (u32, u32)| {
            let number = u32::try_from(bytes).ok();
            let fitting = number.filter(|number| (least..=most).contains(number));
            fitting.ok_or_else(|| {
                Failure::usage(format!(
                    "{flag}: {bytes} bytes is not from {least} to {most}, as HTTP/2 has it"
                ))
            })
        };
        Ok(Offer {
            frame_bytes: within("--frame-size", self.frame_size, Offer::FRAME_BYTES)?,
            window_bytes: within("--window", self.window, Offer::WINDOW_BYTES)?,
        })
    }
}

/// The events, and how large their payloads are.
fn shape(payload_bytes: usize) -> Result<(Shape, usize), Failure> {
    if payload_bytes > MAX_PAYLOAD_BYTES {
        return Err(Failure::usage(format!(
            "--payload: more than {MAX_PAYLOAD_BYTES} bytes, which no server takes"
        )));
    }
    // What tells an event from all others has to fit in.
    let payload_bytes = payload_bytes.max(Stamp::BYTES);
    Ok((Shape::with_payload(payload_bytes), payload_bytes))
}
