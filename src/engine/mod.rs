//! The engine: publishers put events into a ring of frames, subscribers read them
//! as batches of ready frames, and neither waits for the other.
//!
//! It is the whole product but for the network: it knows no sockets and no runtime, and
//! takes any clock.
//!
//! **An event's way.** A [`Publisher`] moves the *claim* word, and has a sequence and
//! some bytes of a *segment* for itself. It copies the *frame* there and writes the
//! event's *index* entry, which commits it. Then it moves the *head* over all that is
//! committed; from there on everybody may read it. If somebody is parked, one look at
//! the *waiters* tells, and the notifier is scheduled.
//!
//! **A read's way.** A [`Subscriber`] begins a turn of its *subscription*, loads the
//! head, and finds the frames after its position in the segment that it has a *lease*
//! on. It ends the turn: if nobody took over meanwhile, the [`Batch`] is its own.
//!
//! | file | noun |
//! |---|---|
//! | `frame` | an event as it goes over the wire |
//! | `segment`, `pool` | the memory that frames stand in, used again when nobody holds it |
//! | `slots` | the segments that are in the ring |
//! | `index` | where each event ends, and whether it is committed |
//! | `claim` | the word that hands out sequences and space |
//! | `ring` | all of these together: publish, read, forget |
//! | `batch` | what a subscriber is given |
//! | `subscription` | a gateway's hold on its id, and taking over |
//! | `registry` | gateway id to subscription |
//! | `waiters`, `waker_cell` | parked subscribers, and who wakes them |
//! | `time` | the clock, held to go forward |
//! | `sync` | atomics and shared pointers: the real ones, or a model checker's |
//! | [`Publisher`], [`Subscriber`], [`Builder`] | the public ends |
//!
//! `ARCHITECTURE.md` tells why it is built this way, and what is promised.
//!
//! # It must never
//!
//! - run code that is not its own between a claim and its commit;
//! - let a reference cover bytes that are not published;
//! - do work for each subscriber in a publish.
//!
//! ```
//! use galaxy_push::engine::{Engine, TryRecvError};
//! use galaxy_push::event::Event;
//!
//! let engine = Engine::builder().build()?;
//! let mut gateway = engine.subscribe("gateway-1", "")?;
//! assert_eq!(gateway.try_recv().unwrap_err(), TryRecvError::Empty);
//!
//! // PushEvent { client_event: { user_id: "u", kind: "k" } }
//! let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
//! let cursor = engine.publisher().publish(event)?;
//!
//! let batch = gateway.try_recv()?;
//! assert_eq!((batch.first(), batch.len()), (cursor, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod builder;
mod claim;
mod frame;
mod index;
mod pool;
mod publisher;
mod registry;
mod ring;
mod segment;
mod slots;
mod subscriber;
mod subscription;
mod sync;
mod time;
mod waiters;
mod waker_cell;

#[cfg(all(test, galaxy_loom))]
mod models;
#[cfg(all(test, not(galaxy_loom)))]
mod tests;

pub use self::batch::Batch;
pub use self::builder::{BuildError, Builder, Limits};
pub use self::frame::Events;
pub use self::publisher::{PublishError, Published, Publisher};
pub use self::subscriber::{
    DEFAULT_MAX_BATCH_BYTES, RecvError, Resume, Start, SubscribeError, Subscriber, TryRecvError,
};
pub use self::waiters::Notifier;

use std::fmt;

use self::registry::Registry;
use self::ring::Ring;
use self::sync::{Arc, AtomicBool, Ordering};
use self::time::Time;
use self::waiters::Waiters;
use crate::cursor::{Cursor, Seq};

/// One stream of events, its ring and its subscribers. Cheap to clone: all clones
/// are the same engine.
///
/// Dropping them ends nothing: whoever has a [`Publisher`] or a [`Subscriber`] has the
/// engine. [`close`](Self::close) tells subscribers that nothing more will come.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Settings, each with its default.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A producers' end.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.shared))
    }

    /// Subscribes a gateway, resuming after `cursor` if that is possible:
    /// [`Subscriber::start`] tells where the stream starts, and why. `cursor` is
    /// the text of the last processed event's cursor, or empty.
    ///
    /// An older subscription of the same id is taken over: when this returns, it
    /// has received its last event.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if the engine is closed or as many gateways as allowed
    /// are subscribed. An id that is subscribed already is let in all the same,
    /// unless more than `max_subscribers` subscriptions that were taken over have
    /// not been dropped yet.
    pub fn subscribe(&self, gateway_id: &str, cursor: &str) -> Result<Subscriber, SubscribeError> {
        Subscriber::subscribe(&self.shared, gateway_id, cursor)
    }

    /// Takes no more events. What was published is still delivered; each
    /// subscriber gets [`RecvError::Closed`] when it has received everything.
    pub fn close(&self) {
        self.shared.ring.close();
        self.shared.waiters.notify();
    }

    /// Takes no more events and delivers no more: every subscriber's next receive
    /// is [`RecvError::Closed`].
    pub fn abort(&self) {
        // Release: before the close, so that a subscriber that is woken for that one,
        // or does not park because of it, comes to see this.
        self.shared.aborted.store(true, Ordering::Release);
        self.close();
    }

    /// Whether the engine takes no more events.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.ring.is_closed()
    }

    /// The newest event's cursor, or that of sequence 0.
    #[must_use]
    pub fn head(&self) -> Cursor {
        let ring = &self.shared.ring;
        Cursor::new(ring.epoch(), Seq::issued(ring.head()))
    }

    /// What the engine was built for.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let shared = &self.shared;
        Limits::of(shared.ring.shape(), shared.registry.max())
    }

    /// Its state now. The figures are read one after another, while others work.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let ring = &self.shared.ring;
        let head = ring.head();
        Stats {
            subscribers: self.shared.registry.len(),
            // With nothing retained, the oldest is the one after the head.
            retained_events: match head.checked_sub(ring.oldest(head)) {
                Some(between) => between + 1,
                None => 0,
            },
            ring_bytes: ring.pool().live_bytes() + ring.index_bytes(),
            pinned_bytes: ring.pool().pinned_bytes(),
        }
    }

    /// Takes over the waking of parked subscribers from the engine's own thread.
    /// Spawn it on the runtime that the subscribers run on; until it is polled or
    /// dropped, nobody is woken.
    pub fn notifier(&self) -> Notifier {
        Notifier::attach(&self.shared.waiters)
    }
}

/// An engine's state at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Gateways that are subscribed.
    pub subscribers: usize,
    /// Events that can be read.
    pub retained_events: u64,
    /// Memory of the ring itself, in bytes; never above the `max_bytes` setting.
    pub ring_bytes: u64,
    /// Memory that has left the ring, but is kept alive by batches that were not
    /// let go of, or by subscribers that do not go on reading: each holds the
    /// segment that it read last. In bytes.
    pub pinned_bytes: u64,
}

/// What all ends of an engine share.
struct Shared {
    ring: Ring,
    registry: Registry,
    waiters: std::sync::Arc<Waiters>,
    time: Time,
    window_ms: u64,
    aborted: AtomicBool,
}

/// Short: with all of its ring it would be megabytes.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("epoch", &self.ring.epoch())
            .field("head", &self.ring.head())
            .field("closed", &self.ring.is_closed())
            .field("subscribers", &self.registry.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.waiters.stop();
    }
}
