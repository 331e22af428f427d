//! [`Entry`]: what the router, the session and its guards share of one open session.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use super::end::End;
use super::sync::{Arc, AtomicU32, Mutex, MutexGuard, Ordering, lock};
use crate::prefetch;

/// It has ended: `State::end` says why.
const ENDED: u32 = 1;
/// A [`Session`](super::Session) receives its events; else there are only guards.
const RECEIVES: u32 = 1 << 1;
/// A validation is under way.
const VALIDATING: u32 = 1 << 2;

/// The largest event that is copied when it has to wait for others.
const MAX_COPIED_BYTES: usize = 16 << 10;

/// What is done with an event for a session whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest event is dropped; the session is told how many were
    /// ([`RecvError::Lagged`](super::RecvError::Lagged)). The default.
    #[default]
    DropOldest,
    /// The session ends with [`End::Overflow`]: its client connects again, and asks for the state
    /// of things.
    Close,
}

/// One open session.
///
/// # What is never late
///
/// [`end`](Self::end) sets `ENDED` under the lock of the state, and empties the queue there. Whoever
/// takes an event does so under that lock, and looks for the end first; a guard looks at `ENDED`.
/// So once `end` has returned, no event is taken and no guard passes.
///
/// # One allocation
///
/// To find a session among a million and to put an event into its queue is to wait for memory.
/// The ids stand in the same allocation as the rest, so that they are fetched with it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Entry<Ids: ?Sized = [u8]> {
    flags: AtomicU32,
    /// Sessions and guards. The last that goes takes the entry out of the table.
    handles: AtomicU32,
    /// The generation of [validity](super::router::Shared::generation) for which it is valid.
    valid_for: AtomicU32,
    user_bytes: u16,
    session_bytes: u16,
    state: Mutex<State>,
    /// The user's id, then the session's, then nothing of meaning.
    ids: Ids,
}

#[derive(Debug, Default)]
pub(super) struct State {
    queue: Queue,
    rare: Option<Box<Rare>>,
}

/// What most sessions do without.
#[derive(Debug, Default)]
struct Rare {
    end: Option<End>,
    watchers: Watchers,
}

/// Where one event waits at a time, as it mostly is, no memory is needed beyond.
#[derive(Debug, Default)]
struct Queue {
    first: Option<Bytes>,
    /// Those after it.
    #[expect(clippy::box_collection, reason = "a word, for what is rarely there")]
    more: Option<Box<VecDeque<Bytes>>>,
    /// So many were dropped that the session has not been told of.
    dropped: u64,
    waker: Option<Waker>,
}

/// The same bytes in memory of their own; of large events, which are most of their buffer, the
/// view.
fn own(event: &Bytes) -> Bytes {
    if event.len() <= MAX_COPIED_BYTES {
        Bytes::copy_from_slice(event)
    } else {
        event.clone()
    }
}

impl Queue {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// Returns a view that is not needed any more.
    ///
    /// Where one event waits, it is a view of what the connection has brought. A session for
    /// which more wait is slow: it must not keep whole buffers for small events.
    #[must_use = "it is dropped after the lock"]
    #[inline]
    fn push(&mut self, event: &Bytes) -> Option<Bytes> {
        if self.first.is_none() {
            self.first = Some(event.clone());
            return None;
        }
        self.push_more(event)
    }

    #[cold]
    fn push_more(&mut self, event: &Bytes) -> Option<Bytes> {
        let first = self.first.as_mut()?;
        let view = match self.more {
            None => Some(std::mem::replace(first, own(first))),
            Some(_) => None,
        };
        self.more.get_or_insert_default().push_back(own(event));
        view
    }

    fn pop(&mut self) -> Option<Bytes> {
        let event = self.first.take()?;
        if let Some(more) = &mut self.more {
            self.first = more.pop_front();
            if more.is_empty() {
                // A burst is over: its memory is not kept for the next one.
                self.more = None;
            }
        }
        Some(event)
    }
}

/// Those who wait for the end of the session, or for its validation.
#[derive(Debug, Default)]
struct Watchers {
    next: u32,
    wakers: Vec<(u32, Waker)>,
}

/// What is done once no lock is held any more, because it is code of others: tasks are woken,
/// and what events were views of may go.
#[derive(Debug, Default)]
pub(super) struct Afterwards {
    woken: Vec<Waker>,
    queues: Vec<Queue>,
    events: Vec<Bytes>,
}

impl Afterwards {
    pub(super) fn run(&mut self) {
        for waker in self.woken.drain(..) {
            waker.wake();
        }
        self.queues.clear();
        self.events.clear();
    }
}

/// What has become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// It is queued, and the oldest is not any more.
    Dropped,
    /// The session has ended, for its queue was full.
    Overflowed,
    /// Nobody receives it.
    Deaf,
}

/// What there is for a session.
#[derive(Debug)]
pub(super) enum Taken {
    Event(Bytes),
    Lagged(u64),
    Ended(End),
    Nothing,
}

/// An entry for ids of at most `N` bytes, for the smallest that is enough.
macro_rules! smallest {
    ($user:expr, $session:expr, $valid_for:expr, $flags:expr; $($n:literal)*) => {{
        let (user, session): (&[u8], &[u8]) = ($user, $session);
        match user.len() + session.len() {
            $(..=$n => {
                let mut ids = [0; $n];
                let (of_user, rest) = ids.split_at_mut(user.len());
                of_user.copy_from_slice(user);
                rest[..session.len()].copy_from_slice(session);
                Arc::new(Entry {
                    flags: AtomicU32::new($flags),
                    handles: AtomicU32::new(1),
                    valid_for: AtomicU32::new($valid_for),
                    user_bytes: user.len() as u16,
                    session_bytes: session.len() as u16,
                    state: Mutex::default(),
                    ids,
                })
            })*
            bytes => return Err(bytes),
        }
    }};
}

impl Entry {
    /// How many bytes the ids may have together.
    pub(super) const MAX_IDS_BYTES: usize = 4096;

    /// A new one, for one session or guard.
    ///
    /// # Errors
    ///
    /// How many bytes the ids have, where that is too many.
    pub(super) fn new(
        user: &str,
        session: &str,
        valid_for: u32,
        receives: bool,
    ) -> Result<Arc<Self>, usize> {
        let flags = if receives { RECEIVES } else { 0 };
        Ok(smallest!(
            user.as_bytes(), session.as_bytes(), valid_for, flags;
            16 24 32 40 48 56 64 72 80 88 96 104 112 120 128 160 192 256 512 1024 4096
        ))
    }

    fn text(&self, from: usize, bytes: usize) -> &str {
        let text = self.ids.get(from..from + bytes).unwrap_or_default();
        // They were put in as text.
        std::str::from_utf8(text).unwrap_or_default()
    }

    pub(super) fn user(&self) -> &str {
        self.text(0, self.user_bytes.into())
    }

    pub(super) fn session(&self) -> &str {
        self.text(self.user_bytes.into(), self.session_bytes.into())
    }

    #[inline]
    pub(super) fn is_of(&self, user: &[u8]) -> bool {
        usize::from(self.user_bytes) == user.len() && self.ids.starts_with(user)
    }

    #[inline]
    pub(super) fn is_session(&self, session: &[u8]) -> bool {
        let from = usize::from(self.user_bytes);
        self.ids.get(from..from + usize::from(self.session_bytes)) == Some(session)
    }

    /// One more session or guard.
    pub(super) fn retain(&self) {
        // Relaxed: made from one that is there.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// One less. Whether it was the last.
    pub(super) fn release(&self) -> bool {
        self.handles.fetch_sub(1, Ordering::AcqRel) == 1
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        // Acquire: pairs with the Release in `end`, for those who then ask why.
        self.flags.load(Ordering::Acquire) & ENDED != 0
    }

    pub(super) fn is_valid_for(&self, generation: u32) -> bool {
        // Acquire: pairs with the Release in `validated`.
        self.valid_for.load(Ordering::Acquire) == generation
    }

    /// Whether the caller is to validate it: nobody else does.
    pub(super) fn begin_validation(&self) -> bool {
        self.flags.fetch_or(VALIDATING, Ordering::AcqRel) & VALIDATING == 0
    }

    /// Nobody validates it any more.
    pub(super) fn end_validation(&self) {
        self.flags.fetch_and(!VALIDATING, Ordering::AcqRel);
    }

    /// It is valid for this generation.
    pub(super) fn validated(&self, generation: u32, after: &mut Afterwards) {
        // Release: pairs with the Acquire in `is_valid_for`. The newest: a session that was
        // opened meanwhile stays what it is.
        self.valid_for.fetch_max(generation, Ordering::Release);
        self.wake_held(after);
    }

    pub(super) fn ended(&self) -> Option<End> {
        if !self.has_ended() {
            return None;
        }
        self.state().end().cloned()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends it, unless it has ended. Whether it was this that has ended it.
    pub(super) fn end(&self, end: &End, after: &mut Afterwards) -> bool {
        let mut state = self.state();
        if state.end().is_some() {
            return false;
        }
        state.rare.get_or_insert_default().end = Some(end.clone());
        // Release: pairs with the Acquire in `has_ended`.
        self.flags.fetch_or(ENDED, Ordering::Release);
        let mut queue = std::mem::take(&mut state.queue);
        after.woken.extend(queue.waker.take());
        after.queues.push(queue);
        state.wake_watchers(after);
        true
    }

    /// Wakes all who wait here.
    pub(super) fn wake(&self, after: &mut Afterwards) {
        let mut state = self.state();
        after.woken.extend(state.queue.waker.take());
        state.wake_watchers(after);
    }

    /// Wakes those who are held back, and could go on.
    pub(super) fn wake_held(&self, after: &mut Afterwards) {
        let mut state = self.state();
        if !state.is_empty() {
            after.woken.extend(state.queue.waker.take());
        }
        state.wake_watchers(after);
    }

    /// Nobody receives any more.
    pub(super) fn stop_receiving(&self) {
        let mut state = self.state();
        self.flags.fetch_and(!RECEIVES, Ordering::Relaxed);
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
    }

    /// Has the processor fetch all of it.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch::value(self);
    }

    /// Puts an event into the queue. If that is full, a session that is held back only loses the
    /// oldest: it is not its fault.
    #[inline]
    pub(super) fn push(
        &self,
        event: &Bytes,
        limit: usize,
        overflow: Overflow,
        is_held: impl FnOnce(&Entry) -> bool,
        after: &mut Afterwards,
    ) -> Pushed {
        let mut state = self.state();
        // Relaxed: both are changed under the lock.
        if self.flags.load(Ordering::Relaxed) & (ENDED | RECEIVES) != RECEIVES {
            return Pushed::Deaf;
        }
        let queue = &mut state.queue;
        let is_full = queue.len() >= limit;
        if is_full {
            if overflow == Overflow::Close && !is_held(self) {
                drop(state);
                self.end(&End::Overflow, after);
                return Pushed::Overflowed;
            }
            after.events.extend(queue.pop());
            queue.dropped += 1;
        }
        if let Some(view) = queue.push(event) {
            after.events.push(view);
        }
        if let Some(waker) = queue.waker.take() {
            after.woken.push(waker);
        }
        if is_full {
            Pushed::Dropped
        } else {
            Pushed::Queued
        }
    }
}

impl State {
    /// What is next.
    pub(super) fn take(&mut self) -> Taken {
        if let Some(end) = self.end() {
            return Taken::Ended(end.clone());
        }
        let queue = &mut self.queue;
        if queue.dropped > 0 {
            return Taken::Lagged(std::mem::take(&mut queue.dropped));
        }
        queue.pop().map_or(Taken::Nothing, Taken::Event)
    }

    /// Whether there is nothing to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.first.is_none() && self.queue.dropped == 0
    }

    pub(super) fn end(&self) -> Option<&End> {
        self.rare.as_ref()?.end.as_ref()
    }

    /// Has the session woken when there is something for it. Returns a waker that is not needed
    /// any more.
    #[must_use = "it is dropped after the lock"]
    pub(super) fn park(&mut self, waker: &Waker) -> Option<Waker> {
        let known = &mut self.queue.waker;
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return None;
        }
        known.replace(waker.clone())
    }

    /// Has a guard woken, which may have waited under this key before. Returns a waker that is
    /// not needed any more.
    #[must_use = "it is dropped after the lock"]
    pub(super) fn watch(&mut self, key: &mut Option<u32>, waker: &Waker) -> Option<Waker> {
        let watchers = &mut self.rare.get_or_insert_default().watchers;
        let mut wakers = watchers.wakers.iter_mut();
        if let Some((_, known)) = wakers.find(|(other, _)| Some(*other) == *key) {
            return (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()));
        }
        // Keys are never used again while a guard may still have one: `Watchers` stay.
        let new = watchers.next;
        watchers.next = new.wrapping_add(1);
        watchers.wakers.push((new, waker.clone()));
        *key = Some(new);
        None
    }

    /// It does not wait any more.
    #[must_use = "it is dropped after the lock"]
    pub(super) fn unwatch(&mut self, key: u32) -> Option<Waker> {
        let wakers = &mut self.rare.as_mut()?.watchers.wakers;
        let place = wakers.iter().position(|(other, _)| *other == key)?;
        Some(wakers.swap_remove(place).1)
    }

    fn wake_watchers(&mut self, after: &mut Afterwards) {
        if let Some(rare) = &mut self.rare {
            after
                .woken
                .extend(rare.watchers.wakers.drain(..).map(|(_, waker)| waker));
        }
    }
}

#[cfg(all(test, not(galaxy_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        // With two ids as long as UUIDs and the two counts of its `Arc`: three cache lines.
        assert!(size_of::<Entry<[u8; 72]>>() <= 192 - 16);
        assert_eq!(size_of::<Queue>(), 64);
    }
}
