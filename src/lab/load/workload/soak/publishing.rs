//! What producers publish, written into the record.

use std::collections::VecDeque;

use crate::cursor::Cursor;
use crate::lab::history::{self, Fingerprint, History};
use crate::lab::load::event::Batch;
use crate::lab::load::producers::PublishObserver;

/// How many of the newest events are remembered one by one: more than any ring of a
/// soak keeps, and what the record needs 8 bytes each for.
const REMEMBERED_EVENTS: u64 = 1 << 23;
/// How many events come between two times of forgetting.
const FORGET_EVENTS: u64 = 1 << 20;

/// The record of all producers.
pub(super) struct Publishing {
    history: History,
    producers: Vec<Producer>,
    forgotten: u64,
}

struct Producer {
    record: history::Producer,
    unanswered: VecDeque<(history::Publishing, Vec<Fingerprint>)>,
}

impl Publishing {
    pub(super) fn new(history: &History, producers: usize) -> Self {
        let producer = |who| Producer {
            record: history.producer(&format!("producer-{who}")),
            unanswered: VecDeque::new(),
        };
        Publishing {
            history: history.clone(),
            producers: (0..producers).map(producer).collect(),
            forgotten: 0,
        }
    }
}

impl PublishObserver for Publishing {
    fn publishing(&mut self, who: usize, batch: &Batch) {
        let producer = &mut self.producers[who];
        let events = batch.events().map(Fingerprint::of).collect();
        let publishing = producer.record.publishing();
        producer.unanswered.push_back((publishing, events));
    }

    fn accepted(&mut self, who: usize, places: Option<(Cursor, Cursor)>) {
        let producer = &mut self.producers[who];
        let Some((publishing, events)) = producer.unanswered.pop_front() else {
            return;
        };
        let Some((first, last)) = places else {
            producer.record.unanswered(publishing, &events);
            return;
        };
        producer.record.accepted(publishing, first, last, &events);
        let old = last.seq().number().saturating_sub(REMEMBERED_EVENTS);
        if old > self.forgotten + FORGET_EVENTS {
            self.forgotten = old;
            let old = Cursor::new(last.epoch(), crate::cursor::Seq::new(old));
            self.history.forget_before(old);
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        for (publishing, events) in self.unanswered.drain(..) {
            self.record.unanswered(publishing, &events);
        }
    }
}
