//! A response's fields, checked (RFC 9113, section 8).

use http::HeaderMap;

use super::error::Error;
use super::header_block::FieldList;
use super::request::{FIELD_OVERHEAD, regular_field};

/// Collects the fields of a response's head or of its trailers as they are decoded.
#[derive(Clone, Debug)]
pub(super) struct ResponseFields {
    room: usize,
    status: Option<u16>,
    fields: HeaderMap,
    failed: Option<Error>,
}

const MALFORMED: Error = Error::protocol("malformed fields of a response");
const TOO_LARGE: Error = Error::calm("the fields of a response are too large");

impl FieldList for ResponseFields {
    fn with_room(max_bytes: usize) -> Self {
        ResponseFields {
            room: max_bytes,
            status: None,
            fields: HeaderMap::new(),
            failed: None,
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        let bytes = name.len() + value.len() + FIELD_OVERHEAD;
        let Some(room) = self.room.checked_sub(bytes) else {
            return self.add_too_long();
        };
        self.room = room;
        if self.try_add(name, value).is_none() {
            self.failed.get_or_insert(MALFORMED);
        }
    }

    fn add_too_long(&mut self) {
        self.failed.get_or_insert(TOO_LARGE);
    }
}

impl ResponseFields {
    fn try_add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if let [b':', name @ ..] = name {
            let is_status = name == b"status" && self.status.is_none() && self.fields.is_empty();
            let digits = <&[u8; 3]>::try_from(value).ok()?;
            let is_number = is_status && digits.iter().all(u8::is_ascii_digit);
            let number = |digits: &[u8; 3]| digits.iter().fold(0, add_digit);
            self.status = Some(is_number.then(|| number(digits))?);
            return Some(());
        }
        let (name, value) = regular_field(name, value)?;
        self.fields.try_append(name, value).ok()?;
        Some(())
    }

    /// The status and the fields of a head.
    pub(super) fn head(self) -> Result<(u16, HeaderMap), Error> {
        match (self.failed, self.status) {
            (None, Some(status)) => Ok((status, self.fields)),
            (failed, _) => Err(failed.unwrap_or(MALFORMED)),
        }
    }

    /// The fields of trailers.
    pub(super) fn trailers(self) -> Result<HeaderMap, Error> {
        match (self.failed, self.status) {
            (None, None) => Ok(self.fields),
            (failed, _) => Err(failed.unwrap_or(MALFORMED)),
        }
    }
}

fn add_digit(number: u16, digit: &u8) -> u16 {
    10 * number + u16::from(digit - b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(fields: &[(&str, &str)]) -> ResponseFields {
        let mut collected = ResponseFields::with_room(200);
        for (name, value) in fields {
            collected.add(name.as_bytes(), value.as_bytes());
        }
        collected
    }

    #[test]
    fn a_head_has_a_status_and_trailers_have_none() {
        let head = collect(&[(":status", "200"), ("a", "b")]);
        let (status, fields) = head.clone().head().unwrap();
        assert_eq!((status, fields["a"].as_bytes()), (200, &b"b"[..]));
        assert_eq!(head.trailers(), Err(MALFORMED));
        let trailers = collect(&[("a", "b")]);
        assert_eq!(trailers.clone().trailers().unwrap().len(), 1);
        assert_eq!(trailers.head(), Err(MALFORMED));
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        for fields in [
            &[(":status", "20")][..],
            &[(":status", "abc")],
            &[(":status", "200"), (":status", "200")],
            &[("a", "b"), (":status", "200")],
            &[(":status", "200"), (":path", "200")],
            &[(":status", "200"), ("Upper", "x")],
            &[(":status", "200"), ("connection", "close")],
        ] {
            assert_eq!(collect(fields).head(), Err(MALFORMED), "{fields:?}");
        }
        let long = "x".repeat(150);
        let long = collect(&[(":status", "200"), ("a", &long)]);
        assert_eq!(long.head(), Err(TOO_LARGE));
    }
}
