//! How long the machine itself stood still.
//!
//! Where machines are shared, a processor is taken away now and then for some
//! milliseconds, from whatever runs on it. In a run of two seconds, one such moment is
//! all that p99.9 says, of any server. So while latencies are measured, a thread on each
//! processor, before which no other comes, sleeps for half a millisecond again and again
//! and notes how late it wakes; and a run in which that was too late is run again. It
//! decides by the machine alone, not by what was measured. (jHiccup by Gil Tene shows
//! such moments beside a program's own.)
//!
//! It takes `chrt` and the permission to use it. Without, each run is the only one.

use std::io::{self, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The variable of the environment that makes a process the one that watches.
const VARIABLE: &str = "EDGE_STANDSTILL";
/// How long a thread sleeps at a time.
const SLEEP: Duration = Duration::from_micros(500);
/// A run in which the machine stood still no longer than this is good.
const ENOUGH: Duration = Duration::from_millis(2);

/// Whether this process is to [`watch`].
pub(crate) fn is_this_process() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Watches until standard input ends, and then prints the longest standstill, in
/// nanoseconds.
pub(crate) fn watch() -> io::Result<()> {
    let longest = Arc::new(AtomicU64::new(0));
    let allowed = sched_getaffinity(None)?;
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)) {
        let longest = Arc::clone(&longest);
        let mut only = CpuSet::new();
        only.set(cpu);
        thread::spawn(move || -> io::Result<()> {
            sched_setaffinity(None, &only)?;
            loop {
                let asleep = Instant::now();
                thread::sleep(SLEEP);
                let late = asleep.elapsed().saturating_sub(SLEEP);
                // Relaxed: it is a number by itself.
                longest.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
            }
        });
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    println!("{}", longest.load(Ordering::Relaxed));
    Ok(())
}

/// Runs it, up to so many times, until the machine does not stand still meanwhile. What
/// comes of the quietest run, and how long the machine stood still in it, where that can
/// be known.
pub(crate) fn quietest<T, E>(
    tries: u32,
    mut run: impl FnMut() -> Result<T, E>,
) -> Result<(T, Option<Duration>), E> {
    let watcher = Watcher::start();
    let mut best = run()?;
    let Some(mut least) = watcher.and_then(Watcher::longest) else {
        return Ok((best, None));
    };
    for _ in 1..tries {
        if least <= ENOUGH {
            break;
        }
        let watcher = Watcher::start();
        let next = run()?;
        if let Some(longest) = watcher.and_then(Watcher::longest)
            && longest < least
        {
            (best, least) = (next, longest);
        }
    }
    Ok((best, Some(least)))
}

/// The process that watches.
#[derive(Debug)]
struct Watcher(Child);

impl Watcher {
    fn start() -> Option<Self> {
        let child = Command::new("chrt")
            .args(["--fifo", "1"])
            .arg(std::env::current_exe().ok()?)
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        child.ok().map(Watcher)
    }

    /// Ends it. `None` if it was not allowed to watch.
    fn longest(self) -> Option<Duration> {
        let output = self.0.wait_with_output().ok()?;
        let nanos = std::str::from_utf8(&output.stdout).ok()?.trim();
        nanos.parse().ok().map(Duration::from_nanos)
    }
}
