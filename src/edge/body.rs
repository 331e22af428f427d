//! The body of a `SubscribePush` response on a server that is not ours: frames straight
//! from the ring, then trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::task::coop;
use tonic::Status;

use super::status;
use crate::engine::Subscriber;

/// One stream. A batch becomes one piece of data without being copied; h2 cuts
/// it into DATA frames.
#[derive(Debug)]
pub(super) struct PushBody {
    /// `None` once the trailers are out.
    subscriber: Option<Subscriber>,
}

impl PushBody {
    pub(super) fn new(subscriber: Subscriber) -> Self {
        PushBody {
            subscriber: Some(subscriber),
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
            Ok(batch) => Ok(Frame::data(batch.into_bytes())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::event::Event;
    use http_body::Body;
    use std::future::poll_fn;

    /// A `PushEvent` with the smallest client event.
    const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";

    fn body(engine: &Engine) -> PushBody {
        // One event a batch, so that there are many.
        let subscriber = engine.subscribe("gateway", "").unwrap().max_batch_bytes(1);
        PushBody::new(subscriber)
    }

    #[tokio::test]
    async fn a_body_that_is_always_ready_yields_now_and_then() {
        let engine = Engine::builder().build().unwrap();
        let mut body = body(&engine);
        let event = Event::parse(EVENT).unwrap();
        let count = 10_000;
        engine
            .publisher()
            .publish_batch(&vec![event; 4000])
            .unwrap();
        engine
            .publisher()
            .publish_batch(&vec![event; 4000])
            .unwrap();
        engine
            .publisher()
            .publish_batch(&vec![event; 2000])
            .unwrap();
        let mut taken = 0;
        let mut yields = 0;
        while taken < count {
            poll_fn(|cx| {
                loop {
                    match Pin::new(&mut body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(_))) => taken += 1,
                        Poll::Ready(other) => panic!("{other:?}"),
                        Poll::Pending => return Poll::Ready(()),
                    }
                    if taken == count {
                        return Poll::Ready(());
                    }
                }
            })
            .await;
            yields += 1;
            tokio::task::yield_now().await;
        }
        assert!(yields > 10, "{yields}");
    }

    #[tokio::test]
    async fn after_the_trailers_there_is_nothing() {
        let engine = Engine::builder().build().unwrap();
        let mut body = body(&engine);
        engine.close();
        assert!(!body.is_end_stream());
        let mut next = async || poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let trailers = next().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert!(next().await.is_none());
        assert!(body.is_end_stream());
    }
}
