//! What the engine promises, as a queue of events and a position for each
//! subscriber.
//!
//! The model knows nothing of segments. When the ring has to forget for lack of
//! memory is the ring's to say; the model holds it to what is promised of that:
//! never more than the settings allow, never out of order, never without need.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{Limits, Resume, Stats};

/// What a frame adds to an event: gRPC's five bytes, and the cursor's field.
pub(crate) const FRAME_OVERHEAD: usize = 5 + 2 + Cursor::TEXT_BYTES;

pub(crate) fn epoch() -> Epoch {
    Epoch::new(1_700_000_000_000, 0).expect("it fits")
}

pub(crate) fn cursor(seq: u64) -> Cursor {
    Cursor::new(epoch(), Seq::new(seq))
}

struct Kept {
    seq: u64,
    frame: Vec<u8>,
    published_ms: u64,
}

pub(crate) struct Model {
    limits: Limits,
    window_ms: u64,
    /// By their sequences, of which some may be missing.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// The sequences that the log never had, from the first on.
    holes: Vec<RangeInclusive<u64>>,
    pub(crate) head: u64,
    pub(crate) now_ms: u64,
    pub(crate) closed: bool,
    pub(crate) aborted: bool,
}

/// What a subscriber at some position will find.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Events,
    Empty,
    Lagged(u64),
    Closed,
}

/// What a batch is that does not follow the head.
pub(crate) enum Again {
    Repeated,
    OutOfOrder,
    /// Some of it is missing, and lies before the oldest event: the ring may have forgotten
    /// that.
    Forgotten,
}

impl Model {
    pub(crate) fn new(limits: Limits, window_ms: u64, now_ms: u64) -> Self {
        Model {
            limits,
            window_ms,
            kept: VecDeque::new(),
            kept_bytes: 0,
            holes: Vec::new(),
            head: 0,
            now_ms,
            closed: false,
            aborted: false,
        }
    }

    pub(crate) fn publish(&mut self, events: &[Vec<u8>]) {
        for event in events {
            self.head += 1;
            let frame = frame(event, self.head);
            self.kept_bytes += frame.len() as u64;
            self.kept.push_back(Kept {
                seq: self.head,
                frame,
                published_ms: self.now_ms,
            });
        }
    }

    /// So many sequences are missing after the head.
    pub(crate) fn leave_out(&mut self, missing: u64) {
        if missing > 0 {
            self.holes.push(self.head + 1..=self.head + missing);
            self.head += missing;
        }
    }

    /// Forgets what the ring has forgotten, if it was allowed to.
    pub(crate) fn forget(&mut self, stats: &Stats) {
        let retained = stats.retained_events;
        assert!(retained <= self.limits.max_events);
        assert!(
            retained > 0 || self.head == 0,
            "the newest event is always there"
        );
        while self.retained() > self.limits.max_events {
            self.drop_oldest();
        }
        assert!(
            retained <= self.retained(),
            "what was forgotten is gone for good"
        );
        // What can be published at once can be retained. (What is after a hole is in a new
        // segment, so then less may be.)
        if self.kept_bytes <= self.limits.max_batch_bytes && self.holes.is_empty() {
            let bytes = self.kept_bytes;
            assert_eq!(
                retained,
                self.retained(),
                "there was room for {bytes} bytes"
            );
        }
        while self.retained() > retained {
            self.drop_oldest();
        }
        assert_eq!(retained, self.retained(), "the oldest is an event");
    }

    /// How many sequences there are from the oldest event on: missing ones count.
    fn retained(&self) -> u64 {
        self.head + 1 - self.oldest()
    }

    fn drop_oldest(&mut self) {
        let oldest = self.kept.pop_front().expect("there are some");
        self.kept_bytes -= oldest.frame.len() as u64;
    }

    pub(crate) fn resume(&self, after: u64) -> (Resume, u64) {
        if after > self.head {
            return (Resume::Ahead, self.head);
        }
        let next = self.kept(after + 1);
        let young = |kept: &Kept| self.now_ms - kept.published_ms <= self.window_ms;
        if after == self.head || next.is_some_and(young) {
            (Resume::Resumed, after)
        } else {
            let missed = self.head - after;
            (Resume::Expired { missed }, self.head)
        }
    }

    pub(crate) fn next(&self, position: u64) -> Next {
        if self.aborted {
            return Next::Closed;
        }
        if position == self.head {
            return if self.closed {
                Next::Closed
            } else {
                Next::Empty
            };
        }
        match self.next_kept(position) - 1 {
            before if before > position => Next::Lagged(before - position),
            _ => Next::Events,
        }
    }

    fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.head + 1, |kept| kept.seq)
    }

    /// The first sequence after `position` whose event is kept.
    fn next_kept(&self, position: u64) -> u64 {
        let place = self.kept.partition_point(|kept| kept.seq <= position);
        let next = self.kept.get(place);
        next.map_or(self.head + 1, |kept| kept.seq)
    }

    fn kept(&self, seq: u64) -> Option<&Kept> {
        let place = self.kept.binary_search_by_key(&seq, |kept| kept.seq);
        self.kept.get(place.ok()?)
    }

    /// What a batch is that begins at or before the head.
    pub(crate) fn again(&self, first: u64, last: u64) -> Again {
        if first == 0 || last > self.head {
            return Again::OutOfOrder;
        }
        let is_missing = |from: u64| {
            let mut holes = self.holes.iter();
            holes.any(|hole| *hole.start() <= last && *hole.end() >= from)
        };
        if is_missing(first.max(self.oldest())) {
            Again::OutOfOrder
        } else if is_missing(first) {
            Again::Forgotten
        } else {
            Again::Repeated
        }
    }

    /// The first sequence of the newest hole.
    pub(crate) fn missing(&self) -> Option<u64> {
        self.holes.last().map(|hole| *hole.start())
    }

    /// The frames from `first` to `last`, as they go over the wire, if all of them
    /// are kept.
    pub(crate) fn frames(&self, first: u64, last: u64) -> Option<Vec<u8>> {
        let from = self.kept.binary_search_by_key(&first, |kept| kept.seq);
        let mut run = self.kept.range(from.ok()?..);
        let mut frames = Vec::new();
        for seq in first..=last {
            let kept = run.next().filter(|kept| kept.seq == seq)?;
            frames.extend_from_slice(&kept.frame);
        }
        Some(frames)
    }

    /// The size of the frame of `seq`, if that is kept.
    pub(crate) fn frame_bytes(&self, seq: u64) -> Option<usize> {
        self.kept(seq).map(|kept| kept.frame.len())
    }
}

fn frame(event: &[u8], seq: u64) -> Vec<u8> {
    let length = u32::try_from(event.len() + FRAME_OVERHEAD - 5).expect("events are small");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(event);
    frame.extend_from_slice(b"\x1a\x18");
    frame.extend_from_slice(cursor(seq).to_text().as_bytes());
    frame
}
