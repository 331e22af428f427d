//! What a `session_invalidation` says.

use super::wire::Scanner;
use super::{Event, KIND_DEPTH, Received, ReceivedError, ReceivedKind};

/// The fields of a `session_invalidation`, borrowed from the event.
///
/// ```
/// use galaxy_push::event::Event;
///
/// // PushEvent { session_invalidation { device_session_id: "s1", user_id: "u1" } }
/// let event = Event::parse(b"\x12\x08\x0a\x02s1\x12\x02u1").unwrap();
/// let invalidation = event.invalidation().unwrap();
/// assert_eq!(invalidation.user_id, "u1");
/// assert_eq!(invalidation.device_session_id, "s1");
/// assert_eq!(invalidation.reason, "");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Invalidation<'a> {
    /// The user whose sessions are revoked; never empty.
    pub user_id: &'a str,
    /// The session; empty for all sessions of the user.
    pub device_session_id: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl<'a> Event<'a> {
    /// Its fields, as prost would read them; `None` for a `client_event`.
    #[must_use]
    pub fn invalidation(self) -> Option<Invalidation<'a>> {
        if !self.is_session_invalidation() {
            return None;
        }
        Invalidation::of(self.as_bytes())
    }
}

impl<'a> Invalidation<'a> {
    /// Of bytes that were validated as an event; `None` if that is none of them.
    pub(crate) fn of(event: &'a [u8]) -> Option<Self> {
        match Received::parse(event).ok()?.kind {
            ReceivedKind::SessionInvalidation(invalidation) => Some(invalidation),
            ReceivedKind::ClientEvent(_) | ReceivedKind::Position => None,
        }
    }

    /// Takes in the fields of one more `session_invalidation`.
    pub(super) fn merge(&mut self, mut fields: Scanner<'a>) -> Result<(), ReceivedError> {
        while let Some(key) = fields.next_key()? {
            let Some((field, name)) = self.field(key.number()) else {
                fields.skip(key, KIND_DEPTH)?;
                continue;
            };
            let text = fields.value(key, "session_invalidation")?;
            *field = std::str::from_utf8(text).map_err(|_| ReceivedError::Utf8 { field: name })?;
        }
        Ok(())
    }

    /// The field of this number, and its name.
    fn field(&mut self, number: u32) -> Option<(&mut &'a str, &'static str)> {
        Some(match number {
            1 => (
                &mut self.device_session_id,
                "session_invalidation.device_session_id",
            ),
            2 => (&mut self.user_id, "session_invalidation.user_id"),
            3 => (&mut self.reason, "session_invalidation.reason"),
            _ => return None,
        })
    }
}
