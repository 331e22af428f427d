use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::api;
use super::*;
use crate::admin::facts::{Checks, ListenerFacts};
use crate::clock::ManualClock;
use crate::cursor::Cursor;
use crate::engine::{Engine, Subscriber};
use crate::event::{Event, KindCounts};
use crate::freshness::Freshness;
use crate::spans::{Parent, Spans};
use crate::telemetry::{Begun, Publishing, Stream};

/// An engine by a clock that the test sets, its telemetry, and gateways that read.
struct Server {
    clock: Arc<ManualClock>,
    telemetry: Telemetry,
    facts: Facts,
}

struct Readiness;

impl Checks for Readiness {
    fn live(&self) -> Vec<api::Check> {
        Vec::new()
    }

    fn ready(&self) -> Vec<api::Check> {
        let check = |name: &str, ok| api::Check {
            name: name.to_owned(),
            ok,
            detail: String::new(),
        };
        vec![check("ring", true), check("shutdown", false)]
    }
}

/// A gateway that reads when it is told to.
struct Reader {
    subscriber: Subscriber,
    stream: Stream,
}

impl Reader {
    fn read(&mut self) {
        while let Ok(batch) = self.subscriber.try_recv() {
            self.stream.writing(&batch);
            self.stream.written(&self.subscriber);
        }
    }
}

impl Server {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let engine = Engine::builder()
            .max_events(1 << 17)
            .max_bytes(32 << 20)
            .max_subscribers(10_000)
            .clock(Arc::clone(&clock))
            .build()
            .unwrap();
        let bounds = [50, 1_000, 100_000, 2_000_000].map(Duration::from_micros);
        let listener = |name, connections| ListenerFacts {
            name,
            address: "127.0.0.1:1".to_owned(),
            tls: None,
            connections: Arc::new(move || connections),
            max_connections: 512,
        };
        Server {
            clock,
            telemetry: Telemetry::new(
                &engine,
                Freshness::default(),
                &bounds,
                Duration::from_secs(60),
                Spans::off(),
            ),
            facts: Facts {
                version: env!("CARGO_PKG_VERSION"),
                revision: "0123456789abcdef",
                listeners: vec![listener("gateways", 3), listener("publishers", 2)],
                limits: engine.limits(),
                config_digest: Arc::new(|| "0123abcd".to_owned()),
                checks: Arc::new(Readiness),
            },
        }
    }

    fn subscribe(&self, id: &str) -> Reader {
        let subscriber = self.telemetry.engine().subscribe(id, "").unwrap();
        let stream = self.telemetry.subscribed_unknown(&subscriber);
        Reader { subscriber, stream }
    }

    /// Publishes a client event of this user, as a request of its own.
    fn publish(&self, user: &str) {
        let publishing = self.telemetry.publishing();
        let begun = publishing.begin_request();
        let bytes = encoded(user);
        let event = Event::parse(&bytes).unwrap();
        let cursor = self.telemetry.engine().publisher().publish(event).unwrap();
        let counts = KindCounts {
            client_events: 1,
            session_invalidations: 0,
        };
        publish(&publishing, begun, counts, bytes.len() as u64, cursor);
        publishing.accepted(Method::PublishStream);
    }

    fn scrape(&self, format: Format) -> Scrape {
        Scrape::read(&render(&self.telemetry, &self.facts, format), format)
    }
}

/// A request of one event is in the log.
fn publish(publishing: &Publishing, begun: Begun, counts: KindCounts, bytes: u64, at: Cursor) {
    let draft = publishing.draft(begun, Method::Publish, &Parent::none(), || None, &[]);
    publishing.published(begun, draft, counts, bytes, at, at);
}

/// `PushEvent { client_event: { user_id, kind: "k" } }`, for users of up to 100 bytes.
fn encoded(user: &str) -> Vec<u8> {
    let mut client_event = vec![0x0a, u8::try_from(user.len()).unwrap()];
    client_event.extend(user.bytes());
    client_event.extend(b"\x1a\x01k");
    let mut event = vec![0x0a, u8::try_from(client_event.len()).unwrap()];
    event.extend(client_event);
    event
}

/// What a page says, read strictly. `scripts/check-deploy` has other people's parsers read
/// it too.
struct Scrape {
    /// By the name that samples have: of a histogram without `_bucket` and the like.
    types: BTreeMap<String, String>,
    /// By name and labels as written.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn read(page: &str, format: Format) -> Self {
        let page = match format {
            Format::OpenMetrics => page.strip_suffix("# EOF\n").expect("the end is marked"),
            Format::Prometheus => page,
        };
        let mut scrape = Scrape {
            types: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        let mut family = String::new();
        for line in page.lines() {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", _, text] => assert!(text.ends_with('.'), "{line}"),
                ["#", "UNIT", name, unit] => {
                    assert_eq!(format, Format::OpenMetrics, "{line}");
                    assert!(name.ends_with(&format!("_{unit}")), "{line}");
                }
                ["#", "TYPE", name, kind] => {
                    family = match (format, kind) {
                        (Format::OpenMetrics, "counter") => format!("{name}_total"),
                        (Format::OpenMetrics, "info") => format!("{name}_info"),
                        _ => name.to_owned(),
                    };
                    let kind = if kind == "info" { "gauge" } else { kind };
                    let older = scrape.types.insert(family.clone(), kind.to_owned());
                    assert!(older.is_none(), "{name} twice");
                }
                _ => {
                    let (series, value) = line.rsplit_once(' ').expect(line);
                    let name = series.split('{').next().unwrap_or_default();
                    let suffix = name.strip_prefix(&*family).expect(line);
                    match &*scrape.types[&family] {
                        "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix)),
                        _ => assert_eq!(suffix, "", "{line}"),
                    }
                    let value = value.parse().expect(line);
                    let older = scrape.samples.insert(series.to_owned(), value);
                    assert!(older.is_none(), "{series} twice");
                }
            }
        }
        scrape
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        self.samples[&format!("galaxy_push_{series}")]
    }

    /// The series of this metric.
    fn of(&self, name: &str) -> Vec<&str> {
        let with_labels = format!("galaxy_push_{name}{{");
        let series = self.samples.keys().map(String::as_str);
        series
            .filter(|series| series.starts_with(&with_labels))
            .collect()
    }
}

#[test]
fn what_happens_is_counted() {
    let server = Server::new();
    let mut readers = ["a", "b"].map(|id| server.subscribe(id));
    for _ in 0..3 {
        server.publish("u");
    }
    readers.iter_mut().for_each(Reader::read);
    let [a, _b] = &mut readers;
    a.stream.end(Cause::Lapped, "too slow", 7);
    server
        .telemetry
        .publishing()
        .refused(Method::Publish, Code::InvalidArgument);
    server.telemetry.auth_failed("CREDENTIAL_UNKNOWN");
    server
        .telemetry
        .handshakes()
        .ended(HandshakeResult::Ok, true);
    for format in [Format::OpenMetrics, Format::Prometheus] {
        let scrape = server.scrape(format);
        for (series, value) in [
            ("events_published_total{kind=\"client_event\"}", 3.0),
            ("events_published_total{kind=\"session_invalidation\"}", 0.0),
            ("event_bytes_published_total", 24.0),
            (
                "publish_requests_total{method=\"PublishStream\",code=\"OK\"}",
                3.0,
            ),
            (
                "publish_requests_total{method=\"Publish\",code=\"INVALID_ARGUMENT\"}",
                1.0,
            ),
            ("publish_duration_seconds_count", 3.0),
            ("deliveries_total", 6.0),
            ("delivery_delay_seconds_count", 2.0),
            ("gateways", 1.0),
            ("max_gateways", 10_000.0),
            (
                "subscriptions_total{resume=\"fresh\",reason=\"no-cursor\"}",
                2.0,
            ),
            ("stream_ends_total{cause=\"lapped\"}", 1.0),
            ("stream_ends_total{cause=\"stalled\"}", 0.0),
            ("missed_events_total", 7.0),
            ("connections{listener=\"gateways\"}", 3.0),
            ("max_connections{listener=\"publishers\"}", 512.0),
            ("ring_events", 3.0),
            ("ring_newest_sequence", 3.0),
            ("ring_window_seconds", 300.0),
            ("tls_handshakes_total{result=\"ok\",resumed=\"true\"}", 1.0),
            ("auth_failures_total{reason=\"CREDENTIAL_UNKNOWN\"}", 1.0),
            ("ready{check=\"ring\"}", 1.0),
            ("ready{check=\"shutdown\"}", 0.0),
            ("config_info{digest=\"0123abcd\"}", 1.0),
            ("config_last_reload_success", 1.0),
        ] {
            assert_eq!(scrape.get(series), value, "{series}");
        }
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("build_info{{version=\"{version}\",revision=\"0123456789abcdef\"}}");
        assert_eq!(scrape.get(&build), 1.0);
    }
}

#[test]
fn a_reload_that_failed_shows_until_one_succeeds() {
    let server = Server::new();
    let shown = || {
        let scrape = server.scrape(Format::Prometheus);
        scrape.get("config_last_reload_success")
    };
    server.telemetry.reloads().ended("access", Some("no file"));
    server.telemetry.reloads().ended("tls", None);
    assert_eq!(shown(), 0.0);
    server.telemetry.reloads().ended("access", None);
    assert_eq!(shown(), 1.0);
}

#[test]
fn buckets_are_cumulative_and_end_with_the_count() {
    let server = Server::new();
    for us in [20, 70, 90_000, 9_000_000] {
        let delays = server.telemetry.delivery_delays();
        delays.record(us * 1_000);
    }
    for format in [Format::OpenMetrics, Format::Prometheus] {
        let scrape = server.scrape(format);
        let mut buckets: Vec<_> = scrape
            .of("delivery_delay_seconds_bucket")
            .into_iter()
            .map(|series| {
                let bound = series.split('"').nth(1).unwrap();
                (bound.parse::<f64>().unwrap(), scrape.samples[series])
            })
            .collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let wanted = [
            (50e-6, 1.0),
            (1e-3, 2.0),
            (0.1, 3.0),
            (2.0, 3.0),
            (f64::INFINITY, 4.0),
        ];
        assert_eq!(buckets, wanted);
        assert_eq!(scrape.get("delivery_delay_seconds_count"), 4.0);
        let sum = scrape.get("delivery_delay_seconds_sum");
        assert!((sum - 9.090_09).abs() < 1e-9, "{sum}");
    }
}

#[test]
fn lag_is_that_of_gateways_that_are_behind_and_goes_when_they_catch_up_or_end() {
    let server = Server::new();
    let [mut quick, mut slow, gone] =
        ["quick", "slow \"one\" \\", "gone"].map(|id| server.subscribe(id));
    server.publish("u");
    quick.read();
    server.clock.advance(Duration::from_secs(5));
    server.publish("u");
    let scrape = server.scrape(Format::Prometheus);
    assert_eq!(scrape.get("gateways_behind"), 2.0);
    let series = "{gateway=\"slow \\\"one\\\" \\\\\"}";
    assert_eq!(scrape.get(&format!("gateway_lag_events{series}")), 2.0);
    assert_eq!(scrape.get(&format!("gateway_lag_seconds{series}")), 5.0);
    assert_eq!(scrape.of("gateway_lag_seconds").len(), 2);
    slow.read();
    drop(gone);
    let scrape = server.scrape(Format::Prometheus);
    assert_eq!(scrape.get("gateways_behind"), 0.0);
    assert_eq!(scrape.of("gateway_lag_seconds"), [""; 0]);
}

#[test]
fn of_many_that_are_behind_the_furthest_have_series() {
    let server = Server::new();
    let mut readers = Vec::new();
    for n in 0..2 * MAX_LAG_SERIES {
        readers.push(server.subscribe(&format!("g{n}")));
        server.publish("u");
        server.clock.advance(Duration::from_secs(1));
    }
    server.clock.advance(Duration::from_secs(1));
    let scrape = server.scrape(Format::OpenMetrics);
    assert_eq!(scrape.get("gateways_behind"), readers.len() as f64);
    for name in ["gateway_lag_events", "gateway_lag_seconds"] {
        let wanted = (0..MAX_LAG_SERIES)
            .map(|n| format!("galaxy_push_{name}{{gateway=\"g{n}\"}}"))
            .collect::<BTreeSet<_>>();
        let found = scrape.of(name).into_iter().map(str::to_owned);
        assert_eq!(found.collect::<BTreeSet<_>>(), wanted);
    }
}

#[test]
fn one_id_has_one_series_while_it_is_taken_over() {
    let server = Server::new();
    let older = server.subscribe("g");
    server.publish("u");
    server.clock.advance(Duration::from_secs(3));
    let newer = server.subscribe("g");
    server.publish("u");
    server.clock.advance(Duration::from_secs(3));
    // `Scrape` refuses a series that is there twice.
    let scrape = server.scrape(Format::Prometheus);
    assert_eq!(scrape.get("gateway_lag_seconds{gateway=\"g\"}"), 6.0);
    drop((older, newer));
}

#[test]
fn both_formats_say_the_same() {
    let server = Server::new();
    let mut reader = server.subscribe("g");
    server.publish("u");
    reader.read();
    let [open, prometheus] =
        [Format::OpenMetrics, Format::Prometheus].map(|format| server.scrape(format));
    assert_eq!(open.types, prometheus.types);
    // Bounds are written `2.0` in one and `2` in the other, and the process goes on.
    let comparable = |scrape: &Scrape| {
        let samples = scrape.samples.iter();
        samples
            .filter(|(series, _)| !series.contains("le=\"") && !series.starts_with("process_"))
            .map(|(series, value)| (series.clone(), *value))
            .collect::<Vec<_>>()
    };
    assert_eq!(comparable(&open), comparable(&prometheus));
}

#[test]
fn the_document_has_every_metric_and_no_other() {
    let document = include_str!("../../../docs/metrics.md");
    let mut documented = BTreeMap::new();
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, _labels, _meaning, _query] = cells[..] else {
            panic!("{} columns: {line}", cells.len());
        };
        let older = documented.insert(name.trim_matches('`').to_owned(), kind.to_owned());
        assert!(older.is_none(), "{name} twice");
    }
    assert_eq!(documented, Server::new().scrape(Format::OpenMetrics).types);
}

#[test]
fn the_document_has_every_label() {
    let server = Server::new();
    let reader = server.subscribe("g");
    server.publish("u");
    server.clock.advance(Duration::from_secs(2));
    let scrape = server.scrape(Format::Prometheus);
    drop(reader);
    for line in include_str!("../../../docs/metrics.md").lines() {
        let Some(row) = line.strip_prefix("| `galaxy_push_") else {
            continue;
        };
        let cells: Vec<_> = row.split(" | ").collect();
        let name = cells[0].trim_matches('`');
        let labels = scrape.of(name).first().map_or(Vec::new(), |series| {
            let (_, labels) = series.split_once('{').unwrap();
            labels
                .trim_end_matches('}')
                .split(',')
                .map(|label| format!("`{}`", label.split('=').next().unwrap()))
                .collect()
        });
        // What only a listener with TLS has.
        if !name.starts_with("tls_certificate") {
            assert_eq!(cells[2], labels.join(", "), "{name}");
        }
    }
}

/// Runs the next test alone: others of this process would take memory meanwhile.
#[test]
#[cfg(target_os = "linux")]
fn ids_that_come_and_go_leave_neither_series_nor_memory() {
    let name = "admin::metrics::tests::a_hundred_thousand_ids";
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "the test above runs it in a process of its own"]
fn a_hundred_thousand_ids() {
    const AT_ONCE: usize = 10_000;
    let server = Server::new();
    let resident = || Process::read().resident_bytes.unwrap();
    let mut series = Vec::new();
    let mut memory = Vec::new();
    for round in 0..10 {
        let mut readers: Vec<_> = (0..AT_ONCE)
            .map(|n| server.subscribe(&format!("gateway-{round}-{n}")))
            .collect();
        let gateways: Vec<_> = server.telemetry.gateways();
        let weak: Vec<_> = gateways.iter().map(Arc::downgrade).collect();
        drop(gateways);
        assert_eq!(weak.len(), AT_ONCE);
        let publishing = server.telemetry.publishing();
        for n in 0..AT_ONCE {
            let user = format!("user-{round}-{n}");
            server.publish(&user);
            let head = server.telemetry.engine().head();
            let event = crate::contract::push::SessionInvalidation {
                user_id: user.clone(),
                ..Default::default()
            };
            let event = crate::contract::push::PushEvent {
                kind: Some(crate::contract::push::push_event::Kind::SessionInvalidation(event)),
                cursor: String::new(),
            };
            publishing.invalidated(head, &prost::Message::encode_to_vec(&event));
            let begun = publishing.begin_request();
            let counts = KindCounts {
                client_events: 0,
                session_invalidations: 1,
            };
            publish(&publishing, begun, counts, 1, head);
        }
        server.telemetry.log_all_invalidations();
        // Half of them read; the others are behind.
        server.clock.advance(Duration::from_secs(2));
        readers.iter_mut().step_by(2).for_each(Reader::read);
        let scrape = server.scrape(Format::Prometheus);
        assert_eq!(scrape.get("gateways"), AT_ONCE as f64);
        assert_eq!(scrape.get("gateways_behind"), AT_ONCE as f64 / 2.0);
        series.push(scrape.samples.len());
        drop((readers, publishing));
        assert!(weak.iter().all(|gateway| gateway.upgrade().is_none()));
        let scrape = server.scrape(Format::OpenMetrics);
        assert_eq!(scrape.of("gateway_lag_events"), [""; 0]);
        assert_eq!(scrape.get("gateways"), 0.0);
        memory.push(resident());
    }
    // The same number each time: some hundreds, of which two hundred are those of lag.
    assert!(series.iter().all(|n| *n == series[0]), "{series:?}");
    assert!(series[0] < 2 * MAX_LAG_SERIES + 200, "{series:?}");
    let scrape = server.scrape(Format::Prometheus);
    let sum = |name| {
        let series = scrape.of(name).into_iter();
        series.map(|series| scrape.samples[series]).sum::<f64>()
    };
    assert_eq!(sum("subscriptions_total"), 100_000.0);
    assert_eq!(sum("stream_ends_total"), 100_000.0);
    assert_eq!(sum("events_published_total"), 200_000.0);
    // The first rounds fill the ring, the log of ends and the allocator's own reserves.
    let grown = memory[9].saturating_sub(memory[4]);
    assert!(grown < 8 << 20, "{grown} of {memory:?}");
}

/// Prints what a scrape takes.
#[test]
#[ignore = "measures, with 10,000 gateways: run it alone, with --nocapture"]
fn cost_of_a_scrape() {
    let server = Server::new();
    let mut readers: Vec<_> = (0..10_000)
        .map(|n| server.subscribe(&format!("gateway-{n}")))
        .collect();
    for (name, reads) in [("all have read", 1), ("all but one are behind", 10_000)] {
        server.publish("u");
        server.clock.advance(Duration::from_secs(2));
        readers.iter_mut().step_by(reads).for_each(Reader::read);
        for format in [Format::OpenMetrics, Format::Prometheus] {
            let mut times: Vec<_> = (0..21)
                .map(|_| {
                    let began = Instant::now();
                    let page = render(&server.telemetry, &server.facts, format);
                    (began.elapsed(), page.len())
                })
                .collect();
            times.sort();
            println!(
                "{name}, {format:?}: {:?} at best, {:?} mostly",
                times[0], times[10]
            );
        }
    }
}
