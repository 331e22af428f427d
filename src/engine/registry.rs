//! The subscription map: one subscription for each gateway id.
//!
//! The map is split into shards, each an immutable map behind an arc-swapped
//! pointer: looking up never blocks, and subscribing copies one shard only. (One
//! map of 10,000 entries, copied for each of 10,000 gateways that reconnect at
//! once, would cost seconds.)

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use arc_swap::ArcSwap;

use super::subscription::Subscription;
use super::sync::{Arc, AtomicUsize, Ordering};

const SHARDS: usize = 256;

type Shard = HashMap<Arc<str>, Arc<Subscription>>;

#[derive(Debug)]
pub(super) struct Registry {
    shards: Box<[ArcSwap<Shard>]>,
    hasher: RandomState,
    /// Ids in the map, counted before they are put in and after they are gone.
    count: AtomicUsize,
    max: usize,
}

/// The map is full.
#[derive(Debug)]
pub(super) struct Full;

impl Registry {
    pub(super) fn new(max: usize) -> Self {
        Registry {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            max,
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
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
            let replaced = current.get(new.id()).map(Arc::clone);
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
            let mut next = Shard::clone(&current);
            next.insert(Arc::clone(new.id()), Arc::clone(new));
            let previous = shard.compare_and_swap(&*current, Arc::new(next));
            if Arc::ptr_eq(&previous, &current) {
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
            if !current
                .get(old.id())
                .is_some_and(|held| Arc::ptr_eq(held, old))
            {
                return;
            }
            let mut next = Shard::clone(&current);
            next.remove(old.id());
            let previous = shard.compare_and_swap(&*current, Arc::new(next));
            if Arc::ptr_eq(&previous, &current) {
                self.count.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn shard(&self, id: &str) -> &ArcSwap<Shard> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
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
            let room = |count| (count < self.registry.max).then_some(count + 1);
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
