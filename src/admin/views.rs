//! The answers, made from telemetry: each at most five times a second, however often it is
//! asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{StatusCode, Uri};
use humantime::format_rfc3339_millis;
use serde::{Serialize, Serializer};
use tonic::Code;

use super::api;
use super::facts::Facts;
use super::metrics::{self, Format};
use super::process;
use super::query::{self, MAX_ROWS};
use super::refusal::Refusal;
use crate::access::Peer;
use crate::contract::revocations::Completeness;
use crate::cursor::Cursor;
use crate::telemetry::describe;
use crate::telemetry::{
    Cause, Ended, Gateway, HISTORY_INTERVAL, Invalidation, Lag, Point, Telemetry, Waited,
};

/// For how long an answer is given again.
const FRESH: Duration = Duration::from_millis(200);
/// So many answers of a table are made and kept for that time, each of another query. Who asks
/// for more in it has to wait.
const MAX_ANSWERS: usize = 8;
/// So many rows a page of gateways has, where the query does not say.
const DEFAULT_ROWS: usize = 100;

/// The server, as it is looked at.
#[derive(Debug)]
pub(super) struct Views {
    telemetry: Telemetry,
    facts: Facts,
    status: Cache<Bytes>,
    history: Cache<Bytes>,
    /// By [`Format`].
    metrics: [Cache<Bytes>; 2],
    live: Cache<Arc<[api::Check]>>,
    ready: Cache<Arc<[api::Check]>>,
    gateways: Cache<Table<Row, GatewayQuery>>,
    ends: Cache<Table<api::End, usize>>,
    invalidations: Cache<Table<api::Invalidation, usize>>,
}

/// Something that is made again when it is old.
#[derive(Debug)]
struct Cache<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Cache(Mutex::default())
    }
}

impl<T> Cache<T> {
    fn drop_old(&self) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_some_and(|(at, _)| at.elapsed() >= FRESH) {
            *made = None;
        }
    }

    fn with<R>(&self, make: impl FnOnce() -> T, take: impl FnOnce(&mut T) -> R) -> R {
        let mut made: MutexGuard<'_, Option<(Instant, T)>> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_some_and(|(at, _)| at.elapsed() >= FRESH) {
            *made = None;
        }
        let (_, value) = made.get_or_insert_with(|| {
            let value = make();
            // It is fresh for some time after it was made, however long that took.
            (Instant::now(), value)
        });
        take(value)
    }
}

impl<T: Clone> Cache<T> {
    fn get(&self, make: impl FnOnce() -> T) -> T {
        self.with(make, |value| value.clone())
    }
}

/// Rows, and the answers that were made of them.
#[derive(Debug)]
struct Table<R, Q> {
    rows: Vec<R>,
    answers: Vec<(Q, Bytes)>,
}

impl<R, Q: PartialEq> Table<R, Q> {
    fn of(rows: Vec<R>) -> Self {
        Table {
            rows,
            answers: Vec::new(),
        }
    }

    fn answer(&mut self, query: Q, make: impl FnOnce(&[R], &Q) -> Bytes) -> Result<Bytes, Refusal> {
        if let Some((_, answer)) = self.answers.iter().find(|(asked, _)| *asked == query) {
            return Ok(answer.clone());
        }
        if self.answers.len() == MAX_ANSWERS {
            let message = format!("{MAX_ANSWERS} other queries came just before: try again");
            let busy = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Refusal::new(busy, "TOO_MANY_QUERIES", message).retry_after(1));
        }
        let answer = make(&self.rows, &query);
        self.answers.push((query, answer.clone()));
        Ok(answer)
    }
}

impl Views {
    pub(super) fn new(telemetry: Telemetry, facts: Facts) -> Self {
        Views {
            telemetry,
            facts,
            status: Cache::default(),
            history: Cache::default(),
            metrics: Default::default(),
            live: Cache::default(),
            ready: Cache::default(),
            gateways: Cache::default(),
            ends: Cache::default(),
            invalidations: Cache::default(),
        }
    }

    /// Lets go of tables that nobody has asked for of late: with ten thousand gateways they are
    /// large.
    pub(super) fn drop_old(&self) {
        self.gateways.drop_old();
        self.ends.drop_old();
        self.invalidations.drop_old();
    }

    pub(super) fn status(&self) -> Bytes {
        self.status.get(|| json(&self.make_status()))
    }

    pub(super) fn history(&self) -> Bytes {
        self.history.get(|| {
            json(&api::History {
                interval_seconds: HISTORY_INTERVAL.as_secs_f64(),
                points: self.telemetry.history().iter().map(point).collect(),
            })
        })
    }

    pub(super) fn metrics(&self, format: Format) -> Bytes {
        let [open, prometheus] = &self.metrics;
        let cache = match format {
            Format::OpenMetrics => open,
            Format::Prometheus => prometheus,
        };
        cache.get(|| metrics::render(&self.telemetry, &self.facts, format).into())
    }

    pub(super) fn live_checks(&self) -> Arc<[api::Check]> {
        self.live.get(|| self.facts.checks.live().into())
    }

    pub(super) fn ready_checks(&self) -> Arc<[api::Check]> {
        self.ready.get(|| self.facts.checks.ready().into())
    }

    pub(super) fn gateways(&self, query: GatewayQuery) -> Result<Bytes, Refusal> {
        let make = || {
            let gateways = self.telemetry.gateways().into_iter();
            let mut rows: Vec<Row> = gateways.map(|of| Row::of(&self.telemetry, of)).collect();
            rows.sort_by(|a, b| a.gateway.id().cmp(b.gateway.id()));
            Table::of(rows)
        };
        let select = |rows: &[Row], query: &GatewayQuery| json(&query.select(rows));
        self.gateways
            .with(make, |table| table.answer(query, select))
    }

    pub(super) fn ends(&self, limit: usize) -> Result<Bytes, Refusal> {
        let make = || {
            let ends = self.telemetry.recent_ends();
            Table::of(ends.iter().map(|ended| end(ended)).collect())
        };
        self.ends.with(make, |table| {
            table.answer(limit, |rows, limit| {
                json(&api::Ends {
                    ends: rows.iter().take(*limit).cloned().collect(),
                })
            })
        })
    }

    pub(super) fn invalidations(&self, limit: usize) -> Result<Bytes, Refusal> {
        let make = || {
            let all = self.telemetry.recent_invalidations();
            Table::of(all.iter().map(|of| invalidation(of)).collect())
        };
        self.invalidations.with(make, |table| {
            table.answer(limit, |rows, limit| {
                json(&api::Invalidations {
                    invalidations: rows.iter().take(*limit).cloned().collect(),
                })
            })
        })
    }

    fn make_status(&self) -> api::Status {
        let (telemetry, facts) = (&self.telemetry, &self.facts);
        let engine = telemetry.engine();
        let stats = engine.stats();
        let kept = engine.revocations().unwrap_or_default();
        let published = telemetry.published();
        let delivered = telemetry.delivered();
        let rates = telemetry.rates();
        let checks = self.ready_checks();
        let is_stopping = engine.is_closed()
            || checks
                .iter()
                .any(|check| check.name == "stopping" && !check.ok);
        let listeners = facts.listeners.iter().map(|listener| api::Listener {
            name: listener.name.to_owned(),
            address: listener.address.clone(),
            tls: listener.tls.is_some(),
            connections: (listener.connections)(),
            max_connections: listener.max_connections,
            certificate_not_after: listener.tls.as_ref().map(|tls| time(tls.not_after())),
        });
        let reloads = telemetry.reloads().all();
        api::Status {
            version: facts.version.to_owned(),
            revision: facts.revision.to_owned(),
            started_at: time(telemetry.started_at()),
            uptime_seconds: telemetry.uptime().as_secs_f64(),
            state: if is_stopping { "stopping" } else { "serving" }.to_owned(),
            head: engine.head().to_string(),
            listeners: listeners.collect(),
            ring: api::Ring {
                events: stats.retained_events,
                max_events: facts.limits.max_events,
                bytes: stats.ring_bytes,
                max_bytes: facts.limits.ring_bytes,
                pinned_bytes: stats.pinned_bytes,
                oldest_age_seconds: engine.oldest_age().unwrap_or_default().as_secs_f64(),
                window_seconds: engine.window().as_secs_f64(),
                newest_sequence: engine.head().seq().number(),
            },
            revocations: api::Revocations {
                kept: kept.kept,
                max: facts.limits.max_revocations as u64,
                bytes: kept.bytes,
                evicted: kept.evicted,
                expired: kept.expired,
                complete_replays: telemetry.replays(Completeness::Complete),
                partial_replays: telemetry.replays(Completeness::Partial),
            },
            receipts: api::Receipts {
                reporting: telemetry.receipts().counts().0 as u64,
                without_reports: telemetry.without_reports(&telemetry.gateways()).count() as u64,
                reports: telemetry
                    .reports()
                    .get(&(Code::Ok as i32))
                    .copied()
                    .unwrap_or(0),
                waits_proven: telemetry.waits(Waited::Proven),
                waits_unproven: telemetry.waits(Waited::Unproven),
            },
            gateways: api::GatewayCounts {
                subscribed: stats.subscribers as u64,
                max: facts.limits.max_subscribers as u64,
                behind: telemetry
                    .newest_point()
                    .map_or(0, |of| of.gateways_behind as u64),
            },
            totals: api::Totals {
                client_events_published: published.client_events,
                session_invalidations_published: published.session_invalidations,
                event_bytes_published: published.bytes,
                deliveries: delivered.events,
                delivered_bytes: delivered.bytes,
                missed_events: telemetry.missed(),
                subscriptions: telemetry.starts().iter().sum(),
                ends: Cause::ALL
                    .iter()
                    .map(|cause| (cause.as_str().to_owned(), telemetry.ends(*cause)))
                    .collect(),
            },
            rates: api::Rates {
                published_per_second: rates.published_per_second,
                deliveries_per_second: rates.deliveries_per_second,
                delivered_bytes_per_second: rates.delivered_bytes_per_second,
                delivery_delay_p50_seconds: rates.delay_p50,
                delivery_delay_p99_seconds: rates.delay_p99,
                delivery_delay_samples: rates.delay_samples,
            },
            process: process::report(),
            config: api::ConfigState {
                digest: (facts.config_digest)(),
                last_reload_success: reloads.values().all(|reload| reload.error.is_none()),
                last_reload_at: reloads.values().map(|reload| reload.at).max().map(time),
            },
            checks: checks.to_vec(),
        }
    }
}

/// A gateway, as it was looked at: small, since there may be ten thousand.
#[derive(Debug)]
struct Row {
    gateway: Arc<Gateway>,
    lag: Lag,
    events: u64,
    bytes: u64,
    enforced: Option<Cursor>,
}

impl Row {
    fn of(telemetry: &Telemetry, gateway: Arc<Gateway>) -> Self {
        let deliveries = gateway.deliveries();
        Row {
            lag: telemetry.lag(&gateway),
            events: deliveries.events,
            bytes: deliveries.bytes,
            enforced: telemetry.enforced(&gateway),
            gateway,
        }
    }

    fn report(&self) -> api::Gateway {
        let (of, lag) = (&self.gateway, &self.lag);
        let (resume, reason, missed) = describe(of.start().resume);
        api::Gateway {
            id: of.id().to_owned(),
            peer: of.peer().to_string(),
            principal: of.principal().unwrap_or_default().to_owned(),
            instance: of.instance().unwrap_or_default().to_owned(),
            since: time(of.since()),
            resume: resume.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            missed: missed.unwrap_or(0),
            cursor: lag.position.to_string(),
            lag_events: lag.events,
            lag_seconds: lag.waited.as_secs_f64(),
            delivered_events: self.events,
            delivered_bytes: self.bytes,
            bytes_per_second: of.bytes_per_second() as f64,
            enforced: self.enforced.map(|of| of.to_string()).unwrap_or_default(),
            state: self.state().to_owned(),
        }
    }

    fn state(&self) -> &'static str {
        if self.lag.is_behind() {
            "behind"
        } else {
            "live"
        }
    }

    /// Whether one of its texts has this in it, which is in lower case.
    fn matches(&self, filter: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(filter);
        let of = &self.gateway;
        has(of.id())
            || has(of.principal().unwrap_or_default())
            || has(of.instance().unwrap_or_default())
            || has(&of.peer().to_string())
            || has(self.state())
    }
}

/// What a column is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Number(u64),
    Duration(Duration),
    Time(SystemTime),
    Peer(Peer),
    Text(&'a str),
}

/// Declares the columns that gateways are sorted by: all fields of the report, each with its key.
macro_rules! columns {
    ($($column:ident => $field:ident: $key:expr;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Column {
            $($column,)+
        }

        impl Column {
            const NAMES: &[&str] = &[$(stringify!($field),)+];

            fn of(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($field) => Some(Column::$column),)+
                    _ => None,
                }
            }

            fn key(self, row: &Row) -> Key<'_> {
                let key: fn(&Row) -> Key<'_> = match self {
                    $(Column::$column => $key,)+
                };
                key(row)
            }
        }
    };
}

columns! {
    Id => id: |row| Key::Text(row.gateway.id());
    Peer => peer: |row| Key::Peer(row.gateway.peer());
    Principal => principal: |row| Key::Text(row.gateway.principal().unwrap_or_default());
    Instance => instance: |row| Key::Text(row.gateway.instance().unwrap_or_default());
    Since => since: |row| Key::Time(row.gateway.since());
    Resume => resume: |row| Key::Text(describe(row.gateway.start().resume).0.as_str());
    Reason => reason: |row| Key::Text(describe(row.gateway.start().resume).1.as_str());
    Missed => missed: |row| Key::Number(describe(row.gateway.start().resume).2.unwrap_or(0));
    Cursor => cursor: |row| Key::Number(row.lag.position.seq().number());
    LagEvents => lag_events: |row| Key::Number(row.lag.events);
    LagSeconds => lag_seconds: |row| Key::Duration(row.lag.waited);
    DeliveredEvents => delivered_events: |row| Key::Number(row.events);
    DeliveredBytes => delivered_bytes: |row| Key::Number(row.bytes);
    BytesPerSecond => bytes_per_second: |row| Key::Number(row.gateway.bytes_per_second());
    Enforced => enforced: |row| Key::Number(row.enforced.map_or(0, |of| of.seq().number() + 1));
    State => state: |row| Key::Text(row.state());
}

/// Which gateways are asked for, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GatewayQuery {
    /// In lower case.
    filter: String,
    sort: Column,
    is_descending: bool,
    limit: usize,
    offset: usize,
}

impl GatewayQuery {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let mut asked = GatewayQuery {
            filter: String::new(),
            sort: Column::Id,
            is_descending: false,
            limit: DEFAULT_ROWS,
            offset: 0,
        };
        let known = ["filter", "sort", "order", "limit", "offset"];
        for (key, value) in query::unique(uri, &known)? {
            match &*key {
                "filter" => asked.filter = value.to_lowercase(),
                "sort" => {
                    asked.sort = Column::of(&value).ok_or_else(|| {
                        let wanted = format!("one of {}", Column::NAMES.join(", "));
                        query::bad_value(&key, &value, &wanted)
                    })?;
                }
                "order" => {
                    asked.is_descending = match &*value {
                        "asc" => false,
                        "desc" => true,
                        _ => return Err(query::bad_value(&key, &value, "asc or desc")),
                    }
                }
                "limit" => asked.limit = query::number(&key, &value, MAX_ROWS)?,
                _ => asked.offset = query::number(&key, &value, u32::MAX as usize)?,
            }
        }
        Ok(asked)
    }

    /// `rows` are sorted by id: rows that are alike stay so.
    fn select<'a>(&self, rows: &'a [Row]) -> Page<'a> {
        let matches = |row: &&Row| self.filter.is_empty() || row.matches(&self.filter);
        let mut matched: Vec<&Row> = rows.iter().filter(matches).collect();
        if self.is_descending {
            matched.sort_by(|a, b| self.sort.key(b).cmp(&self.sort.key(a)));
        } else if self.sort != Column::Id {
            matched.sort_by(|a, b| self.sort.key(a).cmp(&self.sort.key(b)));
        }
        let count = matched.len();
        matched.drain(..self.offset.min(count));
        matched.truncate(self.limit);
        Page {
            total: rows.len() as u64,
            matched: count as u64,
            gateways: matched,
        }
    }
}

/// An [`api::Gateways`] whose rows are made while they are written, one after another.
#[derive(Serialize)]
struct Page<'a> {
    total: u64,
    matched: u64,
    #[serde(serialize_with = "reports")]
    gateways: Vec<&'a Row>,
}

fn reports<S: Serializer>(rows: &[&Row], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rows.iter().map(|row| row.report()))
}

/// RFC 3339. What no calendar has is left empty.
pub(super) fn time(at: SystemTime) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    match write!(text, "{}", format_rfc3339_millis(at)) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

pub(super) fn point(of: &Point) -> api::Point {
    let since_1970 = of.at.duration_since(SystemTime::UNIX_EPOCH);
    api::Point {
        at: since_1970.unwrap_or_default().as_secs_f64(),
        published_per_second: of.published_per_second,
        deliveries_per_second: of.deliveries_per_second,
        delivered_bytes_per_second: of.delivered_bytes_per_second,
        delivery_delay_p50_seconds: of.delay_p50,
        delivery_delay_p99_seconds: of.delay_p99,
        gateways: of.gateways as u64,
        gateways_behind: of.gateways_behind as u64,
        ring_events: of.ring.retained_events,
        ring_bytes: of.ring.ring_bytes,
        pinned_bytes: of.ring.pinned_bytes,
        ring_oldest_age_seconds: of.oldest_age.unwrap_or_default().as_secs_f64(),
    }
}

pub(super) fn end(of: &Ended) -> api::End {
    api::End {
        at: time(of.at),
        id: of.id.to_string(),
        peer: of.peer.to_string(),
        principal: of.principal.as_deref().unwrap_or_default().to_owned(),
        cause: of.cause.as_str().to_owned(),
        detail: of.detail.clone(),
        lasted_seconds: of.lasted.as_secs_f64(),
        cursor: of
            .position
            .as_ref()
            .map(Cursor::to_string)
            .unwrap_or_default(),
        delivered_events: of.events,
        delivered_bytes: of.bytes,
        missed: of.missed,
    }
}

pub(super) fn invalidation(of: &Invalidation) -> api::Invalidation {
    api::Invalidation {
        at: time(of.at),
        cursor: of.cursor.to_string(),
        user_id: of.user_id.to_string(),
        device_session_id: of.device_session_id.to_string(),
        reason: of.reason.to_string(),
    }
}

/// None of what is written here has a value that JSON has not.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    /// Gateways that are so many events, and so many milliseconds, behind.
    fn rows(of: &[(&str, u64, u64)]) -> Vec<Row> {
        let engine = Engine::builder().build().unwrap();
        let telemetry = Telemetry::of(&engine);
        let rows = of.iter().map(|(id, events, ms)| {
            let subscriber = engine.subscribe(id, "").unwrap();
            let _stream = telemetry.subscribed_unknown(&subscriber);
            let [gateway] = &telemetry.gateway(id)[..] else {
                panic!("it is subscribed once");
            };
            let row = Row::of(&telemetry, Arc::clone(gateway));
            let lag = Lag {
                events: *events,
                waited: Duration::from_millis(*ms),
                ..row.lag
            };
            Row { lag, ..row }
        });
        rows.collect()
    }

    fn ids(rows: &[Row], query: &str) -> Vec<String> {
        let uri: Uri = format!("/?{query}").parse().unwrap();
        let selected = json(&GatewayQuery::of(&uri).unwrap().select(rows));
        let selected: api::Gateways = serde_json::from_slice(&selected).unwrap();
        selected.gateways.into_iter().map(|of| of.id).collect()
    }

    #[test]
    fn rows_are_filtered_sorted_and_paged() {
        let rows = rows(&[("A1", 1, 500), ("b2", 3, 0), ("c3", 1, 2000), ("d4", 0, 0)]);
        assert_eq!(ids(&rows, ""), ["A1", "b2", "c3", "d4"]);
        assert_eq!(ids(&rows, "order=desc"), ["d4", "c3", "b2", "A1"]);
        assert_eq!(ids(&rows, "sort=lag_events"), ["d4", "A1", "c3", "b2"]);
        assert_eq!(
            ids(&rows, "sort=lag_events&order=desc"),
            ["b2", "A1", "c3", "d4"]
        );
        assert_eq!(
            ids(&rows, "sort=lag_seconds&order=desc&limit=2"),
            ["c3", "A1"]
        );
        assert_eq!(ids(&rows, "limit=2&offset=3"), ["d4"]);
        assert_eq!(ids(&rows, "offset=9"), [""; 0]);
        assert_eq!(ids(&rows, "filter=a1"), ["A1"]);
        let uri: Uri = "/?filter=B2&limit=0".parse().unwrap();
        let selected = GatewayQuery::of(&uri).unwrap().select(&rows);
        assert_eq!((selected.total, selected.matched), (4, 1));
        assert!(selected.gateways.is_empty());
    }

    #[test]
    fn every_field_of_a_gateway_is_a_column() {
        let fields = serde_json::to_value(api::Gateway::default()).unwrap();
        let fields: Vec<&String> = fields.as_object().unwrap().keys().collect();
        assert_eq!(fields, Column::NAMES);
    }

    #[test]
    fn what_is_no_query_is_refused_and_named() {
        for (query, part) in [
            ("sort=nothing", "\"nothing\" is not one of id, peer"),
            ("order=up", "asc or desc"),
            ("limit=1001", "0 to 1000"),
            ("limit=-1", "0 to 1000"),
            ("limit=%2B1", "0 to 1000"),
            ("limit=", "0 to 1000"),
            ("offset=x", "offset"),
            ("page=1", "\"page\" is not a key"),
            (
                "limit=1&limit=2",
                "limit stands in the query more than once",
            ),
        ] {
            let uri: Uri = format!("/?{query}").parse().unwrap();
            let refusal = GatewayQuery::of(&uri).unwrap_err();
            assert!(refusal.message().contains(part), "{query}: {refusal:?}");
        }
    }

    #[test]
    fn a_time_of_no_calendar_is_empty() {
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(time(late), "");
    }
}
