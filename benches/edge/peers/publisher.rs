//! The generated `Publisher` service over a [`Fanout`].

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use galaxy_push::contract::publisher::publisher_server::Publisher;
use galaxy_push::contract::publisher::{
    PublishRequest, PublishResponse, WaitEnforcedRequest, WaitEnforcedResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::fanout::{Fanout, Kept};

/// Publishes what it is sent.
#[derive(Debug)]
pub(crate) struct Publishing<T>(pub(crate) Arc<Fanout<T>>);

#[tonic::async_trait]
impl<T: Kept> Publisher for Publishing<T> {
    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let response = self.0.publish(request.into_inner().events)?;
        Ok(Response::new(response))
    }

    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        requests: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let fanout = Arc::clone(&self.0);
        let responses = requests
            .into_inner()
            .map(move |request| fanout.publish(request?.events));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn wait_enforced(
        &self,
        _: Request<WaitEnforcedRequest>,
    ) -> Result<Response<WaitEnforcedResponse>, Status> {
        Err(Status::unimplemented("nobody waits here"))
    }
}
