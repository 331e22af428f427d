//! The process, as the system sees it.

use std::fs;
use std::path::Path;

use super::api;

/// What `/proc` says of it. What is not known there, or on another system, is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Processor time since its start, of all threads, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// File descriptors that are open.
    pub(super) open_fds: Option<u64>,
    /// The most that may be.
    pub(super) max_fds: Option<u64>,
    /// Memory that is resident.
    pub(super) resident_bytes: Option<u64>,
    /// Addresses that are mapped.
    pub(super) virtual_bytes: Option<u64>,
    /// When it was started: seconds since 1970.
    pub(super) start_time_seconds: Option<f64>,
    /// Its threads.
    pub(super) threads: Option<u64>,
}

impl Process {
    /// What it says now.
    #[cfg(target_os = "linux")]
    pub(super) fn read() -> Self {
        use procfs::process::LimitValue;

        let Ok(process) = procfs::process::Process::myself() else {
            return Process::default();
        };
        let stat = process.stat().ok();
        let ticks = procfs::ticks_per_second().max(1) as f64;
        let boot = procfs::boot_time_secs().ok();
        let max_fds = process.limits().ok().map(|limits| limits.max_open_files);
        Process {
            cpu_seconds: stat.as_ref().map(|s| (s.utime + s.stime) as f64 / ticks),
            open_fds: process.fd_count().ok().map(|n| n as u64),
            max_fds: max_fds.and_then(|files| match files.soft_limit {
                LimitValue::Value(files) => Some(files),
                LimitValue::Unlimited => None,
            }),
            resident_bytes: stat
                .as_ref()
                .map(|s| s.rss.saturating_mul(procfs::page_size())),
            virtual_bytes: stat.as_ref().map(|s| s.vsize),
            start_time_seconds: stat
                .as_ref()
                .zip(boot)
                .map(|(s, boot)| boot as f64 + s.starttime as f64 / ticks),
            threads: stat.as_ref().and_then(|s| s.num_threads.try_into().ok()),
        }
    }

    /// Nothing: only Linux has it.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> Self {
        Process::default()
    }
}

/// The same as it is reported. What is not known is 0.
pub(super) fn report() -> api::Process {
    let process = Process::read();
    api::Process {
        resident_bytes: process.resident_bytes.unwrap_or(0),
        memory_limit_bytes: memory_limit(),
        cpu_seconds: process.cpu_seconds.unwrap_or(0.0),
        open_fds: process.open_fds.unwrap_or(0),
        // Without a limit, as many as can be numbered.
        max_fds: process.max_fds.unwrap_or(u64::MAX),
    }
}

/// The limit of its control group or the machine's memory, whichever is smaller.
fn memory_limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kib(&text, "MemTotal:"));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| group_limit(&text));
    machine.into_iter().chain(group).min()
}

/// A line such as `MemTotal:     1234 kB`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of the control group and of those around it (version 2, else 1).
fn group_limit(groups: &str) -> Option<u64> {
    let (root, file, path) = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            Some(("/sys/fs/cgroup", "memory.max", path))
        } else if controllers.split(',').any(|name| name == "memory") {
            Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
        } else {
            None
        }
    })?;
    let limits = Path::new(path).ancestors().filter_map(|group| {
        let group = group.strip_prefix("/").ok()?;
        let text = fs::read_to_string(Path::new(root).join(group).join(file)).ok()?;
        text.trim().parse().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_has_memory_and_files() {
        let now = report();
        assert!(now.resident_bytes > 1 << 16, "{now:?}");
        assert!(
            now.memory_limit_bytes
                .is_some_and(|limit| limit > now.resident_bytes)
        );
        assert!((3..=now.max_fds).contains(&now.open_fds), "{now:?}");
    }

    #[test]
    fn figures_are_read_strictly() {
        assert_eq!(
            kib("MemFree:  1 kB\nMemTotal:\t  12 kB\n", "MemTotal:"),
            Some(12 << 10)
        );
        assert_eq!(kib("MemTotal: x kB", "MemTotal:"), None);
        assert_eq!(kib("", "MemTotal:"), None);
        assert_eq!(group_limit("nonsense"), None);
    }
}
