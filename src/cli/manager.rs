//! What `serve` tells its service manager, as `sd_notify(3)` says: ready, reloading,
//! stopping, a line about its state, and that the threads that serve take turns.
//!
//! The crate `sd-notify` would do, but it waits while the manager's queue is full, and that
//! may not happen on a thread that delivers. Here a task sends what there is to tell.

use std::env::{self, VarError};
use std::fmt::Display;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::command::Failure;
use crate::engine::Engine;

/// How many messages may wait. More than a server has to say while a manager does not listen.
const WAITING: usize = 64;
/// How often the line about the state is made.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// So many times in the interval of the manager's watchdog the threads are looked at. It
/// recommends two. With four, a thread that was held up for half the interval and goes on
/// does not end the process.
const LOOKS: u32 = 4;
/// What a stop may take beyond its delay and its grace period: for the last statuses, and to
/// close connections.
const STOP_SLACK: Duration = Duration::from_secs(5);
/// At the end: how long the manager has to take the last message.
const LAST_MESSAGE: Duration = Duration::from_secs(1);

/// What the environment says of a service manager.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// Where it listens.
    socket: Option<SocketAddr>,
    /// How long this process may be silent until it is taken for dead.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(super) fn from_env() -> Result<Self, Failure> {
        let socket = match variable("NOTIFY_SOCKET")? {
            Some(text) => Some(socket_address(&text).map_err(|error| wrong(&text, error))?),
            None => None,
        };
        let interval = number("WATCHDOG_USEC")?;
        let process = number("WATCHDOG_PID")?;
        let is_ours = process.is_none_or(|id| id == u64::from(std::process::id()));
        Ok(ServiceManager {
            socket,
            watchdog: interval
                .filter(|usec| *usec > 0 && is_ours)
                .map(Duration::from_micros),
        })
    }

    /// Begins to tell it. Must be called inside the runtime that serves: its threads are those
    /// that are looked at. A manager that cannot be reached is no reason not to serve.
    pub(super) fn connect(self, engine: Engine) -> Told {
        let (messages, waiting) = channel(WAITING);
        let socket = self.socket.and_then(|address| {
            let opened = open(&address);
            opened
                .map_err(|error| tracing::warn!("NOTIFY_SOCKET: {error}"))
                .ok()
        });
        let task = socket.map(|socket| {
            let telling = Telling {
                socket,
                engine,
                has_failed: false,
            };
            tokio::spawn(telling.run(waiting, self.watchdog))
        });
        Told { messages, task }
    }
}

fn socket_address(text: &str) -> io::Result<SocketAddr> {
    match text.strip_prefix('@') {
        Some(name) => abstract_address(name),
        None if text.starts_with('/') => SocketAddr::from_pathname(text),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither an absolute path nor @NAME",
        )),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

fn wrong(text: &str, error: impl Display) -> Failure {
    Failure::usage(format!("NOTIFY_SOCKET: {text:?}: {error}"))
}

fn number(name: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = variable(name)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Failure::usage(format!("{name}: {text:?} is no number"))),
    }
}

/// A variable's value; an empty one counts as not set.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage(format!("{name}: it is not UTF-8"))),
    }
}

fn open(address: &SocketAddr) -> io::Result<UnixDatagram> {
    let socket = StdUnixDatagram::unbound()?;
    socket.connect_addr(address)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// What is told. Without a manager nobody hears it.
#[derive(Debug)]
pub(super) struct Told {
    messages: Sender<String>,
    task: Option<JoinHandle<()>>,
}

impl Told {
    /// All listeners are served, after a start or a reload.
    pub(super) fn ready(&self) {
        self.tell("READY=1".to_owned());
    }

    /// Files are read again. [`ready`](Self::ready) ends it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// It stops, which takes as long as these settings allow: the manager's own limit
    /// (`TimeoutStopSec=`) need not know them.
    pub(super) fn stopping(&self, delay: Duration, grace: Duration) {
        let at_most = delay.saturating_add(grace).saturating_add(STOP_SLACK);
        let usec = at_most.as_micros();
        self.tell(format!(
            "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={usec}"
        ));
    }

    /// The end: what was told before is sent. A manager that does not listen does not hold it
    /// up.
    pub(super) async fn finish(self) {
        drop(self.messages);
        if let Some(task) = self.task {
            let _ = timeout(LAST_MESSAGE, task).await;
        }
    }

    fn tell(&self, message: String) {
        if self.task.is_some() && self.messages.try_send(message).is_err() {
            tracing::warn!("the service manager does not listen: a message is lost");
        }
    }
}

/// The task that sends.
struct Telling {
    socket: UnixDatagram,
    engine: Engine,
    has_failed: bool,
}

impl Telling {
    async fn run(mut self, mut waiting: Receiver<String>, watchdog: Option<Duration>) {
        let threads = Handle::current().metrics();
        let mut turns = Turns::default();
        let look = watchdog.map(|interval| interval / LOOKS);
        let mut looks = look.map(every);
        let mut statuses = every(STATUS_INTERVAL);
        let mut last_status = String::new();
        loop {
            tokio::select! {
                biased;
                message = waiting.recv() => match message {
                    Some(message) => self.send(&message).await,
                    None => return,
                },
                () = tick(&mut looks) => match turns.stuck(&threads) {
                    None => self.send("WATCHDOG=1").await,
                    Some(thread) => tracing::error!(
                        "thread {thread} of those that serve took no turn for {look:?}: the \
                         service manager's watchdog is not told that this process is well",
                    ),
                },
                _ = statuses.tick() => {
                    let status = status(&self.engine);
                    if status != last_status {
                        self.send(&format!("STATUS={status}")).await;
                        last_status = status;
                    }
                }
            }
        }
    }

    async fn send(&mut self, message: &str) {
        match self.socket.send(message.as_bytes()).await {
            Ok(_) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                tracing::warn!("cannot tell the service manager: {error}");
                self.has_failed = true;
            }
            Err(_) => {}
        }
    }
}

/// From one period on.
fn every(period: Duration) -> Interval {
    let period = period.max(Duration::from_millis(1));
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn status(engine: &Engine) -> String {
    let stats = engine.stats();
    format!(
        "{} gateways; {} events in the ring, {} of {} MiB; the newest is {}",
        stats.subscribers,
        stats.retained_events,
        stats.ring_bytes >> 20,
        engine.limits().ring_bytes >> 20,
        engine.head(),
    )
}

/// Whether each of a runtime's threads takes turns: since the last look it slept, or began
/// to, or it has come round to its queue of tasks.
#[derive(Debug, Default)]
struct Turns {
    /// Of each thread: how often it went to sleep and woke up, and the time that it counts as
    /// busy, which it adds up between tasks.
    seen: Vec<(u64, Duration)>,
}

impl Turns {
    /// A thread that is in the middle of the same task as at the last look.
    fn stuck(&mut self, threads: &RuntimeMetrics) -> Option<usize> {
        let of = |thread| {
            let naps = threads.worker_park_unpark_count(thread);
            (naps, threads.worker_total_busy_duration(thread))
        };
        let now: Vec<_> = (0..threads.num_workers()).map(of).collect();
        let is_asleep = |naps: u64| naps % 2 == 1;
        let pairs = now.iter().zip(&self.seen);
        let stuck = pairs
            .into_iter()
            .position(|(now, before)| now == before && !is_asleep(now.0));
        self.seen = now;
        stuck
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_manager_is_at_a_path_or_an_abstract_name() {
        for text in ["/run/systemd/notify", "@/org/freedesktop/systemd1/notify"] {
            assert!(socket_address(text).is_ok(), "{text}");
        }
        for text in ["run/notify", "vsock:2:1234", "/\0"] {
            assert!(socket_address(text).is_err(), "{text:?}");
        }
    }

    /// The only thread that is held up is found, and no other.
    #[test]
    fn a_thread_that_does_not_come_round_is_stuck_until_it_does() {
        const LIMIT: Duration = Duration::from_secs(60);
        let runtime = crate::server::runtime(Some(3)).unwrap();
        let threads = runtime.metrics();
        let mut turns = Turns::default();
        let mut wait_until = |is_stuck: bool| {
            let begun = std::time::Instant::now();
            while turns.stuck(&threads).is_some() != is_stuck {
                assert!(begun.elapsed() < LIMIT, "never: {is_stuck}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait_until(false);
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        runtime.spawn(async move {
            begin.send(()).unwrap();
            // Blocks its thread.
            let _ = released.recv();
        });
        begun.recv_timeout(LIMIT).unwrap();
        wait_until(true);
        // It stays so for as long as it lasts.
        for _ in 0..3 {
            wait_until(true);
        }
        release.send(()).unwrap();
        wait_until(false);
    }
}
