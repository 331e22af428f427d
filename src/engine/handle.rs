//! The handle to an engine: what can be done to it, and what can be seen of it.

use std::time::Duration;

use super::builder::{Builder, Limits};
use super::error::SubscribeError;
use super::observer::Observer;
use super::publisher::Publisher;
use super::replay::Replay;
use super::revocations::Revocations;
use super::ring::Retained;
use super::shared::Shared;
use super::subscriber::Subscriber;
use super::sync::{Arc, Ordering};
use super::time::millis;
use super::waiters::Notifier;
use crate::cursor::{Cursor, Seq};

/// One stream of events, its ring and its subscribers. Cheap to clone: all clones
/// are the same engine.
///
/// Dropping them ends nothing: whoever has a [`Publisher`] or a [`Subscriber`] has the
/// engine. [`close`](Self::close) tells subscribers that nothing more will come.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

impl Engine {
    /// Settings, each with its default.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A publishers' end.
    ///
    /// # Panics
    ///
    /// If an [`Appender`](super::Appender) feeds the engine: sequences would come from two
    /// sources.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        assert!(
            !self.shared.ring.may_have_holes(),
            "an engine that an Appender feeds has no Publisher"
        );
        Publisher::new(Arc::clone(&self.shared))
    }

    /// Whether an [`Appender`](super::Appender) feeds it, and no publishers.
    #[must_use]
    pub fn is_appended(&self) -> bool {
        self.shared.ring.may_have_holes()
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
        let start = |shared: &Arc<Shared>| (shared.start(cursor), ());
        Subscriber::subscribe(&self.shared, gateway_id, start).map(|(subscriber, ())| subscriber)
    }

    /// The same; and where the stream does not resume, what is kept of the invalidations that
    /// the gateway has missed. `None` if it resumes: nothing was missed.
    ///
    /// Where there is no cursor, those are all that are kept.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_with_replay(
        &self,
        gateway_id: &str,
        cursor: &str,
    ) -> Result<(Subscriber, Option<Replay>), SubscribeError> {
        let start = |shared: &Arc<Shared>| Replay::start(shared, cursor);
        Subscriber::subscribe(&self.shared, gateway_id, start)
    }

    /// Takes no more events. What was published is still delivered; each
    /// subscriber gets [`RecvError::Closed`](super::RecvError::Closed) when it has received everything.
    pub fn close(&self) {
        self.shared.ring.close();
        self.shared.waiters.notify();
    }

    /// Takes no more events and delivers no more: every subscriber's next receive
    /// is [`RecvError::Closed`](super::RecvError::Closed).
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
        Limits::of(
            shared.ring.shape(),
            shared.registry.max(),
            shared.revocations.as_ref().map_or(0, Revocations::max),
        )
    }

    /// Its state now. The figures are read one after another, while others work.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let ring = &self.shared.ring;
        Stats {
            subscribers: self.shared.registry.len(),
            retained_events: ring.retained_events(),
            ring_bytes: ring.pool().live_bytes() + ring.index_bytes(),
            pinned_bytes: ring.pool().pinned_bytes(),
        }
    }

    /// What is kept of invalidations; `None` if they are not.
    #[must_use]
    pub fn revocations(&self) -> Option<RevocationStats> {
        let revocations = self.shared.revocations.as_ref()?;
        let shared = &self.shared;
        let stats = revocations.stats(&shared.ring, shared.time.now_ms());
        Some(RevocationStats {
            kept: stats.revocations as u64,
            bytes: stats.bytes as u64,
            evicted: stats.evictions,
            expired: stats.expirations,
            replays: stats.replays as u64,
        })
    }

    /// The age of the oldest event that can be read; `None` if there is none.
    #[must_use]
    pub fn oldest_age(&self) -> Option<Duration> {
        let ring = &self.shared.ring;
        self.age_of_next(Seq::issued(ring.oldest(ring.head()) - 1))
    }

    /// The greatest age at which a cursor still resumes.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.shared.window()
    }

    /// Changes that. Open streams are not affected.
    pub fn set_window(&self, window: Duration) {
        self.shared.set_window(window);
    }

    /// Changes for how long invalidations are kept.
    pub fn set_revocation_retention(&self, retention: Duration) {
        if let Some(revocations) = &self.shared.revocations {
            revocations.write().table.set_retention(millis(retention));
        }
    }

    /// Changes how many gateways may be subscribed at once, to at least 1 and at most what the
    /// engine was built for. Returns what it is from now on. Those that are subscribed stay
    /// so, even if they are more.
    pub fn set_max_subscribers(&self, subscribers: usize) -> usize {
        self.shared.registry.set_max(subscribers)
    }

    /// How long ago the first event after `seq` was published: for how long a subscriber
    /// that has come to `seq` has been waiting for it. `None` if there is none, or if it has
    /// left the ring.
    #[must_use]
    pub fn age_of_next(&self, seq: Seq) -> Option<Duration> {
        let shared = &*self.shared;
        let head = shared.ring.head();
        let next = seq.number().checked_add(1).filter(|next| *next <= head)?;
        match shared.ring.retained(next, head) {
            Retained::Since { published_ms } => {
                let age_ms = shared.time.now_ms().saturating_sub(published_ms);
                Some(Duration::from_millis(age_ms))
            }
            _ => None,
        }
    }

    /// The newest event, while publishers are in the middle of later ones, which cannot be
    /// read before these are whole. A publisher takes microseconds for that. If this is the
    /// same event twice, nothing was finished in between.
    #[must_use]
    pub fn unfinished_after(&self) -> Option<Cursor> {
        let ring = &self.shared.ring;
        let head = ring.unfinished_after()?;
        Some(Cursor::new(ring.epoch(), Seq::issued(head)))
    }

    /// What a publisher does that stops in the middle, for good.
    #[cfg(all(test, not(galaxy_loom)))]
    pub(crate) fn claim_and_stop(&self, event: crate::event::Event<'_>) {
        self.shared.ring.claim_and_stop(&[event]);
    }

    /// Reads along from the head on, as no gateway: it takes no place, wakes nobody, and
    /// nobody takes over from it.
    #[must_use]
    pub fn observe(&self) -> Observer {
        Observer::new(&self.shared)
    }

    /// Takes over the waking of parked subscribers from the engine's own thread.
    /// Spawn it on the runtime that the subscribers run on; until it is polled or
    /// dropped, nobody is woken.
    pub fn notifier(&self) -> Notifier {
        Notifier::attach(&self.shared.waiters)
    }
}

/// What an engine keeps of invalidations, at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevocationStats {
    /// How many invalidations: the newest of each user and session.
    pub kept: u64,
    /// The memory that they take, with all around them, in bytes.
    pub bytes: u64,
    /// How many were dropped because there was no room for them.
    pub evicted: u64,
    /// How many were dropped because they had been kept for long enough.
    pub expired: u64,
    /// How many replays are under way.
    pub replays: u64,
}

/// An engine's state at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Gateways that are subscribed.
    pub subscribers: usize,
    /// Events that can be read. Missing ones between them count too (see
    /// [`Appender`](super::Appender)).
    pub retained_events: u64,
    /// Memory of the ring itself, in bytes; never above the `max_bytes` setting.
    pub ring_bytes: u64,
    /// Memory that has left the ring, but is kept alive by batches that were not
    /// let go of, or by subscribers that do not go on reading: each holds the
    /// segment that it read last. In bytes.
    pub pinned_bytes: u64,
}
