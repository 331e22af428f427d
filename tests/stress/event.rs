//! Events that differ from one another, and what is remembered of them.

use galaxy_push::cursor::Cursor;
use galaxy_push::lab::history::Fingerprint;

/// The field that the engine appends: tag, length, cursor.
const CURSOR_FIELD_BYTES: usize = 2 + Cursor::TEXT_BYTES;

/// The encoding of `PushEvent { client_event: { user_id: "u", kind: "k", payload } }`
/// with a payload of `size` bytes, at least 8, that begins with `number`. Appends it.
pub(crate) fn encode(number: u64, size: usize, to: &mut Vec<u8>) {
    let fields = b"\x0a\x01u\x1a\x01k\x22";
    to.push(0x0a);
    varint(fields.len() + varint_bytes(size) + size, to);
    to.extend(fields);
    varint(size, to);
    to.extend(number.to_le_bytes());
    let filling = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    to.extend(filling.iter().cycle().take(size - 8));
}

fn varint(mut n: usize, to: &mut Vec<u8>) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

fn varint_bytes(n: usize) -> usize {
    let mut bytes = Vec::new();
    varint(n, &mut bytes);
    bytes.len()
}

/// A delivered event: the cursor that it carries, and the rest of it.
pub(crate) fn read(event: &[u8]) -> (Cursor, Fingerprint) {
    let (published, field) = event.split_at(event.len() - CURSOR_FIELD_BYTES);
    assert_eq!(field[..2], [3 << 3 | 2, Cursor::TEXT_BYTES as u8]);
    let cursor = Cursor::parse(&field[2..]).expect("a cursor ends each event");
    (cursor, Fingerprint::of(published))
}
