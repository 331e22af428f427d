//! Whether the server is well: the checks behind `/livez`, `/readyz` and gRPC's health
//! service.
//!
//! | check | is well while | readiness | liveness |
//! |---|---|---|---|
//! | `ring` | a probe that is published comes back, and no publisher has stopped in the middle | yes | yes |
//! | `delivery` | the threads that deliver take turns | yes | yes |
//! | `listeners` | both listeners accept | yes | no: the process ends without |
//! | `stopping` | nobody has asked it to stop | yes | no |
//! | `backbone`, where there is one | the replica knows what was published until a moment ago | yes | no |
//!
//! The probe goes through a ring of its own, as small as one can be: gateways neither see it
//! nor are woken for it, and it takes no sequence. All else is as for a gateway's event: it
//! is published by another thread, the same [`Notifier`](crate::engine::Notifier) on the same
//! runtime wakes its reader, and that reads it. Of the ring of the gateways it is only looked
//! whether what publishers have begun becomes readable.
//!
//! Checks are worked out when somebody asks, from times that are noted. So they fail, too,
//! where those who should note them do not run any more.

#![forbid(unsafe_code)]

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::admin::Checks;
use crate::admin::api::Check;
use crate::cursor::Cursor;
use crate::engine::{BuildError, Engine, Publisher, RecvError};
use crate::event::Event;
use crate::freshness::Freshness;

/// How often a probe is published, and the threads' turns are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// A probe takes microseconds. With ten thousand gateways that all resume at once it may wait
/// for a second or two; a server that loses its peers for that would have them resume
/// elsewhere, all at once.
const BOUNDS: Bounds = Bounds {
    ready: Duration::from_secs(5),
    live: Duration::from_secs(60),
};
/// The smallest ring that there can be, and more.
const CANARY_BYTES: u64 = 256 << 10;
/// `PushEvent { client_event: { user_id: "health", kind: "probe" } }`
const PROBE: &[u8] = b"\x0a\x0f\x0a\x06health\x1a\x05probe";

/// How long nothing may happen.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// After that it is not ready.
    ready: Duration,
    /// After that it should be restarted.
    live: Duration,
}

/// How a server is. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(crate) struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    bounds: Bounds,
    engine: Engine,
    freshness: Freshness,
    canary: Engine,
    publisher: Publisher,
    probes: Mutex<Probes>,
    threads: Mutex<Threads>,
    /// Since when publishers have been in the middle of what follows this event.
    unfinished: Mutex<Option<(Cursor, Instant)>>,
    listeners: Mutex<Vec<Accepting>>,
    is_stopping: AtomicBool,
    /// Whether it is ready, as it was last worked out.
    is_ready: watch::Sender<bool>,
}

#[derive(Debug)]
struct Probes {
    started_at: Instant,
    /// Whether somebody reads them.
    is_read: bool,
    /// The one that is under way.
    sent: Option<(Cursor, Instant)>,
    /// When one came back, and how long it took.
    came_back: Option<(Instant, Duration)>,
}

/// The threads of the runtime that delivers.
struct Threads {
    /// When a task of that runtime had a turn.
    turn_at: Instant,
    runtime: Option<RuntimeMetrics>,
    /// What each thread was doing, and since when.
    doing: Vec<(Doing, Instant)>,
}

/// What changes whenever a thread goes on from one task to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doing {
    is_parked: bool,
    parked: u64,
    busy: Duration,
}

#[derive(Debug)]
struct Accepting {
    listener: &'static str,
    is_accepting: Arc<AtomicBool>,
}

/// While it exists, its listener accepts.
#[derive(Debug)]
pub(crate) struct ListenerGuard {
    is_accepting: Arc<AtomicBool>,
}

impl ListenerGuard {
    /// The listener accepts for as long as this runs.
    pub(crate) async fn during(self, serving: impl Future<Output = ()>) {
        serving.await;
        drop(self);
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        // Relaxed: it guards nothing.
        self.is_accepting.store(false, Ordering::Relaxed);
    }
}

impl Health {
    /// Of a server with this engine, which is as fresh as this. [`read_probes`](Self::read_probes),
    /// [`take_turns`](Self::take_turns) and what wakes the subscriber of
    /// [`canary`](Self::canary) run where gateways are served; [`run`](Self::run) may run
    /// elsewhere, and better does.
    ///
    /// # Errors
    ///
    /// There can be no second ring.
    pub(crate) fn new(engine: &Engine, freshness: Freshness) -> Result<Self, BuildError> {
        Self::with_bounds(engine, freshness, BOUNDS)
    }

    fn with_bounds(
        engine: &Engine,
        freshness: Freshness,
        bounds: Bounds,
    ) -> Result<Self, BuildError> {
        let canary = Engine::builder()
            .epoch(engine.head().epoch())
            .max_events(1)
            .max_bytes(CANARY_BYTES)
            .max_event_bytes(PROBE.len())
            .max_subscribers(1)
            .build()?;
        let now = Instant::now();
        Ok(Health {
            shared: Arc::new(Shared {
                bounds,
                engine: engine.clone(),
                freshness,
                publisher: canary.publisher(),
                canary,
                probes: Mutex::new(Probes {
                    started_at: now,
                    is_read: false,
                    sent: None,
                    came_back: None,
                }),
                threads: Mutex::new(Threads {
                    turn_at: now,
                    runtime: None,
                    doing: Vec::new(),
                }),
                unfinished: Mutex::default(),
                listeners: Mutex::default(),
                is_stopping: AtomicBool::new(false),
                is_ready: watch::Sender::new(false),
            }),
        })
    }

    /// The ring that probes go through.
    pub(crate) fn canary(&self) -> &Engine {
        &self.shared.canary
    }

    /// A listener accepts for as long as the guard exists.
    pub(crate) fn listener(&self, name: &'static str) -> ListenerGuard {
        let is_accepting = Arc::new(AtomicBool::new(true));
        lock(&self.shared.listeners).push(Accepting {
            listener: name,
            is_accepting: Arc::clone(&is_accepting),
        });
        ListenerGuard { is_accepting }
    }

    /// From here on it is not ready: the server is stopping.
    pub(crate) fn stop(&self) {
        // Relaxed: whoever works out whether it is ready holds the lock of the result.
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        self.look();
    }

    /// Whether it is ready, and each change of that.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.shared.is_ready.subscribe()
    }

    /// Whether it is ready.
    pub(crate) fn look(&self) -> bool {
        let mut is_ready = false;
        self.shared.is_ready.send_if_modified(|before| {
            // Under the lock: what was worked out before a stop does not come after it.
            is_ready = self.ready().iter().all(|check| check.ok);
            std::mem::replace(before, is_ready) != is_ready
        });
        is_ready
    }

    /// Publishes the probes, and looks what has become of them, until it is dropped.
    pub(crate) async fn run(self) {
        let mut turns = interval(INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.shared.send_probe();
            self.look();
        }
    }

    /// Reads the probes, until it is dropped.
    pub(crate) async fn read_probes(self) {
        let Ok(mut subscriber) = self.shared.canary.subscribe("health", "") else {
            // It is not ready, and says that no probe comes back.
            return;
        };
        lock(&self.shared.probes).is_read = true;
        self.shared.send_probe();
        loop {
            match poll_fn(|cx| subscriber.poll_recv(cx)).await {
                Ok(batch) => {
                    self.shared.came_back(batch.last());
                    self.look();
                }
                // One probe at a time is never too many; it would go on with the next.
                Err(RecvError::Lagged(_)) => lock(&self.shared.probes).sent = None,
                Err(_) => return,
            }
        }
    }

    /// Takes a turn now and then on the runtime that it runs on, until it is dropped.
    pub(crate) async fn take_turns(self) {
        lock(&self.shared.threads).runtime = Some(Handle::current().metrics());
        loop {
            lock(&self.shared.threads).turn_at = Instant::now();
            sleep(INTERVAL).await;
        }
    }

    /// The ring, for nothing longer than `bound`.
    fn ring(&self, bound: Duration, has_to_come_back: bool) -> Check {
        let (seen, came_back) = {
            let probes = lock(&self.shared.probes);
            let at = probes.came_back.map_or(probes.started_at, |(at, _)| at);
            (at.elapsed(), probes.came_back)
        };
        let (mut ok, mut detail) = match came_back {
            _ if seen > bound => (false, format!("no probe has come back for {seen:.1?}")),
            None => (!has_to_come_back, "no probe has come back yet".to_owned()),
            Some((_, took)) => (true, format!("a probe came back after {took:.1?}")),
        };
        if let Some((after, unfinished)) = self.shared.unfinished()
            && unfinished > bound
        {
            ok = false;
            detail = format!(
                "publishing is stuck: what follows {after} has been incomplete for \
                 {unfinished:.1?}"
            );
        }
        check("ring", ok, detail)
    }

    fn delivery(&self, bound: Duration) -> Check {
        let mut threads = lock(&self.shared.threads);
        let since = threads.turn_at.elapsed();
        let stuck = threads.longest_stuck();
        drop(threads);
        let (ok, detail) = match stuck {
            _ if since > bound => (false, format!("no task has had a turn for {since:.1?}")),
            Some(stuck) if stuck > bound => (
                false,
                format!("a thread has been at one task for {stuck:.1?}"),
            ),
            _ => (true, "the threads take turns".to_owned()),
        };
        check("delivery", ok, detail)
    }

    fn listeners(&self) -> Check {
        let listeners = lock(&self.shared.listeners);
        let deaf: Vec<_> = listeners
            .iter()
            .filter(|of| !of.is_accepting.load(Ordering::Relaxed))
            .map(|of| of.listener)
            .collect();
        let detail = match &deaf[..] {
            [] => "all accept".to_owned(),
            deaf => format!("not accepting: {}", deaf.join(", ")),
        };
        check("listeners", deaf.is_empty(), detail)
    }

    fn backbone(&self) -> Option<Check> {
        let freshness = &self.shared.freshness;
        let age = freshness.age()?;
        let ok = freshness.stale_for().is_none();
        let detail = format!("what was published until {age:.1?} ago is known");
        Some(check("backbone", ok, detail))
    }

    fn stopping(&self) -> Check {
        let is_stopping = self.shared.is_stopping.load(Ordering::Relaxed);
        let detail = match is_stopping {
            true => "the server is stopping",
            false => "nobody has asked it to stop",
        };
        check("stopping", !is_stopping, detail.to_owned())
    }
}

impl Checks for Health {
    fn live(&self) -> Vec<Check> {
        let bound = self.shared.bounds.live;
        vec![self.ring(bound, false), self.delivery(bound)]
    }

    fn ready(&self) -> Vec<Check> {
        let bound = self.shared.bounds.ready;
        let mut checks = vec![
            self.ring(bound, true),
            self.delivery(bound),
            self.listeners(),
            self.stopping(),
        ];
        checks.extend(self.backbone());
        checks
    }
}

impl Shared {
    /// Publishes a probe, unless one is under way, or nobody would read it.
    fn send_probe(&self) {
        let mut probes = lock(&self.probes);
        if probes.sent.is_some() || !probes.is_read {
            return;
        }
        // It is noted before its reader can have it: that waits for the lock.
        let at = Instant::now();
        let published = Event::parse(PROBE)
            .ok()
            .and_then(|probe| self.publisher.publish(probe).ok());
        probes.sent = published.map(|cursor| (cursor, at));
    }

    fn came_back(&self, cursor: Cursor) {
        let now = Instant::now();
        let mut probes = lock(&self.probes);
        if let Some((sent, at)) = probes.sent
            && sent == cursor
        {
            probes.sent = None;
            probes.came_back = Some((now, now.saturating_duration_since(at)));
        }
    }

    /// For how long publishers have been in the middle of something; and after which event
    /// that comes.
    fn unfinished(&self) -> Option<(Cursor, Duration)> {
        let mut unfinished = lock(&self.unfinished);
        let after = self.engine.unfinished_after();
        *unfinished = after.map(|after| match *unfinished {
            Some((before, since)) if before == after => (after, since),
            _ => (after, Instant::now()),
        });
        unfinished.map(|(after, since)| (after, since.elapsed()))
    }
}

impl Threads {
    /// For how long a thread has been at one task, the longest of all.
    fn longest_stuck(&mut self) -> Option<Duration> {
        let runtime = self.runtime.as_ref()?;
        let now = Instant::now();
        let mut longest = None;
        for thread in 0..runtime.num_workers() {
            let doing = doing(runtime, thread)?;
            let before = self.doing.get(thread).copied();
            let since = match before {
                Some((before, since)) if before == doing => since,
                _ => now,
            };
            match self.doing.get_mut(thread) {
                Some(place) => *place = (doing, since),
                None => self.doing.push((doing, since)),
            }
            if !doing.is_parked {
                longest = longest.max(Some(now.saturating_duration_since(since)));
            }
        }
        longest
    }
}

/// What a thread does. A system whose atomics are too short does not count it.
#[cfg(target_has_atomic = "64")]
fn doing(runtime: &RuntimeMetrics, thread: usize) -> Option<Doing> {
    let parked = runtime.worker_park_unpark_count(thread);
    Some(Doing {
        is_parked: parked % 2 == 1,
        parked,
        busy: runtime.worker_total_busy_duration(thread),
    })
}

#[cfg(not(target_has_atomic = "64"))]
fn doing(_runtime: &RuntimeMetrics, _thread: usize) -> Option<Doing> {
    None
}

fn check(name: &str, ok: bool, detail: String) -> Check {
    Check {
        name: name.to_owned(),
        ok,
        detail,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done where this could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Runtime;

    use super::*;
    use crate::config::Delivery;
    use crate::server::Rounds;
    use crate::transport::{Timer, wake_in_rounds};

    /// Longer than any test lasts.
    const LONG: Duration = Duration::from_secs(3600);
    /// Long enough that only a hang takes longer.
    const HANG: Duration = Duration::from_secs(60);

    /// The health of an engine that so many threads serve. The probes come from the thread of
    /// the test.
    struct Served {
        engine: Engine,
        health: Health,
        runtime: Runtime,
    }

    impl Served {
        fn by(threads: usize, ready: Duration) -> Self {
            let bounds = Bounds { ready, live: LONG };
            let engine = Engine::builder().max_bytes(16 << 20).build().unwrap();
            let health = Health::with_bounds(&engine, Freshness::default(), bounds).unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_time()
                .build()
                .unwrap();
            let canary = Rounds::of(health.canary());
            runtime.spawn(wake_in_rounds(canary, Delivery::Latency, Timer::Coarse));
            runtime.spawn(health.clone().read_probes());
            runtime.spawn(health.clone().take_turns());
            Served {
                engine,
                health,
                runtime,
            }
        }

        /// Sends probes until it is ready, or no more.
        fn until_ready(&self, is_ready: bool) {
            let began = Instant::now();
            while self.health.look() != is_ready {
                assert!(began.elapsed() < HANG, "{:?}", self.health.ready());
                self.health.shared.send_probe();
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        /// Has a thread block until the sender is dropped.
        fn block_a_thread(&self) -> mpsc::Sender<()> {
            let (release, blocked) = mpsc::channel();
            let (tell, begun) = mpsc::channel();
            self.runtime.spawn(async move {
                tell.send(()).unwrap();
                let _ = blocked.recv();
            });
            begun.recv_timeout(HANG).unwrap();
            release
        }

        fn failed(&self) -> Vec<(String, String)> {
            let checks = self.health.ready().into_iter();
            let failed = checks.filter(|check| !check.ok);
            failed.map(|check| (check.name, check.detail)).collect()
        }
    }

    #[test]
    fn it_is_ready_when_a_probe_has_come_back() {
        let engine = Engine::builder().max_bytes(16 << 20).build().unwrap();
        let health = Health::new(&engine, Freshness::default()).unwrap();
        let ring = &health.ready()[0];
        assert_eq!((ring.name.as_str(), ring.ok), ("ring", false));
        assert!(health.live().iter().all(|check| check.ok), "it may yet");

        let served = Served::by(1, LONG);
        let changes = served.health.changes();
        assert!(!*changes.borrow());
        served.until_ready(true);
        assert!(*changes.borrow());
        let ring = &served.health.ready()[0];
        assert!(ring.detail.starts_with("a probe came back after "));
        assert_eq!(engine.head().seq().number(), 0, "not in the gateways' ring");
    }

    #[test]
    fn a_blocked_thread_makes_it_unready_until_it_goes_on() {
        let served = Served::by(1, Duration::from_millis(500));
        served.until_ready(true);
        let release = served.block_a_thread();
        // First the one, then the other.
        let began = Instant::now();
        while served.failed().len() < 2 {
            assert!(began.elapsed() < HANG, "{:?}", served.failed());
            std::thread::sleep(Duration::from_millis(5));
        }
        let names: Vec<_> = served.failed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ring", "delivery"]);
        assert!(served.health.live().iter().all(|check| check.ok));
        drop(release);
        served.until_ready(true);
    }

    #[test]
    fn one_blocked_thread_among_others_is_found() {
        let served = Served::by(2, Duration::from_millis(500));
        served.until_ready(true);
        let release = served.block_a_thread();
        let began = Instant::now();
        let is_found = |served: &Served| {
            let failed = served.failed();
            failed
                .iter()
                .any(|(_, detail)| detail.contains("at one task"))
        };
        while !is_found(&served) {
            assert!(began.elapsed() < HANG, "{:?}", served.failed());
            served.health.shared.send_probe();
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(release);
        served.until_ready(true);
    }

    #[test]
    fn it_should_be_restarted_when_a_thread_is_blocked_for_long() {
        let served = Served::by(1, LONG);
        let bounds = Bounds {
            ready: LONG,
            live: Duration::from_millis(100),
        };
        let engine = Engine::builder().max_bytes(16 << 20).build().unwrap();
        // Nobody serves this one.
        let health = Health::with_bounds(&engine, Freshness::default(), bounds).unwrap();
        let began = Instant::now();
        while health.live().iter().any(|check| check.ok) {
            assert!(began.elapsed() < HANG, "{:?}", health.live());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(served.health.live().iter().all(|check| check.ok));
    }

    #[test]
    fn a_publisher_that_stops_in_the_middle_is_found() {
        let served = Served::by(1, Duration::from_millis(500));
        served.until_ready(true);
        let publisher = served.engine.publisher();
        let probe = Event::parse(PROBE).unwrap();
        publisher.publish(probe).unwrap();
        served.until_ready(true);
        served.engine.claim_and_stop(probe);
        publisher.publish(probe).unwrap();
        let began = Instant::now();
        let is_found = || {
            let after = served.engine.head().to_string();
            let mut failed = served.failed().into_iter();
            failed.any(|(name, detail)| name == "ring" && detail.contains(&after))
        };
        while !is_found() {
            assert!(began.elapsed() < HANG, "{:?}", served.failed());
            served.health.shared.send_probe();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn it_is_not_ready_without_a_listener_or_while_it_stops() {
        let served = Served::by(1, LONG);
        let gateways = served.health.listener("gateways");
        let publishers = served.health.listener("publishers");
        served.until_ready(true);
        drop(publishers);
        assert!(!served.health.look());
        let [(name, detail)] = &served.failed()[..] else {
            panic!("{:?}", served.failed());
        };
        assert_eq!(
            (&**name, &**detail),
            ("listeners", "not accepting: publishers")
        );
        drop(gateways);

        let served = Served::by(1, LONG);
        served.until_ready(true);
        let changes = served.health.changes();
        served.health.stop();
        assert!(!*changes.borrow(), "at once");
        assert!(served.failed().iter().any(|(name, _)| name == "stopping"));
    }
}
