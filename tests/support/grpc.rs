//! gRPC as its generated clients speak it, and what they say in bytes.

use std::net::SocketAddr;

use galaxy_push::contract::details::{DOMAIN, Details};
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::publisher::{PublishRequest, PublishResponse};
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::soon;

pub const SUBSCRIBE: &str = "/galaxy.backend.push.v1.Push/SubscribePush";
pub const PUBLISH: &str = "/galaxy.push.publisher.v1.Publisher/Publish";
pub const PUBLISH_STREAM: &str = "/galaxy.push.publisher.v1.Publisher/PublishStream";

/// A message with its prefix.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend((bytes.len() as u32).to_be_bytes());
    message.extend(bytes);
    message
}

/// The message of a SubscribePush, with its prefix.
pub fn subscribe_request(id: &str, cursor: &str) -> Vec<u8> {
    let request = GatewaySubscribeRequest {
        gateway_client_id: id.to_owned(),
        cursor: cursor.to_owned(),
    };
    message(&request.encode_to_vec())
}

/// A message of a Publish or a PublishStream, with its prefix.
pub fn publish_request(events: Vec<PushEvent>) -> Vec<u8> {
    message(&PublishRequest { events }.encode_to_vec())
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
    publisher: &mut PublisherClient<Channel>,
    events: Vec<PushEvent>,
) -> Result<PublishResponse, Status> {
    let response = soon(publisher.publish(PublishRequest { events })).await?;
    Ok(response.into_inner())
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

/// Why, as a status says it to machines, and whether it says when to try again.
pub fn reason(status: &Status) -> (String, bool) {
    let details = Details::decode(status.details());
    let info = details.error_info.expect("an ErrorInfo");
    assert_eq!(info.domain, DOMAIN);
    (info.reason, details.retry_delay.is_some())
}

/// How many events a status says were missed, in both places.
pub fn missed(status: &Status) -> u64 {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let missed = status.metadata().get("push-missed").expect("push-missed");
    let missed = missed.to_str().expect("text");
    let details = Details::decode(status.details());
    let info = details.error_info.expect("an ErrorInfo");
    assert_eq!(info.metadata["missed"], missed);
    missed.parse().expect("a number")
}
