//! Events of any size, each different from the others.

use galaxy_push::event::Event;

use crate::model::FRAME_OVERHEAD;

/// What an event without a payload has.
pub(crate) const LEAST_EVENT_BYTES: usize = 10;

/// Makes them, encoded by hand.
pub(crate) struct Events {
    max_event_bytes: usize,
    made: u64,
}

impl Events {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Events {
            max_event_bytes,
            made: 0,
        }
    }

    /// One with a payload of `size` times 8 bytes, or what the limit leaves.
    pub(crate) fn valid(&mut self, size: usize) -> Vec<u8> {
        self.made += 1;
        // A payload has two or three bytes of key and length before it, and its
        // message one more of length when it is long.
        let room = (self.max_event_bytes - LEAST_EVENT_BYTES).saturating_sub(4);
        let size = (size * 8).min(room);
        let mut inner = b"\x0a\x02uu\x1a\x02kk".to_vec();
        if size > 0 {
            inner.push(0x22);
            push_length(&mut inner, size);
            let number = self.made.to_le_bytes();
            inner.extend_from_slice(&number.repeat(size / 8 + 1)[..size]);
        }
        let mut event = vec![0x0a];
        push_length(&mut event, inner.len());
        event.extend(inner);
        event
    }

    /// One that has nothing wrong but its size.
    pub(crate) fn too_large(&mut self) -> Vec<u8> {
        let mut event = self.valid(0);
        // An unknown field: alone with its key and length more than there is room.
        let filler = self.max_event_bytes - LEAST_EVENT_BYTES;
        event.push(0x7a);
        push_length(&mut event, filler);
        event.extend(vec![b'x'; filler]);
        event
    }
}

pub(crate) fn parse(event: &[u8]) -> Event<'_> {
    Event::parse(event).expect("it was made to be valid")
}

pub(crate) fn frame_bytes(event: Event<'_>) -> u64 {
    (event.as_bytes().len() + FRAME_OVERHEAD) as u64
}

/// A varint of up to 14 bits.
fn push_length(bytes: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        bytes.push(length as u8);
    } else {
        bytes.push(length as u8 | 0x80);
        bytes.push(u8::try_from(length >> 7).expect("two bytes of length"));
    }
}
