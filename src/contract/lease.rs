//! How long a gateway serves on that has no answer to its reports: `lease_ms` of a
//! [`ReportRequest`](super::gateway::ReportRequest).

use std::time::Duration;

/// The shortest that a server accepts.
pub const MIN: Duration = Duration::from_secs(1);
/// The longest that a server may be set to accept.
pub const MAX: Duration = Duration::from_secs(10 * 60);

/// Whether a server may accept it.
#[must_use]
pub fn is_allowed(lease: &Duration) -> bool {
    (MIN..=MAX).contains(lease)
}
