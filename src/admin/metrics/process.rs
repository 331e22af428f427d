//! What the system says of this process.

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
