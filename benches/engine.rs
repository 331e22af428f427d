//! What the engine costs, on 250-byte frames. Groups are named
//! `GROUP/IMPLEMENTATION/PARAMETER`.
//!
//! Not measured here: waking, contention of several publishers, the network.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{Engine, Subscriber, TryRecvError};
use galaxy_push::event::Event;

/// A `ClientEvent` whose frame has 250 bytes.
fn encoded() -> Vec<u8> {
    let payload = [b'x'; 250 - 31 - 12];
    let mut client_event = b"\x0a\x01u\x1a\x01k\x22".to_vec();
    client_event.extend([
        0x80 | (payload.len() & 0x7f) as u8,
        (payload.len() >> 7) as u8,
    ]);
    client_event.extend(payload);
    let mut event = vec![0x0a];
    let length = client_event.len();
    event.extend([0x80 | (length & 0x7f) as u8, (length >> 7) as u8]);
    event.extend(client_event);
    event
}

fn engine() -> Engine {
    Engine::builder().build().expect("the defaults are valid")
}

fn drain(subscriber: &mut Subscriber) -> usize {
    let mut events = 0;
    loop {
        match subscriber.try_recv() {
            Ok(batch) => events += black_box(batch).len(),
            Err(TryRecvError::Empty) => return events,
            Err(other) => panic!("{other}"),
        }
    }
}

/// One producer, nobody waiting: one event, and a batch of a hundred.
fn publish(c: &mut Criterion) {
    let encoded = encoded();
    let event = Event::parse(&encoded).expect("a valid event");
    let mut group = c.benchmark_group("publish");
    for size in [1, 100] {
        let engine = engine();
        let publisher = engine.publisher();
        let events = vec![event; size];
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("galaxy-push", size), |b| {
            b.iter(|| {
                publisher
                    .publish_batch(black_box(&events))
                    .expect("it is open")
            });
        });
    }
    group.finish();
    c.bench_function("validate/galaxy-push/250", |b| {
        b.iter(|| Event::parse(black_box(&encoded)).expect("a valid event"));
    });
}

/// A thousand events are published, then each reader reads them all; only the
/// reading is timed, and given per event and reader.
fn read(c: &mut Criterion) {
    const EVENTS: usize = 1000;
    let encoded = encoded();
    let events = vec![Event::parse(&encoded).expect("a valid event"); EVENTS];
    let mut group = c.benchmark_group("drain");
    for readers in [1, 8, 64, 1024] {
        let engine = engine();
        let publisher = engine.publisher();
        let mut subscribers: Vec<_> = (0..readers)
            .map(|n| engine.subscribe(&n.to_string(), "").expect("there is room"))
            .collect();
        group.throughput(Throughput::Elements((EVENTS * readers) as u64));
        group.bench_function(BenchmarkId::new("galaxy-push", readers), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    publisher.publish_batch(&events).expect("it is open");
                    let start = Instant::now();
                    for subscriber in &mut subscribers {
                        assert_eq!(drain(subscriber), EVENTS);
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

/// Subscribes at some cursor of a full ring, takes the first batch, and leaves.
fn resume(c: &mut Criterion) {
    let encoded = encoded();
    let event = Event::parse(&encoded).expect("a valid event");
    let mut group = c.benchmark_group("resume");
    for ring in [10_000u64, 1_000_000] {
        let engine = Engine::builder()
            .max_events(ring)
            .max_bytes(1 << 30)
            .build()
            .expect("it is large enough");
        let publisher = engine.publisher();
        for _ in 0..2 * ring {
            publisher.publish(event).expect("it is open");
        }
        let head = engine.head();
        let mut step = 0u64;
        let mut cursor = || {
            // A walk over the whole ring that looks random.
            step = step.wrapping_add(0x9E37_79B9_7F4A_7C15);
            Cursor::new(
                head.epoch(),
                Seq::new(head.seq().number() - 1 - step % (ring - 1)),
            )
            .to_string()
        };
        group.bench_function(BenchmarkId::new("galaxy-push", ring), |b| {
            b.iter_batched(
                &mut cursor,
                |cursor| {
                    let subscribed = engine.subscribe("gateway", &cursor);
                    let mut subscriber = subscribed.expect("there is room");
                    subscriber.try_recv().expect("it is in the ring")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn cursor(c: &mut Criterion) {
    let epoch = Epoch::from_millis(1_700_000_000_000).expect("it fits");
    let cursor = Cursor::new(epoch, Seq::new(0x0123_4567_89AB_CDEF));
    let text = cursor.to_text();
    c.bench_function("cursor/galaxy-push/print", |b| {
        b.iter(|| black_box(cursor).to_text())
    });
    c.bench_function("cursor/galaxy-push/parse", |b| {
        b.iter(|| Cursor::parse(black_box(text.as_bytes())).expect("it is one"));
    });
}

criterion_group!(benches, publish, read, resume, cursor);
criterion_main!(benches);
