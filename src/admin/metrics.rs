//! The metrics, as Prometheus and its kin read them.

use std::fmt::Write as _;

use super::facts::Facts;
use crate::telemetry::Telemetry;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format, 0.0.4.
    Prometheus,
}

/// All metrics.
pub(super) fn render(telemetry: &Telemetry, facts: &Facts, format: Format) -> String {
    let published = telemetry.published();
    let delivered = telemetry.delivered();
    let is_open = format == Format::OpenMetrics;
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64, labels: &[(&str, &str)]| {
        let is_counter = kind == "counter";
        let total = if is_counter { "_total" } else { "" };
        let family = if is_open { "" } else { total };
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}={value:?}"))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "# TYPE galaxy_push_{name}{family} {kind}\n\
             # HELP galaxy_push_{name}{family} {help}\n\
             galaxy_push_{name}{total}{labels} {value}\n"
        );
    };
    metric(
        "deliveries",
        "counter",
        "Events that were handed to gateways' sockets.",
        delivered.events,
        &[],
    );
    metric(
        "event_bytes_published",
        "counter",
        "Bytes of events, as they were published.",
        published.bytes,
        &[],
    );
    let stats = telemetry.engine().stats();
    metric(
        "gateways",
        "gauge",
        "Gateways that are subscribed.",
        stats.subscribers as u64,
        &[],
    );
    metric(
        "build_info",
        "gauge",
        "The program.",
        1,
        &[("version", facts.version), ("revision", facts.revision)],
    );
    if is_open {
        text.push_str("# EOF\n");
    }
    text
}
