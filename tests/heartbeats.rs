//! Heartbeats and gateways: what is a sign of life.

#![cfg(all(feature = "client", feature = "server"))]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use galaxy_push::client::{Gateway, Item};
use support::{Harness, large_event, publish, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// A way to `server` that brings so many bytes in each tenth of a second.
async fn slow_link(server: SocketAddr, bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.expect("accepted");
            let server = TcpStream::connect(server).await.expect("connected");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut piece = vec![0; bytes];
                while let Ok(read @ 1..) = from_server.read(&mut piece).await {
                    if to_client.write_all(&piece[..read]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_large_event_over_a_slow_link_is_no_silence() {
    let server = Harness::start().await;
    let address = slow_link(server.gateway_addr(), 1500).await;
    let address = address.to_string().parse().expect("an address");
    let mut gateway = Gateway::builder("gateway", address)
        .heartbeat(Duration::from_secs(1))
        .build()
        .expect("valid");
    let first = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(first, Item::Connected(_)), "{first:?}");

    // It takes twice as long as a stream may be silent.
    let event = large_event(60_000);
    let mut publisher = server.publisher().await;
    publish(&mut publisher, vec![event])
        .await
        .expect("published");
    let next = soon(gateway.next()).await.expect("goes on");
    assert!(matches!(next, Item::Event { .. }), "{next:?}");
}
