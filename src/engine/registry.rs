//! The subscription map: one subscription for each gateway id.
//!
//! The map is split into shards, each an immutable list behind an arc-swapped
//! pointer: looking up never blocks, and subscribing copies one shard only. (One
//! map of 10,000 entries, copied for each of 10,000 gateways that reconnect at
//! once, would cost seconds.)

use std::hash::{BuildHasher, RandomState};
use std::mem;

use super::subscription::Subscription;
use super::sync::{Arc, ArcCell, AtomicUsize, Ordering};

/// How many subscriptions a shard has when the map is full, on average: few, because
/// each is counted up and down for its copy.
const PER_SHARD: usize = 8;
const MAX_SHARDS: usize = if cfg!(galaxy_loom) { 1 } else { 1 << 12 };

/// In no order, each with another id.
type Shard = Vec<Arc<Subscription>>;

#[derive(Debug)]
pub(super) struct Registry {
    /// A shard that was never used is not there.
    shards: Box<[ArcCell<Shard>]>,
    hasher: RandomState,
    /// Ids in the map, counted before they are put in and after they are gone.
    count: AtomicUsize,
    /// How many of them there may be.
    max: AtomicUsize,
    /// The most that `max` can be: so many there are shards and seats for.
    capacity: usize,
}

/// The map is full.
#[derive(Debug)]
pub(super) struct Full;

impl Registry {
    pub(super) fn new(max: usize) -> Self {
        Registry {
            shards: (0..max.div_ceil(PER_SHARD).clamp(1, MAX_SHARDS))
                .map(|_| ArcCell::empty())
                .collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            capacity: max,
        }
    }

    pub(super) fn max(&self) -> usize {
        // Relaxed, here and below: nothing else is read because of it.
        self.max.load(Ordering::Relaxed)
    }

    /// Changes it, within what it was made for; returns what it is from now on. Who is in the
    /// map stays there.
    pub(super) fn set_max(&self, max: usize) -> usize {
        let max = max.clamp(1, self.capacity);
        self.max.store(max, Ordering::Relaxed);
        max
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Puts a subscription under its id. Returns the one that it replaces, which
    /// has taken its last event and is still to be woken.
    pub(super) fn insert(
        &self,
        new: &Arc<Subscription>,
    ) -> Result<Option<Arc<Subscription>>, Full> {
        let shard = self.shard(new.id());
        let mut place = Place {
            registry: self,
            taken: false,
        };
        loop {
            let current = shard.load();
            let held = current.as_deref().map_or(&[][..], Vec::as_slice);
            let mut next = Vec::with_capacity(held.len() + 1);
            next.extend_from_slice(held);
            let same_id = next.iter_mut().find(|held| held.id() == new.id());
            let replaced = match same_id {
                Some(older) => Some(mem::replace(older, Arc::clone(new))),
                None => {
                    next.push(Arc::clone(new));
                    None
                }
            };
            // Before the swap: whoever replaces `new` in turn must find that
            // everything older than it has taken its last event.
            if let Some(older) = &replaced {
                older.mark_taken();
            }
            // Replacing needs no further place, so a full map still lets a
            // gateway reconnect.
            if replaced.is_none() {
                place.take()?;
            }
            if shard.exchange(current, Arc::new(next)).is_ok() {
                if replaced.is_none() {
                    place.keep();
                }
                return Ok(replaced);
            }
        }
    }

    /// Takes out a subscription that was not taken over.
    pub(super) fn remove(&self, old: &Arc<Subscription>) {
        let shard = self.shard(old.id());
        loop {
            let current = shard.load();
            let mut next = current.as_deref().cloned().unwrap_or_default();
            let Some(place) = next.iter().position(|held| Arc::ptr_eq(held, old)) else {
                return;
            };
            next.swap_remove(place);
            if shard.exchange(current, Arc::new(next)).is_ok() {
                self.count.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn shard(&self, id: &str) -> &ArcCell<Shard> {
        &self.shards[self.hasher.hash_one(id) as usize % self.shards.len()]
    }
}

/// A place in the map's count, given back unless it is kept.
struct Place<'a> {
    registry: &'a Registry,
    taken: bool,
}

impl Place<'_> {
    fn take(&mut self) -> Result<(), Full> {
        if !self.taken {
            // Relaxed: the count guards nothing but itself.
            let max = self.registry.max();
            let room = |count| (count < max).then_some(count + 1);
            self.registry
                .count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
                .map_err(|_| Full)?;
            self.taken = true;
        }
        Ok(())
    }

    fn keep(&mut self) {
        self.taken = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.registry.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
