//! What the engine promises, as a queue of events and a position for each
//! subscriber.
//!
//! The model knows nothing of segments. When the ring has to forget for lack of
//! memory is the ring's to say; the model holds it to what is promised of that:
//! never more than the settings allow, never out of order, never without need.

use std::collections::VecDeque;

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
    kept: VecDeque<Kept>,
    kept_bytes: u64,
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

impl Model {
    pub(crate) fn new(limits: Limits, window_ms: u64, now_ms: u64) -> Self {
        Model {
            limits,
            window_ms,
            kept: VecDeque::new(),
            kept_bytes: 0,
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

    /// Forgets what the ring has forgotten, if it was allowed to.
    pub(crate) fn forget(&mut self, stats: &Stats) {
        let retained = usize::try_from(stats.retained_events).expect("a ring fits in memory");
        assert!(stats.retained_events <= self.limits.max_events);
        assert!(
            retained <= self.kept.len(),
            "what was forgotten is gone for good"
        );
        assert!(
            retained > 0 || self.head == 0,
            "the newest event is always there"
        );
        while self.kept.len() as u64 > self.limits.max_events {
            self.drop_oldest();
        }
        // What can be published at once can be retained.
        if self.kept_bytes <= self.limits.max_batch_bytes {
            let bytes = self.kept_bytes;
            assert_eq!(
                retained,
                self.kept.len(),
                "there was room for {bytes} bytes"
            );
        }
        while self.kept.len() > retained {
            self.drop_oldest();
        }
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
        match self.oldest() - 1 {
            oldest if oldest > position => Next::Lagged(oldest - position),
            _ => Next::Events,
        }
    }

    fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.head + 1, |kept| kept.seq)
    }

    fn kept(&self, seq: u64) -> Option<&Kept> {
        let place = seq.checked_sub(self.oldest())?;
        self.kept.get(usize::try_from(place).ok()?)
    }

    /// The frames from `first` to `last`, as they go over the wire, if all of them
    /// are kept.
    pub(crate) fn frames(&self, first: u64, last: u64) -> Option<Vec<u8>> {
        let from = usize::try_from(first.checked_sub(self.oldest())?).ok()?;
        let count = usize::try_from(last.checked_sub(first)?).ok()? + 1;
        let run = self.kept.range(from..).take(count);
        if run.len() < count {
            return None;
        }
        let mut frames = Vec::new();
        run.for_each(|kept| frames.extend_from_slice(&kept.frame));
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
