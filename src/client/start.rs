//! [`Start`]: what the server's initial metadata says about where a stream
//! begins.

use tonic::metadata::MetadataMap;

use super::violation::Violation;
use crate::contract::metadata::{PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON, PUSH_START_CURSOR};
use crate::contract::start::{Reason, Resume};
use crate::cursor::Cursor;

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

impl Start {
    /// Reads the initial metadata of the response to a subscription that
    /// requested `requested`: where the stream starts, and how many events lie
    /// between, where the server says it.
    pub(super) fn read(
        metadata: &MetadataMap,
        requested: Option<Cursor>,
    ) -> Result<(Start, Option<u64>), Violation> {
        let unreadable = |key| Violation::Metadata { key };
        let resume =
            Resume::from_value(text(metadata, PUSH_RESUME)?).ok_or(unreadable(PUSH_RESUME))?;
        let reason = Reason::from_value(text(metadata, PUSH_RESUME_REASON)?);
        let cursor = Cursor::parse(text(metadata, PUSH_START_CURSOR)?.as_bytes())
            .map_err(|_| unreadable(PUSH_START_CURSOR))?;
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
    metadata.get(PUSH_MISSED)?.to_str().ok()?.parse().ok()
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<&'a str, Violation> {
    metadata
        .get(key)
        .and_then(|value| value.to_str().ok())
        .ok_or(Violation::Metadata { key })
}
