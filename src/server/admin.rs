//! What the admin listener is told of a server.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Reloader, ServeError, listen_error};
use crate::access::Authenticator;
use crate::activation::InheritedSocket;
use crate::admin::{Admin, Bound, Facts, Hosts, ListenerFacts, MAX_CONNECTIONS, Settings};
use crate::config::{Address, Config};
use crate::health::Health;
use crate::telemetry::Telemetry;
use crate::tls::ServerTls;
use crate::transport::Listener;

/// Binds the admin listener, if there is to be one.
pub(super) async fn bind(
    config: &Config,
    passed: Option<InheritedSocket>,
) -> Result<Option<Bound>, ServeError> {
    let Some(address) = &config.admin_listen else {
        return Ok(None);
    };
    let bound = match passed {
        Some(socket) => Bound::inherit(socket),
        None => Bound::bind(address).await,
    };
    Ok(Some(bound.map_err(|source| listen_error(address, source))?))
}

/// What the admin listener tells of the server.
pub(super) struct Told<'a> {
    pub(super) config: &'a Config,
    pub(super) telemetry: &'a Telemetry,
    pub(super) gateways: &'a Listener,
    pub(super) publishers: &'a Listener,
    pub(super) tls: Option<&'a Arc<ServerTls>>,
    pub(super) health: &'a Health,
    pub(super) reloader: &'a Reloader,
    pub(super) hosts: &'a Arc<Hosts>,
}

/// The names that the admin listener may be asked as, and what keeps them as the settings say.
pub(super) fn hosts(
    config: &Config,
    mut in_force: watch::Receiver<Arc<Config>>,
) -> (Arc<Hosts>, impl Future<Output = ()> + use<>) {
    let hosts = Hosts::new(config.admin_listen.as_ref(), &config.admin_hosts);
    let hosts = Arc::new(hosts);
    let changing = Arc::clone(&hosts);
    let following = async move {
        while in_force.changed().await.is_ok() {
            let config = Arc::clone(&in_force.borrow_and_update());
            changing.set(&config.admin_hosts);
        }
    };
    (hosts, following)
}

impl Told<'_> {
    fn facts(&self, admin: Option<&Bound>) -> Facts {
        let reloader = self.reloader.clone();
        let tls_of = |address: &Address| match address {
            Address::Tcp(_) => self.tls.cloned(),
            Address::Unix(_) => None,
        };
        let listener = |name, address, listener: &Listener| ListenerFacts {
            name,
            address: listener.address().to_string(),
            tls: tls_of(address),
            connections: Arc::new(listener.connections()),
            max_connections: listener.max_connections(),
        };
        let mut listeners = vec![
            listener("gateways", &self.config.listen, self.gateways),
            listener("publishers", &self.config.publish_listen, self.publishers),
        ];
        listeners.extend(admin.map(|bound| ListenerFacts {
            name: "admin",
            address: bound.address().to_string(),
            tls: self.tls.filter(|_| bound.is_tcp()).cloned(),
            connections: Arc::new(bound.connections()),
            max_connections: u64::from(MAX_CONNECTIONS),
        }));
        Facts {
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("GALAXY_PUSH_REVISION").unwrap_or_default(),
            listeners,
            limits: self.telemetry.engine().limits(),
            config_digest: Arc::new(move || reloader.config().digest()),
            checks: Arc::new(self.health.clone()),
        }
    }

    /// Starts the admin thread: with a listener where one is bound.
    pub(super) fn start(
        self,
        bound: Option<Bound>,
        authenticator: Option<Arc<dyn Authenticator>>,
    ) -> Result<Admin, ServeError> {
        if let Some(bound) = &bound {
            tracing::info!("listening for operators on {}", bound.address());
        }
        let settings = Settings {
            telemetry: self.telemetry.clone(),
            facts: self.facts(bound.as_ref()),
            bound,
            authenticator,
            tls: self.tls.cloned(),
            hosts: Arc::clone(self.hosts),
        };
        Admin::start(settings).map_err(|source| ServeError::AdminThread { source })
    }
}
