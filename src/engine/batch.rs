//! What a subscriber reads: a run of frames, shared with the ring, not copied.

#![allow(unsafe_code, reason = "views of published memory")]

use std::fmt;

use bytes::Bytes;

use super::frame::Events;
use super::segment::Lease;
use super::sync::Arc;
use crate::cursor::{Cursor, Epoch, Seq};

/// Published frames of one segment, as [`Ring`](super::ring::Ring) found them.
#[derive(Debug)]
pub(super) struct Span {
    lease: Arc<Lease>,
    first: u64,
    last: u64,
    /// Where the first frame starts in its segment. No segment is as large as these can say:
    /// batches are moved often, and each word of them costs.
    offset: u32,
    bytes: u32,
}

impl Span {
    /// The frames of the events from `first` to `last`, which are the `bytes` bytes at
    /// `offset`.
    ///
    /// # Safety
    ///
    /// They lie inside the segment, which is shorter than 4 GiB, and the caller has read
    /// (Acquire) a head at or beyond `last`.
    pub(super) unsafe fn new(
        lease: Arc<Lease>,
        (first, last): (u64, u64),
        offset: usize,
        bytes: usize,
    ) -> Self {
        Span {
            lease,
            first,
            last,
            offset: offset as u32,
            bytes: bytes as u32,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

/// A run of events, ready for the wire: whole frames, back to back, with dense
/// sequences from [`first`](Batch::first) to [`last`](Batch::last).
///
/// A batch is a view of the ring's memory and keeps that memory alive, even when
/// the ring has moved on: drop it, or pass it on, soon.
///
/// ```
/// use galaxy_push::engine::Engine;
/// use galaxy_push::event::Event;
///
/// let engine = Engine::builder().build()?;
/// let mut gateway = engine.subscribe("gateway-1", "")?;
/// // PushEvent { client_event: { user_id: "u", kind: "k" } }
/// let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
/// engine.publisher().publish_batch(&[event; 2])?;
///
/// let batch = gateway.try_recv()?;
/// assert_eq!((batch.len(), batch.last()), (2, engine.head()));
/// // Each event is the publisher's bytes, and then its cursor as field 3.
/// for (event, cursor) in batch.events().zip([batch.first(), batch.last()]) {
///     assert!(event.starts_with(b"\x0a\x06\x0a\x01u\x1a\x01k"));
///     assert!(event.ends_with(cursor.to_string().as_bytes()));
/// }
/// // A response's body as gRPC frames it.
/// let body = batch.into_bytes();
/// assert_eq!(body.len(), 2 * (5 + 8 + 26));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "its events are not received again"]
pub struct Batch {
    span: Span,
    epoch: Epoch,
}

impl Batch {
    pub(super) fn new(span: Span, epoch: Epoch) -> Self {
        Batch { span, epoch }
    }

    /// The cursor of the first event.
    #[must_use]
    pub fn first(&self) -> Cursor {
        Cursor::new(self.epoch, Seq::issued(self.span.first))
    }

    /// The cursor of the last event.
    #[must_use]
    pub fn last(&self) -> Cursor {
        Cursor::new(self.epoch, Seq::issued(self.span.last))
    }

    /// The number of events, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        (self.span.last - self.span.first + 1) as usize
    }

    /// The frames.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let segment = self.span.lease.segment();
        // SAFETY: as whoever made the span has vouched for.
        unsafe { segment.published(self.span.offset as usize, self.span.bytes as usize) }
    }

    /// The frames as `Bytes`, without copying. Allocates once, for the `Bytes`'
    /// own reference count.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// The `PushEvent` messages in the frames, each with its cursor.
    pub fn events(&self) -> Events<'_> {
        Events::new(self.as_bytes())
    }
}

impl AsRef<[u8]> for Batch {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("first", &self.first())
            .field("last", &self.last())
            .field("bytes", &self.span.bytes)
            .finish()
    }
}
