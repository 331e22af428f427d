//! What the admin listener answers, as JSON: what the dashboard, `status` and `doctor` read.
//!
//! Times are RFC 3339 in UTC, durations seconds. Fields are added, never renamed: a reader
//! ignores those that it does not know.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/access`: who asks, and what may be done here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Who asks; empty where nobody is asked.
    pub principal: String,
    /// `read`, or `write`: gateways may be disconnected.
    pub role: String,
    /// Whether payloads of client events may be seen, of a user that is followed.
    pub payloads: bool,
}

/// `GET /api/v1/status`: the server as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The commit that it was built from, if that is known.
    pub revision: String,
    /// When it began to serve.
    pub started_at: String,
    /// For how long it has served.
    pub uptime_seconds: f64,
    /// `serving`, or `stopping`.
    pub state: String,
    /// The cursor of the newest event.
    pub head: String,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The ring.
    pub ring: Ring,
    /// What is kept of session invalidations.
    #[serde(default)]
    pub revocations: Revocations,
    /// What gateways have reported.
    #[serde(default)]
    pub receipts: Receipts,
    /// The gateways together.
    pub gateways: GatewayCounts,
    /// What was counted since the start.
    pub totals: Totals,
    /// How fast it goes: over the last ten seconds.
    pub rates: Rates,
    /// The process.
    pub process: Process,
    /// The configuration that is in force.
    pub config: ConfigState,
    /// What `/readyz` looks at.
    pub checks: Vec<Check>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// `gateways`, `publishers` or `admin`.
    pub name: String,
    /// Where it listens: an IP address and a port, or `unix:PATH`.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Connections that are open.
    pub connections: u64,
    /// The most that may be.
    pub max_connections: u64,
    /// When its certificate ends.
    pub certificate_not_after: Option<String>,
}

/// The ring's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Events that can be read.
    pub events: u64,
    /// The most that it keeps.
    pub max_events: u64,
    /// Memory that it has.
    pub bytes: u64,
    /// The most that it may have.
    pub max_bytes: u64,
    /// Memory that has left it, but is kept alive by slow gateways.
    pub pinned_bytes: u64,
    /// The age of the oldest event that can be read.
    pub oldest_age_seconds: f64,
    /// The greatest age at which a cursor still resumes.
    pub window_seconds: f64,
    /// The sequence of the newest event.
    pub newest_sequence: u64,
}

/// What is kept of session invalidations, for gateways that were away for longer than the ring
/// reaches back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Revocations {
    /// How many: the newest of each user and session.
    pub kept: u64,
    /// The most that are kept; 0 if none are.
    pub max: u64,
    /// The memory that they take.
    pub bytes: u64,
    /// How many were dropped because there was no room for them.
    pub evicted: u64,
    /// How many were dropped because they had been kept for long enough.
    pub expired: u64,
    /// Streams that did not resume, and began with everything that was missed.
    pub complete_replays: u64,
    /// Streams that did not resume, and of whose missed invalidations some may be lost.
    pub partial_replays: u64,
}

/// What gateways have reported of the session invalidations that they have enforced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipts {
    /// Processes that report, and are within their leases.
    pub reporting: u64,
    /// Gateways that are subscribed and do not report.
    pub without_reports: u64,
    /// Reports that were taken.
    pub reports: u64,
    /// Publishers that have waited until an invalidation was enforced, and were told that it is.
    pub waits_proven: u64,
    /// Those who were told that it is not certain.
    pub waits_unproven: u64,
}

/// How many gateways there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayCounts {
    /// Subscribed now.
    pub subscribed: u64,
    /// The most that may be.
    pub max: u64,
    /// Of those: waiting for longer than a second for an event that was published.
    pub behind: u64,
}

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Client events that were published.
    pub client_events_published: u64,
    /// Session invalidations that were published.
    pub session_invalidations_published: u64,
    /// Bytes of events, as published.
    pub event_bytes_published: u64,
    /// Events that were handed to sockets: one for each gateway that was sent it.
    pub deliveries: u64,
    /// Bytes of those, with their prefixes and cursors.
    pub delivered_bytes: u64,
    /// Events that gateways were told they had missed.
    pub missed_events: u64,
    /// Subscriptions that began.
    pub subscriptions: u64,
    /// Streams that ended, by cause.
    pub ends: std::collections::BTreeMap<String, u64>,
}

/// How fast it goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Events published a second.
    pub published_per_second: f64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// Bytes delivered a second.
    pub delivered_bytes_per_second: f64,
    /// From publishing until the socket took it: the median of the sample.
    pub delivery_delay_p50_seconds: Option<f64>,
    /// The same: 99 of 100 were faster.
    pub delivery_delay_p99_seconds: Option<f64>,
    /// How many deliveries were sampled for it.
    pub delivery_delay_samples: u64,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// The memory limit of its control group or of the machine, whichever is smaller.
    pub memory_limit_bytes: Option<u64>,
    /// Processor time since the start.
    pub cpu_seconds: f64,
    /// File descriptors that are open.
    pub open_fds: u64,
    /// The most that may be.
    pub max_fds: u64,
}

/// The configuration that is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigState {
    /// Tells two configurations apart.
    pub digest: String,
    /// Whether the last reload of any file took effect; also before the first.
    pub last_reload_success: bool,
    /// When the last reload was tried.
    pub last_reload_at: Option<String>,
}

/// One check of readiness or liveness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// `GET /api/v1/gateways`: the gateways that are subscribed, sorted and filtered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gateways {
    /// How many are subscribed.
    pub total: u64,
    /// How many of them the filter lets through.
    pub matched: u64,
    /// Those of this page.
    pub gateways: Vec<Gateway>,
}

/// A gateway that is subscribed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its `gateway_client_id`.
    pub id: String,
    /// Where it connects from.
    pub peer: String,
    /// Who it is.
    pub principal: String,
    /// Which process of its kind it is, as it says (`push-instance`); empty if it does not.
    #[serde(default)]
    pub instance: String,
    /// When it subscribed.
    pub since: String,
    /// `push-resume` of its stream.
    pub resume: String,
    /// `push-resume-reason`.
    pub reason: String,
    /// How many events it had missed when it subscribed.
    pub missed: u64,
    /// The cursor of the last event that its socket took.
    pub cursor: String,
    /// Published events that its socket has not taken.
    pub lag_events: u64,
    /// How long the first of those has waited; 0 if there is none.
    pub lag_seconds: f64,
    /// Events that its socket took.
    pub delivered_events: u64,
    /// Bytes of those.
    pub delivered_bytes: u64,
    /// Bytes a second, of late.
    pub bytes_per_second: f64,
    /// The cursor up to which its process has reported that session invalidations are enforced; empty
    /// if it does not report.
    #[serde(default)]
    pub enforced: String,
    /// `live`; or `behind`: it waits for longer than a second for an event that was
    /// published.
    pub state: String,
}

/// `GET /api/v1/ends`: streams that have ended of late, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ends {
    /// The newest first.
    pub ends: Vec<End>,
}

/// The end of a stream, or its refusal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: String,
    /// The `gateway_client_id`, if it was known.
    pub id: String,
    /// Where it connected from.
    pub peer: String,
    /// Who it was.
    pub principal: String,
    /// `takeover`, `lapped`, `stalled`, `stopping`, `expired`, `denied`, `disconnected`,
    /// `cancelled` or `refused`.
    pub cause: String,
    /// The cause in words, with its figures.
    pub detail: String,
    /// How long it lasted.
    pub lasted_seconds: f64,
    /// The cursor of the last event that its socket took.
    pub cursor: String,
    /// Events that its socket took.
    pub delivered_events: u64,
    /// Bytes of those.
    pub delivered_bytes: u64,
    /// Events that it was told it has missed, or that were published and not delivered.
    pub missed: u64,
}

/// `GET /api/v1/invalidations`: the session invalidations that were published last, the
/// newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Invalidations {
    /// The newest first, at most 1,000.
    pub invalidations: Vec<Invalidation>,
}

/// A session invalidation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Invalidation {
    /// When it was published.
    pub at: String,
    /// Its cursor.
    pub cursor: String,
    /// Whose sessions end.
    pub user_id: String,
    /// Which of them; empty: all.
    pub device_session_id: String,
    /// Why, as its publisher says.
    pub reason: String,
}

/// `GET /api/v1/history`: the figures of the last ten minutes, one for each second, the
/// oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The seconds between two points.
    pub interval_seconds: f64,
    /// The oldest first.
    pub points: Vec<Point>,
}

/// The figures of one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it ended: seconds since 1970.
    pub at: f64,
    /// Events published a second.
    pub published_per_second: f64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// Bytes delivered a second.
    pub delivered_bytes_per_second: f64,
    /// The median of the delivery delay, where any was sampled.
    pub delivery_delay_p50_seconds: Option<f64>,
    /// Its 99th percentile.
    pub delivery_delay_p99_seconds: Option<f64>,
    /// Gateways that were subscribed.
    pub gateways: u64,
    /// Those that were behind.
    pub gateways_behind: u64,
    /// Events in the ring.
    pub ring_events: u64,
    /// Memory of the ring.
    pub ring_bytes: u64,
    /// Memory pinned by slow gateways.
    pub pinned_bytes: u64,
    /// Age of the oldest event.
    pub ring_oldest_age_seconds: f64,
}

/// The data of `event: user` at `/api/v1/live?user=ID`: an event of the user that is
/// followed, as it went by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserEvent {
    /// When it was seen.
    pub at: String,
    /// Its cursor.
    pub cursor: String,
    /// `client_event` or `session_invalidation`.
    pub class: String,
    /// Its user.
    pub user_id: String,
    /// Its session; empty: all of the user's.
    pub device_session_id: String,
    /// The kind of a client event.
    pub kind: String,
    /// The id of a client event.
    pub event_id: String,
    /// Carried along with a client event.
    pub request_id: String,
    /// Carried along with a client event.
    pub trace_id: String,
    /// The reason of an invalidation.
    pub reason: String,
    /// How long the payload of a client event is.
    pub payload_bytes: u64,
    /// The payload, where it is JSON, was asked for (`payload=1`), and may be seen.
    pub payload: Option<serde_json::Value>,
    /// The payload in base64, where it is not JSON.
    pub payload_base64: Option<String>,
}

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// In UPPER_SNAKE, for programs.
    pub error: String,
    /// In words.
    pub message: String,
}
