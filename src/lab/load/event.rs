//! The events that are published to measure, and the stamp that each carries.
//!
//! All events of a run have one shape: the same bytes, but for the stamp, which is
//! the first 24 bytes of the payload. So it stands at a fixed place, and reading it
//! needs no decoding, whatever protocol the event came over.

use prost::Message as _;

use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent};

/// What tells an event from all others of its run, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which of the run's publishers published it.
    pub publisher: u8,
    /// The number of that publisher's events before it.
    pub number: u64,
    /// When it was to be published, on the machine's monotonic clock: whether it was
    /// or not, so that a publisher that is held up does not hide what that cost.
    pub due_ns: u64,
    /// When it was.
    pub sent_ns: u64,
}

impl Stamp {
    /// How many bytes of a payload it takes.
    pub const BYTES: usize = 24;
    /// The publisher's number stands above the event's.
    const NUMBER_BITS: u32 = 56;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let number = u64::from(self.publisher) << Self::NUMBER_BITS | self.number;
        let mut bytes = [0; Self::BYTES];
        let words = [number, self.due_ns, self.sent_ns];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [number, due_ns, sent_ns] = [0, 8, 16].map(|at| {
            let word = bytes[at..].first_chunk().copied();
            u64::from_be_bytes(word.unwrap_or_default())
        });
        Stamp {
            publisher: (number >> Self::NUMBER_BITS) as u8,
            number: number & ((1 << Self::NUMBER_BITS) - 1),
            due_ns,
            sent_ns,
        }
    }
}

/// The bytes of a run's events, with a hole for the stamp.
#[derive(Clone, Debug)]
pub struct Shape {
    event: Vec<u8>,
    stamp_at: usize,
}

/// What is around a payload in a frame of the contract: 31 bytes of framing and
/// cursor, 22 of other fields.
const AROUND_PAYLOAD_BYTES: usize = 53;

impl Shape {
    /// The payload with which frames are 250 bytes long.
    pub const DEFAULT_PAYLOAD_BYTES: usize = 250 - AROUND_PAYLOAD_BYTES;

    /// Events with a payload of so many bytes, at least a stamp's.
    #[must_use]
    pub fn with_payload(payload_bytes: usize) -> Self {
        let payload_bytes = payload_bytes.max(Stamp::BYTES);
        let event = PushEvent {
            kind: Some(Kind::ClientEvent(ClientEvent {
                user_id: "u1".into(),
                kind: "turn.ready".into(),
                payload: vec![b'x'; payload_bytes].into(),
                ..ClientEvent::default()
            })),
            cursor: String::new(),
        }
        .encode_to_vec();
        // The payload is the last field.
        let stamp_at = event.len() - payload_bytes;
        Shape { event, stamp_at }
    }

    /// How long each event is, as its publisher sends it.
    #[must_use]
    pub fn event_bytes(&self) -> usize {
        self.event.len()
    }

    /// The stamp of an event of this shape, or `None`: it is somebody else's.
    #[inline]
    #[must_use]
    pub fn stamp(&self, event: &[u8]) -> Option<Stamp> {
        if event.len() != self.event.len() || event[..self.stamp_at] != self.event[..self.stamp_at]
        {
            return None;
        }
        let stamp = event[self.stamp_at..].first_chunk()?;
        Some(Stamp::from_bytes(*stamp))
    }

    /// An empty batch of such events.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch {
            shape: self.clone(),
            events: Vec::new(),
        }
    }
}

/// Events that are published together.
#[derive(Clone, Debug)]
pub struct Batch {
    shape: Shape,
    events: Vec<u8>,
}

impl Batch {
    /// Makes it a batch of so many events: the stamp's, and those that follow it,
    /// which were due at the same time.
    pub fn fill(&mut self, first: Stamp, events: usize) {
        let event_bytes = self.shape.event.len();
        if self.events.len() != events * event_bytes {
            self.events = self.shape.event.repeat(events);
        }
        let mut stamp = first;
        for event in self.events.chunks_exact_mut(event_bytes) {
            let at = self.shape.stamp_at;
            event[at..at + Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
            stamp.number += 1;
        }
    }

    /// Each event's bytes.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.events.chunks_exact(self.shape.event.len())
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len() / self.shape.event.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_where_it_was_written() {
        let shape = Shape::with_payload(100);
        let mut batch = shape.batch();
        let first = Stamp {
            publisher: 200,
            number: (1 << 56) - 3,
            due_ns: u64::MAX,
            sent_ns: u64::MAX - 1,
        };
        batch.fill(first, 3);
        let stamps: Vec<Stamp> = batch.events().filter_map(|e| shape.stamp(e)).collect();
        let numbers: Vec<u64> = stamps.iter().map(|stamp| stamp.number).collect();
        assert_eq!(stamps[0], first);
        assert_eq!(numbers, [first.number, first.number + 1, first.number + 2]);
        assert_eq!(batch.len(), 3);

        let event = batch.events().next().unwrap();
        let decoded = PushEvent::decode(event).unwrap();
        let Some(Kind::ClientEvent(client)) = decoded.kind else {
            panic!("{decoded:?}");
        };
        assert_eq!(client.payload.len(), 100);
        assert_eq!(client.payload[..Stamp::BYTES], first.to_bytes());
    }

    #[test]
    fn the_default_makes_frames_of_250_bytes() {
        let shape = Shape::with_payload(Shape::DEFAULT_PAYLOAD_BYTES);
        let (prefix, cursor_field) = (5, 26);
        assert_eq!(prefix + shape.event_bytes() + cursor_field, 250);
    }

    #[test]
    fn other_events_have_no_stamp() {
        let shape = Shape::with_payload(Stamp::BYTES);
        let mut batch = shape.batch();
        let stamp = Stamp {
            publisher: 0,
            number: 0,
            due_ns: 0,
            sent_ns: 0,
        };
        batch.fill(stamp, 1);
        let event = batch.events().next().unwrap().to_vec();
        assert_eq!(shape.stamp(&event), Some(stamp));
        assert_eq!(shape.stamp(&event[1..]), None);
        assert_eq!(shape.stamp(&[]), None);
        for at in 0..shape.stamp_at {
            let mut other = event.clone();
            other[at] ^= 1;
            assert_eq!(shape.stamp(&other), None, "{at}");
        }
    }
}
