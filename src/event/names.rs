//! What an event is called by those that follow it.

use super::Event;
use super::wire::{Scanner, WireError};

/// The texts of an event that name it. The user and the payload are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    pub(crate) is_session_invalidation: bool,
    /// Of a client event, and so are the others.
    pub(crate) kind: &'a str,
    pub(crate) event_id: &'a str,
    pub(crate) trace_id: &'a str,
}

impl<'a> Event<'a> {
    /// Its names, as prost would read them.
    pub(crate) fn names(self) -> Names<'a> {
        // The bytes were validated: there is no error.
        names(self.as_bytes()).unwrap_or_default()
    }
}

fn names(event: &[u8]) -> Result<Names<'_>, WireError> {
    let mut names = Names::default();
    let mut fields = Scanner::new(event);
    while let Some(key) = fields.next_key()? {
        match key.number() {
            1 => {
                // A client event before it is merged with this one.
                if names.is_session_invalidation {
                    names = Names::default();
                }
                client_event(fields.message(key, "client_event")?, &mut names)?;
            }
            2 => {
                fields.value(key, "session_invalidation")?;
                names = Names {
                    is_session_invalidation: true,
                    ..Names::default()
                };
            }
            _ => fields.skip(key, super::EVENT_DEPTH)?,
        }
    }
    Ok(names)
}

fn client_event<'a>(mut fields: Scanner<'a>, names: &mut Names<'a>) -> Result<(), WireError> {
    while let Some(key) = fields.next_key()? {
        let name = match key.number() {
            3 => &mut names.kind,
            5 => &mut names.event_id,
            7 => &mut names.trace_id,
            _ => {
                fields.skip(key, super::KIND_DEPTH)?;
                continue;
            }
        };
        *name = std::str::from_utf8(fields.value(key, "client_event")?).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::contract::push::push_event::Kind;
    use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};

    fn client_event(kind: &str, event_id: &str, trace_id: &str) -> Vec<u8> {
        let event = ClientEvent {
            user_id: "u".to_owned(),
            kind: kind.to_owned(),
            payload: b"secret".to_vec().into(),
            event_id: event_id.to_owned(),
            trace_id: trace_id.to_owned(),
            ..ClientEvent::default()
        };
        encode(Kind::ClientEvent(event))
    }

    fn invalidation() -> Vec<u8> {
        encode(Kind::SessionInvalidation(SessionInvalidation {
            user_id: "u".to_owned(),
            ..SessionInvalidation::default()
        }))
    }

    fn encode(kind: Kind) -> Vec<u8> {
        let event = PushEvent {
            kind: Some(kind),
            ..PushEvent::default()
        };
        event.encode_to_vec()
    }

    #[test]
    fn names_are_what_prost_reads_when_messages_are_merged() {
        let (a, b) = (client_event("k", "e1", "t"), client_event("k", "e2", ""));
        for parts in [
            vec![&a],
            vec![&a, &b],
            vec![&a, &invalidation()],
            vec![&a, &invalidation(), &b],
            vec![&invalidation()],
        ] {
            let bytes: Vec<u8> = parts.into_iter().flatten().copied().collect();
            let names = Event::parse(&bytes).unwrap().names();
            let by_prost = PushEvent::decode(&*bytes).unwrap().kind.unwrap();
            let wanted = match &by_prost {
                Kind::ClientEvent(event) => Names {
                    is_session_invalidation: false,
                    kind: &event.kind,
                    event_id: &event.event_id,
                    trace_id: &event.trace_id,
                },
                Kind::SessionInvalidation(_) => Names {
                    is_session_invalidation: true,
                    ..Names::default()
                },
            };
            assert_eq!(names, wanted);
        }
    }
}
