//! What a process has used, as the operating system tells it.

use std::fs;
use std::io;

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time of all threads that there are, in nanoseconds.
    pub cpu_ns: u64,
    /// How often its threads gave up a processor, of themselves or not.
    pub switches: u64,
    /// Resident memory, as the [running estimate](Meter::memory_estimate_bytes) has it.
    pub memory_bytes: u64,
}

/// Reads what processes have used: on Linux, from `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    pid: u32,
}

impl Meter {
    /// Of this process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Meter { pid }
    }

    /// Of the process that asks.
    #[must_use]
    pub fn of_self() -> Self {
        Meter::of(std::process::id())
    }

    /// What it has used so far: cheap enough to be asked in the midst of measuring.
    ///
    /// # Errors
    ///
    /// There is no such process, or no such system.
    pub fn read(&self) -> io::Result<Usage> {
        let (cpu_ns, switches) = self.scheduled()?;
        Ok(Usage {
            cpu_ns,
            switches,
            memory_bytes: self.memory_estimate_bytes()?,
        })
    }

    /// Processor time of all threads that there are, in nanoseconds. A thread that has
    /// ended does not count any more: take the difference over a time in which none
    /// does.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn cpu_ns(&self) -> io::Result<u64> {
        Ok(self.scheduled()?.0)
    }

    fn scheduled(&self) -> io::Result<(u64, u64)> {
        let (mut nanos, mut times) = (0, 0);
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let mut numbers = text.split_ascii_whitespace().map(|n| n.parse::<u64>());
            let (Some(Ok(ran)), Some(Ok(_waited)), Some(Ok(slices))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(io::Error::other("schedstat has another form"));
            };
            nanos += ran;
            times += slices;
        }
        Ok((nanos, times))
    }

    /// Resident memory: what the kernel counts page by page where it does that, which
    /// takes it milliseconds; else its running estimate.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn memory_bytes(&self) -> io::Result<u64> {
        let exact = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid));
        if let Ok(text) = exact
            && let Some(bytes) = kilobytes(&text, "Rss:")
        {
            return Ok(bytes);
        }
        self.memory_estimate_bytes()
    }

    /// Resident memory, cheaply: some pages of each thread may be missing.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn memory_estimate_bytes(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        kilobytes(&text, "VmRSS:").ok_or_else(|| io::Error::other("status has another form"))
    }
}

/// The number on the line that begins so, which the kernel writes in kB.
fn kilobytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let number: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(number << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_label() {
        let text = "Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(kilobytes(text, "VmRSS:"), Some(2 << 20));
        assert_eq!(kilobytes(text, "Rss:"), None);
        assert_eq!(kilobytes("VmRSS:\n", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_something() {
        let usage = Meter::of_self().read().unwrap();
        assert!(usage.memory_bytes > 1 << 20, "{usage:?}");
        assert!(usage.cpu_ns > 0, "{usage:?}");
        assert!(Meter::of(u32::MAX).read().is_err());
    }
}
