//! Publishers: single events and batches, of all sizes, some of which are refused.

use std::thread;
use std::time::Duration;

use galaxy_push::cursor::{Cursor, Seq};
use galaxy_push::engine::{self, PublishError};
use galaxy_push::event::Event;
use galaxy_push::lab::history::{self, Fingerprint};

use crate::event;
use crate::random::Random;
use crate::round::Round;

/// Publishes until the engine is closed.
pub(crate) fn publish_until_closed(round: &Round<'_>, number: usize) {
    let mut publisher = Publisher::new(round, number);
    let mut random = round.random(number);
    loop {
        // In a burst the next event is there before the readers have read the last
        // one; between bursts they find nothing and park.
        let inside = round.gate.enter();
        for _ in 0..random.below(300) {
            let events = match random.below(40) {
                0..30 => 1,
                30..39 => 2 + random.below(12),
                _ => 100 + random.below(200),
            };
            let sizes = |random: &mut Random| match random.below(20) {
                0 => 8 + random.below(round.shape.payload_bytes - 8),
                _ => 8 + random.below(round.shape.payload_bytes / 10),
            };
            publisher.make(&mut random, events, sizes);
            if random.one_in(50) {
                let too_large = round.engine.limits().max_event_bytes;
                let place = random.below(events);
                publisher.replace(place, too_large);
            }
            if publisher.publish() == Err(PublishError::Closed) {
                return;
            }
        }
        drop(inside);
        match random.below(8) {
            0 => thread::sleep(Duration::from_millis(2)),
            1..4 => thread::sleep(Duration::from_micros(50)),
            _ => thread::yield_now(),
        }
    }
}

/// Publishes batches of so many events, one after another, until the engine is closed.
pub(crate) fn hurry(round: &Round<'_>, number: usize, events: usize) {
    let mut publisher = Publisher::new(round, number);
    let mut random = round.random(100 + number);
    let fitting = round.engine.limits().max_batch_bytes / 100;
    let events = events.min(fitting as usize);
    loop {
        publisher.make(&mut random, events, |random| 8 + random.below(40));
        if publisher.publish() == Err(PublishError::Closed) {
            return;
        }
    }
}

/// One publisher, its record and its next batch.
pub(crate) struct Publisher {
    publisher: engine::Publisher,
    record: history::Publisher,
    /// What tells its events from all others.
    next: u64,
    bytes: Vec<Vec<u8>>,
    fingerprints: Vec<Fingerprint>,
}

impl Publisher {
    pub(crate) fn new(round: &Round<'_>, number: usize) -> Self {
        Publisher {
            publisher: round.engine.publisher(),
            record: round.history.publisher(&format!("publisher-{number}")),
            next: (number as u64) << 40,
            bytes: Vec::new(),
            fingerprints: Vec::new(),
        }
    }

    /// Makes a batch of so many events.
    pub(crate) fn make(
        &mut self,
        random: &mut Random,
        events: usize,
        size: impl Fn(&mut Random) -> usize,
    ) {
        self.bytes.resize_with(events, Vec::new);
        self.fingerprints.clear();
        for bytes in &mut self.bytes {
            bytes.clear();
            match random.below(20) {
                0 => {
                    let user = b'A' + random.below(40) as u8;
                    event::encode_invalidation(user, self.next, size(random), bytes);
                }
                _ => event::encode(self.next, size(random), bytes),
            }
            self.fingerprints.push(Fingerprint::of(bytes));
            self.next += 1;
        }
    }

    /// Makes one of its events another one, of this size.
    fn replace(&mut self, place: usize, size: usize) {
        let bytes = &mut self.bytes[place];
        bytes.clear();
        event::encode(self.next, size, bytes);
        self.fingerprints[place] = Fingerprint::of(bytes);
        self.next += 1;
    }

    /// Publishes the batch.
    pub(crate) fn publish(&mut self) -> Result<(), PublishError> {
        let parse = |bytes| Event::parse(bytes).expect("well encoded");
        let publishing = self.record.publishing();
        let outcome = if let [bytes] = &self.bytes[..] {
            let outcome = self.publisher.publish(parse(bytes));
            outcome.map(|cursor| (cursor, cursor))
        } else {
            let events: Vec<_> = self.bytes.iter().map(|bytes| parse(bytes)).collect();
            let outcome = self.publisher.publish_batch(&events);
            outcome.map(|published| (published.first, published.last))
        };
        match outcome {
            Ok((first, last)) => {
                (self.record).accepted(publishing, first, last, &self.fingerprints);
                for (seq, bytes) in (first.seq().number()..).zip(&self.bytes) {
                    if let Some(session) = event::session(parse(bytes)) {
                        let at = Cursor::new(first.epoch(), Seq::new(seq));
                        self.record.invalidated(at, session);
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.record.refused(&self.fingerprints);
                Err(error)
            }
        }
    }
}
