//! Publishable events: `PushEvent` messages that are validated in place.
//!
//! A gateway gets the bytes that the publisher sent, followed by the cursor as
//! one more field. So nothing is decoded and encoded again: [`Event::parse`]
//! scans the bytes once and allocates nothing. An [`Event`] is the proof that
//! the bytes were validated.
//!
//! This room must never accept bytes that a gateway cannot decode. One such
//! event in the ring would break every gateway's stream, again at each resume.
//! So it accepts exactly what prost accepts, merging included: the last value of
//! a repeated field counts, two occurrences of `client_event` are merged, and a
//! `session_invalidation` after a `client_event` replaces it.

mod invalidation;
#[cfg(feature = "otlp")]
mod names;
mod received;
mod tagged;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use self::tagged::Tagged;
use self::wire::{REQUEST_DEPTH, Scanner, WireError};

pub use self::invalidation::Invalidation;
pub(crate) use self::received::Recipient;
pub use self::received::{ClientFields, Received, ReceivedError, ReceivedKind};
pub use self::wire::WireProblem;

/// The nesting limit for groups in an unknown field of an event. Each enclosing
/// message takes one level from the request's limit.
const EVENT_DEPTH: usize = REQUEST_DEPTH - 1;
/// The same for the message within an event.
const KIND_DEPTH: usize = EVENT_DEPTH - 1;

/// A valid `PushEvent`, borrowed, as its publisher encoded it.
///
/// Only [`Event::parse`] makes one, so its holder need not validate it again.
///
/// ```
/// use galaxy_push::event::{Event, EventError};
///
/// // PushEvent { session_invalidation { user_id: "u1" } }
/// let event = Event::parse(b"\x12\x04\x12\x02u1")?;
/// assert_eq!(event.as_bytes(), b"\x12\x04\x12\x02u1");
///
/// let refused = Event::parse(b"\x12\x00").unwrap_err();
/// assert_eq!(refused.to_string(), "session_invalidation.user_id is empty");
/// # Ok::<(), EventError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Event<'a> {
    tagged: Tagged<'a>,
}

impl<'a> Event<'a> {
    /// Validates the bytes of one `PushEvent`. Unknown fields are accepted, and
    /// stay in the bytes.
    ///
    /// # Errors
    ///
    /// [`EventError`] is the first problem in the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventError> {
        let mut kind = Kind::Unset;
        let mut fields = Scanner::new(bytes);
        while let Some(key) = fields.next_key()? {
            match key.number() {
                1 => {
                    let message = fields.message(key, "client_event")?;
                    kind = client_event(message, kind)?;
                }
                2 => {
                    let message = fields.message(key, "session_invalidation")?;
                    kind = session_invalidation(message, kind)?;
                }
                3 => {
                    if !fields.value(key, "cursor")?.is_empty() {
                        return Err(EventError::CursorSet);
                    }
                }
                _ => fields.skip(key, EVENT_DEPTH)?,
            }
        }
        let is_invalidation = kind.check()?;
        match Tagged::new(bytes, is_invalidation) {
            Some(tagged) => Ok(Event { tagged }),
            None => Err(EventError::TooLarge { bytes: bytes.len() }),
        }
    }

    /// Whether it is a `session_invalidation`: else it is a `client_event`.
    #[must_use]
    pub const fn is_session_invalidation(self) -> bool {
        self.tagged.is_invalidation()
    }

    /// The validated bytes, unchanged.
    #[must_use]
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.tagged.bytes()
    }

    /// How many bytes there are; for a `session_invalidation` more than any event has. So one
    /// comparison with a limit finds what is to be looked at, and nothing else.
    #[inline]
    pub(crate) const fn marked_size(self) -> u64 {
        self.tagged.size()
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("bytes", &self.as_bytes())
            .finish()
    }
}

/// The state of the oneof `kind` after the fields read so far.
#[derive(Clone, Copy)]
enum Kind {
    Unset,
    ClientEvent { has_user: bool, has_kind: bool },
    SessionInvalidation { has_user: bool },
}

impl Kind {
    /// Whether it is a `session_invalidation`, if it has all that it needs.
    #[inline]
    const fn check(self) -> Result<bool, EventError> {
        let field = match self {
            Kind::Unset => return Err(EventError::NoKind),
            Kind::ClientEvent {
                has_user: false, ..
            } => "client_event.user_id",
            Kind::ClientEvent {
                has_kind: false, ..
            } => "client_event.kind",
            Kind::SessionInvalidation { has_user: false } => "session_invalidation.user_id",
            Kind::ClientEvent { .. } => return Ok(false),
            Kind::SessionInvalidation { .. } => return Ok(true),
        };
        Err(EventError::Empty { field })
    }
}

#[inline]
fn client_event(mut fields: Scanner<'_>, before: Kind) -> Result<Kind, EventError> {
    let (mut has_user, mut has_kind) = match before {
        Kind::ClientEvent { has_user, has_kind } => (has_user, has_kind),
        Kind::Unset | Kind::SessionInvalidation { .. } => (false, false),
    };
    while let Some(key) = fields.next_key()? {
        let field = match key.number() {
            1 => "client_event.user_id",
            2 => "client_event.device_session_id",
            3 => "client_event.kind",
            4 => {
                fields.value(key, "client_event.payload")?;
                continue;
            }
            5 => "client_event.event_id",
            6 => "client_event.request_id",
            7 => "client_event.trace_id",
            _ => {
                fields.skip(key, KIND_DEPTH)?;
                continue;
            }
        };
        let text = text(fields.value(key, field)?, field)?;
        match key.number() {
            1 => has_user = !text.is_empty(),
            3 => has_kind = !text.is_empty(),
            _ => {}
        }
    }
    Ok(Kind::ClientEvent { has_user, has_kind })
}

#[inline]
fn session_invalidation(mut fields: Scanner<'_>, before: Kind) -> Result<Kind, EventError> {
    let mut has_user = matches!(before, Kind::SessionInvalidation { has_user: true });
    while let Some(key) = fields.next_key()? {
        let field = match key.number() {
            1 => "session_invalidation.device_session_id",
            2 => "session_invalidation.user_id",
            3 => "session_invalidation.reason",
            _ => {
                fields.skip(key, KIND_DEPTH)?;
                continue;
            }
        };
        let text = text(fields.value(key, field)?, field)?;
        if key.number() == 2 {
            has_user = !text.is_empty();
        }
    }
    Ok(Kind::SessionInvalidation { has_user })
}

#[inline]
fn text<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a [u8], EventError> {
    // Ids and kinds are nearly always ASCII, which is quicker to check.
    if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
        Ok(bytes)
    } else {
        Err(EventError::NotUtf8 { field })
    }
}

/// How many events of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// Events with a `client_event`.
    pub client_events: usize,
    /// Events with a `session_invalidation`.
    pub session_invalidations: usize,
}

/// Validates each event in the bytes of a `PublishRequest`, and appends them to
/// `events` in order. On error nothing is appended. Unknown fields of the request
/// itself are skipped. Returns how many of each kind were appended.
///
/// `max_event_bytes` limits each event, as its publisher encoded it.
///
/// # Errors
///
/// [`RequestError`] is the first problem. It names the event and the field.
pub fn parse_publish_request<'a>(
    request: &'a [u8],
    max_event_bytes: usize,
    events: &mut Vec<Event<'a>>,
) -> Result<KindCounts, RequestError> {
    let before = events.len();
    let result = append_events(request, max_event_bytes, events);
    if result.is_err() {
        events.truncate(before);
    }
    result
}

fn append_events<'a>(
    request: &'a [u8],
    max_event_bytes: usize,
    events: &mut Vec<Event<'a>>,
) -> Result<KindCounts, RequestError> {
    let before = events.len();
    let mut counts = KindCounts::default();
    let mut fields = Scanner::new(request);
    while let Some(key) = fields.next_key()? {
        if key.number() != 1 {
            fields.skip(key, REQUEST_DEPTH)?;
            continue;
        }
        let bytes = fields.value(key, "events")?;
        let index = events.len() - before;
        if bytes.len() > max_event_bytes {
            return Err(RequestError::EventTooLarge {
                index,
                bytes: bytes.len(),
                limit: max_event_bytes,
            });
        }
        match Event::parse(bytes) {
            Ok(event) => {
                events.push(event);
                counts.session_invalidations += usize::from(event.is_session_invalidation());
            }
            Err(source) => return Err(RequestError::Event { index, source }),
        }
    }
    if events.len() == before {
        return Err(RequestError::NoEvents);
    }
    counts.client_events = events.len() - before - counts.session_invalidations;
    Ok(counts)
}

/// Why bytes are not a publishable event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// Neither a `client_event` nor a `session_invalidation`.
    #[error("kind is not set")]
    NoKind,
    /// A required field is empty.
    #[error("{field} is empty")]
    Empty {
        /// The field, as the contract names it.
        field: &'static str,
    },
    /// The event has a cursor, which only publishing may assign.
    #[error("cursor is already set")]
    CursorSet,
    /// A string field is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field, as the contract names it.
        field: &'static str,
    },
    /// It has 4 GiB or more.
    #[error("the event has {bytes} bytes, more than any may have")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not a protobuf message of this type.
    #[error("not a valid PushEvent at byte {at}: {problem}")]
    Malformed {
        /// The offset in the event's bytes.
        at: usize,
        /// What is wrong there.
        problem: WireProblem,
    },
}

impl EventError {
    /// The text between the event's name and this error: a dot where the error
    /// begins with the name of a field.
    const fn joint(&self) -> &'static str {
        match self {
            EventError::Malformed { .. } => " is ",
            EventError::TooLarge { .. } => ": ",
            _ => ".",
        }
    }
}

impl From<WireError> for EventError {
    fn from(WireError { at, problem }: WireError) -> Self {
        EventError::Malformed { at, problem }
    }
}

/// Why a `PublishRequest` is refused. Nothing of it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It has no events.
    #[error("events is empty")]
    NoEvents,
    /// One of its events is refused.
    #[error("events[{index}]{}{source}", source.joint())]
    Event {
        /// Its index, from 0.
        index: usize,
        /// Why.
        source: EventError,
    },
    /// One of its events is too large.
    #[error("events[{index}] has {bytes} bytes, more than the {limit} that an event may have")]
    EventTooLarge {
        /// Its index, from 0.
        index: usize,
        /// Its size, as the publisher encoded it.
        bytes: usize,
        /// The largest size allowed.
        limit: usize,
    },
    /// Not a protobuf message of this type.
    #[error("not a valid PublishRequest at byte {at}: {problem}")]
    Malformed {
        /// The offset in the request's bytes.
        at: usize,
        /// What is wrong there.
        problem: WireProblem,
    },
}

impl From<WireError> for RequestError {
    fn from(WireError { at, problem }: WireError) -> Self {
        RequestError::Malformed { at, problem }
    }
}
