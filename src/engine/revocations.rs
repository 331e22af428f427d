//! Revocations in an engine: from publishers into the table, without a wait, and from there to
//! gateways.
//!
//! Publishers leave notes of invalidations in the inbox. A thread of the engine's own, the
//! *keeper*, takes them into the table, which is locked for that: by some kilobytes at a time.
//! A replay that begins takes in what is left, and so it is exact.

use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::inbox::{Inbox, Note};
use super::ring::Ring;
use super::shared::Shared;
use super::sync::thread::{self, Thread};
use super::sync::{Arc, AtomicUsize, Ordering};
use crate::event::Event;
use crate::revocations::{Limits, Stats, Table};

/// How many bytes of notes the keeper is woken for: few enough that a replay that begins has
/// little to take in, many enough that publishers seldom pay for the waking.
const KEPT_AT_ONCE: usize = 8 << 10;
/// If more bytes wait, publishers take them in themselves: the keeper does not come to it.
const MAX_WAITING: usize = 4 << 20;
/// How many are taken in before others may look at the table.
const TAKEN_AT_ONCE: usize = 128;
/// After so many times, somebody who has not come for that leaves the rest.
const MAX_ROUNDS: usize = 1 << 11;
/// How often a round of work lets others go before it.
const MAX_YIELDS: usize = 100;
/// How many are forgotten, for their age, before others may look at the table.
const EXPIRED_AT_ONCE: usize = 256;

/// What an engine keeps of invalidations.
#[derive(Debug)]
pub(super) struct Revocations {
    inbox: Inbox,
    kept: RwLock<Kept>,
    /// How many threads wait for the lock that have something else to do. The lock lets no reader
    /// in while writers come again and again: so those who work on the table go by this.
    waiting: AtomicUsize,
    /// `None` if the thread could not be started: then publishers do its work.
    keeper: OnceLock<Option<Thread>>,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) table: Table,
    /// The head when notes were last taken out of the inbox: all of events up to it are in here,
    /// and what comes into the inbox later is of later events.
    head: u64,
    /// Those notes, the latest event first. Those of events that could not be read then stay.
    waiting: Vec<Note>,
    /// How many invalidations of the last of these are taken in.
    taken: usize,
}

impl Revocations {
    /// For a ring that begins after the event `origin`: of those before nothing is known.
    pub(super) fn new(limits: Limits, origin: u64) -> Self {
        let mut table = Table::new(limits);
        table.lose(origin);
        Revocations {
            inbox: Inbox::new(),
            kept: RwLock::new(Kept {
                table,
                head: 0,
                waiting: Vec::new(),
                taken: 0,
            }),
            waiting: AtomicUsize::new(0),
            keeper: OnceLock::new(),
        }
    }

    /// Leaves a note of a batch that is claimed and not committed. Returns what is to be
    /// [done](keep) once the batch is committed.
    pub(super) fn note(&self, note: Box<Note>, first: u64) -> Due {
        let (before, after) = self.inbox.push(note, first);
        if after > MAX_WAITING {
            Due::Now
        } else if before / KEPT_AT_ONCE != after / KEPT_AT_ONCE {
            Due::Soon
        } else {
            Due::Later
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Kept> {
        // Relaxed, here and below: a hint.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        kept
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        kept
    }

    /// For a round of work on the table, after those who wait for it; not for long.
    fn work(&self) -> RwLockWriteGuard<'_, Kept> {
        for _ in 0..MAX_YIELDS {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                break;
            }
            thread::yield_now();
        }
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what there is when this is called, a little at a time, so that little is left.
    pub(super) fn catch_up(&self, ring: &Ring, now_ms: u64) {
        // The head first: every note of an event up to it is in the inbox by then.
        let head = ring.head();
        self.write().table.expire(now_ms, EXPIRED_AT_ONCE);
        for _ in 0..MAX_ROUNDS {
            let mut kept = self.work();
            let more = kept.take(&self.inbox, TAKEN_AT_ONCE);
            let has_all = kept.head >= head;
            if !more && !has_all {
                kept.fetch(&self.inbox, head);
            }
            let is_done = has_all && kept.waiting.last().is_none_or(|next| next.first() > head);
            drop(kept);
            if is_done {
                return;
            }
        }
    }

    /// Takes in all up to the event `head`, which can be read, and nothing beyond it.
    pub(super) fn take_up_to(&self, kept: &mut Kept, head: u64, now_ms: u64) {
        kept.fetch(&self.inbox, head);
        kept.take(&self.inbox, usize::MAX);
        kept.table.expire(now_ms, EXPIRED_AT_ONCE);
    }

    /// Takes in some of what there is, and forgets some of what is too old.
    fn keep(&self, ring: &Ring, now_ms: u64) -> Left {
        let mut kept = self.work();
        if !kept.take(&self.inbox, TAKEN_AT_ONCE) {
            // The head first: every note of an event up to it is in the inbox by then.
            let head = ring.head();
            kept.fetch(&self.inbox, head);
        }
        let older = kept.table.expire(now_ms, EXPIRED_AT_ONCE);
        match kept.table.until_expiry_ms(now_ms) {
            _ if older || kept.is_due() => Left::More,
            Some(ms) => Left::Until { ms },
            None => Left::Nothing,
        }
    }

    /// How many are kept at most.
    pub(super) fn max(&self) -> usize {
        self.read().table.limits().revocations
    }

    /// The memory of what waits to be taken in.
    #[cfg(all(test, not(galaxy_loom)))]
    pub(super) fn unsettled_bytes(&self) -> usize {
        self.inbox.unsettled_bytes()
    }

    /// After what there is was taken in.
    pub(super) fn stats(&self, ring: &Ring, now_ms: u64) -> Stats {
        self.catch_up(ring, now_ms);
        self.read().table.stats()
    }
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    More,
    /// The oldest is to be forgotten then.
    Until {
        ms: u64,
    },
    Nothing,
}

/// What a publisher does for the table, once its batch is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It takes part in the work.
    Now,
    /// It wakes the keeper.
    Soon,
    /// Nothing: there is little yet.
    Later,
}

impl Kept {
    /// Takes out of the inbox what is there, when everything up to `head` is.
    fn fetch(&mut self, inbox: &Inbox, head: u64) {
        self.head = head;
        let notes = inbox.take();
        if !notes.is_empty() {
            self.waiting.extend(notes);
            // Nearly in order: not much is done.
            self.waiting
                .sort_by_key(|note| std::cmp::Reverse(note.first()));
        }
    }

    /// Whether the next one can be read, and is to be taken in. A batch can be read as a whole.
    fn is_due(&self) -> bool {
        self.waiting
            .last()
            .is_some_and(|note| note.first() <= self.head)
    }

    /// Takes in what can be read, up to so many invalidations. Returns whether that is not all.
    fn take(&mut self, inbox: &Inbox, most: usize) -> bool {
        for _ in 0..most {
            if !self.is_due() {
                return false;
            }
            let Some(note) = self.waiting.last() else {
                return false;
            };
            if let Some((seq, event)) = note.get(self.taken) {
                self.table.take(seq, note.published_ms, event);
            }
            self.taken += 1;
            if self.taken >= note.len() {
                inbox.settle(note);
                self.waiting.pop();
                self.taken = 0;
            }
        }
        self.is_due()
    }
}

impl Shared {
    /// Lets the keeper end: the engine is gone.
    pub(super) fn stop_keeper(&self) {
        let revocations = self.revocations.as_ref();
        if let Some(Some(keeper)) = revocations.and_then(|of| of.keeper.get()) {
            keeper.unpark();
        }
    }

    /// What is left in the inbox of a batch, for [`Ring::put`](super::ring::Ring::put).
    pub(super) fn note(
        &self,
        events: &[Event<'_>],
        now_ms: u64,
    ) -> Option<(&Revocations, Box<Note>)> {
        let revocations = self.revocations.as_ref()?;
        let has_one = events.iter().any(|event| event.is_session_invalidation());
        has_one.then(|| (revocations, Note::of(events, now_ms)))
    }
}

/// Wakes the keeper, and does some of its work where that is too slow.
pub(super) fn keep(shared: &Arc<Shared>, revocations: &Revocations, due: Due) {
    if due == Due::Later {
        return;
    }
    let keeper = revocations.keeper.get_or_init(|| start_keeper(shared));
    if let Some(keeper) = keeper {
        keeper.unpark();
    }
    if due == Due::Now || keeper.is_none() {
        // So the memory has a limit: what waits, and a note of each publisher.
        while revocations.keep(&shared.ring, shared.time.now_ms()) == Left::More
            && revocations.inbox.unsettled_bytes() > MAX_WAITING
        {}
    }
}

#[cfg(galaxy_loom)]
fn start_keeper(_: &Arc<Shared>) -> Option<Thread> {
    None
}

#[cfg(not(galaxy_loom))]
fn start_keeper(shared: &Arc<Shared>) -> Option<Thread> {
    use std::time::Duration;

    let weak = Arc::downgrade(shared);
    let keep = move || {
        while let Some(shared) = weak.upgrade() {
            let Some(revocations) = &shared.revocations else {
                return;
            };
            let left = revocations.keep(&shared.ring, shared.time.now_ms());
            drop(shared);
            // A token left by `unpark` meanwhile lets it go on at once.
            match left {
                Left::More => {}
                // Not for each of them: some may be forgotten a moment later than they could.
                Left::Until { ms } => {
                    thread::park_timeout(Duration::from_millis(ms.clamp(1000, 60_000)));
                }
                Left::Nothing => thread::park(),
            }
        }
    };
    let started = thread::Builder::new()
        .name("push-revocations".to_owned())
        .spawn(keep);
    started.ok().map(|handle| handle.thread().clone())
}
