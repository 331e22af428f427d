//! Publishing to subscribers that sleep.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use tokio::runtime::{Handle, Runtime};
use tokio::task;

use super::{Channel, Publish, Ring};

/// A channel whose readers can wait as tasks.
pub(crate) trait Recv: Channel {
    /// Gives the runtime what the channel itself has to do there.
    fn attach(_publisher: &Self::Publisher, _runtime: &Handle) {}

    /// Waits for something and lets go of it; `false` when nothing will come.
    fn recv(reader: &mut Self::Reader) -> impl Future<Output = bool> + Send;
}

/// Where the publisher runs.
#[derive(Clone, Copy)]
pub(crate) enum From {
    /// In a task of the subscribers' runtime, as the server's publishers do.
    Task,
    /// In a thread that the runtime does not know. All workers of the runtime sleep, so
    /// that one must be woken: a system call.
    Outside,
}

/// One publisher, and subscribers that are all parked. Only the publishing is timed:
/// what it keeps the publisher from doing, not what it sets off.
///
/// On a machine with few processors the publisher may lose its own to a task that it
/// has just woken. That is not its work, so each sample is the median of many
/// publishes.
pub(crate) fn publish_parked<C: Recv>(c: &mut Criterion, subscribers: usize, from: From) {
    let mut group = c.benchmark_group(match from {
        From::Task => "publish-parked",
        From::Outside => "publish-parked-outside",
    });
    group.sampling_mode(SamplingMode::Flat);
    let mut crowd = None;
    // As many for each sample, however many criterion asks for.
    let publishes = (100_000 / subscribers).min(200);
    group.bench_function(BenchmarkId::new(C::NAME, subscribers), |b| {
        let crowd = crowd.get_or_insert_with(|| Crowd::<C>::park(subscribers));
        b.iter_custom(|events| {
            let mut times = crowd.publish(publishes, from);
            times.sort_unstable();
            times[times.len() / 2].mul_f64(events as f64)
        });
    });
    group.finish();
}

/// Subscribers, each a task on a runtime with a worker for each processor.
struct Crowd<C: Channel> {
    /// `None` while it publishes.
    publisher: Option<C::Publisher>,
    subscribers: usize,
    published: usize,
    /// How many times a subscriber has parked, all together.
    parked: Arc<AtomicUsize>,
    /// Ends the tasks when it is dropped.
    runtime: Runtime,
}

const NAP: Duration = Duration::from_micros(100);

impl<C: Recv> Crowd<C> {
    fn park(subscribers: usize) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let (publisher, readers) = C::open(Ring::Large, subscribers);
        C::attach(&publisher, runtime.handle());
        let parked = Arc::new(AtomicUsize::new(0));
        for mut reader in readers {
            let parked = Arc::clone(&parked);
            runtime.spawn(async move { while parking(C::recv(&mut reader), &parked).await {} });
        }
        Crowd {
            publisher: Some(publisher),
            subscribers,
            published: 0,
            parked,
            runtime,
        }
    }

    /// Publishes so many times, each when everybody is parked. What each took.
    fn publish(&mut self, times: usize, from: From) -> Vec<Duration> {
        let mut publisher = self.publisher.take().expect("it was given back");
        let (parked, subscribers) = (Arc::clone(&self.parked), self.subscribers);
        let numbers = self.published..self.published + times;
        self.published = numbers.end;
        let publishing = async move {
            let mut spent = Vec::with_capacity(times);
            for number in numbers {
                while parked.load(Ordering::Acquire) < (number + 1) * subscribers {
                    match from {
                        From::Task => task::yield_now().await,
                        From::Outside => thread::sleep(NAP),
                    }
                }
                if matches!(from, From::Outside) {
                    // The workers go to sleep.
                    thread::sleep(NAP);
                }
                let start = Instant::now();
                publisher.publish(number);
                spent.push(start.elapsed());
            }
            (publisher, spent)
        };
        let (publisher, spent) = match from {
            From::Task => {
                let task = self.runtime.spawn(publishing);
                self.runtime.block_on(task).expect("it published")
            }
            From::Outside => self.runtime.block_on(publishing),
        };
        self.publisher = Some(publisher);
        spent
    }
}

/// Waits for `receive`, and counts the first time that it is not ready.
async fn parking<F: Future>(receive: F, parked: &AtomicUsize) -> F::Output {
    let mut receive = pin!(receive);
    let mut counted = false;
    poll_fn(|cx| {
        let polled = receive.as_mut().poll(cx);
        if polled.is_pending() && !counted {
            counted = true;
            parked.fetch_add(1, Ordering::Release);
        }
        polled
    })
    .await
}
