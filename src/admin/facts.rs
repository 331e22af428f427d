//! What the admin listener asks the server for.

use super::api;

/// How the server is: what it looks at, and what it found.
pub(crate) trait Checks: Send + Sync {
    /// What a restart would mend (`/livez`).
    fn live(&self) -> Vec<api::Check>;

    /// What peers need (`/readyz`).
    fn ready(&self) -> Vec<api::Check>;
}
