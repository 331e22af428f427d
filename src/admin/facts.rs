//! What the server tells of itself: what telemetry does not count.

use std::fmt;
use std::sync::Arc;

use super::api;
use crate::engine::Limits;
use crate::tls::ServerTls;

/// What does not change while a server runs, and where to ask for what does.
#[derive(Clone)]
pub(crate) struct Facts {
    /// The program's version.
    pub(crate) version: &'static str,
    /// The commit that it was built from; empty where that is not known.
    pub(crate) revision: &'static str,
    pub(crate) listeners: Vec<ListenerFacts>,
    pub(crate) limits: Limits,
    /// Tells two configurations apart.
    pub(crate) config_digest: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) checks: Arc<dyn Checks>,
}

/// A listener.
#[derive(Clone)]
pub(crate) struct ListenerFacts {
    /// `gateways`, `publishers` or `admin`.
    pub(crate) name: &'static str,
    /// `HOST:PORT`, or `unix:PATH`.
    pub(crate) address: String,
    /// Where it speaks TLS.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// How many connections are open.
    pub(crate) connections: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) max_connections: u64,
}

/// Whether the server is well. It is asked on the admin thread, a few times a second at most:
/// it must not block.
pub(crate) trait Checks: Send + Sync {
    /// What only a restart would mend.
    fn live(&self) -> Vec<api::Check>;

    /// Whether peers should be sent here.
    fn ready(&self) -> Vec<api::Check>;
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("version", &self.version)
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ListenerFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerFacts")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
