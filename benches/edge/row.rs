//! The rows of the table: who does what, and with which servers.

use std::time::Duration;

use crate::system::System;

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) parameter: String,
    pub(crate) work: Work,
    pub(crate) systems: Vec<System>,
    pub(crate) security: Security,
}

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plaintext,
    /// Over TLS 1.3; gateways that come back have a ticket, or have none.
    Tls {
        tickets: bool,
    },
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Eight gateways take everything that there is; they offer frames of this size.
    Replay { frame_bytes: u32 },
    /// So many events a second to so many gateways.
    Live { per_second: u32, gateways: usize },
    /// One event at a time to so many gateways: when the first of them has it, and the last.
    Single { per_second: u32, gateways: usize },
    /// As `Live`, for what that costs alone.
    FanOut { per_second: u32, gateways: usize },
    /// As `Live`, without and with others that never read.
    Stalled {
        per_second: u32,
        gateways: usize,
        stalled: usize,
    },
    /// So many gateways that are sent nothing.
    Idle { gateways: usize },
    /// So many gateways that are cut at once and come back.
    Storm { gateways: usize },
    /// One publisher, which waits for responses; so many events to a request.
    Publish { batch: usize },
}

impl Work {
    /// How often it is run for each round of all rows: more often where costs are to be the
    /// same, since the most and the least of several differ by what noise there is.
    pub(crate) fn runs(self) -> u32 {
        match self {
            Work::FanOut { .. } => 3,
            _ => 1,
        }
    }
}

/// How long everything takes, and how large it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: u32,
    pub(crate) replay_events: u64,
    pub(crate) replay_gateways: usize,
    pub(crate) replay: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) live: Duration,
    pub(crate) fan_out: Duration,
    /// How often `live` is run at most until the machine was quiet for as long as one run.
    pub(crate) tries: u32,
    pub(crate) idle: Duration,
    pub(crate) storm: Duration,
    /// Until every server is full.
    pub(crate) fill: Duration,
    pub(crate) publish: Duration,
    /// As many gateways as an edge might have.
    pub(crate) many: usize,
}

impl Size {
    pub(crate) const FULL: Size = Size {
        rounds: 3,
        replay_events: 200_000,
        replay_gateways: 8,
        replay: Duration::from_millis(1500),
        warm_up: Duration::from_millis(500),
        live: Duration::from_millis(2000),
        fan_out: Duration::from_millis(700),
        tries: 6,
        idle: Duration::from_millis(500),
        storm: Duration::from_millis(3000),
        fill: Duration::from_millis(2000),
        publish: Duration::from_millis(1000),
        many: 5000,
    };

    /// Of each rate only two percentiles are wanted.
    pub(crate) const CURVE: Size = Size {
        live: Duration::from_millis(1000),
        tries: 3,
        ..Size::FULL
    };

    pub(crate) const QUICK: Size = Size {
        rounds: 1,
        replay_events: 50_000,
        replay: Duration::from_millis(300),
        warm_up: Duration::from_millis(200),
        live: Duration::from_millis(400),
        fan_out: Duration::from_millis(400),
        tries: 3,
        idle: Duration::from_millis(100),
        storm: Duration::ZERO,
        fill: Duration::from_millis(1000),
        publish: Duration::from_millis(200),
        many: 1000,
        ..Size::FULL
    };
}

/// Deliveries a second of all rows of `fan-out`.
const FAN_OUT_PER_SECOND: u32 = 100_000;

/// Latency by rate, from idle to saturated: about three rates to a factor of ten, and more
/// where servers come to their end.
pub(crate) fn curves() -> Vec<Row> {
    let gateways = 100;
    let rates = [
        100, 300, 1000, 2000, 4000, 7000, 10_000, 15_000, 20_000, 30_000, 40_000, 60_000, 80_000,
        120_000,
    ];
    let row = |per_second| Row {
        group: "curve",
        parameter: format!("{per_second}/s to {gateways}"),
        work: Work::Live {
            per_second,
            gateways,
        },
        systems: System::LIVE.to_vec(),
        security: Security::Plaintext,
    };
    rates.map(row).to_vec()
}

/// All of them, in the order in which they run.
pub(crate) fn all(size: &Size) -> Vec<Row> {
    use System as S;
    let row = |group, parameter: &str, work, systems: &[System]| Row {
        group,
        parameter: parameter.to_owned(),
        work,
        systems: systems.to_vec(),
        security: Security::Plaintext,
    };
    let mut rows = Vec::new();
    for (name, frame_bytes) in [("1 MiB", 1 << 20), ("16 KiB", 16 << 10)] {
        rows.push(row(
            "replay",
            name,
            Work::Replay { frame_bytes },
            &[
                S::GalaxyPush,
                S::Tonic,
                S::TonicBytes,
                S::Tcp,
                S::RedisStreams,
                S::Jetstream,
            ],
        ));
    }
    for (per_second, gateways) in [
        (10_000, 100),
        (4000, 100),
        (1000, 1000),
        (1000, 100),
        (100, 10),
    ] {
        let work = Work::Live {
            per_second,
            gateways,
        };
        let parameter = format!("{per_second}/s to {gateways}");
        let mut systems = S::FANNING_OUT.to_vec();
        // At higher rates, one `send` a delivery would take more processors than there
        // are; at lower ones there is nothing to gather.
        if per_second as usize * gateways <= 100_000 {
            systems.push(S::Tcp);
        } else {
            systems.extend([S::TcpGather, S::TcpRest]);
        }
        rows.push(row("live", &parameter, work, &systems));
    }
    let gateways = 1000;
    rows.push(row(
        "single",
        &gateways.to_string(),
        Work::Single {
            per_second: 50,
            gateways,
        },
        &[
            S::GalaxyPush,
            S::Tonic,
            S::TonicBytes,
            S::Tcp,
            S::RedisPubsub,
            S::Nats,
        ],
    ));
    for gateways in [10, 100, 1000, 5000] {
        if gateways > size.many {
            continue;
        }
        let work = Work::FanOut {
            per_second: FAN_OUT_PER_SECOND / gateways as u32,
            gateways,
        };
        let parameter = gateways.to_string();
        rows.push(row(
            "fan-out",
            &parameter,
            work,
            &[S::GalaxyPush, S::Tonic, S::Tcp],
        ));
    }
    let stalled = 1000;
    rows.push(row(
        "stalled",
        &stalled.to_string(),
        Work::Stalled {
            per_second: 500,
            gateways: 100,
            stalled,
        },
        &[S::GalaxyPush, S::Tonic],
    ));
    let many = size.many.to_string();
    rows.push(row(
        "idle",
        &many,
        Work::Idle {
            gateways: size.many,
        },
        &[
            S::GalaxyPush,
            S::Tonic,
            S::Handshake,
            S::RedisPubsub,
            S::Nats,
        ],
    ));
    rows.push(row(
        "storm",
        &many,
        Work::Storm {
            gateways: size.many,
        },
        &[S::GalaxyPush, S::Tonic, S::Handshake],
    ));
    for batch in [1, 10, 100] {
        rows.push(row(
            "publish",
            &batch.to_string(),
            Work::Publish { batch },
            &[
                S::GalaxyPush,
                S::Tonic,
                S::RedisPubsub,
                S::RedisStreams,
                S::Jetstream,
            ],
        ));
    }
    rows.extend(over_tls(size));
    rows
}

/// What TLS costs: an ordinary tonic with rustls beside ours, and ours in plaintext.
fn over_tls(size: &Size) -> Vec<Row> {
    use System as S;
    let gateways = 100;
    let many = size.many;
    let storm = many.min(2000);
    let live = |per_second| Work::Live {
        per_second,
        gateways,
    };
    let beside = [S::GalaxyPush, S::Tonic, S::Plaintext];
    let floor = [S::GalaxyPush, S::Tonic, S::Handshake];
    let frame_bytes = 16 << 10;
    [
        (
            "replay 16 KiB".to_owned(),
            Work::Replay { frame_bytes },
            beside,
            true,
        ),
        (format!("10000/s to {gateways}"), live(10_000), beside, true),
        (format!("1000/s to {gateways}"), live(1000), beside, true),
        (
            format!("idle {many}"),
            Work::Idle { gateways: many },
            beside,
            true,
        ),
        (
            format!("storm {storm}, tickets"),
            Work::Storm { gateways: storm },
            floor,
            true,
        ),
        (
            format!("storm {storm}, no tickets"),
            Work::Storm { gateways: storm },
            floor,
            false,
        ),
    ]
    .map(|(parameter, work, systems, tickets)| Row {
        group: "tls",
        parameter,
        work,
        systems: systems.to_vec(),
        security: Security::Tls { tickets },
    })
    .to_vec()
}
