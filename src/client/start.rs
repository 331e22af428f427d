//! [`Start`]: what the server's initial metadata says about where a stream
//! begins.

use std::fmt;

use tonic::metadata::MetadataMap;

use super::item::Violation;
use crate::cursor::Cursor;

/// `resumed` or `fresh`.
const RESUME: &str = "push-resume";
/// Why, such as `requested` or `expired`.
const REASON: &str = "push-resume-reason";
/// The position just before the first event to come.
const START_CURSOR: &str = "push-start-cursor";
/// How many events were lost, decimal.
const MISSED: &str = "push-missed";

/// Where a stream begins, and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Whether it goes on after the requested cursor.
    pub resume: Resume,
    /// Why.
    pub reason: Reason,
    /// The position just before the first event to come. Persist it at once.
    pub cursor: Cursor,
}

/// Whether a stream goes on where the gateway stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It begins with the event after the requested cursor.
    Resumed,
    /// It begins with whatever is published next.
    Fresh,
}

/// Why a stream begins where it does, in the server's word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// `requested`: the cursor is one that the server can go on from.
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
    fn from_word(word: &str) -> Self {
        match word {
            "requested" => Reason::Requested,
            "no-cursor" => Reason::NoCursor,
            "expired" => Reason::Expired,
            "ahead" => Reason::Ahead,
            "other-epoch" => Reason::OtherEpoch,
            "malformed" => Reason::Malformed,
            other => Reason::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Requested => "requested",
            Reason::NoCursor => "no-cursor",
            Reason::Expired => "expired",
            Reason::Ahead => "ahead",
            Reason::OtherEpoch => "other-epoch",
            Reason::Malformed => "malformed",
            Reason::Other(word) => word,
        })
    }
}

impl Start {
    /// Reads the initial metadata of the answer to a subscription that
    /// requested `requested`: where the stream starts, and how many events lie
    /// between, where the server says it.
    pub(super) fn read(
        metadata: &MetadataMap,
        requested: Option<Cursor>,
    ) -> Result<(Start, Option<u64>), Violation> {
        let resume = match text(metadata, RESUME)? {
            "resumed" => Resume::Resumed,
            "fresh" => Resume::Fresh,
            _ => return Err(Violation::Metadata { key: RESUME }),
        };
        let reason = Reason::from_word(text(metadata, REASON)?);
        let cursor = Cursor::parse(text(metadata, START_CURSOR)?.as_bytes())
            .map_err(|_| Violation::Metadata { key: START_CURSOR })?;
        if resume == Resume::Resumed && requested != Some(cursor) {
            return Err(Violation::ResumedElsewhere {
                requested,
                start: cursor,
            });
        }
        let start = Start {
            resume,
            reason,
            cursor,
        };
        Ok((start, missed(metadata)))
    }
}

/// The count in a status's trailers or in the initial metadata, if there is
/// one. A count that is no number is no count: that there is a gap is known
/// without it.
pub(super) fn missed(metadata: &MetadataMap) -> Option<u64> {
    metadata.get(MISSED)?.to_str().ok()?.parse().ok()
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<&'a str, Violation> {
    metadata
        .get(key)
        .and_then(|value| value.to_str().ok())
        .ok_or(Violation::Metadata { key })
}
