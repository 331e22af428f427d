//! User and session to the sequence of their newest invalidation.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// How many keys a shard is for. A shard that grows is hashed anew as a whole: so many that this
/// takes microseconds, and so few above a power of two that most of its memory is used.
const SHARD_KEYS: usize = 192;

/// A user and a session, whose name is empty for all of them.
pub(super) type Key<'a> = (&'a str, &'a str);

/// The keys themselves are in the records: here are the sequences by which they are found.
#[derive(Debug)]
pub(super) struct Keys {
    shards: Box<[HashTable<u64>]>,
    /// The ids may come from strangers, who must not choose where they fall.
    hasher: RandomState,
    bytes: usize,
}

impl Keys {
    /// For some `most` keys.
    pub(super) fn new(most: usize) -> Self {
        let shards: Box<[_]> = (0..most.div_ceil(SHARD_KEYS).max(1))
            .map(|_| HashTable::new())
            .collect();
        Keys {
            bytes: size_of_val(&*shards),
            shards,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn hash(&self, key: Key<'_>) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The sequence of a key with this hash: the one that is it.
    pub(super) fn find(
        &mut self,
        hash: u64,
        mut is_it: impl FnMut(u64) -> bool,
    ) -> Option<&mut u64> {
        self.shard(hash).find_mut(hash, |seq| is_it(*seq))
    }

    /// Adds a key that is not there. `hash_of` tells the hash of those that are.
    pub(super) fn insert(&mut self, hash: u64, seq: u64, hash_of: impl Fn(&Self, u64) -> u64) {
        let index = self.index(hash);
        let mut shard = std::mem::take(&mut self.shards[index]);
        let before = shard.allocation_size();
        shard.insert_unique(hash, seq, |seq| hash_of(self, *seq));
        self.bytes += shard.allocation_size() - before;
        self.shards[index] = shard;
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, hash: u64, seq: u64) {
        let shard = self.shard(hash);
        let before = shard.allocation_size();
        if let Ok(found) = shard.find_entry(hash, |other| *other == seq) {
            found.remove();
        }
        let mut freed = 0;
        if shard.is_empty() {
            *shard = HashTable::new();
            freed = before;
        }
        self.bytes -= freed;
    }

    /// The memory of all this.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn shard(&mut self, hash: u64) -> &mut HashTable<u64> {
        let index = self.index(hash);
        &mut self.shards[index]
    }

    /// By bits that the shard itself does not go by.
    fn index(&self, hash: u64) -> usize {
        let spread = u128::from(hash.rotate_left(32)) * self.shards.len() as u128;
        (spread >> 64) as usize
    }
}
