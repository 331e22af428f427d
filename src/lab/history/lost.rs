//! Batches whose responses were lost: each may be in the stream, as a whole, or not.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::ledger::Entry;
use super::record::EpochRecord;
use crate::cursor::{Cursor, Seq};

/// One of them.
#[derive(Debug)]
pub(super) struct LostBatch {
    pub(super) publisher: Arc<str>,
    /// What was known when it was published: it can only come after that.
    pub(super) known: Option<Cursor>,
    pub(super) events: Box<[Fingerprint]>,
}

/// All of them, and where those stand of which an event was received.
pub(super) struct LostBatches<'a> {
    batches: &'a [LostBatch],
    /// Each event's batch and place in it.
    by_event: HashMap<Fingerprint, Vec<(usize, u64)>>,
    /// Which batch begins at a cursor, for those that were found.
    found: BTreeMap<Cursor, usize>,
    is_found: Vec<bool>,
}

/// What an event that no response names turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It belongs to a lost batch, which fits there as a whole.
    Whole,
    /// It is of this publisher's lost batch, which does not fit there.
    Torn(Arc<str>),
    /// No lost batch has such an event.
    Unknown,
}

impl<'a> LostBatches<'a> {
    pub(super) fn new(batches: &'a [LostBatch]) -> Self {
        let mut by_event: HashMap<_, Vec<_>> = HashMap::new();
        for (batch, lost) in batches.iter().enumerate() {
            for (event, place) in lost.events.iter().zip(0..) {
                by_event.entry(*event).or_default().push((batch, place));
            }
        }
        LostBatches {
            batches,
            by_event,
            found: BTreeMap::new(),
            is_found: vec![false; batches.len()],
        }
    }

    /// Finds the batch of an event that was received at `seq`.
    pub(super) fn find(&mut self, record: &EpochRecord, seq: u64, event: Fingerprint) -> Origin {
        if let Some((first, batch)) = self.found_at(record, seq) {
            let lost = &self.batches[batch];
            return if lost.events[(seq - first) as usize] == event {
                Origin::Whole
            } else {
                Origin::Torn(Arc::clone(&lost.publisher))
            };
        }
        let Some(candidates) = self.by_event.get(&event) else {
            return Origin::Unknown;
        };
        let fit = candidates.iter().find_map(|&(batch, place)| {
            let first = seq.checked_sub(place)?;
            self.fits(record, first, batch).then_some((first, batch))
        });
        match fit {
            Some((first, batch)) => {
                self.found.insert(record.cursor(first), batch);
                self.is_found[batch] = true;
                Origin::Whole
            }
            None => Origin::Torn(Arc::clone(&self.batches[candidates[0].0].publisher)),
        }
    }

    /// The last place of a batch that was found in this epoch.
    pub(super) fn last(&self, record: &EpochRecord) -> u64 {
        let in_epoch = [Seq::ZERO, Seq::MAX].map(|seq| Cursor::new(record.epoch(), seq));
        match self.found.range(in_epoch[0]..=in_epoch[1]).next_back() {
            Some((first, batch)) => first.seq().number() + (self.places(*batch) - 1),
            None => 0,
        }
    }

    /// What is left of a run of places that no response names, when the batches
    /// that were found there are taken out.
    pub(super) fn unexplained(
        &self,
        record: &EpochRecord,
        run: RangeInclusive<u64>,
    ) -> Vec<RangeInclusive<u64>> {
        let mut left = Vec::new();
        let mut next = *run.start();
        let in_run = record.cursor(*run.start())..=record.cursor(*run.end());
        for (first, batch) in self.found.range(in_run) {
            let first = first.seq().number();
            if next < first {
                left.push(next..=first - 1);
            }
            next = first.saturating_add(self.places(*batch));
        }
        if next <= *run.end() {
            left.push(next..=*run.end());
        }
        left
    }

    /// How many events the batches have that were not found: so many places can be
    /// theirs.
    pub(super) fn events_not_found(&self) -> u64 {
        let batches = 0..self.batches.len();
        let not_found = batches.filter(|batch| !self.is_found[*batch]);
        not_found.map(|batch| self.places(batch)).sum()
    }

    /// Whether a batch can begin at `first`: after what was known when it was
    /// published, and where nobody else is.
    fn fits(&self, record: &EpochRecord, first: u64, batch: usize) -> bool {
        let Some(last) = first.checked_add(self.places(batch) - 1) else {
            return false;
        };
        let known = self.batches[batch].known;
        let comes_after = |known: Cursor| record.cursor(first) > known;
        let mut bookmark = None;
        let mut is_free = |seq| {
            record.ledger.look(&mut bookmark, seq) == Entry::Pending
                && self.found_at(record, seq).is_none()
        };
        !self.is_found[batch]
            && first > record.ledger.base()
            && known.is_none_or(comes_after)
            && (first..=last).all(&mut is_free)
    }

    /// The batch that was found at `seq`, and where it begins.
    fn found_at(&self, record: &EpochRecord, seq: u64) -> Option<(u64, usize)> {
        let (first, batch) = self.found.range(..=record.cursor(seq)).next_back()?;
        let in_epoch = first.epoch() == record.epoch();
        let first = first.seq().number();
        (in_epoch && seq - first < self.places(*batch)).then_some((first, *batch))
    }

    fn places(&self, batch: usize) -> u64 {
        self.batches[batch].events.len() as u64
    }
}
