//! How a server stops: everything that was accepted arrives, nobody who does
//! nothing holds it up, and nothing is left behind.

#![cfg(feature = "server")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use galaxy_push::config::Address;
use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::push::push_client::PushClient;
use support::frames::PREFACE;
use support::grpc::{PUBLISH, PUBLISH_STREAM, SUBSCRIBE, message};
use support::h2_client::{GrpcResponse, H2Client, Valved};
use support::{
    Harness, connect, connect_narrow, event, large_event, publish, soon, subscribe, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// A grace period that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_everything_accepted_reaches_every_gateway() {
    let mut server = Harness::with(|config| {
        config.max_bytes = 64 << 20;
        config.shutdown_grace = LONG;
    })
    .await;
    let mut gateways = Vec::new();
    for n in 0..8 {
        let gateway = server.subscribe(&format!("gateway-{n}"), "").await;
        gateways.push(tokio::spawn(gateway.finish()));
    }

    // Two publish one by one, two in streams; each until it is refused, noting
    // what was accepted.
    let mut publishers = Vec::new();
    for n in 0..4 {
        let mut publisher = server.publisher().await;
        publishers.push(tokio::spawn(async move {
            let mut accepted = Vec::new();
            if n % 2 == 0 {
                loop {
                    match publish(&mut publisher, vec![event(n), event(n)]).await {
                        Ok(response) => accepted.push(response),
                        Err(status) => return (accepted, status),
                    }
                }
            }
            let (requests, receiver) = mpsc::channel(64);
            let sending = tokio::spawn(async move {
                let request = PublishRequest {
                    events: vec![event(n), event(n)],
                };
                while requests.send(request.clone()).await.is_ok() {}
            });
            let responses = publisher.publish_stream(ReceiverStream::new(receiver));
            let mut responses = match soon(responses).await {
                Ok(responses) => responses.into_inner(),
                Err(status) => return (accepted, status),
            };
            loop {
                match soon(responses.message()).await {
                    Ok(Some(response)) => accepted.push(response),
                    Ok(None) => panic!("a stream does not end by itself"),
                    Err(status) => {
                        sending.abort();
                        return (accepted, status);
                    }
                }
            }
        }));
    }
    until(|| server.engine.head().seq().number() > 2000).await;
    server.ask_to_stop();

    let mut accepted = Vec::new();
    for publisher in publishers {
        let (responses, status) = soon(publisher).await.expect("no panic");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        for response in responses {
            accepted.extend([response.first_cursor, response.last_cursor]);
        }
    }
    accepted.sort_unstable();
    let mut delivered_before: Option<Vec<String>> = None;
    for gateway in gateways {
        let (events, status) = soon(gateway).await.expect("no panic");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let delivered: Vec<_> = events.into_iter().map(|event| event.cursor).collect();
        assert!(delivered.is_sorted());
        for cursor in &accepted {
            assert!(delivered.binary_search(cursor).is_ok(), "{cursor} is lost");
        }
        if let Some(before) = &delivered_before {
            assert_eq!(&delivered, before, "all gateways get the same");
        }
        delivered_before = Some(delivered);
    }
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_behind_still_gets_everything() {
    let mut server = Harness::with(|config| {
        config.max_bytes = 64 << 20;
        config.shutdown_grace = LONG;
    })
    .await;
    // Its buffers hold a fraction of what it is owed when the stop begins.
    let mut gateway = PushClient::new(connect_narrow(server.gateway_addr()).await);
    let gateway = subscribe(&mut gateway, "slow", "")
        .await
        .expect("subscribed");
    let mut publisher = server.publisher().await;
    let mut published = Vec::new();
    for _ in 0..100 {
        let batch = (0..20).map(|_| large_event(10_000)).collect();
        let response = publish(&mut publisher, batch).await.expect("published");
        published.extend([response.first_cursor, response.last_cursor]);
    }
    server.ask_to_stop();
    until(|| server.engine.is_closed()).await;
    let (events, status) = gateway.finish().await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(events.len(), 2000);
    assert_eq!(events[0].cursor, published[0]);
    assert_eq!(events[1999].cursor, published[199]);
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test]
async fn bytes_that_are_unread_in_the_socket_after_the_last_write_arrive() {
    let mut server = Harness::with(|config| {
        config.max_bytes = 64 << 20;
        config.shutdown_grace = LONG;
    })
    .await;
    let valve = watch::Sender::new(true);
    let socket = soon(TcpStream::connect(server.gateway_addr())).await;
    let socket = Valved::new(socket.expect("connected"), &valve);
    let mut client = H2Client::over(socket, 4 << 20).await;
    let mut stream = client.subscribe("gateway").await.into_body();

    // More than the kernel takes for one connection: the goodbye gets ahead of the
    // last events, and has its response before they have arrived.
    valve.send_replace(false);
    const EVENTS: usize = 2000;
    let mut publisher = server.publisher().await;
    for _ in 0..EVENTS / 20 {
        let batch = (0..20).map(|_| large_event(10_000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }
    server.ask_to_stop();
    until(|| server.engine.is_closed()).await;

    // It reads slowly, and returns window all the while: a server that had closed
    // its socket would reply with a reset.
    valve.send_replace(true);
    let mut received = 0;
    while let Some(piece) = soon(stream.data()).await {
        let piece = piece.expect("no reset");
        let window = stream.flow_control();
        window.release_capacity(piece.len()).expect("released");
        received += piece.len();
    }
    assert!(received > EVENTS * 10_000, "{received}");
    let trailers = soon(stream.trailers()).await.expect("no reset");
    assert_eq!(trailers.expect("trailers")["grpc-status"], "14");
    drop((stream, client));
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test]
async fn an_idle_publish_stream_does_not_hold_up_the_stop() {
    let mut server = Harness::with(|config| config.shutdown_grace = LONG).await;
    let mut publisher = server.publisher().await;
    let (requests, receiver) = mpsc::channel(1);
    let responses = soon(publisher.publish_stream(ReceiverStream::new(receiver))).await;
    let mut responses = responses.expect("a stream").into_inner();
    let events = vec![event(1)];
    requests.send(PublishRequest { events }).await.unwrap();
    soon(responses.message())
        .await
        .unwrap()
        .expect("a response");

    server.ask_to_stop();
    let status = soon(responses.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    server.stopped().await.expect("a graceful stop");
    drop(requests);
}

#[tokio::test]
async fn requests_that_never_arrive_in_full_do_not_hold_up_the_stop() {
    let mut server = Harness::with(|config| config.shutdown_grace = LONG).await;
    let mut gateway = H2Client::connect(server.gateway_addr()).await;
    let mut publisher = H2Client::connect(server.publisher_addr()).await;
    let mut calls = Vec::new();
    for path in [SUBSCRIBE, PUBLISH, PUBLISH_STREAM] {
        let client = if path == SUBSCRIBE {
            &mut gateway
        } else {
            &mut publisher
        };
        for piece in [&b""[..], b"\0\0\0\0\x20half"] {
            let (response, mut to) = client.open(path).await;
            to.send_data(Bytes::copy_from_slice(piece), false)
                .expect("sent");
            calls.push((path, response, to));
        }
    }
    // The last of them has arrived when another call has its response on the same
    // connection.
    gateway.subscribe("gateway").await;
    publisher.call(PUBLISH, message(b"")).await;

    server.ask_to_stop();
    for (path, response, _to) in calls {
        let response = GrpcResponse::read(soon(response).await.expect("a response")).await;
        assert_eq!(
            response.grpc_status(),
            Some(Code::Unavailable),
            "{path}: {response:?}"
        );
    }
    server.stopped().await.expect("a graceful stop");
}

/// What the watchdog does all the same to a connection without a handshake, later.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn connections_without_a_handshake_do_not_hold_up_the_stop() {
    let mut server = Harness::with(|config| config.shutdown_grace = LONG).await;
    let mut silent = Vec::new();
    for address in [server.gateway_addr(), server.publisher_addr()] {
        for words in [&b""[..], &PREFACE[..8], PREFACE] {
            let mut socket = soon(TcpStream::connect(address)).await.expect("connected");
            socket.write_all(words).await.expect("sent");
            silent.push(socket);
        }
    }
    server.assert_alive().await;
    let begun = Instant::now();
    server.ask_to_stop();
    for mut socket in silent {
        // Whatever it was sent, then the end, or a reset.
        let mut greeting = Vec::new();
        let _ = soon(socket.read_to_end(&mut greeting)).await;
    }
    server.stopped().await.expect("a graceful stop");
    // The clock is the test's: it does not run while anybody works.
    assert!(begun.elapsed() < HANDSHAKE_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_that_were_not_accepted_yet_get_unavailable() {
    let mut server = Harness::with(|config| config.shutdown_grace = LONG).await;
    server.assert_alive().await;
    // This thread is the server's too: it has accepted none of these when it is
    // asked to stop.
    let connect = || {
        let socket = std::net::TcpStream::connect(server.publisher_addr()).expect("connected");
        socket.set_nonblocking(true).expect("set");
        TcpStream::from_std(socket).expect("a socket")
    };
    let queued: Vec<_> = std::iter::repeat_with(connect).take(20).collect();
    server.ask_to_stop();
    let mut calls = Vec::new();
    for socket in queued {
        calls.push(tokio::spawn(async move {
            let mut client = H2Client::over(socket, 1 << 20).await;
            client.call(PUBLISH, message(b"")).await
        }));
    }
    for call in calls {
        let response = soon(call).await.expect("no reset");
        assert_eq!(
            response.grpc_status(),
            Some(Code::Unavailable),
            "{response:?}"
        );
    }
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_stop() {
    let server = Harness::with(|config| config.shutdown_grace = LONG).await;
    let _gateway = connect(server.gateway_addr()).await;
    let _publisher = connect(server.publisher_addr()).await;
    server.assert_alive().await;
    server.stop().await.expect("a graceful stop");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_reads_holds_up_the_stop_for_the_grace_period_only() {
    let grace = Duration::from_secs(10);
    let mut server = Harness::with(|config| {
        config.shutdown_grace = grace;
        config.stall_timeout = LONG;
    })
    .await;
    let mut deaf = H2Client::with_window(server.gateway_addr(), 1000).await;
    let stream = deaf.subscribe("deaf").await;
    server.publish(0, 200).await;
    let begun = Instant::now();
    server.ask_to_stop();
    server.stopped().await.expect("a graceful stop");
    let held_up = begun.elapsed();
    assert!(held_up >= grace && held_up < 2 * grace, "{held_up:?}");
    drop(stream);
}

#[tokio::test]
async fn after_the_grace_period_a_slow_gateway_is_told_unavailable() {
    let mut server = Harness::with(|config| {
        config.max_bytes = 64 << 20;
        config.shutdown_grace = Duration::ZERO;
    })
    .await;
    let mut gateway = PushClient::new(connect_narrow(server.gateway_addr()).await);
    let gateway = subscribe(&mut gateway, "slow", "")
        .await
        .expect("subscribed");
    let mut publisher = server.publisher().await;
    for _ in 0..100 {
        let batch = (0..20).map(|_| large_event(10_000)).collect();
        publish(&mut publisher, batch).await.expect("published");
    }
    server.ask_to_stop();
    let (events, status) = gateway.finish().await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(events.len() < 2000, "it was cut short");
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test]
async fn no_connection_is_accepted_while_the_server_drains() {
    let mut server = Harness::with(|config| config.shutdown_grace = LONG).await;
    let address = server.gateway_addr();
    let mut deaf = H2Client::with_window(address, 1000).await;
    let mut stream = deaf.subscribe("deaf").await.into_body();
    server.publish(0, 200).await;
    server.ask_to_stop();
    // The deaf gateway keeps it draining.
    soon(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(server.engine.is_closed());
    while let Some(Ok(piece)) = soon(stream.data()).await {
        stream
            .flow_control()
            .release_capacity(piece.len())
            .expect("released");
    }
    server.stopped().await.expect("a graceful stop");
}

#[tokio::test]
async fn a_stopped_servers_ports_can_be_bound_at_once() {
    let server = Harness::start().await;
    let (gateways, publishers) = (server.gateway_addr(), server.publisher_addr());
    server.assert_alive().await;
    server.stop().await.expect("a graceful stop");
    let next = Harness::with(|config| {
        config.listen = Address::Tcp(gateways.to_string());
        config.publish_listen = Address::Tcp(publishers.to_string());
    })
    .await;
    assert_eq!(next.gateway_addr(), gateways);
    next.assert_alive().await;
}

#[tokio::test]
async fn dropping_a_running_server_ends_its_streams_and_listeners() {
    let server = Harness::start().await;
    let gateway = server.subscribe("gateway", "").await;
    let (engine, address) = (server.engine.clone(), server.gateway_addr());
    server.abort().await;
    let (_, status) = gateway.finish().await;
    assert_ne!(status.code(), Code::Ok, "{status:?}");
    until(|| engine.stats().subscribers == 0).await;
    assert!(engine.is_closed());
    assert!(TcpStream::connect(address).await.is_err());
}
