//! Which events are invalidations, and what streams were told of those that they missed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::fingerprint::Fingerprint;
use super::ledger::Entry;
use super::lock;
use super::record::EpochRecord;
use super::violation::{StreamId, Violation};
use crate::cursor::Cursor;

/// The invalidations of one epoch, and the replays of them.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// The session that each revokes, by sequence.
    published: Mutex<BTreeMap<u64, Fingerprint>>,
    replays: Mutex<Vec<Replay>>,
}

/// What one stream was told.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) stream: StreamId,
    /// Where the gateway stood; 0 for whoever has no cursor of this epoch.
    pub(super) after: u64,
    /// Where its stream starts.
    pub(super) start: u64,
    pub(super) is_complete: bool,
    pub(super) found: Vec<(Cursor, Fingerprint)>,
}

impl Revocations {
    pub(super) fn published(&self, seq: u64, session: Fingerprint) {
        lock(&self.published).insert(seq, session);
    }

    pub(super) fn replayed(&self, replay: Replay) {
        lock(&self.replays).push(replay);
    }

    /// What is wrong with the replays of this record, and how many invalidations in them
    /// nobody has recorded.
    pub(super) fn judge(&self, record: &EpochRecord) -> (Vec<Violation>, u64) {
        let mut by_session: HashMap<Fingerprint, Vec<u64>> = HashMap::new();
        for (seq, session) in lock(&self.published).iter() {
            by_session.entry(*session).or_default().push(*seq);
        }
        let (mut violations, mut unverified) = (Vec::new(), 0);
        for replay in lock(&self.replays).iter() {
            let judged = replay.judge(record, &by_session, &mut unverified);
            violations.extend(judged);
        }
        (violations, unverified)
    }
}

impl Replay {
    fn judge(
        &self,
        record: &EpochRecord,
        by_session: &HashMap<Fingerprint, Vec<u64>>,
        unverified: &mut u64,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        let newest = |sequences: &[u64]| {
            let up_to = sequences.partition_point(|seq| *seq <= self.start);
            up_to.checked_sub(1).map(|at| sequences[at])
        };
        let mut told = HashMap::new();
        let mut before = self.after;
        for (cursor, session) in &self.found {
            let seq = cursor.seq().number();
            let is_in_place =
                cursor.epoch() == record.epoch() && (before + 1..=self.start).contains(&seq);
            before = seq;
            let known = by_session.get(session).and_then(|of| newest(of));
            let is_unknown = || {
                let entry = record.ledger.look(&mut None, seq);
                !matches!(entry, Entry::Accepted { .. }) && known.is_none_or(|known| known < seq)
            };
            told.insert(*session, seq);
            if is_in_place && known == Some(seq) {
                continue;
            }
            if is_in_place && is_unknown() {
                *unverified += 1;
                continue;
            }
            violations.push(Violation::WrongRevocation {
                stream: self.stream.clone(),
                start: record.cursor(self.start),
                found: *cursor,
            });
        }
        if self.is_complete {
            for (session, sequences) in by_session {
                let Some(seq) = newest(sequences).filter(|seq| *seq > self.after) else {
                    continue;
                };
                if told.get(session).is_none_or(|told| *told < seq) {
                    violations.push(Violation::MissingRevocation {
                        stream: self.stream.clone(),
                        start: record.cursor(self.start),
                        missing: record.cursor(seq),
                    });
                }
            }
        }
        violations
    }
}
