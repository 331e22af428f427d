//! A message of the stream: one batch or more, joined, with headers that number its events.
//!
//! The payload is a `PublishRequest`: protobuf joins repeated fields, so several are one when
//! their bytes stand side by side. Anybody can read it with the publisher's proto.

use std::fmt;
use std::str::FromStr;

use async_nats::HeaderMap;

use crate::cursor::Seq;

/// The most events of a message: no batch of an engine has more. So a message that nobody has
/// seen had at most so many.
pub(super) const MAX_EVENTS: u64 = 1 << 22;
/// What the headers of a message take at most, in bytes, with those of the fence.
pub(super) const MAX_HEADER_BYTES: usize = 512;

const FIRST: &str = "Galaxy-First";
const COUNT: &str = "Galaxy-Count";
const NONCE: &str = "Galaxy-Nonce";

/// The field `events` of a `PublishRequest`, length-delimited.
const EVENTS: u8 = 1 << 3 | 2;

/// A place between two messages of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The stream's sequence of the message before it; 0 at the beginning.
    pub(super) message: u64,
    /// How many events were numbered up to there.
    pub(super) events: u64,
}

/// What the headers of a message say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The number of its first event.
    pub(super) first: u64,
    /// How many events it has; none, if it is a checkpoint.
    pub(super) count: u64,
    pub(super) nonce: Nonce,
}

/// Who has written a message, and by which attempt. No two messages that were numbered
/// differently have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce {
    /// Random, for each start of a replica.
    pub(super) replica: u64,
    /// Counts up.
    pub(super) attempt: u64,
}

/// Why a message is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StampError {
    #[error("it has no header {0}")]
    Missing(&'static str),
    #[error("its header {0} is no such value")]
    Malformed(&'static str),
}

impl Stamp {
    /// The number of its last event. Of a checkpoint, which has none: of the one before it.
    pub(super) fn last(self) -> u64 {
        self.first - 1 + self.count
    }

    pub(super) fn read(headers: Option<&HeaderMap>) -> Result<Self, StampError> {
        let stamp = Stamp {
            first: number(headers, FIRST)?,
            count: number(headers, COUNT)?,
            nonce: number(headers, NONCE)?,
        };
        if stamp.first == 0 {
            return Err(StampError::Malformed(FIRST));
        }
        if stamp.count > MAX_EVENTS {
            return Err(StampError::Malformed(COUNT));
        }
        if stamp.first > Seq::MAX.number() || stamp.last() > Seq::MAX.number() {
            return Err(StampError::Malformed(FIRST));
        }
        Ok(stamp)
    }

    pub(super) fn write(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(FIRST, self.first.to_string());
        headers.insert(COUNT, self.count.to_string());
        headers.insert(NONCE, self.nonce.to_string());
        headers
    }
}

fn number<T: FromStr>(headers: Option<&HeaderMap>, name: &'static str) -> Result<T, StampError> {
    let value = headers.and_then(|headers| headers.get(name));
    let value = value.ok_or(StampError::Missing(name))?;
    let parsed = value.as_str().parse();
    parsed.map_err(|_| StampError::Malformed(name))
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.replica, self.attempt)
    }
}

impl FromStr for Nonce {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (replica, attempt) = text.split_once('-').ok_or(())?;
        if replica.len() != 16 {
            return Err(());
        }
        Ok(Nonce {
            replica: u64::from_str_radix(replica, 16).map_err(|_| ())?,
            attempt: attempt.parse().map_err(|_| ())?,
        })
    }
}

/// How many bytes of a payload an event of this size takes.
pub(super) fn encoded_bytes(event: usize) -> usize {
    // A length of 7 bits each byte.
    let length_bytes = (event.max(1).ilog2() / 7 + 1) as usize;
    1 + length_bytes + event
}

/// Appends an event to a payload.
pub(super) fn encode(event: &[u8], payload: &mut Vec<u8>) {
    payload.push(EVENTS);
    let mut length = event.len();
    while length >= 0x80 {
        payload.push(length as u8 | 0x80);
        length >>= 7;
    }
    payload.push(length as u8);
    payload.extend_from_slice(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::push::{PushEvent, SessionInvalidation, push_event::Kind};
    use crate::event::parse_publish_request;
    use prost::Message;

    #[test]
    fn headers_say_what_was_stamped() {
        let stamp = Stamp {
            first: 7,
            count: 3,
            nonce: Nonce {
                replica: 0xabc,
                attempt: 12,
            },
        };
        let headers = stamp.write();
        assert_eq!(headers.get(NONCE).unwrap().as_str(), "0000000000000abc-12");
        assert_eq!(Stamp::read(Some(&headers)), Ok(stamp));
        assert_eq!(stamp.last(), 9);
        let checkpoint = Stamp { count: 0, ..stamp };
        assert_eq!(Stamp::read(Some(&checkpoint.write())), Ok(checkpoint));
        assert_eq!(checkpoint.last(), 6);
        let refused = |name: &str, value: &str| {
            let mut headers = stamp.write();
            headers.insert(name, value);
            Stamp::read(Some(&headers)).unwrap_err()
        };
        assert_eq!(Stamp::read(None), Err(StampError::Missing(FIRST)));
        let max = u64::MAX.to_string();
        let beyond = (Seq::MAX.number() - 1).to_string();
        for (name, value) in [
            (FIRST, "0"),
            (FIRST, "-1"),
            (FIRST, &max),
            (FIRST, &beyond),
            (COUNT, "-1"),
            (COUNT, "4194305"),
            (NONCE, "abc-12"),
            (NONCE, "0000000000000abc"),
            (NONCE, "0000000000000abc-x"),
        ] {
            let error = refused(name, value);
            assert!(
                matches!(error, StampError::Malformed(it) if it == name),
                "{name} {value}"
            );
        }
    }

    #[test]
    fn a_payload_is_a_publish_request() {
        let mut payload = Vec::new();
        let mut bytes = 0;
        let users = [1, 60, 127, 128, 300, 20_000].map(|length| "u".repeat(length));
        let events = users.each_ref().map(|user| {
            let invalidation = SessionInvalidation {
                user_id: user.clone(),
                ..Default::default()
            };
            let event = PushEvent {
                kind: Some(Kind::SessionInvalidation(invalidation)),
                ..Default::default()
            };
            event.encode_to_vec()
        });
        for event in &events {
            encode(event, &mut payload);
            bytes += encoded_bytes(event.len());
            assert_eq!(payload.len(), bytes, "of {}", event.len());
        }
        let mut parsed = Vec::new();
        parse_publish_request(&payload, usize::MAX, &mut parsed).unwrap();
        let parsed: Vec<_> = parsed.iter().map(|event| event.as_bytes()).collect();
        assert_eq!(parsed, events);
    }
}
