//! What the server tells the admin listener of itself.

use std::fmt;
use std::sync::Arc;

use super::api;
use crate::engine::Limits;
use crate::tls::ServerTls;

/// What does not come from the [telemetry](crate::telemetry).
#[derive(Clone)]
pub(crate) struct Facts {
    /// The program's version.
    pub(crate) version: String,
    /// The commit that it was built from; empty if that is not known.
    pub(crate) revision: String,
    /// Where it listens.
    pub(crate) listeners: Vec<ListenerFacts>,
    /// What the engine was built for.
    pub(crate) limits: Limits,
    /// Tells two configurations apart.
    pub(crate) config_digest: String,
    /// What `/livez` and `/readyz` look at.
    pub(crate) checks: Arc<dyn Checks>,
}

/// A listener.
#[derive(Clone)]
pub(crate) struct ListenerFacts {
    /// `gateways`, `publishers` or `admin`.
    pub(crate) name: &'static str,
    /// Where it listens: an IP address and a port, or `unix:PATH`.
    pub(crate) address: String,
    /// Its certificate, if it speaks TLS.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// How many connections are open.
    pub(crate) connections: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The most that may be.
    pub(crate) max_connections: u64,
}

/// What is looked at to say whether the server is well.
pub(crate) trait Checks: Send + Sync {
    /// Whether the process works: if not, it has to be started anew.
    fn live(&self) -> Vec<api::Check>;

    /// Whether gateways and publishers should be sent here.
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
