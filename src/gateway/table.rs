//! [`Table`]: the open sessions of some users, and what was invalidated lately.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::entry::Entry;
use super::recent::Recent;
use super::sync::Arc;
use super::users::Users;

/// How many users a part is for. A part that grows is hashed anew as a whole: so many that this
/// takes some ten microseconds.
const PART_USERS: usize = 1_000;

/// With more users, the parts grow.
const MAX_PARTS: usize = 4096;

/// Where a user is, by the hash of its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) shard: usize,
    part: usize,
    tag: u32,
}

/// Where users are.
#[derive(Debug)]
pub(super) struct Layout {
    /// The ids may come from strangers, who must not choose where they fall.
    hasher: RandomState,
    shards: usize,
    parts: usize,
}

/// The users of one shard. Who has its lock has all that concerns them.
#[derive(Debug)]
pub(super) struct Table {
    parts: Box<[Users]>,
    pub(super) recent: Recent,
}

impl Layout {
    /// For some `most` users on `shards` shards.
    pub(super) fn new(most: usize, shards: usize) -> Self {
        Layout {
            hasher: RandomState::new(),
            shards,
            parts: most.div_ceil(PART_USERS * shards).clamp(1, MAX_PARTS),
        }
    }

    pub(super) fn table(&self, recent: Recent) -> Table {
        Table {
            parts: (0..self.parts).map(|_| Users::default()).collect(),
            recent,
        }
    }

    /// How many parts each table has.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    #[inline]
    pub(super) fn spot(&self, user: &[u8]) -> Spot {
        // Nothing else is hashed: there is no need for its length.
        let mut hasher = self.hasher.build_hasher();
        hasher.write(user);
        let hash = hasher.finish();
        // By bits that the tag does not have; the part by what the shard leaves of them.
        let shard = (hash >> 32) * self.shards as u64;
        let part = (shard & u64::from(u32::MAX)) * self.parts as u64;
        Spot {
            shard: (shard >> 32) as usize,
            part: (part >> 32) as usize,
            tag: hash as u32,
        }
    }
}

impl Table {
    /// Has the processor fetch where the user would be.
    #[inline]
    pub(super) fn prefetch(&self, spot: Spot) {
        self.parts[spot.part].prefetch(spot.tag);
    }

    /// Where the user probably is in its part, which the processor is to fetch. It is right until
    /// something changes.
    #[inline]
    pub(super) fn prefetch_session(&self, spot: Spot) -> Option<u32> {
        let users = &self.parts[spot.part];
        let place = users.probable(spot.tag)?;
        users.prefetch_at(place);
        u32::try_from(place).ok()
    }

    /// The sessions of a user who probably is there.
    #[inline]
    pub(super) fn sessions_at(&self, place: u32, spot: Spot, user: &[u8]) -> &[Arc<Entry>] {
        self.parts[spot.part].sessions_at(place as usize, spot.tag, user)
    }

    /// The sessions of a user.
    #[inline]
    pub(super) fn sessions(&self, spot: Spot, user: &[u8]) -> &[Arc<Entry>] {
        self.parts[spot.part].sessions(spot.tag, user)
    }

    /// All sessions of a part.
    pub(super) fn part(&self, part: usize) -> impl Iterator<Item = &Arc<Entry>> {
        self.parts[part].iter()
    }

    pub(super) fn insert(&mut self, spot: Spot, entry: Arc<Entry>) {
        self.parts[spot.part].insert(spot.tag, entry);
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, spot: Spot, entry: &Arc<Entry>) {
        self.parts[spot.part].remove(spot.tag, entry);
    }
}
