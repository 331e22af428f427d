//! [`Event`]: a client event, as its publisher encoded it.

use std::fmt;

use bytes::Bytes;

use crate::cursor::{Cursor, ParseCursorError};
use crate::event::{ClientFields, Received, ReceivedKind};

/// A client event for a session: a view of the bytes that came over the stream.
///
/// It keeps the buffer alive that it came in. Whoever keeps events for long copies what is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct Event(pub(super) Bytes);

impl Event {
    /// The `PushEvent`, as it came: the publisher's bytes, and the cursor.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The fields of the `client_event`, borrowed.
    #[must_use]
    pub fn fields(&self) -> ClientFields<'_> {
        match Received::parse(&self.0) {
            Ok(Received {
                kind: ReceivedKind::ClientEvent(fields),
                ..
            }) => fields,
            // Only what was read as a client event is put into a queue.
            _ => ClientFields::default(),
        }
    }

    /// The payload, without a copy.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.0.slice_ref(self.fields().payload)
    }

    /// Its place in the stream.
    ///
    /// # Errors
    ///
    /// [`ParseCursorError`], if a [`Feed`](super::Feed) was given an event with none.
    pub fn cursor(&self) -> Result<Cursor, ParseCursorError> {
        Cursor::parse(Received::parse(&self.0).map_or(b"", |received| received.cursor))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields();
        f.debug_struct("Event")
            .field("user_id", &String::from_utf8_lossy(fields.user_id))
            .field("kind", &String::from_utf8_lossy(fields.kind))
            .field("payload_bytes", &fields.payload.len())
            .finish_non_exhaustive()
    }
}
