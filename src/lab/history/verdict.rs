//! What can be judged only when all is recorded: each step holds one promise against
//! the whole history.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::lost::{LostBatches, Origin};
use super::record::{EpochRecord, Judgement};
use super::report::{Found, Report};
use super::summary::Summary;
use super::violation::{StreamId, Violation};
use super::{Shared, lock};

/// Judges the rest, and reports on everything.
pub(super) fn verdict(shared: &Shared) -> Report {
    let batches = lock(&shared.lost);
    let mut verdict = Verdict {
        shared,
        lost: LostBatches::new(&batches),
        found: shared.findings.found(),
        summary: *lock(&shared.summary),
    };
    let mut epochs = Vec::new();
    for record in shared.records() {
        let unnamed = verdict.compare_leftovers(&record);
        let received = unnamed.last_key_value().map_or(0, |(seq, _)| *seq);
        verdict.find_origins(&record, unnamed);
        let (violations, unverified) = record.revocations.judge(&record);
        verdict.summary.unverified_events += unverified;
        for violation in violations {
            verdict.found.add(violation);
        }
        let head = (record.accepted.number())
            .max(received)
            .max(verdict.lost.last(&record));
        epochs.push((record, head));
    }
    verdict.find_holes(&epochs);
    verdict.compare_endings(&epochs);
    for violation in shared.takeovers.violations() {
        verdict.found.add(violation);
    }
    verdict.found.report(verdict.summary)
}

struct Verdict<'a> {
    shared: &'a Shared,
    lost: LostBatches<'a>,
    found: Found,
    summary: Summary,
}

/// Events that were received and that no response names, by sequence,
/// with the first stream that received them.
type Unnamed = BTreeMap<u64, (Fingerprint, StreamId)>;

impl Verdict<'_> {
    /// Contents: what streams received before its response is what was published
    /// there; what no response names is the same for all of them.
    fn compare_leftovers(&mut self, record: &EpochRecord) -> Unnamed {
        let mut unnamed = Unnamed::new();
        let mut bookmark = None;
        for leftover in record.leftovers() {
            for received in leftover.events {
                match record.judge(&mut bookmark, &leftover.stream, received) {
                    Judgement::Kept => {}
                    Judgement::Unverifiable => self.summary.unverified_events += 1,
                    Judgement::Broken(violation) => self.found.add(violation),
                    Judgement::Undecided => {
                        let (expected, _) = unnamed
                            .entry(received.seq)
                            .or_insert_with(|| (received.fingerprint, leftover.stream.clone()));
                        if *expected != received.fingerprint {
                            self.found.add(Violation::Contents {
                                stream: leftover.stream.clone(),
                                cursor: record.cursor(received.seq),
                                expected: *expected,
                                found: received.fingerprint,
                            });
                        }
                    }
                }
            }
        }
        unnamed
    }

    /// No event from nowhere: what no response names is of a batch whose response
    /// was lost, and that batch is there as a whole.
    fn find_origins(&mut self, record: &EpochRecord, unnamed: Unnamed) {
        for (seq, (fingerprint, stream)) in unnamed {
            let cursor = record.cursor(seq);
            let publisher = match self.lost.find(record, seq, fingerprint) {
                Origin::Whole => continue,
                Origin::Torn(publisher) => {
                    self.found.add(Violation::Torn {
                        stream,
                        cursor,
                        publisher,
                    });
                    continue;
                }
                Origin::Unknown => lock(&self.shared.refused).get(&fingerprint).cloned(),
            };
            match publisher {
                Some(publisher) => self.found.add(Violation::Refused {
                    stream,
                    cursor,
                    publisher,
                }),
                None if self.shared.terms.other_publishers => self.summary.unverified_events += 1,
                None => self.found.add(Violation::Unpublished {
                    stream,
                    cursor,
                    found: fingerprint,
                }),
            }
        }
    }

    /// Dense: every sequence up to the head was given to somebody. Lost batches that
    /// nobody received from may account for some.
    fn find_holes(&mut self, epochs: &[(Arc<EpochRecord>, u64)]) {
        let mut holes = Vec::new();
        for (record, head) in epochs {
            for run in record.ledger.holes(*head) {
                let unexplained = self.lost.unexplained(record, run);
                holes.extend(unexplained.into_iter().map(|hole| (record, hole)));
            }
        }
        let missing = holes.iter().fold(0u64, |sum, (_, hole)| {
            sum.saturating_add(hole.end() - hole.start() + 1)
        });
        if missing > self.lost.events_not_found() {
            for (record, hole) in holes {
                self.found.add(Violation::Hole {
                    first: record.cursor(*hole.start()),
                    last: record.cursor(*hole.end()),
                });
            }
        }
    }

    /// Closed means complete, and no stream is where no event is.
    fn compare_endings(&mut self, epochs: &[(Arc<EpochRecord>, u64)]) {
        for (record, head) in epochs {
            let reachable = match self.shared.terms.other_publishers {
                true => u64::MAX,
                false => head.saturating_add(self.lost.events_not_found()),
            };
            for ending in record.endings().iter() {
                let stream = ending.stream.clone();
                let position = record.cursor(ending.position);
                let head_cursor = record.cursor(*head);
                if ending.position > reachable {
                    self.found.add(Violation::PastTheHead {
                        stream,
                        position,
                        head: head_cursor,
                    });
                } else if ending.complete && ending.position < *head {
                    self.found.add(Violation::ClosedEarly {
                        stream,
                        position,
                        head: head_cursor,
                    });
                }
            }
        }
    }
}
