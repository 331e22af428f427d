//! Request bodies within bounds: how large a message may be, how long the request
//! may take to arrive, and how much of all unfinished messages is held at once.
//!
//! An [`Intake`] stands between hyper and tonic. It passes the body on unchanged
//! and follows the length prefixes in it. Whatever it stops reading, HTTP/2's
//! flow control keeps at the peer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use tonic::body::Body;

/// The flag and the length that precede every gRPC message.
const PREFIX_BYTES: usize = 5;

/// What one kind of call may send.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// The longest message, in bytes.
    pub(super) max_message_bytes: usize,
    /// How long the request may take to arrive, from its headers to its end.
    pub(super) timeout: Duration,
    /// Bytes of messages that have begun to arrive and are larger than one
    /// frame, all calls together. Whoever finds none left waits.
    pub(super) budget: Arc<Semaphore>,
}

/// A request's body, bounded.
#[derive(Debug)]
pub(super) struct Intake {
    body: Body,
    bounds: Bounds,
    budget: PollSemaphore,
    at: At,
    /// What the unfinished message has of the budget.
    hold: Option<OwnedSemaphorePermit>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug)]
enum At {
    Prefix {
        bytes: [u8; PREFIX_BYTES],
        have: usize,
    },
    Message {
        left: usize,
    },
}

impl At {
    const START: At = At::Prefix {
        bytes: [0; PREFIX_BYTES],
        have: 0,
    };
}

impl Intake {
    pub(super) fn new(body: Body, bounds: Bounds) -> Self {
        Intake {
            body,
            budget: PollSemaphore::new(Arc::clone(&bounds.budget)),
            deadline: None,
            bounds,
            at: At::START,
            hold: None,
        }
    }

    /// Moves on over `data`.
    fn follow(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            match &mut self.at {
                At::Prefix { bytes, have } => {
                    let n = data.len().min(PREFIX_BYTES - *have);
                    bytes[*have..*have + n].copy_from_slice(&data[..n]);
                    *have += n;
                    data = &data[n..];
                    if *have == PREFIX_BYTES {
                        let [_, length @ ..] = *bytes;
                        let left = u32::from_be_bytes(length) as usize;
                        let limit = self.bounds.max_message_bytes;
                        if left > limit {
                            return Err(Status::invalid_argument(format!(
                                "the request message has {left} bytes, the limit is {limit}"
                            )));
                        }
                        self.at = At::Message { left };
                        self.finish_message();
                    }
                }
                At::Message { left } => {
                    let n = data.len().min(*left);
                    *left -= n;
                    data = &data[n..];
                    self.finish_message();
                }
            }
        }
        Ok(())
    }

    fn finish_message(&mut self) {
        if let At::Message { left: 0 } = self.at {
            self.at = At::START;
            self.hold = None;
        }
    }

    /// Waits for a place in the budget if the rest of a message is to come.
    fn poll_budget(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let At::Message { left } = self.at else {
            return Poll::Ready(());
        };
        if self.hold.is_some() {
            return Poll::Ready(());
        }
        // Below `max_message_bytes`, which is far from the limit of u32.
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        // `None`: the semaphore was closed, which nobody does.
        self.hold = ready!(self.budget.poll_acquire_many(cx, left));
        Poll::Ready(())
    }

    /// Looks at the clock: the request has to arrive in time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let timeout = self.bounds.timeout;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Status::deadline_exceeded(format!(
            "the request did not arrive within {timeout:?}"
        )))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        ready!(self.poll_budget(cx));
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl http_body::Body for Intake {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(polled) = self.poll_body(cx) else {
            return self.poll_deadline(cx).map(|status| Some(Err(status)));
        };
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.follow(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic::Code;

    const TIMEOUT: Duration = Duration::from_secs(10);

    type Pieces = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

    /// An intake that allows messages of 1000 bytes, and what feeds it.
    fn intake(budget: &Arc<Semaphore>) -> (Pieces, Intake) {
        let (pieces, body) = mpsc::unbounded_channel();
        let bounds = Bounds {
            max_message_bytes: 1000,
            timeout: TIMEOUT,
            budget: Arc::clone(budget),
        };
        let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(body)));
        (pieces, Intake::new(body, bounds))
    }

    fn send(pieces: &Pieces, bytes: &[u8]) {
        let piece = Bytes::copy_from_slice(bytes);
        pieces.send(Ok(Frame::data(piece))).unwrap();
    }

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend((bytes as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, b'x');
        message
    }

    async fn next(intake: &mut Intake) -> Option<Result<Bytes, Status>> {
        let frame = intake.frame().await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn messages_pass_unchanged_however_they_are_cut() {
        let words = [message(1000), message(0), message(1), message(999)].concat();
        for size in [1, 2, 5, 6, 999, words.len()] {
            let (pieces, mut intake) = intake(&Arc::new(Semaphore::new(1000)));
            words.chunks(size).for_each(|piece| send(&pieces, piece));
            drop(pieces);
            let mut passed = Vec::new();
            while let Some(piece) = next(&mut intake).await {
                passed.extend(piece.unwrap());
            }
            assert_eq!(passed, words, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_by_its_prefix() {
        let (pieces, mut intake) = intake(&Arc::new(Semaphore::new(1000)));
        send(&pieces, &message(10));
        send(&pieces, &message(1001)[..PREFIX_BYTES]);
        next(&mut intake).await.unwrap().unwrap();
        let status = next(&mut intake).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("1001"), "{status:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_must_arrive_and_end_in_time() {
        for words in [vec![], message(10)] {
            let (pieces, mut intake) = intake(&Arc::new(Semaphore::new(1000)));
            send(&pieces, &words);
            next(&mut intake).await.unwrap().unwrap();
            let status = next(&mut intake).await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_messages_share_the_budget() {
        let budget = Arc::new(Semaphore::new(1000));
        let (first_pieces, mut first) = intake(&budget);
        let (second_pieces, mut second) = intake(&budget);
        let large = message(900);
        for (pieces, intake) in [(&first_pieces, &mut first), (&second_pieces, &mut second)] {
            send(pieces, &large[..PREFIX_BYTES]);
            next(intake).await.unwrap().unwrap();
        }
        // The first to wait for its rest has it reserved, the second is not read.
        let reading_first = tokio::spawn(async move { next(&mut first).await });
        tokio::task::yield_now().await;
        assert_eq!(budget.available_permits(), 100);
        send(&second_pieces, &large[PREFIX_BYTES..]);
        let reading_second = tokio::spawn(async move { next(&mut second).await });
        tokio::task::yield_now().await;
        assert!(!reading_second.is_finished());

        send(&first_pieces, &large[PREFIX_BYTES..]);
        reading_first.await.unwrap().unwrap().unwrap();
        reading_second.await.unwrap().unwrap().unwrap();
        assert_eq!(budget.available_permits(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_the_budget_too_long_is_refused() {
        let budget = Arc::new(Semaphore::new(1000));
        let _all = budget.acquire_many(1000).await.unwrap();
        let (pieces, mut intake) = intake(&budget);
        send(&pieces, &message(900)[..PREFIX_BYTES]);
        next(&mut intake).await.unwrap().unwrap();
        let status = next(&mut intake).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
}
