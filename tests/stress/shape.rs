//! Rings of several proportions.

use galaxy_push::engine::{BuildError, Builder, Engine};

/// A kind of ring, and what is published to it.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) builder: fn() -> Builder,
    /// The largest payload of an event that is meant to be accepted, mostly.
    pub(crate) payload_bytes: usize,
    /// How many events can be resumed at for certain, whatever is published while a
    /// subscription is being decided.
    pub(crate) retained_events: u64,
    /// How many it cannot hold.
    pub(crate) lagging_events: u64,
}

pub(crate) const SHAPES: [Shape; 4] = [
    Shape {
        name: "eight events",
        builder: || {
            (Engine::builder().max_events(8))
                .max_bytes(1 << 20)
                .max_event_bytes(4096)
        },
        payload_bytes: 3000,
        retained_events: 8,
        lagging_events: 9,
    },
    Shape {
        name: "as few bytes as can be",
        builder: || {
            let least = match builder_for_small_events().max_bytes(0).build() {
                Err(BuildError::MaxBytesTooSmall { least, .. }) => least,
                other => panic!("no ring has 0 bytes: {other:?}"),
            };
            builder_for_small_events().max_bytes(least)
        },
        payload_bytes: 900,
        retained_events: 0,
        // Four segments of 4 KiB hold fewer of any size.
        lagging_events: 500,
    },
    Shape {
        name: "1 MiB",
        builder: || (Engine::builder().max_bytes(1 << 20)).max_event_bytes(16 << 10),
        payload_bytes: 2000,
        retained_events: 0,
        lagging_events: 25_000,
    },
    Shape {
        name: "100,000 events",
        builder: || {
            (Engine::builder().max_events(100_000))
                .max_bytes(128 << 20)
                .max_event_bytes(64 << 10)
        },
        payload_bytes: 300,
        retained_events: 100_000,
        lagging_events: 100_001,
    },
];

fn builder_for_small_events() -> Builder {
    Engine::builder().max_event_bytes(1000)
}
