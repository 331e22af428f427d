//! What a `session_invalidation` says.

use super::wire::{Scanner, WireError};
use super::{EVENT_DEPTH, Event, KIND_DEPTH, ReceivedError};

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
        read(event).ok().flatten()
    }
}

fn read(event: &[u8]) -> Result<Option<Invalidation<'_>>, WireError> {
    let mut found: Option<Invalidation<'_>> = None;
    let mut fields = Scanner::new(event);
    while let Some(key) = fields.next_key()? {
        match key.number() {
            // The other kind takes the place of what was before it.
            1 => {
                fields.value(key, "client_event")?;
                found = None;
            }
            2 => {
                let message = fields.message(key, "session_invalidation")?;
                merge(message, found.get_or_insert_default())?;
            }
            _ => fields.skip(key, EVENT_DEPTH)?,
        }
    }
    Ok(found)
}

fn merge<'a>(mut fields: Scanner<'a>, into: &mut Invalidation<'a>) -> Result<(), WireError> {
    while let Some(key) = fields.next_key()? {
        let Some((field, _)) = into.field(key.number()) else {
            fields.skip(key, KIND_DEPTH)?;
            continue;
        };
        let text = fields.value(key, "session_invalidation")?;
        // It was validated to be one.
        *field = std::str::from_utf8(text).unwrap_or_default();
    }
    Ok(())
}

/// The same of bytes that were not validated.
pub(super) fn merge_checked<'a>(
    mut fields: Scanner<'a>,
    into: &mut Invalidation<'a>,
) -> Result<(), ReceivedError> {
    while let Some(key) = fields.next_key()? {
        let Some((field, name)) = into.field(key.number()) else {
            fields.skip(key, KIND_DEPTH)?;
            continue;
        };
        let text = fields.value(key, "session_invalidation")?;
        *field = std::str::from_utf8(text).map_err(|_| ReceivedError::Utf8 { field: name })?;
    }
    Ok(())
}

impl<'a> Invalidation<'a> {
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
