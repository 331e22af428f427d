//! [`Recent`]: what was invalidated while somebody may have been authenticated.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::end::Revocation;

/// The invalidations that a ticket may have begun before.
///
/// Each has a number. A ticket knows the last number that was given before it began: whatever has
/// a greater one came later, and refuses what is opened with it. What is older than any ticket may be
/// is forgotten, and what is too much. Either raises the `floor`, below which tickets are refused.
#[derive(Debug)]
pub(super) struct Recent {
    most: usize,
    timeout_ms: u64,
    /// In order, by user.
    users: HashMap<Box<str>, VecDeque<Note>>,
    /// Of all users, in order.
    order: VecDeque<(u64, Box<str>)>,
    floor: u64,
}

#[derive(Debug)]
struct Note {
    number: u64,
    /// Empty: all sessions of the user.
    session: Box<str>,
    revocation: Arc<Revocation>,
}

/// Longer than a ticket may last, by as much as threads' readings of the clock may be apart.
const SLACK_MS: u64 = 1_000;
/// What is kept for the next flood.
const KEPT: usize = 64;

/// What refuses a ticket.
#[derive(Debug)]
pub(super) enum Refused {
    Revoked(Arc<Revocation>),
    Forgotten,
}

impl Recent {
    /// At most so many, for so long.
    pub(super) fn new(most: usize, timeout_ms: u64) -> Self {
        Recent {
            most,
            timeout_ms: timeout_ms.saturating_add(SLACK_MS),
            users: HashMap::new(),
            order: VecDeque::new(),
            floor: 0,
        }
    }

    pub(super) fn note(
        &mut self,
        number: u64,
        now_ms: u64,
        user: &str,
        session: &str,
        revocation: &Arc<Revocation>,
    ) {
        self.forget_older(now_ms);
        while self.order.len() >= self.most.max(1) {
            self.forget_oldest();
        }
        self.order.push_back((now_ms, user.into()));
        let note = Note {
            number,
            session: session.into(),
            revocation: Arc::clone(revocation),
        };
        if let Some(notes) = self.users.get_mut(user) {
            notes.push_back(note);
        } else {
            self.users.insert(user.into(), VecDeque::from([note]));
        }
    }

    /// Whether this session may be opened with a ticket that has begun after this number.
    pub(super) fn check(&self, began: u64, user: &str, session: &str) -> Result<(), Refused> {
        let notes = self.users.get(user).into_iter().flatten();
        let later = notes.rev().take_while(|note| note.number > began);
        for note in later {
            if note.session.is_empty() || *note.session == *session {
                return Err(Refused::Revoked(Arc::clone(&note.revocation)));
            }
        }
        if began < self.floor {
            return Err(Refused::Forgotten);
        }
        Ok(())
    }

    /// Tickets that began before those are too old now.
    fn forget_older(&mut self, now_ms: u64) {
        while let Some((noted_ms, _)) = self.order.front()
            && noted_ms.saturating_add(self.timeout_ms) < now_ms
        {
            self.forget_oldest();
        }
        if self.order.is_empty() && self.order.capacity() > KEPT {
            // A flood is over: its memory is not kept for the next one.
            self.order = VecDeque::new();
            self.users = HashMap::new();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, user)) = self.order.pop_front() else {
            return;
        };
        let Some(notes) = self.users.get_mut(&user) else {
            return;
        };
        // Whatever the clock says: nothing that a ticket may need is forgotten silently.
        self.floor = notes.pop_front().map_or(self.floor, |note| note.number);
        if notes.is_empty() {
            self.users.remove(&user);
        }
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;
    use crate::cursor::Cursor;

    /// The one that brings an invalidation may stand still after it has looked at the clock.
    #[test]
    fn what_is_forgotten_too_early_refuses() {
        let mut recent = Recent::new(100, 10_000);
        let revocation = Arc::new(Revocation {
            reason: String::new(),
            cursor: Cursor::parse(b"1A2B3C4D5E6F-00000000001").unwrap(),
            is_of_user: true,
        });
        recent.note(1, 0, "ada", "", &revocation);
        recent.note(2, 11_500, "ben", "", &revocation);
        assert!(matches!(
            recent.check(0, "ada", "s"),
            Err(Refused::Forgotten)
        ));
        recent.check(1, "ada", "s").unwrap();
    }
}
