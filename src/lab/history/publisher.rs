//! A publisher's record: its batches, and the responses to them.

use std::fmt;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::ledger::Bookmark;
use super::lost::LostBatch;
use super::record::EpochRecord;
use super::summary::Summary;
use super::takeover::Firsts;
use super::violation::Violation;
use super::{Shared, lock};
use crate::cursor::{Cursor, Seq};

/// Records what one publisher published and which responses it got. Drop it when the
/// publisher is done.
pub struct Publisher {
    shared: Arc<Shared>,
    name: Arc<str>,
    record: Option<Arc<EpochRecord>>,
    bookmark: Bookmark,
    firsts: Firsts,
    summary: Summary,
}

/// A publish that was begun, and what was known by then: its events can only come
/// after that.
#[derive(Clone, Copy, Debug)]
pub struct Publishing {
    known: Option<Cursor>,
    takeovers: u64,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, name: Arc<str>) -> Self {
        Publisher {
            shared,
            name,
            record: None,
            bookmark: None,
            firsts: Firsts::default(),
            summary: Summary::default(),
        }
    }

    /// Call this right before a batch is published, and one of the three methods
    /// below when its outcome is known.
    #[must_use]
    pub fn publishing(&self) -> Publishing {
        Publishing {
            known: self.shared.known(),
            takeovers: self.shared.takeovers.count(),
        }
    }

    /// The batch stands from `first` to `last`.
    pub fn accepted(
        &mut self,
        publishing: Publishing,
        first: Cursor,
        last: Cursor,
        events: &[Fingerprint],
    ) {
        self.summary.accepted_batches += 1;
        self.summary.accepted_events += events.len() as u64;
        let (from, to) = (first.seq().number(), last.seq().number());
        let places = (first.epoch() == last.epoch())
            .then(|| to.checked_sub(from))
            .flatten()
            .and_then(|span| span.checked_add(1));
        if places != Some(events.len() as u64) {
            return self.broken(Violation::ResponseSize {
                publisher: Arc::clone(&self.name),
                first,
                last,
                events: events.len(),
            });
        }
        let record = self.record(first);
        let known = publishing
            .known
            .max(Some(record.cursor(record.ledger.base())));
        if let Some(known) = known.filter(|known| first <= *known) {
            self.broken(Violation::ResponseBehind {
                publisher: Arc::clone(&self.name),
                first,
                known,
            });
            if from == Seq::ZERO.number() {
                return;
            }
        }
        for (seq, event) in (from..=to).zip(events) {
            let begins_batch = seq == from;
            let accepted = (record.ledger).accept(&mut self.bookmark, seq, *event, begins_batch);
            if accepted.is_err() {
                self.broken(Violation::GivenTwice {
                    publisher: Arc::clone(&self.name),
                    cursor: record.cursor(seq),
                });
            }
        }
        record.accepted.raise(to);
        self.firsts.note(publishing.takeovers, first);
    }

    /// The event at this place, of a batch that was accepted, invalidates this session: the
    /// fingerprint of whatever names it, the same for each of its invalidations.
    pub fn invalidated(&mut self, at: Cursor, session: Fingerprint) {
        let record = self.record(at);
        record.revocations.published(at.seq().number(), session);
    }

    /// The batch was refused: none of it may ever be seen.
    pub fn refused(&mut self, events: &[Fingerprint]) {
        self.summary.refused_batches += 1;
        let mut refused = lock(&self.shared.refused);
        for event in events {
            refused.insert(*event, Arc::clone(&self.name));
        }
    }

    /// The outcome of the batch is unknown: its response was lost.
    pub fn no_response(&mut self, publishing: Publishing, events: &[Fingerprint]) {
        self.summary.batches_without_response += 1;
        lock(&self.shared.lost).push(LostBatch {
            publisher: Arc::clone(&self.name),
            known: publishing.known,
            events: events.into(),
        });
    }

    /// The record of the epoch of `cursor`, mostly the same as last time.
    fn record(&mut self, cursor: Cursor) -> Arc<EpochRecord> {
        match &self.record {
            Some(record) if record.epoch() == cursor.epoch() => Arc::clone(record),
            _ => {
                let record = self.shared.record(cursor.epoch());
                self.bookmark = None;
                Arc::clone(self.record.insert(record))
            }
        }
    }

    fn broken(&self, violation: Violation) {
        self.shared.findings.add(violation);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.takeovers.note(std::mem::take(&mut self.firsts));
        self.shared.count(&self.summary);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("name", &self.name)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
