//! Events that differ from one another.

use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{ClientEvent, PushEvent, SessionInvalidation};

/// The `n`th event of a test: each differs from the others.
pub fn event(n: u64) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: format!("user-{}", n % 1000),
            kind: "turn.ready".to_owned(),
            payload: format!(r#"{{"turn":{n}}}"#).into(),
            event_id: format!("event-{n}"),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

/// An event with `bytes` of payload.
pub fn large_event(bytes: usize) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: "user".to_owned(),
            kind: "mail".to_owned(),
            payload: vec![b'x'; bytes].into(),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

pub fn invalidation(user_id: &str) -> PushEvent {
    PushEvent {
        kind: Some(Kind::SessionInvalidation(SessionInvalidation {
            user_id: user_id.to_owned(),
            device_session_id: String::new(),
            reason: "banned".to_owned(),
        })),
        cursor: String::new(),
    }
}
