//! A real server on ports of its own, and the clients that the tests use.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

pub mod raw;
pub mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use galaxy_push::config::{Address, Config};
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::publisher::{PublishRequest, PublishResponse};
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{
    ClientEvent, GatewaySubscribeRequest, PushEvent, SessionInvalidation,
};
use galaxy_push::engine::Engine;
use galaxy_push::server::{BoundAddress, ServeError, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Long enough that only a hang takes longer.
pub const HANG: Duration = Duration::from_secs(60);

/// Waits for `future`, but not forever.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(HANG, future).await {
            Ok(output) => output,
            Err(_) => panic!("hangs at {caller}"),
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    soon(async move {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// A running server. Dropping it asks it to stop.
pub struct TestServer {
    pub engine: Engine,
    gateways: BoundAddress,
    producers: BoundAddress,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with the default settings, changed by `change`.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let any_port = Address::Tcp("127.0.0.1:0".to_owned());
        let mut config = Config {
            listen: any_port.clone(),
            publish_listen: any_port,
            // A ring that tests can afford by the dozen.
            max_bytes: 16 << 20,
            max_events: 100_000,
            ..Config::default()
        };
        change(&mut config);
        let server = Server::bind(config).await.expect("the server binds");
        let (shutdown, asked) = oneshot::channel::<()>();
        TestServer {
            engine: server.engine().clone(),
            gateways: server.listen_addr().clone(),
            producers: server.publish_addr().clone(),
            shutdown: Some(shutdown),
            running: tokio::spawn(server.run(async {
                // A dropped sender is a test that ended without stopping it.
                let _ = asked.await;
            })),
        }
    }

    pub fn gateway_addr(&self) -> SocketAddr {
        tcp(&self.gateways)
    }

    pub fn producer_addr(&self) -> SocketAddr {
        tcp(&self.producers)
    }

    /// A client of the gateways' side, on a connection of its own.
    pub async fn gateway(&self) -> PushClient<Channel> {
        PushClient::new(connect(self.gateway_addr()).await)
    }

    /// A client of the producers' side, on a connection of its own.
    pub async fn producer(&self) -> PublisherClient<Channel> {
        PublisherClient::new(connect(self.producer_addr()).await)
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
        let mut producer = self.producer().await;
        let mut cursors = Vec::new();
        for n in from..to {
            let answer = publish(&mut producer, vec![event(n)]).await;
            cursors.push(answer.expect("published").first_cursor);
        }
        cursors
    }

    /// Asks it to stop, without waiting for it.
    pub fn ask_to_stop(&mut self) {
        let shutdown = self.shutdown.take().expect("asked once");
        shutdown.send(()).expect("the server is running");
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

    /// Shows that gateways and producers are served: a new gateway gets a new
    /// event.
    pub async fn assert_alive(&self) {
        let mut gateway = self.subscribe("is it alive", "").await;
        let mut producer = self.producer().await;
        let published = publish(&mut producer, vec![event(7)])
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

pub async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a valid address");
    soon(endpoint.connect()).await.expect("connected")
}

/// A connection with the smallest windows, so that little is under way to a
/// client that does not read.
pub async fn connect_narrow(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .expect("a valid address")
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    soon(endpoint.connect()).await.expect("connected")
}

pub async fn subscribe(
    gateway: &mut PushClient<Channel>,
    id: &str,
    cursor: &str,
) -> Result<Subscription, Status> {
    let request = GatewaySubscribeRequest {
        gateway_client_id: id.to_owned(),
        cursor: cursor.to_owned(),
    };
    let response = soon(gateway.subscribe_push(request)).await?;
    let (metadata, events, _) = response.into_parts();
    Ok(Subscription { metadata, events })
}

pub async fn publish(
    producer: &mut PublisherClient<Channel>,
    events: Vec<PushEvent>,
) -> Result<PublishResponse, Status> {
    let answer = soon(producer.publish(PublishRequest { events })).await?;
    Ok(answer.into_inner())
}

/// An open stream.
#[derive(Debug)]
pub struct Subscription {
    pub metadata: MetadataMap,
    pub events: Streaming<PushEvent>,
}

impl Subscription {
    /// A key of the initial metadata.
    pub fn meta(&self, key: &str) -> Option<&str> {
        Some(self.metadata.get(key)?.to_str().expect("text"))
    }

    /// The next event.
    pub async fn next(&mut self) -> PushEvent {
        match soon(self.events.message()).await {
            Ok(Some(event)) => event,
            other => panic!("no event but {other:?}"),
        }
    }

    /// The next events' cursors.
    pub async fn cursors(&mut self, count: usize) -> Vec<String> {
        let mut cursors = Vec::new();
        for _ in 0..count {
            cursors.push(self.next().await.cursor);
        }
        cursors
    }

    /// Every event up to the end, and the status there.
    pub async fn finish(mut self) -> (Vec<PushEvent>, Status) {
        let mut events = Vec::new();
        loop {
            match soon(self.events.message()).await {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return (events, Status::ok("")),
                Err(status) => return (events, status),
            }
        }
    }
}

/// How many events a status says were missed.
pub fn missed(status: &Status) -> u64 {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let missed = status.metadata().get("push-missed").expect("push-missed");
    missed.to_str().expect("text").parse().expect("a number")
}

/// The `n`th event of a test: each differs from the others.
pub fn event(n: u64) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: format!("user-{}", n % 1000),
            kind: "turn.ready".to_owned(),
            payload: format!(r#"{{"turn":{n}}}"#).into(),
            event_id: format!("event-{n}"),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

/// An event with `bytes` of payload.
pub fn large_event(bytes: usize) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: "user".to_owned(),
            kind: "mail".to_owned(),
            payload: vec![b'x'; bytes].into(),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

pub fn invalidation(user_id: &str) -> PushEvent {
    PushEvent {
        kind: Some(Kind::SessionInvalidation(SessionInvalidation {
            user_id: user_id.to_owned(),
            device_session_id: String::new(),
            reason: "banned".to_owned(),
        })),
        cursor: String::new(),
    }
}
