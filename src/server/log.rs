//! The log that publishers' batches go to, and the engine that has what is in it: this process's
//! own, or one that follows a backbone.

#[cfg(feature = "nats")]
use super::engine_builder;
use super::{ServeError, build_engine};
#[cfg(feature = "nats")]
use crate::backbone::jetstream::{Backbone, OpenError, Options};
use crate::config::Config;
use crate::engine::Engine;
use crate::freshness::Freshness;

#[derive(Debug)]
pub(super) enum ServedLog {
    Local,
    #[cfg(feature = "nats")]
    Shared(Backbone),
}

impl ServedLog {
    /// With the engine. Of a backbone this returns when the engine has what was in it.
    pub(super) async fn open(config: &Config) -> Result<(Engine, Self), ServeError> {
        if config.backbone.is_empty() {
            return Ok((build_engine(config)?, ServedLog::Local));
        }
        #[cfg(feature = "nats")]
        {
            let backbone = Backbone::open(&options(config), engine_builder(config)).await;
            let backbone = backbone.map_err(|error| match error {
                OpenError::Engine(error) => ServeError::Engine(error),
                error => ServeError::Backbone(error),
            })?;
            Ok((backbone.engine().clone(), ServedLog::Shared(backbone)))
        }
        #[cfg(not(feature = "nats"))]
        Err(ServeError::NoBackbone)
    }

    /// Until when the engine has what was published.
    pub(super) fn freshness(&self) -> Freshness {
        match self {
            ServedLog::Local => Freshness::default(),
            #[cfg(feature = "nats")]
            ServedLog::Shared(backbone) => backbone.freshness().clone(),
        }
    }

    /// Returns when the log can be followed no longer.
    pub(super) async fn lost(&mut self) -> ServeError {
        match self {
            ServedLog::Local => std::future::pending().await,
            #[cfg(feature = "nats")]
            ServedLog::Shared(backbone) => backbone.lost().await.into(),
        }
    }
}

#[cfg(feature = "nats")]
fn options(config: &Config) -> Options {
    let mut options = Options::new(config.backbone.clone(), &config.backbone_stream);
    options.credentials.clone_from(&config.backbone_creds);
    options.tls_ca.clone_from(&config.backbone_tls_ca);
    options.replicas = config.backbone_replicas;
    options.storage = config.backbone_storage;
    options.max_age = config.backbone_max_age.unwrap_or(config.window);
    options.max_bytes = config.backbone_max_bytes;
    options.window = config.window;
    options.stale_after = config.backbone_stale_after;
    options
}
