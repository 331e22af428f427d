//! What a consumer or a publisher told.

use galaxy_push::cursor::Cursor;
use galaxy_push::lab::load::{
    Batch, Consumer, End, Publisher, Responses, Shape, Sink, Stamp, Start,
};

/// Notes everything.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) starts: Vec<Start>,
    pub(crate) events: Vec<Vec<u8>>,
    pub(crate) cursors: Vec<Option<Cursor>>,
    pub(crate) ends: Vec<End>,
    pub(crate) accepted: usize,
}

impl Sink for Record {
    fn started(&mut self, start: &Start) {
        self.starts.push(start.clone());
    }

    fn event(&mut self, event: &[u8], cursor: Option<Cursor>) {
        self.events.push(event.to_vec());
        self.cursors.push(cursor);
    }

    fn ended(&mut self, end: &End) {
        self.ends.push(end.clone());
    }
}

impl Responses for Record {
    fn accepted(&mut self, _places: Option<(Cursor, Cursor)>) {
        self.accepted += 1;
    }

    fn ended(&mut self, end: &End) {
        self.ends.push(end.clone());
    }
}

/// The consumer's record of these bytes, and what it replied, when it gets them byte by
/// byte: everything that it takes is taken in the end.
pub(crate) fn consume(consumer: &mut impl Consumer, bytes: &[u8]) -> (Record, Vec<u8>) {
    let (mut record, mut out) = (Record::default(), Vec::new());
    let mut taken = 0;
    for end in 0..=bytes.len() {
        let rest = &bytes[taken..end];
        taken += consumer.receive(rest, &mut out, &mut record).unwrap();
    }
    assert_eq!(taken, bytes.len());
    (record, out)
}

/// The same of a publisher.
pub(crate) fn respond(publisher: &mut impl Publisher, bytes: &[u8]) -> Record {
    let (mut record, mut out) = (Record::default(), Vec::new());
    let mut taken = 0;
    for end in 0..=bytes.len() {
        let rest = &bytes[taken..end];
        taken += publisher.receive(rest, &mut out, &mut record).unwrap();
    }
    assert_eq!(taken, bytes.len());
    record
}

/// So many events in one batch.
pub(crate) fn batch(first: u64, events: usize) -> Batch {
    let mut batch = Shape::with_payload(Shape::DEFAULT_PAYLOAD_BYTES).batch();
    let stamp = Stamp {
        publisher: 0,
        number: first,
        due_ns: 0,
        sent_ns: 0,
    };
    batch.fill(stamp, events);
    batch
}
