//! [`Start`]: what the server's initial metadata says about where a stream
//! begins.

use tonic::metadata::MetadataMap;

use super::violation::Violation;
use crate::contract::metadata::{
    PUSH_HEAD_CURSOR, PUSH_HEARTBEAT, PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON,
    PUSH_REVOCATIONS, PUSH_REVOCATIONS_COUNT, PUSH_START_CURSOR,
};
use crate::contract::revocations::Completeness;
use crate::contract::start::{Reason, Resume};
use crate::cursor::Cursor;

/// Where a stream begins, and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Whether it goes on after the requested cursor.
    pub resume: Resume,
    /// Why.
    pub reason: Reason,
    /// The position just before the first event to come. Persist it at once; with
    /// [`revocations`](Self::revocations) not before [`Item::Replayed`](super::Item::Replayed).
    pub cursor: Cursor,
    /// The missed invalidations that come first, where that was
    /// [asked for](super::Builder::replay_revocations), the stream is fresh, and the server has
    /// such a thing.
    pub revocations: Option<Revocations>,
    /// Where the newest event was when the stream began: whoever has come to it has caught up. Of
    /// a stream that has resumed, `None` if a replay was not
    /// [asked for](super::Builder::replay_revocations), or the server does not tell.
    pub head: Option<Cursor>,
    /// Whether the server sends heartbeats, as it was [asked to](super::Builder::heartbeat).
    pub sends_heartbeats: bool,
}

/// The invalidations that were missed, as far as the server has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocations {
    /// Whether they are all there. If not, every session has to be validated anew.
    pub completeness: Completeness,
    /// How many come.
    pub count: u64,
}

impl Start {
    /// Reads the initial metadata of the response to a subscription that
    /// requested `requested`: where the stream starts, and how many events lie
    /// between, where the server says it.
    ///
    /// `is_replay` says whether a replay was asked for.
    pub(super) fn read(
        metadata: &MetadataMap,
        requested: Option<Cursor>,
        is_replay: bool,
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
        let is_replay = is_replay && resume == Resume::Fresh;
        let start = Start {
            resume,
            reason,
            cursor,
            head: match resume {
                Resume::Fresh => Some(cursor),
                Resume::Resumed => match metadata.get(PUSH_HEAD_CURSOR) {
                    None => None,
                    Some(value) => {
                        let head = Cursor::parse(value.as_bytes());
                        let head = head.ok().filter(|head| head.epoch() == cursor.epoch());
                        Some(head.ok_or(unreadable(PUSH_HEAD_CURSOR))?)
                    }
                },
            },
            sends_heartbeats: metadata.contains_key(PUSH_HEARTBEAT),
            revocations: match metadata.get(PUSH_REVOCATIONS).filter(|_| is_replay) {
                None => None,
                Some(_) => Some(Revocations::read(metadata)?),
            },
        };
        Ok((start, missed(metadata)))
    }
}

impl Revocations {
    fn read(metadata: &MetadataMap) -> Result<Self, Violation> {
        let unreadable = |key| Violation::Metadata { key };
        let completeness = Completeness::from_value(text(metadata, PUSH_REVOCATIONS)?);
        let count = text(metadata, PUSH_REVOCATIONS_COUNT)?.parse().ok();
        Ok(Revocations {
            completeness: completeness.ok_or(unreadable(PUSH_REVOCATIONS))?,
            count: count.ok_or(unreadable(PUSH_REVOCATIONS_COUNT))?,
        })
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
