//! What was measured, as a table for people: a column for each run.

use super::outcome::{Measured, Outcome, Soaked, Times};
use crate::command::text::{bytes, nanos, number as count};
use crate::lab::load::workload::StormRound;

/// A row for each measure that a run has: its label, and its value in each run.
pub(super) fn rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (label, value) in measures() {
        let cells: Vec<Option<String>> = outcome.runs.iter().map(value).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            rows.push([label.to_owned()].into_iter().chain(cells).collect());
        }
    }
    rows
}

/// The table, under a line that names the machine.
pub(super) fn table(outcome: &Outcome) -> String {
    let rows = rows(outcome);
    let mut widths = vec![0; outcome.runs.len() + 1];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let machine = &outcome.machine;
    let mut text = format!(
        "{}: {}, {} cores, Linux {}; SETTINGS_MAX_FRAME_SIZE {}\n\n",
        outcome.workload,
        machine.processor,
        machine.cores,
        machine.kernel,
        bytes(f64::from(outcome.frame_bytes)),
    );
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line += &format!("{cell:<width$}"),
                _ => line += &format!("  {cell:>width$}"),
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

type Measure = (&'static str, fn(&Measured) -> Option<String>);

/// Every line that a table can have.
fn measures() -> Vec<Measure> {
    vec![
        ("gateways", |run| positive(run.gateways)),
        ("  stalled gateways, in addition", |run| {
            positive(run.stalled)
        }),
        ("publishers", |run| positive(run.publishers)),
        ("events per request", |run| {
            (run.publishers > 0).then(|| run.batch.to_string())
        }),
        ("scheduled rate, events/s", |run| run.rate.map(count)),
        ("payload size", |run| {
            (run.publishers > 0).then(|| bytes(run.payload_bytes as f64))
        }),
        ("duration", |run| Some(nanos(run.seconds * 1e9))),
        ("rounds", |run| {
            positive(run.rounds.len() + run.storms.len())
        }),
        ("events accepted", |run| {
            (run.events > 0).then(|| count(run.events as f64))
        }),
        ("deliveries", |run| {
            (run.deliveries > 0).then(|| count(run.deliveries as f64))
        }),
        ("events lost", |run| {
            (run.deliveries > 0 && run.soak.is_none()).then(|| count(run.lost as f64))
        }),
        ("events from other publishers", |run| {
            (run.foreign > 0).then(|| count(run.foreign as f64))
        }),
        ("guarantees violated", |run| {
            soak(run, |soak| soak.violations)
        }),
        ("streams", |run| soak(run, |soak| soak.streams)),
        ("  resumed", |run| soak(run, |soak| soak.resumed)),
        ("  cursor expired", |run| soak(run, |soak| soak.expired)),
        ("  lagged", |run| soak(run, |soak| soak.lagged)),
        ("  taken over", |run| soak(run, |soak| soak.taken_over)),
        ("  ended by the stall timeout", |run| {
            soak(run, |soak| soak.cut_by_server)
        }),
        ("missed events, announced", |run| {
            soak(run, |soak| soak.announced_missed)
        }),
        ("events/s", |run| run.events_per_second.map(count)),
        ("deliveries/s", |run| run.deliveries_per_second.map(count)),
        ("bytes/s", |run| run.bytes_per_second.map(bytes)),
        ("latency p50", |run| time(&run.latency, |t| t.p50_ns)),
        ("latency p90", |run| time(&run.latency, |t| t.p90_ns)),
        ("latency p99", |run| time(&run.latency, |t| t.p99_ns)),
        ("latency p99.9", |run| time(&run.latency, |t| t.p99_9_ns)),
        ("latency max", |run| time(&run.latency, |t| t.max_ns)),
        ("  in the server p50", |run| {
            time(&run.server_delay, |t| t.p50_ns)
        }),
        ("  in the server p99", |run| {
            time(&run.server_delay, |t| t.p99_ns)
        }),
        ("time to connect all", |run| {
            run.connected_seconds.map(|seconds| nanos(seconds * 1e9))
        }),
        ("storm: time to resubscribe all, median", |run| {
            storm(run, |round| round.subscribed_seconds)
        }),
        ("storm: time to recover all, median", |run| {
            storm(run, |round| round.whole_seconds)
        }),
        ("publish round trip p50", |run| {
            time(&run.publish_round_trip, |t| t.p50_ns)
        }),
        ("publish round trip p99", |run| {
            time(&run.publish_round_trip, |t| t.p99_ns)
        }),
        ("publish round trip p50, in storms", |run| {
            time(&run.publish_round_trip_in_storms, |t| t.p50_ns)
        }),
        ("publish round trip p99, in storms", |run| {
            time(&run.publish_round_trip_in_storms, |t| t.p99_ns)
        }),
        ("server CPU per delivery", |run| {
            run.server_cost.as_ref()?.cpu_ns_per_delivery.map(nanos)
        }),
        ("server CPU per event", |run| {
            run.server_cost.as_ref()?.cpu_ns_per_event.map(nanos)
        }),
        ("server CPU per reconnect", |run| {
            run.server_cost.as_ref()?.cpu_ns_per_reconnect.map(nanos)
        }),
        ("server CPU utilization, cores", |run| {
            run.server_cost
                .as_ref()
                .map(|cost| format!("{:.2}", cost.cores))
        }),
        ("server context switches/s", |run| {
            let cost = run.server_cost.as_ref()?;
            Some(count(cost.switches_per_second))
        }),
        ("server memory (RSS)", |run| {
            let cost = run.server_cost.as_ref()?;
            Some(bytes(cost.memory_bytes as f64))
        }),
        ("server memory (RSS), at 25 %", |run| {
            run.soak.as_ref()?;
            let sample = run.samples.get(run.samples.len() / 4)?;
            Some(bytes(sample.server_memory_bytes? as f64))
        }),
        ("server memory (RSS), peak", |run| {
            run.soak.as_ref()?;
            let samples = run.samples.iter();
            let most = samples
                .filter_map(|sample| sample.server_memory_bytes)
                .max();
            Some(bytes(most? as f64))
        }),
        ("server memory (RSS), before", |run| {
            Some(bytes(run.memory.as_ref()?.before_bytes as f64))
        }),
        ("server memory per gateway", |run| {
            Some(bytes(run.memory.as_ref()?.bytes_per_gateway))
        }),
        ("generator CPU per delivery", |run| {
            run.generator.cpu_ns_per_delivery.map(nanos)
        }),
        ("generator CPU per event", |run| {
            run.generator.cpu_ns_per_event.map(nanos)
        }),
        ("generator CPU utilization, cores", |run| {
            Some(format!("{:.2}", run.generator.cores))
        }),
        ("generator deliveries per read", |run| {
            let deliveries = run.generator.deliveries_per_read?;
            Some(format!("{deliveries:.1}"))
        }),
        ("generator lateness p50", |run| {
            time(&run.generator.late, |t| t.p50_ns)
        }),
        ("generator lateness p99", |run| {
            time(&run.generator.late, |t| t.p99_ns)
        }),
    ]
}

fn positive(number: usize) -> Option<String> {
    (number > 0).then(|| count(number as f64))
}

fn time(times: &Option<Times>, which: fn(&Times) -> u64) -> Option<String> {
    times.as_ref().map(|times| nanos(which(times) as f64))
}

fn soak(run: &Measured, which: fn(&Soaked) -> u64) -> Option<String> {
    run.soak.as_ref().map(|soak| count(which(soak) as f64))
}

fn storm(run: &Measured, which: fn(&StormRound) -> f64) -> Option<String> {
    let mut seconds: Vec<f64> = run.storms.iter().map(which).collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2)?;
    Some(nanos(median * 1e9))
}
