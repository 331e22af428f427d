//! The body of a `SubscribePush` response: frames straight from the ring, then
//! trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::task::coop;
use tonic::Status;

use super::flow::Flow;
use super::status;
use crate::engine::Subscriber;

/// One stream. A batch becomes one piece of data without being copied; h2 cuts
/// it into DATA frames.
#[derive(Debug)]
pub(super) struct PushBody {
    /// `None` once the trailers are out.
    subscriber: Option<Subscriber>,
    flow: Arc<Flow>,
}

impl PushBody {
    pub(super) fn new(subscriber: Subscriber, flow: Arc<Flow>) -> Self {
        PushBody {
            subscriber: Some(subscriber),
            flow,
        }
    }
}

impl http_body::Body for PushBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(subscriber) = &mut this.subscriber else {
            return Poll::Ready(None);
        };
        // hyper asks for as long as the peer's window lasts; without a budget, one
        // fast gateway that is far behind would keep its worker to itself.
        let budget = ready!(coop::poll_proceed(cx));
        let received = ready!(subscriber.poll_recv(cx));
        budget.made_progress();
        Poll::Ready(Some(match received {
            Ok(batch) => Ok(Frame::data(this.flow.carry(batch))),
            Err(error) => {
                let status = status::end_of_stream(error, subscriber.lag());
                this.subscriber = None;
                let mut trailers = HeaderMap::new();
                status
                    .add_header(&mut trailers)
                    .map(|()| Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.subscriber.is_none()
    }
}

impl Drop for PushBody {
    fn drop(&mut self) {
        self.flow.end();
    }
}
