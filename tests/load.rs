//! The load generator against a real server.

#![cfg(feature = "cli")]

mod support;

use std::time::Duration;

use galaxy_push::lab::load::http2::Offer;
use galaxy_push::lab::load::workload::{Live, LoadError, Replay};
use galaxy_push::lab::load::{Endpoint, GalaxyPush, Gauge, Pace, Plan, Shape};
use support::{Harness, until};

fn plan(pace: Pace) -> Plan {
    Plan {
        shape: Shape::with_payload(Shape::DEFAULT_PAYLOAD_BYTES),
        batch: 10,
        pace,
        in_flight: 32,
        events: None,
    }
}

fn target(server: &Harness, frame_bytes: u32) -> GalaxyPush {
    GalaxyPush {
        gateways: Endpoint::Tcp(server.gateway_addr()),
        publishers: Endpoint::Tcp(server.publisher_addr()),
        offer: Offer {
            frame_bytes,
            ..Offer::default()
        },
        authorization: None,
        pid: Some(std::process::id()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_delivers_everything_to_everybody_each_time() {
    let server = Harness::start().await;
    for frame_bytes in [16 << 10, 1 << 20] {
        let target = target(&server, frame_bytes);
        let report = tokio::task::spawn_blocking(move || {
            let replay = Replay {
                receivers: 3,
                events: 5005,
                plan: plan(Pace::Full),
                duration: Duration::ZERO,
            };
            replay.run(&target, &Gauge::default())
        })
        .await
        .unwrap()
        .unwrap();
        assert_eq!(report.rounds.len(), 1);
        assert_eq!((report.accepted, report.lost, report.foreign), (5005, 0, 0));
        assert_eq!(report.deliveries, 3 * 5005);
        assert_eq!(report.rounds[0].deliveries, 3 * 5005);
        assert!(report.rounds[0].bytes > 250 * 3 * 5005);
        assert!(report.rounds[0].server_cpu_ns.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_says_so_if_the_server_does_not_hold_everything() {
    let server = Harness::with(|config| config.max_events = 100).await;
    let target = target(&server, 16 << 10);
    let outcome = tokio::task::spawn_blocking(move || {
        let replay = Replay {
            receivers: 2,
            events: 1000,
            plan: plan(Pace::Full),
            duration: Duration::ZERO,
        };
        replay.run(&target, &Gauge::default())
    });
    let error = outcome.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_delivers_what_was_accepted() {
    let server = Harness::start().await;
    let target = target(&server, 1 << 20);
    let running = tokio::task::spawn_blocking(move || {
        let live = Live {
            receivers: 5,
            stalled: 3,
            publishers: 2,
            plan: plan(Pace::PerSecond(5000.0)),
            warm_up: Duration::from_millis(100),
            duration: Duration::from_millis(300),
            windows: 3,
        };
        live.run(&target, &Gauge::default())
    });
    until(|| server.engine.stats().subscribers == 5 + 3).await;
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.lost, report.foreign), (0, 0));
    assert!(report.accepted > 0);
    assert_eq!(report.deliveries, 5 * report.accepted);
    // Whatever was due in the span was received in the end.
    let latency = report.latencies.all();
    assert_eq!(latency.count() % (5 * 10), 0);
    assert!(latency.count() > 0);
    assert!(latency.percentile_ns(50.0) <= latency.max_ns());
    assert_eq!(report.latencies.iter().count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_the_gauge_ends_a_running_workload() {
    let server = Harness::start().await;
    let target = target(&server, 1 << 20);
    let gauge = Gauge::default();
    let stop = gauge.clone();
    let running = tokio::task::spawn_blocking(move || {
        let live = Live {
            receivers: 1,
            stalled: 0,
            publishers: 1,
            plan: plan(Pace::PerSecond(1000.0)),
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(3600),
            windows: 1,
        };
        live.run(&target, &gauge)
    });
    until(|| stop.delivered() > 0).await;
    stop.stop();
    let outcome = running.await.unwrap();
    assert!(matches!(outcome, Err(LoadError::Stopped)), "{outcome:?}");
}
