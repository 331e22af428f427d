//! gRPC's health service on both ports, and what it says of a stop.

#![cfg(feature = "server")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use prost::Message;
use support::grpc::message;
use support::h2_client::H2Client;
use support::tokens::{Tokens, gateway_with_streams, subscribe_as, with_token};
use support::{Harness, connect, event, publish, reason, soon, subscribe};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const LIST: &str = "/grpc.health.v1.Health/List";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const PUSH: &str = "galaxy.backend.push.v1.Push";
const PUBLISHER: &str = "galaxy.push.publisher.v1.Publisher";
const STANDARD: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];
/// A delay or a grace period that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

async fn client(address: SocketAddr) -> HealthClient<Channel> {
    HealthClient::new(connect(address).await)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(client: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Status> {
    let response = soon(client.check(of(service))).await?;
    Ok(response.into_inner().status())
}

/// Waits until the server is ready: it is when the first probe has come back.
async fn until_ready(server: &Harness) {
    let mut client = client(server.gateway_addr()).await;
    soon(async {
        while check(&mut client, "").await.expect("a status") != ServingStatus::Serving {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn watch(address: SocketAddr, service: &str) -> Watching {
    let response = soon(client(address).await.watch(of(service))).await;
    Watching(response.expect("a stream").into_inner())
}

struct Watching(Streaming<HealthCheckResponse>);

impl Watching {
    async fn next(&mut self) -> Result<ServingStatus, Status> {
        let response = soon(self.0.message()).await?;
        Ok(response.expect("it does not end well").status())
    }

    /// Waits for this status; what comes before it does not count.
    async fn until(&mut self, status: ServingStatus) {
        while self.next().await.expect("a status") != status {}
    }
}

#[tokio::test]
async fn each_port_has_the_status_of_its_services() {
    let server = Harness::start().await;
    until_ready(&server).await;
    for (address, own, others) in [
        (server.gateway_addr(), PUSH, PUBLISHER),
        (server.publisher_addr(), PUBLISHER, PUSH),
    ] {
        let mut client = client(address).await;
        for service in ["", own].into_iter().chain(STANDARD) {
            let status = check(&mut client, service).await;
            assert_eq!(status.expect(service), ServingStatus::Serving, "{service}");
        }
        for unknown in [others, "galaxy", "grpc.health.v1.Health/Check"] {
            let status = check(&mut client, unknown).await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            assert_eq!(reason(&status), ("UNKNOWN_SERVICE".to_owned(), false));
        }
    }
}

/// `HealthListResponse`, which tonic-health does not know.
#[derive(Clone, PartialEq, Message)]
struct Statuses {
    #[prost(btree_map = "string, message", tag = "1")]
    statuses: BTreeMap<String, HealthCheckResponse>,
}

#[tokio::test]
async fn all_services_of_a_port_are_listed() {
    let server = Harness::start().await;
    until_ready(&server).await;
    for (address, own) in [
        (
            server.gateway_addr(),
            &[PUSH, "galaxy.push.gateway.v1.Gateway"][..],
        ),
        (server.publisher_addr(), &[PUBLISHER]),
    ] {
        let mut client = H2Client::connect(address).await;
        let response = client.call(LIST, message(b"")).await;
        assert_eq!(response.grpc_status(), Some(Code::Ok));
        let list = Statuses::decode(&response.data[5..]).expect("a HealthListResponse");
        let own = own.iter().copied();
        let mut expected: Vec<_> = own.chain([""]).chain(STANDARD).collect();
        expected.sort_unstable();
        assert!(list.statuses.keys().eq(expected));
        for (service, response) in list.statuses {
            assert_eq!(response.status(), ServingStatus::Serving, "{service}");
        }
    }
}

#[tokio::test]
async fn a_watch_begins_at_once_and_goes_on() {
    let server = Harness::start().await;
    for address in server.addresses() {
        let mut watching = watch(address, "").await;
        watching.until(ServingStatus::Serving).await;
        let mut unknown = watch(address, "x.Y").await;
        let first = unknown.next().await.expect("a status");
        assert_eq!(first, ServingStatus::ServiceUnknown);
        let more = tokio::time::timeout(Duration::from_millis(50), unknown.0.message()).await;
        assert!(more.is_err(), "it waits: {more:?}");
    }
}

#[tokio::test]
async fn a_bad_request_is_refused() {
    let server = Harness::start().await;
    let mut client = H2Client::connect(server.gateway_addr()).await;
    for method in ["Check", "List", "Watch"] {
        let path = format!("/grpc.health.v1.Health/{method}");
        for (body, code) in [
            (vec![], Code::Unimplemented),
            (message(b"\x0a\x05abc"), Code::InvalidArgument),
            (message(&[0; 5000]), Code::InvalidArgument),
            (message(b"").repeat(2), Code::Unimplemented),
            (message(b"abc")[..6].to_vec(), Code::Internal),
        ] {
            let response = client.call(&path, body.clone()).await;
            assert_eq!(response.grpc_status(), Some(code), "{method} {body:?}");
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn probes_need_no_credential_and_watching_does() {
    let tokens = Tokens::new();
    tokens.set(gateway_with_streams("token", &["a"], 2));
    let server = Harness::with_authenticator(|_| {}, tokens.clone()).await;
    until_ready(&server).await;
    for address in server.addresses() {
        let mut bare = client(address).await;
        assert!(check(&mut bare, "").await.is_ok());
        let wrong = with_token("wrong", of(""));
        assert!(soon(bare.check(wrong)).await.is_ok(), "it does not matter");
        let status = soon(bare.watch(of(""))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");

        // It counts among the principal's streams.
        let mut known = client(address).await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            let stream = soon(known.watch(with_token("token", of("")))).await;
            streams.push(stream.expect("a stream").into_inner());
        }
        let status = soon(known.watch(with_token("token", of("")))).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let mut gateway = server.gateway().await;
        let status = subscribe_as(&mut gateway, "token", "a", "").await;
        assert_eq!(status.unwrap_err().code(), Code::ResourceExhausted);
        drop(streams);
        soon(async {
            while let Err(status) = subscribe_as(&mut gateway, "token", "a", "").await {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_credential() {
    let tokens = Tokens::new();
    tokens.set(gateway_with_streams("token", &["a"], 9));
    let server = Harness::with_authenticator(|_| {}, tokens.clone()).await;
    let mut client = client(server.gateway_addr()).await;
    let stream = soon(client.watch(with_token("token", of("")))).await;
    let mut watching = Watching(stream.expect("a stream").into_inner());
    watching.next().await.expect("a status");
    tokens.revoke("token");
    let status = loop {
        if let Err(status) = watching.next().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
}

#[tokio::test]
async fn a_watch_and_a_gateway_share_a_connection() {
    let server = Harness::start().await;
    let channel = connect(server.gateway_addr()).await;
    let mut health = HealthClient::new(channel.clone());
    let stream = soon(health.watch(of(PUSH))).await.expect("a stream");
    let mut watching = Watching(stream.into_inner());
    let mut gateway = subscribe(&mut PushClient::new(channel), "gateway", "")
        .await
        .expect("subscribed");
    watching.until(ServingStatus::Serving).await;
    let published = server.publish(0, 100).await;
    assert_eq!(gateway.cursors(100).await, published);
}

#[tokio::test]
async fn a_stop_is_told_first_and_everything_is_served_until_the_delay_ends() {
    let mut server = Harness::with(|config| {
        config.shutdown_delay = LONG;
        config.shutdown_grace = LONG;
    })
    .await;
    until_ready(&server).await;
    let mut watches = Vec::new();
    for (address, service) in [(server.gateway_addr(), PUSH), (server.publisher_addr(), "")] {
        let mut watching = watch(address, service).await;
        watching.until(ServingStatus::Serving).await;
        watches.push(watching);
    }
    let mut gateway = server.subscribe("gateway", "").await;

    server.ask_to_stop();
    for watching in &mut watches {
        assert_eq!(watching.next().await.unwrap(), ServingStatus::NotServing);
    }
    // New connections too, and a request after the other.
    let mut health = client(server.gateway_addr()).await;
    let status = check(&mut health, "").await.expect("a status");
    assert_eq!(status, ServingStatus::NotServing);
    let mut late = server.subscribe("late", "").await;
    let published = server.publish(0, 10).await;
    assert_eq!(gateway.cursors(10).await, published);
    assert_eq!(late.cursors(10).await, published);

    // The second signal.
    server.hurry();
    for watching in &mut watches {
        let status = watching.next().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(reason(&status).0, "STOPPING");
    }
    for gateway in [gateway, late] {
        let (events, status) = gateway.finish().await;
        assert_eq!((events.len(), status.code()), (0, Code::Unavailable));
    }
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test]
async fn the_delay_ends_by_itself_and_loses_nothing() {
    let server = Harness::with(|config| {
        config.shutdown_delay = Duration::from_millis(200);
        config.shutdown_grace = LONG;
    })
    .await;
    let gateway = server.subscribe("gateway", "").await;
    let mut publisher = PublisherClient::new(connect(server.publisher_addr()).await);
    let engine = server.engine.clone();
    let stopping = tokio::spawn(server.stop());
    let mut published = Vec::new();
    let status = soon(async {
        loop {
            match publish(&mut publisher, vec![event(1)]).await {
                Ok(response) => published.push(response.first_cursor),
                Err(status) => break status,
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(engine.is_closed(), "not before the delay has ended");
    let (events, status) = gateway.finish().await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let delivered: Vec<_> = events.into_iter().map(|event| event.cursor).collect();
    assert_eq!(delivered, published);
    soon(stopping).await.unwrap().expect("a graceful stop");
}

#[tokio::test]
async fn watches_do_not_hold_up_a_stop() {
    let mut server = Harness::with(|config| config.shutdown_grace = LONG).await;
    until_ready(&server).await;
    let mut clients = Vec::new();
    for address in server.addresses() {
        // Nothing at all fits in its windows; and one whose request is not complete.
        let mut client = H2Client::with_window(address, 0).await;
        let (response, mut to) = client.open(WATCH).await;
        to.send_data(message(b"").into(), true).expect("sent");
        let watching = soon(response).await.expect("a response").into_body();
        let (partial, mut to) = client.open(WATCH).await;
        to.send_data(Bytes::from_static(b"\0\0"), false)
            .expect("sent");
        clients.push((client, watching, partial, to));
    }
    let mut watching = watch(server.gateway_addr(), "").await;
    watching.until(ServingStatus::Serving).await;
    server.ask_to_stop();
    // Without a delay too, it is told before the end.
    assert_eq!(watching.next().await.unwrap(), ServingStatus::NotServing);
    let status = watching.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    server.stopped().await.expect("a graceful stop");
    for (client, mut watching, _partial, _to) in clients {
        assert!(soon(watching.data()).await.is_none(), "there was no window");
        let trailers = soon(watching.trailers()).await.expect("trailers");
        assert_eq!(trailers.expect("trailers")["grpc-status"], "14");
        soon(client.driver).await.expect("it has ended");
    }
}

#[tokio::test]
async fn a_wedged_server_is_not_ready() {
    // A runtime of its own, of which one thread is blocked.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let server = runtime.spawn(Harness::start()).await.expect("a server");
    until_ready(&server).await;
    let mut watching = watch(server.gateway_addr(), "").await;
    watching.until(ServingStatus::Serving).await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    runtime.spawn(async move {
        let _ = blocked.recv();
    });
    // The other thread still tells.
    watching.until(ServingStatus::NotServing).await;
    drop(release);
    watching.until(ServingStatus::Serving).await;
    server.stop().await.expect("a graceful stop");
    runtime.shutdown_background();
}
