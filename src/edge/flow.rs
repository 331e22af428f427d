//! What one response has under way: given to HTTP/2, and not yet gone into the
//! socket.
//!
//! hyper asks a body for its next piece without waiting until the one before is
//! written, and h2 keeps what the peer's windows or the socket do not take,
//! even after the body has ended. So whether a peer takes what it is given is
//! seen by neither polls nor writes, but by when the pieces are dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::connection::{Call, Link};

/// The pieces of one response that are under way.
#[derive(Debug)]
pub(super) struct Flow {
    /// What the log calls it.
    name: Box<str>,
    call: Call,
    given_bytes: AtomicU64,
    gone_bytes: AtomicU64,
    ended: AtomicBool,
}

impl Flow {
    pub(super) fn new(name: Box<str>, call: Call) -> Self {
        Flow {
            name,
            call,
            given_bytes: AtomicU64::new(0),
            gone_bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn link(&self) -> &Link {
        self.call.link()
    }

    /// `piece` as `Bytes` that this flow counts until they are dropped. The
    /// piece is not copied; the one allocation is the `Bytes`' own.
    pub(super) fn carry<T>(self: &Arc<Self>, piece: T) -> Bytes
    where
        T: AsRef<[u8]> + Send + 'static,
    {
        let bytes = piece.as_ref().len() as u64;
        // Relaxed: `under_way` needs no more than that it comes before the
        // piece's own drop, and the piece is handed over with synchronization.
        self.given_bytes.fetch_add(bytes, Ordering::Relaxed);
        Bytes::from_owner(Carried {
            piece,
            bytes,
            flow: Arc::clone(self),
        })
    }

    /// While something is under way: how many bytes are, and a number that stays
    /// the same for as long as nothing of it has gone.
    pub(super) fn under_way(&self) -> Option<(u64, u64)> {
        // Acquire: whatever is seen gone is also seen given, so that the
        // difference is never negative. Pairs with the Release in `drop`.
        let gone = self.gone_bytes.load(Ordering::Acquire);
        let given = self.given_bytes.load(Ordering::Relaxed);
        (given > gone).then(|| (given - gone, gone))
    }

    /// Notes that the response gives no more.
    pub(super) fn end(&self) {
        // Release, Acquire below: what was given before the end is seen by who
        // sees the end.
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the response gives no more and all of it has gone.
    pub(super) fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire) && self.under_way().is_none()
    }
}

struct Carried<T> {
    piece: T,
    bytes: u64,
    flow: Arc<Flow>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Carried<T> {
    fn as_ref(&self) -> &[u8] {
        self.piece.as_ref()
    }
}

impl<T> Drop for Carried<T> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `Flow::under_way`.
        self.flow
            .gone_bytes
            .fetch_add(self.bytes, Ordering::Release);
    }
}

/// Any response body, with its data counted by a [`Flow`].
#[derive(Debug)]
pub(super) struct FlowBody {
    inner: tonic::body::Body,
    flow: Arc<Flow>,
}

impl FlowBody {
    pub(super) fn new(inner: tonic::body::Body, flow: Arc<Flow>) -> Self {
        FlowBody { inner, flow }
    }
}

impl http_body::Body for FlowBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(polled.map(|frame| Ok(frame?.map_data(|data| self.flow.carry(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for FlowBody {
    fn drop(&mut self) {
        self.flow.end();
    }
}
