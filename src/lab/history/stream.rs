//! A stream's record: where it started, what it received, how it ended.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::Shared;
use super::fingerprint::Fingerprint;
use super::ledger::Bookmark;
use super::record::{Ending, EpochRecord, Judgement, Leftover, Received};
use super::revocations::Replay;
use super::start::{Decision, Requested, Start};
use super::summary::Summary;
use super::takeover::Begun;
use super::violation::{StreamId, Violation};
use crate::cursor::Cursor;

/// How many undecided events a stream gathers before it looks at them again.
const SWEEP_EVENTS: usize = 1024;

/// A subscription that was begun and has no response. If it is dropped as it is,
/// nobody knows what has become of it: it may have taken its id over.
#[derive(Debug)]
#[must_use = "what became of it is part of the record"]
pub struct Subscribing {
    shared: Arc<Shared>,
    begun: Begun,
    requested: Requested,
    /// The newest cursor that anybody had seen published by then.
    seen: Option<Cursor>,
}

impl Subscribing {
    pub(super) fn new(shared: Arc<Shared>, gateway_id: &str, requested: &str) -> Self {
        Subscribing {
            begun: shared.takeovers.begin(gateway_id),
            requested: requested.into(),
            seen: shared.seen(),
            shared,
        }
    }

    /// There is no stream.
    pub fn refused(self) {
        self.shared.takeovers.refuse(&self.begun);
    }

    /// There is a stream, of what comes after `start`.
    pub fn granted(self, decision: Decision, start: Cursor) -> Stream {
        let Subscribing {
            shared,
            begun,
            requested,
            seen,
        } = self;
        shared.takeovers.grant(&begun);
        let violation = Start {
            stream: &begun.stream,
            requested: &requested,
            decision,
            cursor: start,
            seen,
            retained_events: shared.terms.retained_events,
        }
        .violation();
        if let Some(violation) = violation {
            shared.findings.add(violation);
        }
        let requested = match &requested {
            Requested::Cursor(cursor) if cursor.epoch() == start.epoch() => cursor.seq().number(),
            _ => 0,
        };
        let record = shared.record(start.epoch());
        let start = start.seq().number();
        record.seen.raise(start);
        let mut summary = Summary {
            streams: 1,
            ..Summary::default()
        };
        match decision {
            Decision::Resumed => summary.resumed = 1,
            Decision::Expired { missed } => {
                summary.expired = 1;
                summary.missed_events = missed;
            }
            _ => {}
        }
        Stream {
            shared,
            record,
            begun,
            bookmark: None,
            requested: match decision {
                Decision::Expired { .. } => requested,
                _ => 0,
            },
            fresh_start: (decision != Decision::Resumed).then_some(start),
            position: start,
            received_any: false,
            gap: None,
            undecided: Vec::new(),
            sweep_at: SWEEP_EVENTS,
            summary,
            ended: false,
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The gateway left, or its connection broke.
    Cut,
    /// It was told that a newer subscription has its id.
    TakenOver,
    /// It was told that it lagged, and goes no further.
    Lagged {
        /// How many events were said to lie between its last one and the head.
        missed: u64,
    },
    /// It was told that the server takes no more events, and that this was all.
    Closed,
    /// It was told that the server stops, before it had everything.
    Stopped,
}

/// Records what one stream received, in its order. Dropping it is
/// [ending](Stream::ended) it as [`End::Cut`].
///
/// Its memory does not grow with the stream. Only an event that is received before
/// its publisher's response is recorded is remembered, until that response is.
pub struct Stream {
    shared: Arc<Shared>,
    record: Arc<EpochRecord>,
    begun: Begun,
    bookmark: Bookmark,
    /// The sequence that was asked for, if that is of this epoch; else 0.
    requested: u64,
    /// The start, if that was the head: no batch is cut in two there.
    fresh_start: Option<u64>,
    position: u64,
    received_any: bool,
    /// A gap that was announced after the last event.
    gap: Option<Gap>,
    undecided: Vec<Received>,
    sweep_at: usize,
    summary: Summary,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    after: u64,
    announced: u64,
}

impl Stream {
    /// Which stream this is.
    #[must_use]
    pub fn id(&self) -> &StreamId {
        &self.begun.stream
    }

    /// Before its first event it was told these invalidations from before its start, all that were
    /// announced: each with its cursor and the fingerprint of its session, as in
    /// [`Publisher::invalidated`](super::Publisher::invalidated). `is_complete`: and that none is
    /// missing.
    pub fn replayed(
        &mut self,
        is_complete: bool,
        invalidations: impl IntoIterator<Item = (Cursor, Fingerprint)>,
    ) {
        self.summary.replays += 1;
        self.record.revocations.replayed(Replay {
            stream: self.id().clone(),
            after: self.requested,
            start: self.position,
            is_complete,
            found: invalidations.into_iter().collect(),
        });
    }

    /// It received these events: each with the cursor that it carries and the
    /// fingerprint of the rest of it.
    pub fn received(&mut self, events: impl IntoIterator<Item = (Cursor, Fingerprint)>) {
        for (cursor, fingerprint) in events {
            self.event(cursor, fingerprint);
        }
        self.record.seen.raise(self.position);
        if self.undecided.len() >= self.sweep_at {
            let events = mem::take(&mut self.undecided);
            self.undecided = self.judge(&self.begun.stream, events);
            self.sweep_at = SWEEP_EVENTS.max(2 * self.undecided.len());
        }
    }

    /// It was told that it missed so many events, and that it goes on after them.
    pub fn lagged(&mut self, missed: u64) {
        self.summary.gaps += 1;
        self.announced(missed);
    }

    /// It has ended.
    pub fn ended(mut self, end: End) {
        self.end(end);
    }

    fn event(&mut self, cursor: Cursor, fingerprint: Fingerprint) {
        self.summary.received_events += 1;
        let after = self.record.cursor(self.position);
        if cursor.epoch() != self.record.epoch() {
            return self.broken(Violation::EpochChanged {
                stream: self.id().clone(),
                after,
                found: cursor,
            });
        }
        let seq = cursor.seq().number();
        let gap = self.gap.filter(|gap| seq > gap.after);
        if self.position.checked_add(1) != Some(seq) {
            let stream = self.id().clone();
            if let Some(gap) = gap {
                self.broken(Violation::Miscounted {
                    stream,
                    after: self.record.cursor(gap.after),
                    announced: gap.announced,
                    missed: seq - gap.after - 1,
                });
            } else if seq <= self.position {
                return self.broken(Violation::WentBack {
                    stream,
                    after,
                    found: cursor,
                });
            } else {
                self.broken(Violation::Skipped {
                    stream,
                    after,
                    found: cursor,
                });
            }
        }
        self.position = seq;
        self.gap = None;
        self.received_any = true;
        let received = Received {
            seq,
            fingerprint,
            begins_stream: self.fresh_start == seq.checked_sub(1),
        };
        let judgement = (self.record).judge(&mut self.bookmark, &self.begun.stream, received);
        match judgement {
            Judgement::Kept => {}
            Judgement::Undecided => self.undecided.push(received),
            Judgement::Unverifiable => self.summary.unverified_events += 1,
            Judgement::Broken(violation) => self.broken(violation),
        }
    }

    fn announced(&mut self, missed: u64) {
        if missed == 0 {
            return self.broken(Violation::EmptyGap {
                stream: self.id().clone(),
                after: self.record.cursor(self.position),
            });
        }
        self.summary.missed_events += missed;
        let before = self.gap.unwrap_or(Gap {
            after: self.position,
            announced: 0,
        });
        self.gap = Some(Gap {
            announced: before.announced.saturating_add(missed),
            ..before
        });
        self.position = self.position.saturating_add(missed);
        self.record.seen.raise(self.position);
    }

    /// What is still undecided of these events.
    fn judge(&self, stream: &StreamId, mut events: Vec<Received>) -> Vec<Received> {
        let mut bookmark = None;
        events.retain(
            |event| match self.record.judge(&mut bookmark, stream, *event) {
                Judgement::Undecided => true,
                Judgement::Kept => false,
                Judgement::Unverifiable => {
                    self.shared.count(&Summary {
                        unverified_events: 1,
                        ..Summary::default()
                    });
                    false
                }
                Judgement::Broken(violation) => {
                    self.broken(violation);
                    false
                }
            },
        );
        events
    }

    fn end(&mut self, end: End) {
        if mem::replace(&mut self.ended, true) {
            return;
        }
        // The gap between the last event and the head lies behind the last event.
        let last = self.gap.map_or(self.position, |gap| gap.after);
        let last = self.received_any.then(|| self.record.cursor(last));
        if let End::Lagged { missed } = end {
            self.announced(missed);
        }
        let had_rivals = self.shared.takeovers.end(&self.begun, last);
        match end {
            End::Cut | End::Stopped => {}
            End::Closed => self.summary.closed = 1,
            End::Lagged { .. } => self.summary.lagged = 1,
            End::TakenOver => {
                self.summary.taken_over = 1;
                if !had_rivals {
                    self.broken(Violation::TakenOverByNobody {
                        stream: self.id().clone(),
                        position: self.record.cursor(self.position),
                    });
                }
            }
        }
        if end == End::Closed || self.position > self.record.accepted.number() {
            self.record.endings().push(Ending {
                stream: self.id().clone(),
                position: self.position,
                complete: end == End::Closed,
            });
        }
        let undecided = mem::take(&mut self.undecided);
        let undecided = self.judge(&self.begun.stream, undecided);
        let leftovers = self.record.leave(Leftover {
            stream: self.id().clone(),
            events: undecided,
        });
        if let Some(leftovers) = leftovers {
            let judged = leftovers.into_iter().map(|left| Leftover {
                events: self.judge(&left.stream, left.events),
                stream: left.stream,
            });
            self.record
                .keep(judged.filter(|left| !left.events.is_empty()));
        }
        self.shared.count(&self.summary);
    }

    fn broken(&self, violation: Violation) {
        self.shared.findings.add(violation);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end(End::Cut);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("id", self.id())
            .field("position", &self.record.cursor(self.position))
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
