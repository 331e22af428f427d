//! Why streams end, and those that have ended of late.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::count::lock;
use crate::access::Peer;
use crate::cursor::Cursor;

/// So many are kept, the newest.
const KEPT: usize = 1000;
/// And so many refusals beside them: who is refused again and again hides no end.
const KEPT_REFUSALS: usize = 250;

/// Why a stream has ended, or why it never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// A newer subscription has taken its id, or an operator has ended it.
    Takeover,
    /// The ring has dropped events before it took them.
    Lapped,
    /// It took nothing for too long.
    Stalled,
    /// The server is stopping.
    Stopping,
    /// Its credential has expired.
    Expired,
    /// Its credential was revoked, or has lost the right.
    Denied,
    /// Its connection has ended.
    Disconnected,
    /// The gateway has reset it.
    Cancelled,
    /// It never began.
    Refused,
}

impl Cause {
    pub(crate) const ALL: [Cause; 9] = [
        Cause::Takeover,
        Cause::Lapped,
        Cause::Stalled,
        Cause::Stopping,
        Cause::Expired,
        Cause::Denied,
        Cause::Disconnected,
        Cause::Cancelled,
        Cause::Refused,
    ];

    /// Its name in metrics, logs and reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Cause::Takeover => "takeover",
            Cause::Lapped => "lapped",
            Cause::Stalled => "stalled",
            Cause::Stopping => "stopping",
            Cause::Expired => "expired",
            Cause::Denied => "denied",
            Cause::Disconnected => "disconnected",
            Cause::Cancelled => "cancelled",
            Cause::Refused => "refused",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stream that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) at: SystemTime,
    /// Its `gateway_client_id`; empty where that was not known.
    pub(crate) id: Box<str>,
    pub(crate) peer: Peer,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) cause: Cause,
    /// The cause in words, with its figures.
    pub(crate) detail: String,
    pub(crate) lasted: Duration,
    /// The last event that was delivered.
    pub(crate) position: Option<Cursor>,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// Events that it was told it has missed, or that were published and not delivered.
    pub(crate) missed: u64,
}

/// The streams that have ended of late.
#[derive(Debug, Default)]
pub(super) struct RecentEnds(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    /// Each with its number, from 1.
    ends: VecDeque<(u64, Arc<Ended>)>,
    refusals: VecDeque<(u64, Arc<Ended>)>,
    /// How many there have been.
    count: u64,
}

impl RecentEnds {
    pub(super) fn push(&self, ended: Ended) {
        let mut recent = lock(&self.0);
        recent.count += 1;
        let number = recent.count;
        let (queue, kept) = match ended.cause {
            Cause::Refused => (&mut recent.refusals, KEPT_REFUSALS),
            _ => (&mut recent.ends, KEPT),
        };
        if queue.len() == kept {
            queue.pop_front();
        }
        queue.push_back((number, Arc::new(ended)));
    }

    /// How many there have been, kept or not.
    pub(super) fn count(&self) -> u64 {
        lock(&self.0).count
    }

    /// Those that are kept, the newest first.
    pub(super) fn newest(&self) -> Vec<Arc<Ended>> {
        let recent = lock(&self.0);
        let mut all: Vec<_> = recent
            .ends
            .iter()
            .chain(&recent.refusals)
            .map(|(_, ended)| Arc::clone(ended))
            .collect();
        drop(recent);
        all.sort_by_key(|ended| std::cmp::Reverse(ended.at));
        all
    }

    /// Of those that came after so many others, at most `most`, the newest first. Also how
    /// many there have been by then.
    pub(super) fn since(&self, count: u64, most: usize) -> (Vec<Arc<Ended>>, u64) {
        let recent = lock(&self.0);
        let newest = |queue: &VecDeque<(u64, Arc<Ended>)>| {
            let newest = queue.iter().rev().take_while(|(number, _)| *number > count);
            newest.take(most).cloned().collect::<Vec<_>>()
        };
        let mut newer = [newest(&recent.ends), newest(&recent.refusals)].concat();
        let count = recent.count;
        drop(recent);
        newer.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        newer.truncate(most);
        (newer.into_iter().map(|(_, ended)| ended).collect(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(cause: Cause, at: u64) -> Ended {
        Ended {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
            id: "g".into(),
            peer: Peer::Unknown,
            principal: None,
            cause,
            detail: String::new(),
            lasted: Duration::ZERO,
            position: None,
            events: 0,
            bytes: 0,
            missed: 0,
        }
    }

    #[test]
    fn a_flood_of_refusals_hides_no_end() {
        let recent = RecentEnds::default();
        for at in 0..10 {
            recent.push(ended(Cause::Lapped, at));
        }
        for at in 10..10_000 {
            recent.push(ended(Cause::Refused, at));
        }
        let newest = recent.newest();
        assert_eq!(newest.len(), 10 + KEPT_REFUSALS);
        let lapped = newest.iter().filter(|end| end.cause == Cause::Lapped);
        assert_eq!(lapped.count(), 10);
        assert_eq!(newest[0].at, ended(Cause::Lapped, 9_999).at);
        assert_eq!(recent.count(), 10_000);
        let (newer, count) = recent.since(9_997, 2);
        let at = |newer: &[Arc<Ended>]| newer.iter().map(|of| of.at).collect::<Vec<_>>();
        let wanted = [9_999, 9_998].map(|at| ended(Cause::Refused, at).at);
        assert_eq!((at(&newer), count), (wanted.to_vec(), 10_000));
        let (newer, _) = recent.since(3, 1000);
        assert_eq!(newer.len(), 7 + KEPT_REFUSALS);
        assert!(recent.since(10_000, 2).0.is_empty());
    }
}
