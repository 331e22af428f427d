//! The tonic services that galaxy-push is compared with keep its contract.

use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Streaming;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};

use crate::peers::{tonic as ordinary, tonic_bytes};
use crate::record::batch;

async fn serve(routes: Option<Routes>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let server = Server::builder().add_routes(routes.expect("a clock"));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI");
    channel.connect().await.expect("connected")
}

async fn subscribe(channel: &Channel, cursor: &str) -> (String, Streaming<PushEvent>) {
    let request = GatewaySubscribeRequest {
        gateway_client_id: "g".into(),
        cursor: cursor.into(),
    };
    let response = PushClient::new(channel.clone())
        .subscribe_push(request)
        .await
        .expect("subscribed");
    let start = response.metadata().get("push-start-cursor");
    let start = start.expect("a start").to_str();
    (start.expect("text").to_owned(), response.into_inner())
}

async fn cursors(stream: &mut Streaming<PushEvent>, events: usize) -> Vec<String> {
    let mut cursors = Vec::new();
    for _ in 0..events {
        let event = stream.message().await.expect("no error");
        cursors.push(event.expect("no end").cursor);
    }
    cursors
}

async fn keeps_the_contract(routes: Option<Routes>) {
    let channel = serve(routes).await;
    let (zero, mut live) = subscribe(&channel, "").await;
    let mut publisher = PublisherClient::new(channel.clone());
    let mut last = String::new();
    // More than the broadcast channel holds, while nobody reads.
    for first in (0..6000).step_by(1000) {
        let events = batch(first, 1000)
            .events()
            .map(|event| PushEvent::decode(event).expect("an event"))
            .collect();
        let response = publisher.publish(PublishRequest { events }).await;
        last = response.expect("published").into_inner().last_cursor;
    }
    let all = cursors(&mut live, 6000).await;
    assert!(all.is_sorted());
    assert!(zero < all[0]);
    assert_eq!(all[5999], last);

    let (start, mut resumed) = subscribe(&channel, &all[99]).await;
    assert_eq!(start, all[99]);
    assert_eq!(cursors(&mut resumed, 5900).await, all[100..]);
}

#[tokio::test]
async fn an_ordinary_tonic_service_keeps_the_contract() {
    keeps_the_contract(ordinary::routes()).await;
}

#[tokio::test]
async fn a_tonic_service_that_encodes_once_keeps_the_contract() {
    keeps_the_contract(tonic_bytes::routes()).await;
}
