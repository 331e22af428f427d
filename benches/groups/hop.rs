//! From one thread to another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use crossbeam::utils::CachePadded;

use super::threads::StartLine;
use super::{Channel, Publish, Read, Ring};
use crate::common::EVENTS;

/// One thread publishes, another one spins for the events and reads the number in
/// each. At full speed: the time of an event. At a slow pace: the median and the 99th
/// percentile of the time from before publishing an event to having read its number.
pub(crate) fn hop<C: Channel>(c: &mut Criterion) {
    /// For each measurement at a slow pace, however many criterion asks for.
    const PACED: usize = 10_000;
    const BURST: usize = 100_000;
    let mut group = c.benchmark_group("hop");
    group.sampling_mode(SamplingMode::Flat);
    let ring = Ring::Cached;
    let mut open = None;
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        group.bench_function(BenchmarkId::new(C::NAME, name), |b| {
            let (publisher, readers) = open.get_or_insert_with(|| C::open(ring, 1));
            b.iter_custom(|events| {
                let mut times = paced(publisher, &mut readers[0], PACED, ring);
                times.sort_unstable();
                times[(part * PACED as f64) as usize].mul_f64(events as f64)
            });
        });
    }
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(BenchmarkId::new(C::NAME, "full-speed"), |b| {
        let (publisher, readers) = open.get_or_insert_with(|| C::open(ring, 1));
        b.iter_custom(|rounds| {
            full_speed(publisher, &mut readers[0], BURST * rounds as usize, ring)
        });
    });
    group.finish();
}

/// From the start of the first publish until the last event was read.
fn full_speed(
    publisher: &mut impl Publish,
    reader: &mut impl Read,
    events: usize,
    ring: Ring,
) -> Duration {
    let send = |number| publisher.publish(number);
    race(events, ring, send, |next| read(reader, next))
}

/// How long each event was on its way, published one every 3 µs.
fn paced(
    publisher: &mut impl Publish,
    reader: &mut impl Read,
    events: usize,
    ring: Ring,
) -> Vec<Duration> {
    const PAUSE: Duration = Duration::from_micros(3);
    let mut sent = vec![Instant::now(); events];
    let mut received = sent.clone();
    let send = |number| {
        let due = Instant::now() + PAUSE;
        while Instant::now() < due {}
        sent[number] = Instant::now();
        publisher.publish(number);
    };
    race(events, ring, send, |next| {
        let after = read(reader, next);
        if after > next {
            received[next..after].fill(Instant::now());
        }
        after
    });
    let times = received.iter().zip(sent);
    times.map(|(received, sent)| *received - sent).collect()
}

/// Sends numbered events from one thread and receives them on another, each on a
/// processor of its own. `receive` is given the next number, and returns it again or,
/// if something came, the one after that.
///
/// No event may be lost here. Some implementations would lose one when the reader is
/// a ring behind, so the reader tells how far it is, and the publisher looks at that
/// once in half a ring. The Disruptor does the same by itself.
fn race(
    events: usize,
    ring: Ring,
    mut send: impl FnMut(usize) + Send,
    mut receive: impl FnMut(usize) -> usize + Send,
) -> Duration {
    let window = ring.events() / 2;
    let done = CachePadded::new(AtomicUsize::new(0));
    let start_line = StartLine::new(2);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            start_line.wait(0);
            let start = Instant::now();
            let mut limit = window;
            for number in 0..events {
                while number == limit {
                    limit = done.load(Ordering::Acquire) + window;
                }
                send(number);
            }
            start
        });
        let receiving = scope.spawn(|| {
            start_line.wait(1);
            let mut next = 0;
            while next < events {
                let after = receive(next);
                if after > next {
                    done.store(after, Ordering::Release);
                    next = after;
                }
            }
            Instant::now()
        });
        let start = sending.join().expect("all is sent");
        receiving.join().expect("all is received") - start
    })
}

/// Reads what there is, from event `next` on, and returns the number after that.
fn read(reader: &mut impl Read, mut next: usize) -> usize {
    reader.visit(|number| {
        assert_eq!(number, (next % EVENTS) as u64, "an event is lost");
        next += 1;
    });
    next
}
