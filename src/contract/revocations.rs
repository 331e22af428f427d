//! Whether a stream begins with the invalidations that were missed before it: the values of
//! `push-revocations`.

use std::fmt;

/// What a gateway asks for: the only value of `push-revocations` in a request.
pub const REPLAY: &str = "replay";

/// Whether all of them are there: the values of `push-revocations` in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// `complete`: every invalidation between the requested cursor and the stream's start, or a
    /// newer one of the same user and session.
    Complete,
    /// `partial`: some may be missing, so that sessions have to be validated anew.
    Partial,
}

impl Completeness {
    /// The value of `push-revocations`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Completeness::Complete => "complete",
            Completeness::Partial => "partial",
        }
    }

    /// What the value of `push-revocations` says; `None` for any other text.
    #[must_use]
    pub fn from_value(value: &str) -> Option<Self> {
        [Completeness::Complete, Completeness::Partial]
            .into_iter()
            .find(|it| it.as_str() == value)
    }
}

impl fmt::Display for Completeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for it in [Completeness::Complete, Completeness::Partial] {
            assert_eq!(Completeness::from_value(&it.to_string()), Some(it));
        }
        assert_eq!(Completeness::from_value("Complete"), None);
    }
}
