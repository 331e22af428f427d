//! Who holds which gateway id, and since when: in the order in which the calls were
//! made and granted, as far as that order is known.
//!
//! A stream is over once a newer subscription of its id, begun after it was
//! granted, is granted in turn. Nothing that is published from then on may be in
//! it. To check this without the time of every event, takeovers are numbered, and a
//! publisher notes the first event that it published after each of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use super::violation::{StreamId, Violation};
use crate::cursor::Cursor;

#[derive(Debug, Default)]
pub(super) struct Takeovers {
    gateways: Mutex<HashMap<Arc<str>, Gateway>>,
    /// How many there were: each is counted after its subscription was granted.
    count: AtomicU64,
    over: Mutex<Vec<TakenOver>>,
    firsts: Mutex<Vec<Firsts>>,
}

/// What has happened to one id.
#[derive(Debug, Default)]
struct Gateway {
    /// Counts the beginnings and the responses, to tell which was first.
    clock: u64,
    begun: u64,
    pending: u64,
    open: Vec<OpenStream>,
}

#[derive(Debug)]
struct OpenStream {
    number: u64,
    granted_at: u64,
    /// The first takeover that ended it.
    taken_by: Option<u64>,
}

/// A subscription that was begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) stream: StreamId,
    begun_at: u64,
    /// Whether others were begun before and are pending: they may be newer.
    rivals: bool,
}

/// A stream that was taken over, and how far it had come.
#[derive(Debug)]
struct TakenOver {
    stream: StreamId,
    last: Cursor,
    takeover: u64,
}

/// The first events that one publisher published after takeovers: how many takeovers
/// were known when it began, and the cursor in its response.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    /// Both numbers grow: a response that comes with fewer takeovers known, and stands
    /// later, tells nothing new.
    list: Vec<(u64, Cursor)>,
}

impl Firsts {
    /// A response: what was begun when `takeovers` were known stands at `cursor`.
    pub(super) fn note(&mut self, takeovers: u64, cursor: Cursor) {
        if takeovers == 0 || self.after(takeovers).is_some_and(|known| known <= cursor) {
            return;
        }
        let later = self.list.partition_point(|(known, _)| *known <= takeovers);
        let told_more = self.list[..later].partition_point(|(_, known)| *known < cursor);
        self.list.splice(told_more..later, [(takeovers, cursor)]);
    }

    /// The first event that was begun when at least so many takeovers were known.
    fn after(&self, takeovers: u64) -> Option<Cursor> {
        let at = self.list.partition_point(|(known, _)| *known < takeovers);
        self.list.get(at).map(|(_, cursor)| *cursor)
    }
}

impl Takeovers {
    /// How many takeovers were granted so far.
    pub(super) fn count(&self) -> u64 {
        // Acquire: what is done after reading it is done after those takeovers.
        self.count.load(Ordering::Acquire)
    }

    /// A subscription is about to be asked for.
    pub(super) fn begin(&self, id: &str) -> Begun {
        let mut gateways = lock(&self.gateways);
        let (id, gateway) = match gateways.get_key_value(id) {
            Some((id, _)) => {
                let id = Arc::clone(id);
                (Arc::clone(&id), gateways.entry(id).or_default())
            }
            None => {
                let id: Arc<str> = id.into();
                (Arc::clone(&id), gateways.entry(id).or_default())
            }
        };
        gateway.clock += 1;
        gateway.begun += 1;
        let begun = Begun {
            stream: StreamId {
                gateway: id,
                number: gateway.begun,
            },
            begun_at: gateway.clock,
            rivals: gateway.pending > 0,
        };
        gateway.pending += 1;
        begun
    }

    /// It was refused.
    pub(super) fn refuse(&self, begun: &Begun) {
        self.with(&begun.stream, |gateway| gateway.pending -= 1);
    }

    /// It was granted: a stream that had been granted when it began is over now.
    pub(super) fn grant(&self, begun: &Begun) {
        self.with(&begun.stream, |gateway| {
            gateway.clock += 1;
            gateway.pending -= 1;
            let mut older = gateway
                .open
                .iter_mut()
                .filter(|open| open.granted_at < begun.begun_at && open.taken_by.is_none())
                .peekable();
            if older.peek().is_some() {
                // Release: pairs with the Acquire in `count`.
                let number = self.count.fetch_add(1, Ordering::Release) + 1;
                older.for_each(|open| open.taken_by = Some(number));
            }
            gateway.open.push(OpenStream {
                number: begun.stream.number,
                granted_at: gateway.clock,
                taken_by: None,
            });
        });
    }

    /// A stream has ended, after `last` if it received anything. Returns whether
    /// there was anybody who could have taken it over.
    pub(super) fn end(&self, begun: &Begun, last: Option<Cursor>) -> bool {
        let (taken_by, rivals) = self.with(&begun.stream, |gateway| {
            let number = begun.stream.number;
            let at = gateway.open.iter().position(|open| open.number == number);
            let taken_by = at.and_then(|at| gateway.open.swap_remove(at).taken_by);
            (taken_by, begun.rivals || gateway.begun > number)
        });
        if let (Some(takeover), Some(last)) = (taken_by, last) {
            lock(&self.over).push(TakenOver {
                stream: begun.stream.clone(),
                last,
                takeover,
            });
        }
        rivals
    }

    /// Takes a publisher's notes.
    pub(super) fn note(&self, firsts: Firsts) {
        lock(&self.firsts).push(firsts);
    }

    /// The streams that received something from after their takeover.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let firsts = lock(&self.firsts);
        let after = |takeover| {
            (firsts.iter())
                .filter_map(|firsts| firsts.after(takeover))
                .min()
        };
        let outlived = |over: &TakenOver| {
            let after = after(over.takeover).filter(|after| *after <= over.last)?;
            Some(Violation::OutlivedTakeover {
                stream: over.stream.clone(),
                last: over.last,
                after,
            })
        };
        lock(&self.over).iter().filter_map(outlived).collect()
    }

    fn with<T>(&self, stream: &StreamId, f: impl FnOnce(&mut Gateway) -> T) -> T {
        let mut gateways = lock(&self.gateways);
        f(gateways.entry(Arc::clone(&stream.gateway)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Epoch, Seq};

    #[test]
    fn the_first_event_after_a_takeover_is_found_whatever_the_order_of_responses() {
        let cursor = |seq| Cursor::new(Epoch::MAX, Seq::new(seq));
        let responses = [(0, 1), (1, 3), (1, 4), (2, 5), (4, 7), (4, 9), (5, 8)];
        for rotation in 0..responses.len() {
            for reversed in [false, true] {
                let mut order = responses;
                order.rotate_left(rotation);
                if reversed {
                    order.reverse();
                }
                let mut firsts = Firsts::default();
                for (takeovers, seq) in order {
                    firsts.note(takeovers, cursor(seq));
                }
                let after = |takeovers| firsts.after(takeovers).map(|c| c.seq().number());
                let found: Vec<_> = (1..=6).map(after).collect();
                let expected = [Some(3), Some(5), Some(7), Some(7), Some(8), None];
                assert_eq!(found, expected, "{order:?}");
            }
        }
    }
}
