//! Gateways of our client before real servers: renewed, taken over, and with somewhere else to go.

#![cfg(all(feature = "client", feature = "server"))]

mod support;

use std::time::Duration;

use galaxy_push::client::{Backoff, Builder, Disconnect, Gateway, Item, Stopped, error_info};
use galaxy_push::config::Address;
use galaxy_push::contract::push::GatewaySubscribeRequest;
use support::{Harness, event, publish, soon};
use tonic::{Code, Request};

fn address(server: &Harness) -> Address {
    server
        .gateway_addr()
        .to_string()
        .parse()
        .expect("an address")
}

fn builder(id: &str, server: &Harness) -> Builder {
    let millisecond = Duration::from_millis(1);
    Gateway::builder(id, address(server)).backoff(Backoff::new(millisecond, millisecond))
}

/// Each renewal takes the id over from the stream before it, in the middle of events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_loses_nothing_and_repeats_nothing() {
    let server = Harness::start().await;
    let mut gateway = builder("gateway", &server).build().expect("valid");
    let first = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(first, Item::Connected(_)), "{first:?}");

    let count = 6000;
    let mut publisher = server.publisher().await;
    let publishing = tokio::spawn(async move {
        for first in (0..count).step_by(4) {
            let events = (first..first + 4).map(event).collect();
            soon(publish(&mut publisher, events))
                .await
                .expect("published");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    for seq in 1..=count {
        // Also while the newer stream still brings what the older one had brought.
        if seq % 100 < 20 {
            gateway.renew();
        }
        match soon(gateway.next()).await.expect("goes on") {
            Item::Event { cursor, .. } => {
                assert_eq!(cursor.seq().number(), seq);
                // A renewal goes on with what was handed out, whether it is processed or not.
                if seq % 3 == 0 {
                    gateway.processed(cursor);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    publishing.await.expect("published");
    let stats = gateway.stats();
    assert!(stats.renewals >= 10, "{stats:?}");
    assert_eq!(stats.events, count);
    assert_eq!(
        (stats.gaps, stats.disconnects, stats.failed_renewals),
        (0, 0, 0)
    );
    assert_eq!(stats.subscriptions, stats.renewals + 1);
}

#[tokio::test]
async fn a_stream_is_renewed_by_itself() {
    let server = Harness::start().await;
    let gateway = builder("gateway", &server).renew_every(Duration::from_secs(1));
    let mut gateway = gateway.build().expect("valid");
    soon(gateway.next()).await.expect("goes on");
    let quiet = tokio::time::timeout(Duration::from_millis(2500), gateway.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(gateway.stats().renewals >= 1, "{:?}", gateway.stats());
    // It is subscribed once, and receives.
    assert_eq!(server.engine.stats().subscribers, 1);
    let cursors = server.publish(0, 1).await;
    let Item::Event { cursor, .. } = soon(gateway.next()).await.expect("goes on") else {
        panic!("not an event");
    };
    assert_eq!(cursor.to_string(), cursors[0]);
}

#[tokio::test]
async fn who_is_taken_over_is_told_by_whom() {
    let server = Harness::start().await;
    for (instance, other) in [
        (Some("pod b, pid 7"), ", instance pod b, pid 7"),
        (None, ""),
    ] {
        let mut older = builder("gateway", &server).build().expect("valid");
        soon(older.next()).await.expect("goes on");
        let mut newer = builder("gateway", &server);
        if let Some(instance) = instance {
            newer = newer.instance(instance);
        }
        let mut newer = newer.build().expect("valid");
        soon(newer.next()).await.expect("goes on");
        let Err(Stopped::TakenOver(status)) = soon(older.next()).await else {
            panic!("not taken over");
        };
        assert!(status.message().contains(": 127.0.0.1:"), "{status}");
        assert!(status.message().ends_with(other), "{status}");
        let info = error_info(&status).expect("details");
        assert_eq!(info.reason, "TAKEN_OVER");
        assert_eq!(info.metadata.get("instance").map(String::as_str), instance);
        assert!(info.metadata["peer"].starts_with("127.0.0.1:"));
        assert_eq!(info.metadata.get("principal"), None);
    }
}

/// However the two are scheduled, the older is told who the newer is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_over_is_known_at_once() {
    let server = Harness::start().await;
    let subscribe = async |instance: usize| {
        let mut request = Request::new(GatewaySubscribeRequest {
            gateway_client_id: "gateway".to_owned(),
            cursor: String::new(),
        });
        let value = instance.to_string().parse().expect("a number");
        request.metadata_mut().insert("push-instance", value);
        let mut client = server.gateway().await;
        let stream = client.subscribe_push(request).await.expect("subscribed");
        (client, stream.into_inner())
    };
    let (mut client, mut older) = soon(subscribe(0)).await;
    for instance in 1..=100 {
        let end = tokio::spawn(async move {
            let _client = client;
            older.message().await.expect_err("it has ended")
        });
        (client, older) = soon(subscribe(instance)).await;
        let status = soon(end).await.expect("no panic");
        assert_eq!(status.code(), Code::Aborted);
        let info = error_info(&status).expect("details");
        assert_eq!(info.metadata["instance"], instance.to_string());
    }
}

#[tokio::test]
async fn an_instance_that_is_none_is_refused() {
    let server = Harness::start().await;
    let long = "x".repeat(129);
    for value in ["", &long] {
        let refused = builder("gateway", &server).instance(value).build();
        assert!(refused.is_err());
        let mut request = Request::new(GatewaySubscribeRequest {
            gateway_client_id: "gateway".to_owned(),
            cursor: String::new(),
        });
        let metadata = request.metadata_mut();
        metadata.insert("push-instance", value.parse().expect("text"));
        let mut client = server.gateway().await;
        let status = soon(client.subscribe_push(request))
            .await
            .expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("push-instance"), "{status}");
    }
}

/// A server that stops asks to be left alone for a while: the gateway is elsewhere at once.
#[tokio::test]
async fn a_gateway_goes_where_it_is_served() {
    let (first, second) = (Harness::start().await, Harness::start().await);
    let gone: Address = "127.0.0.1:1".parse().expect("an address");
    let patient = Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600));
    let mut gateway = Gateway::builder("gateway", gone)
        .or_at(address(&first))
        .or_at(address(&second))
        .backoff(patient)
        .build()
        .expect("valid");
    let item = soon(gateway.next()).await.expect("goes on");
    let Item::Disconnected {
        cause: Disconnect::Unreachable(_),
        ..
    } = item
    else {
        panic!("{item:?}");
    };
    let item = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(item, Item::Connected(_)), "{item:?}");
    assert_eq!(*gateway.address(), address(&first));

    let stopping = tokio::spawn(first.stop());
    let item = soon(gateway.next()).await.expect("goes on");
    let Item::Disconnected {
        cause: Disconnect::Status(status),
        ..
    } = item
    else {
        panic!("{item:?}");
    };
    assert_eq!(status.code(), Code::Unavailable);
    // Its log is another one, so that there is a gap.
    let item = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(item, Item::Gap(_)), "{item:?}");
    let item = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(item, Item::Connected(_)), "{item:?}");
    assert_eq!(*gateway.address(), address(&second));
    let stats = gateway.stats();
    assert_eq!(
        (stats.failovers, stats.subscriptions, stats.gaps),
        (2, 2, 1)
    );
    stopping.await.expect("no panic").expect("stopped");
}
