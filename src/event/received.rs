//! [`Received`]: a `PushEvent` as a gateway gets it.

use super::wire::{Scanner, WireError, WireProblem};
use super::{EVENT_DEPTH, Invalidation, KIND_DEPTH};
use crate::cursor::Cursor;

/// The fields of a `PushEvent` that came over a stream, borrowed from its bytes. Nothing is
/// decoded that is not needed to say for whom it is.
///
/// ```
/// use galaxy_push::event::{Received, ReceivedKind};
///
/// // PushEvent { client_event { user_id: "u1", kind: "k" }, cursor: "c" }
/// let received = Received::parse(b"\x0a\x07\x0a\x02u1\x1a\x01k\x1a\x01c").unwrap();
/// assert_eq!(received.cursor, b"c");
/// let ReceivedKind::ClientEvent(event) = received.kind else { panic!() };
/// assert_eq!(event.user_id, b"u1");
/// assert_eq!(event.device_session_id, b"");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The cursor's text, as it came.
    pub cursor: &'a [u8],
    /// What it is.
    pub kind: ReceivedKind<'a>,
}

/// What a `PushEvent` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivedKind<'a> {
    /// A message for a user, or for one of its sessions.
    ClientEvent(ClientFields<'a>),
    /// Sessions are revoked.
    SessionInvalidation(Invalidation<'a>),
    /// A heartbeat, or the end of a replay: its cursor is all there is.
    Position,
}

/// The fields of a `client_event`, as they came: text is not checked to be UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFields<'a> {
    /// The recipient.
    pub user_id: &'a [u8],
    /// One session of the recipient; empty for all.
    pub device_session_id: &'a [u8],
    /// The kind of message.
    pub kind: &'a [u8],
    /// The content.
    pub payload: &'a [u8],
    /// The same for every copy of one logical event.
    pub event_id: &'a [u8],
    /// For correlation.
    pub request_id: &'a [u8],
    /// For tracing.
    pub trace_id: &'a [u8],
}

/// Bytes that are no `PushEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceivedError {
    /// They are not protobuf, or not of this message.
    #[error("byte {at} of a PushEvent: {problem}")]
    Wire {
        /// Where.
        at: usize,
        /// What is wrong there.
        problem: WireProblem,
    },
    /// A field that says which sessions are meant is not UTF-8.
    #[error("{field} is not UTF-8")]
    Utf8 {
        /// The field.
        field: &'static str,
    },
}

impl From<WireError> for ReceivedError {
    fn from(error: WireError) -> Self {
        ReceivedError::Wire {
            at: error.at,
            problem: error.problem,
        }
    }
}

impl<'a> Received<'a> {
    /// Reads the fields as prost would: the last value of a repeated field counts, messages are
    /// merged, and the last kind counts.
    ///
    /// # Errors
    ///
    /// [`ReceivedError`], if prost could not read them either. Text of client events is left as it is.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ReceivedError> {
        let mut cursor: &[u8] = b"";
        let mut kind = ReceivedKind::Position;
        let mut fields = Scanner::new(bytes);
        while let Some(key) = fields.next_key()? {
            match key.number() {
                1 => {
                    let message = fields.message(key, "client_event")?;
                    let mut merged = match kind {
                        ReceivedKind::ClientEvent(before) => before,
                        _ => ClientFields::default(),
                    };
                    merged.merge(message)?;
                    kind = ReceivedKind::ClientEvent(merged);
                }
                2 => {
                    let message = fields.message(key, "session_invalidation")?;
                    let mut merged = match kind {
                        ReceivedKind::SessionInvalidation(before) => before,
                        _ => Invalidation::default(),
                    };
                    merged.merge(message)?;
                    kind = ReceivedKind::SessionInvalidation(merged);
                }
                3 => cursor = fields.value(key, "cursor")?,
                _ => fields.skip(key, EVENT_DEPTH)?,
            }
        }
        Ok(Received { cursor, kind })
    }
}

/// For whom an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipient<'a> {
    pub(crate) user_id: &'a [u8],
    pub(crate) device_session_id: &'a [u8],
}

impl<'a> Recipient<'a> {
    /// For whom a client event is that is encoded as all libraries do it: each field once, in the
    /// order of their numbers, and the cursor behind it, as the server puts it there. `None`: ask
    /// [`Received::parse`].
    #[inline]
    pub(crate) fn quickly(event: &'a [u8]) -> Option<Self> {
        let (key, message, cursor) = field(event)?;
        let [CURSOR_KEY, TEXT_BYTES, ..] = *cursor else {
            return None;
        };
        if key != CLIENT_EVENT_KEY || cursor.len() != Cursor::FIELD_BYTES {
            return None;
        }
        let mut recipient = Recipient {
            user_id: b"",
            device_session_id: b"",
        };
        let (mut last, mut rest) = (0, message);
        while !rest.is_empty() {
            let (key, value, behind) = field(rest)?;
            if key <= last {
                return None;
            }
            match key {
                USER_ID_KEY => recipient.user_id = value,
                DEVICE_SESSION_ID_KEY => recipient.device_session_id = value,
                _ => {}
            }
            (last, rest) = (key, behind);
        }
        Some(recipient)
    }
}

/// A field's key and wire type in one byte, where it is length-delimited.
const fn delimited(number: u8) -> u8 {
    number << 3 | DELIMITED
}

const DELIMITED: u8 = 2;
const CLIENT_EVENT_KEY: u8 = delimited(1);
const CURSOR_KEY: u8 = delimited(3);
const USER_ID_KEY: u8 = delimited(1);
const DEVICE_SESSION_ID_KEY: u8 = delimited(2);
const TEXT_BYTES: u8 = Cursor::TEXT_BYTES as u8;

/// Key, value, and what is behind it, of a field whose key has one byte and whose length has one
/// or two.
#[inline]
fn field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (key, length, rest) = match *bytes {
        [key, length, ref rest @ ..] if length < 0x80 => (key, usize::from(length), rest),
        [key, low, high, ref rest @ ..] if high < 0x80 => {
            (key, usize::from(low & 0x7f) | usize::from(high) << 7, rest)
        }
        _ => return None,
    };
    let is_plain = key & 7 == DELIMITED && (delimited(1)..0x80).contains(&key);
    let (value, behind) = rest.split_at_checked(length).filter(|_| is_plain)?;
    Some((key, value, behind))
}

impl<'a> ClientFields<'a> {
    #[inline]
    fn merge(&mut self, mut fields: Scanner<'a>) -> Result<(), WireError> {
        while let Some(key) = fields.next_key()? {
            let field = match key.number() {
                1 => &mut self.user_id,
                2 => &mut self.device_session_id,
                3 => &mut self.kind,
                4 => &mut self.payload,
                5 => &mut self.event_id,
                6 => &mut self.request_id,
                7 => &mut self.trace_id,
                _ => {
                    fields.skip(key, KIND_DEPTH)?;
                    continue;
                }
            };
            *field = fields.value(key, "client_event")?;
        }
        Ok(())
    }
}
