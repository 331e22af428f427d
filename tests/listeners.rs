//! Where a server listens: TCP and unix sockets, and what is told when it cannot.

#![cfg(feature = "server")]

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use galaxy_push::config::{Address, Config};
use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::server::{ServeError, Server};
use hyper_util::rt::TokioIo;
use support::{event, soon, subscribe};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

fn any_port() -> Address {
    Address::Tcp("127.0.0.1:0".to_owned())
}

fn config(listen: Address, publish_listen: Address) -> Config {
    Config {
        listen,
        publish_listen,
        admin_listen: None,
        max_bytes: 4 << 20,
        max_events: 1000,
        ..Config::default()
    }
}

async fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    soon(endpoint.connect_with_connector(connector))
        .await
        .expect("connected")
}

/// Publishes through one socket and receives through the other.
async fn assert_served(gateways: &Path, publishers: &Path) {
    let mut gateway = PushClient::new(connect(gateways).await);
    let mut subscription = subscribe(&mut gateway, "gateway", "")
        .await
        .expect("subscribed");
    let mut publisher = PublisherClient::new(connect(publishers).await);
    let request = PublishRequest {
        events: vec![event(1)],
    };
    let response = soon(publisher.publish(request)).await.expect("published");
    assert_eq!(
        subscription.next().await.cursor,
        response.into_inner().first_cursor
    );
}

#[tokio::test]
async fn unix_sockets_serve_and_their_files_go_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let gateways = directory.path().join("gateways.sock");
    let publishers = directory.path().join("publishers.sock");
    let addresses = config(
        Address::Unix(gateways.clone()),
        Address::Unix(publishers.clone()),
    );
    let server = Server::bind(addresses).await.expect("bound");
    let shown = format!("unix:{}", gateways.display());
    assert_eq!(server.listen_addr().to_string(), shown);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    assert_served(&gateways, &publishers).await;
    stop.send(()).unwrap();
    soon(running).await.unwrap().expect("a graceful stop");
    assert!(!gateways.exists());
    assert!(!publishers.exists());
}

#[tokio::test]
async fn a_socket_file_that_a_dead_server_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stale.sock");
    // Closing a listener leaves its file.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = Server::bind(config(Address::Unix(path.clone()), any_port())).await;
    drop(server.expect("bound"));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_another_process_listens_on_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("live.sock");
    let other = UnixListener::bind(&path).unwrap();
    let error = Server::bind(config(Address::Unix(path.clone()), any_port()))
        .await
        .expect_err("in use");
    assert!(matches!(error, ServeError::Listen { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&*path.to_string_lossy()), "{message}");
    assert!(message.contains("listening"), "{message}");
    // The other one was asked, and still is there.
    other.accept().expect("a connection");
    std::os::unix::net::UnixStream::connect(&path).expect("still listening");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious.txt");
    fs::write(&path, "precious").unwrap();
    let error = Server::bind(config(Address::Unix(path.clone()), any_port()))
        .await
        .expect_err("in the way");
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_file_that_was_replaced_by_another_server_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("moved.sock");
    let server = Server::bind(config(Address::Unix(path.clone()), any_port()))
        .await
        .expect("bound");
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Server::bind(config(any_port(), Address::Tcp(address.clone())))
        .await
        .expect_err("in use");
    let message = error.to_string();
    assert!(message.contains(&address), "{message}");
    assert!(message.contains("in use"), "{message}");
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_named() {
    let path = "/does/not/exist/push.sock";
    let error = Server::bind(config(Address::Unix(path.into()), any_port()))
        .await
        .expect_err("nowhere");
    assert!(error.to_string().contains(path), "{error}");
}

#[tokio::test]
async fn when_the_second_address_fails_the_first_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("first.sock");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(taken.local_addr().unwrap().to_string());
    let bound = Server::bind(config(Address::Unix(path.clone()), address)).await;
    bound.expect_err("the second is in use");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_setting_that_cannot_work_is_named_before_anything_is_bound() {
    let error = Server::bind(Config {
        max_subscribers: 0,
        ..config(any_port(), any_port())
    })
    .await
    .expect_err("no subscribers");
    assert!(error.to_string().contains("max_subscribers"), "{error}");
}
