//! The engine inside somebody else's process: `SubscribePush` on a plain tonic
//! server, beside a service that is not ours, and the example that shows it.

#![cfg(feature = "cli")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use galaxy_push::access::{AccessError, Authenticator, Credentials, Identity, Peer};
use galaxy_push::client::{Gateway, Item};
use galaxy_push::config::Address;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::publisher::publisher_server::{Publisher, PublisherServer};
use galaxy_push::contract::publisher::{
    PublishRequest, PublishResponse, WaitEnforcedRequest, WaitEnforcedResponse,
};
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent, SessionInvalidation};
use galaxy_push::engine::{Builder, DEFAULT_MAX_BATCH_BYTES, Engine};
use galaxy_push::event::Event;
use galaxy_push::grpc::{PushService, for_gateways};
use prost::Message;
use rustix::process::Signal;
use support::certificates::{self, Ca};
use support::grpc::{SUBSCRIBE, subscribe_request};
use support::h2_client::{H2Client, Valved};
use support::process::Process;
use support::tokens::{self, Tokens, subscribe_as};
use support::{
    Subscription, connect, connect_narrow, event, invalidation, large_event, missed, publish,
    reason, soon, subscribe, until,
};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::codegen::BoxStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate as TonicCertificate, Identity as TonicIdentity, Server, ServerTlsConfig,
};
use tonic::{Code, Request, Response, Status, Streaming};

/// A backend with an engine and a service of its own, on one port.
struct Backend {
    engine: Engine,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Backend {
    fn start() -> Self {
        Self::with(|engine| engine)
    }

    fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        Self::serving(change, |service| service)
    }

    /// For those whom the authenticator lets in.
    fn with_authenticator(authenticator: Arc<dyn Authenticator>) -> Self {
        Self::serving(
            |engine| engine,
            |service| service.with_authenticator(authenticator),
        )
    }

    fn serving(
        change: impl FnOnce(Builder) -> Builder,
        service: impl FnOnce(PushService) -> PushService,
    ) -> Self {
        let builder = Engine::builder().max_bytes(16 << 20).max_events(100_000);
        let engine = change(builder).build().expect("an engine");
        tokio::spawn(engine.notifier());
        let any_port = "127.0.0.1:0".parse().expect("an address");
        let incoming = TcpIncoming::bind(any_port).expect("bound");
        let incoming = incoming.with_nodelay(Some(true));
        let address = incoming.local_addr().expect("an address");
        let (stop, stopping) = oneshot::channel::<()>();
        let service = service(PushService::new(engine.clone()));
        let running = tokio::spawn(
            for_gateways(Server::builder())
                .add_service(PublisherServer::new(Own))
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, async {
                    // A dropped sender is a test that ended without stopping it.
                    let _ = stopping.await;
                }),
        );
        Backend {
            engine,
            address,
            stop,
            running,
        }
    }

    async fn subscribe(&self, id: &str, cursor: &str) -> Subscription {
        let mut gateway = PushClient::new(connect(self.address).await);
        subscribe(&mut gateway, id, cursor)
            .await
            .expect("subscribed")
    }

    /// Publishes events `from..to` in process; returns their cursors.
    fn publish(&self, from: u64, to: u64) -> Vec<String> {
        (from..to).map(|n| self.publish_one(&event(n))).collect()
    }

    fn publish_one(&self, event: &PushEvent) -> String {
        let encoded = event.encode_to_vec();
        let event = Event::parse(&encoded).expect("valid");
        let published = self.engine.publisher().publish(event);
        published.expect("published").to_string()
    }
}

/// The service that is not ours: it takes everything, and does nothing.
struct Own;

#[tonic::async_trait]
impl Publisher for Own {
    async fn publish(
        &self,
        _: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        Ok(Response::new(PublishResponse::default()))
    }

    type PublishStreamStream = BoxStream<PublishResponse>;

    async fn wait_enforced(
        &self,
        _: Request<WaitEnforcedRequest>,
    ) -> Result<Response<WaitEnforcedResponse>, Status> {
        Err(Status::unimplemented("nobody waits here"))
    }

    async fn publish_stream(
        &self,
        _: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Err(Status::unimplemented("none"))
    }
}

#[tokio::test]
async fn an_authenticator_says_who_may_subscribe_and_for_how_long() {
    let tokens = Tokens::new();
    tokens.set(tokens::gateway("token-a", &["a"]));
    tokens.set(tokens::gateway("token-b", &["b"]));
    let end = SystemTime::now() + Duration::from_secs(2);
    tokens.set(tokens::until(tokens::gateway("brief", &["brief"]), end));
    let backend = Backend::with_authenticator(tokens.clone());
    let mut gateway = PushClient::new(connect(backend.address).await);

    let refused = subscribe(&mut gateway, "a", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut genuine = subscribe_as(&mut gateway, "token-a", "a", "")
        .await
        .unwrap();
    let refused = subscribe_as(&mut gateway, "token-b", "a", "")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let brief = subscribe_as(&mut gateway, "brief", "brief", "")
        .await
        .unwrap();
    let other = subscribe_as(&mut gateway, "token-b", "b", "")
        .await
        .unwrap();
    let first = backend.publish(0, 1);
    assert_eq!(genuine.cursors(1).await, first);

    tokens.revoke("token-b");
    let (events, status) = other.finish().await;
    assert_eq!((events.len(), status.code()), (1, Code::PermissionDenied));
    let (events, status) = brief.finish().await;
    assert_eq!((events.len(), status.code()), (1, Code::Unauthenticated));
    let second = backend.publish(1, 2);
    assert_eq!(genuine.cursors(1).await, second);

    let newer = subscribe_as(&mut gateway, "token-a", "a", "")
        .await
        .unwrap();
    let (_, status) = genuine.finish().await;
    assert_eq!(status.code(), Code::Aborted);
    drop(newer);
}

/// Notes from where it was called.
#[derive(Debug, Default)]
struct Peers(Mutex<Vec<Peer>>);

impl Authenticator for Peers {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        self.0.lock().unwrap().push(credentials.peer);
        Err(AccessError::Unknown)
    }
}

#[tokio::test]
async fn an_authenticator_is_shown_the_address_that_tonic_knows() {
    let peers = Arc::new(Peers::default());
    let backend = Backend::with_authenticator(peers.clone());
    let mut gateway = PushClient::new(connect(backend.address).await);
    subscribe(&mut gateway, "a", "").await.unwrap_err();
    let seen = peers.0.lock().unwrap().clone();
    let [Peer::Tcp(address)] = seen[..] else {
        panic!("{seen:?}");
    };
    assert!(address.ip().is_loopback() && address.port() != backend.address.port());
}

#[tokio::test]
async fn gateways_subscribe_beside_a_service_that_is_not_ours() {
    let backend = Backend::start();
    let channel = connect(backend.address).await;
    let mut gateway = PushClient::new(channel.clone());
    let mut subscription = subscribe(&mut gateway, "gateway", "").await.unwrap();
    assert_eq!(subscription.meta("push-resume"), Some("fresh"));
    assert_eq!(subscription.meta("push-resume-reason"), Some("no-cursor"));

    // Both at once, over one connection.
    let mut own = PublisherClient::new(channel);
    publish(&mut own, vec![event(0)]).await.expect("accepted");
    let published = backend.publish(0, 1000);
    assert_eq!(subscription.cursors(1000).await, published);
    let sent = backend.publish_one(&event(1000));
    let expected = PushEvent {
        cursor: sent,
        ..event(1000)
    };
    assert_eq!(subscription.next().await, expected);
}

#[tokio::test]
async fn a_gateway_resumes_after_its_cursor() {
    let backend = Backend::start();
    let published = backend.publish(0, 10);
    let mut subscription = backend.subscribe("gateway", &published[3]).await;
    assert_eq!(subscription.meta("push-resume"), Some("resumed"));
    assert_eq!(subscription.meta("push-start-cursor"), Some(&*published[3]));
    assert_eq!(subscription.cursors(6).await, published[4..]);
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives_where_that_is_asked_for() {
    let backend = Backend::start();
    let mut gateway = PushClient::new(connect(backend.address).await);
    let mut request = Request::new(GatewaySubscribeRequest {
        gateway_client_id: "gateway".to_owned(),
        cursor: String::new(),
    });
    let interval = "1s".parse().expect("metadata");
    request.metadata_mut().insert("push-heartbeat", interval);
    let response = soon(gateway.subscribe_push(request))
        .await
        .expect("subscribed");
    let metadata = response.metadata().clone();
    assert_eq!(metadata.get("push-heartbeat").expect("told"), "1s");
    let mut events = response.into_inner();
    let mut next = async || soon(events.message()).await.expect("open").expect("more");
    for _ in 0..2 {
        let heartbeat = next().await;
        assert_eq!(heartbeat.kind, None);
        assert_eq!(
            metadata.get("push-start-cursor").expect("told"),
            &*heartbeat.cursor
        );
    }
    let cursor = backend.publish_one(&event(1));
    while next().await.kind.is_none() {}
    assert_eq!(next().await.cursor, cursor, "a heartbeat after the event");
}

#[tokio::test]
async fn a_newer_subscription_takes_over() {
    let backend = Backend::start();
    let older = backend.subscribe("gateway", "").await;
    let mut newer = backend.subscribe("gateway", "").await;
    let published = backend.publish(0, 3);
    let (events, status) = older.finish().await;
    assert_eq!((events.len(), status.code()), (0, Code::Aborted));
    assert_eq!(reason(&status).0, "TAKEN_OVER");
    assert_eq!(newer.cursors(3).await, published);
}

#[tokio::test]
async fn a_gateway_that_was_too_slow_is_told_how_many_it_missed() {
    let backend = Backend::with(|engine| engine.max_bytes(4 << 20));
    let mut narrow = PushClient::new(connect_narrow(backend.address).await);
    let slow = subscribe(&mut narrow, "slow", "").await.unwrap();
    let published = 2000;
    for _ in 0..published {
        backend.publish_one(&large_event(10_000));
    }
    let (events, status) = slow.finish().await;
    assert_eq!(events.len() as u64 + missed(&status), published);
}

#[tokio::test]
async fn a_request_out_of_bounds_is_refused() {
    let backend = Backend::with(|engine| engine.max_subscribers(1));
    let mut client = H2Client::connect(backend.address).await;
    let long = subscribe_request(&"x".repeat(5000), "");
    let too_long = client.call(SUBSCRIBE, long).await;
    assert_eq!(too_long.grpc_status(), Some(Code::InvalidArgument));
    let no_id = subscribe_request("", "");
    let no_id = client.call(SUBSCRIBE, no_id).await;
    assert_eq!(no_id.grpc_status(), Some(Code::InvalidArgument));

    let mut gateway = PushClient::new(connect(backend.address).await);
    let refused = subscribe(&mut gateway, "", "").await.unwrap_err();
    assert_eq!(reason(&refused), ("INVALID_GATEWAY_ID".to_owned(), false));

    let _only = backend.subscribe("only", "").await;
    let other = subscribe_request("other", "");
    let one_too_many = client.call(SUBSCRIBE, other).await;
    assert_eq!(one_too_many.grpc_status(), Some(Code::ResourceExhausted));
}

#[tokio::test]
async fn closing_the_engine_ends_streams_and_lets_the_server_end() {
    let backend = Backend::start();
    let gateways = [
        backend.subscribe("gateway-1", "").await,
        backend.subscribe("gateway-2", "").await,
    ];
    let published = backend.publish(0, 1000);
    backend.engine.close();
    backend.stop.send(()).expect("it is running");
    for gateway in gateways {
        let (events, status) = gateway.finish().await;
        let delivered: Vec<_> = events.into_iter().map(|event| event.cursor).collect();
        assert_eq!(delivered, published);
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(reason(&status).0, "STOPPING");
    }
    let ended = soon(backend.running).await.expect("no panic");
    ended.expect("a graceful end");
}

/// What the documentation of `PushService` promises.
#[tokio::test]
async fn a_gateway_that_takes_nothing_pins_a_bounded_piece_of_the_ring() {
    // What hyper keeps for a stream that the socket does not take.
    const SEND_BUFFER_BYTES: u64 = 400 << 10;
    let backend = Backend::with(|engine| engine.max_bytes(4 << 20));
    let segment_bytes = backend.engine.limits().segment_bytes;
    let in_hand = 3 * DEFAULT_MAX_BATCH_BYTES as u64 + SEND_BUFFER_BYTES;
    // The first and the last segment are held for a part of them.
    let most = in_hand.next_multiple_of(segment_bytes) + segment_bytes;

    // One whose window is shut, and one that leaves everything in its socket.
    let mut narrow = H2Client::with_window(backend.address, 100).await;
    let _narrow_stream = narrow.subscribe("narrow").await;
    let pinned_by = async |events: u64| {
        for n in 0..events {
            backend.publish_one(&large_event(10_000));
            // Now and then, so that the server takes large batches.
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
            let pinned = backend.engine.stats().pinned_bytes;
            assert!(pinned <= most, "{pinned} are more than {most}");
        }
        until(|| backend.engine.stats().pinned_bytes > 0).await;
    };
    pinned_by(2000).await;
    narrow.driver.abort();
    until(|| backend.engine.stats().pinned_bytes == 0).await;

    let (valve, _) = watch::channel(true);
    let socket = TcpStream::connect(backend.address).await.unwrap();
    let mut deaf = H2Client::over(Valved::new(socket, &valve), 256 << 20).await;
    let _deaf_stream = deaf.subscribe("deaf").await;
    valve.send_replace(false);
    pinned_by(4000).await;
}

/// Builds the example as `cargo test` does, which is done already unless only this
/// file's tests were asked for.
fn built_example() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--profile", "test"])
        .args(["--example", "embed", "--message-format", "json"])
        // `cargo test` sets what the build script did; with it set, all is built anew.
        .env_remove("GALAXY_PUSH_REVISION")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let messages = String::from_utf8(output.stdout).expect("UTF-8");
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.expect("cargo names the executable")
}

/// The next event of a gateway that is meant to be neither cut off nor behind.
async fn next_event(gateway: &mut Gateway) -> Kind {
    loop {
        match soon(gateway.next()).await.expect("not stopped") {
            Item::Event { cursor, event } => {
                gateway.processed(cursor);
                return event.kind.expect("a kind");
            }
            Item::Connected(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_example_serves_a_game_until_it_is_interrupted() {
    let mut command = Command::new(built_example());
    command.arg("127.0.0.1:0");
    let mut example = Process::spawn(command);
    let line = example.out.next().expect("a first line");
    let address = line.strip_prefix("listening on ").expect("an address");

    let at = Address::Tcp(address.to_owned());
    let mut gateway = Gateway::builder("gateway", at).build().unwrap();
    let Kind::ClientEvent(turn) = next_event(&mut gateway).await else {
        panic!("the game begins with a turn");
    };
    assert_eq!(turn.kind, "turn.ready");

    // A moderator, on the same port: allowed to end sessions, and only that.
    let mut moderator = PublisherClient::new(connect(address.parse().unwrap()).await);
    let refused = publish(&mut moderator, vec![event(1)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let ban = invalidation("usr-vex");
    publish(&mut moderator, vec![ban]).await.expect("published");
    let revoked = loop {
        if let Kind::SessionInvalidation(revoked) = next_event(&mut gateway).await
            && revoked.reason == "banned"
        {
            break revoked;
        }
    };
    let expected = SessionInvalidation {
        user_id: "usr-vex".to_owned(),
        reason: "banned".to_owned(),
        ..SessionInvalidation::default()
    };
    assert_eq!(revoked, expected);

    example.signal(Signal::INT);
    let disconnected = loop {
        match soon(gateway.next()).await.expect("not stopped") {
            Item::Disconnected { cause, .. } => break cause.to_string(),
            Item::Event { cursor, .. } => gateway.processed(cursor),
            other => panic!("{other:?}"),
        }
    };
    assert!(disconnected.contains("stopping"), "{disconnected}");
    // Meanwhile the clients' side must run: HTTP/2 ends in an exchange.
    let ended = tokio::task::spawn_blocking(move || example.end());
    let status = soon(ended).await.expect("no panic");
    assert_eq!(status.code(), Some(0));
}

/// Of each gateway's certificate, the id that it may use.
#[derive(Debug)]
struct ByCertificate;

impl Authenticator for ByCertificate {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        let certificate = credentials.certificate.ok_or(AccessError::NoCredential)?;
        let uri = certificate.uris.first().ok_or(AccessError::Unknown)?;
        let id = uri.rsplit('/').next().unwrap_or_default();
        Ok(Identity::new(uri.as_str()).subscribe(vec![id.to_owned()]))
    }
}

#[tokio::test]
async fn behind_tonics_own_tls_the_clients_certificate_is_the_credential() {
    let (ca, clients) = (Ca::new("server CA"), Ca::new("client CA"));
    let server = ca.server();
    let tls = ServerTlsConfig::new()
        .identity(TonicIdentity::from_pem(server.certificate, server.key))
        .client_ca_root(TonicCertificate::from_pem(&clients.pem));
    let engine = Engine::builder()
        .max_bytes(16 << 20)
        .build()
        .expect("an engine");
    tokio::spawn(engine.notifier());
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).expect("bound");
    let address = incoming.local_addr().expect("its address");
    let service = PushService::new(engine.clone()).with_authenticator(Arc::new(ByCertificate));
    let running = tokio::spawn(
        for_gateways(Server::builder())
            .tls_config(tls)
            .expect("a configuration")
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    let gateway = clients.client(&["spiffe://galaxy/gateway/one"]);
    let config = certificates::client(&ca, Some(&gateway));
    let mut client = PushClient::new(certificates::channel(address, &config).await);
    let mut stream = subscribe(&mut client, "one", "").await.expect("subscribed");
    let refused = subscribe(&mut client, "two", "")
        .await
        .expect_err("another's");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert_eq!(reason(&refused).0, "SUBSCRIBE_NOT_GRANTED");
    let event = event(1).encode_to_vec();
    let event = Event::parse(&event).expect("an event");
    let published = engine.publisher().publish(event).expect("published");
    assert_eq!(stream.next().await.cursor, published.to_string());
    running.abort();
}
