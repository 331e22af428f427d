//! What is measured, the same for every implementation of [`Channel`].
//!
//! Each group gives the time of one event, or of one event and one reader. All
//! implementations hand over the same 250 bytes, and where the engine copies an
//! event into its ring, the others make their `Bytes` from the same slice.

mod galaxy_push;
mod hop;
mod parked;
mod publishers;
mod threads;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};

pub(crate) use self::galaxy_push::GalaxyPush;
pub(crate) use self::hop::hop;
pub(crate) use self::parked::{From, Recv, publish_parked};
pub(crate) use self::publishers::publishers;

/// One implementation: publishers on one side, readers on the other, and each
/// reader gets every event.
pub(crate) trait Channel {
    /// Its name in the benches' names.
    const NAME: &'static str;
    /// Whether a publisher waits for readers (or loses what it publishes) when they
    /// are a ring behind. The groups then let the readers catch up, off the clock.
    const READERS_MUST_FOLLOW: bool;
    type Publisher: Publish;
    type Reader: Read;

    /// Opens a channel in its steady state: memory that it will use again and again
    /// was touched before. No reader has anything to read.
    fn open(ring: Ring, readers: usize) -> (Self::Publisher, Vec<Self::Reader>);
}

pub(crate) trait Publish: Send + 'static {
    /// Publishes the event of this number, modulo [`EVENTS`](crate::common::EVENTS).
    fn publish(&mut self, number: usize);
}

pub(crate) trait Read: Send + 'static {
    /// One call to receive. Returns how many events it gave, 0 if there is none;
    /// they were held and let go of, their bytes were not looked at.
    fn receive(&mut self) -> usize;

    /// Receives what there is, and shows each event's number, which is read from the
    /// event's bytes.
    fn visit(&mut self, see: impl FnMut(u64));
}

/// How many events are kept for readers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ring {
    /// 4,096: it stays in a processor's cache, which suits those who allocate best.
    Cached,
    /// 1,048,576, the engine's default: more than caches hold. The engine's other
    /// limit, 256 MiB, comes first with frames of this size: it keeps 940,000.
    Large,
}

impl Ring {
    pub(crate) fn events(self) -> usize {
        match self {
            Ring::Cached => 1 << 12,
            Ring::Large => 1 << 20,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Ring::Cached => "ring-of-4096",
            Ring::Large => "ring-of-1048576",
        }
    }
}

/// Short, because there are many: all of them take some minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .nresamples(10_000)
}

/// One publisher, and one reader that does not read.
pub(crate) fn publish<C: Channel>(c: &mut Criterion, ring: Ring) {
    /// Less than any ring has.
    const RUN: u64 = 1000;
    let mut group = c.benchmark_group("publish");
    let mut open = None;
    group.bench_function(BenchmarkId::new(C::NAME, ring.name()), |b| {
        let (publisher, readers) = open.get_or_insert_with(|| C::open(ring, 1));
        b.iter_custom(|events| {
            let mut spent = Duration::ZERO;
            let mut left = events;
            while left > 0 {
                let run = left.min(RUN);
                let start = Instant::now();
                for number in 0..run {
                    publisher.publish(number as usize);
                }
                spent += start.elapsed();
                left -= run;
                catch_up::<C>(readers);
            }
            spent
        });
    });
    group.finish();
}

/// A thousand events are published, then each reader reads them all; only the
/// reading is timed. Per event and reader.
pub(crate) fn drain<C: Channel>(c: &mut Criterion, readers: usize) {
    const EVENTS: usize = 1000;
    let mut group = c.benchmark_group("drain");
    group.throughput(Throughput::Elements((EVENTS * readers) as u64));
    let mut open = None;
    group.bench_function(BenchmarkId::new(C::NAME, readers), |b| {
        let (publisher, readers) = open.get_or_insert_with(|| C::open(Ring::Large, readers));
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                for number in 0..EVENTS {
                    publisher.publish(number);
                }
                let start = Instant::now();
                for reader in &mut *readers {
                    let mut left = EVENTS;
                    while left > 0 {
                        left -= received(reader);
                    }
                }
                spent += start.elapsed();
            }
            spent
        });
    });
    group.finish();
}

/// One event is published and read by each of the readers, over and over. Both are
/// timed, and given per event and reader.
pub(crate) fn single<C: Channel>(c: &mut Criterion, readers: usize) {
    let mut group = c.benchmark_group("single");
    group.throughput(Throughput::Elements(readers as u64));
    let mut open = None;
    group.bench_function(BenchmarkId::new(C::NAME, readers), |b| {
        let (publisher, readers) = open.get_or_insert_with(|| C::open(Ring::Large, readers));
        let mut number = 0;
        b.iter(|| {
            publisher.publish(number);
            number += 1;
            for reader in &mut *readers {
                received(reader);
            }
        });
    });
    group.finish();
}

/// How many events one call gave, at least one.
fn received(reader: &mut impl Read) -> usize {
    let events = reader.receive();
    assert!(events > 0, "an event is lost");
    events
}

fn catch_up<C: Channel>(readers: &mut [C::Reader]) {
    if C::READERS_MUST_FOLLOW {
        for reader in readers {
            while reader.receive() > 0 {}
        }
    }
}
