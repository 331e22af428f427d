//! The composition root: an engine, the two listeners of its edge, the threads that
//! serve them, and how they stop together.

mod threads;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::threads::ProducerThreads;
pub use crate::edge::BoundAddress;

use crate::config::{Address, Config, ConfigError};
use crate::cursor::Epoch;
use crate::edge::{
    Behind, Listener, Patience, Watch, serve_gateways, serve_producers, wake_gateways,
};
use crate::engine::{BuildError, Engine};
use crate::open_files;

/// Every gateway may be connected twice, while its new connection takes over
/// from one that it has lost; and some more, to be told that there are too many.
const GATEWAY_CONNECTIONS: (u32, u32) = (2, 64);
/// Producers are few.
const PRODUCER_CONNECTIONS: u32 = 512;
/// File descriptors for everything that is not a connection.
const OTHER_FILES: u32 = 64;
/// Stalled streams may hold this share of the ring's memory limit in addition
/// to the ring, before the longest stalled ones are cut.
const PINNED_SHARE: u64 = 4;
/// In the grace period: how long peers have that have only just connected, to be
/// told in HTTP/2 that the server is stopping. Whoever is silent does not hold it up
/// for longer.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);
/// After the grace period: how long the streams' last statuses may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

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
    gateways: Listener,
    producers: Listener,
    of_producers: Handle,
    behind: Behind,
    patience: Patience,
    grace: Duration,
}

impl Server {
    /// Builds the engine and binds both listeners. From then on peers can
    /// connect; they are served when [`run`](Self::run) runs.
    ///
    /// # Errors
    ///
    /// [`ServeError`] says which setting cannot work, or which address cannot be
    /// listened on. Nothing stays bound.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        Self::bind_on(config, Handle::current(), Behind::default()).await
    }

    /// The same, but producers are served by threads of their own, which live until
    /// [`run`](Self::run) has ended: producers are answered whatever gateways do, and
    /// take no turns between gateways' writes.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub async fn bind_apart(
        config: Config,
        producers: &ProducerThreads,
    ) -> Result<Self, ServeError> {
        Self::bind_on(config, producers.handle(), producers.behind()).await
    }

    async fn bind_on(
        config: Config,
        of_producers: Handle,
        behind: Behind,
    ) -> Result<Self, ServeError> {
        config.check()?;
        let engine = build_engine(&config)?;
        let [gateways, producers] = connection_limits(&config, open_files::raise());
        let gateways = listen(config.listen, gateways).await?;
        let publish_listen = config.publish_listen.clone();
        // There, because a socket's readiness is told by the runtime that it was made on.
        let producers = of_producers
            .spawn(listen(config.publish_listen, producers))
            .await
            .map_err(|ended| ServeError::Listen {
                address: publish_listen,
                source: ended.into(),
            })??;
        Ok(Server {
            engine,
            gateways,
            producers,
            of_producers,
            behind,
            patience: Patience {
                stall_timeout: config.stall_timeout,
                linger: config.shutdown_grace.max(Duration::from_secs(1)),
                max_pinned_bytes: config.max_bytes / PINNED_SHARE,
            },
            grace: config.shutdown_grace,
        })
    }

    /// The engine that is served, to publish and subscribe in the same process.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where gateways subscribe.
    #[must_use]
    pub fn listen_addr(&self) -> &BoundAddress {
        self.gateways.address()
    }

    /// Where producers publish.
    #[must_use]
    pub fn publish_addr(&self) -> &BoundAddress {
        self.producers.address()
    }

    /// Serves until `shutdown` is ready, and then stops gracefully: what was
    /// answered to a producer is delivered to every gateway that takes it within
    /// the grace period, and every stream ends with `UNAVAILABLE`.
    ///
    /// Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// [`ServeError::Transport`] if a listener ended by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future closes the engine and cuts all connections.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let mut running = Running::start(self);
        let failed = {
            let mut shutdown = pin!(shutdown);
            tokio::select! {
                () = &mut shutdown => None,
                ended = running.listeners.join_next() => Some(ended),
            }
        };
        running.drain().await;
        match failed {
            None => Ok(()),
            Some(ended) => Err(ended_early(ended)),
        }
    }
}

/// A server at work. Dropping it stops everything at once.
struct Running {
    engine: Engine,
    watch: Watch,
    grace: Duration,
    stopping: CancellationToken,
    /// One task for each listener and the connections that it accepted.
    listeners: JoinSet<()>,
    /// Tasks that have no end of their own.
    helpers: JoinSet<()>,
}

impl Running {
    fn start(server: Server) -> Self {
        let Server {
            engine,
            gateways,
            producers,
            of_producers,
            behind,
            patience,
            grace,
        } = server;
        let watch = Watch::default();
        let stopping = CancellationToken::new();

        let mut helpers = JoinSet::new();
        helpers.spawn(wake_gateways(engine.clone(), behind));
        helpers.spawn(watch.clone().run(engine.clone(), patience));

        tracing::info!("listening for gateways on {}", gateways.address());
        tracing::info!("listening for producers on {}", producers.address());
        let mut listeners = JoinSet::new();
        listeners.spawn(serve_gateways(
            gateways,
            engine.clone(),
            watch.clone(),
            stopping.clone(),
        ));
        listeners.spawn_on(
            serve_producers(producers, engine.clone(), watch.clone(), stopping.clone()),
            &of_producers,
        );
        Running {
            engine,
            watch,
            grace,
            stopping,
            listeners,
            helpers,
        }
    }

    /// Ends every stream after its last event, and every connection after its
    /// last stream; after the grace period, whatever is left.
    async fn drain(mut self) {
        tracing::info!("stopping: no more events are accepted");
        // First the engine, so that nothing is answered that would come after
        // what the streams deliver.
        self.engine.close();
        self.stopping.cancel();
        let grace_ends = Instant::now() + self.grace;
        let handshakes_end = grace_ends.min(Instant::now() + LAST_HANDSHAKES);
        if timeout_at(handshakes_end, self.all_ended()).await.is_err() {
            self.watch.cut_unready();
        }
        if timeout_at(grace_ends, self.all_ended()).await.is_err() {
            self.engine.abort();
            if timeout(LAST_WORDS, self.all_ended()).await.is_err() {
                let left = self.watch.cut_all();
                tracing::warn!(
                    "{left} connections were cut: they did not end within {:?}",
                    self.grace
                );
                self.all_ended().await;
            }
        }
        tracing::info!("stopped");
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.listeners.join_next().await {
            if ended.is_err() {
                tracing::error!("{}", ended_early(Some(ended)));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `drain` nothing of this finds anything to do.
        self.engine.abort();
        self.stopping.cancel();
        self.watch.cut_all();
        self.helpers.abort_all();
    }
}

fn build_engine(config: &Config) -> Result<Engine, ServeError> {
    let born = Epoch::now().ok_or(ServeError::SystemClock)?;
    Ok(Engine::builder()
        .epoch(born)
        .max_events(config.max_events)
        .max_bytes(config.max_bytes)
        .max_event_bytes(config.max_event_bytes)
        .window(config.window)
        .max_subscribers(config.max_subscribers)
        .build()?)
}

async fn listen(address: Address, max_connections: u32) -> Result<Listener, ServeError> {
    Listener::bind(&address, max_connections)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

/// How many connections each listener takes: gateways, producers.
fn connection_limits(config: &Config, open_files: u32) -> [u32; 2] {
    let (times, more) = GATEWAY_CONNECTIONS;
    let subscribers = u32::try_from(config.max_subscribers).unwrap_or(u32::MAX);
    let gateways = subscribers.saturating_mul(times).saturating_add(more);
    let files = open_files.saturating_sub(OTHER_FILES);
    // When files are short, gateways and producers are short of them alike.
    let producers = PRODUCER_CONNECTIONS.min(files / 4).max(1);
    let room = files.saturating_sub(producers).max(1);
    if room < subscribers {
        tracing::warn!(
            "only {room} gateways can be connected at a time, fewer than the {} subscribers \
             that are allowed: the limit of open files is {open_files}",
            config.max_subscribers
        );
    }
    [gateways.min(room), producers]
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
    /// The system's clock shows a time from which no epoch can be made.
    #[error("the system's clock is wrong: it shows a time before 1970 or after 10889")]
    SystemClock,
    /// A listener ended by itself. Everything else was stopped.
    #[error("serving failed: {source}")]
    Transport {
        /// What ended it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_subscribers_and_the_open_files() {
        let limits = |max_subscribers, open_files| {
            let config = Config {
                max_subscribers,
                ..Config::default()
            };
            connection_limits(&config, open_files)
        };
        assert_eq!(limits(10_000, 1 << 20), [20_064, 512]);
        assert_eq!(limits(10_000, 1024), [720, 240]);
        assert_eq!(limits(10_000, 0), [1, 1], "never none");
        assert_eq!(limits(usize::MAX, u32::MAX)[1], 512);
    }
}
