//! The engine's settings, and the proportions of the ring that follow.

use std::time::Duration;

use super::appender::Appender;
use super::claim::{MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_EVENTS};
use super::frame;
use super::handle::Engine;
use super::index::ENTRY_BYTES;
use super::pool::SPARES;
use super::registry::Registry;
use super::revocations::Revocations;
use super::ring::{Ring, Shape};
use super::shared::Shared;
use super::sync::{Arc, AtomicBool, AtomicU64};
use super::time::{Time, millis};
use super::waiters::{MAX_SEATS, Waiters};
use crate::clock::Clock;
use crate::cursor::{Epoch, EpochError, Seq};
use crate::revocations;

/// A segment's size where nothing asks for another: small enough that a reader
/// that lags pins little, large enough that a batch covers many frames.
const SEGMENT_BYTES: u64 = 256 * 1024;
/// Smaller ones would spend more on their upkeep than on frames.
const MIN_SEGMENT_BYTES: u64 = 4096;
/// With fewer, one publisher that pauses between claim and commit would soon stop
/// the others.
const MIN_SEGMENTS: u64 = 4;
/// How many events may at least be claimed at once, in the smallest ring.
const MIN_IN_FLIGHT_EVENTS: u64 = if cfg!(miri) { 64 } else { 4096 };
/// What an invalidation may take, on average, with all around it.
const REVOCATION_BYTES: usize = 128;
/// What a table may take in any case, so that a few fit in that are long.
const MIN_REVOCATIONS_BYTES: usize = 256 << 10;
/// Slots beyond `max_subscribers`, for gateways that reconnect while their old
/// stream is still being taken down.
const EXTRA_SEATS: usize = if cfg!(galaxy_loom) { 1 } else { 64 };

/// Settings of an [`Engine`]. Each has a default; [`Limits`] tells what the engine
/// made of them.
///
/// ```
/// use std::time::Duration;
/// use galaxy_push::engine::Engine;
///
/// let engine = Engine::builder()
///     .max_bytes(64 << 20)
///     .max_events(200_000)
///     .window(Duration::from_secs(60))
///     .max_subscribers(50)
///     .build()?;
/// assert_eq!(engine.limits().max_events, 200_000);
/// assert!(engine.limits().ring_bytes <= 64 << 20);
/// # Ok::<(), galaxy_push::engine::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    max_events: u64,
    max_bytes: u64,
    max_event_bytes: usize,
    window: Duration,
    max_subscribers: usize,
    max_revocations: usize,
    revocation_retention: Duration,
    epoch: Option<Epoch>,
    time: Time,
    origin: u64,
    is_appended: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            max_events: 1 << 20,
            max_bytes: 256 << 20,
            max_event_bytes: 64 << 10,
            window: Duration::from_secs(5 * 60),
            max_subscribers: 10_000,
            max_revocations: 0,
            revocation_retention: Duration::from_secs(24 * 60 * 60),
            epoch: None,
            time: Time::system(),
            origin: 0,
            is_appended: false,
        }
    }
}

impl Builder {
    /// How many of the newest events the ring keeps: exactly so many, unless
    /// `max_bytes` is reached first. At least 1; default 1,048,576. More lets
    /// gateways stay away for longer; each costs 16 to 32 bytes of `max_bytes` for
    /// the index, beside the event. Where that would be more than a quarter of
    /// `max_bytes`, fewer are kept: see [`Limits::max_events`].
    #[must_use]
    pub fn max_events(mut self, events: u64) -> Self {
        self.max_events = events;
        self
    }

    /// The memory of the ring, in bytes: segments, spares and index together stay
    /// below. Default 256 MiB. What subscribers hold on to when the ring has moved
    /// on comes on top: see [`Stats::pinned_bytes`](super::Stats).
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The largest event, in bytes as the publisher encodes it, without the cursor.
    /// Default 64 KiB. A segment holds at least two of them, so that large ones
    /// make the ring's steps coarser.
    #[must_use]
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// How old an event may be for a subscription to resume at it. Default 5
    /// minutes. It does not concern subscribers that are reading.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How many gateways may be subscribed at once. Default 10,000, at most
    /// 131,040.
    #[must_use]
    pub fn max_subscribers(mut self, subscribers: usize) -> Self {
        self.max_subscribers = subscribers;
        self
    }

    /// How many invalidations are kept for gateways that were away for longer than the ring
    /// reaches back: the newest of each user and session, see [`Replay`](super::Replay). All
    /// together they take at most 128 bytes for each, and 256 KiB at least: where they are
    /// longer, fewer are kept. Default 0: none are.
    #[must_use]
    pub fn max_revocations(mut self, revocations: usize) -> Self {
        self.max_revocations = revocations;
        self
    }

    /// For how long they are kept. Default 24 hours.
    #[must_use]
    pub fn revocation_retention(mut self, retention: Duration) -> Self {
        self.revocation_retention = retention;
        self
    }

    /// The engine's epoch. Default: [`Epoch::now`]. Two engines whose cursors could
    /// meet must differ in it.
    #[must_use]
    pub fn epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// Where the ages of events come from. Default: [`SystemClock`](crate::clock::SystemClock).
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.time = Time::given(Box::new(clock));
        self
    }

    /// The sequence before the first event; default 0. An engine that follows a log begins
    /// after what it does not read of it. What lies before `origin` is then no gap for those who
    /// subscribe, and a cursor of it has [`Expired`](super::Resume::Expired). A
    /// [`Replay`](super::Replay) of what was missed since then is not complete: there may have
    /// been invalidations.
    #[must_use]
    pub fn origin(mut self, origin: Seq) -> Self {
        self.origin = origin.number();
        self
    }

    /// Builds the engine and its index; segments get their memory as the ring
    /// first comes to them.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting that does not fit, and what would.
    pub fn build(self) -> Result<Engine, BuildError> {
        let shape = self.shape()?;
        self.with_shape(shape)
    }

    /// Whether [`build`](Self::build) would build an engine, without any memory for one.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting that does not fit, and what would.
    pub fn check(&self) -> Result<(), BuildError> {
        self.shape()?;
        self.check_tables()
    }

    fn check_tables(&self) -> Result<(), BuildError> {
        if !(1..=MAX_SUBSCRIBERS).contains(&self.max_subscribers) {
            return Err(BuildError::MaxSubscribers {
                subscribers: self.max_subscribers,
            });
        }
        if self.max_revocations > MAX_REVOCATIONS {
            return Err(BuildError::MaxRevocations {
                revocations: self.max_revocations,
            });
        }
        Ok(())
    }

    /// Builds an engine that one [`Appender`] feeds, with sequences from outside, and no
    /// [`Publisher`](super::Publisher). `epoch` is that of the log which gives them; it
    /// takes the place of what [`epoch`](Self::epoch) has set.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_appended(self, epoch: Epoch) -> Result<(Engine, Appender), BuildError> {
        let shape = self.shape()?;
        self.appended(epoch, shape)
    }

    /// Builds an engine of exactly this shape, and its appender.
    pub(super) fn appended(
        mut self,
        epoch: Epoch,
        shape: Shape,
    ) -> Result<(Engine, Appender), BuildError> {
        self.epoch = Some(epoch);
        self.is_appended = true;
        let engine = self.with_shape(shape)?;
        let appender = Appender::new(Arc::clone(&engine.shared));
        Ok((engine, appender))
    }

    /// Builds an engine of exactly this shape.
    pub(super) fn with_shape(self, shape: Shape) -> Result<Engine, BuildError> {
        self.check_tables()?;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => Epoch::now()?,
        };
        Ok(Engine {
            shared: Arc::new(Shared {
                ring: Ring::new(shape, epoch, self.origin, self.is_appended),
                registry: Registry::new(self.max_subscribers),
                waiters: Waiters::new(2 * self.max_subscribers + EXTRA_SEATS),
                time: self.time,
                revocations: (self.max_revocations > 0).then(|| {
                    let limits = revocations::Limits {
                        revocations: self.max_revocations,
                        bytes: (self.max_revocations)
                            .saturating_mul(REVOCATION_BYTES)
                            .max(MIN_REVOCATIONS_BYTES),
                        retention_ms: millis(self.revocation_retention),
                    };
                    Revocations::new(limits, self.origin)
                }),
                window_ms: AtomicU64::new(millis(self.window)),
                aborted: AtomicBool::new(false),
            }),
        })
    }

    /// The ring's proportions.
    fn shape(&self) -> Result<Shape, BuildError> {
        if self.max_events == 0 {
            return Err(BuildError::NoEvents);
        }
        if !(1..=MAX_EVENT_BYTES).contains(&self.max_event_bytes) {
            return Err(BuildError::MaxEventBytes {
                bytes: self.max_event_bytes,
            });
        }
        if self.max_bytes > MAX_IN_FLIGHT_BYTES {
            return Err(BuildError::MaxBytesTooLarge {
                bytes: self.max_bytes,
            });
        }
        // Two frames to a segment at least: however frames fall, half of it is used.
        let two_frames = 2 * frame::frame_bytes(self.max_event_bytes) as u64;
        let smallest = two_frames.next_power_of_two().max(MIN_SEGMENT_BYTES);
        let preferred = prev_power_of_two(self.max_bytes / 64).min(SEGMENT_BYTES);
        let segment_bytes = smallest.max(preferred);

        let entry_bytes = ENTRY_BYTES as u64;
        let largest_index = prev_power_of_two(self.max_bytes / 4 / entry_bytes);
        let smallest_index = (MIN_IN_FLIGHT_EVENTS + 2).next_power_of_two();
        let wanted_index = self
            .max_events
            .saturating_add(MIN_IN_FLIGHT_EVENTS + 1)
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX);
        let mut index_entries = wanted_index.min(largest_index).max(smallest_index);
        let slots = |index_entries: u64| {
            let segments =
                self.max_bytes.saturating_sub(index_entries * entry_bytes) / segment_bytes;
            segments.saturating_sub(SPARES as u64)
        };
        while slots(index_entries) < MIN_SEGMENTS && index_entries > smallest_index {
            index_entries /= 2;
        }
        let slots = slots(index_entries);
        if slots < MIN_SEGMENTS {
            return Err(BuildError::MaxBytesTooSmall {
                bytes: self.max_bytes,
                max_event_bytes: self.max_event_bytes,
                least: smallest_index * entry_bytes
                    + (MIN_SEGMENTS + SPARES as u64) * segment_bytes,
            });
        }
        let max_events = self
            .max_events
            .min(index_entries - MIN_IN_FLIGHT_EVENTS - 1);
        Ok(Shape {
            segment_shift: segment_bytes.trailing_zeros(),
            slots: slots as usize,
            index_entries: index_entries as usize,
            max_events,
            in_flight: (index_entries - max_events - 1).min(MAX_IN_FLIGHT_EVENTS),
            max_event_bytes: self.max_event_bytes,
            // A segment is half used at least, and one segment may be begun.
            max_batch_bytes: (slots - 3) * (segment_bytes / 2),
        })
    }
}

/// The largest event that an engine can be built for: 16 MiB.
const MAX_EVENT_BYTES: usize = 16 << 20;
const _: () = {
    let two_frames = 2 * frame::frame_bytes(MAX_EVENT_BYTES) as u64;
    let largest = two_frames.next_power_of_two();
    assert!(
        largest <= u32::MAX as u64 && SEGMENT_BYTES <= largest,
        "a batch tells its place in a segment in 32 bits"
    );
};
const MAX_SUBSCRIBERS: usize = (MAX_SEATS - EXTRA_SEATS) / 2;

/// The most invalidations that an engine can be built for; some 12 GiB.
const MAX_REVOCATIONS: usize = 100_000_000;

/// The largest power of two up to `n`; 0 for 0.
fn prev_power_of_two(n: u64) -> u64 {
    n.checked_ilog2().map_or(0, |log| 1 << log)
}

/// What an engine was built for, after its settings were fitted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many of the newest events the ring keeps.
    pub max_events: u64,
    /// The largest event, in bytes as the publisher encodes it.
    pub max_event_bytes: usize,
    /// The most events that one batch may have.
    pub max_batch_events: usize,
    /// The largest batch, in bytes of frames: each event's bytes and 31 more.
    pub max_batch_bytes: u64,
    /// How many gateways may be subscribed at once.
    pub max_subscribers: usize,
    /// How many invalidations are kept for gateways that were away; 0 if none are.
    pub max_revocations: usize,
    /// The ring's memory, in bytes: at most this, without what subscribers pin.
    pub ring_bytes: u64,
    /// The size of a segment in bytes: the ring forgets in such steps when
    /// `max_bytes` is what limits it, and a lagging batch pins as much.
    pub segment_bytes: u64,
}

impl Limits {
    pub(super) fn of(shape: &Shape, max_subscribers: usize, max_revocations: usize) -> Self {
        let segment_bytes = shape.segment_bytes();
        Limits {
            max_events: shape.max_events,
            max_event_bytes: shape.max_event_bytes,
            max_batch_events: shape.in_flight as usize,
            max_batch_bytes: shape.max_batch_bytes,
            max_subscribers,
            max_revocations,
            ring_bytes: (shape.slots + SPARES) as u64 * segment_bytes
                + (shape.index_entries * ENTRY_BYTES) as u64,
            segment_bytes,
        }
    }
}

/// Why an engine cannot be built: the setting that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_events` is 0.
    #[error("max_events is 0, a ring keeps at least 1")]
    NoEvents,
    /// `max_event_bytes` is 0 or more than 16 MiB.
    #[error("max_event_bytes is {bytes}, it can be from 1 to {MAX_EVENT_BYTES}")]
    MaxEventBytes {
        /// What was set.
        bytes: usize,
    },
    /// `max_bytes` is not enough for the smallest ring with such events.
    #[error(
        "max_bytes is {bytes}, a ring for events of up to {max_event_bytes} bytes needs at least {least}"
    )]
    MaxBytesTooSmall {
        /// What was set.
        bytes: u64,
        /// The largest event.
        max_event_bytes: usize,
        /// What would do.
        least: u64,
    },
    /// `max_bytes` is more than positions can tell apart.
    #[error("max_bytes is {bytes}, it can be at most {MAX_IN_FLIGHT_BYTES}")]
    MaxBytesTooLarge {
        /// What was set.
        bytes: u64,
    },
    /// `max_subscribers` is 0 or more than there can be slots.
    #[error("max_subscribers is {subscribers}, it can be from 1 to {MAX_SUBSCRIBERS}")]
    MaxSubscribers {
        /// What was set.
        subscribers: usize,
    },
    /// `max_revocations` is more than a table can have.
    #[error("max_revocations is {revocations}, it can be at most {MAX_REVOCATIONS}")]
    MaxRevocations {
        /// What was set.
        revocations: usize,
    },
    /// No epoch was set, and there is none to be made.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "too large for an interpreter")]
    fn the_defaults_are_kept_as_they_are() {
        let limits = Engine::builder().build().unwrap().limits();
        assert_eq!(limits.max_events, 1 << 20);
        assert_eq!(limits.segment_bytes, SEGMENT_BYTES);
        assert!(limits.ring_bytes <= 256 << 20);
        assert!(limits.ring_bytes > 255 << 20, "hardly any of it is wasted");
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, and much of it")]
    fn every_ring_stays_below_its_bytes() {
        for max_bytes in (1..40).map(|i| i * 777_777) {
            for max_event_bytes in [1, 1000, 65_536, 1 << 20] {
                for max_events in [1, 1000, 1 << 20, u64::MAX] {
                    let built = Engine::builder()
                        .max_bytes(max_bytes)
                        .max_event_bytes(max_event_bytes)
                        .max_events(max_events)
                        .shape_only();
                    match built {
                        Ok(shape) => {
                            let limits = Limits::of(&shape, 1, 0);
                            assert!(limits.ring_bytes <= max_bytes);
                            assert!(limits.max_events <= max_events);
                            let frame = frame::frame_bytes(max_event_bytes) as u64;
                            assert!(limits.max_batch_bytes >= frame);
                            let entries = shape.max_events + shape.in_flight + 1;
                            assert!(entries <= shape.index_entries as u64);
                        }
                        Err(BuildError::MaxBytesTooSmall { least, .. }) => {
                            assert!(least > max_bytes);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too large for an interpreter")]
    fn what_an_error_says_would_do_does() {
        let build = |bytes| Engine::builder().max_bytes(bytes).build();
        let Err(BuildError::MaxBytesTooSmall { least, .. }) = build(10_000) else {
            panic!("10 kB are too few");
        };
        assert!(build(least).is_ok());
        assert!(build(least - 1).is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let error = |builder: Builder| builder.build().unwrap_err().to_string();
        let builder = Engine::builder;
        assert!(error(builder().max_events(0)).starts_with("max_events is 0"));
        assert!(error(builder().max_event_bytes(0)).starts_with("max_event_bytes is 0"));
        assert!(error(builder().max_subscribers(0)).starts_with("max_subscribers is 0"));
        assert!(error(builder().max_bytes(1 << 50)).starts_with("max_bytes is"));
        assert!(error(builder().max_revocations(usize::MAX)).starts_with("max_revocations is"));
    }

    impl Builder {
        fn shape_only(self) -> Result<Shape, BuildError> {
            self.shape()
        }
    }
}
