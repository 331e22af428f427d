//! Runs: a server, a workload, somebody who looks on.

use std::sync::mpsc;
use std::thread;

use super::outcome::{Measured, Outcome};
use super::plan::{Bench, Run, Work};
use super::progress;
use super::server::Server;
use crate::command::Failure;
use crate::lab::load::workload::{Idle, Live, LoadError, Publish, Replay, Soak, Storm};
use crate::lab::load::{Gauge, Target as _};
use crate::open_files;

/// All runs of a bench, one after the other.
pub(super) fn run(bench: &Bench, gauge: &Gauge) -> Result<Outcome, Failure> {
    check_open_files(bench)?;
    let mut outcome = Outcome::new(bench);
    for (number, run) in bench.runs.iter().enumerate() {
        let server = Server::of(bench, run)?;
        let title = title(run, number, bench.runs.len());
        let mut measured = watched(&title, bench, run, &server, &gauge.renewed())
            .map_err(|error| Failure::failed(error.to_string()))?;
        measured.server = server.describe();
        outcome.add(measured);
    }
    Ok(outcome)
}

/// Files that are no connection of a gateway.
const OTHER_FILES: usize = 300;

/// Whether there may be as many connections as are asked for.
fn check_open_files(bench: &Bench) -> Result<(), Failure> {
    let limit = open_files::raise() as usize;
    let gateways = bench.runs.iter().map(Run::connections).max();
    match gateways {
        Some(gateways) if gateways + OTHER_FILES > limit => Err(Failure::failed(format!(
            "--gateways: {gateways} in all need more open files than the {limit} that the system \
             allows (ulimit -n)"
        ))),
        _ => Ok(()),
    }
}

fn title(run: &Run, number: usize, runs: usize) -> String {
    let which = match run.work {
        Work::Publish => format!("batches of {}", run.plan.batch),
        _ => format!("{} gateways", run.gateways),
    };
    match runs {
        1 => format!("{}, {which}", run.work.name()),
        _ => format!("{} ({} of {runs}), {which}", run.work.name(), number + 1),
    }
}

fn watched(
    title: &str,
    bench: &Bench,
    run: &Run,
    server: &Server,
    gauge: &Gauge,
) -> Result<Measured, LoadError> {
    let (running, over) = mpsc::channel();
    let meter = server.target.meter();
    thread::scope(|scope| {
        let watching = scope.spawn(move || progress::watch(title, gauge, meter, &over));
        let measured = measure(bench, run, server, gauge);
        drop(running);
        let samples = watching.join().unwrap_or_default();
        measured.map(|measured| Measured {
            samples,
            ..measured
        })
    })
}

fn measure(
    bench: &Bench,
    run: &Run,
    server: &Server,
    gauge: &Gauge,
) -> Result<Measured, LoadError> {
    let Run {
        gateways: receivers,
        publishers,
        warm_up,
        duration,
        ..
    } = *run;
    let plan = run.plan.clone();
    let target = &server.target;
    match run.work {
        Work::Live { stalled } => {
            let live = Live {
                receivers,
                stalled,
                publishers,
                plan,
                warm_up,
                duration,
                windows: 1,
            };
            Ok(Measured::live(run, &live.run(target, gauge)?))
        }
        Work::Replay { events } => {
            let replay = Replay {
                receivers,
                events,
                plan,
                duration,
            };
            Ok(Measured::replay(run, replay.run(target, gauge)?))
        }
        Work::Storm { quiet } => {
            let storm = Storm {
                receivers,
                publishers,
                plan,
                quiet,
                duration,
            };
            Ok(Measured::storm(run, storm.run(target, gauge)?))
        }
        Work::Publish => {
            let publish = Publish {
                publishers,
                plan,
                warm_up,
                duration,
            };
            Ok(Measured::publish(run, &publish.run(target, gauge)?))
        }
        Work::Idle => {
            let idle = Idle {
                receivers,
                duration,
                reconnect: false,
            };
            Ok(Measured::idle(run, &idle.run(target, gauge)?))
        }
        Work::Soak { mix, stall } => {
            let soak = Soak {
                mix,
                publishers,
                plan,
                duration,
                stall,
                retained_events: server.retained_events,
                other_publishers: bench.server.connect.is_some(),
            };
            Ok(Measured::soak(run, &soak.run(target, gauge)?))
        }
    }
}
