//! Receipts between real gateways, a real server and a publisher: when a ban is certain, and who is
//! missing where it is not.

#![cfg(all(feature = "client", feature = "server"))]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use galaxy_push::access::{EventKinds, Identity, Limits};
use galaxy_push::client::{Builder, Gateway};
use galaxy_push::contract::gateway::gateway_client::GatewayClient;
use galaxy_push::contract::gateway::{ReportRequest, ReportResponse};
use galaxy_push::contract::publisher::missing_gateway::Reason;
use galaxy_push::contract::publisher::{WaitEnforcedRequest, WaitEnforcedResponse};
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use galaxy_push::cursor::{Cursor, Seq};
use galaxy_push::engine::Engine;
use galaxy_push::gateway::{Driver, Refusal, Router};
use galaxy_push::grpc::{PushService, for_gateways};
use support::sessions::{
    Backend, Relay, client_event, invalidation, put, run, subscription, subscription_of,
};
use support::tokens::{Tokens, with_token};
use support::{HANG, Harness, connect, reason, soon};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Status, Streaming};

const LEASE: Duration = Duration::from_secs(2);

/// A server whose gateways may have short leases, so that a test need not wait for long ones.
async fn server() -> Harness {
    Harness::with(|config| config.max_lease = LEASE).await
}

fn router() -> galaxy_push::gateway::Builder {
    Router::builder().stale_after(LEASE)
}

async fn try_wait(
    server: &Harness,
    cursor: &str,
    timeout: Duration,
) -> Result<WaitEnforcedResponse, Status> {
    let mut publisher = server.publisher().await;
    let request = WaitEnforcedRequest {
        cursor: cursor.to_owned(),
        timeout_ms: u32::try_from(timeout.as_millis()).expect("short"),
    };
    let answer = soon(publisher.wait_enforced(request)).await?;
    Ok(answer.into_inner())
}

async fn wait(server: &Harness, cursor: Cursor, timeout: Duration) -> WaitEnforcedResponse {
    let answer = try_wait(server, &cursor.to_string(), timeout).await;
    answer.expect("an answer")
}

fn missing(answer: &WaitEnforcedResponse) -> Vec<(&str, Reason)> {
    let missing = answer.missing.iter();
    missing
        .map(|of| (&*of.gateway_client_id, of.reason()))
        .collect()
}

#[tokio::test]
async fn a_ban_is_certain_when_every_gateway_has_enforced_it() {
    let server = server().await;
    let of = |id| run(subscription_of(id, server.gateway_addr()), router());
    let (one, two) = (of("one").await, of("two").await);
    let sessions = [one.open("ada", "phone"), two.open("ada", "laptop")];
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    // It has just started, and does not know who else there may be.
    let at_once = wait(&server, banned, Duration::ZERO).await;
    assert!(!at_once.proven && at_once.unknown_ms > 0, "{at_once:?}");
    let answer = wait(&server, banned, HANG).await;
    assert!(answer.proven, "{answer:?}");
    let counts = (answer.gateways, answer.enforced, answer.fenced);
    assert_eq!((counts, answer.unknown_ms), ((2, 2, 0), 0));
    for session in sessions {
        assert!(matches!(session.check(), Err(Refusal::Ended(_))));
    }
    // From now on it takes no longer than the gateways do. What is not about a session counts, too.
    let published = vec![invalidation("ben", "", "x"), client_event("eve", "", "y")];
    let last = put(&server, published).await;
    let answer = wait(&server, last, HANG).await;
    assert_eq!((answer.proven, answer.enforced), (true, 2), "{answer:?}");
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_fenced_and_serves_nobody_by_then() {
    let server = server().await;
    let relay = Relay::before(server.gateway_addr()).await;
    let near = run(subscription_of("near", server.gateway_addr()), router()).await;
    let far = run(subscription_of("far", relay.address), router()).await;
    let session = far.open("ada", "phone");
    relay.cut();
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    let answer = wait(&server, banned, HANG).await;
    assert_eq!(session.check(), Err(Refusal::Stale));
    assert!(answer.proven, "{answer:?}");
    assert_eq!((answer.gateways, answer.enforced, answer.fenced), (2, 1, 1));
    assert!(!near.router.is_stale());
    // When it is back, it knows of the ban before it lets anybody in.
    relay.mend();
    soon(far.router.ready()).await;
    assert!(matches!(session.check(), Err(Refusal::Ended(_))));
    let answer = wait(&server, banned, HANG).await;
    assert!(answer.proven && answer.gateways == 2, "{answer:?}");
}

#[tokio::test]
async fn a_gateway_without_reports_is_missing_by_its_name() {
    let server = server().await;
    let of = |id| run(subscription_of(id, server.gateway_addr()), router());
    let _reports = of("reports").await;
    let plain = server.subscribe("plain", "").await;
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    let answer = wait(&server, banned, LEASE).await;
    assert!(!answer.proven);
    assert_eq!(missing(&answer), [("plain", Reason::NoReports)]);
    assert_eq!((answer.gateways, answer.enforced), (2, 1));
    // It has left, and may serve on: for so long as a gateway with a lease might.
    drop(plain);
    support::until(|| server.engine.stats().subscribers == 1).await;
    let answer = wait(&server, banned, Duration::ZERO).await;
    assert_eq!(missing(&answer), [("plain", Reason::Left)]);
    let answer = wait(&server, banned, HANG).await;
    assert!(answer.proven, "{answer:?}");
}

#[tokio::test]
async fn a_gateway_that_says_good_bye_is_not_waited_for() {
    let server = Harness::with(|config| config.max_lease = Duration::from_secs(600)).await;
    let (router, feed) = Router::builder().build();
    let subscription = subscription(server.gateway_addr());
    let driver = Driver::new(subscription, feed, Backend::default()).expect("valid");
    let (shut_down, shutting_down) = oneshot::channel::<()>();
    let driving = tokio::spawn(driver.run_until(async move {
        let _ = shutting_down.await;
    }));
    soon(router.ready()).await;
    let ticket = router.begin_authentication();
    let session = router.open(ticket, "ada", "phone").expect("valid");
    shut_down.send(()).expect("it runs");
    let stopped = soon(driving).await.expect("it has not panicked");
    assert!(stopped.is_none(), "{stopped:?}");
    assert_eq!(session.check(), Err(Refusal::Stale));
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    let answer = wait(&server, banned, Duration::ZERO).await;
    assert_eq!((answer.gateways, missing(&answer)), (0, vec![]));
}

/// So does one whose id another process has taken over.
#[tokio::test]
async fn a_gateway_that_is_taken_over_is_not_waited_for() {
    let server = Harness::with(|config| config.max_lease = Duration::from_secs(600)).await;
    let older = run(subscription(server.gateway_addr()), Router::builder()).await;
    let newer = run(subscription(server.gateway_addr()), Router::builder()).await;
    soon(older.until(|older| older.router.is_stale())).await;
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    let is_enforced = async {
        loop {
            let answer = wait(&server, banned, Duration::from_millis(100)).await;
            if answer.missing.is_empty() && answer.gateways == 1 {
                return answer;
            }
        }
    };
    let answer = soon(is_enforced).await;
    assert_eq!((answer.enforced, answer.fenced), (1, 0), "{answer:?}");
    assert!(!newer.router.is_stale());
}

/// A gateway that has a stream, and an instance.
async fn subscribe(server: &Harness, id: &str, instance: &str) -> Streaming<PushEvent> {
    let mut request = Request::new(GatewaySubscribeRequest {
        gateway_client_id: id.to_owned(),
        cursor: String::new(),
    });
    let instance = instance.parse().expect("a header's value");
    request.metadata_mut().insert("push-instance", instance);
    let mut gateway = server.gateway().await;
    let response = soon(gateway.subscribe_push(request)).await;
    response.expect("subscribed").into_inner()
}

async fn report(
    server: &Harness,
    change: impl FnOnce(&mut ReportRequest),
) -> Result<ReportResponse, Status> {
    let mut request = ReportRequest {
        gateway_client_id: "g".to_owned(),
        instance: "one".to_owned(),
        enforced_cursor: server.engine.head().to_string(),
        lease_ms: 2000,
    };
    change(&mut request);
    let mut gateway = GatewayClient::new(connect(server.gateway_addr()).await);
    Ok(soon(gateway.report(request)).await?.into_inner())
}

#[tokio::test]
async fn a_report_that_cannot_be_is_refused_and_says_what_is_wrong() {
    let server = server().await;
    put(&server, vec![client_event("ada", "", "x"); 3]).await;
    let head = server.engine.head();
    let status = report(&server, |_| ()).await.unwrap_err();
    assert_eq!(reason(&status).0, "NOT_SUBSCRIBED");
    let _stream = subscribe(&server, "g", "one").await;
    let earlier = Cursor::new(head.epoch(), Seq::new(1)).to_string();
    let answered = report(&server, |_| ()).await.expect("it is valid");
    assert_eq!(answered.head_cursor, head.to_string());
    let beyond = Cursor::new(head.epoch(), Seq::new(4)).to_string();
    let other = "000000000001-00000000001".to_owned();
    type Change = Box<dyn FnOnce(&mut ReportRequest)>;
    let changes: Vec<(Change, Code, &str, &str)> = vec![
        (
            Box::new(|of| of.gateway_client_id.clear()),
            Code::InvalidArgument,
            "INVALID_GATEWAY_ID",
            "empty",
        ),
        (
            Box::new(|of| of.instance.clear()),
            Code::InvalidArgument,
            "INVALID_INSTANCE",
            "instance",
        ),
        (
            Box::new(|of| of.enforced_cursor = "7".to_owned()),
            Code::InvalidArgument,
            "INVALID_CURSOR",
            "enforced_cursor",
        ),
        (
            Box::new(move |of| of.enforced_cursor = other),
            Code::FailedPrecondition,
            "OTHER_EPOCH",
            "another server",
        ),
        (
            Box::new(move |of| of.enforced_cursor = beyond),
            Code::InvalidArgument,
            "CURSOR_BEYOND_HEAD",
            "beyond",
        ),
        (
            Box::new(move |of| of.enforced_cursor = earlier),
            Code::FailedPrecondition,
            "ENFORCED_WENT_BACK",
            "another process",
        ),
        (
            Box::new(|of| of.lease_ms = 2001),
            Code::InvalidArgument,
            "DURATION_NOT_ALLOWED",
            "lease_ms",
        ),
        (
            Box::new(|of| of.lease_ms = 999),
            Code::InvalidArgument,
            "DURATION_NOT_ALLOWED",
            "999ms",
        ),
    ];
    for (change, code, why, text) in changes {
        let status = report(&server, change).await.unwrap_err();
        assert_eq!((status.code(), &*reason(&status).0), (code, why));
        assert!(status.message().contains(text), "{status:?}");
    }
    // It has left no trace.
    let answer = wait(&server, head, Duration::ZERO).await;
    assert_eq!((answer.gateways, answer.enforced), (1, 1));
}

#[tokio::test]
async fn a_wait_that_cannot_be_is_refused_and_says_what_is_wrong() {
    let server = server().await;
    let head = server.engine.head();
    let ahead = server.engine.limits().max_batch_events as u64 + 1;
    let beyond = Cursor::new(head.epoch(), Seq::new(ahead)).to_string();
    for (cursor, timeout, why) in [
        ("", 0, "INVALID_CURSOR"),
        ("000000000001-00000000001", 0, "OTHER_EPOCH"),
        (&*beyond, 0, "CURSOR_BEYOND_HEAD"),
        (&*head.to_string(), 601, "DURATION_NOT_ALLOWED"),
    ] {
        let refused = try_wait(&server, cursor, Duration::from_secs(timeout)).await;
        assert_eq!(reason(&refused.unwrap_err()).0, why, "{cursor:?}");
    }
}

#[tokio::test]
async fn only_so_many_wait_and_those_are_told_when_the_server_stops() {
    let server = server().await;
    let _plain = server.subscribe("plain", "").await;
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    let request = WaitEnforcedRequest {
        cursor: banned.to_string(),
        timeout_ms: 600_000,
    };
    let mut publishers = [server.publisher().await, server.publisher().await];
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..256 {
        let (mut publisher, request) = (publishers[n % 2].clone(), request.clone());
        waiting.spawn(async move {
            // One of the others below may have had its place for a moment.
            while publisher.wait_enforced(request.clone()).await.is_err() {}
        });
    }
    let too_many = async {
        loop {
            let answer = publishers[0].wait_enforced(WaitEnforcedRequest {
                timeout_ms: 1,
                ..request.clone()
            });
            if let Err(status) = answer.await {
                return status;
            }
        }
    };
    let status = soon(too_many).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), ("TOO_MANY_WAITS".to_owned(), true));
    // Whoever hangs up makes room.
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    let mut publisher = publishers[1].clone();
    let room = async {
        loop {
            let request = WaitEnforcedRequest {
                timeout_ms: 1,
                ..request.clone()
            };
            if publisher.wait_enforced(request).await.is_ok() {
                return;
            }
        }
    };
    soon(room).await;
    let mut publisher = publishers[0].clone();
    let last = tokio::spawn(async move { publisher.wait_enforced(request).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    soon(server.stop()).await.expect("it stops");
    let status = soon(last).await.expect("it has not panicked").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

/// A request of whoever has this token, or of nobody.
fn of<T>(token: Option<&str>, message: T) -> Request<T> {
    match token {
        Some(token) => with_token(token, message),
        None => Request::new(message),
    }
}

#[tokio::test]
async fn reports_and_waits_are_for_those_who_may() {
    let tokens = Tokens::new();
    tokens.set(support::tokens::gateway("one", &["g"]));
    tokens.set(support::tokens::publisher("events"));
    let revokes = EventKinds {
        client_event: false,
        session_invalidation: true,
    };
    tokens.set(Identity::new("revokes").publish(revokes));
    let server = Harness::with_authenticator(|_| (), Arc::clone(&tokens) as _).await;
    let cursor = server.engine.head().to_string();
    let report = |id: &'static str, token: Option<&'static str>| {
        let report = ReportRequest {
            gateway_client_id: id.to_owned(),
            instance: "i".to_owned(),
            enforced_cursor: cursor.clone(),
            lease_ms: 5000,
        };
        let request = of(token, report);
        let address = server.gateway_addr();
        async move {
            let mut gateway = GatewayClient::new(connect(address).await);
            soon(gateway.report(request)).await.map(|_| ())
        }
    };
    // It may, and has no stream.
    let status = report("g", Some("one")).await.unwrap_err();
    assert_eq!(reason(&status).0, "NOT_SUBSCRIBED");
    let mut stream = with_token(
        "one",
        GatewaySubscribeRequest {
            gateway_client_id: "g".to_owned(),
            cursor: String::new(),
        },
    );
    let instance = "i".parse().expect("a header's value");
    stream.metadata_mut().insert("push-instance", instance);
    let mut gateway = server.gateway().await;
    let _stream = soon(gateway.subscribe_push(stream)).await.expect("it may");
    assert!(report("g", Some("one")).await.is_ok());
    for (id, token, why) in [
        ("g", None, "CREDENTIAL_MISSING"),
        ("h", Some("one"), "SUBSCRIBE_NOT_GRANTED"),
        ("g", Some("events"), "SUBSCRIBE_NOT_GRANTED"),
    ] {
        let status = report(id, token).await.unwrap_err();
        assert_eq!(reason(&status).0, why);
    }
    let wait = |token: Option<&'static str>| {
        let wait = WaitEnforcedRequest {
            cursor: cursor.clone(),
            timeout_ms: 0,
        };
        let request = of(token, wait);
        let server = &server;
        async move {
            let mut publisher = server.publisher().await;
            soon(publisher.wait_enforced(request)).await.map(|_| ())
        }
    };
    assert!(wait(Some("revokes")).await.is_ok());
    for (token, why) in [
        (None, "CREDENTIAL_MISSING"),
        (Some("events"), "PUBLISH_NOT_GRANTED"),
        (Some("one"), "PUBLISH_NOT_GRANTED"),
    ] {
        assert_eq!(reason(&wait(token).await.unwrap_err()).0, why);
    }
}

/// A wait lasts: it counts as a stream, and ends with the right to it.
#[tokio::test]
async fn a_wait_ends_with_the_credential() {
    let tokens = Tokens::new();
    let revokes = EventKinds {
        client_event: false,
        session_invalidation: true,
    };
    let limits = Limits::default().max_streams(1);
    tokens.set(Identity::new("revokes").publish(revokes).limits(limits));
    tokens.set(support::tokens::gateway("plain", &["g"]));
    let server = Harness::with_authenticator(|_| (), Arc::clone(&tokens) as _).await;
    let plain = GatewaySubscribeRequest {
        gateway_client_id: "g".to_owned(),
        cursor: String::new(),
    };
    let mut gateway = server.gateway().await;
    let plain = soon(gateway.subscribe_push(with_token("plain", plain))).await;
    let _plain = plain.expect("it may");
    let cursor = server.engine.head().to_string();
    let publisher = server.publisher().await;
    let wait = move |timeout_ms| {
        let request = WaitEnforcedRequest {
            cursor: cursor.clone(),
            timeout_ms,
        };
        let mut publisher = publisher.clone();
        async move {
            publisher
                .wait_enforced(with_token("revokes", request))
                .await
        }
    };
    // The others may be there first.
    let long = wait.clone();
    let waiting = tokio::spawn(async move {
        loop {
            match long(600_000).await {
                Err(status) if reason(&status).0 == "TOO_MANY_STREAMS" => {}
                other => return other,
            }
        }
    });
    let second = async {
        loop {
            if let Err(status) = wait(0).await {
                return status;
            }
        }
    };
    assert_eq!(reason(&soon(second).await).0, "TOO_MANY_STREAMS");
    tokens.revoke("revokes");
    let ended = soon(waiting)
        .await
        .expect("it has not panicked")
        .unwrap_err();
    assert_eq!(reason(&ended).0, "CREDENTIAL_REVOKED");
}

/// A cursor that was not given to anybody changes nothing for the others.
#[tokio::test]
async fn a_wait_for_what_is_not_published_leaves_gateways_alone() {
    let server = server().await;
    let gateway = run(subscription(server.gateway_addr()), router()).await;
    let head = server.engine.head();
    let ahead = Cursor::new(head.epoch(), Seq::new(100)).to_string();
    let answer = try_wait(&server, &ahead, LEASE + LEASE / 2).await;
    let answer = answer.expect("it may be");
    assert!(!answer.proven && answer.gateways == 0, "{answer:?}");
    assert!(!gateway.router.is_stale());
    // Once it is there, it counts.
    let waiting = async { try_wait(&server, &ahead, HANG).await.expect("an answer") };
    let publishing = put(&server, vec![invalidation("ada", "", "x"); 100]);
    let (answer, last) = tokio::join!(waiting, publishing);
    assert_eq!(last.to_string(), ahead);
    assert!(answer.proven && answer.enforced == 1, "{answer:?}");
}

/// A server that has the contract and nothing else.
async fn contract_only(engine: &Engine) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let service = PushService::new(engine.clone());
    tokio::spawn(
        for_gateways(Server::builder())
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    address
}

fn driver(subscription: Builder) -> (Router, Driver<Backend>) {
    let (router, feed) = router().build();
    let driver = Driver::new(subscription, feed, Backend::default()).expect("valid");
    (router, driver)
}

#[tokio::test]
async fn before_a_server_that_takes_no_reports_a_router_goes_by_what_it_hears() {
    let engine = Engine::builder().build().expect("an engine");
    let address = contract_only(&engine).await;
    let of = |id: &str| {
        let address = address.to_string().parse().expect("an address");
        Gateway::builder(id, address)
    };
    let (router, by_hearing) = driver(of("by hearing"));
    let driving = tokio::spawn(by_hearing.run());
    soon(router.ready()).await;
    let (strict, by_reports) = driver(of("by reports"));
    let strictly = tokio::spawn(by_reports.require_reports(true).run());
    tokio::time::sleep(LEASE + LEASE / 2).await;
    assert!(!router.is_stale(), "heartbeats keep it fresh");
    assert!(strict.is_stale());
    engine.close();
    driving.abort();
    strictly.abort();
}

#[tokio::test]
async fn a_server_that_takes_reports_gets_them_whoever_was_before_it() {
    let older = Engine::builder().build().expect("an engine");
    let address = contract_only(&older).await.to_string();
    let newer = server().await;
    let then = newer.gateway_addr().to_string();
    let subscription = Gateway::builder("moves", address.parse().expect("an address"))
        .or_at(then.parse().expect("an address"));
    let (router, feed) = router().build();
    let backend = Backend::default();
    let verdicts = backend.verdicts.clone();
    let valid = galaxy_push::gateway::Verdict::Valid;
    verdicts
        .lock()
        .unwrap()
        .insert("ada phone".to_owned(), valid);
    let driver = Driver::new(subscription, feed, backend).expect("valid");
    let driving = tokio::spawn(driver.run());
    soon(router.ready()).await;
    let ticket = router.begin_authentication();
    let session = router.open(ticket, "ada", "phone").expect("valid");
    older.close();
    let enforced = async {
        loop {
            let head = newer.engine.head();
            let answer = wait(&newer, head, Duration::from_millis(50)).await;
            if answer.enforced == 1 {
                return;
            }
        }
    };
    soon(enforced).await;
    soon(router.ready()).await;
    let mut guard = session.enter();
    while guard.is_err() {
        // It is validated anew.
        tokio::time::sleep(Duration::from_millis(5)).await;
        guard = session.enter();
    }
    driving.abort();
}

/// A server whose longest lease is shorter than the router's own: the router goes by that.
#[tokio::test]
async fn a_lease_that_is_too_long_for_the_server_is_shortened() {
    let server = server().await;
    let relay = Relay::before(server.gateway_addr()).await;
    let gateway = run(subscription(relay.address), Router::builder()).await;
    let session = gateway.open("ada", "phone");
    relay.cut();
    let banned = put(&server, vec![invalidation("ada", "", "stolen")]).await;
    let answer = wait(&server, banned, HANG).await;
    assert_eq!(session.check(), Err(Refusal::Stale));
    assert!(answer.proven && answer.fenced == 1, "{answer:?}");
    let age = gateway.router.stats().age.expect("it has known something");
    assert!(age > LEASE, "{age:?}");
}
