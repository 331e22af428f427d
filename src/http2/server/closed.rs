//! Streams that have ended lately.
//!
//! What arrives on a stream that has ended is a fault of the peer, or was on its way when
//! we ended it, and nobody's fault (RFC 9113, section 5.1). Which of the two is known of
//! the last [`REMEMBERED`] streams; of earlier ones the peer gets the benefit of the doubt.

use std::collections::VecDeque;

/// More than the streams that a proxy ends within a round trip.
const REMEMBERED: usize = 64;

/// How a stream has ended, in the peer's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// We ended it before its request was complete: the peer may not know yet.
    Early,
    /// The peer had completed its request: it may send no more than WINDOW_UPDATE,
    /// RST_STREAM and PRIORITY.
    Complete,
    /// The peer has reset it: it may send nothing but PRIORITY.
    Reset,
    /// The peer has passed its identifier over when it opened a later stream.
    NeverOpened,
    /// Any of these.
    Forgotten,
}

impl Closed {
    /// The state of a stream that we end.
    pub(super) fn by_us(request_is_complete: bool) -> Self {
        if request_is_complete {
            Closed::Complete
        } else {
            Closed::Early
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct ClosedStreams {
    /// The newest last.
    recent: VecDeque<(u32, Closed)>,
    /// The highest identifier that was forgotten. Below it, streams that were never opened
    /// cannot be told from those that have ended.
    forgotten: u32,
}

impl ClosedStreams {
    /// A stream has ended.
    pub(super) fn remember(&mut self, id: u32, closed: Closed) {
        if self.recent.len() == REMEMBERED
            && let Some((oldest, _)) = self.recent.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.recent.push_back((id, closed));
    }

    /// How the stream has ended. It is not open, and not later than all that were opened.
    pub(super) fn find(&self, id: u32) -> Closed {
        let found = self.recent.iter().rev().find(|(of, _)| *of == id);
        match found {
            Some(&(_, closed)) => closed,
            None if id <= self.forgotten => Closed::Forgotten,
            None => Closed::NeverOpened,
        }
    }

    /// The peer has said more of a stream that has ended.
    pub(super) fn update(&mut self, id: u32, closed: Closed) {
        let found = self.recent.iter_mut().rev().find(|(of, _)| *of == id);
        if let Some((_, of)) = found {
            *of = closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut closed = ClosedStreams::default();
        for id in (1..).step_by(4).take(REMEMBERED) {
            closed.remember(id, Closed::Early);
        }
        assert_eq!(closed.find(1), Closed::Early);
        assert_eq!(closed.find(3), Closed::NeverOpened);
        closed.update(5, Closed::Reset);
        closed.update(3, Closed::Reset);
        closed.remember(1001, Closed::Complete);
        assert_eq!(closed.find(1), Closed::Forgotten);
        assert_eq!(closed.find(5), Closed::Reset);
        assert_eq!(closed.find(3), Closed::NeverOpened);
        assert_eq!(closed.find(1001), Closed::Complete);
        assert_eq!(closed.recent.len(), REMEMBERED);
    }
}
