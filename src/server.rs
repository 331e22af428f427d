//! The composition root: an engine, its listeners, the threads that serve them, and how they
//! stop together.

mod admin;
mod client_cas;
mod log;
mod reload;
mod stop;
mod threads;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::log::ServedLog;
pub use self::reload::{Reloaded, Reloader};
pub use self::threads::runtime;
pub use crate::transport::BoundAddress;

use crate::access::{AccessFile, AccessFileError, Authenticator};
use crate::activation::{InheritError, Inherited, InheritedSocket, Role};
use crate::admin::{Admin, Bound};
use crate::backbone::{Local, Log};
use crate::config::{
    Address, Config, ConfigError, Delivery, Protection, check_exposure, exposures,
};
use crate::cursor::{Epoch, EpochError};
use crate::engine::{BuildError, Builder, Engine, Limits, Notifier};
use crate::grpc::{AccessControl, Gateways, Publishers, Stopping};
use crate::health::Health;
use crate::open_files;
use crate::spans::{Spans, StartError};
use crate::telemetry::Telemetry;
use crate::tls::{ServerFiles, ServerTls, TlsError};
use crate::transport::{
    ConnectionLimit, HandshakeThreads, Listener, Serving, Timeouts, Timer, Wake, Watchdog,
    wake_in_rounds,
};

/// Every gateway may be connected twice, while its new connection takes over from one that
/// it has lost; and some more, to be told that there are too many subscribers.
const GATEWAY_CONNECTIONS: (u32, u32) = (2, 64);
/// File descriptors for everything that is not a connection.
const OTHER_FILES: u32 = 64;
/// Stalled streams may hold this share of the ring's memory limit in addition to the ring,
/// before the longest stalled ones end.
const PINNED_SHARE: u64 = 4;
/// So many of the largest requests may be arriving at once, all connections together.
const REQUESTS_ARRIVING: usize = 16;
/// Gateways' requests are short: they need no memory of their own.
const NO_LONG_REQUESTS: usize = 0;
/// How long publishers are answered that the server is stopping, before their connections
/// end: a client that loses its connection under a call cannot tell whether that was
/// published.
const LAME_DUCK: Duration = Duration::from_millis(250);

/// A push server: bound to its addresses, and ready to run.
///
/// ```no_run
/// use galaxy_push::config::Config;
/// use galaxy_push::server::Server;
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::bind(Config::default()).await?;
/// println!("gateways connect to {}", server.listen_addr());
/// server.run(async {
///     let _ = tokio::signal::ctrl_c().await;
/// }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    log: ServedLog,
    telemetry: Telemetry,
    gateways: Listener,
    publishers: Listener,
    admin: Option<Bound>,
    /// Held for its drop.
    handshakes: Option<HandshakeThreads>,
    delivery: Delivery,
    health: Health,
    tls: Option<Arc<ServerTls>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    /// Read again when it changes.
    access_file: Option<Arc<AccessFile>>,
    reloader: Reloader,
    config: Config,
}

impl Server {
    /// Builds the engine and binds all listeners. From then on peers can
    /// connect; they are served when [`run`](Self::run) runs.
    ///
    /// # Errors
    ///
    /// [`ServeError`] says which setting cannot work, or which address cannot be
    /// listened on. Nothing stays bound.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        Self::bind_with(config, Inherited::default()).await
    }

    /// The same, with sockets that somebody else has bound: each takes the place of the
    /// address in the settings. They stay open when the server ends, and what is in their
    /// queues is left to the next one.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind); also [`ServeError::Inherit`], if a socket is of no use.
    pub async fn bind_with(config: Config, mut sockets: Inherited) -> Result<Self, ServeError> {
        let config = sockets.passed().settle(config)?;
        config.check()?;
        let access_file = config.access.as_ref().map(AccessFile::load).transpose()?;
        let access_file = access_file.map(Arc::new);
        let tls = load_tls(&config)?;
        let (engine, log) = ServedLog::open(&config).await?;
        let spans = Spans::from_environment()?;
        let freshness = log.freshness();
        let health = Health::new(&engine, freshness.clone())?;
        let bounds = &config.delay_bounds;
        let telemetry = Telemetry::new(&engine, freshness, bounds, config.max_lease, spans);
        let [gateways, publishers] = connection_limits(&config, open_files::raise());
        let passed = sockets.take(Role::Gateways);
        let mut gateways = listen(config.listen.clone(), passed, gateways).await?;
        let passed = sockets.take(Role::Publishers);
        let mut publishers = listen(config.publish_listen.clone(), passed, publishers).await?;
        let admin = admin::bind(&config, sockets.take(Role::Admin)).await?;
        let mut handshakes = None;
        if let Some(tls) = &tls {
            let threads =
                HandshakeThreads::start().map_err(|source| ServeError::Threads { source })?;
            let counts = telemetry.handshakes();
            gateways = gateways.with_tls(Arc::clone(tls), &threads, counts.clone());
            publishers = publishers.with_tls(Arc::clone(tls), &threads, counts.clone());
            handshakes = Some(threads);
        }
        let reloader = Reloader::new(
            &config,
            &engine,
            tls.clone(),
            access_file.clone(),
            telemetry.clone(),
        );
        Ok(Server {
            engine,
            log,
            telemetry,
            gateways,
            publishers,
            admin,
            handshakes,
            delivery: config.delivery,
            health,
            tls,
            authenticator: access_file
                .clone()
                .map(|file| file as Arc<dyn Authenticator>),
            access_file,
            reloader,
            config,
        })
    }

    /// Serves only those whom this lets in, and lets them do what it grants, instead of what
    /// the access file says ([`Config::access`]). Without either, everybody who reaches a
    /// listener may use it.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.reloader.forget_access_file();
        Server {
            authenticator: Some(authenticator),
            access_file: None,
            ..self
        }
    }

    /// What gives the server other settings, and has the access file and the certificates read
    /// again at once. They are read again when they change, too.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// The engine that is served, to publish and subscribe in the same process. What is done
    /// there is delivered like anything else, and is in none of the figures and logs of the
    /// admin listener: those are of the peers.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where gateways subscribe.
    #[must_use]
    pub fn listen_addr(&self) -> &BoundAddress {
        self.gateways.address()
    }

    /// Where publishers publish.
    #[must_use]
    pub fn publish_addr(&self) -> &BoundAddress {
        self.publishers.address()
    }

    /// Where operators look, if there is such a listener.
    #[must_use]
    pub fn admin_addr(&self) -> Option<&BoundAddress> {
        self.admin.as_ref().map(Bound::address)
    }

    /// Serves until `shutdown` is ready, and then stops gracefully. First its health checks
    /// fail, and everything is served on for [`Config::shutdown_delay`]. Then what was answered
    /// to a publisher is delivered to every gateway that takes it within the grace period, and
    /// every stream ends with `UNAVAILABLE`.
    ///
    /// Needs a tokio runtime with I/O and time. `shutdown` is polled for the first time when
    /// every listener is served: a future that tells somebody so may begin with that.
    ///
    /// # Errors
    ///
    /// [`ServeError::Config`] if a listener is open to others and does not keep them out
    /// ([`check_exposure`]): then nobody is served. [`ServeError::Transport`] if a listener
    /// ended by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future closes the engine and cuts all connections.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        self.run_until(shutdown, std::future::pending()).await
    }

    /// The same, with a `hurry` that cuts [`Config::shutdown_delay`] short when it is ready.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn run_until(
        self,
        shutdown: impl Future<Output = ()> + Send,
        hurry: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let protection = Protection {
            has_access: self.authenticator.is_some(),
            ..Protection::of(&self.config)
        };
        check_exposure(&self.config, protection)?;
        let mut running = Running::start(self)?;
        let mut failed = {
            let mut shutdown = pin!(shutdown);
            tokio::select! {
                () = &mut shutdown => None,
                broken = running.broken() => Some(broken),
            }
        };
        if failed.is_none() {
            failed = running.keep_serving(hurry).await;
        }
        running.drain().await;
        failed.map_or(Ok(()), Err)
    }
}

/// The wake-ups of an engine's subscribers.
pub(crate) struct Rounds {
    engine: Engine,
    notifier: Notifier,
}

impl Rounds {
    pub(crate) fn of(engine: &Engine) -> Self {
        Rounds {
            engine: engine.clone(),
            notifier: engine.notifier(),
        }
    }
}

impl Wake for Rounds {
    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.notifier.poll_round(cx)
    }

    fn is_waking(&self) -> bool {
        self.notifier.is_waking()
    }

    fn newest(&self) -> u64 {
        self.engine.head().seq().number()
    }
}

/// A server at work. Dropping it stops everything at once.
struct Running {
    engine: Engine,
    log: ServedLog,
    watchdog: Watchdog,
    health: Health,
    /// The settings, some of which may change.
    in_force: watch::Receiver<Arc<Config>>,
    stopping: CancellationToken,
    /// One task for each listener and the connections that it accepted.
    listeners: JoinSet<()>,
    /// Tasks that have no end of their own.
    helpers: JoinSet<()>,
    /// Held for its drop.
    _handshakes: Option<HandshakeThreads>,
    admin: Option<Admin>,
    spans: Spans,
}

impl Running {
    fn start(server: Server) -> Result<Self, ServeError> {
        let Server {
            engine,
            log,
            telemetry,
            gateways,
            publishers,
            admin,
            handshakes,
            delivery,
            health,
            tls,
            authenticator,
            access_file,
            reloader,
            config,
        } = server;
        let watchdog = Watchdog::default();
        let stopping = CancellationToken::new();

        let mut helpers = JoinSet::new();
        helpers.spawn(wake_in_rounds(Rounds::of(&engine), delivery, Timer::new()));
        let canary = Rounds::of(health.canary());
        helpers.spawn(wake_in_rounds(canary, Delivery::Latency, Timer::Coarse));
        helpers.spawn(health.clone().read_probes());
        helpers.spawn(health.clone().take_turns());
        helpers.spawn(health.clone().run());
        let pinning = engine.clone();
        let pinned_bytes = move || pinning.stats().pinned_bytes;
        let in_force = reloader.in_force();
        let timeouts_of = in_force.clone();
        let timeouts = move || timeouts(&timeouts_of.borrow());
        helpers.spawn(watchdog.clone().run(timeouts, pinned_bytes));
        let authenticator = client_cas::check(authenticator, tls.as_ref());
        tracing::info!("listening for gateways on {}", gateways.address());
        tracing::info!("listening for producers on {}", publishers.address());
        let (hosts, following) = admin::hosts(&config, in_force.clone());
        helpers.spawn(following);
        let told = admin::Told {
            config: &config,
            telemetry: &telemetry,
            gateways: &gateways,
            publishers: &publishers,
            tls: tls.as_ref(),
            health: &health,
            reloader: &reloader,
            hosts: &hosts,
        };
        let admin = told.start(admin, authenticator.clone())?;
        let access =
            authenticator.map(|authenticator| AccessControl::new(authenticator, &telemetry));
        if let Some(access) = access.clone() {
            helpers.spawn(access.run());
        }
        if let Some(file) = access_file {
            helpers.spawn(reloader.clone().watch(file));
        }
        if let Some(tls) = tls {
            helpers.spawn(reloader.watch(tls));
        }

        let spans = telemetry.spans().clone();
        let mut listeners = JoinSet::new();
        let serving = Serving {
            watchdog: watchdog.clone(),
            stopping: stopping.clone(),
            lame_duck: Duration::ZERO,
            arriving_bytes: NO_LONG_REQUESTS,
        };
        let (gateway_telemetry, refusing) = (telemetry.clone(), Stopping::default());
        let (gateway_health, gateway_access) = (health.clone(), access.clone());
        let refuse = refusing.clone();
        let accepting = health.listener("gateways");
        let serving = serving.run(
            gateways,
            move || {
                let (telemetry, health) = (gateway_telemetry.clone(), gateway_health.clone());
                let access = gateway_access.clone();
                Gateways::router(telemetry, health, refusing.clone(), access)
            },
            move || refuse.set(),
        );
        listeners.spawn(accepting.during(serving));

        let publishing = Publishing {
            limits: engine.limits(),
            telemetry,
            health: health.clone(),
            access,
        };
        let (watched, stop) = (watchdog.clone(), stopping.clone());
        match &log {
            ServedLog::Local => {
                let log = Local::new(&engine);
                listeners.spawn(publishing.serve(log, publishers, watched, stop));
            }
            #[cfg(feature = "nats")]
            ServedLog::Shared(backbone) => {
                let log = backbone.log();
                listeners.spawn(publishing.serve(log, publishers, watched, stop));
            }
        }
        Ok(Running {
            engine,
            log,
            watchdog,
            health,
            in_force,
            stopping,
            listeners,
            helpers,
            _handshakes: handshakes,
            admin: Some(admin),
            spans,
        })
    }
}

/// What publishers' calls need, beside a log.
struct Publishing {
    limits: Limits,
    telemetry: Telemetry,
    health: Health,
    access: Option<AccessControl>,
}

impl Publishing {
    /// Serves publishers to this log.
    async fn serve<L>(
        self,
        log: L,
        publishers: Listener,
        watchdog: Watchdog,
        stopping: CancellationToken,
    ) where
        L: Log<Pending: Send> + Clone + Send + Unpin + 'static,
    {
        let max_request_bytes = Publishers::<L>::max_request_bytes(&self.limits);
        let serving = Serving {
            watchdog,
            stopping,
            lame_duck: LAME_DUCK,
            arriving_bytes: REQUESTS_ARRIVING * max_request_bytes,
        };
        let refusing = Stopping::default();
        let refuse = refusing.clone();
        let accepting = self.health.listener("publishers");
        let serving = serving.run(
            publishers,
            move || {
                let (log, health) = (log.clone(), self.health.clone());
                let (stopping, access) = (refusing.clone(), self.access.clone());
                let (limits, telemetry) = (&self.limits, &self.telemetry);
                Publishers::router(log, limits, telemetry, health, stopping, access)
            },
            move || refuse.set(),
        );
        accepting.during(serving).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `drain` nothing of this finds anything to do.
        self.engine.abort();
        self.stopping.cancel();
        self.watchdog.cut_all();
        self.helpers.abort_all();
    }
}

/// Everything that is wrong with these settings and with the files that they name, as far as
/// it can be found without binding anything.
#[must_use]
pub fn check(config: &Config) -> Vec<ServeError> {
    let mut errors: Vec<ServeError> = Vec::new();
    errors.extend(config.faults().into_iter().map(ServeError::Config));
    if errors.is_empty() {
        let exposures = exposures(config, Protection::of(config));
        errors.extend(exposures.into_iter().map(ServeError::Config));
        errors.extend(engine_builder(config).check().err().map(ServeError::Engine));
    }
    let access = config.access.as_ref().map(AccessFile::load).transpose();
    errors.extend(access.err().map(ServeError::Access));
    errors.extend(load_tls(config).err());
    errors
}

fn build_engine(config: &Config) -> Result<Engine, ServeError> {
    Ok(engine_builder(config).epoch(Epoch::now()?).build()?)
}

fn engine_builder(config: &Config) -> Builder {
    Engine::builder()
        .max_events(config.max_events)
        .max_bytes(config.max_bytes)
        .max_event_bytes(config.max_event_bytes)
        .window(config.window)
        .max_subscribers(config.max_subscribers)
        .max_revocations(config.max_revocations)
        .revocation_retention(config.revocation_retention)
}

fn timeouts(config: &Config) -> Timeouts {
    Timeouts {
        stall: config.stall_timeout,
        linger: config.shutdown_grace.max(Duration::from_secs(1)),
        max_pinned_bytes: config.max_bytes / PINNED_SHARE,
    }
}

/// TLS, if a certificate is given.
fn load_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, ServeError> {
    let tls = server_files(config).map(ServerTls::load).transpose()?;
    Ok(tls.map(Arc::new))
}

fn server_files(config: &Config) -> Option<ServerFiles> {
    Some(ServerFiles {
        certificate: config.tls_cert.clone()?,
        key: config.tls_key.clone()?,
        client_ca: config.tls_client_ca.clone(),
    })
}

/// Takes the socket that was passed, or binds the address.
async fn listen(
    address: Address,
    passed: Option<InheritedSocket>,
    limit: ConnectionLimit,
) -> Result<Listener, ServeError> {
    let listener = match passed {
        Some(socket) => Listener::inherit(socket, limit),
        None => Listener::bind(&address, limit).await,
    };
    listener.map_err(|source| listen_error(&address, source))
}

fn listen_error(address: &Address, source: io::Error) -> ServeError {
    ServeError::Listen {
        address: address.clone(),
        source,
    }
}

/// How many connections each listener takes: gateways, publishers.
fn connection_limits(config: &Config, open_files: u32) -> [ConnectionLimit; 2] {
    let (times, more) = GATEWAY_CONNECTIONS;
    let subscribers = u32::try_from(config.max_subscribers).unwrap_or(u32::MAX);
    let gateways = subscribers.saturating_mul(times).saturating_add(more);
    let files = open_files.saturating_sub(OTHER_FILES);
    // When files are short, gateways and publishers are short of them alike.
    let wanted = u32::try_from(config.max_producers).unwrap_or(u32::MAX);
    let publishers = wanted.min(files / 4).max(1);
    let room = files.saturating_sub(publishers).max(1);
    if room < subscribers {
        tracing::warn!(
            "only {room} gateways can be connected at a time, fewer than the {} subscribers \
             that are allowed: the limit of open files is {open_files}",
            config.max_subscribers
        );
    }
    let limit = |wanted: u32, room: u32, set_by| ConnectionLimit {
        connections: wanted.min(room),
        set_by: if wanted <= room { set_by } else { "open files" },
    };
    [
        limit(gateways, room, "two for each of --max-subscribers, and 64"),
        limit(wanted, publishers, "--max-producers"),
    ]
}

/// What made a listener end that should not have.
fn ended_early(ended: Option<Result<(), tokio::task::JoinError>>) -> ServeError {
    let source: Box<dyn std::error::Error + Send + Sync> = match ended {
        Some(Err(error)) => error.into(),
        Some(Ok(())) | None => "the listener ended".into(),
    };
    ServeError::Transport { source }
}

/// Why a server cannot be, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket was passed that cannot be used.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The access file cannot be used.
    #[error("access: {0}")]
    Access(#[from] AccessFileError),
    /// The engine cannot be built with these settings.
    #[error(transparent)]
    Engine(#[from] BuildError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address, as it was given.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate, a key or a CA cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no threads for TLS handshakes.
    #[error("cannot start threads for TLS handshakes: {source}")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no thread for the admin listener.
    #[error("cannot start the admin thread: {source}")]
    AdminThread {
        /// What the system said.
        source: io::Error,
    },
    /// An environment variable of OpenTelemetry has a value that cannot be used. Only with
    /// the feature `otlp`.
    #[error("{variable}: {reason}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The system gives no thread for the export of spans. Only with the feature `otlp`.
    #[error("cannot start the thread that exports spans: {source}")]
    SpansThread {
        /// What the system said.
        source: io::Error,
    },
    /// The backbone cannot be used. Only with the feature `nats`.
    #[cfg(feature = "nats")]
    #[error("backbone: {0}")]
    Backbone(#[from] crate::backbone::jetstream::OpenError),
    /// The backbone cannot be followed any more. Everything was stopped: gateways have had what
    /// the backbone had until then. Only with the feature `nats`.
    #[cfg(feature = "nats")]
    #[error("backbone: {0}")]
    BackboneLost(#[from] crate::backbone::jetstream::Lost),
    /// There is a backbone in the settings, and none in this build.
    #[error("backbone: this build has none: it was made without the feature nats")]
    NoBackbone,
    /// No epoch can be made of what the system gives.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// A listener ended by itself. Everything else was stopped.
    #[error("serving failed: {source}")]
    Transport {
        /// What ended it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<StartError> for ServeError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Environment { variable, reason } => {
                ServeError::Environment { variable, reason }
            }
            StartError::Thread(source) => ServeError::SpansThread { source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_subscribers_and_the_open_files() {
        let limits_with = |max_subscribers, max_producers, open_files| {
            let config = Config {
                max_subscribers,
                max_producers,
                ..Config::default()
            };
            connection_limits(&config, open_files).map(|limit| limit.connections)
        };
        let limits = |max_subscribers, open_files| limits_with(max_subscribers, 512, open_files);
        assert_eq!(limits(10_000, 1 << 20), [20_064, 512]);
        assert_eq!(limits(10_000, 1024), [720, 240]);
        assert_eq!(limits(10_000, 0), [1, 1], "never none");
        assert_eq!(limits(usize::MAX, u32::MAX)[1], 512);
        assert_eq!(limits_with(100, 7, 1 << 20), [264, 7]);
        assert_eq!(limits_with(100, usize::MAX, 1064), [264, 250]);
    }

    #[test]
    fn a_limit_names_the_setting_that_it_comes_from() {
        let set_by = |open_files| {
            connection_limits(&Config::default(), open_files).map(|limit| limit.set_by)
        };
        let [gateways, publishers] = set_by(1 << 20);
        assert!(gateways.contains("--max-subscribers"), "{gateways}");
        assert_eq!(publishers, "--max-producers");
        assert_eq!(set_by(1024), ["open files"; 2]);
    }
}
