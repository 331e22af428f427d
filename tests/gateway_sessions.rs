//! A gateway with sessions before a real server: what they receive, how a ban ends them, and what
//! happens to them while the gateway is away.

#![cfg(all(feature = "client", feature = "server"))]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use galaxy_push::client::Builder;
use galaxy_push::gateway::{
    Driver, DriverError, End, OpenError, RecvError, Refusal, Router, Session, Verdict,
};
use support::sessions::{
    Backend, Relay, Running, client_event, invalidation, put, run, subscription,
};
use support::{Harness, soon};

async fn payload(session: &mut Session) -> String {
    let event = soon(session.recv()).await.expect("an event");
    String::from_utf8(event.payload().to_vec()).expect("text")
}

#[tokio::test]
async fn events_reach_their_sessions_and_a_ban_ends_them() {
    let server = Harness::start().await;
    let gateway = run(subscription(server.gateway_addr()), Router::builder()).await;
    let mut phone = gateway.open("ada", "phone");
    let mut laptop = gateway.open("ada", "laptop");
    let mut request = laptop.enter().expect("valid");
    let slow = tokio::spawn(async move { request.run(std::future::pending::<()>()).await });
    let events = vec![
        client_event("ada", "", "both"),
        client_event("ben", "", "nobody's"),
        client_event("ada", "laptop", "one"),
    ];
    put(&server, events).await;
    assert_eq!(payload(&mut phone).await, "both");
    assert_eq!(payload(&mut laptop).await, "both");
    assert_eq!(payload(&mut laptop).await, "one");

    let ticket = gateway.router.begin_authentication();
    let banned = put(&server, vec![invalidation("ada", "laptop", "stolen")]).await;
    let RecvError::Ended(End::Revoked(revocation)) = soon(laptop.recv()).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(revocation.reason, "stolen");
    assert_eq!((revocation.cursor, revocation.is_of_user), (banned, false));
    let refused = soon(slow).await.expect("it has not panicked").unwrap_err();
    assert_eq!(refused, Refusal::Ended(End::Revoked(revocation)));
    let refused = gateway.router.open(ticket, "ada", "laptop").unwrap_err();
    assert!(matches!(refused, OpenError::Revoked(_)));
    assert_eq!(phone.check(), Ok(()));
    let is_processed =
        |running: &Running| *running.backend.processed.lock().unwrap() == Some(banned);
    soon(gateway.until(is_processed)).await;
}

#[tokio::test]
async fn after_a_cut_a_gateway_resumes_and_its_sessions_go_on() {
    let server = Harness::start().await;
    let relay = Relay::before(server.gateway_addr()).await;
    let gateway = run(subscription(relay.address), Router::builder()).await;
    let mut ada = gateway.open("ada", "phone");
    let mut ben = gateway.open("ben", "phone");
    relay.cut();
    put(
        &server,
        vec![
            client_event("ada", "", "while it was away"),
            invalidation("ben", "", "banned"),
        ],
    )
    .await;
    relay.mend();
    assert_eq!(payload(&mut ada).await, "while it was away");
    let ended = soon(ben.recv()).await.unwrap_err();
    assert!(matches!(ended, RecvError::Ended(End::Revoked(_))));
    let beginnings = gateway.backend.beginnings.lock().unwrap().clone();
    assert_eq!(beginnings, ["fresh no-cursor", "resumed requested"]);
    assert_eq!(gateway.backend.asked.lock().unwrap().len(), 0);
}

/// A ring that the gateway is soon out of, and a table that has the invalidation.
#[tokio::test]
async fn after_a_gap_those_that_were_revoked_end_by_a_complete_replay() {
    let server = Harness::with(|config| config.max_events = 8).await;
    let relay = Relay::before(server.gateway_addr()).await;
    let gateway = run(subscription(relay.address), Router::builder()).await;
    let mut ada = gateway.open("ada", "phone");
    let mut ben = gateway.open("ben", "phone");
    relay.cut();
    put(&server, vec![invalidation("ben", "", "banned")]).await;
    for _ in 0..4 {
        put(&server, vec![client_event("eve", "", "noise"); 8]).await;
    }
    relay.mend();
    let RecvError::Ended(End::Revoked(revocation)) = soon(ben.recv()).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(revocation.reason, "banned");
    put(&server, vec![client_event("ada", "", "after")]).await;
    assert_eq!(payload(&mut ada).await, "after");
    let invalidated = gateway.backend.invalidated.lock().unwrap().clone();
    assert_eq!(invalidated, ["ben  banned"]);
    let beginnings = gateway.backend.beginnings.lock().unwrap().clone();
    assert_eq!(beginnings, ["fresh no-cursor", "fresh expired"]);
    assert_eq!(
        gateway.backend.asked.lock().unwrap().len(),
        0,
        "nobody is suspect"
    );
}

/// The table has no room, so that it is told to be partial.
#[tokio::test]
async fn after_a_gap_that_may_hide_a_revocation_each_session_is_validated() {
    let server = Harness::with(|config| {
        config.max_events = 8;
        config.max_revocations = 0;
    })
    .await;
    let relay = Relay::before(server.gateway_addr()).await;
    let gateway = run(subscription(relay.address), Router::builder()).await;
    let verdicts = [
        ("ada phone", Verdict::Valid),
        ("ben phone", Verdict::Invalid("signed out".to_owned())),
        ("eve phone", Verdict::Unknown),
    ];
    for (id, verdict) in verdicts {
        gateway
            .backend
            .verdicts
            .lock()
            .unwrap()
            .insert(id.to_owned(), verdict);
    }
    let [mut ada, mut ben, mut eve, dan] =
        ["ada", "ben", "eve", "dan"].map(|user| gateway.open(user, "phone"));
    relay.cut();
    put(&server, vec![invalidation("ben", "", "banned")]).await;
    for _ in 0..4 {
        put(&server, vec![client_event("noise", "", "noise"); 8]).await;
    }
    relay.mend();
    let ended = soon(ben.recv()).await.unwrap_err();
    assert_eq!(ended, RecvError::Ended(End::Invalid("signed out".into())));
    for user in ["ada", "eve"] {
        put(&server, vec![client_event(user, "", "after")]).await;
    }
    assert_eq!(payload(&mut ada).await, "after");
    // The backend has had no answer at first.
    assert_eq!(payload(&mut eve).await, "after");
    let times = |id: &str| {
        let asked = gateway.backend.asked.lock().unwrap();
        asked.iter().filter(|other| *other == id).count()
    };
    assert_eq!(
        (times("ada phone"), times("ben phone"), times("eve phone")),
        (1, 1, 2)
    );
    // Of this one it never has: it is asked for again, and held back.
    assert_eq!(dan.check(), Err(Refusal::Suspect));
    let asked_again = |_: &Running| times("dan phone") > 2;
    soon(gateway.until(asked_again)).await;
    assert_eq!(dan.check(), Err(Refusal::Suspect));
}

#[tokio::test]
async fn a_gateway_that_hears_nothing_lets_nobody_in_until_it_does() {
    let server = Harness::start().await;
    let relay = Relay::before(server.gateway_addr()).await;
    let stale_after = Duration::from_secs(3);
    let builder = Router::builder().stale_after(stale_after);
    let gateway = run(subscription(relay.address), builder).await;
    let mut session = gateway.open("ada", "phone");
    // Heartbeats keep it fresh.
    tokio::time::sleep(stale_after + stale_after / 2).await;
    assert_eq!(session.check(), Ok(()));
    relay.cut();
    soon(gateway.until(|running| running.router.is_stale())).await;
    assert_eq!(session.check(), Err(Refusal::Stale));
    let ticket = gateway.router.begin_authentication();
    let refused = gateway.router.open(ticket, "ada", "laptop").unwrap_err();
    assert_eq!(refused, OpenError::Stale);
    put(&server, vec![client_event("ada", "", "after")]).await;
    relay.mend();
    assert_eq!(payload(&mut session).await, "after");
    assert_eq!(session.check(), Ok(()));
}

/// Another epoch: what its table has may be older than sessions that are open.
#[tokio::test]
async fn before_another_server_nobody_is_thrown_out_by_what_is_old() {
    let first = Harness::start().await;
    let second = Harness::start().await;
    put(
        &second,
        vec![invalidation("ada", "", "password changed, yesterday")],
    )
    .await;
    let relay = Relay::before(first.gateway_addr()).await;
    let elsewhere = second
        .gateway_addr()
        .to_string()
        .parse()
        .expect("an address");
    let gateway = run(
        subscription(relay.address).or_at(elsewhere),
        Router::builder(),
    )
    .await;
    gateway
        .backend
        .verdicts
        .lock()
        .unwrap()
        .insert("ada phone".to_owned(), Verdict::Valid);
    let mut session = gateway.open("ada", "phone");
    relay.cut();
    let is_asked = |running: &Running| !running.backend.asked.lock().unwrap().is_empty();
    soon(gateway.until(is_asked)).await;
    put(&second, vec![client_event("ada", "", "after")]).await;
    assert_eq!(payload(&mut session).await, "after");
    put(&second, vec![invalidation("ada", "", "banned")]).await;
    let ended = soon(session.recv()).await.unwrap_err();
    assert!(matches!(ended, RecvError::Ended(End::Revoked(_))));
}

#[tokio::test]
async fn heartbeats_must_keep_the_router_fresh() {
    let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let driver = |builder: Builder, stale_after| {
        let (_, feed) = Router::builder().stale_after(stale_after).build();
        Driver::new(builder, feed, Backend::default())
    };
    let seconds = Duration::from_secs;
    let slow = driver(subscription(address).heartbeat(seconds(30)), seconds(45)).unwrap_err();
    assert!(matches!(slow, DriverError::Heartbeat { .. }), "{slow}");
    let short = driver(subscription(address), Duration::from_millis(1500)).unwrap_err();
    assert!(short.to_string().contains("1s"), "{short}");
    driver(subscription(address), seconds(2)).expect("it is enough");
}
