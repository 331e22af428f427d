//! `/metrics`: the figures as Prometheus reads them.
//!
//! Nothing is counted for it: each scrape reads the sums of the [telemetry](crate::telemetry)
//! and writes them down. `docs/metrics.md` has what each means, and a test that holds it
//! against this file.
//!
//! The number of time series is bounded by the settings, whatever peers do. No label has
//! text that a peer can choose, but for `gateway`: those series are there only while a
//! gateway is behind, and of at most [`MAX_LAG_SERIES`] gateways at once.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use super::facts::Facts;
use super::process::Process;
use crate::contract::details::{ErrorReason, code_name};
use crate::contract::revocations::Completeness;
use crate::telemetry::{
    Cause, Gateway, HandshakeResult, Histogram, Lag, Method, STARTS, Telemetry, Waited,
};

/// The most gateways that have series of their own: those that are furthest behind.
///
/// A series costs Prometheus some kilobytes for hours. Gateways that come with a new id after
/// each restart, or a whole fleet behind at once, must not fill it. Whoever wants all of them
/// asks `/api/v1/gateways`.
const MAX_LAG_SERIES: usize = 100;

/// The text formats that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's own, 0.0.4.
    Prometheus,
}

impl Format {
    /// The response's `content-type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// All metrics, as text.
pub(super) fn render(telemetry: &Telemetry, facts: &Facts, format: Format) -> String {
    let mut registry = Registry::default();
    registry
        .sub_registry_with_prefix("galaxy_push")
        .register_collector(Box::new(Server::now(telemetry, facts)));
    registry
        .sub_registry_with_prefix("process")
        .register_collector(Box::new(Process::read()));
    let mut page = String::new();
    let written = match format {
        Format::OpenMetrics => text::encode(&mut page, &registry),
        Format::Prometheus => prometheus_text::encode(&mut page, &registry),
    };
    if let Err(error) = written {
        // A String takes everything, so this is a fault of the encoder. A part of the page
        // would look as if the rest did not exist.
        tracing::error!("cannot write the metrics: {error}");
        page.clear();
    }
    page
}

/// What a scrape writes of the server.
#[derive(Debug)]
struct Server {
    telemetry: Telemetry,
    facts: Facts,
    gateways: usize,
    behind: usize,
    /// Those that do not report what they have enforced.
    unreported: usize,
    /// Of those that are behind, the ones that get series.
    laggards: Vec<(Arc<Gateway>, Lag)>,
    /// The checks of readiness.
    ready: Vec<(String, bool)>,
}

impl Server {
    fn now(telemetry: &Telemetry, facts: &Facts) -> Self {
        let gateways = telemetry.gateways();
        let count = gateways.len();
        let unreported = telemetry.without_reports(&gateways).count();
        let mut laggards: Vec<_> = gateways
            .into_iter()
            .map(|gateway| {
                let lag = telemetry.lag(&gateway);
                (gateway, lag)
            })
            .filter(|(_, lag)| lag.is_behind())
            .collect();
        let behind = laggards.len();
        laggards.sort_unstable_by_key(|(_, lag)| std::cmp::Reverse((lag.waited, lag.events)));
        // While one takes over, two have the same id: the one that is further behind.
        let mut ids = HashSet::new();
        laggards.retain(|(gateway, _)| {
            ids.len() < MAX_LAG_SERIES && ids.insert(gateway.id().to_owned())
        });
        let checks = facts.checks.ready().into_iter();
        Server {
            telemetry: telemetry.clone(),
            facts: facts.clone(),
            gateways: count,
            behind,
            unreported,
            laggards,
            ready: checks.map(|check| (check.name, check.ok)).collect(),
        }
    }
}

impl Collector for Server {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.encode_publishing(&mut page)?;
        self.encode_delivery(&mut page)?;
        self.encode_gateways(&mut page)?;
        self.encode_ring(&mut page)?;
        self.encode_revocations(&mut page)?;
        self.encode_receipts(&mut page)?;
        self.encode_security(&mut page)?;
        self.encode_server(&mut page)
    }
}

impl Server {
    fn encode_publishing(&self, page: &mut Page<'_>) -> fmt::Result {
        let published = self.telemetry.published();
        page.counters(
            "events_published_total",
            "Events that were published, by kind.",
            [
                ([("kind", "client_event")], published.client_events),
                (
                    [("kind", "session_invalidation")],
                    published.session_invalidations,
                ),
            ],
        )?;
        page.counter(
            "event_bytes_published_total",
            "Bytes of the events that were published, as their publishers encoded them.",
            published.bytes,
        )?;
        page.counters(
            "publish_requests_total",
            "Publish requests that were answered, by method and gRPC status code. A request \
             that is not OK left nothing in the ring.",
            self.publish_requests()
                .iter()
                .map(|((method, code), n)| ([("method", *method), ("code", *code)], *n)),
        )?;
        page.histogram(
            "publish_duration_seconds",
            "Time from a publish request's arrival until its events can be read. A sample: one \
             request in 16 of each connection.",
            self.telemetry.publish_durations(),
        )
    }

    /// By method and code. Codes that publishers usually see are there from the start, so
    /// that the first of each is an increase.
    fn publish_requests(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        const USUAL: [Code; 6] = [
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::Unavailable,
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::DeadlineExceeded,
        ];
        let accepted = self.telemetry.published().accepted;
        let mut requests = BTreeMap::new();
        for method in Method::ALL {
            let name = method.as_str();
            let ok = accepted.get(method as usize).copied().unwrap_or(0);
            requests.insert((name, code_name(Code::Ok as i32)), ok);
            for code in USUAL {
                requests.insert((name, code_name(code as i32)), 0);
            }
        }
        for (method, code, n) in self.telemetry.refused_requests() {
            *requests
                .entry((method.as_str(), code_name(code as i32)))
                .or_default() += n;
        }
        requests
    }

    fn encode_delivery(&self, page: &mut Page<'_>) -> fmt::Result {
        let delivered = self.telemetry.delivered();
        page.counter(
            "deliveries_total",
            "Events that sockets took: an event counts once for each gateway that it was sent to.",
            delivered.events,
        )?;
        page.counter(
            "delivered_bytes_total",
            "Bytes of those deliveries: gRPC messages with their prefix and cursor, without \
             HTTP/2 and TLS.",
            delivered.bytes,
        )?;
        page.histogram(
            "delivery_delay_seconds",
            "Time from an event's publishing until a gateway's socket took it. A sample: a few \
             events a second, at each gateway that was subscribed then.",
            self.telemetry.delivery_delays(),
        )?;
        page.counter(
            "missed_events_total",
            "Events that gateways were told they have missed: because they came back too late, \
             or were lapped.",
            self.telemetry.missed(),
        )
    }

    fn encode_gateways(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "gateways",
            "Gateways that are subscribed.",
            self.gateways as u64,
        )?;
        page.gauge(
            "max_gateways",
            "The most gateways that may be subscribed at once (--max-subscribers).",
            self.facts.limits.max_subscribers as u64,
        )?;
        page.gauge(
            "gateways_behind",
            "Subscribed gateways that have waited for more than a second for an event that was \
             published.",
            self.behind as u64,
        )?;
        let laggards = || {
            let all = self.laggards.iter();
            all.map(|(gateway, lag)| ([("gateway", gateway.id())], lag))
        };
        page.gauges(
            "gateway_lag_events",
            "Published events that this gateway's socket has not taken. Only of gateways that \
             are behind: the 100 that are furthest.",
            laggards().map(|(labels, lag)| (labels, lag.events)),
        )?;
        page.gauges(
            "gateway_lag_seconds",
            "How long the first of those events has waited. Only of gateways that are behind: \
             the 100 that are furthest.",
            laggards().map(|(labels, lag)| (labels, lag.waited.as_secs_f64())),
        )?;
        let starts = STARTS.iter().zip(self.telemetry.starts());
        page.counters(
            "subscriptions_total",
            "Subscriptions that began, by where their stream started (push-resume) and why \
             (push-resume-reason).",
            starts.map(|((resume, reason), n)| {
                (
                    [("resume", resume.as_str()), ("reason", reason.as_str())],
                    n,
                )
            }),
        )?;
        page.counters(
            "stream_ends_total",
            "Streams to gateways that have ended, by cause; refused: subscriptions that never \
             began.",
            Cause::ALL.map(|cause| ([("cause", cause.as_str())], self.telemetry.ends(cause))),
        )
    }

    fn encode_ring(&self, page: &mut Page<'_>) -> fmt::Result {
        let engine = self.telemetry.engine();
        let ring = engine.stats();
        let limits = &self.facts.limits;
        page.gauge(
            "ring_events",
            "Events in the ring: those that can be read.",
            ring.retained_events,
        )?;
        page.gauge(
            "ring_max_events",
            "The most events that the ring keeps (--max-events).",
            limits.max_events,
        )?;
        page.gauge("ring_bytes", "Memory that the ring has.", ring.ring_bytes)?;
        page.gauge(
            "ring_max_bytes",
            "The most memory that the ring takes: --max-bytes, rounded to segments.",
            limits.ring_bytes,
        )?;
        page.gauge(
            "ring_pinned_bytes",
            "Memory that has left the ring, but is kept by gateways that do not read on.",
            ring.pinned_bytes,
        )?;
        page.gauge(
            "ring_oldest_age_seconds",
            "Age of the oldest event in the ring; 0 if there is none.",
            engine.oldest_age().unwrap_or_default().as_secs_f64(),
        )?;
        page.gauge(
            "ring_window_seconds",
            "The greatest age of the next event at which a cursor resumes (--window).",
            engine.window().as_secs_f64(),
        )?;
        page.gauge(
            "ring_newest_sequence",
            "Sequence of the newest event; the first of an epoch is 1.",
            engine.head().seq().number(),
        )
    }

    /// All at 0 where none are kept.
    fn encode_revocations(&self, page: &mut Page<'_>) -> fmt::Result {
        use Completeness::{Complete, Partial};

        let engine = self.telemetry.engine();
        let kept = engine.revocations().unwrap_or_default();
        page.gauge(
            "revocations",
            "Session invalidations that are kept for gateways which were away: the newest of each \
             user and session.",
            kept.kept,
        )?;
        page.gauge(
            "max_revocations",
            "The most that are kept (--max-revocations).",
            self.facts.limits.max_revocations as u64,
        )?;
        page.gauge("revocations_bytes", "Memory that these take.", kept.bytes)?;
        page.counters(
            "revocations_dropped_total",
            "Of those that were kept: evicted, because there was no room; expired, because they \
             had been kept for --revocation-retention.",
            [
                ([("reason", "evicted")], kept.evicted),
                ([("reason", "expired")], kept.expired),
            ],
        )?;
        page.counters(
            "revocation_replays_total",
            "Streams that did not resume and began with the invalidations that were missed: \
             complete, or partial.",
            [Complete, Partial].map(|it| ([("result", it.as_str())], self.telemetry.replays(it))),
        )?;
        page.counter(
            "revocations_replayed_total",
            "Invalidations in those replays.",
            self.telemetry.replayed(),
        )
    }

    fn encode_receipts(&self, page: &mut Page<'_>) -> fmt::Result {
        // Codes that gateways usually see are there from the start.
        const USUAL: [Code; 5] = [
            Code::Ok,
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::ResourceExhausted,
            Code::PermissionDenied,
        ];
        let (reporting, gone) = self.telemetry.receipts().counts();
        page.gauges(
            "reporting_processes",
            "Processes of gateways that have reported what they have enforced: within their leases, \
             or gone of late.",
            [
                ([("state", "leased")], reporting as u64),
                ([("state", "gone")], gone as u64),
            ],
        )?;
        page.gauge(
            "gateways_without_reports",
            "Subscribed gateways of which it is not known what they have enforced.",
            self.unreported as u64,
        )?;
        let mut reports = BTreeMap::from(USUAL.map(|code| (code as i32, 0)));
        reports.extend(self.telemetry.reports());
        page.counters(
            "reports_total",
            "Reports of what gateways have enforced, by gRPC status code.",
            reports
                .iter()
                .map(|(code, n)| ([("code", code_name(*code))], *n)),
        )?;
        page.histogram(
            "enforcement_delay_seconds",
            "Time from a session invalidation's publishing until a gateway has reported that it has \
             enforced it. A sample: a few invalidations a second, at each gateway that reports.",
            self.telemetry.enforcement_delays(),
        )?;
        page.counters(
            "enforcement_waits_total",
            "Calls that have waited until an invalidation is enforced (WaitEnforced): proven; \
             unproven, the time was over; or abandoned, the call has ended before.",
            Waited::ALL.map(|how| ([("result", how.as_str())], self.telemetry.waits(how))),
        )
    }

    fn encode_security(&self, page: &mut Page<'_>) -> fmt::Result {
        use HandshakeResult::{Failed, Ok, Timeout};

        // From the start at 0, so that the first of each is an increase.
        let known = [(Ok, false), (Ok, true), (Failed, false), (Timeout, false)];
        let mut handshakes: BTreeMap<_, u64> = known.map(|labels| (labels, 0)).into();
        for (result, resumed, n) in self.telemetry.handshakes().all() {
            *handshakes.entry((result, resumed)).or_default() += n;
        }
        page.counters(
            "tls_handshakes_total",
            "TLS handshakes of clients, by result and by whether they resumed an earlier session.",
            handshakes.into_iter().map(|((result, resumed), n)| {
                let resumed = if resumed { "true" } else { "false" };
                ([("result", result.as_str()), ("resumed", resumed)], n)
            }),
        )?;
        let certificates = self.facts.listeners.iter().filter_map(|listener| {
            let not_after = listener.tls.as_ref()?.not_after();
            // One that ended before 1970 has ended, whenever.
            let since_1970 = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
            Some(([("listener", listener.name)], since_1970.as_secs_f64()))
        });
        page.gauges(
            "tls_certificate_not_after_timestamp_seconds",
            "When the certificate of this listener ends, in seconds since 1970.",
            certificates,
        )?;
        let known = AUTH_FAILURES.map(|reason| (reason.as_str(), 0));
        let mut failures = BTreeMap::from(known);
        failures.extend(self.telemetry.auth_failures());
        page.counters(
            "auth_failures_total",
            "Credentials that were refused and calls without the right, by the reason that the \
             caller was given (ErrorInfo).",
            failures
                .iter()
                .map(|(reason, n)| ([("reason", *reason)], *n)),
        )
    }

    fn encode_server(&self, page: &mut Page<'_>) -> fmt::Result {
        let listeners = &self.facts.listeners;
        page.gauges(
            "connections",
            "Connections that are open, by listener.",
            listeners
                .iter()
                .map(|of| ([("listener", of.name)], (of.connections)())),
        )?;
        page.gauges(
            "max_connections",
            "The most connections that may be open, by listener.",
            listeners
                .iter()
                .map(|of| ([("listener", of.name)], of.max_connections)),
        )?;
        page.gauges(
            "ready",
            "1 if this check of /readyz passes, 0 if it fails.",
            self.ready
                .iter()
                .map(|(check, ok)| ([("check", check.as_str())], u64::from(*ok))),
        )?;
        let reloads = self.telemetry.reloads().all();
        let has_failed = reloads.values().any(|reload| reload.error.is_some());
        page.gauge(
            "config_last_reload_success",
            "1 if the last reload of each file took effect, also before the first; 0 if one of \
             them has failed and the earlier file is in force.",
            u64::from(!has_failed),
        )?;
        page.info(
            "config_info",
            "The configuration that is in force: its digest tells two of them apart.",
            [("digest", (self.facts.config_digest)().as_str())],
        )?;
        page.info(
            "build_info",
            "The program's version, and the commit that it was built from if that is known.",
            [
                ("version", self.facts.version),
                ("revision", self.facts.revision),
            ],
        )
    }
}

/// Why credentials and calls are refused.
const AUTH_FAILURES: [ErrorReason; 11] = [
    ErrorReason::CredentialMissing,
    ErrorReason::CredentialMalformed,
    ErrorReason::CredentialNotAccepted,
    ErrorReason::CredentialAmbiguous,
    ErrorReason::CredentialUnknown,
    ErrorReason::CredentialExpired,
    ErrorReason::CredentialNotYetValid,
    ErrorReason::CredentialRevoked,
    ErrorReason::TooManyFailedCredentials,
    ErrorReason::SubscribeNotGranted,
    ErrorReason::PublishNotGranted,
];

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        if let Some(seconds) = self.cpu_seconds {
            page.counter(
                "cpu_seconds_total",
                "Processor time that the process has used, of all its threads, in seconds.",
                seconds,
            )?;
        }
        let gauges = [
            ("open_fds", "File descriptors that are open.", self.open_fds),
            (
                "max_fds",
                "The most file descriptors that may be open.",
                self.max_fds,
            ),
            (
                "resident_memory_bytes",
                "Memory of the process that is resident, in bytes.",
                self.resident_bytes,
            ),
            (
                "virtual_memory_bytes",
                "Addresses that the process has mapped, in bytes.",
                self.virtual_bytes,
            ),
            ("threads", "Threads of the process.", self.threads),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, value)?;
            }
        }
        if let Some(seconds) = self.start_time_seconds {
            page.gauge(
                "start_time_seconds",
                "When the process was started, in seconds since 1970.",
                seconds,
            )?;
        }
        Ok(())
    }
}

/// A page of metrics that is being written. Names are given as samples have them, without
/// the prefix.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, n: impl EncodeCounterValue) -> fmt::Result {
        self.counters(name, help, [([("", ""); 0], n)])
    }

    fn counters<'l, const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], V)>,
    ) -> fmt::Result {
        let (name, unit) = unit_of(name.strip_suffix("_total").unwrap_or(name));
        let mut family =
            self.0
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, n) in samples {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, f64>(&n, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, [([("", ""); 0], value)])
    }

    fn gauges<'l, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], V)>,
    ) -> fmt::Result {
        let (name, unit) = unit_of(name);
        let mut family = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let (cumulative, sum) = histogram.cumulative();
        let mut before = 0;
        // The encoder adds them up itself.
        let buckets: Vec<_> = cumulative
            .iter()
            .map(|(bound, up_to)| (*bound, up_to - std::mem::replace(&mut before, *up_to)))
            .collect();
        let (name, unit) = unit_of(name);
        self.0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, before, &buckets, None)
    }

    fn info<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [(&str, &str); N],
    ) -> fmt::Result {
        let name = name.strip_suffix("_info").unwrap_or(name);
        self.0
            .encode_descriptor(name, help, None, MetricType::Info)?
            .encode_info(&labels)
    }
}

/// The unit that a name ends with, apart from the name: the encoder puts them together.
fn unit_of(name: &str) -> (&str, Option<Unit>) {
    for unit in [Unit::Seconds, Unit::Bytes] {
        let stem = name.strip_suffix(unit.as_str());
        if let Some(stem) = stem.and_then(|stem| stem.strip_suffix('_')) {
            return (stem, Some(unit));
        }
    }
    (name, None)
}

#[cfg(test)]
mod tests;
