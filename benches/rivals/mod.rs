//! What the engine is compared with. Each publishes a `Bytes` that it makes of a
//! ready frame, as the engine copies an event into its ring.

mod async_broadcast;
mod crossbeam_channel;
mod disruptor;
mod tokio_broadcast;

use std::sync::LazyLock;

use crate::common::{EVENTS, NUMBER_AT, events};

pub(crate) use self::async_broadcast::AsyncBroadcast;
pub(crate) use self::crossbeam_channel::CrossbeamChannel;
pub(crate) use self::disruptor::{Disruptor, DisruptorOfMany, Inline};
pub(crate) use self::tokio_broadcast::TokioBroadcast;

/// What gRPC puts before an event.
const HEADER_BYTES: usize = 5;
/// The cursor, as a field after the event.
const CURSOR_FIELD_BYTES: usize = 26;
const FRAME_BYTES: usize = 250;

type Frames = [[u8; FRAME_BYTES]; EVENTS];

/// The events as the engine's subscribers get them.
fn frames() -> &'static Frames {
    static FRAMES: LazyLock<Frames> = LazyLock::new(|| {
        events().map(|event| {
            let mut frame = [b'0'; FRAME_BYTES];
            frame[HEADER_BYTES..FRAME_BYTES - CURSOR_FIELD_BYTES].copy_from_slice(event.as_bytes());
            frame
        })
    });
    &FRAMES
}

/// The number of the event in a frame.
fn number(frame: &[u8]) -> u64 {
    let number = frame[HEADER_BYTES + NUMBER_AT..].first_chunk();
    u64::from_le_bytes(*number.expect("it is a whole frame"))
}
