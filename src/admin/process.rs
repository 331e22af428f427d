//! The process, as the system sees it.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::api::Process;

/// Its figures now. What the system does not say is 0.
pub(super) fn look() -> Process {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Process {
        resident_bytes: resident_bytes().unwrap_or(0),
        memory_limit_bytes: memory_limit(),
        cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        open_fds: open_fds().unwrap_or(0),
        // Without a limit, as many as can be numbered.
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

fn resident_bytes() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The limit of its control group or the machine's memory, whichever is smaller.
fn memory_limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kib(&text, "MemTotal:"));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| group_limit(&text));
    machine.into_iter().chain(group).min()
}

/// A line such as `VmRSS:     1234 kB`, in bytes.
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

fn open_fds() -> Option<u64> {
    let folder = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is the number of its entries.
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        entries => Some(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_has_memory_files_and_has_run() {
        let now = look();
        assert!(now.resident_bytes > 1 << 16, "{now:?}");
        assert!(
            now.memory_limit_bytes
                .is_some_and(|limit| limit > now.resident_bytes)
        );
        assert!(now.cpu_seconds > 0.0);
        assert!((3..=now.max_fds).contains(&now.open_fds), "{now:?}");
    }

    #[test]
    fn figures_are_read_strictly() {
        assert_eq!(
            kib("VmPeak:  1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"),
            Some(12 << 10)
        );
        assert_eq!(kib("VmRSS: x kB", "VmRSS:"), None);
        assert_eq!(kib("", "VmRSS:"), None);
        assert_eq!(
            group_limit("0::/no/such/group/at/all\n").is_some_and(|n| n == 0),
            false
        );
        assert_eq!(group_limit("nonsense"), None);
    }
}
