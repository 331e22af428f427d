//! [`Users`]: a hash table whose places can be fetched into the cache ahead of their use.

use super::entry::Entry;
use super::sync::Arc;
use crate::prefetch;

/// The fewest places there are, once there are any.
const MIN_PLACES: usize = 8;

/// The sessions of some users, by a part of the hash of the user's id, its *tag*.
///
/// Open addressing with linear probing: a user stands at the place that its tag says, or at one
/// of those right after it, without an empty one between. At most three quarters of the places
/// are taken, and they grow by a third: so that memory is used, where powers of two would leave
/// half of it.
#[derive(Debug, Default)]
pub(super) struct Users {
    places: Box<[Place]>,
    taken: usize,
}

/// A user, if there is one; the tag is beside what tells one kind from the other.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Empty,
    One(u32, Arc<Entry>),
    #[expect(
        clippy::box_collection,
        reason = "a list of its own would make each place larger"
    )]
    Many(u32, Box<Vec<Arc<Entry>>>),
}

impl Place {
    #[inline]
    fn tag(&self) -> Option<u32> {
        match self {
            Place::Empty => None,
            Place::One(tag, _) | Place::Many(tag, _) => Some(*tag),
        }
    }

    #[inline]
    fn entries(&self) -> &[Arc<Entry>] {
        match self {
            Place::Empty => &[],
            Place::One(_, entry) => std::slice::from_ref(entry),
            Place::Many(_, entries) => entries,
        }
    }

    #[inline]
    fn is(&self, tag: u32, user: &[u8]) -> bool {
        self.tag() == Some(tag)
            && self
                .entries()
                .first()
                .is_some_and(|entry| entry.is_of(user))
    }
}

impl Users {
    /// Where a tag belongs.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.places.len() as u64) >> 32) as usize
    }

    /// The place after this one.
    #[inline]
    fn next(&self, place: usize) -> usize {
        if place + 1 == self.places.len() {
            0
        } else {
            place + 1
        }
    }

    /// Has the processor fetch where a user would be.
    #[inline]
    pub(super) fn prefetch(&self, tag: u32) {
        if let Some(place) = self.places.get(self.home(tag)) {
            prefetch::value(place);
        }
    }

    /// The place that this is true of, from where the tag belongs to the first empty one.
    #[inline]
    fn find(&self, tag: u32, is_it: impl Fn(&Place) -> bool) -> Option<usize> {
        let mut at = self.home(tag);
        loop {
            match self.places.get(at)? {
                Place::Empty => return None,
                place if is_it(place) => return Some(at),
                _ => at = self.next(at),
            }
        }
    }

    /// Where a user probably is, without a look at what would have to be fetched first. It is
    /// right until something changes.
    #[inline]
    pub(super) fn probable(&self, tag: u32) -> Option<usize> {
        self.find(tag, |place| place.tag() == Some(tag))
    }

    /// Has the processor fetch a session there.
    #[inline]
    pub(super) fn prefetch_at(&self, place: usize) {
        if let Some(entry) = self.places.get(place).and_then(|p| p.entries().first()) {
            entry.prefetch();
        }
    }

    /// The sessions of a user, who probably is there.
    #[inline]
    pub(super) fn sessions_at(&self, place: usize, tag: u32, user: &[u8]) -> &[Arc<Entry>] {
        match self.places.get(place) {
            Some(place) if place.is(tag, user) => place.entries(),
            _ => self.sessions(tag, user),
        }
    }

    /// The sessions of a user.
    #[inline]
    pub(super) fn sessions(&self, tag: u32, user: &[u8]) -> &[Arc<Entry>] {
        match self.find(tag, |place| place.is(tag, user)) {
            None => &[],
            Some(place) => self.places[place].entries(),
        }
    }

    /// All sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.places.iter().flat_map(Place::entries)
    }

    pub(super) fn insert(&mut self, tag: u32, entry: Arc<Entry>) {
        let found = self.find(tag, |place| place.is(tag, entry.user().as_bytes()));
        match found.and_then(|found| self.places.get_mut(found)) {
            Some(Place::Many(_, entries)) => entries.push(entry),
            Some(place) => {
                let mut entries = place.entries().to_vec();
                entries.push(entry);
                *place = Place::Many(tag, Box::new(entries));
            }
            None => {
                if self.taken * 4 >= self.places.len() * 3 {
                    self.resize(self.places.len().div_ceil(3) * 4);
                }
                self.put(Place::One(tag, entry));
                self.taken += 1;
            }
        }
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, tag: u32, entry: &Arc<Entry>) {
        let found = self.find(tag, |place| place.is(tag, entry.user().as_bytes()));
        let Some(found) = found else { return };
        let place = &mut self.places[found];
        match place {
            Place::Many(_, entries) => {
                if let Some(at) = entries.iter().position(|other| Arc::ptr_eq(other, entry)) {
                    entries.swap_remove(at);
                }
                if let [left] = &entries[..] {
                    *place = Place::One(tag, Arc::clone(left));
                }
            }
            Place::One(_, only) if Arc::ptr_eq(only, entry) => {
                *place = Place::Empty;
                self.taken -= 1;
                self.close_up(found);
                if self.taken * 4 <= self.places.len() && self.places.len() > MIN_PLACES {
                    self.resize(self.places.len() / 2);
                }
            }
            _ => {}
        }
    }

    /// Moves up those behind an empty place that are not where they belong.
    fn close_up(&mut self, mut empty: usize) {
        let mut at = self.next(empty);
        while let Some(tag) = self.places[at].tag() {
            let home = self.home(tag);
            // Whether the empty place is between where it belongs and where it is, around the end.
            let is_between = if empty <= at {
                home <= empty || home > at
            } else {
                home <= empty && home > at
            };
            if is_between {
                self.places.swap(empty, at);
                empty = at;
            }
            at = self.next(at);
        }
    }

    fn resize(&mut self, places: usize) {
        let places = places.max(MIN_PLACES);
        let new = (0..places).map(|_| Place::Empty).collect();
        for place in std::mem::replace(&mut self.places, new) {
            self.put(place);
        }
    }

    /// Puts a user in that is not there.
    fn put(&mut self, user: Place) {
        let Some(tag) = user.tag() else { return };
        let mut at = self.home(tag);
        while self.places[at].tag().is_some() {
            at = self.next(at);
        }
        self.places[at] = user;
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_takes_three_words() {
        assert_eq!(size_of::<Place>(), 24);
    }

    /// Few users with few tags, so that they are in each other's places.
    fn tag_of(user: u8) -> u32 {
        u32::from(user % 5) * (u32::MAX / 4)
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_lists(steps in prop::collection::vec((0..24_u8, any::<bool>()), 0..200)) {
            let mut users = Users::default();
            let mut model: Vec<(u8, Arc<Entry>)> = Vec::new();
            for (user, is_open) in steps {
                let id = format!("user-{user}");
                if is_open {
                    let entry = Entry::new(&id, "s", 0, true).unwrap();
                    users.insert(tag_of(user), Arc::clone(&entry));
                    model.push((user, entry));
                } else if let Some(at) = model.iter().position(|(other, _)| *other == user) {
                    let (_, entry) = model.remove(at);
                    users.remove(tag_of(user), &entry);
                }
                for user in 0..24 {
                    let id = format!("user-{user}");
                    let found = users.sessions(tag_of(user), id.as_bytes());
                    let expected: Vec<_> = model.iter().filter(|(other, _)| *other == user).collect();
                    prop_assert_eq!(found.len(), expected.len());
                    for (_, other) in expected {
                        prop_assert!(found.iter().any(|entry| Arc::ptr_eq(entry, other)));
                    }
                }
                prop_assert_eq!(users.iter().count(), model.len());
            }
        }
    }
}
