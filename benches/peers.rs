//! The engine beside what else hands events from publishers to readers, on 250-byte
//! frames. Benches are named `GROUP/IMPLEMENTATION/PARAMETER`; those of one group and
//! parameter run one after another. `scripts/compare-engine` makes a table of them.
//!
//! | group | what |
//! |---|---|
//! | `publish` | one publisher, one reader that does not read |
//! | `drain` | a thousand events published, then read by each reader |
//! | `single` | one event published and read by each reader |
//! | `publish-parked` | one publisher among the subscribers' tasks, and these are parked |
//! | `publish-parked-outside` | the same, but the publisher is no task and the runtime sleeps |
//! | `publishers` | several threads publish |
//! | `hop` | from one thread to another that spins |
//!
//! All keep as many events: 4,096, or 1,048,576 as the engine does by default. Rings
//! and heaps are warm: they have gone around before the clock starts. In `publishers` and
//! `hop`, each thread has a processor of its own, as far as there are enough.
//!
//! # Who is left out
//!
//! - `publish-parked` needs readers that wait as tasks: `crossbeam-channel` and
//!   `disruptor` have none.
//! - In `publish` and `publishers`, what waits for its readers (`disruptor`) or refuses
//!   to go on without them (`crossbeam-channel`) has one that catches up between two
//!   measurements. The others have one that never reads.
//!
//! # What is not measured
//!
//! - What the engine does more: it frames each event for gRPC, gives it a cursor,
//!   stamps it with a time, and keeps it for those that come back. Nor what it asks
//!   for: an event is validated before, outside of these times.
//! - What the disruptor does less: it has no readers that come and go, none that may
//!   be late, and with `disruptor-inline` frames of one size only.
//! - Looking at the bytes, but for eight of each event in `hop`. A batch of the engine
//!   is one run of memory; a thousand `Bytes` are a thousand places.
//! - Making a `Bytes` of a batch of the engine, which allocates once.
//! - Memory, fairness, and what happens after a wake-up.
//! - Other allocators than the system's. Whoever makes a `Bytes` for each event
//!   depends on it; the engine allocates nothing for an event.

mod common;
mod groups;
mod rivals;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};

use self::groups::{From, GalaxyPush, Ring};
use self::rivals::{
    AsyncBroadcast, CrossbeamChannel, Disruptor, DisruptorOfMany, Inline, TokioBroadcast,
};

fn publish(c: &mut Criterion) {
    for ring in [Ring::Cached, Ring::Large] {
        groups::publish::<GalaxyPush>(c, ring);
        groups::publish::<TokioBroadcast>(c, ring);
        groups::publish::<AsyncBroadcast>(c, ring);
        groups::publish::<CrossbeamChannel>(c, ring);
        groups::publish::<Disruptor<Bytes>>(c, ring);
        groups::publish::<Disruptor<Inline>>(c, ring);
    }
}

fn drain(c: &mut Criterion) {
    for readers in [1, 8, 64, 1024] {
        groups::drain::<GalaxyPush>(c, readers);
        groups::drain::<TokioBroadcast>(c, readers);
        groups::drain::<AsyncBroadcast>(c, readers);
        groups::drain::<CrossbeamChannel>(c, readers);
        groups::drain::<Disruptor<Bytes>>(c, readers);
        groups::drain::<Disruptor<Inline>>(c, readers);
    }
}

fn single(c: &mut Criterion) {
    groups::single::<GalaxyPush>(c, 64);
    groups::single::<TokioBroadcast>(c, 64);
    groups::single::<AsyncBroadcast>(c, 64);
    groups::single::<CrossbeamChannel>(c, 64);
    groups::single::<Disruptor<Bytes>>(c, 64);
    groups::single::<Disruptor<Inline>>(c, 64);
}

fn publish_parked(c: &mut Criterion) {
    for from in [From::Task, From::Outside] {
        for subscribers in [10, 1000, 10_000] {
            groups::publish_parked::<GalaxyPush>(c, subscribers, from);
            groups::publish_parked::<TokioBroadcast>(c, subscribers, from);
            groups::publish_parked::<AsyncBroadcast>(c, subscribers, from);
        }
    }
}

fn publishers(c: &mut Criterion) {
    for threads in [2, 4] {
        groups::publishers::<GalaxyPush>(c, threads);
        groups::publishers::<TokioBroadcast>(c, threads);
        groups::publishers::<AsyncBroadcast>(c, threads);
        groups::publishers::<CrossbeamChannel>(c, threads);
        groups::publishers::<DisruptorOfMany<Bytes>>(c, threads);
        groups::publishers::<DisruptorOfMany<Inline>>(c, threads);
    }
}

fn hop(c: &mut Criterion) {
    groups::hop::<GalaxyPush>(c);
    groups::hop::<TokioBroadcast>(c);
    groups::hop::<AsyncBroadcast>(c);
    groups::hop::<CrossbeamChannel>(c);
    groups::hop::<Disruptor<Bytes>>(c);
    groups::hop::<Disruptor<Inline>>(c);
}

criterion_group! {
    name = benches;
    config = groups::criterion();
    targets = publish, drain, single, publish_parked, publishers, hop
}
criterion_main!(benches);
