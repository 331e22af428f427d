//! [`Leases`]: since when a router knows of all that was published.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cursor::Cursor;

/// So many answers wait at most. More are left out: those that wait are older.
const MAX_AWAITED: usize = 64;

/// What a process has enforced, and what the server has answered to its reports of that.
///
/// An answer names the head. Once all up to there is enforced, all is that was published before the
/// report was sent.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// `None`: not known, as in the middle of a replay.
    enforced: Option<Cursor>,
    /// When reports were sent, by the router's clock, and the heads of their answers, which are not
    /// enforced yet.
    awaited: VecDeque<(Duration, Cursor)>,
}

impl Leases {
    /// A stream begins: what was answered on another one may be of another server.
    pub(super) fn begin(&mut self) {
        self.enforced = None;
        self.awaited.clear();
    }

    pub(super) fn enforced(&self) -> Option<Cursor> {
        self.enforced
    }

    /// All up to here is enforced. Returns before which moment all that was published is known to be,
    /// if that is more than before.
    pub(super) fn enforce(&mut self, cursor: Cursor) -> Option<Duration> {
        self.enforced = Some(cursor);
        self.known()
    }

    /// The report that was sent at this moment was answered with this head. Returns the same.
    pub(super) fn answer(&mut self, sent: Duration, head: Cursor) -> Option<Duration> {
        if self.awaited.len() < MAX_AWAITED {
            self.awaited.push_back((sent, head));
        }
        self.known()
    }

    fn known(&mut self) -> Option<Duration> {
        let enforced = self.enforced?;
        let mut known = None;
        while let Some((sent, head)) = self.awaited.front().copied()
            && head.epoch() == enforced.epoch()
            && head <= enforced
        {
            self.awaited.pop_front();
            known = known.max(Some(sent));
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Epoch, Seq};

    fn at(seq: u64) -> Cursor {
        Cursor::new(Epoch::new(1, 0).unwrap(), Seq::new(seq))
    }

    const fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn what_was_published_before_a_report_is_known_when_its_head_is_enforced() {
        let mut leases = Leases::default();
        assert_eq!(leases.answer(second(1), at(0)), None, "nothing is enforced");
        leases.begin();
        assert_eq!(leases.enforce(at(3)), None);
        assert_eq!(leases.answer(second(2), at(3)), Some(second(2)));
        assert_eq!(leases.answer(second(3), at(5)), None);
        assert_eq!(leases.answer(second(4), at(6)), None);
        assert_eq!(leases.enforce(at(4)), None);
        assert_eq!(leases.enforce(at(5)), Some(second(3)));
        assert_eq!(leases.answer(second(5), at(6)), None);
        assert_eq!(leases.enforce(at(7)), Some(second(5)), "both at once");
        assert_eq!(leases.enforce(at(8)), None);
    }

    #[test]
    fn another_epoch_is_no_answer() {
        let mut leases = Leases::default();
        leases.enforce(Cursor::new(Epoch::new(2, 0).unwrap(), Seq::new(9)));
        assert_eq!(leases.answer(second(1), at(3)), None);
    }

    #[test]
    fn whoever_never_catches_up_takes_no_more_memory_for_it() {
        let mut leases = Leases::default();
        leases.enforce(at(0));
        for n in 1..1000 {
            assert_eq!(leases.answer(second(n), at(n)), None);
        }
        assert_eq!(leases.awaited.len(), MAX_AWAITED);
        assert_eq!(leases.enforce(at(1000)), Some(second(64)));
        assert_eq!(leases.answer(second(1000), at(1000)), Some(second(1000)));
    }
}
