//! The events that all benches of the engine publish.

use std::sync::LazyLock;

use galaxy_push::event::Event;

/// How many different events there are: few enough to stay in the nearest cache.
pub(crate) const EVENTS: usize = 64;
/// Where an event's number stands in its bytes: at the start of its payload.
pub(crate) const NUMBER_AT: usize = 12;
/// The engine's frame around an event adds 31 bytes, which makes 250.
const EVENT_BYTES: usize = 250 - 31;

/// `ClientEvent`s whose frames have 250 bytes, numbered from 0. They are validated
/// here, once.
pub(crate) fn events() -> &'static [Event<'static>; EVENTS] {
    static EVENTS_ONCE: LazyLock<[Event<'static>; EVENTS]> = LazyLock::new(|| {
        std::array::from_fn(|number| {
            Event::parse(encoded(number as u64).leak()).expect("a valid event")
        })
    });
    &EVENTS_ONCE
}

/// `PushEvent { client_event { user_id: "u", kind: "k", payload } }`.
fn encoded(number: u64) -> Vec<u8> {
    let mut payload = [b'x'; EVENT_BYTES - NUMBER_AT];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    let client_event = [
        b"\x0a\x01u\x1a\x01k\x22",
        &two_byte_varint(payload.len())[..],
        &payload,
    ]
    .concat();
    [
        b"\x0a",
        &two_byte_varint(client_event.len())[..],
        &client_event,
    ]
    .concat()
}

/// `PushEvent { session_invalidation { device_session_id, user_id, reason } }`, of ids as long
/// as UUIDs.
#[allow(dead_code, reason = "not every bench has invalidations")]
pub(crate) fn invalidation(session: usize) -> Vec<u8> {
    let id = |n: usize| format!("{n:08x}-4b1d-4c7e-9a52-{:012x}", n * 7919);
    let mut message = Vec::new();
    for (tag, text) in [
        (0x0A, id(session)),
        (0x12, id(session / 3)),
        (0x1A, "logout".to_owned()),
    ] {
        message.extend([tag, text.len() as u8]);
        message.extend(text.into_bytes());
    }
    [&[0x12, message.len() as u8][..], &message].concat()
}

fn two_byte_varint(value: usize) -> [u8; 2] {
    [0x80 | (value & 0x7f) as u8, (value >> 7) as u8]
}
