//! An ordinary tonic service: generated code, a broadcast channel, and each event
//! encoded by prost for each subscriber.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use galaxy_push::contract::publisher::publisher_server::PublisherServer;
use galaxy_push::contract::push::push_server::{Push, PushServer};
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::fanout::{Fanout, Kept};
use super::publisher::Publishing;

/// Both services over one history.
pub(crate) fn routes() -> Option<Routes> {
    let fanout = Fanout::<PushEvent>::new()?;
    let push = PushServer::new(Ordinary(Arc::clone(&fanout)));
    Some(Routes::new(push).add_service(PublisherServer::new(Publishing(fanout))))
}

impl Kept for PushEvent {
    fn new(event: PushEvent) -> Self {
        event
    }
}

#[derive(Debug)]
struct Ordinary(Arc<Fanout<PushEvent>>);

#[tonic::async_trait]
impl Push for Ordinary {
    type SubscribePushStream = Pin<Box<dyn Stream<Item = Result<PushEvent, Status>> + Send>>;

    async fn subscribe_push(
        &self,
        request: Request<GatewaySubscribeRequest>,
    ) -> Result<Response<Self::SubscribePushStream>, Status> {
        let (response, next) = start(&self.0, request.get_ref())?;
        let events = Arc::clone(&self.0).follow(next);
        Ok(response.map(|()| Box::pin(events) as Self::SubscribePushStream))
    }
}

/// The response's metadata, as the contract wants it, and the first event's number.
pub(super) fn start<T: Kept>(
    fanout: &Fanout<T>,
    request: &GatewaySubscribeRequest,
) -> Result<(Response<()>, u64), Status> {
    let (next, resumed) = fanout.start(&request.cursor);
    let mut response = Response::new(());
    let metadata = response.metadata_mut();
    let word = if resumed { "resumed" } else { "fresh" };
    metadata.insert("push-resume", MetadataValue::from_static(word));
    let cursor: MetadataValue<Ascii> = fanout
        .cursor(next - 1)
        .parse()
        .map_err(|_| Status::internal("a cursor is ASCII"))?;
    metadata.insert("push-start-cursor", cursor);
    Ok((response, next))
}
