//! How many files, and so connections, this process may have open.

#![forbid(unsafe_code)]

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as this process may, and says how far that is.
pub(crate) fn raise() -> u32 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("cannot raise the limit of open files: {error}");
            limit.current = before;
        }
    }
    // `None` is no limit.
    limit
        .current
        .and_then(|files| u32::try_from(files).ok())
        .unwrap_or(u32::MAX)
}
