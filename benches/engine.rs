//! What the engine costs, on 250-byte frames. Benches are named
//! `GROUP/IMPLEMENTATION/PARAMETER`; `benches/peers.rs` puts others beside some.
//!
//! Not measured here: the network (`benches/edge` does), what happens after a
//! wake-up, and many gateways that come back at once. The allocator is the server's.

mod common;
mod groups;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{Batch, Engine, Subscriber};
use galaxy_push::event::Event;

use self::common::events;
use self::groups::{From, GalaxyPush, Ring};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "galaxy-push";

fn publish(c: &mut Criterion) {
    groups::publish::<GalaxyPush>(c, Ring::Cached);
    groups::publish::<GalaxyPush>(c, Ring::Large);
    let batch: Vec<_> = events().iter().cycle().take(100).copied().collect();
    let engine = Engine::builder().build().expect("the defaults are valid");
    let publisher = engine.publisher();
    let mut group = c.benchmark_group("publish-batch");
    group.throughput(Throughput::Elements(batch.len() as u64));
    group.bench_function(BenchmarkId::new(NAME, batch.len()), |b| {
        b.iter(|| {
            publisher
                .publish_batch(black_box(&batch))
                .expect("it is open")
        });
    });
    group.finish();
}

/// Session invalidations, of many sessions, into an engine that keeps the newest of each and
/// into one that does not. In bursts, as they come when many are logged out at once; in between
/// there is time to take them in, which is not timed.
fn invalidate(c: &mut Criterion) {
    const SESSIONS: usize = 1 << 18;
    const BURST: u64 = 10_000;
    let encoded: Vec<_> = (0..SESSIONS).map(common::invalidation).collect();
    let parse = |bytes| Event::parse(bytes).expect("a valid event");
    let events: Vec<_> = encoded.iter().map(|bytes| parse(bytes)).collect();
    let mut group = c.benchmark_group("publish-invalidation");
    for (parameter, kept) in [("not-kept", 0), ("kept", 1_000_000)] {
        let engine = Engine::builder().max_revocations(kept).build();
        let engine = engine.expect("these settings are valid");
        let publisher = engine.publisher();
        let mut all = events.iter().cycle();
        group.bench_function(BenchmarkId::new(NAME, parameter), |b| {
            b.iter_custom(|iterations| {
                let mut took = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let burst = left.min(BURST);
                    let since = Instant::now();
                    for event in all.by_ref().take(burst as usize) {
                        publisher.publish(black_box(*event)).expect("it is open");
                    }
                    took += since.elapsed();
                    left -= burst;
                    std::thread::sleep(Duration::from_micros(burst));
                }
                took
            });
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    for readers in [1, 8, 64, 1024] {
        groups::drain::<GalaxyPush>(c, readers);
    }
    groups::single::<GalaxyPush>(c, 64);
    groups::hop::<GalaxyPush>(c);
}

fn publish_among_others(c: &mut Criterion) {
    for subscribers in [10, 1000, 10_000] {
        groups::publish_parked::<GalaxyPush>(c, subscribers, From::Task);
        groups::publish_parked::<GalaxyPush>(c, subscribers, From::Outside);
    }
    for threads in [2, 4] {
        groups::publishers::<GalaxyPush>(c, threads);
    }
}

/// Subscribes somewhere in a full ring: alone, and among 9,000 gateways. Then the same
/// with the first batch. Leaving is not timed.
fn resume(c: &mut Criterion) {
    let rings = [
        ("10000", 10_000, 0),
        ("1000000", 1_000_000, 0),
        ("1000000-among-9000", 1_000_000, 9000),
    ];
    for (parameter, events, others) in rings {
        let mut open = None;
        let mut bench = |group, routine: fn(Subscriber) -> (Subscriber, Option<Batch>)| {
            let mut group = c.benchmark_group(group);
            group.bench_function(BenchmarkId::new(NAME, parameter), |b| {
                let (ring, requests) = open.get_or_insert_with(|| full_ring(events, others));
                b.iter_batched(
                    || requests.next().expect("it has no end"),
                    |(id, cursor)| {
                        routine(ring.engine.subscribe(&id, &cursor).expect("there is room"))
                    },
                    BatchSize::NumIterations(GATEWAYS),
                );
            });
            group.finish();
        };
        bench("resume", |subscriber| (subscriber, None));
        bench("resume-and-read", |mut subscriber| {
            let batch = subscriber.try_recv().expect("it is in the ring");
            (subscriber, Some(batch))
        });
    }
}

/// How many gateways resume, one after another, before they leave.
const GATEWAYS: u64 = 64;

struct FullRing {
    engine: Engine,
    _others: Vec<Subscriber>,
}

/// A full ring, and gateways that come back to it, each with a cursor.
fn full_ring(events: u64, others: u64) -> (FullRing, impl Iterator<Item = (String, String)>) {
    let engine = Engine::builder()
        .max_events(events)
        .max_bytes(1 << 30)
        .build()
        .expect("it is large enough");
    let publisher = engine.publisher();
    let all = common::events().iter().cycle();
    for event in all.take(2 * events as usize) {
        publisher.publish(*event).expect("it is open");
    }
    assert_eq!(engine.stats().retained_events, events);
    let join = |n| {
        engine
            .subscribe(&format!("other-{n}"), "")
            .expect("there is room")
    };
    let others = (0..others).map(join).collect();
    let head = engine.head();
    let requests = (0u64..).map(move |n| {
        // A walk over the whole ring that looks random.
        let back = 1 + n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (events - 1);
        let cursor = Cursor::new(head.epoch(), Seq::new(head.seq().number() - back));
        (format!("gateway-{}", n % GATEWAYS), cursor.to_string())
    });
    let ring = FullRing {
        engine,
        _others: others,
    };
    (ring, requests)
}

fn validate(c: &mut Criterion) {
    let event = events()[0].as_bytes();
    c.bench_function("validate/galaxy-push/219", |b| {
        b.iter(|| Event::parse(black_box(event)).expect("a valid event"));
    });
}

fn cursor(c: &mut Criterion) {
    let epoch = Epoch::new(1_700_000_000_000, 0x2_AAAA).expect("it fits");
    let cursor = Cursor::new(epoch, Seq::new(0x0023_4567_89AB_CDEF));
    let text = cursor.to_text();
    let mut group = c.benchmark_group("cursor");
    group.bench_function(BenchmarkId::new(NAME, "print"), |b| {
        b.iter(|| black_box(cursor).to_text());
    });
    group.bench_function(BenchmarkId::new(NAME, "parse"), |b| {
        b.iter(|| Cursor::parse(black_box(text.as_bytes())).expect("it is one"));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = groups::criterion();
    targets = publish, invalidate, publish_among_others, read, resume, validate, cursor
}
criterion_main!(benches);
