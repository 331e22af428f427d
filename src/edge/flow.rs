//! What responses have under way: given to HTTP/2, and not yet gone into the
//! socket.
//!
//! Who writes to the socket himself knows what has gone, and tells it ([`Load`]). Where
//! hyper does: it asks a body for its next piece without waiting until the one before is
//! written, and h2 keeps what the peer's windows or the socket do not take, even after
//! the body has ended. So whether a peer takes what it is given is seen by neither polls
//! nor writes, but by when the pieces are dropped ([`MeteredBody`]).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::connection::{Call, Link};

/// Counts pieces from when they are given until they are dropped.
#[derive(Debug, Default)]
pub(super) struct Meter {
    given_bytes: AtomicU64,
    gone_bytes: AtomicU64,
}

impl Meter {
    /// `piece` as `Bytes` that are counted until they are dropped. The piece is
    /// not copied; the one allocation is the `Bytes`' own.
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
            meter: Arc::clone(self),
        })
    }

    /// `bytes` are given, by somebody who tells when they are gone.
    fn give(&self, bytes: u64) {
        // Relaxed: as in `carry`; `go` is called by the same task.
        self.given_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` of what was given are gone.
    fn go(&self, bytes: u64) {
        // Release: pairs with the Acquire in `under_way`.
        self.gone_bytes.fetch_add(bytes, Ordering::Release);
    }

    /// While something is under way: a number that stays the same for as long as
    /// nothing of it has gone.
    pub(super) fn under_way(&self) -> Option<u64> {
        // Acquire: whatever is seen gone is also seen given, so that there never
        // seems to be less than nothing. Pairs with the Release in `drop`.
        let gone = self.gone_bytes.load(Ordering::Acquire);
        let given = self.given_bytes.load(Ordering::Relaxed);
        (given > gone).then_some(gone)
    }
}

struct Carried<T> {
    piece: T,
    bytes: u64,
    meter: Arc<Meter>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Carried<T> {
    fn as_ref(&self) -> &[u8] {
        self.piece.as_ref()
    }
}

impl<T> Drop for Carried<T> {
    fn drop(&mut self) {
        self.meter.go(self.bytes);
    }
}

/// One stream of pieces, watched until it has ended and all of it has gone.
#[derive(Debug)]
pub(super) struct Flow {
    /// What the log calls it.
    name: Box<str>,
    call: Call,
    meter: Arc<Meter>,
    ended: AtomicBool,
}

impl Flow {
    /// A flow of `call`, and what stands for its giving end: dropping that ends
    /// the flow.
    pub(super) fn new(name: Box<str>, call: Call) -> (Arc<Self>, Source) {
        let flow = Arc::new(Flow {
            name,
            call,
            meter: Arc::default(),
            ended: AtomicBool::new(false),
        });
        let source = Source {
            meter: Arc::clone(&flow.meter),
            flow: Arc::clone(&flow),
        };
        (flow, source)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn link(&self) -> &Link {
        self.call.link()
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether it has ended and all of it has gone.
    pub(super) fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire) && self.meter.under_way().is_none()
    }
}

/// The giving end of a [`Flow`].
#[derive(Debug)]
pub(super) struct Source {
    meter: Arc<Meter>,
    flow: Arc<Flow>,
}

impl Drop for Source {
    fn drop(&mut self) {
        // Release, and Acquire in `is_finished`: who sees the end sees everything
        // that was given before it.
        self.flow.ended.store(true, Ordering::Release);
    }
}

/// The giving end of a [`Flow`] for somebody who writes to the socket itself, and so
/// knows what has gone. What goes as soon as it is given, the flow need not know of.
#[derive(Debug)]
pub(super) struct Load {
    source: Source,
    under_way_bytes: u64,
    /// How much of that the flow knows of.
    told_bytes: u64,
}

impl Load {
    pub(super) fn new(source: Source) -> Self {
        Load {
            source,
            under_way_bytes: 0,
            told_bytes: 0,
        }
    }

    /// So much more is to be written.
    pub(super) fn give(&mut self, bytes: u64) {
        self.under_way_bytes += bytes;
    }

    /// So much was written.
    pub(super) fn go(&mut self, bytes: u64) {
        self.under_way_bytes -= bytes;
        let told = bytes.min(self.told_bytes);
        if told > 0 {
            self.told_bytes -= told;
            self.source.meter.go(told);
        }
    }

    /// What was given and has not gone stays under way for now: from here on it counts
    /// as waiting for the peer.
    pub(super) fn wait(&mut self) {
        let untold = self.under_way_bytes - self.told_bytes;
        if untold > 0 {
            self.told_bytes = self.under_way_bytes;
            self.source.meter.give(untold);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // What was not written is dropped with it.
        self.source.meter.go(self.told_bytes);
    }
}

/// Any response body, with its data counted.
#[derive(Debug)]
pub(super) struct MeteredBody {
    inner: tonic::body::Body,
    to: Account,
}

/// Who counts a body's data.
#[derive(Debug)]
pub(super) enum Account {
    /// A flow of its own, for a body that may go on for long.
    Own(Source),
    /// The connection, for one short answer of many.
    Link(Call),
}

impl MeteredBody {
    pub(super) fn new(inner: tonic::body::Body, to: Account) -> Self {
        MeteredBody { inner, to }
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let meter = match &self.to {
            Account::Own(source) => &source.meter,
            Account::Link(call) => call.link().answers(),
        };
        Poll::Ready(polled.map(|frame| Ok(frame?.map_data(|data| meter.carry(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
