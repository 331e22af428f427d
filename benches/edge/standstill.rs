//! When the machine itself stood still.
//!
//! Where machines are shared, a processor is taken away now and then for some
//! milliseconds, from whatever runs on it. In a run of two seconds, one such moment is
//! all that p99.9 says, of any server. So while latencies are measured, a thread on each
//! processor, before which no other comes, sleeps for half a millisecond again and again
//! and notes when it wakes too late; and what was measured about then is left out. That is
//! decided without regard to what was measured. (It is nearly always the machine: a server
//! could have a part in it only by a system call that takes a millisecond by itself. jHiccup
//! by Gil Tene shows such moments beside a program's own.)
//!
//! It takes `chrt` and the permission to use it. Without, nothing is left out.

use std::io::{self, Read as _};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use galaxy_push::lab::load::now_ns;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The variable of the environment that makes a process the one that watches.
const VARIABLE: &str = "EDGE_STANDSTILL";
/// How long a thread sleeps at a time.
const SLEEP: Duration = Duration::from_micros(500);
/// So much too late is no standstill.
const NO_STANDSTILL: Duration = Duration::from_millis(1);

/// Whether this process is to [`watch`].
pub(crate) fn is_this_process() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Watches until standard input ends, and then prints each standstill: when it began and
/// when it ended.
pub(crate) fn watch() -> io::Result<()> {
    let standstills = Arc::new(Mutex::new(Vec::new()));
    let allowed = sched_getaffinity(None)?;
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)) {
        let standstills = Arc::clone(&standstills);
        let mut only = CpuSet::new();
        only.set(cpu);
        thread::spawn(move || {
            if sched_setaffinity(None, &only).is_err() {
                // Better nobody watches than one who does not see all.
                std::process::exit(1);
            }
            loop {
                let due_ns = now_ns() + SLEEP.as_nanos() as u64;
                thread::sleep(SLEEP);
                let woken_ns = now_ns();
                if woken_ns.saturating_sub(due_ns) > NO_STANDSTILL.as_nanos() as u64 {
                    let mut standstills =
                        standstills.lock().unwrap_or_else(PoisonError::into_inner);
                    standstills.push(due_ns..woken_ns);
                }
            }
        });
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    for Range { start, end } in &*standstills.lock().unwrap_or_else(PoisonError::into_inner) {
        println!("{start} {end}");
    }
    Ok(())
}

/// All the standstills of a run.
#[derive(Debug)]
pub(crate) struct Standstills(Vec<Range<u64>>);

impl Standstills {
    /// Whether there was one then, by [`now_ns`].
    pub(crate) fn touch(&self, span_ns: &Range<u64>) -> bool {
        let touches = |one: &Range<u64>| one.start < span_ns.end && span_ns.start < one.end;
        self.0.iter().any(touches)
    }
}

/// The process that watches.
#[derive(Debug)]
pub(crate) struct Watcher(Child);

impl Watcher {
    pub(crate) fn start() -> Option<Self> {
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
    pub(crate) fn finish(self) -> Option<Standstills> {
        let output = self.0.wait_with_output().ok()?;
        if !output.status.success() {
            return None;
        }
        let text = std::str::from_utf8(&output.stdout).ok()?;
        let spans = text.lines().map(|line| {
            let (start, end) = line.split_once(' ')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        });
        spans.collect::<Option<_>>().map(Standstills)
    }
}
