//! Invalidations on their way from publishers into the table: nobody waits for anybody.
//!
//! A publisher pushes its note between claim and commit. So whoever knows a head finds in here,
//! or has found before, every note of an event up to it.

#![allow(unsafe_code, reason = "a stack of boxes")]

use std::ptr;

use super::sync::{AtomicPtr, AtomicUsize, Ordering};
use crate::event::Event;

/// The invalidations of one batch.
#[derive(Debug)]
pub(super) struct Note {
    /// The address of the note below it; 0 if there is none. Not a pointer: between the look at
    /// the top and the exchange, that note may have been taken, and another one have come to
    /// the same place. Then this is the address of that one, and a pointer would be to the other.
    below: usize,
    /// The batch's first sequence; 0 until it is claimed.
    first: u64,
    pub(super) published_ms: u64,
    /// Where in the batch each of them is, and where its bytes end.
    places: Vec<(u32, usize)>,
    bytes: Vec<u8>,
}

impl Note {
    /// A copy of the invalidations among the events of a batch.
    pub(super) fn of(events: &[Event<'_>], published_ms: u64) -> Box<Self> {
        let found = || {
            (0u32..)
                .zip(events)
                .filter(|(_, it)| it.is_session_invalidation())
        };
        let mut places = Vec::with_capacity(found().count());
        let mut bytes = Vec::with_capacity(found().map(|(_, it)| it.as_bytes().len()).sum());
        for (place, event) in found() {
            bytes.extend_from_slice(event.as_bytes());
            // A batch has at most 2²² events.
            places.push((place, bytes.len()));
        }
        Box::new(Note {
            below: 0,
            first: 0,
            published_ms,
            places,
            bytes,
        })
    }

    /// The sequence of the batch's first event.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// How many invalidations there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// One of them, with its sequence.
    pub(super) fn get(&self, index: usize) -> Option<(u64, &[u8])> {
        let (place, end) = *self.places.get(index)?;
        let before = index.checked_sub(1).and_then(|it| self.places.get(it));
        let start = before.map_or(0, |(_, end)| *end);
        let event = self.bytes.get(start..end)?;
        Some((self.first + u64::from(place), event))
    }

    /// Its memory.
    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + size_of_val(&*self.places)
    }
}

/// A stack of notes. The newest is on top, which is not always that of the latest event.
#[derive(Debug)]
pub(super) struct Inbox {
    top: AtomicPtr<Note>,
    /// The memory of those that were pushed, and are not settled.
    bytes: AtomicUsize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox {
            top: AtomicPtr::new(ptr::null_mut()),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Leaves a note of a batch whose first sequence is `first`. Returns the memory of all that are
    /// not settled: those before it, and with it.
    ///
    /// Lock-free: it tries again only where another one was pushed, or all were taken.
    pub(super) fn push(&self, mut note: Box<Note>, first: u64) -> (usize, usize) {
        note.first = first;
        let size = note.size();
        let note = Box::into_raw(note);
        // Whoever takes it may know it by its address.
        note.expose_provenance();
        // Relaxed: a guess, which the exchange checks.
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else knows of it before the exchange.
            unsafe { (*note).below = top.addr() };
            // Release: whoever takes it sees what is in it.
            match self
                .top
                .compare_exchange(top, note, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(newer) => top = newer,
            }
        }
        // Relaxed: a figure.
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        (before, before.wrapping_add(size))
    }

    /// Takes all notes, in no order. They are to be [settled](Self::settle).
    pub(super) fn take(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        // Acquire: pairs with the exchange in `push`.
        let mut top = self.top.swap(ptr::null_mut(), Ordering::Acquire);
        while !top.is_null() {
            // SAFETY: it came from a box in `push`, and the swap has made it ours alone.
            let note = *unsafe { Box::from_raw(top) };
            top = ptr::with_exposed_provenance_mut(note.below);
            notes.push(note);
        }
        notes
    }

    /// The memory of all notes that are not settled.
    pub(super) fn unsettled_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A note that was taken is done with.
    pub(super) fn settle(&self, note: &Note) {
        // Relaxed: a figure, which may be short of what is to be added for a moment.
        self.bytes.fetch_sub(note.size(), Ordering::Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        drop(self.take());
    }
}
