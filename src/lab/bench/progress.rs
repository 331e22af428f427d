//! Who looks on while a run runs: a bar for people, and samples for the report.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outcome::Sample;
use crate::command::text::{bytes, number as count};
use crate::lab::load::{Gauge, Meter};

/// How often the bar moves, and a sample is taken.
const INTERVAL: Duration = Duration::from_millis(250);
/// The bar's steps.
const STEPS: u64 = 1000;

/// Looks on until the run is over, which drops the sender.
pub(super) fn watch(
    title: &str,
    gauge: &Gauge,
    server: Option<Meter>,
    over: &Receiver<()>,
) -> Vec<Sample> {
    let bar = bar(title);
    let begun = Instant::now();
    let mut samples = vec![Sample::take(begun, gauge, server)];
    while over.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let sample = Sample::take(begun, gauge, server);
        show(&bar, gauge, samples.last(), &sample);
        samples.push(sample);
    }
    samples.push(Sample::take(begun, gauge, server));
    bar.finish_and_clear();
    samples
}

/// Hidden where standard error is not a terminal.
fn bar(title: &str) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(Some(STEPS), target);
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {wide_msg}");
    // The template is a constant; without it, indicatif's own is as good.
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(title.to_owned());
    bar
}

fn show(bar: &ProgressBar, gauge: &Gauge, before: Option<&Sample>, now: &Sample) {
    let (stage, done) = gauge.stage();
    if let Some(done) = done {
        bar.set_position((done * STEPS as f64) as u64);
    }
    let per_second = |what: fn(&Sample) -> u64| {
        let before = before?;
        let seconds = now.seconds - before.seconds;
        let more = what(now).saturating_sub(what(before)) as f64;
        (more > 0.0).then(|| count(more / seconds))
    };
    let mut text = stage.name.to_owned();
    if let Some(events) = per_second(|sample| sample.events) {
        text += &format!(", {events} events/s");
    }
    if let Some(deliveries) = per_second(|sample| sample.deliveries) {
        text += &format!(", {deliveries} deliveries/s");
    }
    if let Some(memory) = now.server_memory_bytes {
        text += &format!(", server {}", bytes(memory as f64));
    }
    bar.set_message(text);
}
