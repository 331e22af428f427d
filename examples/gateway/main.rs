//! A gateway for browsers: WebSocket and server-sent events, over a push server.
//!
//! ```text
//! galaxy-push serve
//! cargo run --release --example gateway
//! ```
//!
//! Open <http://127.0.0.1:8080/>, log in as anybody, and publish to that user:
//!
//! ```text
//! galaxy-push publish --user-id ada --kind chat --payload '{"text":"hello"}'
//! galaxy-push publish --user-id ada --invalidate --reason banned --wait-enforced 90s
//! ```
//!
//! | file | what is in it |
//! |---|---|
//! | `main` | flags, what belongs together, how it stops |
//! | `accounts` | who is logged in: the part that a backend of yours takes |
//! | `envelope` | signatures around payloads, and the key |
//! | `state` | files that survive a restart |
//! | `http` | what a browser can ask for |
//! | `streams` | events on their way to a browser |
//! | `page` | the page that shows events and checks their signatures |
//!
//! **Anybody may log in as anybody here**: `accounts` is where your backend is asked. A log-out only
//! forgets the session: your backend publishes an invalidation, which ends its streams and requests.
//!
//! It speaks HTTP in plaintext, and has no limit of connections: put a proxy before it that has TLS,
//! and ends clients that are slow.

mod accounts;
mod envelope;
mod http;
mod state;
mod streams;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use clap::Parser;
use galaxy_push::client::{Completeness, Gateway, Item, Reason, Resume};
use galaxy_push::config::Address;
use galaxy_push::cursor::Cursor;
use galaxy_push::gateway::{Application, Driver, Revocation, Router, Verdict};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;

use accounts::Accounts;
use envelope::Signer;
use state::{Position, State};

/// How long sessions may take what is in their queues when the gateway stops.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
#[command(about = "A gateway for browsers, over a push server")]
struct Args {
    /// The push server's address for gateways: HOST:PORT or unix:PATH. May be given several times: the
    /// next one is tried where one fails.
    #[arg(long, default_value = "127.0.0.1:50051")]
    connect: Vec<Address>,

    /// The id to subscribe under.
    #[arg(long, default_value = "example-gateway")]
    id: String,

    /// Where browsers connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Where a page may come from that uses this gateway, such as https://chat.example. May be given
    /// several times. Default: where it listens, and the same port of localhost.
    #[arg(long)]
    origin: Vec<String>,

    /// The folder for the key, the cursor and the sessions. It is made if it is not there.
    #[arg(long, default_value = "target/example-gateway")]
    state: PathBuf,

    /// After how many seconds without word from the server nobody is served any more.
    #[arg(long, default_value_t = 45)]
    lease: u64,
}

/// What the driver asks and tells.
struct Told {
    accounts: Arc<Accounts>,
    position: Position,
}

impl Application for Told {
    /// There is no backend to ask: whoever is suspect logs in again.
    async fn validate(&self, _user: &str, _session: &str) -> Verdict {
        Verdict::Invalid("please log in again".to_owned())
    }

    fn invalidated(&self, user: &str, session: &str, _revocation: &Revocation) {
        self.accounts.revoke(user, session);
    }

    fn processed(&self, cursor: Cursor) {
        // In this order: what a restart goes on behind has to be known by then. It waits for the disk,
        // so others of this runtime's tasks have another thread meanwhile.
        let saved = block_in_place(|| {
            self.accounts.flush()?;
            self.position.save(cursor)
        });
        if let Err(error) = saved {
            tracing::error!("not saved, a restart goes on at an earlier cursor: {error}");
        }
    }

    fn happened(&self, item: &Item) {
        match item {
            Item::Connected(start) => {
                let is_known = start.resume == Resume::Resumed
                    || start.reason == Reason::Expired
                        && start
                            .revocations
                            .is_some_and(|missed| missed.completeness == Completeness::Complete);
                if !is_known {
                    // Somebody among them may have been revoked.
                    self.accounts.clear();
                }
                let revocations = start.revocations.map(|missed| missed.completeness);
                tracing::info!(
                    resume = %start.resume,
                    reason = %start.reason,
                    revocations = revocations.map(tracing::field::display),
                    "subscribed"
                );
            }
            Item::Disconnected { cause, retry_in } => {
                tracing::warn!(%cause, ?retry_in, "disconnected");
            }
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let state = State::open(&args.state)?;
    let signer = Arc::new(Signer::load(&state)?);
    let accounts = Arc::new(Accounts::load(&state)?);
    let (position, cursor) = Position::load(&state)?;

    let (router, feed) = Router::builder()
        .stale_after(Duration::from_secs(args.lease))
        .build();
    let Some((first, others)) = args.connect.split_first() else {
        return Err("--connect: an address is needed".into());
    };
    let mut subscription = Gateway::builder(&args.id, first.clone()).cursor(cursor);
    for address in others {
        subscription = subscription.or_at(address.clone());
    }
    let told = Told {
        accounts: Arc::clone(&accounts),
        position,
    };
    let driver = Driver::new(subscription, feed, told)?;

    let listener = TcpListener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    let origins = match args.origin.is_empty() {
        true => vec![
            format!("http://{address}"),
            format!("http://localhost:{}", address.port()),
        ],
        false => args.origin,
    };
    let (stop, stopping) = watch::channel(false);
    let app = http::app(http::Shared {
        router: router.clone(),
        accounts: Arc::clone(&accounts),
        signer,
        origins,
    });
    let mut draining = stopping.clone();
    let listener = listener.tap_io(|socket| {
        // A browser that has gone, or takes nothing, is not kept for longer.
        if let Err(error) = set_tcp_user_timeout(&*socket, streams::STALLED.as_millis() as u32) {
            tracing::debug!("no timeout for a socket: {error}");
        }
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = draining.wait_for(|stopping| *stopping).await;
    });
    let serving = tokio::spawn(serving.into_future());
    tracing::info!("browsers connect to http://{address}/");

    let mut driver_stops = stopping;
    let mut driver = tokio::spawn(driver.run_until(async move {
        let _ = driver_stops.wait_for(|stopping| *stopping).await;
    }));
    let mut terminated = signal(SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = &mut driver => Some(ended?),
        _ = terminated.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    if let Some(Some(stopped)) = &ended {
        tracing::error!("{stopped}");
    }
    tracing::info!("stopping");
    router.drain();
    let _ = timeout(DRAIN, router.drained()).await;
    router.close();
    // From here on it serves nobody: the driver tells the server so.
    let _ = stop.send(true);
    if ended.is_none() {
        driver.await?;
    }
    // Who has logged in since the last event.
    accounts.flush()?;
    let _ = timeout(DRAIN, serving).await;
    match ended.flatten() {
        Some(stopped) => Err(stopped.into()),
        None => Ok(()),
    }
}
