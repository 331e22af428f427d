//! [`Recent`]: what was invalidated while somebody may have been authenticated.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::end::Revocation;

/// The invalidations that a ticket may have begun before.
///
/// Each has a number. A ticket knows the last number that was given before it began: whatever has
/// a greater one came later, and refuses what is opened with it. What is older than any ticket may be
/// is forgotten; what must be forgotten earlier, because there are too many, raises the `floor`,
/// below which tickets are refused.
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
            self.floor = self.forget_oldest().unwrap_or(self.floor);
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

    fn forget_oldest(&mut self) -> Option<u64> {
        let (_, user) = self.order.pop_front()?;
        let notes = self.users.get_mut(&user)?;
        let note = notes.pop_front();
        if notes.is_empty() {
            self.users.remove(&user);
        }
        Some(note?.number)
    }
}
