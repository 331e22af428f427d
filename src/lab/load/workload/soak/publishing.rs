//! The batches of the publishers, written into the history.

use std::collections::VecDeque;

use crate::cursor::Cursor;
use crate::lab::history::{self, Fingerprint, History};
use crate::lab::load::event::Batch;
use crate::lab::load::publishers::PublishObserver;

/// How many of the newest events are remembered one by one: more than any ring of a
/// soak keeps, and what the record needs 8 bytes each for.
const REMEMBERED_EVENTS: u64 = 1 << 23;
/// How many events come between two times of forgetting.
const FORGET_EVENTS: u64 = 1 << 20;

/// The record of all publishers.
pub(super) struct Publishing {
    history: History,
    publishers: Vec<Publisher>,
    forgotten: u64,
}

struct Publisher {
    record: history::Publisher,
    in_flight: VecDeque<(history::Publishing, Vec<Fingerprint>)>,
}

impl Publishing {
    pub(super) fn new(history: &History, publishers: usize) -> Self {
        let publisher = |who| Publisher {
            record: history.publisher(&format!("publisher-{who}")),
            in_flight: VecDeque::new(),
        };
        Publishing {
            history: history.clone(),
            publishers: (0..publishers).map(publisher).collect(),
            forgotten: 0,
        }
    }
}

impl PublishObserver for Publishing {
    fn publishing(&mut self, who: usize, batch: &Batch) {
        let publisher = &mut self.publishers[who];
        let events = batch.events().map(Fingerprint::of).collect();
        let publishing = publisher.record.publishing();
        publisher.in_flight.push_back((publishing, events));
    }

    fn accepted(&mut self, who: usize, places: Option<(Cursor, Cursor)>) {
        let publisher = &mut self.publishers[who];
        let Some((publishing, events)) = publisher.in_flight.pop_front() else {
            return;
        };
        let Some((first, last)) = places else {
            publisher.record.no_response(publishing, &events);
            return;
        };
        publisher.record.accepted(publishing, first, last, &events);
        let old = last.seq().number().saturating_sub(REMEMBERED_EVENTS);
        if old > self.forgotten + FORGET_EVENTS {
            self.forgotten = old;
            let old = Cursor::new(last.epoch(), crate::cursor::Seq::new(old));
            self.history.forget_before(old);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        for (publishing, events) in self.in_flight.drain(..) {
            self.record.no_response(publishing, &events);
        }
    }
}
