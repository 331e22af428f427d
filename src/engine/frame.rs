//! A frame: one event as it goes over the wire.
//!
//! ```text
//! 0x00 | u32 big-endian length | the publisher's PushEvent | 0x1A 0x18 cursor
//!  1   |          4            |            n             |       26
//! ```
//!
//! The first five bytes are gRPC's message prefix (not compressed, length). The
//! last 26 are protobuf field 3, the cursor, whose length never varies: a frame's
//! size is known before its sequence is.

use crate::cursor::{Cursor, Epoch, Seq, SeqHigh, SeqLow};

/// gRPC's length-prefixed message header: compression flag and length.
pub(crate) const HEADER_BYTES: usize = 5;
/// The appended cursor field: tag, length, text.
pub(crate) const CURSOR_FIELD_BYTES: usize = Cursor::FIELD_BYTES;
/// What a frame adds to the publisher's bytes, which is all of one [without an
/// event](super::Subscriber::position_frame).
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + CURSOR_FIELD_BYTES;

/// `PushEvent.cursor`: field 3, length-delimited.
const CURSOR_TAG: u8 = (3 << 3) | 2;

/// A frame's size in bytes, for an event of `event_bytes`.
pub(crate) const fn frame_bytes(event_bytes: usize) -> usize {
    event_bytes + OVERHEAD_BYTES
}

/// The five bytes before an event.
pub(crate) fn header(event_bytes: usize) -> [u8; HEADER_BYTES] {
    // The engine's builder limits events to far less than 4 GiB.
    let length = (event_bytes + CURSOR_FIELD_BYTES) as u32;
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

/// A frame without an event: its cursor says how far a stream has come.
pub(super) fn of_position(cursor: Cursor) -> [u8; OVERHEAD_BYTES] {
    let mut frame = [0; OVERHEAD_BYTES];
    let (prefix, field) = frame.split_at_mut(HEADER_BYTES);
    prefix.copy_from_slice(&header(0));
    field[0] = CURSOR_TAG;
    field[1] = Cursor::TEXT_BYTES as u8;
    field[2..].copy_from_slice(cursor.to_text().as_bytes());
    frame
}

/// Makes the 26 bytes that follow an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct CursorFields {
    /// What all of an epoch have in common: tag, length, and the text up to the
    /// sequence.
    start: [u8; CURSOR_FIELD_BYTES - Seq::DIGITS],
}

impl CursorFields {
    pub(super) fn new(epoch: Epoch) -> Self {
        let mut start = [0; CURSOR_FIELD_BYTES - Seq::DIGITS];
        start[0] = CURSOR_TAG;
        start[1] = Cursor::TEXT_BYTES as u8;
        let cursor = Cursor::new(epoch, Seq::ZERO).to_text();
        let text = cursor.as_bytes();
        start[2..].copy_from_slice(&text[..text.len() - Seq::DIGITS]);
        CursorFields { start }
    }

    /// The field of event `seq`, in three parts: put together here, it would be copied
    /// once more, and from memory that was written just before.
    pub(super) fn of(&self, seq: u64) -> (&[u8], SeqHigh, SeqLow) {
        let (high, low) = Seq::issued(seq).digits();
        (&self.start, high, low)
    }
}

/// The `PushEvent` messages in a run of whole frames, without their headers.
#[derive(Clone, Debug)]
#[must_use = "iterators do nothing until they are used"]
pub struct Events<'a> {
    frames: &'a [u8],
}

impl<'a> Events<'a> {
    pub(crate) fn new(frames: &'a [u8]) -> Self {
        Events { frames }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (header, rest) = self.frames.split_first_chunk::<HEADER_BYTES>()?;
        let [_, a, b, c, d] = *header;
        let (event, rest) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
        self.frames = rest;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_header_event_and_cursor_field() {
        let epoch = Epoch::new(0, 0).unwrap();
        let mut frame = header(3).to_vec();
        frame.extend_from_slice(b"abc");
        let fields = CursorFields::new(epoch);
        let (start, high, low) = fields.of(33);
        frame.extend([start, &high, &low].concat());
        assert_eq!(frame.len(), frame_bytes(3));
        assert_eq!(&frame[..5], [0, 0, 0, 0, 29]);
        assert_eq!(&frame[8..], b"\x1A\x18000000000000-00000000011");
        let twice = [frame.clone(), frame].concat();
        assert_eq!(Events::new(&twice).count(), 2);
    }
}
