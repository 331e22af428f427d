//! Events that differ from one another, and what is remembered of them.

use galaxy_push::cursor::Cursor;
use galaxy_push::event::Event;
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

/// The encoding of `PushEvent { session_invalidation: { user_id, reason } }`, with a reason that
/// begins with `number` in digits and has `size` bytes in all, at least 20. Appends it.
pub(crate) fn encode_invalidation(user: u8, number: u64, size: usize, to: &mut Vec<u8>) {
    let mut reason = format!("{number:020}").into_bytes();
    reason.resize(size.max(20), b'.');
    let fields = [0x12, 1, user, 0x1a];
    to.push(0x12);
    varint(fields.len() + varint_bytes(reason.len()) + reason.len(), to);
    to.extend(fields);
    varint(reason.len(), to);
    to.extend(reason);
}

/// The session that it revokes, of an event that is an invalidation.
pub(crate) fn session(event: Event<'_>) -> Option<Fingerprint> {
    let invalidation = event.invalidation()?;
    Some(Fingerprint::of(invalidation.user_id.as_bytes()))
}

/// Of whole frames: the cursor of each invalidation, and the session that it revokes.
pub(crate) fn read_replay(frames: &[u8]) -> Vec<(Cursor, Fingerprint)> {
    let mut found = Vec::new();
    let mut rest = frames;
    while let Some((prefix, after)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let (message, next) = after.split_at(length as usize);
        let (published, _) = message.split_at(message.len() - CURSOR_FIELD_BYTES);
        let event = Event::parse(published).expect("it was published");
        let session = session(event).expect("it is an invalidation");
        found.push((read(message).0, session));
        rest = next;
    }
    found
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
