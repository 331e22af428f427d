//! The same tonic service with a codec of its own: an event is encoded once, and its
//! `Bytes` are copied into tonic's buffer for each subscriber.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use futures_util::Stream;
use galaxy_push::contract::publisher::publisher_server::PublisherServer;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::fanout::{Fanout, Kept};
use super::publisher::Publishing;
use super::tonic::start;

/// Both services over one history.
pub(crate) fn routes() -> Option<Routes> {
    let fanout = Fanout::<Bytes>::new()?;
    let push = EncodedOnce(Arc::clone(&fanout));
    Some(Routes::new(push).add_service(PublisherServer::new(Publishing(fanout))))
}

impl Kept for Bytes {
    fn new(event: PushEvent) -> Self {
        event.encode_to_vec().into()
    }
}

/// What the generated `PushServer` is, but for the codec.
#[derive(Clone, Debug)]
struct EncodedOnce(Arc<Fanout<Bytes>>);

impl NamedService for EncodedOnce {
    const NAME: &'static str = "galaxy.backend.push.v1.Push";
}

impl Service<http::Request<Body>> for EncodedOnce {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // It has one method, which serves every path.
        let method = Subscribe(Arc::clone(&self.0));
        Box::pin(async move {
            let mut grpc = Grpc::new(BytesCodec);
            Ok(grpc.server_streaming(method, request).await)
        })
    }
}

struct Subscribe(Arc<Fanout<Bytes>>);

impl ServerStreamingService<GatewaySubscribeRequest> for Subscribe {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<GatewaySubscribeRequest>) -> Self::Future {
        ready(start(&self.0, request.get_ref()).map(|(response, next)| {
            let events = Arc::clone(&self.0).follow(next);
            response.map(|()| Box::pin(events) as Self::ResponseStream)
        }))
    }
}

/// Requests by prost, responses as the bytes that they are.
#[derive(Clone, Copy, Debug, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = GatewaySubscribeRequest;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> Self::Encoder {
        BytesCodec
    }

    fn decoder(&mut self) -> Self::Decoder {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, event: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(event);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = GatewaySubscribeRequest;
    type Error = Status;

    fn decode(
        &mut self,
        from: &mut DecodeBuf<'_>,
    ) -> Result<Option<GatewaySubscribeRequest>, Status> {
        GatewaySubscribeRequest::decode(from)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
