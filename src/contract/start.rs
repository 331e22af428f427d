//! Where a stream starts, and why there: the words of `push-resume` and
//! `push-resume-reason`.

use std::fmt;

/// Whether a stream goes on where the gateway stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It begins with the event after the requested cursor.
    Resumed,
    /// It begins with whatever is published next.
    Fresh,
}

impl Resume {
    /// The value of `push-resume`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Resume::Resumed => "resumed",
            Resume::Fresh => "fresh",
        }
    }

    /// What the value of `push-resume` says; `None` for any other text.
    #[must_use]
    pub fn from_value(value: &str) -> Option<Self> {
        [Resume::Resumed, Resume::Fresh]
            .into_iter()
            .find(|resume| resume.as_str() == value)
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a stream starts where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// `requested`: the server has every event after the requested cursor.
    Requested,
    /// `no-cursor`: none was requested.
    NoCursor,
    /// `expired`: the ring has dropped what comes after the cursor, or it is
    /// older than the resume window.
    Expired,
    /// `ahead`: the server has not got that far.
    Ahead,
    /// `other-epoch`: another engine assigned the cursor. The server was
    /// restarted, or it is another one.
    OtherEpoch,
    /// `malformed`: the server does not take it for a cursor.
    Malformed,
    /// A word that this version does not know.
    Other(String),
}

impl Reason {
    const KNOWN: [Reason; 6] = [
        Reason::Requested,
        Reason::NoCursor,
        Reason::Expired,
        Reason::Ahead,
        Reason::OtherEpoch,
        Reason::Malformed,
    ];

    /// The value of `push-resume-reason`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Reason::Requested => "requested",
            Reason::NoCursor => "no-cursor",
            Reason::Expired => "expired",
            Reason::Ahead => "ahead",
            Reason::OtherEpoch => "other-epoch",
            Reason::Malformed => "malformed",
            Reason::Other(word) => word,
        }
    }

    /// What the value of `push-resume-reason` says.
    #[must_use]
    pub fn from_value(value: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|reason| reason.as_str() == value)
            .unwrap_or_else(|| Reason::Other(value.to_owned()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for resume in [Resume::Resumed, Resume::Fresh] {
            assert_eq!(Resume::from_value(resume.as_str()), Some(resume));
        }
        assert_eq!(Resume::from_value("Resumed"), None);
        for reason in Reason::KNOWN {
            assert_eq!(Reason::from_value(reason.as_str()), reason);
        }
        let unknown = Reason::from_value("by-lot");
        assert_eq!(unknown, Reason::Other("by-lot".to_owned()));
        assert_eq!(unknown.to_string(), "by-lot");
    }
}
