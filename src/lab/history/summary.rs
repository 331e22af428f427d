//! How much a history covers: a check that found nothing says as much as there was
//! to be checked.

use std::fmt;
use std::ops::AddAssign;

/// What was recorded, in numbers. Publishers count when they are dropped, streams
/// when they have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Batches that were accepted.
    pub accepted_batches: u64,
    /// Their events.
    pub accepted_events: u64,
    /// Batches that were refused.
    pub refused_batches: u64,
    /// Batches whose response was lost.
    pub batches_without_response: u64,
    /// Streams that started.
    pub streams: u64,
    /// Those of them that were resumed.
    pub resumed: u64,
    /// Those that asked for a cursor that had expired.
    pub expired: u64,
    /// Events that streams received, all together.
    pub received_events: u64,
    /// Events that were received and could not be compared, because they were there
    /// before the record began, have been [forgotten](super::History::forget_before),
    /// or may be of [other publishers](super::Terms::other_publishers).
    pub unverified_events: u64,
    /// Gaps that were announced to streams that then went on.
    pub gaps: u64,
    /// Events that were announced as missed, in gaps, at the end or at the start of a
    /// stream.
    pub missed_events: u64,
    /// Streams that began with a replay of revocations.
    pub replays: u64,
    /// Streams that ended because they were taken over.
    pub taken_over: u64,
    /// Streams that ended because they lagged.
    pub lagged: u64,
    /// Streams that ended when they had everything.
    pub closed: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        // By name, so that a new field cannot be left out.
        let Summary {
            accepted_batches,
            accepted_events,
            refused_batches,
            batches_without_response,
            streams,
            resumed,
            expired,
            received_events,
            unverified_events,
            gaps,
            missed_events,
            replays,
            taken_over,
            lagged,
            closed,
        } = other;
        self.accepted_batches += accepted_batches;
        self.accepted_events += accepted_events;
        self.refused_batches += refused_batches;
        self.batches_without_response += batches_without_response;
        self.streams += streams;
        self.resumed += resumed;
        self.expired += expired;
        self.received_events += received_events;
        self.unverified_events += unverified_events;
        self.gaps += gaps;
        self.missed_events += missed_events;
        self.replays += replays;
        self.taken_over += taken_over;
        self.lagged += lagged;
        self.closed += closed;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events accepted in {} batches, {} batches refused, {} without a response; \
             {} events received by {} streams ({} not compared), \
             {} missed, {} gaps, {} replays; \
             {} resumed, {} expired, {} taken over, {} lagged, {} closed",
            self.accepted_events,
            self.accepted_batches,
            self.refused_batches,
            self.batches_without_response,
            self.received_events,
            self.streams,
            self.unverified_events,
            self.missed_events,
            self.gaps,
            self.replays,
            self.resumed,
            self.expired,
            self.taken_over,
            self.lagged,
            self.closed,
        )
    }
}
