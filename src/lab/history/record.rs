//! What is known of one epoch, by everybody together.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crossbeam::utils::CachePadded;

use super::fingerprint::Fingerprint;
use super::ledger::{Bookmark, Entry, Ledger};
use super::lock;
use super::revocations::Revocations;
use super::violation::{StreamId, Violation};
use crate::cursor::{Cursor, Epoch, Seq};

#[derive(Debug)]
pub(super) struct EpochRecord {
    epoch: Epoch,
    pub(super) ledger: Ledger,
    /// The newest event that a response names.
    pub(super) accepted: Mark,
    /// The newest position that a stream has come to: who subscribes afterwards
    /// cannot be told of a head before it.
    pub(super) seen: Mark,
    pub(super) revocations: Revocations,
    leftovers: Mutex<Leftovers>,
    /// Streams whose position is to be compared with the head, in the end.
    endings: Mutex<Vec<Ending>>,
}

/// An event as a stream received it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) seq: u64,
    pub(super) fingerprint: Fingerprint,
    /// Whether it is the first event after a fresh start: then it begins a batch.
    pub(super) begins_stream: bool,
}

/// What the ledger says of a received event.
#[derive(Debug)]
pub(super) enum Judgement {
    Kept,
    Broken(Violation),
    /// Its publisher has no response, or has not written it down.
    Undecided,
    /// The ledger has forgotten it.
    Unverifiable,
}

/// Where a stream was in the end.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) stream: StreamId,
    pub(super) position: u64,
    /// Whether it was told that this is all.
    pub(super) complete: bool,
}

/// Undecided events of a stream that has ended.
#[derive(Clone, Debug)]
pub(super) struct Leftover {
    pub(super) stream: StreamId,
    pub(super) events: Vec<Received>,
}

/// How many streams leave undecided events before somebody looks at them again.
const SWEEP_STREAMS: usize = 64;

#[derive(Debug, Default)]
struct Leftovers {
    list: Vec<Leftover>,
    /// How long the list gets before the decided ones are taken out.
    sweep_at: usize,
}

impl EpochRecord {
    pub(super) fn new(epoch: Epoch, ledger: Ledger) -> Self {
        EpochRecord {
            epoch,
            accepted: Mark::at(ledger.base()),
            seen: Mark::at(ledger.base()),
            ledger,
            revocations: Revocations::default(),
            leftovers: Mutex::default(),
            endings: Mutex::default(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The place `seq` in it. A stream that claims to be further than a place can be
    /// is shown at the last.
    pub(super) fn cursor(&self, seq: u64) -> Cursor {
        let seq = Seq::checked_new(seq).unwrap_or(Seq::MAX);
        Cursor::new(self.epoch, seq)
    }

    /// Compares what a stream received with what was published.
    pub(super) fn judge(
        &self,
        bookmark: &mut Bookmark,
        stream: &StreamId,
        received: Received,
    ) -> Judgement {
        match self.ledger.look(bookmark, received.seq) {
            Entry::Pending => Judgement::Undecided,
            Entry::Forgotten => Judgement::Unverifiable,
            Entry::Accepted { fingerprint, .. } if fingerprint != received.fingerprint => {
                Judgement::Broken(Violation::Contents {
                    stream: stream.clone(),
                    cursor: self.cursor(received.seq),
                    expected: fingerprint,
                    found: received.fingerprint,
                })
            }
            Entry::Accepted { begins_batch, .. } if received.begins_stream && !begins_batch => {
                Judgement::Broken(Violation::StartsInsideBatch {
                    stream: stream.clone(),
                    start: self.cursor(received.seq - 1),
                })
            }
            Entry::Accepted { .. } => Judgement::Kept,
        }
    }

    /// Takes the undecided events of a stream that has ended. From time to time it
    /// hands all of them out, to be judged: what is undecided still is to be
    /// [brought back](Self::keep).
    pub(super) fn leave(&self, leftover: Leftover) -> Option<Vec<Leftover>> {
        if leftover.events.is_empty() {
            return None;
        }
        let mut leftovers = lock(&self.leftovers);
        leftovers.list.push(leftover);
        let is_long = leftovers.list.len() >= leftovers.sweep_at.max(SWEEP_STREAMS);
        is_long.then(|| mem::take(&mut leftovers.list))
    }

    /// Takes back what was handed out and is still undecided.
    pub(super) fn keep(&self, undecided: impl Iterator<Item = Leftover>) {
        let mut leftovers = lock(&self.leftovers);
        leftovers.list.extend(undecided);
        leftovers.sweep_at = 2 * leftovers.list.len();
    }

    /// What is undecided, of all streams that have ended.
    pub(super) fn leftovers(&self) -> Vec<Leftover> {
        lock(&self.leftovers).list.clone()
    }

    pub(super) fn endings(&self) -> MutexGuard<'_, Vec<Ending>> {
        lock(&self.endings)
    }
}

/// The largest number that was seen so far.
#[derive(Debug)]
pub(super) struct Mark(CachePadded<AtomicU64>);

impl Mark {
    fn at(number: u64) -> Self {
        Mark(CachePadded::new(AtomicU64::new(number)))
    }

    pub(super) fn raise(&self, number: u64) {
        // Relaxed: a hint that spares most callers the exchange. Release: what led
        // to this number happened before whatever is done after reading it.
        if number > self.0.load(Ordering::Relaxed) {
            self.0.fetch_max(number, Ordering::Release);
        }
    }

    pub(super) fn number(&self) -> u64 {
        // Acquire: pairs with the Release in `raise`.
        self.0.load(Ordering::Acquire)
    }
}
