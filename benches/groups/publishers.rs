//! Several threads that publish at once.

use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

use super::threads::StartLine;
use super::{Channel, Publish, Ring, catch_up};

/// Some threads publish at once, each the same number of events, and one reader does
/// not read. The time from the start of the first to the end of the last, per event:
/// with perfect scaling it would be the time of `publish` divided by the processors.
pub(crate) fn publishers<C: Channel>(c: &mut Criterion, threads: usize)
where
    C::Publisher: Clone,
{
    /// For each thread. All threads' together are less than a ring.
    const RUN: usize = 100_000;
    let mut group = c.benchmark_group("publishers");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements((RUN * threads) as u64));
    let mut open = None;
    group.bench_function(BenchmarkId::new(C::NAME, threads), |b| {
        let (publisher, readers) = open.get_or_insert_with(|| C::open(Ring::Large, 1));
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let publishers = vec![publisher.clone(); threads];
                spent += run(publishers, RUN);
                catch_up::<C>(readers);
            }
            spent
        });
    });
    group.finish();
}

/// Publishes `events` from each publisher on a thread of its own. The threads are
/// started before the clock.
fn run(publishers: Vec<impl Publish>, events: usize) -> Duration {
    let start_line = StartLine::new(publishers.len());
    thread::scope(|scope| {
        let start_threads = publishers.into_iter().enumerate();
        let start_threads = start_threads.map(|(thread, mut publisher)| {
            let start_line = &start_line;
            scope.spawn(move || {
                start_line.wait(thread);
                let start = Instant::now();
                for number in 0..events {
                    publisher.publish(number);
                }
                (start, Instant::now())
            })
        });
        // All of them, before the first is waited for.
        let threads: Vec<_> = start_threads.collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().expect("it published all"));
        let (starts, ends): (Vec<_>, Vec<_>) = times.unzip();
        let last = ends.into_iter().max();
        let first = starts.into_iter().min();
        (last.zip(first)).map_or(Duration::ZERO, |(last, first)| last - first)
    })
}
