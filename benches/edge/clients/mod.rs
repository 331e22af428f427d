//! The gateways and publishers of the servers that do not speak our contract: their
//! protocols, without sockets.

pub(crate) mod jetstream;
pub(crate) mod nats;
mod owed;
pub(crate) mod redis_pubsub;
pub(crate) mod redis_streams;
pub(crate) mod tcp;

use std::borrow::Cow;

use galaxy_push::lab::load::{End, ProtocolError};

use crate::wire::Malformed;

/// The channel, subject or key that all events go through.
const EVENTS: &str = "events";

/// What the server said in place of what was asked for.
fn end(message: &[u8]) -> End {
    End {
        code: 2,
        message: String::from_utf8_lossy(message).into_owned(),
        missed: None,
    }
}

fn unexpected(what: impl Into<Cow<'static, str>>) -> ProtocolError {
    ProtocolError::new(what)
}

impl From<Malformed> for ProtocolError {
    fn from(malformed: Malformed) -> Self {
        ProtocolError::new(malformed.to_string())
    }
}
