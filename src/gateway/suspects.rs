//! [`Suspects`]: sessions that may have been revoked unheard.

use std::fmt;
use std::sync::Arc;
use std::vec;

use super::end::End;
use super::entry::{Afterwards, Entry};
use super::router::Shared;
use super::stats::count;

/// The sessions that are suspect, of which nobody has one in hand: see
/// [`Router::suspects`](super::Router::suspects).
#[derive(Debug)]
pub struct Suspects {
    shared: Arc<Shared>,
    shard: usize,
    part: usize,
    found: vec::IntoIter<Suspect>,
}

/// A session that is suspect: whoever has this asks the backend whether it is still valid. If it
/// is dropped without an answer, the session stays suspect, and is found again.
pub struct Suspect {
    entry: Arc<Entry>,
    shared: Arc<Shared>,
    /// For which the answer is.
    generation: u32,
}

impl Suspects {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Suspects {
            shared,
            shard: 0,
            part: 0,
            found: Vec::new().into_iter(),
        }
    }

    /// Goes on to the next part of a table; `false` after the last.
    fn look(&mut self) -> bool {
        if self.shard >= self.shared.shards() {
            return false;
        }
        let generation = self.shared.generation();
        let table = self.shared.shard(self.shard);
        let is_suspect = |entry: &&Arc<Entry>| {
            !entry.is_valid_for(generation) && !entry.has_ended() && entry.begin_validation()
        };
        let found: Vec<_> = table
            .part(self.part)
            .filter(is_suspect)
            .map(|entry| Suspect {
                entry: Arc::clone(entry),
                shared: Arc::clone(&self.shared),
                generation,
            })
            .collect();
        drop(table);
        self.found = found.into_iter();
        self.part += 1;
        if self.part == self.shared.layout.parts() {
            self.part = 0;
            self.shard += 1;
        }
        true
    }
}

impl Iterator for Suspects {
    type Item = Suspect;

    fn next(&mut self) -> Option<Suspect> {
        loop {
            if let Some(suspect) = self.found.next() {
                return Some(suspect);
            }
            if !self.look() {
                return None;
            }
        }
    }
}

impl Suspect {
    /// The user's id.
    #[must_use]
    pub fn user(&self) -> &str {
        self.entry.user()
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> &str {
        self.entry.session()
    }

    /// The backend says that it is valid. It goes on, unless invalidations were lost again since
    /// this suspect was found.
    pub fn valid(self) {
        let mut after = Afterwards::default();
        self.entry.validated(self.generation, &mut after);
        after.run();
        count(&self.shared.counters.validated, 1);
    }

    /// The backend says that it is not valid any more: it ends with [`End::Invalid`].
    pub fn invalid(self, reason: &str) {
        let mut after = Afterwards::default();
        let has_ended = self.entry.end(&End::Invalid(reason.into()), &mut after);
        after.run();
        count(&self.shared.counters.invalid, u64::from(has_ended));
    }
}

impl Drop for Suspect {
    fn drop(&mut self) {
        self.entry.end_validation();
    }
}

impl fmt::Debug for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspect")
            .field("user", &self.user())
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}
