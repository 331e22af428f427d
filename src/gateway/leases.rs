//! [`Leases`]: since when a router knows of all that was published.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cursor::Cursor;

/// So many answers wait at most, and within a lease: each of them stands for those that come soon
/// after it.
const MAX_AWAITED: usize = 64;

/// What a process has enforced, and what the server has answered to its reports of that.
///
/// An answer names the head. Once all up to there is enforced, all is that was published before the
/// report was sent.
#[derive(Debug)]
pub(super) struct Leases {
    lease: Duration,
    /// `None`: not known, as in the middle of a replay.
    enforced: Option<Cursor>,
    /// When reports were sent, by the router's clock, and the heads of their answers, which are not
    /// enforced yet.
    awaited: VecDeque<(Duration, Cursor)>,
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Self {
        Leases {
            lease,
            enforced: None,
            awaited: VecDeque::new(),
        }
    }

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
        let apart = self.lease / MAX_AWAITED as u32;
        let is_soon = |(last, _): &(Duration, Cursor)| sent < *last + apart;
        if !self.awaited.back().is_some_and(is_soon) {
            if self.awaited.len() == MAX_AWAITED {
                // A lease has passed since: it is of no use any more.
                self.awaited.pop_front();
            }
            self.awaited.push_back((sent, head));
        } else if self
            .enforced
            .is_some_and(|enforced| is_there(head, enforced))
        {
            // And so are all that wait.
            self.awaited.clear();
            return Some(sent);
        }
        self.known()
    }

    fn known(&mut self) -> Option<Duration> {
        let enforced = self.enforced?;
        let mut known = None;
        while let Some((sent, head)) = self.awaited.front().copied()
            && is_there(head, enforced)
        {
            self.awaited.pop_front();
            known = known.max(Some(sent));
        }
        known
    }
}

/// Whether a head is enforced.
fn is_there(head: Cursor, enforced: Cursor) -> bool {
    head.epoch() == enforced.epoch() && head <= enforced
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

    fn leases() -> Leases {
        Leases::new(second(64))
    }

    #[test]
    fn what_was_published_before_a_report_is_known_when_its_head_is_enforced() {
        let mut leases = leases();
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
        let mut leases = leases();
        leases.enforce(Cursor::new(Epoch::new(2, 0).unwrap(), Seq::new(9)));
        assert_eq!(leases.answer(second(1), at(3)), None);
    }

    /// However often it reports, and however far it is behind.
    #[test]
    fn whoever_lags_knows_what_is_as_old_as_its_lag_and_little_more() {
        let mut leases = leases();
        let (pause, lag) = (Duration::from_millis(10), 4000);
        leases.enforce(at(0));
        let mut known = Duration::ZERO;
        for n in 1..20_000 {
            let answered = leases.answer(pause * n, at(n.into()));
            let enforced = leases.enforce(at(u64::from(n).saturating_sub(lag)));
            known = answered.max(enforced).unwrap_or_default().max(known);
            assert!(leases.awaited.len() <= MAX_AWAITED);
            if u64::from(n) > 2 * lag {
                let age = pause * n - known;
                assert!(age <= pause * lag as u32 + second(1), "{age:?}");
            }
        }
    }

    #[test]
    fn whoever_has_caught_up_knows_each_answer() {
        let mut leases = leases();
        leases.enforce(at(9));
        for n in 1..100 {
            let sent = Duration::from_millis(n);
            assert_eq!(leases.answer(sent, at(9)), Some(sent));
        }
        // One that is awaited stands for the next ones, until these are there, too.
        assert_eq!(leases.answer(second(1), at(10)), None);
        let soon = second(1) + Duration::from_millis(1);
        assert_eq!(leases.answer(soon, at(9)), Some(soon));
        assert!(leases.awaited.is_empty());
    }
}
