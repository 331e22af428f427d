//! A server inside the test's process.

use std::net::SocketAddr;
use std::sync::Arc;

use galaxy_push::access::Authenticator;
use galaxy_push::config::{Address, Config};
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::engine::Engine;
use galaxy_push::server::{BoundAddress, ServeError, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::grpc::{PUBLISH_STREAM, SUBSCRIBE};
use super::{Subscription, connect, event, publish, soon, subscribe};

/// A server on ports of its own. Dropping it asks it to stop.
pub struct Harness {
    pub engine: Engine,
    gateways: BoundAddress,
    publishers: BoundAddress,
    /// Where a test has asked for it.
    admin: Option<BoundAddress>,
    shutdown: Option<oneshot::Sender<()>>,
    hurry: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Harness {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with the default settings, changed by `change`.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(change, None).await
    }

    /// The same, for those whom the authenticator lets in.
    pub async fn with_authenticator(
        change: impl FnOnce(&mut Config),
        authenticator: Arc<dyn Authenticator>,
    ) -> Self {
        Self::start_with(change, Some(authenticator)).await
    }

    async fn start_with(
        change: impl FnOnce(&mut Config),
        authenticator: Option<Arc<dyn Authenticator>>,
    ) -> Self {
        let any_port = Address::Tcp("127.0.0.1:0".to_owned());
        let mut config = Config {
            listen: any_port.clone(),
            publish_listen: any_port,
            admin_listen: None,
            // A ring that tests can afford by the dozen.
            max_bytes: 16 << 20,
            max_events: 100_000,
            ..Config::default()
        };
        change(&mut config);
        let mut server = Server::bind(config).await.expect("the server binds");
        if let Some(authenticator) = authenticator {
            server = server.with_authenticator(authenticator);
        }
        let (shutdown, asked) = oneshot::channel::<()>();
        let (hurry, asked_again) = oneshot::channel::<()>();
        Harness {
            engine: server.engine().clone(),
            gateways: server.listen_addr().clone(),
            publishers: server.publish_addr().clone(),
            admin: server.admin_addr().cloned(),
            shutdown: Some(shutdown),
            hurry: Some(hurry),
            // A dropped sender is a test that ended without stopping it.
            running: tokio::spawn(server.run_until(
                async {
                    let _ = asked.await;
                },
                async {
                    let _ = asked_again.await;
                },
            )),
        }
    }

    pub fn gateway_addr(&self) -> SocketAddr {
        tcp(&self.gateways)
    }

    pub fn publisher_addr(&self) -> SocketAddr {
        tcp(&self.publishers)
    }

    /// Where operators look: a test that wants that sets `admin_listen`.
    pub fn admin_addr(&self) -> SocketAddr {
        tcp(self.admin.as_ref().expect("an admin listener"))
    }

    /// Both listeners.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.gateway_addr(), self.publisher_addr()]
    }

    /// Both listeners, each with a method of it whose request may stay open.
    pub fn methods(&self) -> [(SocketAddr, &'static str); 2] {
        [
            (self.gateway_addr(), SUBSCRIBE),
            (self.publisher_addr(), PUBLISH_STREAM),
        ]
    }

    /// A client of the gateways' side, on a connection of its own.
    pub async fn gateway(&self) -> PushClient<Channel> {
        PushClient::new(connect(self.gateway_addr()).await)
    }

    /// A client of the publishers' side, on a connection of its own.
    pub async fn publisher(&self) -> PublisherClient<Channel> {
        PublisherClient::new(connect(self.publisher_addr()).await)
    }

    /// Subscribes on a connection of its own.
    pub async fn subscribe(&self, id: &str, cursor: &str) -> Subscription {
        match self.try_subscribe(id, cursor).await {
            Ok(subscription) => subscription,
            Err(status) => panic!("{id} was not subscribed: {status:?}"),
        }
    }

    pub async fn try_subscribe(&self, id: &str, cursor: &str) -> Result<Subscription, Status> {
        let mut gateway = self.gateway().await;
        subscribe(&mut gateway, id, cursor).await
    }

    /// Publishes events `from..to` ([`event`]), one request each; returns their
    /// cursors.
    pub async fn publish(&self, from: u64, to: u64) -> Vec<String> {
        let mut publisher = self.publisher().await;
        let mut cursors = Vec::new();
        for n in from..to {
            let response = publish(&mut publisher, vec![event(n)]).await;
            cursors.push(response.expect("published").first_cursor);
        }
        cursors
    }

    /// How many events were published.
    pub fn published(&self) -> u64 {
        self.engine.head().seq().number()
    }

    /// Asks it to stop, without waiting for it.
    pub fn ask_to_stop(&mut self) {
        let shutdown = self.shutdown.take().expect("asked once");
        shutdown.send(()).expect("the server is running");
    }

    /// Asks it once more: not to wait any longer before it stops.
    pub fn hurry(&mut self) {
        let hurry = self.hurry.take().expect("asked once");
        hurry.send(()).expect("the server is running");
    }

    /// Waits until it has stopped.
    pub async fn stopped(self) -> Result<(), ServeError> {
        soon(self.running).await.expect("no panic")
    }

    /// Drops the future that runs it.
    pub async fn abort(self) {
        self.running.abort();
        soon(self.running).await.expect_err("aborted");
    }

    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.ask_to_stop();
        self.stopped().await
    }

    /// Shows that gateways and publishers are served: a new gateway gets a new
    /// event.
    pub async fn assert_alive(&self) {
        let mut gateway = self.subscribe("is it alive", "").await;
        let mut publisher = self.publisher().await;
        let published = publish(&mut publisher, vec![event(7)])
            .await
            .expect("published");
        assert_eq!(gateway.next().await.cursor, published.first_cursor);
    }
}

fn tcp(address: &BoundAddress) -> SocketAddr {
    match address {
        BoundAddress::Tcp(address) => *address,
        other => panic!("{other} is no TCP address"),
    }
}
